"""How many bytes are read of files, here and elsewhere, while somebody counts."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast


@dataclass
class Traffic:
    """Bytes read since counting began."""

    num_bytes: int = 0


_counters: list[Traffic] = []


@contextmanager
def counted() -> Iterator[Traffic]:
    """What is read inside is counted in the Traffic that is given."""
    mine = Traffic()
    _counters.append(mine)
    try:
        yield mine
    finally:
        _counters.remove(mine)


def add(num_bytes: int) -> None:
    """So many bytes more were read."""
    for counter in _counters:
        counter.num_bytes += num_bytes


def opened(path: Path) -> BinaryIO:
    """A reader of the local file, counted where somebody counts."""
    if not _counters:
        return path.open("rb")
    return cast(BinaryIO, io.BufferedReader(CountedFile(path)))


class CountedFile(io.FileIO):
    """A local file whose reads are counted."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")

    def readinto(self, buffer: Any) -> int:
        """As of io.FileIO."""
        count = super().readinto(buffer) or 0
        add(count)
        return count

    def read(self, size: int | None = -1) -> bytes:
        """As of io.FileIO."""
        data = super().read(-1 if size is None else size) or b""
        add(len(data))
        return data

    def readall(self) -> bytes:
        """As of io.FileIO."""
        data = super().readall() or b""
        add(len(data))
        return data
