"""Streams, archives and rows that mean harm cost a verdict, little memory and little time.

The fuzzer (slow) mutates what `corpus` makes: every adapter's layout, archive and stream kind.
"""

import bz2
import gzip
import io
import json
import lzma
import random
import resource
import tarfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.engine.tables import FileError
from pipelines.reading import files, hub, streams
from pipelines.reading.archives import Members, archives_of, walk_tar
from pipelines.reading.content import ContentError, Verified
from pipelines.reading.ingest import ingest_batches
from pipelines.reading.json_spans import parse_line
from pipelines.reading.parts import list_parts
from pipelines.reading.rows import compressed_rows, parquet_rows
from pipelines.reading.streams import decompressed, lines
from pipelines.sources import SOURCES
from pipelines.sources.sample import Defect
from tests.pipelines.sources.making import png, write, write_lines
from tests.pipelines.sources.tables import TABLES, settings_of
from tests.pipelines.sources.test_any_type import ROWS, VALUES, places, write_media
from tests.pipelines.sources.test_any_type import mutated as mutated_row

MUTATIONS = 20_000
PEAK = 1 << 30
SQUEEZERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("kind", SQUEEZERS)
def test_a_bomb_ends_with_a_verdict(kind, monkeypatch):
    monkeypatch.setattr(streams, "UNSUSPECTED", 8 << 20)
    stream = decompressed(io.BytesIO(SQUEEZERS[kind](bytes(64 << 20))), kind)
    sizes = map(len, iter(lambda: stream.read(10_240), b""))
    with pytest.raises(Defect, match="too_many_bytes"):
        sum(sizes)
    assert stream.count < 48 << 20


@pytest.mark.parametrize("kind", SQUEEZERS)
def test_what_is_honest_comes_whole(kind):
    data = random.Random(1).randbytes(300_000) + bytes(200_000)
    squeezed = SQUEEZERS[kind](data) + bytes(1000) + SQUEEZERS[kind](b"more")
    assert io.BufferedReader(decompressed(io.BytesIO(squeezed), kind)).read() == data + b"more"


def test_thousands_of_empty_members_cost_no_square():
    stream = decompressed(io.BytesIO(gzip.compress(b"") * 20_000), "gz")
    assert stream.read(10) == b""


def test_a_line_without_end_is_cut_where_it_must_be(monkeypatch):
    monkeypatch.setattr(streams, "BLOCK", 64)
    found = list(lines(io.BytesIO(b"a" * 1000 + b"\nb\n"), 100))
    assert b"".join(found) == b"a" * 1000 + b"b"
    assert max(map(len, found)) == 100


def test_deep_json_is_a_text_that_does_not_parse():
    assert isinstance(parse_line(b"[" * 5000 + b"]" * 5000), str | Defect)


def test_a_value_that_parquet_repeats_costs_its_rows(tmp_path):
    big = pa.array(["x", "a" * (24 << 20)])
    names = pa.DictionaryArray.from_arrays(pa.array([0] * 20 + [1] * 12, pa.int32()), big)
    inside = pa.ListArray.from_arrays([0, 20, *range(21, 33)][:14], names)
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": inside}), file, compression="zstd", store_schema=False,
                   dictionary_pagesize_limit=1 << 30)  # fmt: skip
    assert file.stat().st_size < 100_000
    before = pa.total_allocated_bytes()
    rows = parquet_rows(str(file), file.stat().st_size, [0], SOURCES["documents"])
    for _ in rows:
        assert pa.total_allocated_bytes() - before < 400 << 20


def test_a_page_whose_checksum_is_wrong_is_rows_that_do_not_decode(tmp_path):
    file = tmp_path / "a.parquet"
    table = pa.table({"text": [random.Random(n).randbytes(40).hex() for n in range(500)]})
    pq.write_table(table, file, write_page_checksum=True, use_dictionary=False)
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 8
    file.write_bytes(data)
    rows = list(parquet_rows(str(file), len(data), [0], SOURCES["documents"]))
    assert len(rows) == 500
    assert {row.reason for row in rows if isinstance(row, Defect)} == {"broken_rows"}
    for start in (1, 100, 256, 257, 400, 499, 500):  # parts of a group read from there
        some = parquet_rows(str(file), len(data), [0], SOURCES["documents"], start=start)
        assert list(map(repr, some)) == list(map(repr, rows[start:]))


