"""Where the media of a row lie: folders and archives, looked up by relative path.

Paths come out of annotation files and archives that anyone may have written: an absolute path that
is below neither the media's folder nor the data's, or one with `..`, is never followed
(`unsafe_path`). Sizes are bounded before anything is read. A path that fits two files which differ
is `ambiguous_media`; a file without the right to read it `unreadable_media`.
"""

import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from pipelines.media.frame_folders import Folder
from pipelines.reading.archives import ARCHIVE, COMPARED, DISK, IMAGE, Archive, Members
from pipelines.reading.files import exists, is_url, open_file
from pipelines.reading.member_paths import ambiguous, key_of
from pipelines.reading.pointers import LARGEST, refuse_pointer
from pipelines.sources.cells import natural_key
from pipelines.sources.sample import Defect

VIDEO = re.compile(r".*\.(mp4|m4v|mkv|webm|avi|mov|flv|wmv|mpe?g|ts|3gp|ogv|gif)\Z", re.IGNORECASE)
"""A file that is taken for a video by its name."""
OTHER_MEDIA = re.compile(r".*\.(gif|tiff?|pdf|avif|heic|jfif)\Z", re.IGNORECASE)


def relative_path(path: str, roots: Sequence[str]) -> str:
    """`path` as a clean relative one; raises Defect("unsafe_path") where it leaves its root."""
    clean = PurePosixPath(path.removeprefix("file://").replace("\\", "/"))
    for root in roots:
        if clean.is_absolute() and not is_url(root) and clean.is_relative_to(root):
            clean = clean.relative_to(root)
    parts = [part for part in clean.parts if part != "."]
    if clean.is_absolute() and ".." not in parts:
        told = "an absolute path that is not below the media folders: name its folder as media:"
        raise Defect("unsafe_path", told)
    if ".." in parts or not parts or "\0" in path:
        raise Defect("unsafe_path", "a path that leads out of the media folders")
    return "/".join(parts)


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
        places = [*self.roots, *spec.get("own", ())]
        real = [os.path.realpath(place) for place in places if not is_url(place)]
        self.below: list[str] = list(dict.fromkeys([*places, *real]))
        """Where paths in full may lead."""
        self.archives: list[Archive] = list(spec["archives"])
        self.at_hand: dict[int, bytes | Defect | Mapping[str, bytes]] = {}
        """By hash of the path: a file, why it is none, or the images of a folder by name."""
        self._members: Members | None = None
        self.shared = False
        """Whether other parts use the same members, so that they stay open."""

    @property
    def members(self) -> Members:
        """The members of the archives, listed when first asked for."""
        if self._members is None:
            random = tuple(archive for archive in self.archives if not archive.streams)
            self.shared = bool(random) and all(archive.lies_elsewhere for archive in random)
            self._members = (listed_once if self.shared else Members)(random)
        return self._members

    def on_disk(self, path: str) -> str | None:
        """Where the file that `path` names lies in the folders on disk, if it does; raises Defect
        where it may not be seen, or lies in two of them.
        """
        name = relative_path(path, self.below)
        places = [path.removeprefix("file://")] if is_full(path) else []
        places += [f"{root}/{name}" for root in self.roots if not is_url(root)]
        found = list(dict.fromkeys(place for place in places if is_there(place)))
        if is_full(path):
            return found[0] if found else None
        if len(found) > 1 and not all(alike(found[0], other) for other in found[1:]):
            raise ambiguous(path, found)
        return found[0] if found else None

    def elsewhere(self, name: str) -> str | None:
        """Where the file lies in the folders that are no disk's, if it does."""
        roots = (root for root in self.roots if is_url(root))
        return next((f"{root}/{name}" for root in roots if exists(f"{root}/{name}")), None)

    def read(self, path: str, limit: int) -> bytes:
        """The bytes that `path` names, at most `limit`; raises Defect where there are none."""
        name = relative_path(path, self.below)
        place = self.on_disk(path)
        held = self.at_hand.get(key_of(name))
        if isinstance(held, Defect):
            raise held
        if isinstance(held, bytes):
            if place is not None and not same_bytes(place, held):
                raise ambiguous(path, [place, "a member of an archive"])
            return held
        member = None if is_full(path) and place else self.members.find(name)
        if member is not None:
            if place is not None and not self.unpacked(place, member):
                raise ambiguous(path, [place, "a member of an archive"])
            if place is None:
                return self.members.read(member, limit)
        place = place or self.elsewhere(name)
        if place is None:
            if self.members.broken:
                raise Defect(
                    "broken_archive", f"no such file but perhaps in {self.members.broken[0]}"
                )
            raise Defect("missing_media", "no such file below the media folders")
        return read_file(place, path, limit)

    def unpacked(self, place: str, member: tuple[int, Any]) -> bool:
        """Whether the file on disk is what the member of an archive holds."""
        if Path(place).stat().st_size != self.members.size(member):
            return False
        return self.members.head(member) == read_file(place, place, None)

    def local(self, path: str) -> Path | None:
        """The file on this machine's disk, where it lies there as it is; else null."""
        name = relative_path(path, self.below)
        if key_of(name) in self.at_hand or (place := self.on_disk(path)) is None:
            return None
        member = None if is_full(path) else self.members.find(name)
        if member is not None and not self.unpacked(place, member):
            raise ambiguous(path, [place, "a member of an archive"])
        check_right(place)
        return Path(place)

    def folder(self, path: str, above: str, limit: int) -> Folder | None:
        """The images right below the folder that `path` names, if there are any; each is at most
        `limit` bytes. `above`: as of `Video`.
        """
        name = relative_path(path, self.below)
        held = self.at_hand.get(key_of(name))
        if isinstance(held, Mapping):
            names = sorted(held, key=natural_key)
            return Folder(tuple(names), lambda n: held[names[n]])
        disk = [root for root in self.roots if not is_url(root)]
        inside = dict.fromkeys(
            [relative_path(f"{above}/{name}", self.below) if above else name, name]
        )
        for place in (Path(root, folder) for root in disk for folder in inside):
            if is_folder(place) and (folder := folder_images(place, limit)) is not None:
                return folder
        members = sorted(self.members.folder(name), key=lambda member: natural_key(member[0]))
        if not members:
            return None
        return Folder(
            tuple(base for base, _ in members), lambda n: self.members.read(members[n][1], limit)
        )

    def close(self) -> None:
        """Archives are closed, but those of the hub."""
        if self._members is not None and not self.shared:
            self._members.close()


