"""A subset's files to pieces of about PART_BYTES: which row groups, which rows, which archives.

A piece is {rows (null: unknown), bytes, inputs}; pieces are numbered in this order for ever, so
how files are cut bears a version (GROUPING). It depends on the files alone, never on how much of
them is wanted: a subset becomes some PARTS parts, of FEWEST rows at least, so that reading can stop
near where a mixture has enough. Compressed files, tars elsewhere than on this disk, and archives
that are read in order are a part each, whatever their size.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from pipelines.reading import annotations, rows
from pipelines.reading.annotations import BlockSelection
from pipelines.reading.archives import ARCHIVE, Archive, archives_of
from pipelines.reading.arrow_rows import schema_of, sizes_of
from pipelines.reading.files import ANY_IMAGE, DOCUMENT, File, Tree, glob_regex, is_url
from pipelines.reading.media_files import is_medium
from pipelines.reading.named import keys_in, named
from pipelines.reading.tar_spans import NO_STARTS, can_be_cut, spans, starts_of
from pipelines.sources.sample import Source

PART_BYTES = 128 << 20
"""Bytes of a part at most, about: seconds of work, and small beside a worker's memory."""
PARTS, FEWEST = 256, 64
"""Parts of a subset where its rows allow it, and rows of a part, about a second of work on images;
of sources with few rows a part (videos) a sixteenth of those, but 8."""
MOST_RANGES, READ_AGAIN = 16, 64 << 20
"""Into so many parts a row group is cut at most, and while its readings come to no more stored
bytes than that, since each reads all of its columns; of sources with few rows a part, whose rows
cost more to decode than to fetch, eight times as many."""
GROUPING = 4
"""Bumped when the same files would be cut into other parts."""


@dataclass(frozen=True)
class SubsetMedia:
    """Where a subset's media lie: folders, archives; `listed` null where the rows hold them all."""

    roots: tuple[str, ...]
    archives: tuple[Archive, ...] = ()
    listed: tuple[File, ...] | None = None
    own: tuple[str, ...] = ()
    """The folders of the annotations, where media lie elsewhere: paths in full may lead there."""
    media_there: bool = False
    """Whether media lie about at all, such as no row names too."""

    @property
    def spec(self) -> dict[str, Any]:
        """What a worker needs to find them."""
        return {"roots": self.roots, "archives": self.archives, "own": self.own}

    @property
    def streams(self) -> list[Archive]:
        """The archives that are read in order."""
        return [archive for archive in self.archives if archive.streams]

    @property
    def num_bytes(self) -> int:
        """Bytes of all of them."""
        return sum(file.size for file in self.listed or ())


def media_of(
    about: Source, tree: Tree, subset: str, files: Sequence[File], media: Tree | None
) -> SubsetMedia:
    """The media beside the annotations, or under `media:` where it is named."""
    folder = files[0].name.rpartition("/")[0]
    beside = tuple(dict.fromkeys([files[0].folder, tree.root]))
    roots = (media.root,) if media is not None else beside
    keys = None if tree.commit else keys_in(tuple(files), about, kind_of(files[0]))
    # Rows of the other layouts hold their media, but may name some.
    inside = about.layout not in ("json", "folder")
    if inside and media is None and (keys is None or not len(keys)):
        return SubsetMedia(roots)
    ours = {file.url for file in files}
    listed = list(media.files) if media is not None else of_subset(about, tree, subset, folder)
    listed = [file for file in listed if file.url not in ours]
    own = tuple(root for root in beside if root not in roots)
    place = media or tree
    if place.commit and not about.by_config:
        found = tuple(listed)
    elif keys is not None:
        found = named(listed, keys, roots=[*roots, *own], aliases=place.aliases)
    else:
        found = tuple(file for file in listed if is_medium(file.name))
    others = any(is_medium(file.name) for file in listed)
    return SubsetMedia(roots, tuple(archives_of(found)), found, own, others)


def of_subset(about: Source, tree: Tree, subset: str, folder: str) -> list[File]:
    """The files among which the subset's media are: those of its globs, else all in `folder`."""
    globs = about.media_files.get(subset, about.media_files.get("", ()))
    patterns = [glob_regex(g.replace("{subset}", subset)) for g in globs]
    listed = [file for file in tree.files if any(p.match(file.name) for p in patterns)]
    inside = f"{folder}/" if folder else ""
    return listed or [file for file in tree.files if file.name.startswith(inside)]


