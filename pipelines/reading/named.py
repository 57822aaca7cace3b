"""Which of the files that lie about are media of the rows: those that the rows name, no others.

| annotations                   | media are                                                   |
|-------------------------------|-------------------------------------------------------------|
| small enough to be read whole | the files, frames and archives that hold a path of a row    |
| larger                        | every file whose name ends like an image, video or archive |

So a log, a build's own output or a second image beside the first change nothing.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np

from pipelines.reading import annotations, rows
from pipelines.reading.archives import IMAGE, Archive, Members, archives_of, keys_of
from pipelines.reading.arrow_rows import arrow_rows
from pipelines.reading.files import File
from pipelines.reading.member_paths import key_of, suffixes
from pipelines.sources.sample import Source

READ = 64 << 20
"""Bytes of Parquet and CSV, up to which they are read whole at planning for the paths in them."""
READ_COMPRESSED = 8 << 20
"""The same of compressed JSON lines, which hold about ten times as much."""
OPENED = 256
"""Archives that are opened at planning for their lists of members, at most."""


@lru_cache(maxsize=256)
def keys_in(files: tuple[File, ...], about: Source, kind: str) -> np.ndarray | None:
    """The hashes uint64 [media] of the paths in all rows; null where reading would cost much."""
    if about.layout in ("text", "tar") or kind == "labelled":
        return np.zeros(0, np.uint64)
    if kind == "json":
        if not annotations.is_small(files, about):
            return None
        return np.concatenate([annotations.scan_file(file, about).keys for file in files])
    size = sum(file.size for file in files)
    if size > (READ_COMPRESSED if kind == "compressed" else READ):
        return None
    keys = [
        key for row in rows_in(files, about, kind) for key in annotations.media_keys(row, about)
    ]
    return np.array(keys, np.uint64)


def rows_in(files: Sequence[File], about: Source, kind: str) -> Iterator[object]:
    """Every row of Parquet, CSV or compressed files."""
    for file in files:
        if kind == "parquet":
            groups = range(len(rows.footer(file, about).rows))
            yield from rows.parquet_rows(file.url, file.size, groups, about)
        elif kind == "csv":
            yield from rows.csv_rows(file.url, file.size)
        elif kind == "arrow":
            yield from arrow_rows(file.url, file.size, about)
        elif kind == "compressed":
            yield from rows.compressed_rows(file.url, file.size)


def named(
    listed: Sequence[File],
    keys: np.ndarray,
    *,
    roots: Sequence[str],
    aliases: Iterable[tuple[str, str]],
) -> tuple[File, ...]:
    """Of the files, those that `keys` name: themselves, as frames of a folder, or as the archive
    that one lies in. Archives that are only read in order, or too many to look into, all count.
    """
    if not len(keys):
        return ()
    wanted = set(np.unique(keys).tolist())
    links, frames = list(aliases), dict[str, bool]()
    found = {file.url: file for file in listed if meant(file, wanted, roots, links, frames)}
    archives = archives_of(listed)
    for archive in archives:
        if archive.streams or len(archives) > OPENED or holds(archive, wanted):
            found |= {file.url: file for file in archive.files}
    return tuple(sorted(found.values(), key=lambda file: file.name))


def meant(
    file: File,
    wanted: set[int],
    roots: Sequence[str],
    links: Sequence[tuple[str, str]],
    frames: dict[str, bool],
) -> bool:
    """Whether a wanted path is the file's, from a root or in full, or that of its folder of frames;
    `frames` remembers the answer of each folder.
    """
    names = [file.url, *(file.url[len(r) + 1 :] for r in roots if file.url.startswith(f"{r}/"))]
    for link, target in links:
        inside = f"{target}/" if target else ""
        if file.name.startswith(inside):
            names.append(f"{link}/{file.name[len(inside) :]}")
    if any(key_of(name) in wanted for name in names):
        return True
    if not IMAGE.match(file.name):
        return False
    if file.folder not in frames:
        parents = (name.rpartition("/")[0] for name in names)
        frames[file.folder] = any(
            key_of(path) in wanted for parent in parents for path in suffixes(parent)
        )
    return frames[file.folder]


def holds(archive: Archive, wanted: set[int]) -> bool:
    """Whether the archive has a member that is wanted, or cannot be read."""
    members = Members([archive])
    try:
        if members.broken:
            return True
        for name, _ in members.members(0):
            paths = [name, name.rpartition("/")[0]] if IMAGE.match(name) else [name]
            if any(key in wanted for path in paths for key in keys_of(members.archives[0], path)):
                return True
    finally:
        members.close()
    return False
