"""Rows to samples: the generic work that every source shares, done once, on a worker.

    Part -> rows -> adapter -> media read, decoded, measured -> SAMPLE

Bad data is a verdict: the row is there, with `defect` set (several: the first found). Such a sample
keeps its messages where the row gave any; an image that could not be read has null bytes. A bug
is an exception, with the part and the row in its note.

| defect                             | means                                                    |
|------------------------------------|----------------------------------------------------------|
| wrong_schema, broken_json          | the row is not of the source's layout; a line not JSON   |
| broken_text                        | text that is not Unicode (lone surrogates)               |
| missing_media, remote_media        | named but not there; an http(s) address                  |
| ambiguous_media                    | a path that fits several files, which differ             |
| unreadable_media                   | there, but without the right to read it                  |
| unsafe_path                        | a path that leaves its folder                            |
| undecodable_image, undecodable_pdf | not a whole image or PDF                                 |
| unreadable_exif                    | whole pixels behind EXIF at which decoders give up       |
| undecodable_video, truncated_video | no frames; fewer than it lists or its header promises    |
| joined_video                       | films one behind the other, of which only one is played  |
| video_, image_, pdf_timeout        | the decoder hung                                         |
| decoder_crash                      | it ended its process                                     |
| too_many_pixels, _bytes, _pages    | beyond the bounds                                        |
| missing_answer, ambiguous_answer   | of a table: none; one that fits different choices        |
| no_preference                      | of a pair: both answers are the same, or rated alike     |
| truncated_file                     | a compressed file breaks off; one line stands for it     |
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.media.images import EMPTY
from pipelines.reading import annotations, rows, splitting
from pipelines.reading.annotations import LineReader, row_label
from pipelines.reading.archive_order import (
    SeveralFit,
    rows_in_archive_order,
    rows_in_no_archive,
    rows_without_media,
    webdataset_samples,
)
from pipelines.reading.arrow_rows import arrow_rows
from pipelines.reading.keys import KEYED, files_of_part, key_of, shard_of
from pipelines.reading.media_files import Media
from pipelines.reading.parts import Part
from pipelines.reading.sample_media import (
    AHEAD_BYTES,
    Found,
    Reader,
    decode_together,
    held_bytes,
    images_of,
    read_media,
)
from pipelines.reading.streams import WHOLE
from pipelines.reading.unread_media import refuse_unread_media, takes_media
from pipelines.sources import cells
from pipelines.sources.placing import kind_of, place_media
from pipelines.sources.sample import Defect, Pdf, Sample, Source, Still, Video
from tokenization.schema import SAMPLE

BATCH_ROWS = 512
BATCH_BYTES = 32 << 20
"""A batch that is given to the writer ends at either; what is written does not depend on them."""
AHEAD_ROWS = 64
"""Rows whose stills are decoded at once, unless they hold AHEAD_BYTES."""
NOTHING: dict[str, Any] = {
    "messages": [],
    "images": [],
    "duration": None,
    "tags": [],
    "ratings": [],
    "answer": None,
    "header_seconds": None,
}
"""What a row of no sample says."""
PLACES = re.compile(r"<[^<>]* at 0x[0-9a-f]+>|0x[0-9a-f]+|'[^']*'|\"[^\"]*\"|\S*[/\\]\S*")
"""What libraries say of addresses in memory, quote, and call files: none of it is ours to show."""
SHOWN = 200
"""Characters of a detail, at most."""


def ingest(part: Part) -> pa.Table:
    """The samples of the part, one per row, in the part's order. Writes: SAMPLE."""
    try:
        return pa.Table.from_batches(ingest_batches(part), schema=schema_of(part))
    except SeveralFit as found:
        return ingest(knowing(part, found))


def schema_of(part: Part) -> pa.Schema:
    """What its samples are: SAMPLE, and where annotations are joined to them KEYED."""
    return KEYED if part.key else SAMPLE


def knowing(part: Part, found: SeveralFit) -> Part:
    """The part of an archive, to be read anew with what was found out."""
    return replace(part, inputs={**part.inputs, "knowing": found.knowing})


def ingest_batches(part: Part) -> Iterator[pa.RecordBatch]:
    """The same, batch by batch, for a writer that streams. Writes: SAMPLE.

    Raises:
        SeveralFit: what was given is void; `knowing` the part, it must be read anew.
    """
    reader = Reader(Media(part.inputs["media"]), part.inputs["frames"])
    schema = schema_of(part)
    waiting: list[dict[str, Any]] = []
    num_bytes = 0
    try:
        for line in sample_rows(part, reader):
            waiting.append(line)
            num_bytes += sum(len(image["bytes"] or b"") for image in line["images"])
            num_bytes += sum(len(c["text"] or "") for m in line["messages"] for c in m["content"])
            if len(waiting) >= BATCH_ROWS or num_bytes >= BATCH_BYTES:
                yield pa.RecordBatch.from_pylist(waiting, schema=schema)
                waiting, num_bytes = [], 0
        if waiting:
            yield pa.RecordBatch.from_pylist(waiting, schema=schema)
    finally:
        reader.media.close()