def test_a_bzip2_member_that_says_it_is_small_is_not_made_whole(tmp_path):
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.png", bytes(64 << 20))
    data = file.read_bytes().replace((64 << 20).to_bytes(4, "little"), (9).to_bytes(4, "little"))
    file.write_bytes(data)
    members = Members(archives_of([files.local_file(file, tmp_path)]))
    place = members.find("a.png")
    with pytest.raises(Defect):
        members.read(place, 1000)
    members.close()


def test_a_tar_header_of_names_takes_no_more_than_its_bound(tmp_path):
    header = tarfile.TarInfo("a")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    file = write(tmp_path / "a.tar", header.tobuf() + bytes(10_240))
    [archive] = archives_of([files.local_file(file, tmp_path)])
    assert [name for name, _ in walk_tar(archive, limit=99)] == [""]


def test_bytes_that_are_not_the_hubs_are_refused_when_read_whole():
    stream = Verified(io.BytesIO(b"abc"), url="hf://x", size=3, content="0" * 64)
    with pytest.raises(ContentError, match="not those that the hub states"):
        stream.readinto(bytearray(10))


def test_an_answer_that_drips_is_given_up(monkeypatch):
    monkeypatch.setattr(hub, "TIMEOUT", 0.0)
    monkeypatch.setattr(hub, "SLOWEST", 1e12)
    with pytest.raises(ConnectionError, match="only"):
        hub.taken(iter([b"a"] * 9), 0, 9)


def test_a_whole_file_in_place_of_a_range_is_passed_over_up_to_a_bound():
    assert hub.taken(iter([b"abc", b"def", b"never" * 1000]), 2, 3) == b"cde"
    with pytest.raises(ValueError, match="Name a local copy"):
        hub.taken(iter([]), hub.MAX_SKIPPED + 1, 3)


# ------------------------------------------------------------------ the fuzzer


def corpus(root: Path) -> dict[str, tuple[str, Path]]:
    """Name -> (source, the folder that holds one file to mutate)."""
    talk = {
        "messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    }
    record = {"image": "a.png", "conversations": [{"from": "human", "value": "<image>\nWhat?"},
                                                  {"from": "gpt", "value": "It."}]}  # fmt: skip
    image = png(8, 6)
    text = "\n".join(json.dumps({"text": f"Text {n}."}) for n in range(9)).encode()
    write_lines(root / "jsonl" / "a.jsonl", [talk] * 5)
    write(root / "array" / "a.json", json.dumps([talk] * 5).encode())
    write(root / "gz" / "a.jsonl.gz", gzip.compress(text))
    write(root / "zst" / "a.jsonl.zst", pa.compress(text, "zstd", asbytes=True))
    write(root / "csv" / "metadata.csv", b"file_name,text\na.png,One\n")
    write(root / "csv" / "a.png", image)
    (root / "parquet").mkdir()
    pq.write_table(pa.table({"text": ["One.", "Two."] * 9}), root / "parquet" / "a.parquet")
    for kind in ("tar", "tar.gz", "tar.bz2", "tar.xz"):
        place = root / kind.replace(".", "") / f"a.{kind}"
        place.parent.mkdir()
        with tarfile.open(place, "w:" + kind.partition(".")[2]) as tar:
            for name, data in (("a.png", image), ("a.json", b'{"text": "One."}')):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    write(root / "pool" / "a.tar", (root / "tar" / "a.tar").read_bytes())
    for name, how in (("zip", zipfile.ZIP_DEFLATED), ("bzip", zipfile.ZIP_BZIP2)):
        write(root / name / "r.json", json.dumps([record] * 3).encode())
        with zipfile.ZipFile(root / name / "a.zip", "w", how) as archive:
            archive.writestr("a.png", image)
    for name, rows in ROWS.items():  # every adapter, by the rows of its layout
        write_media(root / f"rows of {name}")
        write(root / f"rows of {name}" / file_of(name), written(name, rows))
    sources = {f"rows of {name}": name for name in ROWS}
    sources |= dict.fromkeys(("tar", "targz", "tarbz2", "tarxz"), "webdataset")
    sources |= {
        "pool": "dcvlm",
        "jsonl": "messages",
        "array": "messages",
        "gz": "documents",
        "zst": "documents",
    }
    sources |= {"csv": "imagefolder", "parquet": "documents", "zip": "llava", "bzip": "llava"}
    return {name: (source, root / name) for name, source in sources.items()}


MUTATED = (
    *("metadata.jsonl", "metadata.csv", "rows.parquet", "a.parquet", "a.jsonl", "a.json"),
    *("a.jsonl.gz", "a.jsonl.zst", "a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"),
)
"""Of a folder of the corpus the one file that is mutated."""


ROOM = Path(files.__file__).parents[1]
"""Where a message is raised that is meant for a user."""


def mutated_file(folder: Path) -> Path:
    """The file to mutate in a folder of the corpus."""
    return next(path for path in sorted(folder.iterdir()) if path.name in MUTATED)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Some bytes other, gone, doubled, or the rest cut off."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, kind = rng.randrange(len(found) + 1), rng.randrange(5)
        if kind == 0 and found:
            found[min(at, len(found) - 1)] = rng.randrange(256)
        elif kind == 1:
            del found[at : at + rng.randint(1, 40)]
        elif kind == 2:
            found[at:at] = found[max(0, at - 60) : at]
        elif kind == 3:
            found[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
        elif rng.random() < 0.2:
            del found[at:]
    return bytes(found)


def file_of(name: str) -> str:
    """The file that the fuzzer gives an adapter: Parquet where its rows hold bytes."""
    return "rows.parquet" if b"bytes" in repr(ROWS[name]).encode() else "metadata.jsonl"


def written(name: str, rows: Sequence[Any]) -> bytes:
    """Rows of an adapter as its file; raises ArrowException or TypeError where none holds them."""
    if file_of(name) == "metadata.jsonl":
        return "\n".join(json.dumps(row) for row in rows).encode()
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), buffer)
    return buffer.getvalue()


