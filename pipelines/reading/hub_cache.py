"""The hub client's cache on disk: which files of a dataset lie here already, whoever fetched them.

    HF_HUB_CACHE/datasets--ORG--NAME/  refs/main              the commit that a name last stood for
                                       snapshots/COMMIT/PATH  -> ../../blobs/ID, or the file itself
                                       blobs/ID               SHA-256 of a large file, git's own
                                                              hash of a small one
                                       trees/COMMIT.json      every file of the commit, where the
                                                              client (2.4 does) listed it

An ID is what the hub states of the file, so listing and fingerprints are those of the hub. What the
hub listed is remembered in this user's own cache folder too: without a list nothing tells a cache
that holds a part of a repository from one that holds all of it. Layout:
https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

import hashlib
import json
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

from pipelines.engine import private, tables

Entry = tuple[str, int, str]
"""A file of a repository: path, bytes, content id."""
COMMIT = re.compile(r"[0-9a-f]{40}\Z")
ID = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64})\Z")
NUMBERED = re.compile(r"(?P<before>.*-)(?P<number>\d{5})-of-(?P<count>\d{5})(?P<after>[-.].*)\Z")
"""Files that say how many they are, as `datasets` names them."""
# fmt: off
LFS = (
    "*.7z", "*.arrow", "*.avro", "*.bin", "*.bmp", "*.bz2", "*.flac", "*.gif", "*.gz", "*.h5",
    "*.jpeg", "*.jpg", "*.joblib", "*.lz4", "*.mds", "*.mp3", "*.mp4", "*.npy", "*.npz", "*.ogg",
    "*.parquet", "*.pickle", "*.pkl", "*.png", "*.pt", "*.pth", "*.rar", "*.safetensors", "*.tar",
    "*.tgz", "*.tiff", "*.wasm", "*.wav", "*.webm", "*.webp", "*.xz", "*.zip", "*.zst",
)
# fmt: on
"""What a new dataset's .gitattributes keeps in LFS, where the repository's own is not here."""
LARGE = 10 << 20
"""Bytes, from which the hub keeps any file in LFS."""
NAMED = 8
"""Files that a command names one by one; more are named by their folders."""


class NotCachedError(tables.FileError):
    """A file is asked for without network that was never fetched."""


def repository_folder(cache: Path, repo: str, kind: str = "datasets") -> Path:
    """Where the client keeps the repository."""
    return cache / "--".join([kind, *repo.split("/")])


def commit_of(folder: Path, revision: str) -> str | None:
    """The commit that a branch or tag stood for when it was last fetched; null: it never was."""
    if COMMIT.match(revision):
        return revision if (folder / "snapshots" / revision).is_dir() else None
    with suppress(OSError, ValueError):
        return (folder / "refs" / revision).read_text().strip()
    return None


def held(folder: Path, commit: str, path: str, content: str) -> Path | None:
    """The file of the repository on this disk, from whichever commit it was fetched; else null."""
    for place in (folder / "snapshots" / commit / path, folder / "blobs" / content):
        if (place.name or content) and place.is_file():
            return place
    return None


def listed(folder: Path, commit: str) -> tuple[list[Entry], bool]:
    """(the files of the commit; whether these are all there are: else only those that lie here)."""
    for file in (folder / "trees" / f"{commit}.json", remembered(folder, commit)):
        if (found := entries_in(file)) is not None:
            return found, True
    snapshot = folder / "snapshots" / commit
    here = sorted(path for path in snapshot.rglob("*") if path.is_file())
    names = [path.relative_to(snapshot).as_posix() for path in here]
    attributes = lfs_patterns(snapshot)
    return [
        (name, path.stat().st_size, content_id(path, name, attributes))
        for name, path in zip(names, here, strict=True)
    ], False


def entries_in(file: Path) -> list[Entry] | None:
    """The files that a listing on disk names; null where there is none that can be read."""
    try:
        files = json.loads(file.read_text(encoding="utf-8"))["files"]
        return [
            (path, int(about["size"]), str(about.get("lfs_sha256") or about["blob_id"]))
            for path, about in sorted(files.items())
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def remembered(folder: Path, commit: str) -> Path:
    """Where this user's own cache keeps what the hub listed."""
    about = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    return private.cache_folder() / "trees" / f"{folder.name}-{about}" / f"{commit}.json"


