"""report.html is whole, needs no network, and shows hostile rows as text."""

import base64
import hashlib
import re
from dataclasses import replace

import pytest

from pipelines.report import plots
from pipelines.report.finished import open_finished
from pipelines.report.page import (
    Budget,
    chosen_rows,
    page_of,
    render,
    report,
    shorten_text,
    thumbnail,
)
from pipelines.report.plots import flow_links
from pipelines.report.texts import texts
from tests.html_page import Page
from tests.pipelines.made import drawing, finished, png, work_of


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    return open_finished(str(finished(tmp_path_factory.mktemp("mixture") / "by_hand")))


@pytest.fixture(scope="module")
def html(mixture):
    return report(mixture, work=work_of(mixture.folder))


def test_every_element_is_closed_in_order(html):
    assert Page(html).open == []


def test_the_page_needs_no_network(html):
    for tag, attributes in Page(html).elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form action")
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:image/webp;base64,")), (
                attributes
            )
    assert not re.search(r"url\((?!#)|@import", html)


def test_a_hostile_row_is_text_and_nothing_else(html):
    found = Page(html)
    assert [tag for tag, _ in found.elements].count("script") == 1
    handlers = [name for _, attributes in found.elements for name in attributes if name[:2] == "on"]
    assert handlers == []
    text = "".join(found.words)
    assert "<script>document.title='owned'</script>" in text
    assert "{{ 7*7 }} ${7*7}" in text
    assert not set(html) & set("\x1b\x07\u202e")


