"""How a path in a row and the name of a file or member are compared."""

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import PurePosixPath

from pipelines.sources.sample import Defect


def normalized_path(name: str) -> str:
    """A member's or row's path for comparing: `/` between parts, no `.` and no leading `/`."""
    return "/".join(p for p in name.replace("\\", "/").split("/") if p not in ("", "."))


def is_twin(name: str) -> bool:
    """Whether a member is what macOS packs beside every file: no data of anybody's."""
    parts = normalized_path(name).split("/")
    return parts[-1].startswith("._") or "__MACOSX" in parts


def hidden(name: str) -> bool:
    """Whether a member's base name begins with a dot."""
    return normalized_path(name).rpartition("/")[2].startswith(".")


def ambiguous(path: str, found: Sequence[str]) -> Defect:
    """The Defect of a path that several files fit, some of which differ."""
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return Defect("ambiguous_media", f"{path[:200]} fits {', '.join(found[:3])}{more}")


def is_suffix_path(full: str, path: str) -> bool:
    """Whether `path` is `full`, from the right."""
    return full == path or full.endswith("/" + path)


def key_of(path: str) -> int:
    """A 64-bit hash of a path, never 0."""
    digest = blake2b(normalized_path(path).encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") or 1


def suffixes(path: str) -> list[str]:
    """The path, and what is left of it without its first folder, its first two, ..."""
    parts = path.split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]


def stem_and_extension(name: str) -> tuple[str, str]:
    """(key, extension) of a WebDataset member: the base name is cut at its first dot."""
    path = PurePosixPath(normalized_path(name))
    stem, _, extension = path.name.partition(".")
    return str(path.parent / stem), extension.lower()
