"""The list of a benchmark, made by the command, keeps its items out of a mixture."""

import base64
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import polars as pl
import pyarrow.parquet as pq
import pytest

from pipelines.__main__ import main
from pipelines.engine import tables
from tests.building import build, words
from tests.pipelines.sources.making import coarse_jpeg


@pytest.fixture
def begun(mix, tmp_path):
    """The cache of the small mixture, to be added to: TMP/work."""
    shutil.copytree(mix.parent / "work", tmp_path / "work")


def test_a_benchmark_named_in_a_mixture_is_kept_out(world, begun, tmp_path, capsys):
    rows = [
        (
            str(i),
            base64.b64encode(coarse_jpeg(seed, 64 + seed % 5 * 24, 64)).decode(),
            "Unlike any?",
        )
        for i, seed in enumerate((20, 21))
    ]
    lines = ["index\timage\tquestion", *("\t".join(row) for row in rows)]
    (tmp_path / "bench.tsv").write_text("\n".join(lines) + "\n")
    made = f"{tmp_path}/bench.parquet"
    assert main(["hashes", "bench", f"data={tmp_path}/bench.tsv", f"output={made}"]) == 0
    assert "items 2" in capsys.readouterr().out
    build(world, tmp_path, f"benchmarks=[{made}]")
    index = pl.DataFrame(tables.read(tmp_path / "mix" / "index.arrow"))
    hit = index.filter(rule="contaminated")
    assert hit["id"].to_list() == ["cauldron/ai2d/000020", "cauldron/ai2d/000021"]
    main(["show", f"{tmp_path}/mix", "rule=contaminated", f"work={tmp_path}/work"])
    assert "bench" in capsys.readouterr().out


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
    assert "hashes/smolvlm/MMStar.parquet: there already" in capsys.readouterr().err


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
