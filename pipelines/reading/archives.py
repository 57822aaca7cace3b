"""Archives read in place: nothing is unpacked to disk.

| archive                        | read                                                    |
|--------------------------------|---------------------------------------------------------|
| .zip; a plain .tar on this disk| by member, at random                                    |
| .tar.gz .tgz .bz2 .xz .zst; a  | once, in order; the members' names are remembered, so   |
| plain .tar elsewhere           | that the rows in no archive are found without a second  |
|                                | pass                                                    |

`NAME.zip.part-aa`, `-ab`, ... (also `.001`, `.002`) are one archive, as are the disks `NAME.z01`,
`.z02`, ... `NAME.zip` of a zip. A path of a row names a
member when it is the member's full name, from the right: `a/b.mp4` is `x/a/b.mp4`, in an archive
whose own folder and stem count as the first parts of that name. Of several that one path names, one
that it names in full is meant; where none or more than one is, and they differ, the row is
`ambiguous_media`. Only regular files are members, and no twins of macOS (`._x`, `__MACOSX`): links
are never followed. Names serve for comparing alone, so none of them can escape anywhere.
"""

import io
import re
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np

from pipelines.reading.content import ContentError
from pipelines.reading.files import File, is_url, open_file
from pipelines.reading.member_paths import (
    ambiguous,
    is_suffix_path,
    is_twin,
    key_of,
    normalized_path,
    suffixes,
)
from pipelines.reading.pointers import is_pointer_file
from pipelines.reading.split_zip import join_disks
from pipelines.reading.streams import (
    WHOLE,
    DecompressedStream,
    JoinedFiles,
    OpenFiles,
    Stretch,
    TailedStream,
    decompressed,
)
from pipelines.reading.stretches import Stretches, is_elsewhere
from pipelines.sources.sample import Defect

ARCHIVE = re.compile(
    r"(?P<whole>.*\.(?P<kind>zip|tar|tgz|tar\.gz|tar\.bz2|tar\.xz|tar\.zst))"
    r"(?P<piece>\.?(?:part[-_.]?\w+|\d{3}))?\Z",
    re.IGNORECASE,
)
DISK = re.compile(r"(?P<stem>.*)\.z(?P<number>\d\d+)\Z", re.IGNORECASE)
"""A piece of a zip cut into disks, whose last is the `.zip`."""
IMAGE = re.compile(r".*\.(jpe?g|png|webp|bmp)\Z", re.IGNORECASE)
"""A member that may be a frame of a folder of frames."""
COMPARED = 1 << 20
"""Bytes from the start by which two files of one size that one path names are held to be alike."""
OF_THE_MACHINE = (ConnectionError, TimeoutError, FileNotFoundError, PermissionError)
"""Errors that say nothing of an archive's bytes. Any other exception of the standard library's
readers is the archive's: they raise struct.error, KeyError, UnicodeDecodeError, AttributeError,
OverflowError and more for headers that nobody would write."""
MAX_HEADER = 1 << 20
"""Bytes of a tar's header of names or attributes, at most: it is read into memory whole."""
MOST_EXTRA = 64
"""Bytes between a member's name and its data in a zip, about (times and owners of Unix are 28):
where there are more, the end of the member is fetched by itself."""
PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Compressions of which zipfile makes no more than it is asked for."""
LONG = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
"""Kinds of headers whose body belongs to the header."""


@dataclass(frozen=True)
class Archive:
    """One archive: its name without pieces, and the files that it is made of, in order."""

    name: str
    kind: str
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        """Encoded bytes."""
        return sum(file.size for file in self.files)

    @property
    def streams(self) -> bool:
        """Whether it can only be read in order (or so cheaply)."""
        return self.kind != "zip" and (self.kind != "tar" or is_url(self.files[0].url))

    @property
    def lies_elsewhere(self) -> bool:
        """Whether it is one file on the hub."""
        return len(self.files) == 1 and is_elsewhere(self.files[0].url, self.files[0].content)

    @property
    def disks(self) -> list[int]:
        """Where each disk of a zip cut into disks starts in the bytes of all; else empty."""
        if not any(DISK.match(file.name) for file in self.files):
            return []
        return np.cumsum([0, *(file.size for file in self.files[:-1])]).tolist()


def archives_of(files: Sequence[File]) -> list[Archive]:
    """The archives among `files`, pieces joined, by name."""
    found: dict[str, list[File]] = {}
    for file in sorted(files, key=lambda file: file.name):
        if disk := DISK.match(file.name):
            found.setdefault(f"{disk['stem']}.zip", []).append(file)
        elif match := ARCHIVE.match(file.name):
            found.setdefault(match["whole"], []).append(file)
    made = []
    for whole, pieces in found.items():
        match = cast(re.Match[str], ARCHIVE.match(whole))
        pieces.sort(key=lambda file: disk_number(file.name))  # else as they are, by name
        made.append(Archive(whole, match["kind"].lower(), tuple(pieces)))
    return made


def disk_number(name: str) -> int:
    """The number of a zip's disk; of its last, the `.zip`, and of any other file, one above all."""
    disk = DISK.match(name)
    return int(disk["number"]) if disk else sys.maxsize


