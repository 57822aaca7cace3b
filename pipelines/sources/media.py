"""Where the media of a row lie: folders and archives, looked up by relative path.

Paths come out of annotation files and archives that anyone may have written: an absolute path that
is not below a media root, or one with `..`, is never followed (`unsafe_path`). Sizes are bounded
before anything is read.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pipelines.sources.archives import Archive, Members, key_of
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
    """The media of a part, opened as they are needed; `close` when done.

    Looked up in order: what was put at hand (members of the archive being read), the folders, the
    archives that can be read at random.
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.roots: list[str] = list(spec["roots"])
        self.archives: list[Archive] = list(spec["archives"])
        self.at_hand: dict[int, bytes | Defect] = {}
        self._members: Members | None = None

    @property
    def members(self) -> Members:
        """The members of the archives, listed when first asked for."""
        if self._members is None:
            self._members = Members([a for a in self.archives if not a.streams])
        return self._members

    def loose(self, name: str) -> str | None:
        """The URL of the file in the folders, if there is one."""
        return next((f"{root}/{name}" for root in self.roots if exists(f"{root}/{name}")), None)

    def read(self, path: str, limit: int) -> bytes:
        """The bytes that `path` names, at most `limit`; raises Defect where there are none."""
        name = relative(path, self.roots)
        held = self.at_hand.get(key_of(name))
        if isinstance(held, Defect):
            raise held
        if held is not None:
            return held
        place = self.loose(name)
        if place is not None:
            with open_file(place) as stream:
                data = stream.read(limit + 1)
            if len(data) > limit:
                raise Defect("too_many_bytes", path[:200])
            return data
        found = self.members.find(name)
        if found is not None:
            return self.members.read(found, limit)
        reason = "broken_archive" if self.members.broken else "missing_media"
        raise Defect(reason, path[:200])

    def local(self, path: str) -> Path | None:
        """The file on this machine's disk, where it lies there as it is; else null."""
        name = relative(path, self.roots)
        place = None if key_of(name) in self.at_hand else self.loose(name)
        return None if place is None or is_url(place) else Path(place)

    def close(self) -> None:
        """Archives are closed."""
        if self._members is not None:
            self._members.close()
