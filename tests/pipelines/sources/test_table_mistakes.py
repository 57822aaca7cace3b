"""`source: table`: mappings that are wrong are refused before a row is read."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.reading.parts import list_parts
from pipelines.sources.mapping import configured
from tests.pipelines.sources.making import cell, png, read, said, write, write_lines

QA = {"question": "q", "answer": "a"}
IMAGE = cell(png())


def refused(columns: Any, rows: list[dict[str, Any]] | None = None, tmp: Path | None = None) -> str:
    call: Callable[[], object]
    if rows is None or tmp is None:
        call = partial(configured, "table", columns=columns, where="components.mine")
    else:
        pq.write_table(pa.Table.from_pylist(rows), tmp / "t.parquet")
        call = partial(list_parts, source="table", component="mine", data=str(tmp), columns=columns)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        call()
    return str(caught.value)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({}, "components.mine.columns is missing"),
        ({"anwser": "a"}, "unknown key 'anwser'. Did you mean 'answer'?"),
        ({"question": "q"}, "no answer is mapped to question"),
        ({"images": "i"}, "no answer is mapped"),
        ({"answer": "a"}, "neither is there"),
        ({"answer": "a", "question": "q", "prompt": "p"}, "both are there"),
        ({"choices": "c", "question": "q"}, "choices without an answer"),
        ({"caption": "c", "answer": "a"}, "answer does not go with caption"),
        ({"text": "t", "images": "i"}, "has no media"),
        ({"image": "i", "images": "i", "caption": "c"}, "image and images are the same key"),
        ({"conversations": "m", "messages": "m"}, "conversations and messages are the same key"),
        ({**QA, "answer_is": "number "}, "answer_is does not go with answer"),
        ({**QA, "choices": "c", "answer_is": "nr"}, "expected auto or index or number"),
        ({"question": "{}", "answer": "a"}, "expected the name of a column between braces"),
        ({"question": "{q", "answer": "a"}, "for a brace"),
        ({"question": "q", "answer": 5}, "expected the name of a column"),
        ({"question": "q", "answer": False}, "answer is 'false'"),
        ({"messages": {"colum": "m"}}, "unknown key 'colum'. Did you mean 'column'?"),
        ({"messages": "m", "roles": {"x": "bot"}}, "expected system or user or assistant"),
        ({**QA, "ratings": {"relevanc": "r"}}, "unknown rating 'relevanc'. Did you mean"),
        ({**QA, "placeholder": "{number}"}, "expected a mark such as"),
    ],
)
def test_a_mapping_that_is_none_is_refused(columns, told):
    assert told in refused(columns)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"question": "qestion", "answer": "answer"}, "Did you mean 'question'?"),
        ({"question": "question", "answer": "text"}, "Did you mean 'info.text'?"),
        ({"question": "question", "answer": "info.txt"}, "Did you mean 'info.text'?"),
        ({"question": "What is it?", "answer": "answer"}, "is a `prompt`"),
        ({"prompt": "Is it {qestion}?", "answer": "answer"}, "columns.prompt: no column"),
        ({"question": "question", "answer": "nothing"}, "holds null in every row"),
        ({"question": "question", "answer": "image"}, "holds mapping with the fields bytes, path"),
        ({"question": "question", "answer": "other"}, "Name one: other.text_of"),
        (
            {"images": "number", "caption": "answer"},
            "holds number; expected",
        ),
        ({"messages": "number"}, "holds number; expected"),
        ({"question": "info", "answer": "answer"}, "holds mapping with the fields text"),
    ],
)
def test_a_column_that_is_not_there_or_cannot_be_meant_is_refused(columns, told, tmp_path):
    row = {"image": IMAGE, "question": "Q", "answer": "A", "info": {"text": "x"}, "number": 5,
           "nothing": None, "other": {"text_of": "x"}}  # fmt: skip
    message = refused(columns, [row], tmp_path)
    assert message.startswith("components.mine.columns.")
    assert told in message, message


def test_nothing_is_read_before_the_mapping_was_checked(tmp_path, monkeypatch):
    from pipelines.reading import rows

    table = pa.table({"q": ["Q"], "a": ["A"]})
    pq.write_table(table, tmp_path / "t.parquet")
    for name in ("parquet_rows", "footer"):
        monkeypatch.setattr(rows, name, lambda *_: pytest.fail("read"))
    with pytest.raises(ValueError, match="no column 'b'"):
        list_parts(source="table", data=str(tmp_path), columns={"question": "q", "answer": "b"})


def test_columns_of_another_source_are_known_by_its_own_names(tmp_path):
    for columns, told in (
        ({"latx": "formula"}, "reads no column 'latx'. Did you mean 'latex'?"),
        ({"latex": ["formula"]}, "expected the name of a column"),
    ):
        with pytest.raises(ValueError, match=told.replace("?", r"\?")):
            configured("mathwriting", columns=columns, where="components.m")
    pq.write_table(pa.table({"image": [IMAGE], "formla": ["x"]}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"components.m.columns.latex.*Did you mean 'formla'\?"):
        list_parts(source="mathwriting", component="m", data=str(tmp_path / "t.parquet"),
                   columns={"latex": "formula"})  # fmt: skip
    with pytest.raises(ValueError, match="members of archives"):
        configured("webdataset", columns={"jpg": "x"}, where="components.m")
    rows = [{"chat": {"turns": [{"role": "user", "content": "Q"}, {"role": "assistant",
             "content": "A"}]}, "messages": "not these"}]  # fmt: skip
    write_lines(tmp_path / "r.jsonl", rows)
    (found,) = read("messages", data=str(tmp_path / "r.jsonl"), columns={"messages": "chat.turns"})
    assert said(found) == [("user", "Q"), ("assistant", "A")]


CHOICES = {"question": "q", "answer": "a", "choices": "c"}


@pytest.mark.parametrize("kind", ["parquet", "arrow", "jsonl"])
@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([1, 3, 2], "numbers that count the choices from 1"),
        ([1, 2, 2], "from 0 or from 1, which none of the first rows tells"),
        ([1, 0, 2], ""),
        (["1", "b", "3"], "numbers that count the choices from 1"),
        (["A", "b", "c"], ""),
        ([None, 2, 0], ""),
    ],
)
def test_numbers_of_choices_are_read_only_where_it_is_seen_from_where_they_count(
    kind, answers, told, tmp_path
):
    rows = [{"q": "?", "a": answer, "c": ["a", "b", "c"], "image": IMAGE} for answer in answers]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    elif kind == "arrow":
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_file(str(tmp_path / "t.arrow"), table.schema) as file:
            file.write_table(table)
    else:
        write_lines(tmp_path / "t.jsonl", [{k: row[k] for k in "qac"} for row in rows])
    listed = partial(list_parts, source="table", component="mine", data=str(tmp_path))
    if not told:
        assert listed(columns=CHOICES)
        return
    with pytest.raises(ValueError, match=told) as caught:
        listed(columns=CHOICES)
    assert "answer_is: number" in str(caught.value)
    for said_so in ("number", "index"):
        assert listed(columns={**CHOICES, "answer_is": said_so})


def test_a_folder_of_a_partition_is_no_column_and_the_message_says_so(tmp_path):
    table = pa.Table.from_pylist([{"q": "?", "a": "!", "lang": "de"}] * 3)
    pq.write_to_dataset(table, str(tmp_path / "t"), partition_cols=["lang"])
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        list_parts(
            source="table",
            component="mine",
            data=str(tmp_path / "t"),
            columns={"question": "In {lang}: {q}", "answer": "a"},
        )
    assert "found: folders named lang=..., whose names are not read" in str(caught.value)
    assert f"data: {tmp_path}/t/lang=..." in str(caught.value)


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_csv_without_a_comma_in_its_first_line_has_another_separator(tmp_path, mark):
    (tmp_path / "t.csv").write_text(f"q{mark}a\nOne, two?{mark}Three.\n")
    (found,) = read("table", data=str(tmp_path / "t.csv"), columns=QA)
    assert said(found) == [("user", "One, two?"), ("assistant", "Three.")]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.parquet", "t.arrow"])
def test_two_columns_of_one_name_are_refused(tmp_path, name):
    table = pa.table([["Why?"], ["So."], ["No."]], names=["q", "a", "a"])
    if name.endswith((".csv", ".tsv")):
        mark = "\t" if name == "t.tsv" else ","
        write(tmp_path / name, "\n".join(mark.join(row) for row in (["q", "a", "a"], "xyz")))
    elif name == "t.parquet":
        pq.write_table(table, tmp_path / name)
    else:
        with pa.ipc.new_stream(tmp_path / name, table.schema) as stream:
            stream.write_table(table)
    columns = {"question": "q", "answer": "a"}
    with pytest.raises(ValueError, match=f"{name}: 2 columns are called 'a'"):
        list_parts(source="table", component="mine", data=str(tmp_path), columns=columns)
