"""A file of annotations as a table: a key, the numbers asked for, and what was wrong with each.

| file                           | holds                                                    |
|--------------------------------|----------------------------------------------------------|
| .json                          | {key: {field: value}}, or rows: an array, an object a    |
|                                | line                                                     |
| .jsonl, .ndjson, .csv, .tsv    | rows, with the key among their columns                   |
| .parquet                       | rows; of the columns no others are read                  |

All but Parquet may be compressed (.gz, .zst, .bz2, .xz). A number is one, true or false (1 and 0),
or text that is one; what is none is null, with the reason. A file that is broken, or is none of
these, is a ValueError: nothing of it is taken for absent.
"""

import io
import lzma
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain, islice
from typing import Any, BinaryIO, cast

import polars as pl

from pipelines.reading import json_spans, rows
from pipelines.reading.files import File, open_file
from pipelines.reading.keys import key_of, plain_key
from pipelines.reading.streams import decompressed, lines
from pipelines.reading.values import is_network
from pipelines.sources import cells
from pipelines.sources.paths import value_at
from pipelines.sources.sample import Defect

KINDS = re.compile(
    r"\.(?P<kind>jsonl?|ndjson|csv|tsv|parquet)(\.(?P<packed>gz|zst|bz2|xz))?\Z", re.IGNORECASE
)
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*\Z", re.ASCII)
REASONS = ("", "no such field", "null", "not a number", "not finite")
"""Why a number is null; the first: it is not."""
NO_FIELD, NULL, NO_NUMBER, NOT_FINITE = range(1, len(REASONS))
LOOKED = 200
"""Keys of a file that are looked at for a field, before all is read."""
HEAD = 64 << 10
"""Bytes that say what a .json file is."""

Wanted = tuple[tuple[str, str], ...]
"""(fact, field) pairs."""


def read_fact_file(file: File, *, key: str, fields: Wanted) -> pl.DataFrame:
    """Columns key (text), repeated (its rows differ), and of each fact its number and `FACT why`
    (an index of REASONS); a key once.

    Raises:
        ValueError: it is broken, has no column `key`, or is of no known kind.
    """
    if KINDS.search(file.name) and kind_of(file) == "parquet":
        frame = of_parquet(file, key=key, fields=fields)
    else:
        frame = of_rows(keyed_rows(file, key), fields)
    return once(frame.filter(pl.col("key").is_not_null()))


@lru_cache(maxsize=2)
def fact_file(file: File, *, key: str, fields: Wanted) -> pl.DataFrame:
    """The same, made once for parts that share a file."""
    return read_fact_file(file, key=key, fields=fields)


def kind_of(file: File) -> str:
    """json, jsonl, csv or parquet; raises ValueError for another ending."""
    found = KINDS.search(file.name)
    if found is None or (found["kind"] == "parquet" and found["packed"]):
        raise ValueError(
            f"{file.url}: no file of annotations\n"
            "expected: .json, .jsonl, .csv or .tsv (also .gz, .zst, .bz2, .xz), or .parquet"
        )
    kind = found["kind"].lower()
    return {"ndjson": "jsonl", "tsv": "csv"}.get(kind, kind)


