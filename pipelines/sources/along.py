"""Rows in the order of the archives that hold their media: each archive is read once.

The annotations say which paths are wanted (sorted hashes, and the row of each); a member that
passes is put at hand and the rows that now have all their media come out, so that a video named by
five rows is decoded once. A row belongs to the archive of its first medium; media of one subset
are expected in one archive each.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipelines.sources import frames
from pipelines.sources.archives import (
    Archive,
    keys_of,
    listing,
    remember,
    stem_and_extension,
    walked,
)
from pipelines.sources.media import Media
from pipelines.sources.sample import Defect


def read_along(
    archive: Archive, first: np.ndarray, keys: np.ndarray, owners: np.ndarray, media: Media
) -> Iterator[int]:
    """The rows whose first medium is in the archive, each when its media are at hand.

    `first` [rows]: the hash of each row's first medium. `keys` [media], sorted, and `owners`
    [media]: every medium's hash and its row, each pair once. Media found are in `media.at_hand`
    while a row that needs them is out.
    """
    wanted = np.bincount(owners, minlength=len(first))  # different media per row
    seen: list[int] = []
    needs: dict[int, set[int]] = {}
    users: dict[int, set[int]] = defaultdict(set)
    done: set[int] = set()

    def release(row: int) -> None:
        done.add(row)
        for key in needs.pop(row):
            users[key].discard(row)
            if not users[key]:
                media.at_hand.pop(key, None)

    for name, data in walked(archive, limit=frames.MAX_BYTES):
        if not name:
            continue  # it breaks off here: rows that miss a member are told apart below
        ready: list[int] = []
        for key in keys_of(archive, name):
            seen.append(key)
            low = np.searchsorted(keys, np.uint64(key), side="left")
            high = np.searchsorted(keys, np.uint64(key), side="right")
            for row in owners[low:high].tolist():
                if row in done:
                    continue
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
    remember(archive, seen)


def in_no_archive(
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


def grouped(archive: Archive) -> Iterator[dict[str, Any] | Defect]:
    """The samples of a WebDataset tar: consecutive members of one key, {extension: bytes}."""
    sample: dict[str, Any] = {}
    for name, data in walked(archive, limit=frames.MAX_BYTES):
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


def json_of(data: bytes) -> Any:
    """The JSON in a member; raises Defect where it is none."""
    try:
        return json.loads(data.decode("utf-8-sig"))
    except ValueError as error:
        raise Defect("broken_json", str(error)) from error
