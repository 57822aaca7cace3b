"""Where the media of a row lie: folders and archives, looked up by relative path.

Paths come out of annotation files and archives that anyone may have written: an absolute path that
is not below a media root, or one with `..`, is never followed (`unsafe_path`). Sizes are bounded
before anything is read.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pipelines.sources.files import exists, is_url, open_file
from pipelines.sources.sample import Defect


def relative(path: str, roots: Sequence[str]) -> str:
    """`path` as a clean relative one; raises Defect("unsafe_path") where it leaves its root."""
    clean = PurePosixPath(path.replace("\\", "/"))
    for root in roots:
        if clean.is_absolute() and not is_url(root) and clean.is_relative_to(root):
            clean = clean.relative_to(root)
    parts = [part for part in clean.parts if part != "."]
    if clean.is_absolute() or ".." in parts or not parts or "\0" in path:
        raise Defect("unsafe_path", path[:200])
    return "/".join(parts)


class Media:
    """The media of a part, opened as they are needed; `close` when done."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.roots: list[str] = list(spec.get("roots", ()))

    def place(self, path: str) -> str:
        """The URL of the file; raises Defect("missing_media") where there is none."""
        name = relative(path, self.roots)
        for root in self.roots:
            url = f"{root}/{name}"
            if exists(url):
                return url
        raise Defect("missing_media", path[:200])

    def read(self, path: str, limit: int) -> bytes:
        """The file's bytes, at most `limit`."""
        with open_file(self.place(path)) as stream:
            data = stream.read(limit + 1)
        if len(data) > limit:
            raise Defect("too_many_bytes", path[:200])
        return data

    def local(self, path: str) -> Path | None:
        """The file on this machine's disk, where it lies there as it is; else null."""
        place = self.place(path)
        return None if is_url(place) else Path(place)

    def close(self) -> None:
        """Archives are closed."""