def open_archive(archive: Archive, *, among: OpenFiles | None = None) -> BinaryIO:
    """A seekable reader of the archive's bytes; `among`: of many, which share open files."""
    scattered = not archive.streams
    if len(archive.files) == 1:
        [file] = archive.files
        if among is None:
            return open_file(file.url, file.size, scattered=scattered, content=file.content)
        buffer_size = io.DEFAULT_BUFFER_SIZE
    else:
        buffer_size = (64 << 10) if scattered else 1 << 20
    joined = JoinedFiles(archive.files, scattered=scattered, among=among)
    return cast(BinaryIO, io.BufferedReader(joined, buffer_size=buffer_size))


def full_names(archive: Archive, member: str) -> tuple[str, str]:
    """The two full names of a member: below the archive's folder, and below its stem there."""
    folder, _, base = archive.name.rpartition("/")
    stem = base[: -len(archive.kind) - 1]
    inside = normalized_path(member)
    return normalized_path(f"{folder}/{inside}"), normalized_path(f"{folder}/{stem}/{inside}")


def keys_of(archive: Archive, member: str) -> list[int]:
    """The hashes of every path that names the member."""
    paths = [path for full in full_names(archive, member) for path in suffixes(full)]
    return [key_of(path) for path in dict.fromkeys(paths)]


@contextmanager
def of_archive(name: str) -> Iterator[None]:
    """What reading the archive raises is Defect("broken_archive"), unless it is the machine's."""
    try:
        yield
    except (Defect, ContentError, *OF_THE_MACHINE):
        raise
    except Exception as error:
        raise Defect("broken_archive", f"{name} does not read ({type(error).__name__})") from error


