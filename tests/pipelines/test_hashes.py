"""The list of a benchmark, made by the command, keeps its items out of a mixture."""

import base64
import re
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import polars as pl
import pyarrow.parquet as pq
import pytest

from filters.decontamination import rules
from pipelines import push
from pipelines.__main__ import main
from pipelines.engine import tables
from pipelines.report import digests
from pipelines.report.finished import open_finished
from pipelines.report.leaks import matched_views
from pipelines.report.page import published, report
from tests.building import build, words
from tests.html_page import Page
from tests.pipelines.sources.making import coarse_jpeg


@pytest.fixture
def begun(mix, tmp_path):
    """The cache of the small mixture, to be added to: TMP/work."""
    shutil.copytree(mix.parent / "work", tmp_path / "work")


ASKED = "Who </td><script>alert(1)</script> is | \u05de\u05d9 \u202e it?"


@pytest.fixture(scope="module")
def leaky(world, mix, tmp_path_factory):
    """A benchmark of two images of the small mixture, and the mixture made without them."""
    folder = tmp_path_factory.mktemp("leaky")
    shutil.copytree(mix.parent / "work", folder / "work")
    images = [coarse_jpeg(seed, 64 + seed % 5 * 24, 64) for seed in (20, 21)]
    lines = ["index\timage\tquestion\tA\tB\tanswer"]
    for number, image in enumerate(images):
        encoded = base64.b64encode(image).decode()
        lines.append(f"{number}\t{encoded}\t{ASKED}\ta cat\ta dog\tB")
    (folder / "bench.tsv").write_text("\n".join(lines) + "\n")
    made = f"{folder}/bench.parquet"
    assert main(["hashes", "bench", f"data={folder}/bench.tsv", f"output={made}"]) == 0
    build(world, folder, f"benchmarks=[{made}]", "report=true")
    return folder


def looked_at(folder, *words):
    return ["show", f"{folder}/mix", "rule=contaminated", f"work={folder}/work", *words]


def test_a_benchmark_named_in_a_mixture_is_kept_out_and_show_tells_its_items(
    leaky, tmp_path, capsys
):
    index = pl.DataFrame(tables.read(leaky / "mix" / "index.arrow"))
    hit = index.filter(rule="contaminated")
    assert hit["id"].to_list() == ["cauldron/ai2d/000020", "cauldron/ai2d/000021"]
    main(looked_at(leaky))
    shown = capsys.readouterr().out
    assert "benchmark  bench/0: 1 image" in shown
    assert "asks Who </td><script>alert(1)</script> is | \u05de\u05d9 \\u202e it?" in shown
    assert "options a cat | a dog" in shown
    assert "answer B" in shown
    main(looked_at(leaky, "--html", f"output={tmp_path}/shown.html"))
    assert "a cat" in (tmp_path / "shown.html").read_text()
    items = leaky / "bench.items.parquet"
    items.rename(tmp_path / "away")
    main(looked_at(leaky))
    (tmp_path / "away").rename(items)
    assert f"bench/0: not known here: no {items}" in capsys.readouterr().out


def test_the_card_has_what_is_asked_beside_the_sample(leaky):
    card = (leaky / "mix" / "README.md").read_text()
    line = next(line for line in card.splitlines() if line.startswith("| cauldron/ai2d/000020"))
    assert "bench/0 by image (0 bits)" in line
    assert "a cat / a dog: B" in line
    assert len(re.findall(r"(?<!\\)\|", line.replace("&#124;", ""))) == 7
    assert "<script>" not in card


def test_the_report_has_images_and_texts_of_both_side_by_side(leaky):
    whole = (leaky / "mix" / "report.html").read_text()
    page = Page(whole)
    assert page.open == []
    assert "Who </td><script>alert(1)</script> is" in " ".join(page.words)
    assert [tag for tag, _ in page.elements].count("script") == 1
    pairs = re.findall(r'<article class="matched">.*?</article>', whole, re.DOTALL)
    assert [pair.count('src="data:image/webp;base64,') for pair in pairs] == [2, 2]


def test_nothing_that_benchmarks_ask_is_published(leaky):
    mixture = open_finished(f"{leaky}/mix")
    apart = published((leaky / "mix" / "report.html").read_text())
    assert apart == published(report(mixture, matched=matched_views(mixture, work="")))
    with push.staged_mixture(mixture, repo="org/name", format="arrow") as stage:
        for name in ("README.md", "report.html"):
            text = (stage / name).read_text()
            assert "bench/0" in text, name
            assert "a cat" not in text, name
            assert "a cat" in (leaky / "mix" / name).read_text(), name
        recipe = tables.read_json(stage / "recipe.json")
        assert list(digests.differing(str(stage), recipe)) == []


