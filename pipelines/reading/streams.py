"""Byte streams: several files as one; compressed ones that give all they hold before they end.

Nothing here trusts what a stream says of itself: no more is made at a time than is asked for, and
a stream that becomes much more than it was ends with a Defect.
"""

import bz2
import io
import lzma
import sys
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from pipelines.reading.files import File, open_file
from pipelines.sources.sample import Defect

BLOCK = 256 << 10
FEED = 8 << 10
"""Compressed bytes that are given to a decompressor at a time: of many small members each hands
back what it did not need."""
STEP = 64 << 10
"""Bytes that a decompressor makes at a time, at most."""
MAX_EXPANSION = 250
"""Times its own size that a stream of more than UNSUSPECTED bytes may become. Text becomes 3 to 10
times its size, a table of equal rows 100; deflate ends at 1,032, bzip2 and zstd far beyond."""
UNSUSPECTED = 256 << 20
WHOLE = (0, sys.maxsize)
"""The stretch that is all of a file."""
MAX_OPEN = 64
"""Files that one part holds open of its archives' at most. A process may have 1,024 open by most
systems' default, 256 by macOS's."""
XZ_MEMORY = 512 << 20
"""Bytes that a stream's dictionary may take, at most: `xz -9` needs 65 MiB."""


class OpenFiles:
    """The files that were read last, open; a file that others displaced is opened again."""

    def __init__(self) -> None:
        self.streams: dict[tuple[File, bool], BinaryIO] = {}
        """The one read last at the end."""

    def stream(self, file: File, *, scattered: bool) -> BinaryIO:
        """A reader of the file, at any position."""
        found = self.streams.pop((file, scattered), None)
        if found is None:
            while len(self.streams) >= MAX_OPEN:
                self.streams.pop(next(iter(self.streams))).close()
            found = open_file(file.url, file.size, scattered=scattered, content=file.content)
        self.streams[file, scattered] = found
        return found

    def close(self) -> None:
        """Every file is closed."""
        while self.streams:
            self.streams.popitem()[1].close()


class JoinedFiles(io.RawIOBase):
    """Several files, one after the other, as one seekable file; `among` those that others share."""

    def __init__(
        self, files: Sequence[File], *, scattered: bool = False, among: OpenFiles | None = None
    ) -> None:
        super().__init__()
        self.files, self.scattered = files, scattered
        self.shared, self.open_files = among is not None, among or OpenFiles()
        self.ends = np.cumsum([file.size for file in files]).tolist()
        self.position = 0

    def readable(self) -> bool:
        """True: it reads."""
        return True

    def seekable(self) -> bool:
        """True: it seeks."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; returns the new position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.ends[-1]}[whence]
        self.position = max(0, base + offset)
        return self.position

    def tell(self) -> int:
        """The position, bytes from the start."""
        return self.position

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with what the file at the position still has; returns how many bytes."""
        number = int(np.searchsorted(self.ends, self.position, side="right"))
        if number == len(self.files):
            return 0
        start = self.ends[number - 1] if number else 0
        stream = self.open_files.stream(self.files[number], scattered=self.scattered)
        stream.seek(self.position - start)
        data = stream.read(min(len(buffer), self.ends[number] - self.position))
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)

    def close(self) -> None:
        """Every file is closed, but those that others share."""
        if not self.shared:
            self.open_files.close()
        super().close()


class Window(io.RawIOBase):
    """A stretch of a file, read in one go, and what follows it as it is asked for.

    For files where every read is a request: nothing before the stretch can be read.
    """

    def __init__(self, inner: Any, start: int, stop: int) -> None:
        super().__init__()
        inner.seek(start)
        self.inner, self.start, self.position = inner, start, start
        self.held = bytes(inner.read(stop - start))

    def readable(self) -> bool:
        """True: it reads."""
        return True

    def seekable(self) -> bool:
        """True: it seeks, from the start of the stretch on."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, from the start of the file; returns the new position."""
        assert whence == io.SEEK_SET
        assert offset >= self.start
        self.position = offset
        return self.position

    def tell(self) -> int:
        """The position, bytes from the start of the file."""
        return self.position

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from the position; returns how many bytes, 0 at the end."""
        here = self.position - self.start
        if here >= len(self.held):
            self.held += self.inner.read(max(len(buffer), here - len(self.held) + 1))
        data = self.held[here : here + len(buffer)]
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)


class Stretch(io.RawIOBase):
    """The bytes of a file from `start` to `stop`, in order."""

    def __init__(self, inner: BinaryIO, start: int, stop: int) -> None:
        super().__init__()
        inner.seek(start)
        self.inner, self.left = inner, stop - start

    def readable(self) -> bool:
        """True: it reads."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with what comes next; returns how many bytes, 0 at the end."""
        data = self.inner.read(min(len(buffer), self.left))
        buffer[: len(data)] = data
        self.left -= len(data)
        return len(data)


class Counted(io.RawIOBase):
    """A stream that counts what was read of it: `count` bytes."""

    def __init__(self, inner: BinaryIO) -> None:
        super().__init__()
        self.inner, self.count = inner, 0

    def readable(self) -> bool:
        """True: it reads."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with what comes next; returns how many bytes, 0 at the end."""
        data = self.inner.read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)