class Header(tarfile.TarInfo):
    """A header of a tar that asks for no more memory than MAX_HEADER."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "Header":
        """As of TarInfo; raises HeaderError where names or attributes are larger."""
        found = super().frombuf(buf, encoding, errors)
        if found.type in LONG and found.size > MAX_HEADER:
            raise tarfile.HeaderError(f"a header of {found.size:,} bytes")
        return found


def member_name(member: Any) -> str:
    """The name of a member of a zip or tar."""
    return str(member.filename if isinstance(member, zipfile.ZipInfo) else member.name)


class Members:
    """The members of archives that can be read at random, found by path; `close` when done."""

    def __init__(self, archives: Sequence[Archive]) -> None:
        self.archives = archives
        self.readers: dict[int, zipfile.ZipFile | tarfile.TarFile] = {}
        self.open_files = OpenFiles()
        self.stretches: dict[int, Stretches] = {}
        """Of archives on the hub: the bytes of the member that is read."""
        self.broken: list[str] = []
        self.by_base: dict[str, list[tuple[int, Any]]] = {}
        self.by_folder: dict[str, dict[tuple[int, str], list[Any]]] | None = None
        for number, archive in enumerate(archives):
            try:
                with of_archive(archive.name):
                    for name, member in self.members(number):
                        self.by_base.setdefault(
                            normalized_path(name).rpartition("/")[2], []
                        ).append((number, member))
            except Defect as defect:
                files = ((file.url, file.size) for file in archive.files if not is_url(file.url))
                pointer = any(is_pointer_file(*file) for file in files)
                why = "a pointer of git-lfs: run git lfs pull" if pointer else defect.detail
                self.broken.append(f"{archive.name} ({why})")

    def members(self, number: int) -> Iterator[tuple[str, Any]]:
        """(name, member) of every regular file of an archive."""
        reader = self.reader(number)
        found: Iterator[tuple[str, Any]]
        if isinstance(reader, zipfile.ZipFile):
            found = ((info.filename, info) for info in reader.infolist() if not info.is_dir())
        else:
            found = ((info.name, info) for info in reader if info.isreg())
        yield from ((name, info) for name, info in found if not is_twin(name))

    def reader(self, number: int) -> zipfile.ZipFile | tarfile.TarFile:
        """The open archive."""
        if number not in self.readers:
            archive = self.archives[number]
            stream: Any = open_archive(archive, among=self.open_files)
            if archive.lies_elsewhere:
                stream = self.stretches[number] = Stretches(stream, (), ())
            made: zipfile.ZipFile | tarfile.TarFile
            if archive.kind == "zip":
                disks = archive.disks
                made = zipfile.ZipFile(join_disks(stream, disks) if disks else stream)
            else:
                made = tarfile.open(fileobj=stream, mode="r:", tarinfo=Header)  # noqa: SIM115 - closed by `close`
            self.readers[number] = made
        return self.readers[number]

    def find(self, path: str) -> tuple[int, Any] | None:
        """Where the member that `path` names lies, if there is one; raises Defect where several of
        different content are meant.
        """
        wanted = normalized_path(path)
        fits, exact = list[tuple[int, Any]](), list[tuple[int, Any]]()
        for number, member in self.by_base.get(wanted.rpartition("/")[2], ()):
            fulls = full_names(self.archives[number], member_name(member))
            if any(is_suffix_path(full, wanted) for full in fulls):
                (exact if wanted in fulls else fits).append((number, member))
        found = exact or fits
        if len(found) > 1 and not all(self.same(found[0], other) for other in found[1:]):
            raise ambiguous(path, [f"{self.archives[n].name}: {member_name(m)}" for n, m in found])
        return found[0] if found else None

    def same(self, one: tuple[int, Any], other: tuple[int, Any]) -> bool:
        """Whether two members hold the same, as far as sizes and their first COMPARED bytes say."""
        sizes = {self.size(place) for place in (one, other)}
        return len(sizes) == 1 and self.head(one) == self.head(other)

    def size(self, place: tuple[int, Any]) -> int:
        """Bytes of the member."""
        _, member = place
        return int(member.file_size if isinstance(member, zipfile.ZipInfo) else member.size)

    def head(self, place: tuple[int, Any]) -> bytes | str:
        """The member's first COMPARED bytes; why it cannot be read, where that is so."""
        number, member = place
        reader = self.reader(number)
        try:
            with of_archive(self.archives[number].name):
                if isinstance(reader, zipfile.ZipFile):
                    return unzipped(reader, member, COMPARED - 1)
                return cast(BinaryIO, reader.extractfile(member)).read(COMPARED)
        except Defect:
            return f"unreadable {number} {member_name(member)}"

    def folder(self, path: str) -> list[tuple[str, tuple[int, Any]]]:
        """(name, place) of the images right below the folder that `path` names; none: empty."""
        if self.by_folder is None:
            self.by_folder = {}
            for places in self.by_base.values():
                for number, member in places:
                    if IMAGE.match(name := normalized_path(member_name(member))):
                        parent, _, base = name.rpartition("/")
                        below = self.by_folder.setdefault(parent.rpartition("/")[2], {})
                        below.setdefault((number, parent), []).append((base, (number, member)))
        wanted = normalized_path(path)
        found = self.by_folder.get(wanted.rpartition("/")[2], {})
        fits, exact = list[tuple[int, str]](), list[tuple[int, str]]()
        for number, parent in sorted(found):
            fulls = full_names(self.archives[number], parent)
            if any(is_suffix_path(full, wanted) for full in fulls):
                (exact if wanted in fulls else fits).append((number, parent))
        meant = exact or fits
        if len(meant) > 1:
            raise ambiguous(path, [f"{self.archives[n].name}: {parent}/" for n, parent in meant])
        return found[meant[0]] if meant else []

    def read(self, place: tuple[int, Any], limit: int) -> bytes:
        """The member's bytes, at most `limit`; raises Defect where it is larger or broken."""
        number, member = place
        name, reader = self.archives[number].name, self.reader(number)
        size = member.file_size if isinstance(reader, zipfile.ZipFile) else member.size
        if size > limit:
            raise Defect("too_many_bytes", f"{name}: {size}")
        with of_archive(name):
            if isinstance(reader, zipfile.ZipFile):
                self.hold(number, member)
                data = unzipped(reader, member, limit)
            else:
                with cast(BinaryIO, reader.extractfile(member)) as stream:
                    data = stream.read(member.size + 1)
                if len(data) < member.size:
                    raise Defect("broken_archive", name)
        if len(data) > limit:
            raise Defect("too_many_bytes", f"{name}: {len(data)}")
        return data

    def hold(self, number: int, member: zipfile.ZipInfo) -> None:
        """The member of a zip on the hub is at hand, in one request."""
        if number in self.stretches:
            [file] = self.archives[number].files
            head = 30 + len(member.filename.encode()) + MOST_EXTRA  # the fixed part of a header
            stop = min(file.size, member.header_offset + head + member.compress_size)
            self.stretches[number].hold(file.url, member.header_offset, stop)

    def close(self) -> None:
        """Every archive is closed."""
        for reader in self.readers.values():
            reader.close()
        self.open_files.close()


