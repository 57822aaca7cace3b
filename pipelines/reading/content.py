"""What the hub says a file holds, compared with what is read of it.

The hub states SHA-256 of each file that it keeps in LFS or Xet, which all large ones are, and `hf
download` leaves it beside a local copy. A file that is read from start to end is compared; of one
that is read here and there nothing is known but what it says itself (the checksums of Parquet's
pages, of a zip's members).
"""

import hashlib
import io
import re
from pathlib import Path
from typing import Any

from pipelines.engine.tables import FileError

WHOLE_BYTES = 128 << 20
"""A file that is wanted whole and no larger is fetched whole, so that it can be compared."""


class ContentError(FileError):
    """A file does not hold what the hub says it holds."""


class Verified(io.RawIOBase):
    """The file behind `inner`; once every byte was read, in order, it is what `content` says.

    Raises ContentError with the last of the bytes where it is not.
    """

    def __init__(self, inner: Any, *, url: str, size: int, content: str) -> None:
        super().__init__()
        self.inner, self.url, self.size, self.content = inner, url, size, content
        self.hash = hashlib.sha256() if re.fullmatch(r"[0-9a-f]{64}", content) else None
        self.position = self.hashed = 0

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
        self.position = int(self.inner.seek(offset, whence))
        return self.position

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from the position; returns how many bytes, 0 at the end."""
        count = self.inner.readinto(buffer) or 0
        new = self.position + count - self.hashed
        if self.hash is not None and 0 < new <= count:
            self.hash.update(memoryview(buffer)[count - new : count])
            self.hashed += new
            if self.hashed == self.size and self.hash.hexdigest() != self.content:
                raise ContentError(
                    f"{self.url}: its {self.size:,} bytes are not those that the hub states "
                    f"(SHA-256 {self.hash.hexdigest()}, stated {self.content}).\n"
                    "way out: fetch the "
                    "file again; where it comes from a mirror or proxy, that one holds another."
                )
        self.position += count
        return count

    def close(self) -> None:
        """The file is closed."""
        self.inner.close()
        super().close()


def refuse_other(path: Path, *, url: str, content: str) -> None:
    """Raises ContentError where the file at `path` does not hold what `content` says."""
    size = path.stat().st_size
    with Verified(path.open("rb", buffering=0), url=url, size=size, content=content) as stream:
        buffer = bytearray(1 << 20)
        while stream.readinto(buffer):
            pass


def stated(root: Path, name: str) -> str:
    """The hash that `hf download --local-dir root` left of the file `name`; else nothing."""
    file = root / ".cache" / "huggingface" / "download" / f"{name}.metadata"
    try:
        lines = file.read_text().splitlines()
    except (OSError, ValueError):
        return ""
    return lines[1].strip().strip('"') if len(lines) > 1 else ""