def split_files(about: Source, files: Sequence[File], media: SubsetMedia) -> list[dict[str, Any]]:
    """The subset's files cut into pieces {rows, bytes, inputs}, in order."""
    kinds = {kind_of(file) for file in files}
    if len(kinds) > 1:
        raise ValueError(
            f"{files[0].url} and {len(files) - 1} more: a subset's files must be of one kind, "
            f"found {', '.join(sorted(kinds))}. Name some with a glob: data: FOLDER/*.json"
        )
    kind = kinds.pop()
    if kind == "parquet":
        return cut_parquet(about, files)
    if kind == "arrow":
        return cut_arrow(about, files)
    if kind == "json":
        if media.streams:
            return cut_archives(about, files, media)
        small = annotations.is_small(files, about)
        return cut_json(about, files) if small else cut_blocks(about, files)
    if kind == "csv":
        return cut_csv(about, files)
    if kind in ("document", "labelled"):
        return cut_files(about, files, kind)
    if kind == "tar":
        return cut_tars(about, archives_of(files))
    return [
        piece_of(
            kind,
            None,
            file.size,
            **{"url": file.url, "size": file.size, "file": number, "content": file.content},
        )
        for number, file in enumerate(files)
    ]


def piece_of(kind: str, count: int | None, num_bytes: int, **inputs: Any) -> dict[str, Any]:
    """A piece: rows (null: unknown), bytes, and where to read them."""
    return {"rows": count, "bytes": num_bytes, "inputs": {"kind": kind, **inputs}}


