"""What lies under a local folder: every file once, whatever links lead where.

| met on the way                                            | becomes                              |
|-----------------------------------------------------------|--------------------------------------|
| a file, also behind a link                                | a `Found`                            |
| a link to a folder elsewhere                              | its files, under the link's name     |
| a link to a folder that is walked anyway                  | an alias                             |
| a link to a folder around the root                        | nothing: it leads back               |
| hidden names, macOS' twins (`._x`, `__MACOSX`), our own   | nothing: they are nobody's data      |
| what may not be listed, leads nowhere, is no regular file | a `Unread`, with the reason         |
"""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

FINISHED = {"recipe.json", "shards"}
"""What a finished mixture holds among others."""
EXPORTED = {"export.json", "README.md"}
"""What a mixture that was written for another trainer holds among others."""
CACHE = {"samples", "verdicts", "tokens"}
"""What a build's `work` holds among others."""
MARKS = {".building.json", "CACHEDIR.TAG"}
"""Of a mixture whose build has not ended; of a cache, ours or another's."""


@dataclass(frozen=True)
class Unread:
    """A file or folder that is not read, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class Found:
    """A regular file: its name below the root, which any terminal can show, and its place."""

    name: str
    path: str
    size: int
    stamp: str
    """Modification time, ns."""


@dataclass
class Walk:
    """Everything met under a root."""

    found: list[Found] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)
    aliases: list[tuple[str, str]] = field(default_factory=list)
    """(name of a link, name of the folder that it leads to), both below the root."""


def printable(name: str) -> str:
    r"""`name` where it is UTF-8; else its odd bytes written out: `fran\xe7ais`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def passed_over(name: str) -> bool:
    """Whether a name below a root is hidden, or a twin that macOS packs beside every file."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def walk(root: Path, *, ours: Sequence[str] = ()) -> Walk:
    """Everything under the folder `root`; `ours` are folders of this build, passed over.

    Raises:
        PermissionError: `root` itself may not be listed.
    """
    os.scandir(root).close()
    met = Walk()
    skip = {os.path.realpath(place) for place in ours}
    real: dict[tuple[int, int], str | None] = dict.fromkeys(
        identity_of(parent) for parent in Path(os.path.realpath(root)).parents
    )
    real[identity_of(root)] = ""
    links = list(met_below(str(root), "", met, real, skip))
    for name, path in links:
        if (known := identity_of(path)) in real:
            if (target := real[known]) is not None:
                met.aliases.append((printable(name), printable(target)))
            continue
        deeper, seen = [(name, path)], dict(real)
        while deeper:
            name, path = deeper.pop()
            if identity_of(path) not in seen:
                seen[identity_of(path)] = name
                deeper += met_below(path, name, met, seen, skip)
    met.found.sort(key=lambda file: file.name)
    met.unread.sort(key=lambda one: one.name)
    return met


def met_below(
    folder: str, name: str, met: Walk, seen: dict[tuple[int, int], str | None], skip: set[str]
) -> Iterator[tuple[str, str]]:
    """(name, path) of every link to a folder below the folder called `name`; what else lies there
    is put into `met`, and its real folders into `seen`.
    """
    todo = [(folder, name)]
    while todo:
        place, at = todo.pop()
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError as error:
            met.unread.append(Unread(printable(at), f"may not be listed ({error.strerror})"))
            continue
        names = {entry.name for entry in entries}
        if at and (names & MARKS or any(names >= held for held in (FINISHED, EXPORTED, CACHE))):
            continue
        for entry in entries:
            here = f"{at}/{entry.name}" if at else entry.name
            if passed_over(entry.name):
                continue
            if not is_folder(entry):
                put(entry, here, met)
            elif skip and os.path.realpath(entry.path) in skip:
                continue
            elif entry.is_symlink():
                yield here, entry.path
            elif (known := identity_of(entry.path)) not in seen:
                seen[known] = here
                todo.append((entry.path, here))


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether a folder is there, behind a link too; False where that cannot be seen."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def put(entry: os.DirEntry[str], name: str, met: Walk) -> None:
    """`met` holds the file that the entry is or leads to, or why there is none."""
    try:
        about = Path(entry.path).stat()
    except OSError as error:
        why = "a link that leads nowhere" if entry.is_symlink() else str(error.strerror)
        met.unread.append(Unread(printable(name), why))
        return
    if stat.S_ISREG(about.st_mode):
        path = str(Path(entry.path).absolute())
        met.found.append(Found(printable(name), path, about.st_size, str(about.st_mtime_ns)))
    else:
        met.unread.append(Unread(printable(name), "no regular file"))


def identity_of(folder: str | Path) -> tuple[int, int]:
    """The folder itself, whatever it is called; (0, 0) where that cannot be seen."""
    try:
        about = Path(folder).stat()
    except OSError:
        return (0, 0)
    return (about.st_dev, about.st_ino)
