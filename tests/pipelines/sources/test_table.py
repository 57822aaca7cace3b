"""`source: table`: cells of any type, answers, choices, turns and media."""

import datetime
import json
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
