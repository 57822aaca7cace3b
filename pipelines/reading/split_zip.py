"""Zips cut into disks (`NAME.z01`, `NAME.z02`, ..., `NAME.zip`), as one zip of one disk.

    z01: PK78 member member mem | z02: ber member | zip: member directory end

The pieces stand one after the other; what would point wrong are the directory's offsets, which
count from the start of the disk that a member begins on. So the directory is read and written anew,
in memory, with offsets from the start of it all: Python's zipfile refuses several disks.

APPNOTE.TXT 6.3.10, sections 4.3.12 to 4.3.16, 4.5.3 and 8 (https://pkware.com/appnote).
"""

import io
import struct
import zipfile
from typing import Any, BinaryIO, cast

END = struct.Struct("<4s4H2LH")
LOCATOR = struct.Struct("<4sLQL")
END64 = struct.Struct("<4sQ2H2L4Q")
ENTRY = struct.Struct("<4s6H3L5H2L")
EXTRA = struct.Struct("<2H")
LARGE, MANY = 0xFFFFFFFF, 0xFFFF
"""What a field of 32 or 16 bits holds whose value is in the extra field or in END64."""
ZIP64 = 1
"""The extra field of sizes and offsets of 64 bits."""


class WithTail(io.RawIOBase):
    """The first `length` bytes of a file, then `tail`."""

    def __init__(self, inner: BinaryIO, length: int, tail: bytes) -> None:
        super().__init__()
        self.inner, self.length, self.tail, self.position = inner, length, tail, 0

    def readable(self) -> bool:
        """True: it reads."""
        return True

    def seekable(self) -> bool:
        """True: it seeks."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; returns the new position."""
        size = self.length + len(self.tail)
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: size}[whence]
        self.position = max(0, base + offset)
        return self.position

    def tell(self) -> int:
        """The position, bytes from the start."""
        return self.position

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with what comes next, of the one or the other; returns how many bytes."""
        left = self.length - self.position
        if left > 0:
            self.inner.seek(self.position)
            data = self.inner.read(min(len(buffer), left))
        else:
            data = self.tail[-left : len(buffer) - left]
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)


def join_disks(stream: BinaryIO, starts: list[int]) -> BinaryIO:
    """The zip whose disks start at `starts` of the stream, as zipfile reads it.

    Raises zipfile.BadZipFile where it is none, or disks are missing.
    """
    disks, directory, size, count = read_directory(stream, starts)
    if disks != len(starts):
        raise zipfile.BadZipFile(f"{len(starts)} of {disks} pieces")
    if directory + size > stream.seek(0, io.SEEK_END):
        raise zipfile.BadZipFile("a directory beyond the end")
    stream.seek(directory)
    entries = stream.read(size)
    made, position = [], 0
    for _ in range(count):
        entry, position = rewrite_entry(entries, position, starts)
        made.append(entry)
    listing = b"".join(made)
    end64 = END64.pack(b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(listing), directory)
    locator = LOCATOR.pack(b"PK\6\7", 0, directory + len(listing), 1)
    end = END.pack(b"PK\5\6", 0, 0, MANY, MANY, LARGE, LARGE, 0)
    whole = WithTail(stream, directory, listing + end64 + locator + end)
    return cast(BinaryIO, io.BufferedReader(whole, buffer_size=64 << 10))


def read_directory(stream: BinaryIO, starts: list[int]) -> tuple[int, int, int, int]:
    """(disks, where the directory starts in the stream, its bytes, its entries)."""
    total = stream.seek(0, io.SEEK_END)
    first = max(0, total - END.size - MANY)
    stream.seek(first)
    last = stream.read()
    at = last.rfind(b"PK\5\6")
    if at < 0 or at + END.size > len(last):
        raise zipfile.BadZipFile("no end of the central directory")
    _, disk, home, _, count, size, offset, _ = END.unpack_from(last, at)
    if MANY in (disk, home, count) or LARGE in (size, offset):
        stream.seek(max(0, first + at - LOCATOR.size))
        mark, disk, place, _ = LOCATOR.unpack(read_exactly(stream, LOCATOR.size))
        if mark != b"PK\6\7":
            raise zipfile.BadZipFile("no end of a 64-bit directory")
        stream.seek(start_of(disk, starts) + place)
        found = END64.unpack(read_exactly(stream, END64.size))
        disk, home, _, count, size, offset = found[4:]
    return disk + 1, start_of(home, starts) + offset, size, count


def rewrite_entry(entries: bytes, position: int, starts: list[int]) -> tuple[bytes, int]:
    """(the entry of the directory at `position`, its offset from the start of all; its end)."""
    if len(entries) < position + ENTRY.size or entries[position : position + 4] != b"PK\1\2":
        raise zipfile.BadZipFile("a broken directory")
    head = list(ENTRY.unpack_from(entries, position))
    name_length, extra_length, comment_length = head[10:13]
    start = position + ENTRY.size
    name = entries[start : start + name_length]
    extra = entries[start + name_length : start + name_length + extra_length]
    end = start + name_length + extra_length + comment_length
    comment = entries[end - comment_length : end]
    kept, wide = split(extra)
    values = {"unpacked": head[9], "packed": head[8], "offset": head[16]}
    for field, value in values.items():  # in this order, those that do not fit
        if value == LARGE:
            values[field], wide = take_number(wide, "<Q")
    disk, wide = take_number(wide, "<L") if head[13] == MANY else (head[13], wide)
    offset = start_of(disk, starts) + values["offset"]
    kept += EXTRA.pack(ZIP64, 24) + struct.pack("<3Q", values["unpacked"], values["packed"], offset)
    head[8] = head[9] = head[16] = LARGE
    head[11], head[13] = len(kept), 0
    return ENTRY.pack(*head) + name + kept + comment, end


def split(extra: bytes) -> tuple[bytes, bytes]:
    """(every extra field but the one of 64 bits, what that one holds)."""
    kept, wide, position = b"", b"", 0
    while position + EXTRA.size <= len(extra):
        kind, length = EXTRA.unpack_from(extra, position)
        end = position + EXTRA.size + length
        if kind == ZIP64:
            wide = extra[position + EXTRA.size : end]
        else:
            kept += extra[position:end]
        position = end
    return kept, wide


def take_number(wide: bytes, kind: str) -> tuple[int, bytes]:
    """(the number at the front, the rest)."""
    size = struct.calcsize(kind)
    if len(wide) < size:
        raise zipfile.BadZipFile("a size or offset is missing")
    return struct.unpack(kind, wide[:size])[0], wide[size:]


def start_of(disk: int, starts: list[int]) -> int:
    """Where a disk starts in the stream."""
    if disk >= len(starts):
        raise zipfile.BadZipFile(f"{len(starts)} pieces, of which number {disk + 1} is named")
    return starts[disk]


def read_exactly(stream: BinaryIO, size: int) -> bytes:
    """So many bytes."""
    data = stream.read(size)
    if len(data) < size:
        raise zipfile.BadZipFile("it breaks off")
    return data