def remember(folder: Path, commit: str, entries: Sequence[Entry]) -> None:
    """The hub's listing is on this disk, as far as that can be written."""
    with suppress(OSError, RuntimeError):  # a home that is full, missing, or not ours
        file = remembered(folder, commit)
        if not file.is_file():
            files = {path: {"size": size, "blob_id": content} for path, size, content in entries}
            tables.write_json(file, {"format_version": 1, "files": files})


def content_id(path: Path, name: str, lfs: Sequence[str]) -> str:
    """The hash by which the hub knows the file: the name of its blob, or made of its content where
    a copy of the cache holds files in place of links.
    """
    blob = path.resolve().name
    if path.is_symlink() and ID.match(blob):
        return blob
    stat = path.stat()
    return hashed(path, stat.st_size, stat.st_mtime_ns, is_lfs(name, stat.st_size, lfs))


@lru_cache(maxsize=1 << 14)
def hashed(path: Path, size: int, changed: int, lfs: bool) -> str:
    """SHA-256 of the file, or git's hash of it."""
    digest = hashlib.sha256() if lfs else hashlib.sha1(b"blob %d\0" % size)
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def lfs_patterns(snapshot: Path) -> tuple[str, ...]:
    """What the repository keeps in LFS by its name."""
    try:
        lines = (snapshot / ".gitattributes").read_text().splitlines()
    except (OSError, ValueError):
        return LFS
    return tuple(line.split()[0] for line in lines if "filter=lfs" in line)


def is_lfs(name: str, size: int, patterns: Iterable[str]) -> bool:
    """Whether the hub keeps a file of this name in LFS, and so knows it by SHA-256."""
    last = name.rpartition("/")[2]
    return size >= LARGE or any(fnmatchcase(last, p) or fnmatchcase(name, p) for p in patterns)


def unnumbered(names: Iterable[str]) -> list[str]:
    """The names that these files say there are besides: `x-00001-of-00003` where only 0 and 2 are.

    A name that bears more than its number (`...-of-00003-1a2b.parquet`) is given as a pattern.
    """
    groups: dict[tuple[str, str, bool], set[int]] = defaultdict(set)
    endings: dict[tuple[str, str, bool], str] = {}
    for name in names:
        if match := NUMBERED.match(name):
            own = match["after"].startswith("-")
            ending = "-*." + match["after"].rpartition(".")[2] if own else match["after"]
            key = (match["before"], match["count"], own)
            groups[key].add(int(match["number"]))
            endings[key] = ending
    return sorted(
        f"{key[0]}{number:05d}-of-{key[1]}{endings[key]}"
        for key, found in groups.items()
        for number in set(range(int(key[1]))) - found
    )


def fetching(repo: str, names: Sequence[str], *, revision: str, kind: str = "dataset") -> str:
    """The command that fetches these files into the cache."""
    at = "" if revision in ("", "main") else f" --revision {revision}"
    of = "" if kind == "model" else f" --repo-type {kind}"
    return f"hf download {repo}{of}{at} {chosen(names)}".strip()


def chosen(names: Sequence[str]) -> str:
    """The words of that command that name the files."""
    if len(names) <= NAMED and not any("*" in name for name in names):
        return " ".join(shlex.quote(name) for name in names)
    if len(names) <= NAMED:
        return " ".join(f"--include {shlex.quote(name)}" for name in names)
    folders = sorted({f"{name.rpartition('/')[0]}/*".lstrip("/") for name in names})
    return " ".join(f"--include {shlex.quote(name)}" for name in folders[:NAMED])


def missing_sentence(
    repo: str, names: Sequence[str], *, commit: str, cache: Path, revision: str
) -> str:
    """What is not here, and the command that fetches it."""
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
    command = fetching(repo, names, revision=revision)
    return (
        f"HF_HUB_OFFLINE is set, and of {repo} ({commit[:12] if commit else 'no commit'}) these "
        f"files are not in the cache {cache}: {shown}. Fetch them on a machine with network, then "
        f"say the same again: {command}"
    )