def peek(part: Part) -> dict[str, Any] | None:
    """The part's first whole sample, as a mapping; null where none is whole."""
    reader = Reader(Media(part.inputs["media"]), part.inputs["frames"])
    try:
        for label, row, _ in part_rows(part, reader.media):
            line = sample_row(part, label, row, part.about, reader)
            if line["defect"] is None:
                return line
    finally:
        reader.media.close()
    return None


def part_rows(part: Part, media: Media) -> Iterator[tuple[str, object, int]]:
    """(label, row, number of its file among `files_of_part`) of every row of the part; the label is
    unique within the subset.
    """
    inputs = part.inputs
    kind = inputs["kind"]
    if kind == "parquet":
        start, stop = inputs.get("range", (0, None))
        for file, (url, size, groups, first, content) in enumerate(inputs["reads"]):
            found = rows.parquet_rows(url, size, groups, part.about, content, start=start)
            count = None if stop is None else stop - start
            yield from number_rows(islice(found, count), "", first + start, file)
    elif kind == "arrow":
        found = arrow_rows(
            inputs["url"], inputs["size"], part.about, *inputs["batches"], count=part.rows
        )
        yield from number_rows(found, f"{inputs['file']:05d}-", inputs["first"])
    elif kind in ("json", "archive", "bare", "loose"):
        yield from annotation_rows(part, media)
    elif kind == "block":
        yield from block_rows(part)
    elif kind == "tar":
        found = webdataset_samples(inputs["archive"], span=inputs.get("span", WHOLE))
        yield from number_rows(found, f"{inputs['file']:05d}-", inputs.get("first", 0))
    elif kind == "compressed":
        compressed = rows.compressed_rows(inputs["url"], inputs["size"], inputs["content"])
        yield from number_rows(compressed, f"{inputs['file']:05d}-", 0)
    elif kind == "csv":
        first = inputs["first"]
        lines = islice(rows.csv_rows(inputs["url"], inputs["size"]), first, first + part.rows)
        yield from number_rows(lines, f"{inputs['file']:05d}-", first)
    elif kind in ("document", "labelled"):
        one = rows.document_row if kind == "document" else rows.labelled_row
        for number, file in enumerate(inputs["files"]):
            yield from number_rows([one(file)], "", inputs["first"] + number, number)
    else:
        raise AssertionError(f"a part of kind {kind!r}")


def annotation_rows(part: Part, media: Media) -> Iterator[tuple[str, object, int]]:
    """(label, value, file) of the rows of annotation files that are this part's."""
    inputs = part.inputs
    chosen: Iterable[np.ndarray]
    if inputs["kind"] == "json":
        small, reader, chosen = True, LineReader(inputs["files"]), [inputs["refs"]]
    else:
        small = inputs["small"]
        found = annotations.index_annotations(inputs["files"], part.about, inputs["every"])
        if inputs["kind"] == "archive":
            known = inputs.get("knowing", {})
            about = found.first, found.keys, found.owners
            order = rows_in_archive_order(inputs["archive"], *about, media, knowing=known)
        elif inputs["kind"] == "bare":
            order = rows_without_media(found.first, *inputs["share"])
        else:
            order = rows_in_no_archive(inputs["streams"], found.first, *inputs["share"])
        reader = LineReader(inputs["files"], found.spool)
        chosen = (found.refs[row : row + 1] for row in order)
    try:
        for refs in chosen:
            for file, number, row in reader.read(refs):
                yield row_label(file, number, small=small), row, file
    finally:
        reader.close()


def block_rows(part: Part) -> Iterator[tuple[str, object, int]]:
    """(label, value, 0) of the rows of a block of bytes, those that share a medium together."""
    inputs = part.inputs
    number, source = inputs["file"], part.about
    found = list(annotations.read_block(inputs["files"][number], source, *inputs["bytes"]))
    keys = [(annotations.media_keys(row, source) or [0])[0] for _, _, row in found]
    for place in splitting.order_by_medium(np.array(keys, np.uint64)):
        offset, _, row = found[place]
        yield row_label(number, offset, small=False), row, 0


def number_rows(
    values: Iterable[object], prefix: str, first: int, file: int = 0
) -> Iterator[tuple[str, object, int]]:
    """(label, value, file) of each, numbered from `first`."""
    for number, value in enumerate(values, first):
        yield f"{prefix}{number:06d}", value, file


def sample_rows(part: Part, reader: Reader) -> Iterator[dict[str, Any]]:
    """The SAMPLE rows of the part; the stills of several are decoded at once.

    Media are read as their row comes: a stream does not give them again.
    """
    waiting: list[Row] = []
    num_bytes = 0
    shards = [shard_of(url) for url in files_of_part(part.inputs)] if part.key else []
    for label, given, file in part_rows(part, reader.media):
        with noted(part, label):
            row = read_row(label, given, part.about, part, reader)
            if part.key:
                key = key_of(given, part.key) if isinstance(given, Mapping) else None
                row = replace(row, place={"shard": shards[file], "key": key})
        waiting.append(row)
        num_bytes += sum(map(held_bytes, row.media))
        if len(waiting) >= AHEAD_ROWS or num_bytes >= AHEAD_BYTES:
            yield from sample_lines(waiting, part)
            waiting, num_bytes = [], 0
    yield from sample_lines(waiting, part)


