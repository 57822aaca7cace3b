"""What a video file says about its own length, which may be far from what it holds.

| container        | where it says so                                                             |
|------------------|------------------------------------------------------------------------------|
| MP4, MOV, 3GP    | `moov/mvhd`, read here: FFmpeg corrects it by the sample table when it opens |
| Matroska, WebM   | Segment/Info/Duration, which FFmpeg hands on as it stands                    |
| AVI, FLV, ASF    | stream or file header, handed on likewise                                    |
| others           | nowhere: FFmpeg estimates from timestamps or the bit rate, which is no claim |
"""

import io
from pathlib import Path
from typing import BinaryIO

HANDED_ON = {"matroska,webm", "avi", "flv", "asf"}
"""FFmpeg's names of the containers whose `duration` is what the file says."""
ISO_MEDIA = "mov,mp4,m4a,3gp,3g2,mj2"
"""FFmpeg's name of the family of MP4."""
MAX_BOXES = 1000
"""Boxes looked at on one level: `moov` is among the first, or behind the one `mdat`."""


def stated_seconds(data: bytes | str, *, container: str, duration: float | None) -> float | None:
    """The length in s that the file's header states; null where it states none.

    `data`: its bytes or path; `container` and `duration` (s) are FFmpeg's.
    """
    if container == ISO_MEDIA:
        with io.BytesIO(data) if isinstance(data, bytes) else Path(data).open("rb") as stream:
            return movie_header(stream)
    return duration if container in HANDED_ON and duration else None


def movie_header(stream: BinaryIO) -> float | None:
    """The duration in `moov/mvhd`, s; null where there is none (a fragmented file says 0).

    ISO/IEC 14496-12, sections 4.2 and 8.2.2; all numbers are big-endian.
    """
    end = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    for name in (b"moov", b"mvhd"):
        found = find_box(stream, name, end)
        if found is None:
            return None
        end = found
    version = stream.read(4)[:1]  # and 3 bytes of flags
    wide = 8 if version == b"\1" else 4
    fields = stream.read(2 * wide + 4 + wide)  # created, modified, units a second, duration
    if len(fields) < 3 * wide + 4:
        return None
    units = int.from_bytes(fields[2 * wide : 2 * wide + 4], "big")
    length = int.from_bytes(fields[2 * wide + 4 :], "big")
    unknown = length in (0, (1 << 8 * wide) - 1)
    return None if unknown or not units else length / units


def find_box(stream: BinaryIO, name: bytes, end: int) -> int | None:
    """Where the box `name` ends, the stream standing at its content; null: none before `end`."""
    for _ in range(MAX_BOXES):
        start = stream.tell()
        head = stream.read(8)
        if len(head) < 8 or start + 8 > end:
            return None
        size, header = int.from_bytes(head[:4], "big"), 8
        if size == 1:
            size, header = int.from_bytes(stream.read(8), "big"), 16
        stop = end if size == 0 else start + size
        if head[4:] == name:
            return min(stop, end)
        if stop < start + header:
            return None
        stream.seek(stop)
    return None
