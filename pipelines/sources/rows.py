"""Annotation files to rows: Parquet, JSON arrays, JSON lines, plain or compressed.

| file                    | counted at planning             | read by a part     | row label     |
|-------------------------|---------------------------------|--------------------|---------------|
| *.parquet               | footer only                     | its row groups     | row in subset |
| *.json, *.jsonl         | scanned once: offset and medium | its rows by offset | row in subset |
| *.jsonl.gz, *.jsonl.zst | not at all                      | the whole file     | file-row      |

A row that does not parse is yielded as its text, and becomes a sample with a defect. A file that
has none of the columns of its layout is a ValueError.
"""

import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np

from pipelines.sources import repository
from pipelines.sources.archives import key_of
from pipelines.sources.files import File, open_file
from pipelines.sources.sample import SOURCES, Defect, Source
from pipelines.sources.streams import lines, uncompressed

CHUNK = 8 << 20
BATCH_BYTES = 32 << 20
"""Bytes of Parquet rows decoded at once."""
COMPRESSED = re.compile(r"\.jsonl?\.(gz|zst)\Z")
DECODER = json.JSONDecoder()
SPACE = re.compile(r"[\s,]*")
MAX_LINE = 256 << 20
"""Bytes of one JSON row, at most."""


@dataclass(frozen=True)
class Footer:
    """A Parquet file's row groups: rows, bytes as stored and bytes in memory of each."""

    rows: tuple[int, ...]
    stored: tuple[int, ...]
    num_bytes: tuple[int, ...]


@dataclass(frozen=True)
class Lines:
    """A JSON file's rows: where each starts and how long it is, int64 [rows]; and the hashes of
    its media's paths, uint64 [media] with the row of each, int64 [media], in order.
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


def check_columns(file: File, found: Sequence[str], source: Source) -> None:
    """Raises ValueError unless every column of the source's layout is among `found`."""
    for wanted in source.columns:
        if not set(wanted.split("|")) & set(found):
            raise ValueError(
                f"{file.url}: no column {wanted.replace('|', ' or ')!r}, which {source.name} rows "
                f"have; found {', '.join(sorted(found)) or 'none'}. Use the source whose layout "
                "this file has (python -m pipelines sources)"
            )


