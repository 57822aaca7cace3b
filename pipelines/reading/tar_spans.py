"""Where the samples of an uncompressed local tar begin, from its headers alone.

    tar --a seek per member--> starts [samples] --spans--> start, stop, first, samples

A part then reads its stretch of bytes and nothing else. A tar that is not sound to its end, or of
which a header says something of all members after it, is read whole, as one on the hub is: there
each header would be a request.
"""

import tarfile
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mixtures.annotated import KEY
from pipelines.reading.archives import Archive, Header, of_archive, open_archive
from pipelines.reading.listings import kept_array
from pipelines.reading.member_paths import hidden, is_twin, stem_and_extension
from pipelines.sources.sample import Defect

SPANS = 1
"""Bumped when the same tar would be cut elsewhere."""
NO_STARTS = np.zeros(0, np.int64)
"""Of a tar that is read whole."""
END = 2 * tarfile.BLOCKSIZE
"""Bytes of zeros that every tar ends in."""


class Span(NamedTuple):
    """Some samples of a tar."""

    start: int
    """Bytes before its first header."""
    stop: int
    first: int
    """Samples before them."""
    samples: int


def can_be_cut(archive: Archive) -> bool:
    """Whether a member can be read without those before it, and that costs no request."""
    return archive.kind == "tar" and not archive.streams


def starts_of(archive: Archive) -> np.ndarray:
    """[samples + 1] int64: where each sample begins, and where the last ends; empty where the tar
    can only be read whole.
    """
    return kept_array(archive, f"spans {SPANS}", lambda: np.array(list(_starts(archive)), np.int64))


def _starts(archive: Archive) -> Iterator[int]:
    found: list[int] = []
    key, seen, end = "", set[str](), 0
    try:
        with (
            of_archive(archive.name),
            open_archive(archive) as stream,
            tarfile.open(fileobj=stream, mode="r:", tarinfo=Header) as tar,
        ):
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # it keeps all: 1 GB a million
                end = member.offset_data + (-(-member.size // 512) * 512 if member.isreg() else 0)
                if tar.pax_headers or member.sparse is not None or end > archive.size:
                    return
                if not member.isreg() or is_twin(member.name) or hidden(member.name):
                    continue
                stem, extension = stem_and_extension(member.name)
                if extension == KEY:
                    return  # it takes the key's place
                if not found or stem != key or extension in seen:
                    found.append(member.offset)
                    key, seen = stem, set()
                seen.add(extension)
            stream.seek(end)
            if not found or len(last := stream.read(END)) < END or last.strip(b"\0"):
                return
    except Defect:
        return
    yield from [*found, end]


def spans(starts: np.ndarray, *, rows: int, num_bytes: int) -> Iterator[Span]:
    """Parts of at most so many samples, and bytes unless one sample has more."""
    count, first = len(starts) - 1, 0
    while first < count:
        within = int(np.searchsorted(starts, starts[first] + num_bytes, side="right")) - 1
        last = min(count, first + rows, max(first + 1, within))
        yield Span(int(starts[first]), int(starts[last]), first, last - first)
        first = last