def test_the_policy_allows_only_the_pages_own_script(html):
    script = re.search(r"<script>(.*?)</script>\n</body>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    policy = next(a["content"] for t, a in Page(html).elements if "http-equiv" in a and t == "meta")
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_the_gallery_holds_rows_with_their_images_cuts_and_seconds(html):
    found = Page(html)
    assert html.count('<figure class="image frame">') == 3
    assert "00:04, 320x240, 1 crop, 67 tokens" in html
    assert "740x480, 2x3 crops + 1" in html
    assert '<path d="M1 0V2M2 0V2M0 1H3"/>' in html
    components = {a["data-component"] for _, a in found.elements if "data-component" in a}
    assert components == {"images", "pages", "video", "words"}


def test_near_samples_of_the_shards_stand_side_by_side(mixture):
    """A hostile row beside a video, and two texts; the page stays whole."""
    alike = {
        "radius": 4,
        "components": {
            "images": {
                **{"samples": 9000, "compared": 300, "near": 30, "same": 4, "other": 3, "split": 2}
            }
        },
        "pairs": [["cauldron/vqa/7", "llava_video/0_30_s/0"]],
    }
    near = {"components": {"words": {"compared": 2, "near": 1}}, "pairs": [["smoltalk/all/0"] * 2]}
    stats = {**mixture.stats, "alike": alike, "texts": {**texts(mixture), "near": near}}
    shown = report(replace(mixture, stats=stats))
    page = Page(shown)
    assert page.open == []
    assert [tag for tag, _ in page.elements].count("script") == 1
    part = re.search(r'<section id="alike">.*?</section>', shown, re.DOTALL)[0]
    assert "10.00 %" in part
    assert part.count('<div class="pair">') == 2
    assert part.count("<img ") == 2, "the image of one, the middle frame of the other"
    assert "and 2 more" in part
    assert part.count("Count to 3.") == 2
    assert '<td colspan="8" class="quiet">not compared</td>' in part, "pages and video"


def test_rejected_samples_stand_under_their_rule_with_their_image(html):
    found = Page(html)
    refused = {a["data-id"]: a["data-rule"] for _, a in found.elements if a.get("data-rule")}
    assert refused == {"cauldron/vqa/8": "blurred", "cauldron/vqa/9": "undecodable_image"}
    assert "Rejected by <code>small_image</code>" in html
    assert "does not decode" in html


def test_learned_text_is_marked_and_the_question_is_not(html):
    marked = re.findall(r'<span class="learned">(.*?)</span>', html, re.DOTALL)
    assert " The second." in marked
    assert not any("Which page" in text for text in marked)


def test_the_same_mixture_gives_the_same_page(mixture, html):
    assert report(mixture, work=work_of(mixture.folder)) == html


def test_what_is_published_shows_no_rejected_sample(mixture, html):
    """Without `work` the page has rule and id of a rejected sample, and nothing that it holds."""
    published, local = Page(report(mixture)), Page(html)
    assert "Its content is no part of the mixture" in " ".join(published.words)
    assert len(" ".join(published.words)) < len(" ".join(local.words))


def test_images_stop_at_the_budget_and_are_counted():
    budget = Budget(left=1)
    first = thumbnail(drawing(900, 600, 1), longest=512, budget=budget)
    assert first["source"].startswith("data:image/webp")
    assert (first["width"], first["height"]) == (900, 600)
    second = thumbnail(drawing(900, 600, 2), longest=512, budget=budget)
    assert (second["source"], second["note"], budget.left_out) == ("", "left out", 1)


def test_long_text_is_cut_and_says_how_much():
    assert shorten_text("x" * 2000) == "x" * 2000
    assert shorten_text("x" * 2001) == "x" * 2000 + " [... 1 characters more]"


def test_bytes_that_are_no_image_are_said_to_be_none():
    assert thumbnail(b"\xff\xd8nothing", longest=512, budget=Budget())["note"] == "does not decode"
    cut = png(300, 300)[:2000]
    assert thumbnail(cut, longest=512, budget=Budget())["note"] == "does not decode"


def test_chosen_rows_hold_every_component(mixture):
    places = chosen_rows(mixture)
    assert places == [("train-00000.arrow", 0), ("train-00001.arrow", 0), ("val-00000.arrow", 0)]
    assert chosen_rows(mixture, component="video") == [("val-00000.arrow", 0)]


def test_flow_counts_every_sample_once(mixture):
    links = flow_links(mixture.stats)
    assert sum(count for *_, count in links) == mixture.stats["read"]
    assert ("images", "small_image", 1) in links
    assert ("words", "in the shards", 2) in links


@pytest.mark.parametrize(
    ("words", "samples"),
    [
        ({"row": 1}, ["cauldron/ai2d/2", "docmatix/images/0"]),
        ({"id": "docmatix/images/0"}, ["cauldron/ai2d/2", "docmatix/images/0"]),
        ({"id": "cauldron/vqa/8"}, ["cauldron/vqa/8"]),
        ({"rule": "small_image"}, ["cauldron/vqa/8"]),
        ({"component": "video"}, ["llava_video/0_30_s/0", "smoltalk/all/1", "cauldron/vqa/7"]),
    ],
)
def test_a_page_of_what_was_asked_for(mixture, words, samples):
    found = Page(page_of(mixture, work=work_of(mixture.folder), **words))
    assert [a["data-id"] for _, a in found.elements if "data-id" in a] == samples


def test_a_page_of_what_is_not_there_says_so(mixture):
    with pytest.raises(ValueError, match=r"Did you mean 'small_image'"):
        page_of(mixture, work=work_of(mixture.folder), rule="smal_image")


def test_a_component_has_the_colour_of_its_place_everywhere(mixture, html):
    """In the table, the legend and the bands of the flow; a trainer's page takes the same."""
    names = list(mixture.stats["components"])
    for number, name in enumerate(names):
        dot = f'<i class="dot" style="background:var(--c{number})"></i>{name}'
        assert html.count(dot) == 2  # the table of shares and the legend
    assert 'class="dot d' not in html
    stats = {**mixture.stats, "components": dict(mixture.stats["components"])}
    first = stats["components"][names[0]]
    stats["components"][names[0]] = {**first, "kept": 0, "used": 0, "rejected": {}}
    drawn = plots.flow(stats, title="flow")  # a component of which nothing was read shifts none
    assert "var(--c0)" not in drawn
    assert f"var(--c{len(names) - 1})" in drawn


def test_components_of_one_colour_are_told_apart(mixture):
    """Past the last colour a component's mark is dashed, as its lines are."""
    components = {f"part {k}": mixture.stats["components"]["images"] for k in range(25)}
    nothing = {"share": {"tokens": 0}, "samples": 0}
    held_out = {"components": dict.fromkeys(components, nothing), "empty": []}
    stats = {**mixture.stats, "components": components, "held_out": held_out}
    many = replace(mixture, stats=stats)
    parts = {"rows": [], "refused": [], "flow": ["", ""], "plots": [], "sheets": {}, "tails": []}
    found = Page(render(many, budget=Budget(), **parts))
    marks = [a for tag, a in found.elements if tag == "i"]
    assert len({(a["class"], a["style"]) for a in marks}) == 25
