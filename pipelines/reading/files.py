"""Files and where they lie: a local folder, a hub repository at a commit, any fsspec URL.

A `Tree` is a listing of one root: names relative to it (`/` separated, sorted), sizes, and a stamp
that changes when the content does. Names bear identity, the root does not: a mirror moved to
another disk is the same data. Files are opened by URL: a plain path, `hf://datasets/ORG/NAME@COMMIT/
PATH`, or what fsspec knows.
"""

import errno
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from pipelines.reading import hub, traffic
from pipelines.reading.content import Verified, stated
from pipelines.reading.walk import Unread, passed_over, printable, walk
from tokenization.terminal import without_credentials

ANY_IMAGE = re.compile(
    r".*\.(jpe?g|jfif|png|webp|bmp|gif|tiff?|avif|heic|heif|jp2|ppm|pgm)\Z", re.IGNORECASE
)
"""Endings of images."""
DOCUMENT = re.compile(r".*\.(txt|md)\Z", re.IGNORECASE)
"""Endings of files that are one document each."""
SPLITS = "train|validation|valid|val|dev|test"
NOT_ROWS = re.compile(
    r"(^|/)(dataset_infos?|dataset_dict|state|recipe|stats|package|config)\.json$"
)


@dataclass(frozen=True)
class File:
    """A file of a tree."""

    name: str
    url: str
    size: int
    stamp: str
    """Modification time in ns, or the content's id on the hub."""
    content: str = ""
    """The hash of what it holds, where the hub states one (content.py); no part of its identity."""

    @property
    def identity(self) -> list[Any]:
        """What stands for the file where rows or a listing name it."""
        return [self.name, self.size, self.stamp]

    @property
    def folder(self) -> str:
        """The URL of the folder it lies in."""
        return self.url.rpartition("/")[0]


@dataclass(frozen=True)
class Tree:
    """The files under a root; `commit` on the hub, else empty."""

    root: str
    files: tuple[File, ...]
    commit: str = ""
    unread: tuple[Unread, ...] = ()
    """What could not be listed or read."""
    named: bool = False
    """Whether the files to be read were named outright, so that others are none of ours."""
    aliases: tuple[tuple[str, str], ...] = ()
    """Links to folders of the tree: (name of the link, name of the folder)."""


def is_url(place: str) -> bool:
    """Whether `place` is a URL rather than a local path."""
    return "://" in place


def list_tree(root: str, *, ours: Sequence[str] = ()) -> Tree:
    """Every file under `root`, but for hidden ones and what lies in the folders `ours`.

    Raises:
        FileNotFoundError: no folder there.
        PermissionError: it may not be listed.
    """
    if hub.is_hub(root):
        commit, files = hub.tree(root)
        found = tuple(File(*file, content=file[3]) for file in files)
        return Tree(f"{hub.pin_revision(root, commit)}", found, commit)
    if is_url(root):
        return Tree(root.rstrip("/"), tuple(remote_files(root)))
    if not Path(root).is_dir():
        raise FileNotFoundError(f"{root} is not a folder")
    met = walk(Path(root), ours=[place for place in ours if not is_url(place)])
    downloaded = (Path(root) / ".cache" / "huggingface" / "download").is_dir()
    found = tuple(
        File(
            one.name,
            one.path,
            one.size,
            one.stamp,
            stated(Path(root), one.name) if downloaded else "",
        )
        for one in met.found
    )
    unread, aliases = tuple(met.unread), tuple(met.aliases)
    return Tree(str(Path(root).absolute()), found, unread=unread, aliases=aliases)


def place_of(folder: Path) -> tuple[int, int]:
    """What a folder is, by whatever name it was come to."""
    stat = folder.stat()
    return stat.st_dev, stat.st_ino


def local_file(path: Path, root: Path, *, downloaded: bool = False) -> File:
    """The file at `path`, named relative to `root`; `downloaded`: by `hf download`, which left what
    the hub states of it.
    """
    stat = path.stat()
    name = printable(path.relative_to(root).as_posix())
    return File(name, str(path.absolute()), stat.st_size, str(stat.st_mtime_ns))


def web_file(filesystem: Any, url: str) -> File:
    """The one file at a web address, which has no folders to list."""
    from fsspec.asyn import sync

    shown = without_credentials(url)
    try:
        about = filesystem.info(url)
    except FileNotFoundError as error:
        status = getattr(error.__cause__, "status", None)
        if isinstance(error.__cause__, OSError):
            raise ValueError(f"{shown}: the server does not answer.") from error
        if status not in (None, 404, 410):
            raise ValueError(f"{shown}: the server refuses it (status {status}).") from error
        raise FileNotFoundError(f"{shown}: no file there") from error
    name = url.partition("?")[0].partition("#")[0].rpartition("/")[2]
    if not name or about.get("mimetype") == "text/html":
        raise ValueError(
            f"{shown}: a folder or page, and web servers list no folders. Name one file in it, or "
            "download the folder and name that."
        )
    size = about.get("size")
    if size is None or (
        size >= fsspec_block() and not sync(filesystem.loop, has_ranges, filesystem, url)
    ):
        raise ValueError(
            f"{shown}: the server gives no parts of a file, or does not say how large it is, so "
            "it cannot be read in parts. Download it, and name the file with data:"
        )
    stamp = next((about[k] for k in ("ETag", "etag", "Last-Modified") if about.get(k)), "")
    return File(name, url, int(size), str(stamp))


