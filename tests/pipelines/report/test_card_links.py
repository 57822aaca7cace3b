"""Every link of a card leads somewhere on GitHub and the hub: a heading, a file, an address."""

import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from pipelines.engine import tables
from pipelines.push import staged_export, staged_mixture
from pipelines.report.card import card
from pipelines.report.finished import open_finished
from pipelines.report.page import report
from pipelines.report.texts import texts
from tests.pipelines.made import finished

LINK = re.compile(r"(?<!\\)\[(?:\\.|[^\]\\])*\]\(([^)\s]*)\)")


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """With everything beside the shards as `publish` leaves it, and a name that is a heading's."""
    folder = finished(tmp_path_factory.mktemp("mixture") / "by_hand")
    mixture = open_finished(str(folder))
    mixture.stats["texts"] = texts(mixture)
    mixture.stats["name"] = "Packing"
    mixture.recipe["sources"]["words"]["hub"] = mixture.stats["sources"]["words"]["hub"] = ""
    tables.write_json(folder / "stats.json", mixture.stats)
    (folder / "report.html").write_text(report(mixture))
    (folder / "README.md").write_text(card(mixture.stats, mixture.recipe))
    return open_finished(str(folder))


def body(text: str) -> str:
    """The Markdown without the hub's header and without code."""
    prose = text.split("---\n", 2)[2]
    return re.sub(r"^```.*?^```$", "", prose, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """GitHub's: small letters, no punctuation, a hyphen for each space, a number where it repeats.

    https://docs.github.com/en/get-started/writing-on-github/working-with-advanced-formatting
    """
    found: list[str] = []
    for title in re.findall(r"^#{1,6} +(.*?)\s*$", body(text), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        again = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", name) is not None for name in found)
        found.append(f"{slug}-{again}" if again else slug)
    return set(found)


def broken(text: str, folder: Path) -> list[str]:
    """The links that lead nowhere."""
    found = []
    for link in LINK.findall(body(text)):
        address = urlsplit(link)
        if address.scheme:
            whole = address.scheme == "https" and address.netloc and len(address.path) > 1
            whole = whole and not address.path.endswith("/")
        elif link.startswith("#"):
            whole = link[1:] in anchors(text)
        else:
            whole = not link.startswith("/") and (folder / unquote(address.path)).exists()
        if not whole:
            found.append(link)
    return found


def test_the_card_beside_the_shards_links_what_lies_there(mixture):
    folder = Path(mixture.folder)
    text = (folder / "README.md").read_text()
    assert broken(text, folder) == []
    assert {"report.html", "stats.json", "index.arrow", "#packing"} <= set(LINK.findall(body(text)))
    assert "](https://huggingface.co/datasets/)" not in text


@pytest.mark.parametrize("format", ["arrow", "parquet"])
def test_a_pushed_card_links_what_is_pushed(mixture, format):
    with staged_mixture(mixture, repo="me/mine", format=format) as stage:
        text = (stage / "README.md").read_text()
        assert broken(text, stage) == []
        assert f"index.{format}" in LINK.findall(body(text))


@pytest.mark.slow
@pytest.mark.parametrize("format", ["messages", "webdataset"])
def test_the_card_of_an_export_links_what_is_exported(mix, tmp_path, format):
    made = open_finished(str(shutil.copytree(mix, tmp_path / "mixture")))
    with staged_export(made, repo="me/mine", format=format, content="parts") as stage:
        assert broken((stage / "README.md").read_text(), stage) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    text = "---\na: b\n---\n\n# One\n## Two, and *three*\n## One\n"
    good = "[a](#one) [b](#one-1) [c](#two-and-three) [d](https://huggingface.co/datasets/a/b)"
    assert broken(text + good, tmp_path) == []
    bad = "[a](#two) [b](gone.json) [c](https://huggingface.co/datasets/) [d](/README.md)"
    assert len(broken(text + bad, tmp_path)) == 4
