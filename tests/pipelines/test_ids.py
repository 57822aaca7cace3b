"""Ids of samples are unique in a mixture, whatever its components read; they follow the content."""

import shutil

import pytest

from pipelines.ids import names_in_ids, renamed
from pipelines.reading.ingest import ingest
from pipelines.reading.parts import list_component
from tests.pipelines.sources.making import cell, png, qa, write_lines, write_parquet


def chat(text):
    turns = [{"role": "user", "content": f"Repeat: {text}"}, {"role": "assistant", "content": text}]
    return {"messages": turns}


def ids_of(source, **data):
    listings = {
        name: list_component(component=name, source=source, data=str(where))
        for name, where in data.items()
    }
    called = names_in_ids(listings, dict.fromkeys(listings, source))
    return {
        name: [i for p in found.parts for i in ingest(renamed(p, called))["id"].to_pylist()]
        for name, found in listings.items()
    }


def test_two_files_of_rows_have_ids_of_their_own(tmp_path):
    one = write_lines(tmp_path / "one.jsonl", [chat("a"), chat("b")])
    other = write_lines(tmp_path / "other.jsonl", [chat("c")])
    alone, both = ids_of("messages", a=one), ids_of("messages", a=one, b=other)
    assert both["a"] == alone["a"] == ["messages/default/000000", "messages/default/000001"]
    (second,) = both["b"]
    assert second.startswith("messages/default~")
    assert second.endswith("/000000")
    moved = tmp_path / "deep" / "renamed.jsonl"
    moved.parent.mkdir()
    shutil.copy(other, moved)
    assert ids_of("messages", a=one, b=moved) == both


def test_three_tables_in_one_layout_have_ids_of_their_own(tmp_path):
    files = {
        name: write_parquet(
            tmp_path / f"{name}.parquet",
            [{"images": [cell(png(seed=n))], "texts": qa(("Q", name))} for n in range(2)],
        )
        for name in "abc"
    }
    ids = [i for found in ids_of("cauldron", **files).values() for i in found]
    assert len(ids) == len(set(ids)) == 6


@pytest.mark.parametrize("how", ["itself", "a copy", "among others"])
def test_one_file_in_two_components_is_refused(tmp_path, how):
    one = write_lines(tmp_path / "one.jsonl", [chat("a")])
    other = tmp_path / "b" / "copy.jsonl"
    other.parent.mkdir()
    shutil.copy(one, other)
    if how == "among others":
        write_lines(other.parent / "more.jsonl", [chat("z")])
    second = {"itself": one, "a copy": other, "among others": other.parent}[how]
    with pytest.raises(ValueError, match=r"components a and b read the same samples .*one.jsonl"):
        ids_of("messages", a=one, b=second)
