"""Byte streams: several files as one; compressed ones that give all they hold before they end."""

import bz2
import io
import lzma
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from pipelines.reading.files import File, open_file

BLOCK = 256 << 10


class JoinedFiles(io.RawIOBase):
    """Several files, one after the other, as one seekable file."""

    def __init__(self, files: Sequence[File], *, scattered: bool = False) -> None:
        super().__init__()
        self.streams = [open_file(file.url, file.size, scattered=scattered) for file in files]
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
        if number == len(self.streams):
            return 0
        start = self.ends[number - 1] if number else 0
        self.streams[number].seek(self.position - start)
        data = self.streams[number].read(min(len(buffer), self.ends[number] - self.position))
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)

    def close(self) -> None:
        """Every file is closed."""
        for stream in self.streams:
            stream.close()
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


class DecompressedStream(io.RawIOBase):
    """What is in a gzip (of one or many members), bzip2 or xz stream, read in order.

    A stream cut off in the middle gives all that came before the cut, ends, and sets `cut`: the
    readers of the standard library raise, and throw away what they had.
    """

    def __init__(self, raw: BinaryIO, kind: str) -> None:
        super().__init__()
        self.raw, self.kind = raw, kind
        self.inner: Any = None
        self.begun = False
        self.cut = False
        self.held = self.ready = b""

    def readable(self) -> bool:
        """True: it reads."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with what comes next, however little; returns how many bytes, 0 at the end.

        Raises zlib.error, OSError or lzma.LZMAError where it is no such stream.
        """
        while not self.ready:
            block = self.held or self.raw.read(BLOCK)
            self.held = b""
            if self.inner is None:
                block = block.lstrip(b"\0") if self.begun else block
                if not block:
                    return 0
                self.inner, self.begun = decompressor(self.kind), True
            elif not block:
                self.cut = True
                return 0
            self.ready = self.inner.decompress(block)
            if self.inner.eof:
                self.held, self.inner = self.inner.unused_data, None
        count = min(len(buffer), len(self.ready))
        buffer[:count] = self.ready[:count]
        self.ready = self.ready[count:]
        return count


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
        return lzma.LZMADecompressor()
    return zlib.decompressobj(wbits=31)


def decompressed(raw: BinaryIO, kind: str) -> Any:
    """What is inside `raw`, as a stream; `kind` is a file name's last extension."""
    if kind in ("gz", "tgz", "bz2", "xz"):
        return DecompressedStream(raw, "gz" if kind == "tgz" else kind)
    if kind == "zst":
        import pyarrow as pa

        return pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")
    return raw


def lines(stream: Any, limit: int) -> Iterator[bytes]:
    """The lines of a stream, as they come; one above `limit` bytes is cut into several."""
    waiting = b""
    while block := stream.read(BLOCK):
        waiting += block
        *whole, waiting = waiting.split(b"\n")
        yield from whole
        while len(waiting) > limit:
            yield waiting[:limit]
            waiting = waiting[limit:]
    if waiting:
        yield waiting