def footer(file: File, source: Source) -> Footer:
    """The file's row groups, from its footer; raises ValueError where it is no such Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_file(file.url, file.size) as stream:
            about = pq.ParquetFile(stream).metadata
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError | ConnectionError):
            raise
        raise ValueError(f"{file.url}: not a readable Parquet file ({error})") from error
    check_columns(file, about.schema.to_arrow_schema().names, source)
    groups = [about.row_group(n) for n in range(about.num_row_groups)]
    stored = [
        sum(g.column(n).total_compressed_size for n in range(about.num_columns)) for g in groups
    ]
    in_memory = tuple(group.total_byte_size for group in groups)
    return Footer(tuple(group.num_rows for group in groups), tuple(stored), in_memory)


def parquet_rows(url: str, size: int, groups: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The rows of the row groups, in order, a few in memory at a time."""
    import pyarrow.parquet as pq

    with open_file(url, size) as stream:
        file = pq.ParquetFile(stream)
        for group in groups:
            about = file.metadata.row_group(group)
            row_bytes = about.total_byte_size // max(1, about.num_rows)
            size_of_batch = max(1, min(256, BATCH_BYTES // max(1, row_bytes)))
            for batch in file.iter_batches(batch_size=size_of_batch, row_groups=[group]):
                yield from batch.to_pylist()


def media_keys(row: object, source: Source) -> list[int]:
    """The hashes of the paths of a row's media, in order."""
    if not isinstance(row, dict):
        return []
    try:
        media = source.adapter(row).media
    except Defect:
        return []
    return [key_of(medium.path) for medium in media if medium.path]


def opened(url: str, size: int) -> BinaryIO:
    """The annotation file; one on the hub comes to the client's cache, since parts share it."""
    if repository.is_hub(url):
        return repository.download(url).open("rb")
    return open_file(url, size)


@lru_cache(maxsize=1024)
def scan(file: File, name: str) -> Lines:
    """Where the rows of a JSON or JSON-lines file lie; raises ValueError where it is neither."""
    source = SOURCES[name]
    offsets: list[int] = []
    lengths: list[int] = []
    keys: list[int] = []
    owners: list[int] = []
    found: set[str] = set()
    with opened(file.url, file.size) as stream:
        by_line = file.name.endswith(".jsonl")
        if source.row_files:
            whole = stream.read(MAX_LINE)
            found_rows: Iterable[tuple[int, int, object]] = [(0, len(whole), parsed(whole))]
        else:
            found_rows = spans(stream, file.url, by_line=by_line)
        for offset, length, row in found_rows:
            offsets.append(offset)
            lengths.append(length)
            media = media_keys(row, source)
            keys.extend(media)
            owners.extend([len(offsets) - 1] * len(media))
            if isinstance(row, dict):
                found.update(row)
    if offsets and not source.row_files:
        check_columns(file, sorted(found), source)
    return Lines(
        np.array(offsets, np.int64),
        np.array(lengths, np.int64),
        np.array(keys, np.uint64),
        np.array(owners, np.int64),
    )


def refs_of(files: Sequence[File], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(refs [rows, 4]: file, row in the subset, offset, length; each row's first key [rows])."""
    scans = [scan(file, name) for file in files]
    counts = [len(found.offsets) for found in scans]
    refs = np.column_stack(
        [
            np.repeat(np.arange(len(files)), counts),
            np.arange(sum(counts)),
            np.concatenate([found.offsets for found in scans]),
            np.concatenate([found.lengths for found in scans]),
        ]
    ).astype(np.int64)
    return refs, np.concatenate([found.first_keys for found in scans])


def owners_of(files: Sequence[File], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(hash of every medium's path, sorted, uint64 [media]; its row in the subset, int64 [media]),
    no pair twice.
    """
    scans = [scan(file, name) for file in files]
    starts = np.cumsum([0, *(len(found.offsets) for found in scans)])
    keys = np.concatenate([found.keys for found in scans])
    owners = np.concatenate([s + found.rows for s, found in zip(starts, scans, strict=False)])
    order = np.lexsort((owners, keys))
    keys, owners = keys[order], owners[order]
    new = np.ones(len(keys), bool)
    new[1:] = (keys[1:] != keys[:-1]) | (owners[1:] != owners[:-1])
    return keys[new], owners[new]


def spans(stream: BinaryIO, url: str, *, by_line: bool) -> Iterator[tuple[int, int, object]]:
    """(offset, length, row) of every row; a line that does not parse yields its text."""
    head = stream.read(CHUNK).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    stream.seek(0)
    if by_line or head == b"{":
        yield from line_spans(stream, url, strict=not by_line)
    elif head == b"[":
        yield from array_spans(stream, url)
    elif head:
        raise ValueError(f"{url}: starts with {head!r}; expected a JSON array or JSON lines")


def line_spans(stream: BinaryIO, url: str, *, strict: bool) -> Iterator[tuple[int, int, object]]:
    """The rows of JSON lines; `strict`: the first line must be a whole row."""
    offset = 0
    while line := stream.readline(MAX_LINE):
        if line.strip(b"\xef\xbb\xbf \t\r\n"):
            row = parsed(line)
            if strict and isinstance(row, str):
                raise ValueError(
                    f"{url}: neither JSON lines nor an array: the first line is not a whole row. "
                    "A single object cannot be read as rows"
                )
            strict = False
            yield offset, len(line), row
        offset += len(line)


def parsed(line: bytes) -> object:
    """The JSON value of a line, or the line's text where it is none."""
    try:
        return json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        return line.decode("utf-8", "replace")


def array_spans(stream: BinaryIO, url: str) -> Iterator[tuple[int, int, object]]:
    """The rows of a JSON array, read in chunks; raises ValueError where it is broken.

    The buffer is latin-1 text, one character per byte, so that positions are byte offsets; JSON's
    own syntax is ASCII, and each row is decoded as UTF-8 afterwards.
    """
    base = 0
    buffer = stream.read(CHUNK).decode("latin-1")
    start = buffer.index("[") + 1
    position = start
    while True:
        space = SPACE.match(buffer, position)
        position = space.end() if space else position
        try:
            if buffer[position : position + 1] == "]":
                return
            row, end = DECODER.raw_decode(buffer, position)
        except json.JSONDecodeError as error:
            more = stream.read(max(CHUNK, len(buffer) - position))
            if not more:
                raise ValueError(
                    f"{url}: broken JSON at byte {base + error.pos}: {error.msg}"
                ) from error
            base += position
            buffer, position = buffer[position:] + more.decode("latin-1"), 0
            continue
        span = buffer[position:end]
        row = row if span.isascii() else parsed(span.encode("latin-1"))
        yield base + position, end - position, row
        position = end


class LineReader:
    """Rows of JSON files by offset, the files kept open until `close`."""

    def __init__(self, files: Sequence[File]) -> None:
        self.files = files
        self.streams: dict[int, BinaryIO] = {}

    def read(self, refs: np.ndarray) -> Iterator[tuple[int, object]]:
        """(row, value) of the rows at `refs` [n, 4]: file, row, offset, length."""
        for number, row, offset, length in refs.tolist():
            if number not in self.streams:
                self.streams[number] = opened(self.files[number].url, self.files[number].size)
            self.streams[number].seek(offset)
            yield row, parsed(self.streams[number].read(length))

    def close(self) -> None:
        """Every file is closed."""
        for stream in self.streams.values():
            stream.close()


def compressed_rows(url: str, size: int) -> Iterator[object]:
    """The rows of a compressed JSON-lines file, in order; a line that does not parse is its text.

    A stream that breaks off ends with the Defect `truncated_file` in place of a row.
    """
    with open_file(url, size) as raw, uncompressed(raw, url.rpartition(".")[2]) as stream:
        try:
            for line in lines(stream, MAX_LINE):
                if line.strip():
                    yield parsed(line)
            if getattr(stream, "cut", False):
                yield Defect("truncated_file", url)
        except (zlib.error, OSError) as error:
            if isinstance(error, ConnectionError):
                raise
            yield Defect("truncated_file", f"{url}: {error}")
