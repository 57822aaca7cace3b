"""Rows in the order of the archives that hold their media: each archive is read once.

The annotations say which paths are wanted (sorted hashes, and the row of each); a member that
passes is put at hand and the rows that now have all their media come out, so that a video named by
five rows is decoded once. A row belongs to the archive of its first medium; media of one subset
are expected in one archive each.
"""

import zlib
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.engine.tables import FileError
from pipelines.media import decoders
from pipelines.reading.archives import IMAGE, Archive, full_names, keys_of, walk_tar
from pipelines.reading.listings import keep_listing, listing
from pipelines.reading.media_files import Media
from pipelines.reading.member_paths import hidden, key_of, stem_and_extension
from pipelines.reading.streams import WHOLE
from pipelines.sources.sample import Defect

FOLDER_BYTES = 1 << 30
"""Encoded bytes of a folder of frames, at most: they are held until the last has passed."""


def rows_in_archive_order(
    archive: Archive,
    first: np.ndarray,
    keys: np.ndarray,
    owners: np.ndarray,
    media: Media,
    *,
    knowing: Mapping[int, bool],
) -> Iterator[int]:
    """The rows whose first medium is in the archive, each when its media are at hand.

    `first` [rows]: the hash of each row's first medium. `keys` [media], sorted, and `owners`
    [media]: every medium's hash and its row, each pair once. Media found are in `media.at_hand`
    while a row that needs them is out.

    Raises:
        SeveralFit: at the end; to be read anew with what it says as `knowing`.
    """
    # Longer than a screen: one pass whose two small helpers close over its tables.
    fitting = Fitting(archive, knowing)
    wanted = np.bincount(owners, minlength=len(first))  # different media per row
    wanted_keys = set(np.unique(keys).tolist())
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

    for name, named, data in with_folders(archive, lambda named: any(map(wanting, named))):
        ready: list[int] = []
        full = {key_of(path) for path in full_names(archive, name)}
        for key in named:
            seen.append(key)
            if key not in wanted_keys:
                continue
            taken = fitting.takes(key, full=key in full, data=data)
            if taken is None or fitting.several:
                continue
            for row in wanting(key):
                media.at_hand.setdefault(key, taken)
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
    if fitting.several:
        raise SeveralFit(fitting.several)


class SeveralFit(Exception):
    """Paths of rows turned out to fit several members of an archive, when rows were out already:
    it must be read anew, `knowing` which.
    """

    def __init__(self, knowing: dict[int, bool]) -> None:
        super().__init__(f"{len(knowing)} paths fit several members")
        self.knowing = knowing


@dataclass
class Fitting:
    """Which member of an archive each wanted path means, while they pass in order.

    Of members that one path fits, one that it names in full is meant; where none or more than one
    is, and they differ, none.
    """

    archive: Archive
    knowing: Mapping[int, bool]
    """Of paths that fit several: whether one of them is named in full."""
    passed: dict[int, tuple[bool, int, int]] = field(default_factory=dict)
    """Of paths that a member fitted: named in full, its size and CRC."""
    several: dict[int, bool] = field(default_factory=dict)
    """What a reading anew must know."""

    def takes(self, key: int, *, full: bool, data: "Passing") -> "Passing | None":
        """What the path gets of the member that passes; null where it means another."""
        if key in self.knowing:
            if not self.knowing[key]:
                return Defect("ambiguous_media", f"it fits several members of {self.archive.name}")
            return data if full else None
        about = (full, len(data), zlib.crc32(data)) if isinstance(data, bytes) else (full, 0, 0)
        known = self.passed.setdefault(key, about)
        if known is about:
            return data
        if full == known[0] and (about[1:] != known[1:] or not isinstance(data, bytes)):
            self.several[key] = False
        elif full and not known[0]:
            self.several[key] = True
            self.passed[key] = about
        return None


Passing = bytes | Defect | dict[str, bytes]
"""A file, or the images of a folder by name."""


def with_folders(
    archive: Archive, wants: Callable[[list[int]], bool]
) -> Iterator[tuple[str, list[int], Passing]]:
    """(name, hashes of every path that names it, content) of each member, and of each folder of
    images once the last of them has passed; of a folder that nothing `wants`, empty.

    Raises FileError where the images of a wanted folder do not stand together.
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
            yield at, named, defect or broken or images
            past.update([at] if gathers else [])
            named, images, num_bytes, defect = [], {}, 0, None
        if not name:
            return  # it breaks off here: rows that miss a member are told apart by what is missing
        if IMAGE.match(name):
            if not named:
                at, named = parent, keys_of(archive, parent)
                gathers = wants(named)
                if parent in past:
                    raise FileError(
                        f"{archive.name}: the frames in {parent} do not stand together, and the "
                        "archive is read once, in order. Unpack it, or pack it by folders"
                    )
            if gathers and isinstance(data, bytes):
                images[base] = data
                num_bytes += len(data)
                if num_bytes > FOLDER_BYTES:
                    defect, images = Defect("too_many_bytes", "a folder of frames"), {}
            elif gathers and isinstance(data, Defect):
                defect = defect or data
        yield name, keys_of(archive, name), data
    if named:
        yield at, named, defect or images


def rows_in_no_archive(
    archives: Sequence[Archive], first: np.ndarray, number: int, count: int
) -> Iterator[int]:
    """The rows that name media, whose first is in none of the archives: the `number`-th share of
    `count`.

    Raises FileError where a wanted path names members of two archives, which would be read twice.
    """
    found = np.zeros(len(first), bool)
    for archive in archives:
        here = np.isin(first, listing(archive)) & (first != 0)
        if (twice := np.flatnonzero(found & here)).size:
            raise FileError(
                f"{archive.name}: {len(twice)} media, of row {twice[0]} for one, lie in an earlier "
                "archive too. Leave one of the two out, or name them by longer paths"
            )
        found |= here
    rest = np.flatnonzero(~found & (first != 0))
    mine = rest[first[rest] % np.uint64(count) == number]
    order = np.lexsort((mine, first[mine]))
    yield from mine[order].tolist()


def rows_without_media(first: np.ndarray, number: int, count: int) -> Iterator[int]:
    """The rows that name no medium, in order: the `number`-th share of `count`."""
    yield from np.flatnonzero(first == 0)[number::count].tolist()


def webdataset_samples(
    archive: Archive, *, span: tuple[int, int] = WHOLE
) -> Iterator[dict[str, Any] | Defect]:
    """The samples of a WebDataset tar, or those that lie from one byte to another: consecutive
    members of one key, {extension: bytes}.

    Where an extension comes again under one key, another sample of that key begins.
    """
    sample: dict[str, Any] = {}
    for name, data in walk_tar(archive, limit=decoders.MAX_BYTES, span=span):
        if not name:
            if sample:
                yield sample
            sample = {}
            assert isinstance(data, Defect)
            yield data
            continue
        if hidden(name):
            continue
        key, extension = stem_and_extension(name)
        if sample and (sample["__key__"] != key or extension in sample):
            yield sample
            sample = {}
        sample["__key__"] = key
        sample[extension] = data
    if sample:
        yield sample