listed_once = lru_cache(maxsize=1)(Members)
"""The members of archives on the hub, whose directories a process fetches once, not at every part:
nothing is open of them but what was fetched last."""


def folder_images(place: Path, limit: int) -> Folder | None:
    """The images right below a folder on disk, if there are any; each at most `limit` bytes."""
    try:
        found = [path for path in place.iterdir() if IMAGE.match(path.name) and path.is_file()]
    except OSError as error:
        raise Defect("unreadable_media", f"{place}: {error.strerror}") from error
    found = [path for path in found if not path.name.startswith(".")]
    found.sort(key=lambda path: natural_key(path.name))

    def read(number: int) -> bytes:
        return read_file(str(found[number]), found[number].name, limit)

    return Folder(tuple(path.name for path in found), read) if found else None


def is_full(path: str) -> bool:
    """Whether the path is from the root of a file system."""
    return path.removeprefix("file://").startswith("/")


def is_folder(place: Path) -> bool:
    """Whether a folder lies at the place on disk; False where that may not be seen."""
    try:
        return place.is_dir()
    except OSError:
        return False


def is_there(place: str) -> bool:
    """Whether a file lies at the place on disk; raises Defect where that may not be seen."""
    try:
        return Path(place).is_file()
    except PermissionError as error:
        raise Defect("unreadable_media", f"{place}: {error.strerror}") from error
    except (OSError, ValueError) as error:  # a name too long, or one that no file can have
        raise Defect("missing_media", f"{place[:200]}: {error}") from error


def check_right(place: str) -> None:
    """Raises Defect where the file on disk may not be read, or is not there but for a pointer."""
    try:
        with Path(place).open("rb") as stream:
            refuse_pointer(stream.read(LARGEST))
    except PermissionError as error:
        raise Defect("unreadable_media", f"{place}: {error.strerror}") from error


def read_file(place: str, path: str, limit: int | None) -> bytes:
    """The bytes of the file, at most `limit`; null: the first COMPARED, however many it has."""
    try:
        with open_file(place) as stream:
            data = stream.read(COMPARED if limit is None else limit + 1)
    except PermissionError as error:
        raise Defect("unreadable_media", f"{place}: {error.strerror}") from error
    if limit is not None:
        refuse_pointer(data)
        if len(data) > limit:
            raise Defect("too_many_bytes", f"more than {limit:,} bytes")
    return data


def alike(one: str, other: str) -> bool:
    """Whether two files hold the same, as far as sizes and their first COMPARED bytes say."""
    if Path(one).samefile(other):
        return True
    if Path(one).stat().st_size != Path(other).stat().st_size:
        return False
    return read_file(one, one, None) == read_file(other, other, None)


def same_bytes(place: str, data: bytes) -> bool:
    """Whether the file holds `data`, as far as its size and first COMPARED bytes say."""
    if Path(place).stat().st_size != len(data):
        return False
    return read_file(place, place, None) == data[:COMPARED]
