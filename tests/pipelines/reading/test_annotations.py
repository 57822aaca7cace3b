"""Annotations too large to read at planning: cut into blocks of bytes, no row lost, none twice."""

import io
import json
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.reading import annotations, json_spans
from pipelines.reading.annotations import BlockSelection
from pipelines.reading.ingest import ingest
from pipelines.reading.parts import list_parts
from pipelines.sources import SOURCES
from tests.pipelines.sources.making import png, read, said, write, write_lines


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def large(monkeypatch):
    """Annotations count as large, and blocks are small."""
    monkeypatch.setattr(annotations, "SCANNED", 1000)
    monkeypatch.setattr(annotations, "PROBE", 500)
    monkeypatch.setattr(annotations, "BLOCK", 700)


def asked(question, answer="An answer.", **about):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": "x", **about, "conversations": turns}


TEXT = st.text(st.sampled_from('{}[]",:\\ \n\u00e9\ud83d\U0001f600conversations'), max_size=30)
NESTED = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
ROWS = st.lists(
    st.builds(lambda v, more: {**more, "conversations": v}, NESTED, st.dictionaries(TEXT, NESTED))
    | NESTED.filter(lambda value: not (isinstance(value, dict) and "conversations" in value)),
    max_size=12,
)


def is_row(value):
    return isinstance(value, dict) and "conversations" in value


def inside(value):
    """Every value within another."""
    held = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in held:
        yield each
        yield from inside(each)


@settings(max_examples=50)
@given(ROWS, st.integers(5, 200), st.booleans(), st.sampled_from([None, 1]), st.integers(1, 40))
def test_the_blocks_of_an_array_hold_every_row_once(values, size, ascii_only, indent, ahead):
    """Whatever its strings quote. A row inside a row is the one thing that it must not have."""
    values = [v for v in values if not any(is_row(each) for each in inside(v))]
    text = json.dumps(values, indent=indent, ensure_ascii=ascii_only)
    data = text.encode("utf-8", "surrogatepass")
    blocks = [(start, min(len(data), start + size)) for start in range(0, len(data), size)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_spans, "AHEAD", ahead)
        whole = list(json_spans.array_spans(io.BytesIO(data), "made"))
        found = [
            span
            for start, stop in blocks
            for span in json_spans.block_spans(
                io.BytesIO(data), "made", start, stop, array=True, whole=is_row
            )
        ]
    assert found == whole
    assert len(whole) == len(values)


@given(
    st.lists(st.sampled_from([b"{}", b"", b" ", b'{"a": 1}', b"oops", b"[1"])), st.integers(1, 9)
)
def test_the_blocks_of_lines_hold_every_line_once(lines, size):
    data = b"\n".join(lines)
    whole = list(json_spans.line_spans(io.BytesIO(data), "made", strict=False))
    found = [
        span
        for start in range(0, len(data), size)
        for span in json_spans.block_spans(
            io.BytesIO(data), "made", start, start + size, array=False, whole=is_row
        )
    ]
    assert found == whole


