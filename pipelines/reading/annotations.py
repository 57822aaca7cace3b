"""JSON annotations, small and large: which rows there are, and what they name.

| files of a subset, together | planning reads          | a part reads           | row label     |
|-----------------------------|-------------------------|------------------------|---------------|
| up to SCANNED bytes         | all: offset and media   | its rows by offset     | row in subset |
| more                        | the first PROBE of each | its block, or an index | file-byte     |

An index (`Rows`) says of every row where it lies and which media it names; the parts of streamed
archives need one, of the whole subset or, where few rows are wanted, of every n-th block: evenly
over the file, as rows that stand together often lie in one archive. It is as narrow as it can be,
32 bytes a row with one medium, and is remembered on this machine.
"""

import io
import json
import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from pipelines.engine.private import cache_folder
from pipelines.reading import hub, json_spans
from pipelines.reading.files import File, open_file
from pipelines.reading.json_spans import Span, parse_line
from pipelines.reading.member_paths import key_of
from pipelines.reading.rows import check_columns
from pipelines.reading.streams import Window
from pipelines.sources.sample import Defect, Source

SCANNED = 64 << 20
"""Bytes of a subset's annotations, up to which they are read whole at planning."""
PROBE = 1 << 20
"""Bytes that are read of each file beyond that, to see what its rows are like."""
BLOCK = 256 << 10
"""Bytes of the smallest stretch of annotations that is read on its own."""


@dataclass(frozen=True)
class BlockSelection:
    """The blocks `b` of all of a subset's with `(b + phase) % step == 0`; step 1: all."""

    step: int = 1
    phase: int = 0


@dataclass(frozen=True)
class LineIndex:
    """Where rows start and how long they are, int64 [rows]; and the hashes of their media's paths,
    uint64 [media] with the row of each, int64 [media], in order.
    """

    offsets: np.ndarray
    lengths: np.ndarray
    keys: np.ndarray
    rows: np.ndarray

    @property
    def first_keys(self) -> np.ndarray:
        """The hash of each row's first medium, 0 where it names none: uint64 [rows]."""
        first = np.zeros(len(self.offsets), np.uint64)
        first[self.rows[::-1]] = self.keys[::-1]
        return first


@dataclass(frozen=True)
class Probe:
    """What the start of a file tells: its form, about how many bytes a row has, and how many of the
    rows name no medium.
    """

    array: bool
    row_bytes: float
    without_media: float
    """A share."""


def is_small(files: Sequence[File], source: Source) -> bool:
    """Whether planning may read the annotations whole."""
    return source.row_files or sum(file.size for file in files) <= SCANNED


@lru_cache(maxsize=1024)
def probe(file: File, source: Source) -> Probe:
    """The form of a JSON file; raises ValueError where it is none or not of the source's layout."""
    found: set[str] = set()
    count, start, end, bare = 0, 0, 0, 0
    with open_window(file, 0, min(PROBE, file.size)) as stream:
        is_list, rows = first_spans(stream, file)
        for offset, length, row in rows:
            start = start if count else offset
            count, end = count + 1, offset + length
            if isinstance(row, dict):
                found.update(row)
            bare += not media_keys(row, source)
    if count and not found:
        raise ValueError(no_rows(file))
    check_columns(file, sorted(found), source)
    return Probe(is_list, (end - start) / max(1, count), bare / max(1, count))


def head(file: File) -> Iterator[object]:
    """The rows that start in the first PROBE bytes of a JSON file; raises ValueError as `probe`."""
    with open_window(file, 0, min(PROBE, file.size)) as stream:
        yield from (row for _, _, row in first_spans(stream, file)[1])


def first_spans(stream: BinaryIO, file: File) -> tuple[bool, Iterator[Span]]:
    """(whether the file is an array, its rows that start in the first PROBE bytes)."""
    by_line = file.name.endswith(".jsonl")
    start = stream.read(json_spans.AHEAD)
    is_list = not by_line and json_spans.is_array(start, file.url)
    stream.seek(0)
    rows: Iterator[Span] = (
        json_spans.array_spans(stream, file.url, first=PROBE)
        if is_list
        else json_spans.line_spans(stream, file.url, strict=not by_line)
    )
    return is_list, up_to_probe(rows)


def up_to_probe(rows: Iterator[Span]) -> Iterator[Span]:
    """The rows up to the first that ends beyond PROBE bytes, that one too."""
    for offset, length, row in rows:
        yield offset, length, row
        if offset + length >= PROBE:
            return


def estimate_rows(files: Sequence[File], source: Source) -> list[float]:
    """About how many rows each file has, from what its first ones are like."""
    return [file.size / max(1.0, probe(file, source).row_bytes) for file in files]


