"""What is remembered of an archive once it was walked: of a streamed one, which names it has."""

import os
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import cast

import numpy as np

from pipelines.engine.private import cache_folder
from pipelines.reading.archives import IMAGE, Archive, keys_of, walk_tar

LISTING = 3
"""Bumped when other names would be remembered of the same archive."""


def kept_file(archive: Archive, what: object) -> Path:
    """Where something is remembered of an archive, by its content id."""
    files = [[file.name, file.size, file.stamp, file.url] for file in archive.files]
    about = repr([what, files])
    return cache_folder() / f"{blake2b(about.encode(), digest_size=12).hexdigest()}.npy"


def listing_file(archive: Archive) -> Path:
    """Where the names of a streamed archive are remembered."""
    return kept_file(archive, LISTING)


def keep(path: Path, values: np.ndarray) -> None:
    """The values are in the file, where there is room."""
    waiting = path.with_suffix(f".{os.getpid()}.tmp")
    with suppress(OSError):  # a home that is full or read-only costs a second walk, no more
        path.parent.mkdir(parents=True, exist_ok=True)
        with waiting.open("wb") as stream:
            np.save(stream, values)
        waiting.replace(path)


def kept_array(archive: Archive, what: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """What `make` finds of the archive, found once."""
    path = kept_file(archive, what)
    if path.is_file():
        return cast(np.ndarray, np.load(path))
    found = make()
    keep(path, found)
    return found


def keep_listing(archive: Archive, keys: Sequence[int]) -> None:
    """The hashes of the paths that name a member are kept for `listing`."""
    keep(listing_file(archive), np.unique(np.array(keys, np.uint64)))


def listing(archive: Archive) -> np.ndarray:
    """The sorted hashes [n] uint64 of every path that names a member of a streamed archive."""
    path = listing_file(archive)
    if path.is_file():
        return cast(np.ndarray, np.load(path))
    keys, parent = array("Q"), ""
    for name, _ in walk_tar(archive, limit=0):
        if name:
            keys.extend(keys_of(archive, name))
            if IMAGE.match(name) and parent != (parent := name.rpartition("/")[0]):
                keys.extend(keys_of(archive, parent))  # a folder of frames can be named too
    keep_listing(archive, keys)
    return np.unique(np.array(keys, np.uint64))
