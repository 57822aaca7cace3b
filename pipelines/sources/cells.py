"""What a cell of a row may hold: the one place where the values that strangers bring are checked.

A row comes out of JSON, Parquet, CSV or a tar, and any of its cells may be of any type. Adapters
take each through one of these functions; what does not fit raises a Defect that names field, type
and what was expected (`messages is str, expected a list`), never the value.

| function   | gives              | takes                                                      |
|------------|--------------------|------------------------------------------------------------|
| text       | str                | text, or bytes that are UTF-8; U+FEFF is left out          |
| written    | str                | that; a number, a time, true, false                        |
| literal    | a list or mapping  | that; a text that holds one                                |
| mapping    | a mapping          | a mapping                                                  |
| rows       | a list of mappings | that, or a mapping of lists: {from: [..], value: [..]}, as |
|            |                    | `datasets` writes a Sequence of a dict                     |
| listed     | a list             | that; a single cell; null and "" are no cell               |
| rating     | 1..5 or null       | a number                                                   |
| image,     | a medium, unread   | bytes, a path, base64, a `data:` URI, {bytes, path}, {url};|
| video, pdf |                    | null: one that is missing                                  |
"""

import ast
import base64
import binascii
import codecs
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, TypeVar
from urllib.parse import unquote, unquote_to_bytes

import numpy as np

from pipelines.sources.sample import Defect, Medium, Pdf, Still, Video

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks, by which an encoding is known: https://www.unicode.org/faq/utf_bom.html."""
SIGNATURES = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF....(WEBP|AVI )|BM....\0\0\0\0|II[*+]\0"
    rb"|MM\0[*+]|\0\0\x01\0|\0\0\0\x0cjP  |qoif|%PDF-|....ftyp|\x1aE\xdf\xa3|FLV\x01|OggS"
    rb"|\0\0\x01[\xba\xb3]",
    re.DOTALL,
)
"""How the files of images, videos and PDFs begin."""
BASE64 = re.compile(r"[A-Za-z0-9+/\-_\s]+={0,2}\s*\Z")
SHORTEST = 32
"""Characters of the shortest base64 that may be taken for a file: a GIF of one pixel has 36."""
MANY_SECONDS = 1e6
"""s, more than any video lasts."""
LONGEST_PATH = 4096
"""Characters, at most, of a path on Linux (PATH_MAX): longer text names no file."""
LONGEST_LITERAL = 1 << 20
"""Characters of a list that stands in a cell as Python writes it, at most."""
MOST_WHOLE, MOST_NARROW = 1e15, 3e38
"""Floats below the one are whole numbers digit by digit; those above the other have no 32 bits."""
M = TypeVar("M", Still, Video, Pdf)
REASONS: Mapping[type[Medium], str] = {
    Still: "undecodable_image",
    Video: "undecodable_video",
    Pdf: "undecodable_pdf",
}
WORDS: Mapping[type[Medium], str] = {Still: "an image", Video: "a video", Pdf: "a PDF"}
DIGITS = re.compile(r"(\d{1,300})")


@dataclass(frozen=True)
class Unreadable:
    """Stands in a row for a value that its file holds and Python cannot: taking it is `reason`."""

    reason: str
    detail: str


def unfit(value: object, name: str, expected: str) -> Defect:
    """The Defect that `name` is what it is, rather than what was expected."""
    if isinstance(value, Unreadable):
        return Defect(value.reason, f"{name} {value.detail}")
    found = "null" if value is None else type(value).__name__
    return Defect("wrong_schema", f"{name} is {found}, expected {expected}")


def text(value: object, name: str) -> str:
    """The text of a cell, without U+FEFF: a byte order mark, or what one has left in the middle."""
    if isinstance(value, bytes):
        value = decoded(value, name)
    if not isinstance(value, str):
        raise unfit(value, name, "text")
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Defect("broken_text", f"{name} holds what is no Unicode") from error
    return value.replace("\ufeff", "")


