"""Rows in the order of the archives that hold their media: each archive is read once.

The annotations say which paths are wanted (sorted hashes, and the row of each); a member that
passes is put at hand and the rows that now have all their media come out, so that a video named by
five rows is decoded once. A row belongs to the archive of its first medium; media of one subset
are expected in one archive each.
"""

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from pipelines.media import decoders
from pipelines.reading.archives import (
    IMAGE,
    Archive,
    keep_listing,
    keys_of,
    listing,
    stem_and_extension,
    walk_tar,
)
from pipelines.reading.media_files import Media
from pipelines.sources.sample import Defect

FOLDER_BYTES = 1 << 30
"""Encoded bytes of a folder of frames, at most: they are held until the last has passed."""


def rows_in_archive_order(
    archive: Archive, first: np.ndarray, keys: np.ndarray, owners: np.ndarray, media: Media
) -> Iterator[int]:
    """The rows whose first medium is in the archive, each when its media are at hand.

    `first` [rows]: the hash of each row's first medium. `keys` [media], sorted, and `owners`
    [media]: every medium's hash and its row, each pair once. Media found are in `media.at_hand`
    while a row that needs them is out.
    """
    wanted = np.bincount(owners, minlength=len(first))  # different media per row
    seen = array("Q")
    needs: dict[int, set[int]] = {}
    users: dict[int, set[int]] = defaultdict(set)
    done: set[int] = set()

    def release(row: int) -> None:
        done.add(row)
        for key in needs.pop(row):
            users[key].discard(row)
            if not users[key]:
                media.at_hand.pop(key, None)

    def wanting(key: int) -> list[int]:
        low = np.searchsorted(keys, np.uint64(key), side="left")
        high = np.searchsorted(keys, np.uint64(key), side="right")
        return [row for row in owners[low:high].tolist() if row not in done]

    for named, data in with_folders(archive, lambda named: any(map(wanting, named))):
        ready: list[int] = []
        for key in named:
            seen.append(key)
            for row in wanting(key):
                media.at_hand.setdefault(key, data)
                users[key].add(row)
                needs.setdefault(row, set()).add(key)
                if row not in ready:
                    ready.append(row)
        for row in sorted(ready):
            if len(needs[row]) == wanted[row]:
                yield row
                release(row)
    for row in sorted(needs):  # their other media are elsewhere, or nowhere
        if first[row] in needs[row]:
            yield row
        release(row)
    keep_listing(archive, seen)


Passing = bytes | Defect | dict[str, bytes]
"""A file, or the images of a folder by name."""


def with_folders(
    archive: Archive, wants: Callable[[list[int]], bool]
) -> Iterator[tuple[list[int], Passing]]:
    """(hashes of every path that names it, content) of each member, and of each folder of images
    once the last of them has passed; of a folder that nothing `wants`, empty.

    Raises ValueError where the images of a wanted folder do not stand together.
    """
    at, named, gathers = "", list[int](), False
    images: dict[str, bytes] = {}
    num_bytes = 0
    defect: Defect | None = None
    past = set[str]()
    for name, data in walk_tar(archive, limit=decoders.MAX_BYTES):
        parent, _, base = name.rpartition("/")
        if named and (parent != at or not IMAGE.match(name)):
            broken = data if not name and isinstance(data, Defect) else None
            yield named, defect or broken or images
            past.update([at] if gathers else [])
            named, images, num_bytes, defect = [], {}, 0, None
        if not name:
            return  # it breaks off here: rows that miss a member are told apart by what is missing
        if IMAGE.match(name):
            if not named:
                at, named = parent, keys_of(archive, parent)
                gathers = wants(named)
                if parent in past:
                    raise ValueError(
                        f"{archive.name}: the frames in {parent} do not stand together, and the "
                        "archive is read once, in order. Unpack it, or pack it by folders"
                    )
            if gathers and isinstance(data, bytes):
                images[base] = data
                num_bytes += len(data)
                if num_bytes > FOLDER_BYTES:
                    defect, images = Defect("too_many_bytes", parent), {}
            elif gathers and isinstance(data, Defect):
                defect = defect or data
        yield keys_of(archive, name), data
    if named:
        yield named, defect or images


def rows_in_no_archive(
    archives: Sequence[Archive], first: np.ndarray, number: int, count: int
) -> Iterator[int]:
    """The rows whose first medium is in none of the archives: the `number`-th share of `count`.

    Raises ValueError where a wanted path names members of two archives, which would be read twice.
    """
    found = np.zeros(len(first), bool)
    for archive in archives:
        here = np.isin(first, listing(archive)) & (first != 0)
        if (twice := np.flatnonzero(found & here)).size:
            raise ValueError(
                f"{archive.name}: {len(twice)} media, of row {twice[0]} for one, lie in an earlier "
                "archive too. Leave one of the two out, or name them by longer paths"
            )
        found |= here
    rest = np.flatnonzero(~found)
    share = np.where(first[rest] == 0, rest.astype(np.uint64), first[rest]) % np.uint64(count)
    mine = rest[share == number]
    order = np.lexsort((mine, first[mine]))
    yield from mine[order].tolist()


def webdataset_samples(archive: Archive) -> Iterator[dict[str, Any] | Defect]:
    """The samples of a WebDataset tar: consecutive members of one key, {extension: bytes}."""
    sample: dict[str, Any] = {}
    for name, data in walk_tar(archive, limit=decoders.MAX_BYTES):
        if not name:
            if sample:
                yield sample
            sample = {}
            assert isinstance(data, Defect)
            yield data
            continue
        key, extension = stem_and_extension(name)
        if sample and sample["__key__"] != key:
            yield sample
            sample = {}
        sample["__key__"] = key
        sample[extension] = data
    if sample:
        yield sample
