"""What a video file's first bytes and its own structure say, before FFmpeg sees any of it.

FFmpeg would choose among 300 formats by looking at the bytes, and some of those open sockets and
other files (SDP, HLS, image patterns). It is told instead: `kind_of` knows the containers that are
read, by how they begin; everything else is no video.

| container      | where it states its length, `Layout.seconds`               | its end           |
|----------------|------------------------------------------------------------|-------------------|
| MP4, MOV, 3GP  | `moov/mvhd`, else `moov/mvex/mehd`: FFmpeg corrects it     | known             |
| Matroska, WebM | Segment/Info/Duration, handed on by FFmpeg as it stands    | known, not streams|
| ASF, WMV       | the File Properties Object                                 | known             |
| RealMedia      | the chunk PROP                                             | known             |
| FLV            | `duration` in onMetaData                                   | unknown           |
| AVI            | the stream header, handed on; the frames of its table count| unknown           |
| others         | nowhere: FFmpeg's estimates are no claim                   | unknown           |

`complete` tells a header that lies from a download that broke off; `unread` how many
films lie behind what FFmpeg reads. Sizes come out of the file: every walk is bounded.
"""

import io
import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

ISO, MATROSKA, ASF, FLV, REAL, MXF = "mov", "matroska", "asf", "flv", "rm", "mxf"
ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
MXF_HEADER = bytes.fromhex("060e2b34020501010d0102010102")
BEGINS: tuple[tuple[int, bytes, str], ...] = (
    *((4, name, ISO) for name in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp")),
    (0, b"\x1a\x45\xdf\xa3", MATROSKA),
    (8, b"AVI ", "avi"),
    (0, b"FLV\x01", FLV),
    (0, ASF_HEADER, ASF),
    (0, b"\0\0\1\xba", "mpeg"),
    (8, b"CDXA", "mpeg"),
    (0, b"\0\0\1\xb3", "mpegvideo"),
    (0, b"\0\0\1\xb0", "m4v"),
    (0, b".RMF", REAL),
    (0, b"OggS", "ogg"),
    (0, b"GIF8", "gif"),
    (0, MXF_HEADER, MXF),
    (0, b"\x1f\x07\0", "dv"),
)
"""(offset, bytes there, FFmpeg's demuxer): every container that is read, besides MPEG-TS."""
TS_PACKETS = (188, 192, 204)
"""Bytes of a transport packet, alone, behind a time code, before a checksum."""
TS_SYNCS = 5
"""Packets in a row that must begin with 0x47."""
MAX_STEPS = 1_000_000
"""Boxes, tags and elements that are looked at in one file."""
MATROSKA_HEADER = re.compile(
    rb"\x1a\x45\xdf\xa3[\x01-\xff].{0,48}?\x42\x82.{1,8}?(?:webm|matroska)", re.S
)
MATROSKA_HEADER_BYTES = 64
CHUNK = 1 << 20
PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
"""The File Properties Object (ASF specification, 3.2), and behind GUID and size: file id (16),
file size, creation date, data packets, play duration (100 ns), send duration, preroll (ms)."""


class Encoded(Protocol):
    """Bytes that are read from wherever one stands."""

    def read(self, count: int = -1, /) -> bytes:
        """At most `count` bytes, all that are left without a count."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Where one stands afterwards."""

    def tell(self) -> int:
        """Where one stands."""


@dataclass(frozen=True)
class Layout:
    """What a file's structure says."""

    seconds: float | None = None
    """s that its header promises; null where it promises nothing."""
    complete: bool | None = None
    """Whether all bytes are there that the structure announces; null: it announces none."""
    unread: int = 0
    """Films behind those that FFmpeg gets to: it takes the first of a file, of Matroska two."""


def kind_of(stream: Encoded) -> str | None:
    """FFmpeg's name of the container that begins like this; null where it is none that is read."""
    stream.seek(0)
    head = stream.read(8 * 204)
    for offset, begins, kind in BEGINS:
        if head.startswith(begins, offset):
            return kind
    return "mpegts" if any(is_transport(head, size) for size in TS_PACKETS) else None


def is_transport(head: bytes, size: int) -> bool:
    """Transport packets of `size` bytes lie behind each other in `head`, from whichever byte."""
    return any(head[at::size][:TS_SYNCS] == b"\x47" * TS_SYNCS for at in range(size))


def layout_of(stream: Encoded, kind: str) -> Layout:
    """What the structure of a file of this kind says."""
    read = LAYOUTS.get(kind)
    if read is None:
        return Layout()
    end = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    return read(stream, end)


def iso_layout(stream: Encoded, end: int) -> Layout:
    """Of MP4 and its family: ISO/IEC 14496-12, 4.2, 8.2.2 and 8.8.2; numbers are big-endian."""
    seconds, films, at = None, 0, 0
    for _ in range(MAX_STEPS):
        if at >= end:
            break
        stream.seek(at)
        name, start, stop = box(stream, end)
        if not name:
            break
        if name == b"moov":
            films += 1
            seconds = seconds or movie_seconds(stream, start, min(stop, end))
        at = stop
    return Layout(seconds, at <= end if at else None, max(0, films - 1))


def box(stream: Encoded, end: int) -> tuple[bytes, int, int]:
    """(name, where its content begins, where it ends) of the box here; no name: there is none."""
    at = stream.tell()
    head = stream.read(8)
    if len(head) < 8 or at + 8 > end:
        return b"", at, at
    size, start = int.from_bytes(head[:4], "big"), at + 8
    if size == 1:
        size, start = int.from_bytes(stream.read(8), "big"), at + 16
    stop = end if size == 0 else at + size
    return (head[4:], start, stop) if stop >= start else (b"", at, at)


def inside(stream: Encoded, names: tuple[bytes, ...], start: int, end: int) -> bool:
    """The stream stands at the content of the box that `names` lead to, if there is one."""
    for name in names:
        at = start
        for _ in range(MAX_STEPS):
            stream.seek(at)
            found, start, stop = box(stream, end)
            if found in (name, b""):
                break
            at = stop
        if found != name:
            return False
        end = min(stop, end)
    stream.seek(start)
    return True


def movie_seconds(stream: Encoded, start: int, end: int) -> float | None:
    """The duration in a movie header, s; that of all fragments where it says 0 or nothing."""
    if not inside(stream, (b"mvhd",), start, end):
        return None
    wide = 8 if stream.read(4)[:1] == b"\1" else 4  # the version, and 3 bytes of flags
    fields = stream.read(2 * wide + 4 + wide)  # created, modified, units a second, duration
    if len(fields) < 3 * wide + 4:
        return None
    units = int.from_bytes(fields[2 * wide : 2 * wide + 4], "big")
    length = int.from_bytes(fields[2 * wide + 4 :], "big")
    if length == 0 and inside(stream, (b"mvex", b"mehd"), start, end):
        wide = 8 if stream.read(4)[:1] == b"\1" else 4
        length = int.from_bytes(stream.read(wide), "big")
    unknown = length in (0, (1 << 8 * wide) - 1)
    return None if unknown or not units else length / units


def matroska_layout(stream: Encoded, end: int) -> Layout:
    """Of Matroska and WebM (RFC 9559, RFC 8794): by the size of the segment, and by how often a
    header begins anywhere, since a streamed segment has no size.
    """
    at, complete = 0, None
    for _ in range(MAX_STEPS):
        stream.seek(at)
        mark = element_number(stream, keeps_marker=True)
        size = element_number(stream, keeps_marker=False)
        if mark is None or size is None:
            break
        number, length = size
        if number == (1 << 7 * length) - 1:  # unknown: it was streamed
            complete = None
            break
        at = stream.tell() + number
        complete = at <= end
        if at >= end:
            break
    stream.seek(0)
    films, before = 0, b""
    while part := stream.read(CHUNK):
        films += len(MATROSKA_HEADER.findall(before + part))
        before = part[-MATROSKA_HEADER_BYTES:]
    return Layout(complete=complete, unread=max(0, films - 2))


def element_number(stream: Encoded, *, keeps_marker: bool) -> tuple[int, int] | None:
    """(EBML's number of variable length here, its length in bytes)."""
    first = stream.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    rest = stream.read(length - 1)
    if len(rest) < length - 1:
        return None
    value = first[0] if keeps_marker else first[0] & ((1 << (8 - length)) - 1)
    return int.from_bytes(bytes([value]) + rest, "big"), length


def asf_layout(stream: Encoded, end: int) -> Layout:
    """Of ASF and WMV, by its header and the sizes of its objects; numbers are little-endian."""
    at, films, complete = 0, 0, None
    seconds: float | None = None
    for _ in range(MAX_STEPS):
        if at >= end:
            break
        stream.seek(at)
        head = stream.read(24)
        if len(head) < 24:
            break
        size = int.from_bytes(head[16:], "little")
        if head.startswith(ASF_HEADER):
            films += 1
            seconds = seconds or asf_seconds(stream.read(min(size, 1 << 20)))
        if size < 24:
            break
        at += size
        complete = at <= end
    return Layout(seconds, complete, max(0, films - 1))


def asf_seconds(header: bytes) -> float | None:
    """The play duration less the preroll, s; null where the header lacks it."""
    at = header.find(PROPERTIES)
    fields = header[at + 24 + 40 : at + 24 + 64] if at >= 0 else b""
    if len(fields) < 24:
        return None
    played, _, preroll = struct.unpack("<3Q", fields)
    return max(0.0, played / 1e7 - preroll / 1e3) or None


def flv_layout(stream: Encoded, end: int) -> Layout:
    """Of FLV, by its tags (Adobe Flash Video File Format Specification 10.1, E.2 to E.4)."""
    stream.seek(0)
    head = stream.read(9)
    at, films, seconds = int.from_bytes(head[5:9], "big") + 4, 1, None
    for number in range(MAX_STEPS):
        stream.seek(at)
        tag = stream.read(11)
        if len(tag) < 11:
            break
        if tag.startswith(b"FLV\x01"):
            films += 1
            at += int.from_bytes(tag[5:9], "big") + 4
            continue
        size = int.from_bytes(tag[1:4], "big")
        if tag[0] == 18 and number < 10:
            seconds = seconds or meta_seconds(stream.read(size))
        at += 11 + size + 4
    return Layout(seconds, None, films - 1)


def meta_seconds(script: bytes) -> float | None:
    """The number called `duration` in a script tag (AMF 0), s."""
    name = b"\0\x08duration\0"
    at = script.find(name)
    number = script[at + len(name) : at + len(name) + 8] if at >= 0 else b""
    seconds = struct.unpack(">d", number)[0] if len(number) == 8 else 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def real_layout(stream: Encoded, end: int) -> Layout:
    """Of RealMedia, by its chunks: name, size, version, content; numbers are big-endian."""
    at, complete, seconds = 0, None, None
    for _ in range(MAX_STEPS):
        stream.seek(at)
        head = stream.read(34)
        size = int.from_bytes(head[4:8], "big")
        if len(head) < 10 or size < 10:
            break
        if head.startswith(b"PROP"):  # five numbers, then the duration in ms
            seconds = int.from_bytes(head[30:34], "big") / 1000 or None
        at += size
        complete = at <= end
    return Layout(seconds, complete)


def mxf_layout(stream: Encoded, end: int) -> Layout:
    """Of MXF, by its keys and lengths (SMPTE 336M): how often a header partition begins."""
    films = 0
    for _ in range(MAX_STEPS):
        head = stream.read(17)
        if len(head) < 17:
            break
        films += head.startswith(MXF_HEADER)
        wide = head[16] & 0x7F if head[16] & 0x80 else 0
        length = int.from_bytes(stream.read(wide), "big") if wide else head[16]
        if stream.tell() + length >= end:
            break
        stream.seek(length, io.SEEK_CUR)
    return Layout(unread=max(0, films - 1))


LAYOUTS: dict[str, Callable[[Encoded, int], Layout]] = {
    ISO: iso_layout, MATROSKA: matroska_layout, ASF: asf_layout, FLV: flv_layout,
    REAL: real_layout, MXF: mxf_layout,
}  # fmt: skip