def unzipped(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> bytes:
    """The member's bytes, or one more than `limit` of them, whatever it says of its size."""
    if member.compress_type in PLAIN:
        with archive.open(member) as stream:
            return stream.read(limit + 1)
    if member.compress_type != zipfile.ZIP_BZIP2:
        raise Defect("broken_archive", f"compression {member.compress_type}")
    packed = copy(member)  # zipfile would decompress a bzip2 block by block, of 45 MB and more each
    packed.compress_type, packed.file_size = zipfile.ZIP_STORED, member.compress_size
    packed.CRC = None  # type: ignore[assignment]  # that of what it becomes is compared below
    with archive.open(packed) as raw:
        data = io.BufferedReader(DecompressedStream(raw, "bz2")).read(limit + 1)
    if len(data) <= limit and zlib.crc32(data) != member.CRC:
        raise zipfile.BadZipFile(f"{member.filename}: wrong checksum")
    return data


def walk_tar(
    archive: Archive, *, limit: int, span: tuple[int, int] = WHOLE
) -> Iterator[tuple[str, bytes | Defect]]:
    """(name, bytes) of every regular file of a tar, in order, in one pass; `limit` 0: names only.
    `span`: of those whose headers and bytes lie from one byte to another.

    A member above `limit` bytes or cut off comes as a Defect. A stream that breaks off ends the
    archive: after its last member comes ("", Defect).
    """
    try:
        with (
            of_archive(archive.name),
            open_archive(archive) as file,
            cast(BinaryIO, Stretch(file, *span)) as raw,
            decompressed(raw, archive.kind.rpartition(".")[2]) as inner,
            TailedStream(inner) as stream,
            tarfile.open(fileobj=stream, mode="r|", tarinfo=Header) as tar,
        ):
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # it keeps all: 1 GB a million
                if member.isreg() and not is_twin(member.name):
                    yield member.name, read_member(tar, member, limit) if limit else b""
            if span == WHOLE and stream.last.strip(b"\0"):
                # every tar ends in blocks of zeros; tarfile takes their absence for an end
                yield "", Defect("broken_archive", f"{archive.name} breaks off")
            while span == WHOLE and raw.read(1 << 20):
                pass  # to the end, so that the content is compared
    except Defect as defect:
        yield "", defect


def read_member(tar: tarfile.TarFile, member: tarfile.TarInfo, limit: int) -> bytes | Defect:
    """The member's bytes, or the Defect that it is."""
    if member.size > limit:
        return Defect("too_many_bytes", f"{member.size:,} bytes")
    try:
        with of_archive("a member"):
            data = cast(BinaryIO, tar.extractfile(member)).read()
    except Defect as defect:
        return defect
    return data if len(data) == member.size else Defect("broken_archive", "a member breaks off")
