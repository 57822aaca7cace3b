"""Files without rows, pointers of git-lfs, and files that are something else, are named."""

import gzip
import io
import json

import pytest

from pipelines.reading.parts import list_component
from tests.building import words
from tests.pipelines.sources.making import asked, png, read, write, write_lines, zipped

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 9\n"
TALK = {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}


@pytest.mark.parametrize("tokens", ["max", "1000"])
@pytest.mark.parametrize("held", [b"", b"[]"])
def test_a_mixture_of_files_without_rows_says_which(tmp_path, capsys, tokens, held):
    from pipelines.__main__ import main

    write(tmp_path / "data" / "r.json", held)
    mixture = f"tokens: {tokens}\ncomponents:\n  x: {{source: messages, data: data, ratio: 1}}\n"
    write(tmp_path / "m.yaml", mixture)
    assert main(words(tmp_path / "m.yaml", tmp_path)) == 2
    why = "it has no rows" if held else "it is empty"
    assert f"x: no row was read (not read: r.json ({why}))" in capsys.readouterr().err


def test_a_file_or_subset_without_rows_is_told_beside_others(tmp_path):
    write_lines(tmp_path / "a" / "r.jsonl", [TALK])
    write(tmp_path / "a" / "s.jsonl", b"")
    write(tmp_path / "b" / "t.json", b"[]")
    found = list_component(source="messages", data=str(tmp_path), subsets=["a", "b"])
    told = {one.name: one.why for one in found.unread}
    assert told == {"a/s.jsonl": "it is empty", "b/t.json": "it has no rows"}


@pytest.mark.parametrize("name", ["r.parquet", "r.jsonl", "r.jsonl.gz", "r.tar", "metadata.csv"])
def test_a_pointer_in_place_of_rows_is_said(tmp_path, name):
    write(tmp_path / name, POINTER)
    source = {"r.tar": "webdataset", "metadata.csv": "imagefolder"}.get(name, "messages")
    with pytest.raises(ValueError, match=rf"{name} holds a pointer of git-lfs.*\n.*git lfs pull"):
        read(source, data=str(tmp_path))


def test_a_pointer_in_place_of_a_medium_is_said(tmp_path):
    for name in ("a.png", "v.mp4", "more.zip"):
        write(tmp_path / name, POINTER)
    rows = [
        asked("<image>Q", image="a.png"),
        asked("<video>Q", video="v.mp4"),
        asked("<image>Q", image="b.png"),
    ]
    samples = read("llava", data=str(write_lines(tmp_path / "r.jsonl", rows)))
    assert [s["defect"] for s in samples] == ["missing_media", "missing_media", "broken_archive"]
    assert all("git lfs pull" in s["detail"] for s in samples)
    assert "more.zip" in samples[2]["detail"]


def test_a_broken_zip_is_named(tmp_path):
    path = zipped(tmp_path / "pics.zip", [("a.png", png())])
    path.write_bytes(path.read_bytes()[:-20])
    rows = [asked("<image>Q", image="a.png")]
    (sample,) = read("llava", data=str(write_lines(tmp_path / "r.jsonl", rows)))
    assert (sample["defect"], "pics.zip" in sample["detail"]) == ("broken_archive", True)


@pytest.mark.parametrize(
    ("held", "says"),
    [
        (gzip.compress(json.dumps(TALK).encode(), mtime=0), "gzip: name it .jsonl.gz"),
        (b"PK\3\4" + bytes(60), "a zip: unpack it"),
        (b"<!DOCTYPE html><html>404</html>", "a page of the web"),
    ],
    ids=["gzip", "zip", "page"],
)
def test_what_is_called_json_and_is_not_is_said(tmp_path, held, says):
    write(tmp_path / "r.jsonl", held)
    with pytest.raises(ValueError, match=says):
        read("messages", data=str(tmp_path))


def test_a_quote_that_does_not_end_its_cell_is_said(tmp_path):
    write(tmp_path / "a.png", png())
    text = io.StringIO()
    text.write('file_name,text\na.png,"a ""quoted"" word"\na.png,5" wide\n')
    text.write('a.png,"not closed\na.png,"lost"\na.png,kept\na.png,"open\na.png,lost\n')
    write(tmp_path / "metadata.csv", text.getvalue())
    first, second, third, fourth, fifth = read("imagefolder", data=str(tmp_path))
    assert [s["defect"] for s in (first, second, fourth)] == [None] * 3
    assert (third["defect"], third["detail"][:20]) == ("wrong_schema", "lines 4 to 5 are no ")
    assert (fifth["defect"], fifth["detail"][:20]) == ("wrong_schema", "lines 7 to 8 are no ")


def test_what_was_exported_into_the_folder_is_nobodys_data(tmp_path):
    write_lines(tmp_path / "r.jsonl", [TALK])
    for name in ("export.json", "README.md", "messages/train-00000.parquet"):
        write(tmp_path / "exported" / name, b"{")
    assert [s["defect"] for s in read("messages", data=str(tmp_path))] == [None]