def whole_row(source: Source) -> json_spans.Whole:
    """Tells whether a value is a row that has the source's columns."""
    return lambda row: isinstance(row, dict) and not source.lacks(row.keys())


def open_window(file: File, start: int, stop: int) -> BinaryIO:
    """A reader of the file about to read these bytes; of the hub, they come in one request."""
    if hub.is_hub(file.url) and hub.cached(file.url, file.content) is None:
        stretch = Window(hub.RangeReader(file.url, file.size), start, stop)
        return cast(BinaryIO, io.BufferedReader(stretch, buffer_size=json_spans.AHEAD))
    return open_file(file.url, file.size)


def read_block(file: File, source: Source, start: int, stop: int) -> Iterator[Span]:
    """The rows that start in the bytes `start` to `stop` of a large file, in order."""
    seen = probe(file, source)
    ahead = start - min(start, json_spans.BEFORE)
    with open_window(file, ahead, min(file.size, stop + json_spans.AHEAD)) as stream:
        yield from json_spans.block_spans(
            stream, file.url, start, stop, array=seen.array, whole=whole_row(source)
        )


def media_keys(row: object, source: Source) -> list[int]:
    """The hashes of the paths of a row's media, in order."""
    if not isinstance(row, dict):
        return []
    try:
        media = source.adapter(row).media
    except Defect:
        return []
    return [key_of(medium.path) for medium in media if medium.path]


# ------------------------------------------------------------------ the index


def indexed(found: Iterable[Span], source: Source) -> tuple[LineIndex, set[str]]:
    """(where the rows lie and what they name, the columns that any of them has)."""
    offsets, lengths, owners = array("q"), array("q"), array("q")
    keys = array("Q")
    columns: set[str] = set()
    for offset, length, row in found:
        offsets.append(offset)
        lengths.append(length)
        media = media_keys(row, source)
        keys.extend(media)
        owners.extend([len(offsets) - 1] * len(media))
        if isinstance(row, dict):
            columns.update(row)
    made = (np.array(values) for values in (offsets, lengths, keys, owners))
    return LineIndex(*made), columns


@lru_cache(maxsize=1024)
def scan_file(file: File, source: Source) -> LineIndex:
    """The index of a whole file; raises ValueError where it is not JSON of the source's layout."""
    cache = index_file(file, source)
    if file.size > SCANNED and cache.is_file():
        with np.load(cache) as held:
            return LineIndex(**held)
    with open_annotations(file) as stream:
        if source.row_files:
            text = stream.read(json_spans.MAX_LINE)
            return indexed([(0, len(text), parse_line(text))], source)[0]
        by_line = file.name.endswith(".jsonl")
        lines, columns = indexed(json_spans.row_spans(stream, file.url, by_line=by_line), source)
    if len(lines.offsets) and not columns:
        raise ValueError(no_rows(file, len(lines.offsets)))
    if len(lines.offsets):
        check_columns(file, sorted(columns), source)
    if file.size > SCANNED:
        waiting = cache.with_suffix(f".{os.getpid()}.tmp")
        with suppress(OSError):  # a home that is full or read-only costs another scan, no more
            cache.parent.mkdir(parents=True, exist_ok=True)
            with waiting.open("wb") as out:
                np.savez(out, **vars(lines))
            waiting.replace(cache)
    return lines


def no_rows(file: File, count: int | None = None) -> str:
    """The message that a file holds no JSON lines."""
    with open_annotations(file) as stream:
        head = stream.read(json_spans.AHEAD)
    lines = json_spans.line_spans(io.BytesIO(head), file.url, strict=False)
    _, _, found = next(lines, (0, 0, None))
    first = found.detail if isinstance(found, Defect) else f"it is {type(found).__name__}"
    which = f"none of its {count:,} rows" if count else "none of its first rows"
    return (
        f"{file.url}: {which} is a JSON object (the first: {first}); expected a JSON object on "
        f"every line{json_spans.hint(head)}"
    )


def index_file(file: File, source: Source) -> Path:
    """Where the index of a large file is remembered on this machine."""
    about = repr([file.url, file.size, file.stamp, *source.identity])
    return cache_folder() / f"{blake2b(about.encode(), digest_size=12).hexdigest()}.npz"


def open_annotations(file: File) -> BinaryIO:
    """The annotation file; one on the hub comes to the client's cache, since parts share it."""
    if hub.is_hub(file.url):
        return hub.download(file.url, file.content).open("rb")
    return open_file(file.url, file.size, content=file.content)


