"""A tokenizer, hash lists and models of one's own: known by contents, found where they lie."""

import json
from pathlib import Path

import pytest

from pipelines.arguments import load_mixture_of
from pipelines.engine import tables
from pipelines.report.finished import open_finished
from tests.building import build
from tests.pipelines.sources.making import write
from tests.pipelines.test_preconditions import mixture
from tokenization.vocab import load_tokenizer, plain_tokenizer


@pytest.fixture
def own(tmp_path) -> Path:
    """A folder with a tokenizer, and a checkpoint's other files beside it."""
    load_tokenizer("builtin").save_pretrained(tmp_path / "own")
    return tmp_path / "own"


def with_few_merges(folder: Path) -> None:
    text = json.loads((folder / "tokenizer.json").read_text())
    text["model"]["merges"] = text["model"]["merges"][:100]
    (folder / "tokenizer.json").write_text(json.dumps(text))


def num_tokens(mix: Path) -> int:
    found = open_finished(str(mix))
    rows = (
        tables.read(found.path(shard), columns=["input_ids"]) for shard in found.shards["train"]
    )
    return sum(len(ids) for table in rows for ids in table["input_ids"].to_pylist())


def fingerprint(mix: Path) -> str:
    return str(json.loads((mix / "recipe.json").read_text())["fingerprint"])


def test_another_tokenizer_in_the_same_folder_is_another_mixture(tmp_path, own, capsys, caplog):
    file = mixture(tmp_path, encoding=f", tokenizer: {own}")
    before = build(file, tmp_path)
    length, first = num_tokens(before), fingerprint(before)
    write(own / "config.json", "{}")  # of a checkpoint: no part of its tokenizer
    build(file, tmp_path)
    assert "nothing to do" in caplog.text
    with_few_merges(own)
    with pytest.raises(AssertionError):
        build(file, tmp_path)
    assert "versions.tokenizer: was" in capsys.readouterr().err
    build(file, tmp_path, f"output={tmp_path}/after")
    assert num_tokens(tmp_path / "after") > length
    assert fingerprint(tmp_path / "after") != first


def test_where_a_tokenizer_lies_is_not_what_it_is(tmp_path, own):
    here = build(mixture(tmp_path, encoding=f", tokenizer: {own}"), tmp_path)
    own.rename(tmp_path / "moved")
    there = mixture(tmp_path, encoding=f", tokenizer: {tmp_path / 'moved'}")
    first = fingerprint(here)
    build(there, tmp_path, "overwrite=true")
    assert fingerprint(here) == first


def test_a_tokenizer_is_loaded_anew_where_its_files_changed(own):
    whole, plain = load_tokenizer(str(own)), plain_tokenizer(str(own))
    assert load_tokenizer(str(own)) is whole
    assert plain_tokenizer(str(own)) is plain
    with_few_merges(own)
    assert len(load_tokenizer(str(own))("tokenizer").input_ids) > len(whole("tokenizer").input_ids)
    assert plain_tokenizer(str(own)) is not plain


def test_its_files_are_found_beside_the_mixture(tmp_path, own, monkeypatch):
    names = "benchmarks: [./lists/mine.parquet, theirs, smolvlm]\nfilters: {high_perplexity: "
    names += "{max_perplexity: 9, model: m.onnx, tokenizer: tokenizer.json}}\n"
    file = mixture(tmp_path, encoding=", tokenizer: ./own", more=names)
    for name in ("lists/mine.parquet", "hashes/theirs.parquet", "m.onnx"):
        write(tmp_path / name, b"")
    monkeypatch.chdir(own)
    found = load_mixture_of(str(file), [])
    assert found.encoding.tokenizer == f"{own}"
    lists = [f"{tmp_path}/lists/mine.parquet", f"{tmp_path}/hashes/theirs.parquet", "smolvlm"]
    assert found.benchmarks == lists
    rule = found.filters["high_perplexity"]
    assert rule["model"] == f"{tmp_path}/m.onnx"
    assert rule["tokenizer"] == "tokenizer.json"  # the current folder comes first
    monkeypatch.chdir(tmp_path)
    assert load_mixture_of(str(file), []).encoding.tokenizer == "./own"
