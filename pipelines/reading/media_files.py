"""Where the media of a row lie: folders and archives, looked up by relative path.

Paths come out of annotation files and archives that anyone may have written: an absolute path that
is not below a media root, or one with `..`, is never followed (`unsafe_path`). Sizes are bounded
before anything is read.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pipelines.media.frame_folders import Folder
from pipelines.reading.archives import ARCHIVE, DISK, IMAGE, Archive, Members, key_of
from pipelines.reading.files import exists, is_url, open_file
from pipelines.sources.cells import natural_key
from pipelines.sources.sample import Defect


def relative_path(path: str, roots: Sequence[str]) -> str:
    """`path` as a clean relative one; raises Defect("unsafe_path") where it leaves its root."""
    clean = PurePosixPath(path.replace("\\", "/"))
    for root in roots:
        if clean.is_absolute() and not is_url(root) and clean.is_relative_to(root):
            clean = clean.relative_to(root)
    parts = [part for part in clean.parts if part != "."]
    if clean.is_absolute() or ".." in parts or not parts or "\0" in path:
        raise Defect("unsafe_path", path[:200])
    return "/".join(parts)


VIDEO = re.compile(r".*\.(mp4|m4v|mkv|webm|avi|mov|flv|wmv|mpe?g|ts|3gp|ogv|gif)\Z", re.IGNORECASE)
"""A file that is taken for a video by its name."""
OTHER_MEDIA = re.compile(r".*\.(gif|tiff?|pdf|avif|heic|jfif)\Z", re.IGNORECASE)


def is_medium(name: str, *, archives: bool = True) -> bool:
    """Whether a file's name is that of an image, a video, a PDF or (if wanted) an archive."""
    in_the_open = (IMAGE, VIDEO, OTHER_MEDIA)
    wanted = (*in_the_open, ARCHIVE, DISK) if archives else in_the_open
    return any(pattern.match(name) for pattern in wanted)


class Media:
    """The media of a part, opened as they are needed; `close` when done.

    Looked up in order: what was put at hand (members of the archive being read), folders on disk,
    archives that can be read at random, folders elsewhere (where each look is a request).
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.roots: list[str] = list(spec["roots"])
        self.archives: list[Archive] = list(spec["archives"])
        self.at_hand: dict[int, bytes | Defect | Mapping[str, bytes]] = {}
        """By hash of the path: a file, why it is none, or the images of a folder by name."""
        self._members: Members | None = None

    @property
    def members(self) -> Members:
        """The members of the archives, listed when first asked for."""
        if self._members is None:
            self._members = Members([a for a in self.archives if not a.streams])
        return self._members

    def loose(self, name: str, *, remote: bool) -> str | None:
        """Where the file lies in the folders on disk (or the `remote` ones), if it does."""
        roots = (root for root in self.roots if is_url(root) == remote)
        return next((f"{root}/{name}" for root in roots if exists(f"{root}/{name}")), None)

    def read(self, path: str, limit: int) -> bytes:
        """The bytes that `path` names, at most `limit`; raises Defect where there are none."""
        name = relative_path(path, self.roots)
        held = self.at_hand.get(key_of(name))
        if isinstance(held, Defect):
            raise held
        if isinstance(held, bytes):
            return held
        place = self.loose(name, remote=False)
        if place is None and (found := self.members.find(name)) is not None:
            return self.members.read(found, limit)
        place = place or self.loose(name, remote=True)
        if place is None:
            raise Defect("broken_archive" if self.members.broken else "missing_media", path[:200])
        with open_file(place) as stream:
            data = stream.read(limit + 1)
        if len(data) > limit:
            raise Defect("too_many_bytes", path[:200])
        return data

    def local(self, path: str) -> Path | None:
        """The file on this machine's disk, where it lies there as it is; else null."""
        name = relative_path(path, self.roots)
        place = None if key_of(name) in self.at_hand else self.loose(name, remote=False)
        return None if place is None else Path(place)

    def folder(self, path: str, above: str, limit: int) -> Folder | None:
        """The images right below the folder that `path` names, if there are any; each is at most
        `limit` bytes. `above`: as of `Video`.
        """
        name = relative_path(path, self.roots)
        held = self.at_hand.get(key_of(name))
        if isinstance(held, Mapping):
            names = sorted(held, key=natural_key)
            return Folder(tuple(names), lambda n: held[names[n]])
        disk = [root for root in self.roots if not is_url(root)]
        inside = dict.fromkeys(
            [relative_path(f"{above}/{path}", self.roots) if above else name, name]
        )
        for place in (Path(root, folder) for root in disk for folder in inside):
            found = exists(str(place), folder=True)
            if found and (folder := folder_images(place, limit)) is not None:
                return folder
        members = sorted(self.members.folder(name), key=lambda member: natural_key(member[0]))
        if not members:
            return None
        return Folder(
            tuple(base for base, _ in members), lambda n: self.members.read(members[n][1], limit)
        )

    def close(self) -> None:
        """Archives are closed."""
        if self._members is not None:
            self._members.close()


def folder_images(place: Path, limit: int) -> Folder | None:
    """The images right below a folder on disk, if there are any; each at most `limit` bytes."""
    found = [path for path in place.iterdir() if IMAGE.match(path.name)]
    found.sort(key=lambda path: natural_key(path.name))

    def read(number: int) -> bytes:
        with found[number].open("rb") as stream:
            data = stream.read(limit + 1)
        if len(data) > limit:
            raise Defect("too_many_bytes", found[number].name)
        return data

    return Folder(tuple(path.name for path in found), read) if found else None