@dataclass(frozen=True)
class Rows:
    """The rows of a subset's annotations (or of every n-th block of them), in order."""

    refs: np.ndarray
    """int64 [rows, 4]: file; row in the subset (small) or byte in the file; offset; length."""
    first: np.ndarray
    """The hash of each row's first medium, 0 where it names none: uint64 [rows]."""
    keys: np.ndarray
    """The hash of every medium's path, sorted, uint64 [media]; no pair with `owners` twice."""
    owners: np.ndarray
    """The row of each medium, int64 [media]."""
    spool: BinaryIO | None = None
    """What the offsets are in, where it is not the files."""


def row_label(file: int, number: int, *, small: bool) -> str:
    """`000123`, the row in the subset; of large files `00001-000000004711`, where it lies."""
    return f"{number:06d}" if small else f"{file:05d}-{number:012d}"


@lru_cache(maxsize=4)
def index_annotations(files: tuple[File, ...], source: Source, every: BlockSelection) -> Rows:
    """The rows of the files, or of some blocks of large ones: those are copied to a nameless file
    on disk, since each is read again when its medium passes.
    """
    spool, copied = None, array("q")
    if every.step == 1:
        scans = [scan_file(file, source) for file in files]
    else:
        spool = spool_file()
        taken = (spooled(found, spool, copied) for found in sample_blocks(files, source, every))
        scans = [indexed(found, source)[0] for found in taken]
    counts = [len(found.offsets) for found in scans]
    offsets = np.concatenate([found.offsets for found in scans])
    lengths = np.concatenate([found.lengths for found in scans])
    places = np.arange(sum(counts)) if is_small(files, source) else offsets
    if spool is not None:
        lengths = np.array(copied)
        offsets = np.cumsum(lengths) - lengths
    number = np.repeat(np.arange(len(files)), counts)
    starts = np.cumsum([0, *counts])
    keys = np.concatenate([found.keys for found in scans])
    owners = np.concatenate([s + found.rows for s, found in zip(starts, scans, strict=False)])
    return Rows(
        np.column_stack([number, places, offsets, lengths]).astype(np.int64),
        np.concatenate([found.first_keys for found in scans]),
        *unique_pairs(keys, owners),
        spool,
    )


def spool_file() -> BinaryIO:
    """A nameless file, beside the caches or, where none can be, among temporary ones."""
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        return cast(BinaryIO, tempfile.TemporaryFile(dir=cache_folder()))
    except OSError:
        return cast(BinaryIO, tempfile.TemporaryFile())


def unique_pairs(keys: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs sorted by key, then owner, each once."""
    order = np.lexsort((owners, keys))
    keys, owners = keys[order], owners[order]
    new = np.ones(len(keys), bool)
    new[1:] = (keys[1:] != keys[:-1]) | (owners[1:] != owners[:-1])
    return keys[new], owners[new]


def sample_blocks(
    files: Sequence[File], source: Source, every: BlockSelection
) -> Iterator[Iterator[Span]]:
    """File by file, the rows of its blocks that are among `every`."""
    first = 0
    for file in files:
        count = -(-file.size // BLOCK)
        taken = [n for n in range(count) if (first + n + every.phase) % every.step == 0]
        stretches = ((n * BLOCK, min(file.size, (n + 1) * BLOCK)) for n in taken)
        yield chain.from_iterable(
            read_block(file, source, start, stop) for start, stop in stretches
        )
        first += count


def spooled(found: Iterable[Span], spool: BinaryIO, lengths: "array[int]") -> Iterator[Span]:
    """The same rows; their text is at the end of `spool` and its length in `lengths`."""
    for span in found:
        broken = isinstance(span[2], Defect)  # an empty line is one, too
        text = b"" if broken else json.dumps(span[2]).encode()
        spool.write(text)
        lengths.append(len(text))
        yield span


class LineReader:
    """Rows of JSON files by offset, the files kept open until `close`."""

    def __init__(self, files: Sequence[File], spool: BinaryIO | None = None) -> None:
        self.files, self.spool = files, spool
        self.streams: dict[int, BinaryIO] = {}

    def read(self, refs: np.ndarray) -> Iterator[tuple[int, int, object]]:
        """(file, row or byte, value) of the rows at `refs` [n, 4], as in `Rows`."""
        for number, place, offset, length in refs.tolist():
            if self.spool is None and number not in self.streams:
                self.streams[number] = open_annotations(self.files[number])
            stream = self.spool or self.streams[number]
            stream.seek(offset)
            yield number, place, parse_line(stream.read(length))

    def close(self) -> None:
        """Every file is closed."""
        for stream in self.streams.values():
            stream.close()
