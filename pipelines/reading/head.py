"""The first rows of a subset and one medium that they name, read with as little as can be.

| files         | read of them                                                        |
|---------------|---------------------------------------------------------------------|
| Parquet       | a footer, and the first rows of the smallest row group of one file  |
| JSON          | the first MiB; files of one row each: the first few                 |
| compressed    | as much as the first rows need                                      |
| CSV           | the first rows                                                      |
| WebDataset    | the first sample                                                    |
| media         | one file; the list of one zip and one member; the head of one tar   |
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pipelines.reading import annotations, json_spans, rows
from pipelines.reading.archive_order import webdataset_samples
from pipelines.reading.archives import (
    IMAGE,
    Archive,
    Members,
    archives_of,
    full_names,
    keys_of,
    member_name,
    walk_tar,
)
from pipelines.reading.arrow_rows import arrow_rows, class_names, schema_of, with_classes
from pipelines.reading.files import File, open_file
from pipelines.reading.media_files import is_medium
from pipelines.reading.member_paths import key_of, normalized_path
from pipelines.reading.splitting import SubsetMedia, kind_of
from pipelines.reading.unread_media import columns_read
from pipelines.reading.values import values
from pipelines.sources.sample import Defect, Source

ROWS = 4
"""Rows that are read where each carries its media."""
HEAD_ROWS = 256
"""Rows of annotations whose media are looked for."""
GROUP_BYTES = 256 << 20
"""A row group with more is not read for one medium; its columns without media are."""
PAGE_BYTES = 1 << 20
"""Bytes of a column that are read at once."""
MEMBERS = 32
MEMBER_BYTES = 64 << 20
"""Members of a tar that are looked at, and the largest one that is read."""
ZIPS = 3
"""Zips whose lists are read, those first whose names the rows name."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """The first rows of a subset."""

    rows: list[object]
    """As their files hold them; a row that does not parse is its Defect or its text."""
    columns: list[str]
    without_media: str = ""
    """Why the media columns were left out, where they were."""


def head_of(about: Source, files: Sequence[File]) -> Head:
    """The first rows of the subset's first file. Nothing is checked: see `columns`."""
    file, kind = files[0], kind_of(files[0])
    if kind == "parquet":
        return parquet_head(file, about)
    if kind == "json":
        found = list(islice(json_rows(files, about), HEAD_ROWS))
    elif kind == "csv":
        found = list(islice(rows.csv_rows(file.url, file.size), HEAD_ROWS))
    elif kind == "arrow":
        found = list(islice(arrow_rows(file.url, file.size, about), ROWS))
        return Head(rows=found, columns=list(schema_of(file).names))
    elif kind == "tar":
        found = list(islice(webdataset_samples(archives_of([file])[0]), 1))
    else:
        found = list(islice(rows.compressed_rows(file.url, file.size), ROWS))
    columns = dict.fromkeys(name for row in found if isinstance(row, dict) for name in row)
    return Head(rows=found, columns=list(columns))


def json_rows(files: Sequence[File], about: Source) -> Iterator[object]:
    """The rows at the start of JSON files."""
    if about.row_files:
        for file in files[:ROWS]:
            with open_file(file.url, file.size) as stream:
                yield json_spans.parse_line(stream.read(json_spans.MAX_LINE))
        return
    yield from annotations.head(files[0])


