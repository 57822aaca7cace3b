"""`source: table`: files of any format, cut off, damaged, in configs and splits."""

import bz2
import gzip
import io
import json
import random
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest

from pipelines.reading import annotations
from pipelines.reading.rows import csv_rows
from tests.pipelines.sources.making import cell, png, read, said, write

QA = {"question": "q", "answer": "a"}
IMAGE = cell(png())


def gz(text: str) -> bytes:
    return gzip.compress(text.encode())


FORMATS: dict[str, Callable[[], bytes]] = {
    "a.tsv": lambda: "\ufeffq\ta\nQ, 1\tA\n".encode(),
    "a.csv": lambda: b'\xef\xbb\xbfq,a\n"Q, 1",A\n',
    "b.csv": lambda: b"q;a\nQ, 1;A\n",
    "c.csv": lambda: 'q,a\r\n"Q, 1",A\r\n'.encode("utf-16"),
    "a.csv.gz": lambda: gz('q,a\n"Q, 1",A\n'),
    "a.tsv.bz2": lambda: bz2.compress(b"q\ta\nQ, 1\tA\n"),
    "a.jsonl.gz": lambda: gz('{"q": "Q, 1", "a": "A"}\n'),
    "a.ndjson": lambda: b'{"q": "Q, 1", "a": "A"}\n',
    "a.json": lambda: b'[{"q": "Q, 1", "a": "A"}]',
    "A.JSONL": lambda: b'{"q": "Q, 1", "a": "A"}\n',
}


@pytest.mark.parametrize("name", FORMATS)
def test_tables_of_text_in_any_format(name, tmp_path):
    file = write(tmp_path / "a folder" / name, FORMATS[name]())
    (found,) = read("table", data=str(file), columns=QA)
    assert said(found) == [("user", "Q, 1"), ("assistant", "A")]