class Bounded(io.RawIOBase):
    """A decompressed stream that may not become much more than the `raw` one it is made of."""

    def __init__(self, inner: Any, raw: Counted) -> None:
        super().__init__()
        self.inner, self.raw, self.count = inner, raw, 0

    @property
    def cut(self) -> bool:
        """Whether it broke off."""
        return bool(getattr(self.inner, "cut", False))

    def readable(self) -> bool:
        """True: it reads."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with what comes next; returns how many bytes, 0 at the end.

        Raises Defect("too_many_bytes") where it has become more than MAX_EXPANSION times its size.
        """
        data = self.inner.read(min(len(buffer), STEP))
        buffer[: len(data)] = data
        self.count += len(data)
        if self.count > UNSUSPECTED and self.count > MAX_EXPANSION * self.raw.count:
            raise Defect("too_many_bytes", f"{self.raw.count:,} bytes become over {self.count:,}")
        return len(data)


class DecompressedStream(io.RawIOBase):
    """What is in a gzip (of one or many members), bzip2 or xz stream, read in order.

    A stream cut off in the middle gives all that came before the cut, ends, and sets `cut`: the
    readers of the standard library raise, and throw away what they had.
    """

    def __init__(self, raw: Any, kind: str) -> None:
        super().__init__()
        self.raw, self.kind = raw, kind
        self.inner: Any = None
        self.begun = False
        self.cut = False
        self.hungry = True
        self.held = b""
        self.block = self.ready = memoryview(b"")

    def readable(self) -> bool:
        """True: it reads."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with what comes next, however little; returns how many bytes, 0 at the end.

        Raises zlib.error, OSError or lzma.LZMAError where it is no such stream.
        """
        while not len(self.ready):
            if not self._advance():
                return 0
        count = min(len(buffer), len(self.ready))
        buffer[:count] = self.ready[:count]
        self.ready = self.ready[count:]
        return count

    def _piece(self) -> bytes:
        """The next compressed bytes, empty at the end."""
        if not self.held:
            if not len(self.block):
                self.block = memoryview(self.raw.read(BLOCK))
            self.held, self.block = bytes(self.block[:FEED]), self.block[FEED:]
        piece, self.held = self.held, b""
        return piece

    def _advance(self) -> bool:
        """Some more is ready, at most STEP bytes; false at the end."""
        while self.inner is None:
            piece = self._piece()
            if not piece:
                return False
            self.held = piece.lstrip(b"\0") if self.begun else piece
            if self.held:
                self.inner, self.begun, self.hungry = decompressor(self.kind), True, True
        piece = b"" if self.kind != "gz" else self.inner.unconsumed_tail
        if self.hungry and not piece:
            piece = self._piece()
            if not piece:
                self.cut = True
                return False
        made = self.inner.decompress(piece, STEP)
        self.ready = memoryview(made)
        self.hungry = len(made) < STEP if self.kind == "gz" else self.inner.needs_input
        if self.inner.eof:
            self.held, self.inner = self.inner.unused_data, None
        return True


class TailedStream(io.RawIOBase):
    """A stream that remembers the end of what was last read: `last`, at most 512 bytes."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.last = inner, b""

    def readable(self) -> bool:
        """True: it reads."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with what comes next; returns how many bytes, 0 at the end."""
        data = self.inner.read(len(buffer))
        buffer[: len(data)] = data
        self.last = (self.last + data)[-512:]
        return len(data)


def decompressor(kind: str) -> Any:
    """A fresh decompressor."""
    if kind == "bz2":
        return bz2.BZ2Decompressor()
    if kind == "xz":
        return lzma.LZMADecompressor(memlimit=XZ_MEMORY)
    return zlib.decompressobj(wbits=31)


def decompressed(raw: BinaryIO, kind: str) -> Any:
    """What is inside `raw`, as a stream; `kind` is a file name's last extension."""
    counted = Counted(raw)
    if kind in ("gz", "tgz", "bz2", "xz"):
        return Bounded(DecompressedStream(counted, "gz" if kind == "tgz" else kind), counted)
    if kind == "zst":
        import pyarrow as pa

        inner = pa.CompressedInputStream(pa.PythonFile(counted, mode="r"), "zstd")
        return Bounded(inner, counted)
    return raw


def lines(stream: Any, limit: int) -> Iterator[bytes]:
    """The lines of a stream, as they come; one above `limit` bytes is cut into several."""
    waiting: list[bytes] = []
    held = 0
    while block := stream.read(BLOCK):
        first, *others = block.split(b"\n")
        waiting.append(first)
        held += len(first)
        if others:
            yield from stretches(b"".join(waiting), limit)
            for line in others[:-1]:
                yield from stretches(line, limit)
            waiting, held = [others[-1]], len(others[-1])
        elif held > limit + BLOCK:
            whole = b"".join(waiting)
            yield whole[:limit]
            waiting, held = [whole[limit:]], held - limit
    if held:
        yield from stretches(b"".join(waiting), limit)


def stretches(line: bytes, limit: int) -> Iterator[bytes]:
    """The line, or stretches of `limit` bytes of it."""
    if len(line) <= limit:
        yield line
        return
    for start in range(0, len(line), limit):
        yield line[start : start + limit]