def test_rows_tell_their_answers(tmp_path):
    rows = [
        {"question": "Q", "answers": ["a", "b", "a"]},
        {"question": "R", "answer": 3},
        {"question": "S", "label": {"x": 1}},
        {"question": "T"},
    ]
    found = [item.answer for item in rules.row_items(rows, where="hub")]
    assert found == ["a, b", "3", '{"x": 1}', ""]


def test_a_broken_image_of_a_benchmark_is_named_with_its_item(tmp_path, capsys):
    cut = base64.b64encode(coarse_jpeg(1, 64, 64)[:200]).decode()
    (tmp_path / "b.tsv").write_text(f"index\timage\tquestion\n7\t{cut}\tWhat?\n")
    words = ["hashes", "b", f"data={tmp_path}/b.tsv", f"output={tmp_path}/b.parquet"]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "item 7: undecodable_image: undecodable image of" in " ".join(told.split())
    assert "way out: mend the file" in " ".join(told.split())
    assert not (tmp_path / "b.parquet").exists()


def test_a_list_that_is_not_there_is_said(world, tmp_path, capsys):
    assert main(words(world, tmp_path, "benchmarks=[nothing]")) == 2
    assert "hashes/nothing.parquet" in capsys.readouterr().err


@pytest.fixture
def files(tmp_path):
    """VLMEvalKit's folder with two of the set's files, served on loopback; its address."""
    folder = tmp_path / "served"
    folder.mkdir()
    for name, seed in (("MMStar", 20), ("AI2D_TEST", 21)):
        picture = base64.b64encode(coarse_jpeg(seed, 64 + seed % 5 * 24, 64)).decode()
        (folder / f"{name}.tsv").write_text(f"index\timage\tquestion\n0\t{picture}\tUnlike any?\n")
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_set_is_made_by_one_command_and_the_card_says_what_each_found(
    files, world, begun, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["hashes", "smolvlm", f"data={files}"]) == 2, "eight files are not there"
    told = capsys.readouterr().err
    assert "hashes/smolvlm/MMStar.parquet: items 1" in told
    assert "DocVQA_VAL: HTTP Error 404" in told
    assert "8 of 10 lists could not be made" in told
    made = pq.read_schema("hashes/smolvlm/MMStar.parquet")
    assert made.names == ["kind", "hash", "item"]
    assert made.metadata[b"hash_list"]
    build(world, tmp_path, "benchmarks=[smolvlm]")
    assert "8 benchmarks of smolvlm have no hash list here" in capsys.readouterr().out
    card = (tmp_path / "mix" / "README.md").read_text()
    assert "| MMStar | 1 | 1 |" in card
    assert "| AI2D\\_TEST | 1 | 1 |" in card
    assert "Not checked, for want of a hash list: OCRBench" in card
    (tmp_path / "again").mkdir()
    assert main(["hashes", "smolvlm", f"data={tmp_path}/again"]) == 2
    assert "hashes/smolvlm/MMStar.parquet: there already\n" in capsys.readouterr().err


def test_without_any_list_the_card_says_that_nothing_was_checked(
    world, begun, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    build(world, tmp_path, "benchmarks=[smolvlm]")
    assert "python -m pipelines hashes smolvlm makes them" in capsys.readouterr().out
    card = (tmp_path / "mix" / "README.md").read_text()
    assert "Nothing was checked against any benchmark" in card
    assert "Not checked, for want of a hash list: OCRBench, AI2D\\_TEST" in card


def test_samples_of_too_few_tokens_go_when_tokens_are_counted(world, begun, tmp_path):
    rule = "components.text.filters={too_few_tokens: {min_tokens: 60}}"
    build(world, tmp_path, rule)
    index = pl.DataFrame(tables.read(tmp_path / "mix" / "index.arrow"))
    text, images = (index.filter(component=name) for name in ("text", "images"))
    short = text.filter(pl.col("num_tokens") < 60)
    assert 0 < len(short) < len(text)
    assert short["fired"].list.contains("too_few_tokens").all()
    assert set(short["rule"].unique()) <= {"too_few_tokens", "duplicate_sample"}
    assert "too_few_tokens" not in text.filter(pl.col("num_tokens") >= 60)["rule"].to_list()
    assert "too_few_tokens" not in images["rule"].to_list()