def written(value: object, name: str) -> str:
    """The text that a cell of any one value stands for: numbers as they are counted, times in ISO
    8601, `True` and `False`; raises Defect for null, lists and mappings.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise Defect("wrong_schema", f"{name} is no number")
    if isinstance(value, float):
        whole = value.is_integer() and abs(value) < MOST_WHOLE
        return str(int(value)) if whole else shortest(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, bool | int | date | time | timedelta):
        return str(value) if not isinstance(value, int) else whole_number(value, name)
    return text(value, name)


def shortest(value: float) -> str:
    """The fewest digits of the number; what was stored in 32 bits has no more than those tell."""
    narrow = np.float32(value) if abs(value) < MOST_NARROW else np.float32(0)
    return repr(float(str(narrow))) if float(narrow) == value else repr(value)


def whole_number(value: int, name: str) -> str:
    """The digits of a whole number, or `True` and `False`; Python writes at most 4,300."""
    try:
        return str(value)
    except ValueError as error:
        raise Defect("wrong_schema", f"{name} is a number of too many digits") from error


def literal(value: object, name: str) -> object:
    """The list or mapping that a text holds, as JSON or as Python writes it (`['a', 'b']`, which is
    what tables of pandas hold); any other cell as it is.
    """
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(value.strip()[:LONGEST_LITERAL])
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise Defect("broken_json", f"{name} is text, but no list") from error


def decoded(data: bytes, name: str) -> str:
    """The text of a file: UTF-8, or what its byte order mark says; raises Defect("broken_text")."""
    encoding = encoding_of(data)
    try:
        found = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise Defect("broken_text", f"{name} is no {encoding.upper()}") from error
    if "\0" in found:
        raise Defect("broken_text", f"{name} holds NUL: text of another encoding than UTF-8")
    return found.replace("\ufeff", "")


def encoding_of(head: bytes) -> str:
    """The encoding that the byte order mark of a text says; UTF-8 where it has none."""
    return next((encoding for mark, encoding in MARKS if head.startswith(mark)), "utf-8")


def unpacked(value: object, name: str) -> object:
    """The value of a cell that holds JSON as text; any other cell as it is."""
    if not isinstance(value, str | bytes):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise Defect("broken_json", f"{name} is text, but no JSON") from error


def mapping(value: object, name: str) -> Mapping[str, Any]:
    """The mapping in a cell."""
    if not isinstance(value, dict | Mapping):  # in this order: to ask for the other takes longer
        raise unfit(value, name, "a mapping")
    return value


def rows(value: object, name: str) -> list[Mapping[str, Any]]:
    """The mappings of a list of them, at least one."""
    if isinstance(value, Mapping):
        value = transposed(value, name)
    if not isinstance(value, list):
        raise unfit(value, name, "a list")
    if not value:
        raise Defect("wrong_schema", f"{name} is empty")
    if all(type(row) is dict for row in value):
        return list(value)
    return [mapping(row, f"{name}[{number}]") for number, row in enumerate(value)]


def transposed(columns: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """{a: [1, 2], b: [3, 4]} as [{a: 1, b: 3}, {a: 2, b: 4}]; a column that is null is left out."""
    lists = {key: column for key, column in columns.items() if column is not None}
    if not lists or not all(isinstance(column, list) for column in lists.values()):
        raise unfit(columns, name, "a list")
    if len({len(column) for column in lists.values()}) > 1:
        raise Defect("wrong_schema", f"{name} is a mapping of lists of different lengths")
    return [dict(zip(lists, cells, strict=True)) for cells in zip(*lists.values(), strict=True)]


def listed(value: object) -> list[Any]:
    """The cells of a list, or the one that stands alone."""
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def natural_key(name: str) -> tuple[list[int | str], str]:
    """What names are sorted by: stretches of digits as numbers."""
    pieces = DIGITS.split(name)
    return [int(p) if n % 2 else p for n, p in enumerate(pieces)], name  # type: ignore[misc]


def rating(value: object, name: str) -> int | None:
    """A rating, 1..5; null where there is none."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise unfit(value, name, "a number from 1 to 5")
    if not 1 <= value <= 5:
        raise Defect("wrong_schema", f"{name} is not from 1 to 5")
    return int(value)


def seconds(value: object, name: str) -> float | None:
    """A second of a video, from 0; null where there is none."""
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < MANY_SECONDS:  # type: ignore[operator]
        raise unfit(value, name, "a number of seconds, from 0")
    return float(value)  # type: ignore[arg-type]


