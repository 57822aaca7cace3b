"""Pointers of git-lfs: a clone without git-lfs has these few lines where the files should be."""

from collections.abc import Iterable
from pathlib import Path

from pipelines.reading.files import File, is_url
from pipelines.sources.sample import Defect

HEAD = b"version https://git-lfs.github.com/spec/"
"""How a pointer begins: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md."""
LARGEST = 1024
"""Bytes; the specification's own bound of a pointer."""


def is_pointer(data: bytes) -> bool:
    """Whether this is what lies in a file's place."""
    return len(data) < LARGEST and data.startswith(HEAD)


def is_pointer_file(path: str | Path, size: int) -> bool:
    """The same of a file on this disk."""
    if not 0 < size < LARGEST:
        return False
    with Path(path).open("rb") as stream:
        return is_pointer(stream.read(LARGEST))


def refuse_pointers(files: Iterable[File], *, where: str) -> None:
    """Raises ValueError where files of rows are pointers."""
    found = [f.url for f in files if not is_url(f.url) and is_pointer_file(f.url, f.size)]
    if found:
        more = f" and {len(found) - 1:,} more" if len(found) > 1 else ""
        raise ValueError(
            f"{where}: {found[0]}{more} holds a pointer of git-lfs, not the file itself\n"
            "way out: run `git lfs pull` in the clone, or fetch the repository with `hf download`"
        )


def refuse_pointer(data: bytes) -> None:
    """Raises Defect where these bytes of a medium are a pointer."""
    if is_pointer(data):
        raise Defect("missing_media", "a pointer of git-lfs lies in its place: run git lfs pull")