@contextmanager
def noted(part: Part, label: str) -> Iterator[None]:
    """A bug says at which row it was met."""
    try:
        yield
    except Exception as error:
        error.add_note(f"ingest, part {part.name}, row {label}")
        raise


@dataclass(frozen=True)
class Row:
    """A row whose media are read and, but for stills, decoded."""

    label: str
    sample: Sample | Defect
    media: Sequence[Found]
    """Of the sample, in order."""
    place: Mapping[str, str | None] = field(default_factory=dict)
    """Where annotations are joined: its shard and key."""


def read_row(label: str, given: object, source: Source, part: Part, reader: Reader) -> Row:
    """The row as its source reads it, every medium at its place."""
    try:
        sample = sample_of_row(given, source, literal=part.inputs.get("literal", False))
    except Defect as defect:
        return Row(label, defect, ())
    return Row(label, sample, read_media(sample, reader))


def sample_row(
    part: Part, label: str, row: object, source: Source, reader: Reader
) -> dict[str, Any]:
    """The SAMPLE row that `row` becomes, by itself."""
    return sample_line(read_row(label, row, source, part, reader), part)


def sample_lines(rows: Sequence[Row], part: Part) -> Iterator[dict[str, Any]]:
    """The SAMPLE rows of what was read."""
    decode_together([medium for row in rows for medium in row.media])
    for row in rows:
        with noted(part, row.label):
            yield sample_line(row, part)


def sample_line(row: Row, part: Part) -> dict[str, Any]:
    """The SAMPLE row that it becomes."""
    called = f"{part.prefix}{row.label}"
    identity = {"id": called, "source": part.source, "subset": part.subset, **row.place}
    if isinstance(row.sample, Defect):
        reason, detail = row.sample.reason, safe_detail(row.sample.detail)
        return {**identity, **NOTHING, "defect": reason, "detail": detail}
    return {**identity, **columns_of(row.sample, row.media)}


def sample_of_row(row: object, source: Source, *, literal: bool) -> Sample:
    """The row as its source reads it, every medium at its place; raises Defect."""
    mapping = require_mapping(row)
    sample = source.adapter(mapping)
    if not sample.media and takes_media(source):
        refuse_unread_media(mapping, source)
    return place_media(sample, literal=literal)


def require_mapping(row: object) -> dict[str, Any]:
    """The row, which is a mapping; raises the Defect that it is, or that it is not one."""
    if isinstance(row, Defect):
        raise row
    return dict(cells.mapping(row, "the row"))


def safe_detail(detail: str, path: str | None = None) -> str | None:
    """The detail of a defect in one line, without what may stand in a row or name a place; `path`:
    of the medium, as the row names it.
    """
    for name in (path, (path or "").rpartition("/")[2]):
        detail = detail.replace(name, "...") if name else detail
    words = " ".join(PLACES.sub("...", detail).split())
    return words[:SHOWN] or None


def sample_columns(sample: Sample, reader: Reader) -> dict[str, Any]:
    """The sample's columns, its media read and decoded."""
    return columns_of(sample, read_media(sample, reader))


def columns_of(sample: Sample, media: Sequence[Found]) -> dict[str, Any]:
    """The same of media that are read, in order."""
    messages, images, lengths = [], [], []
    defect: Defect | None = None
    seen = 0
    for turn in sample.turns:
        content: list[dict[str, str | None]] = []
        for part in turn.content:
            if isinstance(part, str):
                content.append({"type": "text", "text": part})
                continue
            assert isinstance(part, Still | Video | Pdf)  # all are placed
            try:
                found, length = images_of(media[seen])
            except Defect as error:
                where = f"{kind_of(part)} {seen + 1} of {len(media)}"
                told = safe_detail(error.detail, part.path)
                told = f"{where}: {told}" if told else where
                defect = defect or Defect(error.reason, told)
                found, length = [EMPTY] if isinstance(part, Still) else [], None
            seen += 1
            if isinstance(part, Still) and part.seconds is not None:
                found = [{**image, "seconds": part.seconds} for image in found]
            images.extend(found)
            content.extend({"type": "image", "text": None} for _ in found)
            if length is not None:
                lengths.append(length)
        messages.append({"role": turn.role, "content": content})
    stated = [seconds for _, seconds in lengths if seconds is not None]
    return {
        "messages": messages,
        "images": images,
        "duration": sum(seconds for seconds, _ in lengths) if lengths else None,
        "defect": defect.reason if defect else None,
        "detail": safe_detail(defect.detail) if defect else None,
        "tags": list(sample.tags),
        "ratings": [dict(rating) for rating in sample.ratings],
        "answer": sample.answer,
        "header_seconds": sum(stated) if lengths and len(stated) == len(lengths) else None,
    }
