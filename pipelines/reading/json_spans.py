"""Where the rows of a JSON array or of JSON lines lie, found from any byte on.

    block 0      block 1      block 2          a row belongs to the block that it starts in
    |[{..},{..},{|..},{..}, 7,|{..},{..}]|

A file too large to read at planning is cut into blocks of bytes. A reader of JSON lines starts
after the first line break at or after its block's start (the block before reads the line across).
A reader of an array starts at the first *whole* row: an object that decodes and has the columns of
its layout. Objects inside a row have not those columns, and one quoted in a string does not decode
(its quotes are escaped), so what is found is a row. What stands between two whole rows belongs to
the first of them.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

from pipelines.sources.sample import Defect

CHUNK = 8 << 20
"""Bytes read at once of a file that is read whole."""
AHEAD = 64 << 10
"""Bytes read at once beyond a block: its last row ends in the next one."""
MAX_LINE = 64 << 20
"""Bytes of one JSON row, at most."""
MAX_DIGITS = 4300
"""Of a whole number that Python makes of text; one of more is read as a float, as others do."""
DECODER = json.JSONDecoder(
    parse_int=lambda digits: int(digits) if len(digits) <= MAX_DIGITS else float(digits)
)
SPACE = re.compile(r"[\s,]*")
COLON = re.compile(r"\s*:\s*")
NESTING = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
"""Strings, and what opens and closes."""
BEFORE = 64
"""Bytes before a block that are looked at: is its first object the value of a key?"""
CUT = 16
"""Bytes: an error so near the end of what was read may be of the cut, not of the JSON."""

Span = tuple[int, int, object]
"""(offset, length, row); a row that does not parse is the Defect that it is."""
OTHER_FILES = {
    b"\x1f\x8b": "compressed with gzip: name it .jsonl.gz",
    b"\x28\xb5\x2f\xfd": "compressed with zstandard: name it .jsonl.zst",
    b"PK\3\4": "a zip: unpack it",
    b"PAR1": "Parquet: name it .parquet",
    b"<!DOCTYPE": "a page of the web, not the file behind it",
    b"<html": "a page of the web, not the file behind it",
}
"""How files begin that are called like JSON and are something else."""


def parse_line(line: bytes) -> object:
    """The JSON value of a line, or the Defect that it is none."""
    try:
        return DECODER.decode(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Defect("broken_text", "the row is no UTF-8")
    except json.JSONDecodeError as error:
        return Defect("broken_json", f"{error.msg} at character {error.pos}")
    except RecursionError:
        return Defect("broken_json", "nested too deep")


def is_array(head: bytes, url: str) -> bool:
    """Whether a file that starts with `head` is an array (else lines); ValueError: neither."""
    first = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if first not in (b"", b"{", b"["):
        raise ValueError(
            f"{url}: starts with {first!r}; expected a JSON array or JSON lines{hint(head)}"
        )
    return first == b"["


def hint(head: bytes) -> str:
    """What a file that starts with `head` is in place of JSON lines: the end of a message."""
    for magic, what in OTHER_FILES.items():
        if head.startswith(magic):
            return f". It is {what}"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in head[:4]:
        return ". It is UTF-16 or UTF-32: save it as UTF-8"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        return ". It begins as a JSON array: name it .json"
    return ""


def row_spans(stream: BinaryIO, url: str, *, by_line: bool) -> Iterator[Span]:
    """Every row of the file; raises ValueError where it is no JSON array or lines."""
    array = not by_line and is_array(stream.read(AHEAD), url)
    stream.seek(0)
    if array:
        yield from array_spans(stream, url)
    else:
        yield from line_spans(stream, url, strict=not by_line)


def line_spans(stream: BinaryIO, url: str, *, strict: bool) -> Iterator[Span]:
    """The rows of JSON lines from where the stream stands; `strict`: the first must be whole."""
    offset = stream.tell()
    while line := stream.readline(MAX_LINE):
        if line.strip(b"\xef\xbb\xbf \t\r\n"):
            row = parse_line(line)
            if strict and isinstance(row, Defect):
                raise ValueError(
                    f"{url}: neither JSON lines nor an array: the first line is not a whole row. "
                    "A single object cannot be read as rows"
                )
            strict = False
            yield offset, len(line), row
        offset += len(line)


def decode_value(buffer: str, position: int) -> tuple[object, int]:
    """(the value at `position` of latin-1 text, where it ends); raises JSONDecodeError."""
    try:
        row, end = DECODER.raw_decode(buffer, position)
    except RecursionError:
        return Defect("broken_json", "nested too deep"), end_of_nested(buffer, position)
    text = buffer[position:end]
    return (row if text.isascii() else parse_line(text.encode("latin-1"))), end


def end_of_nested(buffer: str, position: int) -> int:
    """Where the object or array at `position` ends; raises JSONDecodeError where it does not."""
    depth = 0
    for mark in NESTING.finditer(buffer, position):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(mark[0], 0)
        if depth == 0:
            return mark.end()
    raise json.JSONDecodeError("Unterminated value", buffer, position)


def is_truncated(error: json.JSONDecodeError, buffer: str, position: int) -> bool:
    """Whether more of the file may complete the value at `position` of the buffer."""
    near = error.pos > len(buffer) - CUT or error.msg.startswith("Unterminated")
    return near and len(buffer) - position < MAX_LINE


def array_spans(stream: BinaryIO, url: str, *, start: int = 0, first: int = 0) -> Iterator[Span]:
    """The rows of a JSON array, from the one at byte `start` (0: of the whole file), read in
    chunks, the first of `first` bytes; raises ValueError where it is broken.
    """
    if start or stream.seekable():
        stream.seek(start)
    opening = "" if start else "["
    for offset, length, (row,) in values(
        stream, url, opening, "]", decode_element, start=start, first=first
    ):
        yield offset, length, row


def members(stream: BinaryIO, url: str) -> Iterator[tuple[str, object]]:
    """(name, value) of every member of the JSON object that the file is, in order, a chunk in
    memory at a time; raises ValueError where it is broken.
    """
    for _, _, (name, value) in values(stream, url, "{", "}", decode_member):
        yield str(name), value


Decode = Callable[[str, int], tuple[tuple[object, ...], int]]
"""(buffer, position) -> (what stands there, its value last; where it ends)."""


def values(
    stream: BinaryIO,
    url: str,
    opening: str,
    closing: str,
    decode: Decode,
    *,
    start: int = 0,
    first: int = 0,
) -> Iterator[tuple[int, int, tuple[object, ...]]]:
    """(offset, length, what was decoded) of all from after `opening` up to `closing`; the stream
    stands at byte `start`. At first `first` bytes are read, then smaller chunks, or all in CHUNKs.

    The buffer is latin-1 text, one character per byte, so that positions are byte offsets; JSON's
    own syntax is ASCII, and each value is decoded as UTF-8 afterwards.
    """
    buffer = stream.read(first or CHUNK).decode("latin-1")
    base, position = start, buffer.index(opening) + len(opening)
    ended = False
    while True:
        space = SPACE.match(buffer, position)
        position = space.end() if space else position
        if buffer[position : position + 1] == closing:
            return
        try:
            found, end = decode(buffer, position)
            cut = type(found[-1]) in (int, float) and end > len(buffer) - CUT  # more digits
            problem = ""
        except json.JSONDecodeError as error:
            cut = is_truncated(error, buffer, position)
            problem = f"{url}: broken JSON at byte {base + error.pos}: {error.msg}"
        if cut and not ended:
            more = stream.read(max(AHEAD if first else CHUNK, len(buffer) - position))
            ended = not more
            base += position
            buffer, position = buffer[position:] + more.decode("latin-1"), 0
        elif problem:
            raise ValueError(problem)
        else:
            yield base + position, end - position, found
            position = end


def decode_element(buffer: str, position: int) -> tuple[tuple[object], int]:
    """(the element at `position`, where it ends); raises JSONDecodeError."""
    value, end = decode_value(buffer, position)
    return (value,), end


def decode_member(buffer: str, position: int) -> tuple[tuple[str, object], int]:
    """(name and value of the member at `position`, where it ends); raises JSONDecodeError."""
    name, end = decode_value(buffer, position)
    between = COLON.match(buffer, end)
    if not isinstance(name, str) or between is None:
        raise json.JSONDecodeError("Expecting a name and ':'", buffer, end)
    value, end = decode_value(buffer, between.end())
    return (name, value), end


Whole = Callable[[object], bool]
"""Knows a row of the layout."""


def block_spans(
    stream: BinaryIO, url: str, start: int, stop: int, *, array: bool, whole: Whole
) -> Iterator[Span]:
    """The rows of the block of bytes `start` to `stop`."""
    if not array:
        stream.seek(max(0, start - 1))
        if start:
            stream.readline(MAX_LINE)
        for span in line_spans(stream, url, strict=False):
            if span[0] >= stop:
                return
            yield span
        return
    begin = first_row(stream, start, stop, whole) if start else 0
    if begin is None:
        return
    for span in array_spans(stream, url, start=begin, first=max(AHEAD, stop - begin)):
        if span[0] >= stop and whole(span[2]):
            return
        yield span


def first_row(stream: BinaryIO, start: int, stop: int, whole: Whole) -> int | None:
    """The offset of the first whole row of an array in `start` (not 0) to `stop`, if any is."""
    before = min(start, BEFORE)
    stream.seek(start - before)
    buffer = stream.read(stop - start + before).decode("latin-1")
    end = len(buffer)
    position = buffer.find("{", before)
    while 0 <= position < end:
        more = b""
        try:
            row, _ = decode_value(buffer, position)
            if whole(row) and not buffer[:position].rstrip().endswith(":"):
                return start - before + position
        except json.JSONDecodeError as error:
            if is_truncated(error, buffer, position):
                more = stream.read(max(AHEAD, len(buffer) - position))
                buffer += more.decode("latin-1")
        if not more:
            position = buffer.find("{", position + 1)
    return None