def fsspec_block() -> int:
    """Bytes below which fsspec reads a file of the web in one answer."""
    from fsspec.implementations.http import HTTPFile

    return int(HTTPFile.DEFAULT_BLOCK_SIZE)


async def has_ranges(filesystem: Any, url: str) -> bool:
    """Whether the server gives the file's first byte alone."""
    session = await filesystem.set_session()
    async with session.get(url, headers={"Range": "bytes=0-0"}) as answer:
        return bool(answer.status == 206)


def remote_files(root: str) -> list[File]:
    """Every file under the fsspec URL `root` (or the file itself)."""
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(root)
    found = []
    if root.startswith(("http://", "https://")):
        return [web_file(filesystem, root)]
    for full, about in filesystem.find(path, detail=True).items():
        name = full[len(path) :].lstrip("/") or full.rsplit("/", 1)[-1]
        if full != path and passed_over(name):
            continue
        stamp = next(
            (about[k] for k in ("ETag", "etag", "mtime", "LastModified") if k in about), ""
        )
        found.append(File(name, filesystem.unstrip_protocol(full), about["size"] or 0, str(stamp)))
    if not found:
        raise FileNotFoundError(f"{root}: no file there")
    return sorted(found, key=lambda file: file.name)


def open_file(url: str, size: int = -1, *, scattered: bool = False, content: str = "") -> BinaryIO:
    """A seekable binary reader of the file at `url` (`size` bytes, where known); `scattered`:
    little of it will be read, here and there. Read whole, it is what `content` says.
    """
    if hub.is_hub(url):
        return hub.open_file(url, size, scattered=scattered, content=content)
    if is_url(url):
        import fsspec

        found = fsspec.open(url, "rb").open()
        if isinstance(found, fsspec.spec.AbstractBufferedFile):  # its readline takes no limit
            found = io.BufferedReader(cast(Any, found), buffer_size=64 << 10)
        return cast(BinaryIO, found)
    if content and size >= 0:
        raw = Verified(traffic.opened(Path(url)), url=url, size=size, content=content)
        return cast(BinaryIO, io.BufferedReader(raw, buffer_size=1 << 20))
    return traffic.opened(Path(url))


def exists(url: str, *, folder: bool = False) -> bool:
    """Whether a file (or a local folder) lies at `url`."""
    if hub.is_hub(url):
        return hub.exists(url)
    if is_url(url):
        import fsspec

        filesystem, path = fsspec.core.url_to_fs(url)
        return bool(filesystem.isfile(path))
    try:
        return Path(url).is_dir() if folder else Path(url).is_file()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def glob_regex(pattern: str) -> re.Pattern[str]:
    """The regular expression of a glob: `*` and `?` within a folder, `**` across folders,
    `{subset}` a folder's or file's name, `{a,b}` one of these.
    """
    out = ""
    for token in re.findall(r"\{\w+(?:,\w+)*\}|\*\*/?|\*|\?|[^*?{]+|\{", pattern):
        if token == "{subset}":
            out += r"(?P<subset>[^/]+?)"
        elif token.startswith("{") and token.endswith("}"):
            out += f"(?:{'|'.join(token[1:-1].split(','))})"
        elif token.startswith("**"):
            out += r"(?:.*/)?" if token.endswith("/") else ".*"
        elif token == "*":
            out += "[^/]*"
        elif token == "?":
            out += "[^/]"
        else:
            out += re.escape(token)
    return re.compile(out + r"\Z")


def labelled(files: Iterable[File], *, split: str) -> list[File]:
    """The images that lie in the folder of a class, where splits have folders of theirs in that
    of `split`.
    """
    images = [file for file in files if ANY_IMAGE.match(file.name) and "/" in file.name]
    splits = [file for file in images if re.match(f"({SPLITS})/", file.name)]
    if not splits:
        return images
    return [f for f in splits if f.name.startswith(f"{split}/") and f.name.count("/") > 1]


def label_of(file: File) -> str:
    """The folder that the file lies in."""
    return file.name.rsplit("/", 2)[-2]


def belongs_to_split(name: str, split: str) -> bool:
    """Whether the file `name` belongs to `split`: files that name no split are of any, as are
    documents, whatever they are called.
    """
    stem = name.rsplit("/", 1)[-1]
    if DOCUMENT.match(stem):
        return True
    found = re.match(rf"({SPLITS})(?=[-_.])", stem)
    return found is None or found[1] == split


def matching_files(files: Iterable[File], pattern: str, *, split: str) -> list[tuple[str, File]]:
    """The (subset, file) pairs that `pattern` matches, of the split; subset may be empty."""
    regex = glob_regex(pattern.replace("{split}", split))
    found = []
    for file in files:
        match = regex.match(file.name)
        if match and belongs_to_split(file.name, split) and not NOT_ROWS.search(file.name):
            found.append((match.groupdict().get("subset") or "", file))
    return found