def parquet_head(file: File, about: Source) -> Head:
    """The first rows of the smallest row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_file(file.url, file.size, scattered=True) as stream:
        try:
            table = pq.ParquetFile(stream, buffer_size=PAGE_BYTES, pre_buffer=False)
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            raise ValueError(f"{file.url}: not a readable Parquet file ({error})") from error
        about_file = table.metadata
        names = table.schema_arrow.names
        groups = [about_file.row_group(n) for n in range(about_file.num_row_groups)]
        sizes = {n: stored_bytes(g) for n, g in enumerate(groups) if g.num_rows}
        if not sizes:
            return Head(rows=[], columns=names)
        smallest = min(sizes, key=lambda n: sizes[n])
        taken, why = columns_read(table.schema_arrow, about), ""
        if sizes[smallest] > GROUP_BYTES and about.media_columns:
            taken = [name for name in taken if name not in about.media_columns]
            why = f"its smallest row group has {sizes[smallest] / 1e6:,.0f} MB"
        classes = class_names(table.schema_arrow) if about.by_config else {}
        for batch in table.iter_batches(
            batch_size=ROWS, row_groups=[smallest], columns=taken, use_threads=False
        ):
            found = [with_classes(row, classes) for row in values(batch)]
            return Head(rows=found, columns=names, without_media=why)
    return Head(rows=[], columns=names)


def stored_bytes(group: Any) -> int:
    """Bytes of a row group in its file."""
    return sum(group.column(n).total_compressed_size for n in range(group.num_columns))


# ------------------------------------------------------------------ one medium


@dataclass(frozen=True)
class MediumFound:
    """A medium among those that the rows name (or of their kind), and where it was found."""

    where: str
    path: str
    """The path by which a row names it; empty: none of the rows that were read does."""
    data: bytes | dict[str, bytes] | None
    """Its bytes, or the first frames of a folder; null: it lies in the open and is read by path."""


def find_medium(paths: Sequence[str], media: SubsetMedia) -> MediumFound | None:
    """One medium that a path of `paths` names: in the open, in a zip, at the head of a tar; else
    the first of an archive that looks as the paths do; null where there is none.
    """
    wanted = {key_of(path): path for path in paths}
    loose = [file for file in media.listed or () if is_medium(file.name, archives=False)]
    for file in loose:
        for path in suffixes(file.name):
            if key_of(path) in wanted:
                return MediumFound("beside the rows", wanted[key_of(path)], None)
    alike: MediumFound | None = None
    zips = [archive for archive in media.archives if not archive.streams]
    for archive in by_name(zips, paths)[:ZIPS]:
        found = in_zip(archive, wanted, paths)
        if found is not None and found.path:
            return found
        alike = alike or found
    for archive in by_name(media.streams, paths)[:1]:
        found = in_tar(archive, wanted, paths)
        if found is not None and found.path:
            return found
        alike = alike or found
    return alike


def suffixes(name: str) -> list[str]:
    """Every path that names the file, from the right."""
    parts = name.split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]


def by_name(archives: Sequence[Archive], paths: Sequence[str]) -> list[Archive]:
    """The archives, those first whose names share most words with the rows' paths; then by size."""
    words = {word for path in paths[:16] for word in re.findall(r"[a-z0-9]+", path.lower())}

    def shared(archive: Archive) -> int:
        return len(words & set(re.findall(r"[a-z0-9]+", archive.name.lower())))

    return sorted(archives, key=lambda archive: (-shared(archive), archive.size, archive.name))


def in_zip(archive: Archive, wanted: dict[int, str], paths: Sequence[str]) -> MediumFound | None:
    """A wanted member of the zip, or the first that looks like one."""
    members = Members([archive])
    try:
        alike = None
        for places in members.by_base.values():
            for number, member in places:
                name = member_name(member)
                for key in keys_of(archive, name):
                    if key in wanted:
                        data = members.read((number, member), MEMBER_BYTES)
                        return MediumFound(f"in {archive.name}", wanted[key], data)
                if alike is None and looks_like(archive, name, paths):
                    alike = (number, member)
        if alike is None:
            return None
        return MediumFound(f"like {archive.name}", "", members.read(alike, MEMBER_BYTES))
    except Defect:
        return None
    finally:
        members.close()


def in_tar(archive: Archive, wanted: dict[int, str], paths: Sequence[str]) -> MediumFound | None:
    """The same at the head of a tar. Frames of a folder count as that folder."""
    alike = None
    for name, data in islice(walk_tar(archive, limit=MEMBER_BYTES), MEMBERS):
        if not name or isinstance(data, Defect):
            continue
        for key in keys_of(archive, name):
            if key in wanted:
                return MediumFound(f"in {archive.name}", wanted[key], data)
        if IMAGE.match(name):
            folder, _, base = name.rpartition("/")
            for key in keys_of(archive, folder) if folder else ():
                if key in wanted:
                    return MediumFound(f"in {archive.name}", wanted[key], {base: data})
        if alike is None and looks_like(archive, name, paths):
            alike = MediumFound(f"like {archive.name}", "", data)
    return alike


def looks_like(archive: Archive, member: str, paths: Sequence[str]) -> bool:
    """Whether a member is such as the paths name: their ending, in a folder as theirs."""
    for path in paths:
        folder, _, base = normalized_path(path).rpartition("/")
        ending = base.rpartition(".")[2].lower() if "." in base else ""
        for full in full_names(archive, member):
            above, _, name = full.rpartition("/")
            if not ending and IMAGE.match(name):  # a folder of frames
                return True
            if name.lower().endswith(f".{ending}") and (
                not folder or above == folder or above.endswith(f"/{folder}")
            ):
                return True
    return False