def test_broken_json_is_not_read_on_for_ever():
    """What no more bytes would mend is an error at once, not after the whole file is in memory."""
    data = b'[{"a": 1}, {"a" 2}, ' + b" " * (json_spans.CHUNK * 3)
    stream = io.BytesIO(data)
    with pytest.raises(ValueError, match="made: broken JSON at byte 16"):
        list(json_spans.array_spans(stream, "made"))
    assert stream.tell() <= json_spans.CHUNK


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_a_large_file_is_read_by_blocks_and_not_at_planning(tmp_path, large, monkeypatch, form):
    write(tmp_path / "a.png", png())
    rows = [asked(f"<image>\nQ{n}", image="a.png" if n % 3 else "b.png") for n in range(40)]
    rows[7] = asked("Q7 [ { no image")
    rows[9] = {"id": "broken", "conversations": 3}
    rows[20] = [1, 2]
    if form == "json":
        write(tmp_path / "a.json", rows)
    else:
        write_lines(tmp_path / "a.jsonl", [*rows[:21], '{"oops"', *rows[22:]])
    path = str(tmp_path / f"a.{form}")
    seen = []
    true = json_spans.parse_line
    monkeypatch.setattr(json_spans, "parse_line", lambda line: seen.append(line) or true(line))
    parts = list_parts(source="llava", data=path, select={"default": {"keep": 1.0}})
    assert len(seen) < 10  # the probe
    size = (tmp_path / f"a.{form}").stat().st_size
    assert len(parts) == 1  # a thousand rows a part
    monkeypatch.setattr(annotations, "BLOCK", 350)
    monkeypatch.setattr("pipelines.reading.splitting.PART_BYTES", 700)
    parts = list_parts(source="llava", data=path)
    assert len(parts) == -(-size // 700)
    assert sum(part.about_rows for part in parts) == pytest.approx(40, abs=8)
    samples = read("llava", data=path)
    assert len(samples) == 40
    assert len({s["id"] for s in samples}) == 40
    offsets = [int(s["id"].rpartition("-")[2]) for s in samples]
    assert offsets == sorted(offsets)
    expected = [None if n % 3 else "missing_media" for n in range(40)]
    expected[7], expected[9], expected[20] = None, "wrong_schema", "wrong_schema"
    if form == "jsonl":
        expected[21] = "broken_json"
    assert [s["defect"] for s in samples] == expected
    assert said(samples[1])[0] == ("user", "[i]Q1")
    few = list_parts(source="llava", data=path, select={"default": {"max_samples": 4}})
    assert 0 < len(few) < len(parts)
    assert few[0].share == pytest.approx(sum(p.about_rows for p in few) / 40, rel=0.2)


def archived(tmp_path, count=60):
    """Annotations of `count` rows about images in two tar.gz."""
    for number in range(2):
        path = tmp_path / f"{number}.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            for n in range(number, count, 2):
                data = png(8, 8, seed=n)
                info = tarfile.TarInfo(f"{n}.png")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    rows = [asked(f"<image>\nQ{n}", image=f"{n}.png") for n in range(count)]
    write(tmp_path / "a.json", [*rows, asked("<image>", image="gone.png")])


def test_archives_beside_large_annotations_are_read_as_beside_small_ones(tmp_path, monkeypatch):
    archived(tmp_path)
    small = read("llava", data=str(tmp_path))
    assert len(small) == 61
    monkeypatch.setattr(annotations, "SCANNED", 1000)
    annotations.probe.cache_clear()
    annotations.index_annotations.cache_clear()
    annotations.scan_file.cache_clear()
    large = read("llava", data=str(tmp_path))
    again = read("llava", data=str(tmp_path))  # from the index remembered on this machine
    assert again == large
    plain = lambda samples: sorted((said(s), s["defect"], s["images"]) for s in samples)
    assert plain(large) == plain(small)
    (index,) = annotations.cache_folder().glob("*.npz")
    annotations.scan_file.cache_clear()
    annotations.index_annotations.cache_clear()
    assert read("llava", data=str(tmp_path)) == large
    assert index.is_file()


def test_few_samples_of_a_large_archive_read_some_blocks_of_its_annotations(tmp_path, large):
    archived(tmp_path, count=400)
    select = {"default": {"max_samples": 10}}
    (part,) = list_parts(source="llava", data=str(tmp_path), select=select, seed=5)
    every = part.inputs["every"]
    assert every.step >= 4
    assert part.identity["every"] == [every.step, every.phase]
    size = (tmp_path / "a.json").stat().st_size
    assert part.num_bytes == part.inputs["archive"].size + size // every.step
    samples = ingest(part).to_pylist()
    assert {s["defect"] for s in samples} == {None}
    assert 10 <= len(samples) <= 60
    assert part.share == pytest.approx(len(samples) / 401, rel=0.5)
    whole = {s["id"]: s for s in read("llava", data=str(tmp_path))}
    assert len(whole) == 401
    assert all(whole[s["id"]] == s for s in samples)  # the same rows under the same names


def test_every_block_is_of_one_phase(tmp_path, large):
    archived(tmp_path, count=100)
    files = tuple(list_parts(source="llava", data=str(tmp_path))[0].inputs["files"])
    rows = [
        ref
        for phase in range(3)
        for ref in annotations.index_annotations(files, SOURCES["llava"], BlockSelection(3, phase))
        .refs[:, 1]
        .tolist()
    ]
    assert (
        sorted(rows)
        == annotations.index_annotations(files, SOURCES["llava"], BlockSelection())
        .refs[:, 1]
        .tolist()
    )