def index(value: object, name: str) -> int:
    """A place in a list; tables with a null among them hold whole numbers as floats."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise unfit(value, name, "a whole number")
    return int(value)


# ------------------------------------------------------------------ media


def image(value: object, name: str) -> Still:
    """The image in a cell."""
    return medium(value, name, Still)


def video(value: object, name: str) -> Video:
    """The video in a cell, or that one is."""
    return value if isinstance(value, Video) else medium(value, name, Video)


def pdf(value: object, name: str) -> Pdf:
    """The PDF in a cell."""
    return medium(value, name, Pdf)


def media(row: Mapping[str, Any], kind: type[M], names: Iterable[str]) -> list[M]:
    """The media in the columns `names` of the row, each a cell or a list of them."""
    found: list[M] = []
    for name in names:
        value = row.get(name)
        several = isinstance(value, Mapping) and any(isinstance(v, list) for v in value.values())
        cells = transposed(value, name) if isinstance(value, Mapping) and several else listed(value)
        where = (f"{name}[{n}]" for n in range(len(cells))) if len(cells) > 1 else [name]
        found += [medium(cell, place, kind) for cell, place in zip(cells, where, strict=False)]
    return found


def medium(value: object, name: str, kind: type[M]) -> M:
    """The medium in a cell, still unread."""
    if isinstance(value, kind):
        return value
    if value is None or value == "":
        return kind()
    if isinstance(value, bytes):
        return kind(data=value)
    if isinstance(value, str):
        return named(value, name, kind)
    if isinstance(value, Mapping):
        return of_mapping(value, name, kind)
    raise unfit(value, name, f"{WORDS[kind]}: bytes, a path, base64 or {{bytes, path}}")


def of_mapping(cell: Mapping[str, Any], name: str, kind: type[M]) -> M:
    """The medium of {bytes, path}, the Image cell of `datasets`, or of {data} or {url}."""
    path = cell.get("path")
    called = (text(path, f"{name}.path"),) if isinstance(path, str | bytes) and path else ()
    for key in ("bytes", "data"):
        value = cell.get(key)
        if isinstance(value, str) and value:
            value = of_base64(value, f"{name}.{key}", kind)
        if isinstance(value, bytes):
            return kind(data=value, called=called)
        if value is not None and value != "":
            raise unfit(value, f"{name}.{key}", "bytes or base64")
    for key in ("path", "url"):
        if cell.get(key) not in (None, ""):
            return named(text(cell[key], f"{name}.{key}"), f"{name}.{key}", kind)
    if not cell.keys() & {"bytes", "data", "path", "url"}:
        raise Defect("wrong_schema", f"{name} is a mapping without bytes, path or url")
    return kind()


def named(value: str, name: str, kind: type[M]) -> M:
    """The medium that text names or holds: a path, base64, or a `data:` URI.

    Nothing is fetched: an address elsewhere is the Defect `remote_media`.
    """
    value = text(value, name)
    scheme = value[:8].lower()
    if scheme.startswith("data:"):
        return kind(data=of_data_uri(value, name, kind))
    if scheme.startswith("file://"):
        return kind(path=unquote(value[7:]))
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", value):
        raise Defect("remote_media", f"{name} is an address of another machine")
    if holds_base64(value):
        return kind(data=of_base64(value, name, kind))
    return kind(path=value)


def holds_base64(value: str) -> bool:
    """Whether text is a file in base64 rather than the path of one."""
    if len(value) < SHORTEST or not BASE64.match(value):
        return False
    start = "".join(value[: 2 * SHORTEST].split())[:SHORTEST].rstrip("=")
    begins = base64.b64decode(plain(start[: len(start) // 4 * 4]))
    return len(value) > LONGEST_PATH or SIGNATURES.match(begins) is not None


def of_base64(value: str, name: str, kind: type[M]) -> bytes:
    """The bytes that base64 stands for, of either alphabet, padded or not."""
    if value[:5].lower() == "data:":
        return of_data_uri(value, name, kind)
    compact = "".join(value.split()).rstrip("=")
    try:
        return base64.b64decode(plain(compact) + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Defect(REASONS[kind], f"{name} is text, but no base64") from error


def plain(value: str) -> str:
    """Base64 of the alphabet for URLs in the usual one."""
    return value.replace("-", "+").replace("_", "/")


def of_data_uri(value: str, name: str, kind: type[M]) -> bytes:
    """The bytes in a `data:` URI: https://www.rfc-editor.org/rfc/rfc2397."""
    head, comma, body = value.partition(",")
    if not comma:
        raise Defect(REASONS[kind], f"{name} is a data: URI without data")
    if head.lower().rstrip().endswith(";base64"):
        return of_base64(unquote(body), name, kind)
    return unquote_to_bytes(body)