def rows_of_a_part(about: Source, total: float) -> int:
    """How many rows a part of a subset of `total` rows has, about."""
    fewest = min(about.rows_per_part, max(8, min(FEWEST, about.rows_per_part // 16)))
    return max(fewest, min(about.rows_per_part, round(total) // PARTS))


def cut_archives(about: Source, files: Sequence[File], media: SubsetMedia) -> list[dict[str, Any]]:
    """A piece per archive that must be read in order, then the rows that name no medium, then those
    whose medium is in none.
    """
    small = annotations.is_small(files, about)
    shared = {"files": tuple(files), "small": small, "every": BlockSelection()}
    if small:
        firsts = [annotations.scan_file(file, about).first_keys for file in files]
        total: float = sum(map(len, firsts))
        bare = sum(int((first == 0).sum()) for first in firsts)
    else:
        estimated = annotations.estimate_rows(files, about)
        total = sum(estimated)
        shares = (annotations.probe(file, about).without_media for file in files)
        bare = round(sum(n * share for n, share in zip(estimated, shares, strict=True)))
    size = sum(archive.size for archive in media.streams)
    pieces = []
    for archive in media.streams:
        piece = piece_of("archive", None, archive.size, archive=archive, **shared)
        pieces.append({**piece, "about_rows": round((total - bare) * archive.size / max(1, size))})
    count = -(-bare // rows_of_a_part(about, total))
    count = count if small else max(1, count)  # an estimate of none is no proof that there are none
    for number in range(count):
        piece = piece_of("bare", None, 0, **shared, share=(number, count))
        pieces.append({**piece, "about_rows": bare // count})
    loose = sum(f.size for f in media.listed or ()) - size
    count = 1 + loose // PART_BYTES
    for number in range(count):
        share = {"share": (number, count), "streams": tuple(media.streams)}
        piece = piece_of("loose", None, loose // count, **shared, **share)
        pieces.append({**piece, "about_rows": 0})
    return pieces


def cut_tars(about: Source, tars: Sequence[Archive]) -> list[dict[str, Any]]:
    """The samples of a tar gathered up to PART_BYTES and the rows of a part, where its headers tell
    where they begin; any other tar is a piece, as are all where there are many.
    """
    few = len(tars) <= PARTS
    starts = [starts_of(tar) if few and can_be_cut(tar) else NO_STARTS for tar in tars]
    most = rows_of_a_part(about, sum(max(0, len(one) - 1) for one in starts))
    cut = [list(spans(one, rows=most, num_bytes=PART_BYTES)) for one in starts]
    counted = all(cut)  # sizes of a subset's parts are all of rows, or all of bytes
    if all(len(found) <= 1 for found in cut):
        return [piece_of("tar", None, tar.size, archive=tar, file=n) for n, tar in enumerate(tars)]
    pieces = []
    for number, (tar, found) in enumerate(zip(tars, cut, strict=True)):
        where = {"archive": tar, "file": number}
        pieces += [] if found else [piece_of("tar", None, tar.size, **where)]
        for start, stop, first, count in found:
            place = {**where, "span": (start, stop), "first": first}
            pieces.append(piece_of("tar", count if counted else None, stop - start, **place))
    return pieces


def kind_of(file: File) -> str:
    """How the file is read."""
    name = file.name.lower()
    if name.endswith(".parquet"):
        return "parquet"
    if name.endswith(".arrow"):
        return "arrow"
    if rows.COMPRESSED.search(name):
        return "compressed"
    if name.endswith((".json", ".jsonl", ".ndjson")):
        return "json"
    if rows.SEPARATED.search(name):
        return "csv"
    if DOCUMENT.match(file.name):
        return "document"
    if ANY_IMAGE.match(file.name):
        return "labelled"
    if ARCHIVE.match(file.name) and not file.name.endswith(".zip"):
        return "tar"
    raise ValueError(
        f"{file.url}: expected .parquet, .arrow, .json, .jsonl, .jsonl.gz, .jsonl.zst, .csv or .tsv"
    )


def cut_parquet(about: Source, files: Sequence[File]) -> list[dict[str, Any]]:
    """Row groups gathered up to PART_BYTES and the rows of a part; one of more rows is cut, its
    rows then being the part's `range`.
    """
    with ThreadPoolExecutor(16) as pool:
        footers = list(pool.map(lambda file: rows.footer(file, about), files))
    most = rows_of_a_part(about, sum(sum(footer.rows) for footer in footers))
    pieces: list[dict[str, Any]] = []
    first = 0
    for file, footer in zip(files, footers, strict=True):
        sizes = zip(footer.rows, footer.stored, footer.num_bytes, strict=True)
        for group, (count, stored, size) in enumerate(sizes):
            read = [file.url, file.size, [group], first, file.content]
            if (ranges := ranges_of(count, stored, most)) > 1:
                for start, stop in pairwise(n * count // ranges for n in range(ranges + 1)):
                    place = {"reads": [read], "range": (start, stop)}
                    share = (stop - start) / count
                    piece = piece_of("parquet", stop - start, round(stored * share), **place)
                    pieces.append({**piece, "full": True})
                first += count
                continue
            last = pieces[-1] if pieces else None
            fits = (
                last is not None
                and not last.get("full")
                and last["in_memory"] + size <= PART_BYTES
                and last["rows"] + count <= most
            )
            if last is None or not fits:
                last = {**piece_of("parquet", 0, 0, reads=[]), "in_memory": 0}
                pieces.append(last)
            reads = last["inputs"]["reads"]
            if reads and reads[-1][0] == file.url:
                reads[-1][2].append(group)
            else:
                reads.append(read)
            last["rows"] += count
            last["bytes"] += stored
            last["in_memory"] += size
            first += count
    return pieces


def cut_arrow(about: Source, files: Sequence[File]) -> list[dict[str, Any]]:
    """Batches of local files gathered up to PART_BYTES and the rows of a part; a remote file is one
    piece, whose rows nobody has counted.
    """
    pieces: list[dict[str, Any]] = []
    held = {file.url: list(sizes_of(file)) for file in files if not is_url(file.url)}
    most = rows_of_a_part(about, sum(count for sizes in held.values() for count, _ in sizes))
    for number, file in enumerate(files):
        rows.check_columns(file, schema_of(file).names, about)
        place = {"url": file.url, "size": file.size, "file": number}
        if is_url(file.url):
            batches = {"first": 0, "batches": (0, None)}
            pieces.append(piece_of("arrow", None, file.size, **place, **batches))
            continue
        last, first = None, 0
        for batch, (count, size) in enumerate(held[file.url]):
            full = last is not None and (
                last["bytes"] + size > PART_BYTES or last["rows"] + count > most
            )
            if last is None or full:
                last = piece_of("arrow", 0, 0, **place, first=first, batches=(batch, batch))
                pieces.append(last)
            last["inputs"]["batches"] = (last["inputs"]["batches"][0], batch + 1)
            last["rows"] += count
            last["bytes"] += size
            first += count
    return pieces


def ranges_of(count: int, stored: int, most: int) -> int:
    """Into how many parts a row group of `count` rows and `stored` bytes is cut, of about the
    `most` rows that a part has, or more.
    """
    again = READ_AGAIN if most >= FEWEST else 8 * READ_AGAIN
    bound = min(MOST_RANGES, max(1, again // max(1, stored)))
    return min(bound, max(1, count // most))


def cut_json(about: Source, files: Sequence[File]) -> list[dict[str, Any]]:
    """Rows gathered by their first medium, so that one named by many rows is read once."""
    found = annotations.index_annotations(tuple(files), about, BlockSelection())
    refs, keys = found.refs, found.first
    order = order_by_medium(keys)
    refs, keys = refs[order], keys[order]
    most = rows_of_a_part(about, len(refs))
    pieces, start = [], 0
    while start < len(refs):
        stop = min(start + most, len(refs))
        while stop < len(refs) and keys[stop] != 0 and keys[stop] == keys[stop - 1]:
            stop += 1
        part = refs[start:stop]
        inputs = {"kind": "json", "files": tuple(files), "refs": part}
        pieces.append({"rows": len(part), "bytes": int(part[:, 3].sum()), "inputs": inputs})
        start = stop
    return pieces


def cut_blocks(about: Source, files: Sequence[File]) -> list[dict[str, Any]]:
    """Stretches of bytes that hold about the rows of a part, of which none is read yet."""
    pieces = []
    most = rows_of_a_part(about, sum(annotations.estimate_rows(files, about)))
    for number, file in enumerate(files):
        row_bytes = max(1.0, annotations.probe(file, about).row_bytes)
        size = annotations.BLOCK
        step = max(1, min(PART_BYTES, int(most * row_bytes)) // size) * size
        for start in range(0, file.size, step):
            stop = min(file.size, start + step)
            place = {"files": tuple(files), "file": number, "bytes": (start, stop)}
            piece = piece_of("block", None, stop - start, **place)
            pieces.append({**piece, "about_rows": round((stop - start) / row_bytes)})
    return pieces


def cut_csv(about: Source, files: Sequence[File]) -> list[dict[str, Any]]:
    """Rows in their order, those of a part at a time."""
    pieces = []
    counts = [rows.csv_header(file, about) for file in files]
    most = rows_of_a_part(about, sum(counts))
    for number, (file, count) in enumerate(zip(files, counts, strict=True)):
        for start in range(0, count, most):
            here = min(most, count - start)
            place = {"url": file.url, "size": file.size, "file": number, "first": start}
            pieces.append(piece_of("csv", here, file.size * here // count, **place))
    return pieces


def cut_files(about: Source, files: Sequence[File], kind: str) -> list[dict[str, Any]]:
    """Files that are a row each, gathered up to PART_BYTES and the rows of a part."""
    wanted = {"document": "text", "labelled": "folder"}[kind]
    if about.layout != wanted:
        raise ValueError(f"{files[0].url}: no file of rows, as {about.name} reads them")
    most = rows_of_a_part(about, len(files))
    pieces: list[dict[str, Any]] = []
    for number, file in enumerate(files):
        last = pieces[-1] if pieces else None
        full = last and (last["bytes"] + file.size > PART_BYTES or last["rows"] >= most)
        if last is None or full:
            last = piece_of(kind, 0, 0, files=[], first=number)
            pieces.append(last)
        last["inputs"]["files"].append(file)
        last["rows"] += 1
        last["bytes"] += file.size
    return pieces


def order_by_medium(keys: np.ndarray) -> np.ndarray:
    """The order of rows: as they are, but those that share a medium right after its first row."""
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    home = first[group]
    alone = keys == 0
    home[alone] = np.flatnonzero(alone)
    return np.argsort(home, kind="stable")
