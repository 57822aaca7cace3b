"""Of files on the hub the bytes that are used and no others: columns of row groups, zips' members.

    columns of a group --where their bytes lie--> stretches --a request each--> at hand while read

Arrow asks for a column at a time, zipfile for a header and then what follows, and a reader that
buffers adds its block to each: of a group of a few MB, or an image, that would be as much again.
A footer is read once a process.
"""

import bisect
import io
import sys
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, BinaryIO

from pipelines.reading import hub

GAP = 64 << 10
"""Bytes between two columns that are fetched with them: a request costs more."""
MOST_HELD = 128 << 20
"""Bytes of a row group's columns that are held at once; of larger ones Arrow asks by itself."""
KEPT, MOST_KEPT = 16, 4 << 20
"""Row groups, and bytes of each, that stay at hand in a process."""


def is_elsewhere(url: str, content: str) -> bool:
    """Whether the file is on the hub and not in the client's cache."""
    return hub.is_hub(url) and hub.cached(url, content) is None


@lru_cache(maxsize=256)
def footer(url: str, size: int, content: str) -> Any:
    """The footer of a Parquet file of the hub, whose content never changes."""
    import pyarrow.parquet as pq

    with hub.open_file(url, size, content=content) as stream:
        return pq.ParquetFile(stream).metadata


def stretches_of(group: Any, columns: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """(start, stop) of the bytes of these columns of a row group, ascending; near ones joined."""
    found = []
    for number in range(group.num_columns):
        chunk = group.column(number)
        if chunk.path_in_schema.split(".")[0] in columns:
            starts = (chunk.dictionary_page_offset, chunk.data_page_offset)
            start = min(offset for offset in starts if offset)
            found.append((start, start + chunk.total_compressed_size))
    found.sort()
    breaks = [n for n, (a, b) in enumerate(pairwise(found), 1) if b[0] - a[1] > GAP]
    runs = [found[i:j] for i, j in pairwise([0, *breaks, len(found)]) if i < j]
    return tuple((run[0][0], max(stop for _, stop in run)) for run in runs)


def fetched(url: str, stretches: tuple[tuple[int, int], ...]) -> tuple[bytes, ...]:
    """The bytes of the stretches, a request each."""
    return tuple(hub.fetch(url, start, stop) for start, stop in stretches)


held = lru_cache(maxsize=KEPT)(fetched)
"""The same, of small row groups: those of which several parts are made are fetched once."""


class Stretches(io.RawIOBase):
    """A file of which some stretches are at hand; what else is read of it is read of `inner`."""

    def __init__(
        self, inner: BinaryIO, stretches: Sequence[tuple[int, int]], data: Sequence[bytes]
    ) -> None:
        super().__init__()
        self.inner, self.data = inner, data
        self.starts = [start for start, _ in stretches]
        self.position = 0

    def hold(self, url: str, start: int, stop: int) -> None:
        """These bytes alone are at hand, in one request."""
        self.starts, self.data = [start], [hub.fetch(url, start, stop)]

    def readable(self) -> bool:
        """True: it reads."""
        return True

    def seekable(self) -> bool:
        """True: it seeks."""
        return True

    def tell(self) -> int:
        """The position, bytes from the start."""
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; returns the new position."""
        if whence == io.SEEK_SET:
            self.position = offset
        elif whence == io.SEEK_CUR:
            self.position += offset
        else:
            self.position = self.inner.seek(offset, whence)
        return self.position

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from the position; returns how many bytes, fewer at the end alone."""
        filled = 0
        while filled < len(buffer):
            number = bisect.bisect_right(self.starts, self.position) - 1
            here = self.position - self.starts[number] if number >= 0 else 0
            if number >= 0 and here < len(self.data[number]):
                found = memoryview(self.data[number])[here : here + len(buffer) - filled]
            else:
                after = self.starts[number + 1 : number + 2] or [sys.maxsize]
                self.inner.seek(self.position)
                wanted = min(len(buffer) - filled, after[0] - self.position)
                found = memoryview(self.inner.read(wanted))
            if not found:
                break
            buffer[filled : filled + len(found)] = found
            filled += len(found)
            self.position += len(found)
        return filled


def group_stream(url: str, stream: BinaryIO, group: Any, columns: Sequence[str]) -> Any:
    """A reader of the file that has these columns of the row group at hand, where they fit."""
    stretches = stretches_of(group, columns)
    size = sum(stop - start for start, stop in stretches)
    if size > MOST_HELD:
        return stream
    return Stretches(stream, stretches, (held if size <= MOST_KEPT else fetched)(url, stretches))
