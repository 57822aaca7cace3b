"""What stands for files in fingerprints and ids: what is in them, not what they are called.

| files                                | stands for each                                           |
|--------------------------------------|-----------------------------------------------------------|
| on the hub                           | the hub's content id                                      |
| in another store                     | size and ETag                                             |
| here, together at most WHOLE bytes   | size and a hash of all of it                              |
| here, more                           | size, a hash of its ends and of stretches between them;   |
|                                      | in fingerprints the time of its last change besides       |

So rows have the same ids and results where their file was moved, renamed or copied.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

from pipelines.reading.files import File, is_url

WHOLE = 256 << 20
"""Bytes of a subset's files, up to which all of them are read at planning: about half a second."""
END = 64 << 10
STRETCH = 4 << 10
STRETCHES = 62
"""Of a larger file: bytes at each end, and of so many stretches, evenly between."""


def contents(files: Sequence[File]) -> tuple[str, ...]:
    """What is in each file, as a short text."""
    whole = sum(file.size for file in files) <= WHOLE
    return tuple(content(file, whole=whole) for file in files)


def content(file: File, *, whole: bool) -> str:
    """The same of one; `whole`: all of it is read."""
    if is_url(file.url):
        return f"{file.size}-{file.stamp}"
    return f"{file.size}-{hashed(file.url, file.size, file.stamp, whole)}"


def changed(files: Sequence[File]) -> list[str]:
    """What a fingerprint must know besides, of files not read whole: when they changed."""
    if sum(file.size for file in files) <= WHOLE:
        return []
    return [file.stamp for file in files if not is_url(file.url)]


@lru_cache(maxsize=1 << 14)
def hashed(path: str, size: int, stamp: str, whole: bool) -> str:
    """24 hex digits of the file's content, or of parts of it; `stamp`: when it last changed."""
    digest = blake2b(digest_size=12)
    with Path(path).open("rb") as stream:
        if whole or size <= 2 * END + STRETCHES * STRETCH:
            while block := stream.read(1 << 20):
                digest.update(block)
        else:
            digest.update(stream.read(END))
            for number in range(1, STRETCHES + 1):
                stream.seek(number * size // (STRETCHES + 1))
                digest.update(stream.read(STRETCH))
            stream.seek(size - END)
            digest.update(stream.read(END))
    return digest.hexdigest()


def digest(listing: object) -> str:
    """16 hex digits of a listing."""
    return blake2b(repr(listing).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