def once(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with each key once; `repeated` where its rows differ, whose numbers are null."""
    numbers = [name for name in frame.columns if name != "key"]
    if not frame["key"].is_duplicated().any():
        return frame.with_columns(repeated=pl.lit(value=False))
    differs = pl.any_horizontal([pl.lit(value=False), *(pl.col(n).n_unique() > 1 for n in numbers)])
    return frame.group_by("key", maintain_order=True).agg(
        *(pl.col(name).first() for name in numbers), repeated=differs
    )


# ------------------------------------------------------------------ rows


@contextmanager
def opened(file: File) -> Iterator[BinaryIO]:
    """What is inside the file, as a stream; raises ValueError where its compression is damaged."""
    packed = (KINDS.search(file.name) or {"packed": ""})["packed"]
    with open_file(file.url, file.size, content=file.content) as raw:
        stream = decompressed(raw, packed.lower()) if packed else raw
        try:
            yield cast(BinaryIO, io.BufferedReader(stream, 1 << 20) if packed else stream)
            cut = getattr(stream, "cut", False)
        except (zlib.error, lzma.LZMAError, OSError, EOFError, Defect) as error:
            if isinstance(error, FileNotFoundError | PermissionError) or is_network(error):
                raise
            raise ValueError(f"{file.url}: cannot be read to its end ({error})") from error
        if cut:
            raise ValueError(f"{file.url}: breaks off. Fetch it again.")


def keyed_rows(file: File, key: str) -> Iterator[tuple[str | None, object]]:
    """(key, row) of everything in a file that is not Parquet; a row without key: null."""
    kind = kind_of(file)
    if kind == "csv":
        yield from with_keys(rows.csv_rows(file.url, file.size), file, key)
        return
    with opened(file) as stream:
        if packs(file):
            head = cast(io.BufferedReader, stream).peek(HEAD)[:HEAD]
        else:
            head = stream.read(HEAD)
            stream.seek(0)
        if not head.strip(b"\xef\xbb\xbf \t\r\n"):
            return  # a shard without samples
        require_utf8(head, file)
        if kind == "json" and is_keyed(head):
            for name, row in json_spans.members(stream, file.url):
                yield plain_key(name), row
        elif kind == "json" and json_spans.is_array(head, file.url):
            array = json_spans.array_spans(stream, file.url)
            yield from with_keys((row for _, _, row in array), file, key)
        else:
            found = lines(stream, json_spans.MAX_LINE)
            parsed = (json_spans.parse_line(line) for line in found if line.strip())
            yield from with_keys(parsed, file, key)


def packs(file: File) -> bool:
    """Whether it is compressed: then its stream does not go back."""
    found = KINDS.search(file.name)
    return bool(found and found["packed"])


def require_utf8(head: bytes, file: File) -> None:
    """Raises ValueError where a file is text of another encoding."""
    encoding = cells.encoding_of(head)
    if encoding != "utf-8" or b"\0" in head[:4]:
        raise ValueError(f"{file.url}: is {encoding.upper()}, expected UTF-8. Save it as UTF-8.")


def is_keyed(head: bytes) -> bool:
    """Whether a .json file is one object of key -> fields: its first value is an object, and it is
    no row that ends with its line.
    """
    text = head.decode("latin-1").lstrip("\xef\xbb\xbf \t\r\n")
    if not text.startswith("{"):
        return False
    if re.match(r"\{\s*\}", text):
        return True
    first = re.match(r'\{\s*"(?:[^"\\]|\\.)*"\s*:\s*(.)', text, re.DOTALL)
    if first is None:
        return True  # broken; where, `members` says
    line, _, after = text.partition("\n")
    several = after.lstrip().startswith("{") and line.rstrip().endswith("}")
    return first[1] == "{" and not several


def with_keys(
    values: Iterable[object], file: File, key: str
) -> Iterator[tuple[str | None, object]]:
    """(key, row) of rows; raises ValueError where one is no row, or none of the first has a key."""
    names: dict[str, None] = {}
    number, keyed = 0, False
    for number, row in enumerate(values, 1):
        if isinstance(row, Defect) or not isinstance(row, Mapping):
            what = str(row) if isinstance(row, Defect) else f"it is {type(row).__name__}"
            raise ValueError(f"{file.url}: row {number} cannot be read: {what}")
        name = key_of(row, key)
        keyed = keyed or name is not None
        if not keyed:
            names.update(dict.fromkeys(row))
            if number == LOOKED:
                break
        yield name, row
    if number and not keyed:
        raise ValueError(
            f"{file.url}: no key {key!r} in its first {number:,} rows.{closest(key, names)}\n"
            "way out: say which column names the sample: annotations: {file_key: COLUMN}"
        )


def closest(name: str, known: Iterable[str]) -> str:
    """The end of a message about a name that is not there."""
    from pipelines.reading.configs import near

    return f" {near(name, known)}"


def of_rows(found: Iterable[tuple[str | None, object]], fields: Wanted) -> pl.DataFrame:
    """Rows as a frame: key, and of each fact its number and why it is null."""
    keys: list[str | None] = []
    numbers: list[list[float | None]] = [[] for _ in fields]
    reasons: list[bytearray] = [bytearray() for _ in fields]
    for key, row in found:
        keys.append(key)
        for (_, path), values, why in zip(fields, numbers, reasons, strict=True):
            value, reason = number_of(row, path)
            values.append(value)
            why.append(reason)
    columns: dict[str, Any] = {"key": pl.Series(keys, dtype=pl.String)}
    for (fact, _), values, why in zip(fields, numbers, reasons, strict=True):
        columns[fact] = pl.Series(values, dtype=pl.Float64)
        columns[f"{fact} why"] = pl.Series(list(why), dtype=pl.UInt8)
    return pl.DataFrame(columns)


def number_of(row: object, path: str) -> tuple[float | None, int]:
    """(the number at the path below an annotation, why it is null)."""
    if not isinstance(row, Mapping):
        return None, NO_FIELD
    value = row.get(path)
    if value is None and path not in row:
        try:
            value = value_at(row, path)
        except Defect:
            return None, NO_FIELD
        if value is None:
            return None, NULL if has_field(row, path) else NO_FIELD
    return as_number(value)


def has_field(row: Mapping[str, Any], path: str) -> bool:
    """Whether the path leads to a null that is stated."""
    above, dot, last = path.rpartition(".")
    if not dot:
        return path in row
    try:
        holder = value_at(row, above)
    except Defect:
        return False
    return isinstance(holder, Mapping) and last in holder


def as_number(value: object) -> tuple[float | None, int]:
    """(the finite number that a value is, why it is none)."""
    if value is None:
        return None, NULL
    if isinstance(value, str):
        if not value.strip():
            return None, NULL
        if not NUMBER.match(value):
            said = value.strip().lower().lstrip("+-")
            return None, NOT_FINITE if said in ("nan", "inf", "infinity") else NO_NUMBER
    elif isinstance(value, list | Mapping | bytes):
        return None, NO_NUMBER
    try:
        number = float(value)  # type: ignore[arg-type]
    except OverflowError:
        return None, NOT_FINITE
    except (TypeError, ValueError):
        return None, NO_NUMBER
    return (number, 0) if math.isfinite(number) else (None, NOT_FINITE)


# ------------------------------------------------------------------ Parquet


def of_parquet(file: File, *, key: str, fields: Wanted) -> pl.DataFrame:
    """The same of a Parquet file, of which only the columns asked for are read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = rows.parquet_schema(file).names
    columns = {path: column_of(path, names) for path in (key, *(path for _, path in fields))}
    if columns[key] is None:
        raise ValueError(
            f"{file.url}: no key {key!r}.{closest(key, names)}\n"
            "way out: say which column names the sample: annotations: {file_key: COLUMN}"
        )
    wanted = sorted({name for name in columns.values() if name is not None})
    try:
        with open_file(file.url, file.size, content=file.content) as stream:
            table = pq.ParquetFile(stream, pre_buffer=False).read(columns=wanted, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None or is_network(error):
            raise
        raise ValueError(f"{file.url}: not a readable Parquet file ({error})") from error
    frame = pl.DataFrame(pl.from_arrow(table))
    made: dict[str, Any] = {"key": key_column(frame, key, columns[key])}
    for fact, path in fields:
        made[fact], made[f"{fact} why"] = number_column(frame, path, columns[path])
    return pl.DataFrame(made)


def column_of(path: str, names: Iterable[str]) -> str | None:
    """The column in which a path begins, the longest that fits; null: none."""
    parts = path.split(".")
    heads = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((head for head in heads if head in set(names)), None)


def key_column(frame: pl.DataFrame, key: str, column: str | None) -> pl.Series:
    """The keys as text."""
    assert column is not None
    plain = frame[column]
    if column == key and (plain.dtype == pl.String or plain.dtype.is_integer()):
        return plain.cast(pl.String).str.strip_prefix("./")
    return pl.Series([key_of(row, key) for row in frame.select(column).to_dicts()], dtype=pl.String)


def number_column(
    frame: pl.DataFrame, path: str, column: str | None
) -> tuple[pl.Series, pl.Series]:
    """(the numbers of a field, why each is null)."""
    if column is None:
        nothing = pl.Series([None] * len(frame), dtype=pl.Float64)
        return nothing, pl.Series([NO_FIELD] * len(frame), dtype=pl.UInt8)
    plain = frame[column]
    if column == path and (plain.dtype.is_numeric() or plain.dtype == pl.Boolean):
        number = plain.cast(pl.Float64)
        finite = number.is_finite()
        why = pl.select(
            pl.when(plain.is_null())
            .then(NULL)
            .when(finite)
            .then(0)
            .otherwise(NOT_FINITE)
            .cast(pl.UInt8)
        ).to_series()
        return pl.select(pl.when(finite).then(number)).to_series(), why
    found = [number_of(row, path) for row in frame.select(column).to_dicts()]
    values, reasons = [value for value, _ in found], [reason for _, reason in found]
    return pl.Series(values, dtype=pl.Float64), pl.Series(reasons, dtype=pl.UInt8)


# ------------------------------------------------------------------ what a file has


def first_rows(file: File, key: str) -> list[object]:
    """Its first rows, LOOKED at most."""
    if kind_of(file) == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = rows.parquet_schema(file).names
        try:
            with open_file(file.url, file.size, scattered=True) as stream:
                read = pq.ParquetFile(stream, pre_buffer=False)
                batch = next(read.iter_batches(batch_size=LOOKED, use_threads=False), None)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{file.url}: not a readable Parquet file ({error})") from error
        return [dict.fromkeys(names)] if batch is None else list(batch.to_pylist())
    return [row for _, row in islice(keyed_rows(file, key), LOOKED)]


def names_in(found: Iterable[object], above: str = "") -> list[str]:
    """The fields of annotations, those inside others by their path."""
    names: dict[str, None] = {}
    for row in found:
        for name, value in row.items() if isinstance(row, Mapping) else ():
            inner = names_in([value], f"{above}{name}.") if isinstance(value, Mapping) else []
            names.update(dict.fromkeys(chain([f"{above}{name}"] if not inner else [], inner)))
    return list(names)
