"""Numbers of every sample, a column each: in memory, or in files read a stretch at a time.

    new = in_memory | in_folder(path)       column = new(dtype)       column.append(values)
    column[start:stop], column[places]      copies: nothing stays mapped

What is computed of a hundred million samples goes by stretches of ROWS; what has to be in another
order is scattered over columns and each of those put in order by itself.
"""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import numpy as np

ROWS = 1 << 19
"""Of a stretch: a hundred bytes of each are 50 MB."""


class Column(Protocol):
    """Values of one type."""

    def __len__(self) -> int: ...

    def __getitem__(self, which: slice | np.ndarray) -> np.ndarray:
        """A copy of a stretch, or of the values at these places."""

    def append(self, values: np.ndarray) -> None:
        """The values follow what is there."""

    def write(self, start: int, values: np.ndarray) -> None:
        """The values stand from `start` on, in place of what was there."""

    def clear(self) -> None:
        """Nothing is there."""


New = Callable[[Any], Column]
"""dtype -> an empty column."""


class MemoryColumn:
    """Values in memory."""

    def __init__(self, dtype: Any) -> None:
        self._parts = [np.zeros(0, dtype)]

    def _whole(self) -> np.ndarray:
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        return self._parts[0]

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __getitem__(self, which: slice | np.ndarray) -> np.ndarray:
        return self._whole()[which].copy()

    def append(self, values: np.ndarray) -> None:
        """As in `Column`."""
        self._parts.append(values.astype(self._parts[0].dtype))

    def write(self, start: int, values: np.ndarray) -> None:
        """As in `Column`."""
        self._whole()[start : start + len(values)] = values

    def clear(self) -> None:
        """As in `Column`."""
        self._parts = [self._parts[0][:0].copy()]


class FileColumn:
    """Values in a file of their own, of which nothing stays in memory."""

    def __init__(self, path: Path, dtype: Any) -> None:
        self._path, self._dtype = path, np.dtype(dtype)
        path.write_bytes(b"")

    def __len__(self) -> int:
        return self._path.stat().st_size // self._dtype.itemsize

    def __getitem__(self, which: slice | np.ndarray) -> np.ndarray:
        if isinstance(which, slice):
            start, stop, _ = which.indices(len(self))
            offset = start * self._dtype.itemsize
            return np.fromfile(self._path, self._dtype, max(0, stop - start), offset=offset)
        if not len(which):
            return np.zeros(0, self._dtype)
        return np.array(np.memmap(self._path, self._dtype, "r")[which])

    def append(self, values: np.ndarray) -> None:
        """As in `Column`."""
        with self._path.open("ab") as file:
            np.ascontiguousarray(values, self._dtype).tofile(file)

    def write(self, start: int, values: np.ndarray) -> None:
        """As in `Column`."""
        with self._path.open("r+b") as file:
            file.seek(start * self._dtype.itemsize)
            np.ascontiguousarray(values, self._dtype).tofile(file)

    def clear(self) -> None:
        """As in `Column`."""
        self._path.write_bytes(b"")


def in_memory(dtype: Any) -> Column:
    """An empty column in memory."""
    return MemoryColumn(dtype)


def in_folder(folder: Path | str) -> New:
    """Empty columns, each a file of the folder, which belongs to them."""
    numbers = count()
    return lambda dtype: FileColumn(Path(folder) / f"{next(numbers):06d}.column", dtype)


def stretches(length: int, *, rows: int = ROWS) -> Iterator[tuple[int, int]]:
    """(start, stop) of all, `rows` at a time."""
    for start in range(0, length, rows):
        yield start, min(start + rows, length)


def total(column: Column, *, start: int = 0, stop: int = -1) -> float:
    """The sum of floats, to the bit the one that numpy makes of them in one array: in pairs of
    halves, so that the error grows with the logarithm of their number (Higham 1993,
    https://doi.org/10.1137/0914050).
    """
    stop = len(column) if stop < 0 else stop
    count = stop - start
    if count <= ROWS:
        return float(column[start:stop].sum())
    middle = start + count // 2 - count // 2 % 8
    return total(column, start=start, stop=middle) + total(column, start=middle, stop=stop)
