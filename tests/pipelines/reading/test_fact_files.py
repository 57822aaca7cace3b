"""Files of annotations: every layout gives the same numbers, what is none is null with a reason."""

import gzip
import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.reading import json_spans
from pipelines.reading.fact_files import REASONS, as_number, names_in, read_fact_file
from pipelines.reading.files import local_file

FIELDS = (("clip", "scores.clip"), ("length", "length"))
SAID = {
    "a/0001": {"scores": {"clip": 0.5, "other": [1, 2]}, "length": 7},
    "0002": {"scores": {"clip": "-1.5e-1"}, "length": True, "more": {"deep": {"x": None}}},
    "3": {"scores": {"clip": None}},
    "ünï": {"scores": {"clip": "good"}, "length": ""},
}
EXPECTED = {
    "a/0001": (0.5, "", 7.0, ""),
    "0002": (-0.15, "", 1.0, ""),
    "3": (None, "null", None, "no such field"),
    "ünï": (None, "not a number", None, "null"),
}


def read(path, key="__key__", fields=FIELDS):
    return read_fact_file(local_file(path, path.parent), key=key, fields=fields)


def facts(frame):
    return {
        row["key"]: (
            row["clip"],
            REASONS[row["clip why"]],
            row["length"],
            REASONS[row["length why"]],
        )
        for row in frame.to_dicts()
    }


def rows():
    return [{"__key__": key, **about} for key, about in SAID.items()]


BODIES = {
    "x.json": lambda: json.dumps(SAID),
    "bom.json": lambda: "\ufeff" + json.dumps(SAID, indent=2, ensure_ascii=False),
    "rows.json": lambda: json.dumps(rows()),
    "lines.json": lambda: "\n".join(map(json.dumps, rows())),
    "x.jsonl": lambda: "\n".join(map(json.dumps, rows())) + "\n\n",
    "x.NDJSON": lambda: "\ufeff" + "\r\n".join(map(json.dumps, rows())),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", BODIES)
def test_every_layout_of_json_says_the_same(tmp_path, name, packed):
    body = BODIES[name]().encode()
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(body) if packed else body)
    assert facts(read(path)) == EXPECTED


def test_parquet_and_csv_give_numbers_of_any_column(tmp_path):
    table = pa.table({
        "id": pa.array([5, 6, 7], pa.int32()),
        "scores": pa.array([{"clip": 0.5}, {"clip": math.nan}, None]),
        "length": pa.array(["1", "x", None]),
        "left out": pa.array([b"1", b"2", b"3"]),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "x.parquet")
    assert facts(read(tmp_path / "x.parquet", key="id")) == {
        "5": (0.5, "", 1.0, ""),
        "6": (None, "not finite", None, "not a number"),
        "7": (None, "no such field", None, "null"),
    }
    (tmp_path / "x.csv").write_text("id,scores.clip,length\n5,1,\n6,inf,3\n")
    assert facts(read(tmp_path / "x.csv", key="id")) == {
        "5": (1.0, "", None, "null"),
        "6": (None, "not finite", 3.0, ""),
    }


def test_columns_of_numbers_are_read_as_they_are(tmp_path):
    table = pa.table({"k": ["./a", "b", "c"], "x": pa.array([1, None, 3], pa.int8()),
                      "y": pa.array([True, False, None])})  # fmt: skip
    pq.write_table(table, tmp_path / "x.parquet")
    frame = read(tmp_path / "x.parquet", key="k", fields=(("clip", "x"), ("length", "y")))
    assert facts(frame) == {
        "a": (1.0, "", 1.0, ""),
        "b": (None, "null", 0.0, ""),
        "c": (3.0, "", None, "null"),
    }


@pytest.mark.parametrize("body", ["", "{}", " \n", "\ufeff{ }", "[]"])
def test_a_shard_of_no_samples_has_no_keys(tmp_path, body):
    (tmp_path / "x.json").write_text(body)
    assert len(read(tmp_path / "x.json")) == 0
    (tmp_path / "x.json.gz").write_bytes(gzip.compress(body.encode()))
    assert len(read(tmp_path / "x.json.gz")) == 0


def test_a_key_that_comes_twice_counts_where_both_say_the_same(tmp_path):
    body = '{"a": {"length": 1}, "b": {"length": 1}, "a": {"length": 1}, "b": {"length": 2}}'
    (tmp_path / "x.json").write_text(body)
    frame = read(tmp_path / "x.json")
    assert dict(frame.select("key", "repeated").iter_rows()) == {"a": False, "b": True}


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("x.json", b'{"a": {"length": 1}, "b": {"le', "broken JSON at byte"),
        ("x.json", b'{"a": {"length": 1} "b" 1}', "broken JSON"),
        ("x.json", b"hello", "starts with"),
        ("x.json", json.dumps(SAID).encode("utf-16"), "UTF-16"),
        ("x.jsonl", b'{"id": 1}\n', "no key '__key__' in its first 1 rows"),
        ("x.jsonl", b'{"__key__": "a"}\n{"__k', "row 2 cannot be read"),
        ("x.jsonl", b'{"__key__": "a"}\n[1]\n', "row 2 cannot be read: it is list"),
        ("x.json.gz", gzip.compress(json.dumps(SAID).encode())[:-9], "breaks off|cannot|broken"),
        ("x.json.gz", b"no gzip", "cannot be read|broken|starts with"),
        ("x.parquet", b"PAR1 no", "not a readable Parquet"),
        ("x.txt", b"a", "no file of annotations"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_an_error_and_never_an_absent_key(tmp_path, name, body, words):
    path = tmp_path / name
    path.write_bytes(body)
    with pytest.raises(ValueError, match=words) as error:
        read(path)
    assert str(path) in str(error.value)


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(),
                 st.lists(st.integers()), st.dictionaries(st.text(), st.integers())))  # fmt: skip
def test_anything_is_a_finite_number_or_null_with_a_reason(value):
    number, why = as_number(value)
    assert (number is None) == bool(why)
    assert number is None or math.isfinite(number)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(max_size=6), st.recursive(
    st.one_of(st.none(), st.integers(-9, 9), st.text(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3),
                            st.dictionaries(st.text(max_size=3), inner, max_size=3)))),
    st.integers(1, 9))  # fmt: skip
def test_members_are_those_that_json_reads_whatever_the_chunks(tmp_path_factory, said, chunk):
    path = tmp_path_factory.mktemp("m") / "x.json"
    path.write_text(json.dumps(said, ensure_ascii=False))
    before = json_spans.CHUNK
    json_spans.CHUNK = chunk
    try:
        with path.open("rb") as stream:
            found = dict(json_spans.members(stream, str(path)))
    finally:
        json_spans.CHUNK = before
    assert found == said


def test_fields_are_told_by_their_paths():
    assert names_in(SAID.values()) == ["scores.clip", "scores.other", "length", "more.deep.x"]