def test_a_cut_off_file_gives_what_it_holds_and_says_so(tmp_path):
    lines = "".join(f"Q{n},A{n}\n" for n in range(20_000))
    whole = gz("q,a\n" + lines)
    write(tmp_path / "a.csv.gz", whole[: len(whole) // 2])
    found = read("table", data=str(tmp_path / "a.csv.gz"), columns=QA)
    assert {s["defect"] for s in found[:-1]} == {None}
    assert len(found) > 1000
    table = pa.table({"q": ["Q"] * 50, "a": ["A"] * 50})
    with pa.ipc.new_stream(str(tmp_path / "a.arrow"), table.schema) as stream:
        for number in range(5):
            stream.write_batch(table.slice(number * 10, 10).to_batches()[0])
    data = (tmp_path / "a.arrow").read_bytes()
    write(tmp_path / "b.arrow", data[: len(data) * 3 // 5])
    found = read("table", data=str(tmp_path / "b.arrow"), columns=QA)
    assert [s["defect"] for s in found] == [None] * (len(found) - 1) + ["broken_rows"]
    assert len(found) > 10


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A byte other, some gone, some doubled, or the rest cut off."""
    found, at = bytearray(data), rng.randrange(len(data))
    kind = rng.randrange(4)
    if kind == 0:
        found[at] = rng.randrange(256)
    elif kind == 1:
        del found[at : at + rng.randint(1, 40)]
    elif kind == 2:
        found[at:at] = found[max(0, at - 60) : at]
    else:
        del found[at:]
    return bytes(found)


def written_forms() -> dict[str, bytes]:
    """Files of twenty rows in the formats that other sources do not read."""
    rows = [{"q": f"Q{n}", "a": ["x", "y"], "i": IMAGE, "n": {"m": n}} for n in range(20)]
    table = pa.Table.from_pylist(rows)
    found = {}
    for kind, new in (("stream", pa.ipc.new_stream), ("file", pa.ipc.new_file)):
        for packed in (None, "zstd"):
            buffer = io.BytesIO()
            options = pa.ipc.IpcWriteOptions(compression=packed)
            with new(buffer, table.schema, options=options) as out:
                out.write_table(table, max_chunksize=5)
            found[f"{kind} {packed}.arrow"] = buffer.getvalue()
    text = "q,a,i,n\n" + "".join(f'"Q, {n}",A,,\n' for n in range(20))
    return found | {"a.csv.gz": gz(text), "a.tsv": text.replace(",", "\t").encode()}


def test_a_damaged_file_costs_rows_or_is_refused_in_one_message(tmp_path):
    """Offsets of a damaged Arrow file lead anywhere in memory: each batch is validated."""
    rng, forms = random.Random(18), written_forms()
    became: Counter[str] = Counter()
    for number in range(72):
        name = list(forms)[number % len(forms)]
        file = write(tmp_path / str(number) / name, damaged(forms[name], rng))
        try:
            found = read("table", data=str(file), columns=QA)
            became.update("kept" if s["defect"] is None else "rejected" for s in found)
        except ValueError as error:
            place = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
            if not place.is_relative_to(Path(annotations.__file__).parents[1]):  # a bug, then
                raise
            became["refused"] += 1
    assert min(became[what] for what in ("kept", "rejected", "refused")) > 0


def made(labels: list[int]) -> datasets.Dataset:
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    rows = {"image": [IMAGE] * len(labels), "label": labels}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))


LABELS = {"image": "image", "prompt": "What is it?", "answer": "label"}


def replies(root: Path, **settings: Any) -> list[str]:
    found = read("table", data=str(root), columns=LABELS, **settings)
    return [s["defect"] or said(s)[1][1] for s in found]


def test_configs_and_splits_are_found_by_name(tmp_path):
    saved = {"train": made([0, 1, -1]), "test": made([1])}
    datasets.DatasetDict(saved).save_to_disk(tmp_path / "both")
    made([1]).save_to_disk(tmp_path / "one dataset")
    assert replies(tmp_path / "one dataset") == ["dog"]
    assert replies(tmp_path / "both") == ["cat", "dog", "missing_answer"]
    assert replies(tmp_path / "both", split="test") == ["dog"]
    assert len(replies(tmp_path / "both", split="train+test")) == 4
    with pytest.raises(ValueError, match=r"split: no split 'tset'.*Did you mean 'test'"):
        replies(tmp_path / "both", split="tset")
    repo = tmp_path / "repo"
    for name, labels in {"a/train-00000-of-00001": [0], "a/dev": [1], "b/sft": [1, 1]}.items():
        (repo / name).parent.mkdir(parents=True, exist_ok=True)
        made(labels).to_parquet(repo / f"{name}.parquet")
    assert replies(repo, subsets=["a"]) == ["cat"]
    assert replies(repo, subsets=["a"], split="validation") == ["dog"]
    with pytest.raises(ValueError, match=r"no config 'c'.*Found: a, b"):
        replies(repo, subsets=["c"])
    two = {"config_name": "two", "data_files": [{"split": "train_sft", "path": "b/*.parquet"}]}
    one = {"config_name": "one", "data_dir": "a"}
    write(repo / "README.md", f"---\nconfigs: {json.dumps([one, two])}\n---\nText.")
    assert replies(repo, subsets=["two"], split="train_sft") == ["dog", "dog"]
    assert replies(repo, subsets=["one"]) == ["cat"]
    for settings, told in (
        ({}, "2 configs and no default: one, two"),
        ({"subsets": ["tow"]}, "Did you mean 'two'"),
        ({"subsets": ["two"]}, "Did you mean 'train_sft'"),
    ):
        with pytest.raises(ValueError, match=told):
            replies(repo, **settings)
    one["default"] = True
    write(repo / "README.md", f"---\nconfigs: {json.dumps([two, one])}\n---\n")
    assert replies(repo) == ["cat"]
    with pytest.raises(ValueError, match="split is 'test', but data: names files"):
        replies(repo / "a" / "*.parquet", split="test")


def test_rows_inside_an_object_are_said_to_be_there(tmp_path):
    file = write(tmp_path / "a.json", {"version": 1, "data": [{"q": "Q", "a": "A"}]})
    with pytest.raises(ValueError, match="its rows are the list under 'data'"):
        read("table", data=str(file), columns=QA)


def test_large_json_is_read_in_blocks_by_its_mapping(tmp_path, monkeypatch):
    monkeypatch.setattr(annotations, "SCANNED", 1000)
    monkeypatch.setattr(annotations, "PROBE", 500)
    monkeypatch.setattr(annotations, "BLOCK", 700)
    rows = [{"about": {"q": f"Question {n}?"}, "a": [str(n)]} for n in range(100)]
    columns = {"question": "about.q", "answer": "a"}
    for name, text in (("r.json", json.dumps(rows)), ("r.jsonl", "\n".join(map(json.dumps, rows)))):
        found = read("table", data=str(write(tmp_path / name, text)), columns=columns)
        assert sorted(int(said(s)[1][1]) for s in found) == list(range(100))


@pytest.mark.parametrize(
    ("head", "row", "names"),
    [
        (
            "Bild;Frage, lang;Antwort",
            'a.png;"Was; denn?";Ja',
            ["Bild", "Frage, lang", "Antwort"],
        ),
        ("caption (a; b; c),image", "one; two,a.png", ["caption (a; b; c)", "image"]),
        ('"a;b",c', "1,2", ["a;b", "c"]),
        ("a,b|c", "1|2", ["a,b", "c"]),
        ("a;b,c", "", ["a;b", "c"]),
        ("a;b,c", '"a line, and;\nanother",2', ["a;b", "c"]),
        ("a\tb, c", "1\t2, 3", ["a\tb", " c"]),
    ],
)
def test_the_mark_between_cells_is_that_by_which_the_rows_agree(tmp_path, head, row, names):
    write(tmp_path / "t.csv", f"{head}\n{row}\n" if row else head)
    found = list(csv_rows(str(tmp_path / "t.csv"), (tmp_path / "t.csv").stat().st_size))
    assert [list(each) for each in found] == [names] * bool(row)
