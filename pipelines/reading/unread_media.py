"""An image or video that stands in a row where its source does not look: the row is no text.

Without a placeholder in its text such a row would be learned as a question about nothing. Of
Parquet and Arrow the columns that may hold one are read where no known one is there.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pipelines.reading.media_files import is_medium
from pipelines.sources import cells
from pipelines.sources.llava import MEDIA_COLUMNS
from pipelines.sources.sample import Defect, Source

if TYPE_CHECKING:
    import pyarrow as pa

OTHER_FORMATS = re.compile(r".*\.(avif|heic|heif|jfif|jp2|jxl|tga|ico|ppm)\Z", re.IGNORECASE)
"""Of images, besides those that are looked for beside annotations."""
DATA = re.compile(r"data:(image|video)/", re.IGNORECASE)
NAMES = ("id", "source", "__key__")
"""Keys whose value may be called like a file and is none: where a row came from."""
LOOKED = 16
"""Cells of a list that are looked at."""


@lru_cache(maxsize=1024)
def takes_media(source: Source) -> bool:
    """Whether the rows of a source may have media in columns."""
    return not source.mapped and any(map(source.reads, MEDIA_COLUMNS))


def refuse_unread_media(row: Mapping[str, Any], source: Source) -> None:
    """Raises the Defect that a row without media has one under a key that is passed over."""
    for key, value in row.items():
        if is_passed_over(source, key) and holds_medium(value):
            raise Defect(
                "missing_media",
                f"{key} holds an image or video, and {source.name} takes none from there: call it "
                "image or video, or read the rows with source table",
            )


@lru_cache(maxsize=4096)
def is_passed_over(source: Source, key: str) -> bool:
    """Whether the source never looks at a key, though it may hold media."""
    return key not in NAMES and not source.reads(key)


def holds_medium(value: object) -> bool:
    """Whether a cell is an image or video, or the path of one, or has one in it."""
    if isinstance(value, bytes):
        return cells.SIGNATURES.match(value) is not None
    if isinstance(value, str):
        return names_medium(value) or DATA.match(value) is not None or cells.holds_base64(value)
    if isinstance(value, Mapping):
        return any(holds_medium(value.get(key)) for key in ("bytes", "data", "path", "url"))
    return isinstance(value, list) and any(map(holds_medium, value[:LOOKED]))


def names_medium(value: str) -> bool:
    """Whether text is the path or address of an image or video."""
    if len(value) > cells.LONGEST_PATH or "\n" in value:
        return False
    return is_medium(value, archives=False) or OTHER_FORMATS.match(value) is not None


def columns_read(schema: "pa.Schema", source: Source) -> list[str]:
    """The columns of a table that the source reads, and where no media are among them, those that
    may hold some all the same.
    """
    names = [name for name in schema.names if source.reads(name)]
    if not takes_media(source) or any(name in MEDIA_COLUMNS for name in names):
        return names
    return [f.name for f in schema if source.reads(f.name) or may_hold_media(f.type)]


def may_hold_media(kind: "pa.DataType") -> bool:
    """Whether cells of this type may be bytes or text, or have either in them."""
    import pyarrow.types as of

    if of.is_list(kind) or of.is_large_list(kind):
        return may_hold_media(kind.value_type)
    if of.is_struct(kind):
        return any(kind.get_field_index(name) >= 0 for name in ("bytes", "path"))
    return bool(
        of.is_string(kind)
        or of.is_large_string(kind)
        or of.is_binary(kind)
        or of.is_large_binary(kind)
    )