def mutated_rows(name: str, rng: random.Random) -> bytes:
    """The file of an adapter whose rows have a cell or two of any other type or content."""
    while True:
        rows = list(ROWS[name])
        for n, row in enumerate(rows):
            for _ in range(rng.randint(0, 2)):
                row = mutated_row(row, rng.choice(list(places(row))), rng.choice(VALUES))
            rows[n] = row
        with suppress(pa.ArrowException, TypeError, OverflowError, UnicodeError):
            return written(name, rows)


def read_file(source: str, file: Path) -> Iterator[str | None]:
    """The defect of each row of the file, or of those whose media it holds; None of whole ones."""
    rows = file.with_name("r.json") if file.suffix == ".zip" else file
    for part in list_parts(**settings_of(source), data=str(rows), media=str(file.parent)):
        for batch in ingest_batches(part):
            yield from batch.column("defect").to_pylist()


def fuzz(root: Path, count: int, seed: int) -> Counter[str]:
    """What became of so many mutations: read, or refused in one message; and of which layouts."""
    rng, found = random.Random(seed), Counter[str]()
    cases = list(corpus(root).items())
    originals = {name: mutated_file(folder) for name, (_, folder) in cases}
    whole = {name: path.read_bytes() for name, path in originals.items()}
    for number in range(count):
        name, (source, _) = cases[number % len(cases)]
        of_rows = name.startswith("rows of ") and rng.random() < 0.7
        data = mutated_rows(source, rng) if of_rows else mutated(whole[name], rng)
        originals[name].write_bytes(data)
        started = time.monotonic()
        try:
            found.update(f"rows {'kept' if why is None else 'rejected'}"
                         for why in read_file(source, originals[name]))  # fmt: skip
            found["read"] += 1
        except (ValueError, FileNotFoundError, FileError) as error:
            place = traceback.extract_tb(error.__traceback__)[-1].filename
            if not Path(place).is_relative_to(ROOM):  # a bug, then
                raise
            found["refused"] += 1
        found[f"by {source}"] += 1
        found["slowest ms"] = max(found["slowest ms"], round(1000 * (time.monotonic() - started)))
    return found


def test_what_the_fuzzer_mutates_is_read_whole(tmp_path):
    for name, (source, folder) in corpus(tmp_path).items():
        assert None in set(read_file(source, mutated_file(folder))), name


def test_a_few_mutations_raise_nothing(tmp_path):
    count = len(corpus(tmp_path / "counted"))
    found = fuzz(tmp_path, count, seed=1)
    assert found["read"] + found["refused"] == count
    every = (SOURCES.keys() | TABLES.keys()) - {"table"}
    assert {name for name in every if found[f"by {name}"]} == every


@pytest.mark.slow
def test_many_mutations_raise_nothing_hang_nowhere_and_stay_small(tmp_path):
    found = fuzz(tmp_path, MUTATIONS, seed=2)
    assert found["read"] + found["refused"] == MUTATIONS
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    assert max(resource.getrusage(who).ru_maxrss << 10 for who in both) < PEAK


def test_a_table_of_rows_is_compressed_within_its_bound(tmp_path):
    file = write(tmp_path / "a.jsonl.xz", lzma.compress(b'{"text": "a"}\n' * 5))
    assert [row["text"] for row in compressed_rows(str(file), file.stat().st_size)] == ["a"] * 5
