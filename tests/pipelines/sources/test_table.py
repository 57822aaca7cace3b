"""`source: table`: any type, answers, choices, files of any format, mappings that are wrong."""

import bz2
import datetime
import gzip
import io
import json
import random
import traceback
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.reading import annotations
from pipelines.reading.parts import list_parts
from pipelines.sources import cells, choices
from pipelines.sources.mapping import KEYS, configured
from pipelines.sources.sample import Defect, Source
from pipelines.sources.shape import Shape, add_value, find, leaves, of_schema
from tests.pipelines.sources.making import cell, png, read, said, write, write_lines

QA = {"question": "q", "answer": "a"}
IMAGE = cell(png())


def sample(row: dict[str, Any], columns: dict[str, Any]) -> Any:
    """What a row becomes: its turns as (role, texts), or (defect, detail)."""
    about = configured("table", columns=columns, where="components.mine")
    try:
        found = about.adapter(row)
    except Defect as defect:
        return defect.reason, defect.detail
    return [(t.role, *(part for part in t.content if isinstance(part, str))) for t in found.turns]


def answer(value: Any) -> Any:
    found = sample({"q": "Q", "a": value}, QA)
    return found[1][1] if isinstance(found, list) else found[0]


TYPES: list[tuple[Any, Any, str]] = [
    (pa.large_string(), "x", "x"),
    (pa.dictionary(pa.int32(), pa.string()), "x", "x"),
    (pa.decimal128(9, 2), Decimal("3.50"), "3.50"),
    (pa.timestamp("ns"), datetime.datetime(2020, 1, 2, 3), "2020-01-02 03:00:00"),
    (pa.date32(), datetime.date(2020, 1, 2), "2020-01-02"),
    (pa.time64("us"), datetime.time(1, 2), "01:02:00"),
    (pa.bool_(), True, "True"),
    (pa.float16(), np.float16(1.5), "1.5"),
    (pa.float32(), 0.1, "0.1"),
    (pa.float64(), 3.0, "3"),
    (pa.float64(), float("nan"), "wrong_schema"),
    (pa.uint64(), 2**63 + 1, str(2**63 + 1)),
    (pa.binary(), b"x", "x"),
    (pa.large_binary(), b"\xff", "broken_text"),
    (pa.string(), " ", "missing_answer"),
    (pa.large_list(pa.large_string()), ["x", "y", "y"], "y"),
    (pa.list_(pa.string(), 2), ["x", "y"], "x"),
    (pa.list_(pa.string()), [None, ""], "missing_answer"),
    (pa.list_(pa.int8()), [2, 2, 1], "2"),
    (pa.map_(pa.string(), pa.string()), [("text", "y")], "y"),
    (pa.struct([("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int32()))]),
     {"text": ["x"], "answer_start": [1]}, "x"),
    (pa.struct([("text", pa.list_(pa.string()))]), {"text": []}, "missing_answer"),
    (pa.list_(pa.struct([("answer", pa.string()), ("answer_id", pa.int32())])),
     [{"answer": "x", "answer_id": 1}, {"answer": "y", "answer_id": 2},
      {"answer": "y", "answer_id": 3}], "y"),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_an_answer_of_any_type_is_written_as_people_write_it(kind, tmp_path):
    for number, (type_, value, wanted) in enumerate(TYPES):
        table = pa.table({"q": ["Q"], "a": pa.array([value], type_)})
        file = tmp_path / f"{number}.{kind}"
        if kind == "parquet":
            pq.write_table(table, file)
        else:
            with pa.ipc.new_stream(str(file), table.schema) as stream:
                stream.write_table(table)
        (found,) = read("table", data=str(file), columns=QA)
        assert (found["defect"] or said(found)[1][1]) == wanted, type_


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_the_one_that_is_written(value):
    assert float(cells.written(value, "a")) == pytest.approx(value, rel=1e-6)


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_a_number_of_32_bits_is_written_with_the_digits_that_it_has(value):
    found = cells.written(value, "a")
    assert abs(value) > 3e38 or np.float32(found) == np.float32(value)
    assert len(found.strip("-0.")) <= 24


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=9))
def test_of_several_answers_the_most_frequent_counts(answers):
    found = answer(answers)
    assert answers.count(found) == max(map(answers.count, answers))
    assert found == next(a for a in answers if answers.count(a) == answers.count(found))


CHOICES: list[tuple[Any, Any, dict[str, Any], Any]] = [
    (["x", "y"], 1, {}, "B"),
    (["x", "y"], "1", {}, "B"),
    (["x", "y"], "1.0", {}, "B"),
    (["x", "y"], "(b)", {}, "B"),
    (["x", "y"], "Y", {}, "B"),
    (["x", "y"], 2, {"answer_is": "number"}, "B"),
    (["x", "y"], 2, {}, "wrong_schema"),
    (["x", "y"], [0, 1], {"answer_as": "text"}, "x, y"),
    (["x", "y"], None, {}, "missing_answer"),
    (["1", "2"], "1", {}, "ambiguous_answer"),
    (["1", "2"], "1", {"answer_is": "text"}, "A"),
    (["1", "2"], "1", {"answer_is": "index"}, "B"),
    (["B", "A"], "A", {"answer_is": "letter", "answer_as": "both"}, "A. B"),
    (["x", "x"], "x", {}, "ambiguous_answer"),
    ("['x', 'y']", 0, {}, "A"),
    ('["x", "y"]', 0, {}, "A"),
    ("x, y", 0, {}, "wrong_schema"),
    ("[x, y", 0, {}, "broken_json"),
    ({"text": ["x", "y"], "label": ["1", "2"]}, "2", {}, "2"),
    ({"A": "x", "B": "y", "C": None}, "B", {"answer_as": "both"}, "B. y"),
    ([{"label": "A", "text": "x"}, {"label": "B", "text": "y"}], "B", {}, "B"),
    (["x"], 0, {}, "wrong_schema"),
    ([1.5, 2.5], 2.5, {}, "B"),
]


@pytest.mark.parametrize(("offered", "right", "settings", "wanted"), CHOICES)
def test_choices_of_any_form_and_answers_of_any_kind(offered, right, settings, wanted):
    columns = {"question": "q", "choices": "c", "answer": "a", **settings}
    found = sample({"q": "Q", "c": offered, "a": right}, columns)
    assert (found[1][1] if isinstance(found, list) else found[0]) == wanted, found
    if not isinstance(found, list):
        assert found[1]


def test_choices_in_columns_and_where_the_template_puts_them():
    columns = {"question": "{q}\nOne of:\n{choices}\nSay.", "choices": ["A", "B", "C"],
               "answer": "a"}  # fmt: skip
    row = {"q": "Q {x}", "A": "x", "B": 2, "C": None, "a": "B"}
    assert sample(row, columns) == [("user", "Q {x}\nOne of:\nA. x\nB. 2\nSay."),
                                    ("assistant", "B")]  # fmt: skip
    assert [choices.letters(n) for n in (0, 25, 26, 51, 52)] == ["A", "Z", "AA", "AZ", "BA"]


def test_turns_of_lists_structs_fields_and_words_of_their_own():
    pairs = [{"q": "Q1", "a": "A1"}, {"q": "Q2", "a": "A2"}]
    wanted = [("user", "Q1"), ("assistant", "A1"), ("user", "Q2"), ("assistant", "A2")]
    inside = {"question": "qa.q", "answer": "qa.a"}
    assert sample({"qa": pairs}, inside) == wanted
    assert sample({"qa": {"q": ["Q1", "Q2"], "a": ["A1", "A2"]}}, inside) == wanted
    assert sample({"qa": json.dumps(pairs)}, inside) == wanted
    assert sample({"qa.q": ["Q1", "Q2"], "qa": {"a": ["A1", "A2"]}}, inside) == wanted
    several = {"question": ["q1", "q2"], "answer": ["a1", "a2"]}
    assert sample({"q1": "Q1", "a1": "A1", "q2": "Q2", "a2": "A2"}, several) == wanted
    assert sample({"q1": "Q1", "a1": "A1", "q2": None, "a2": None}, several) == wanted[:2]
    assert sample({"q": ["Q"], "a": ["A", "B"]}, QA)[0] == "wrong_schema"
    fields = {"fields": ["bill.total_price", "bill.date"]}
    bill = {"bill": {"total_price": 3.5, "date": None}}
    assert sample(bill, fields) == [("user", "What is the total price?"), ("assistant", "3.5")]
    named = {"question": "Which {field} on the {kind}?", "fields": {"sum": "bill.total_price"}}
    assert sample({**bill, "kind": "bill"}, named)[0] == ("user", "Which sum on the bill?")
    assert sample({"bill": {}}, fields)[0] == "missing_answer"
    talk = [{"who": "Frage", "what": "Q1"}, {"who": "Antwort", "what": "A1"}]
    own = {"messages": {"column": "m", "role": "who", "content": "what"},
           "roles": {"Frage": "user", "Antwort": "assistant"}}  # fmt: skip
    assert sample({"m": talk}, own) == wanted[:2]
    assert sample({"m": json.dumps(talk)}, own) == wanted[:2]
    assert sample({"m": ["Q1", "A1", "Q2", "A2"]}, {"messages": "m"}) == wanted
    assert sample({"m": [{"user": "Q1", "assistant": "A1"}]}, {"messages": "m"}) == wanted[:2]
    reason, detail = sample({"m": talk}, {"messages": {"column": "m", "role": "who"}})
    assert (reason, "columns: roles" in detail, "Frage" in detail) == ("wrong_schema", True, False)
    assert sample({"m": [["Q1", "A1"], ["Q2", "A2"]]}, {"messages": "m"}) == wanted
    pairs_of = {"question": "m.*.0", "answer": "m.*.1"}
    assert sample({"m": [["Q1", "A1"], ["Q2", "A2"]]}, pairs_of) == wanted
    assert sample({"m": []}, {"messages": "m"})[0] == "missing_answer"
    written = {"question": "q", "answer": "a", "unpack": "a"}
    assert sample({"q": "Q", "a": "['x', 'y', 'y']"}, written)[1] == ("assistant", "y")
    assert sample({"q": "Q", "a": "[0, 1]"}, QA)[1] == ("assistant", "[0, 1]")


def test_media_by_every_way_and_rows_without_any(tmp_path):
    write(tmp_path / "pics" / "COCO_000007.png", png())
    path = {"images": "COCO_{image_id:06d}.png", **QA}
    rows = [{"image_id": 7, "q": "Q", "a": "A"}, {"image_id": "7", "q": "Q", "a": "A"},
            {"image_id": "x", "q": "Q", "a": "A"}]  # fmt: skip
    file = write_lines(tmp_path / "r.jsonl", rows)
    found = read("table", data=str(file), media=str(tmp_path / "pics"), columns=path)
    assert [s["defect"] for s in found] == [None, None, "wrong_schema"]
    marks = {"images": ["i1", "i2", "i3"], **QA, "placeholder": "<image {number}>"}
    rows = [{"i1": IMAGE, "i2": IMAGE, "i3": None, "q": "Is <image 2> as <image 1>?", "a": "A"},
            {"i1": IMAGE, "i2": None, "i3": None, "q": "Is <image 2>?", "a": "A"},
            {"i1": None, "i2": None, "i3": None, "q": "Is it?", "a": "A"}]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "r.parquet")
    where = str(tmp_path / "r.parquet")
    found = read("table", data=where, columns={**marks, "without_media": "reject"})
    assert [s["defect"] for s in found] == [None, "placeholder_mismatch", "missing_media"]
    assert said(found[0])[0][1] == "Is [i] as [i]?"
    kept = read("table", data=where, columns={**marks, "without_media": "keep"})
    assert kept[2]["defect"] is None
    listed = [{"pics": '["COCO_000007.png", "COCO_000007.png"]', "q": "Q", "a": "A"}]
    file = write_lines(tmp_path / "l.jsonl", listed)
    (both,) = read("table", data=str(file), media=str(tmp_path / "pics"),
                   columns={"images": "pics", **QA})  # fmt: skip
    assert len(both["images"]) == 2


# ------------------------------------------------------------------ formats, configs, splits


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


# ------------------------------------------------------------------ wrong mappings


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


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("ab", min_size=1, max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text("ab", min_size=1, max_size=2), VALUE, max_size=3))
def test_every_column_that_a_message_names_is_found(row):
    shape = Shape({"mapping"})
    add_value(shape, row)
    assert all(find(shape, path) is not None for path in leaves(shape))


def test_a_schema_and_its_rows_have_the_same_columns():
    rows = [{"a": {"b": [{"c": 1, "d": "x"}]}, "e": [b"x"], "f": datetime.date(2020, 1, 1)}]
    of_rows = Shape({"mapping"})
    add_value(of_rows, rows[0])
    of_arrow = of_schema(pa.Table.from_pylist(rows).schema)
    assert list(leaves(of_rows)) == list(leaves(of_arrow))
    for path in leaves(of_rows):
        left, right = find(of_rows, path), find(of_arrow, path)
        assert left is not None
        assert right is not None
        assert left.kinds == right.kinds, path


def test_one_object_for_the_same_words():
    made_once = [configured("table", columns=dict(QA), where="c") for _ in range(2)]
    assert made_once[0] is made_once[1]
    assert isinstance(made_once[0], Source)
    assert set(QA) < {*QA, *KEYS}
