"""Files of rows other than plain JSON (annotations.py): Parquet, compressed JSON lines, CSV.

| file                    | counted at planning | read by a part | row label     |
|-------------------------|---------------------|----------------|---------------|
| *.parquet               | footer only         | its row groups | row in subset |
| *.jsonl.gz, *.jsonl.zst | not at all          | the whole file | file-row      |
| *.csv, *.tsv (also .gz) | read once           | its rows       | file-row      |
| *.txt, *.md; images   | not at all          | the whole file | file in order |

A row that does not parse is yielded as its text, and becomes a sample with a defect. A file that
has none of the columns of its layout is a ValueError.
"""

import csv
import io
import lzma
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, BinaryIO, cast

from pipelines.reading import stretches
from pipelines.reading.arrow_rows import class_names, require_one_of_each, with_classes
from pipelines.reading.content import WHOLE_BYTES
from pipelines.reading.files import File, label_of, open_file
from pipelines.reading.json_spans import MAX_LINE, parse_line
from pipelines.reading.streams import MAX_EXPANSION, UNSUSPECTED, decompressed, lines
from pipelines.reading.unread_media import columns_read
from pipelines.reading.values import MOST_LOST, is_network, values
from pipelines.sources.cells import decoded, encoding_of
from pipelines.sources.sample import Defect, Source

CELL_CHARACTERS = 32 << 20
"""Of a cell of a CSV file, at most: what follows a quote that is never closed is one cell; images
in base64 are, too."""
BATCH_BYTES = 32 << 20
"""Bytes of Parquet rows decoded at once."""
ROW_BYTES = 256 << 20
"""Bytes of one row of Parquet, at most: what one line of JSON may be, and its media."""
MOST_VALUES = 500_000_000
"""Values of a column of a row group: run lengths write a thousand million in five bytes."""
COMPRESSED = re.compile(r"\.(jsonl?|ndjson)\.(gz|zst|bz2|xz)\Z")
SEPARATED = re.compile(r"\.(?P<by>csv|tsv)(\.(?P<packed>gz|zst|bz2|xz))?\Z")
"""Tables of text: commas or tabs between cells; perhaps compressed."""


@dataclass(frozen=True)
class Footer:
    """A Parquet file's row groups: rows, bytes as stored and bytes in memory of each."""

    rows: tuple[int, ...]
    stored: tuple[int, ...]
    num_bytes: tuple[int, ...]


def check_columns(file: File, found: Sequence[str], source: Source) -> None:
    """Raises ValueError unless every column of the source's layout is among `found`, and each name
    stands for one column: of two the last would be taken.
    """
    require_one_of_each(file.url, found)
    for absent in source.lacks(found):
        raise ValueError(
            f"{file.url}: no column {absent!r}, which {source.name} rows have\nfound: "
            f"{', '.join(sorted(found)) or 'none'}\nway out: use the source whose layout this file "
            "has (python -m pipelines sources), or say which column it is: columns: {...}"
        )


def footer(file: File, source: Source) -> Footer:
    """The file's row groups, from its footer; raises ValueError where it is no such Parquet."""
    about = parquet_metadata(file)
    check_columns(file, about.schema.to_arrow_schema().names, source)
    groups = [about.row_group(n) for n in range(about.num_row_groups)]
    stored = [
        sum(g.column(n).total_compressed_size for n in range(about.num_columns)) for g in groups
    ]
    in_memory = tuple(group.total_byte_size for group in groups)
    return Footer(tuple(group.num_rows for group in groups), tuple(stored), in_memory)


def parquet_metadata(file: File) -> Any:
    """The file's footer; raises ValueError where it is no Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if stretches.is_elsewhere(file.url, file.content):
            return stretches.footer(file.url, file.size, file.content)
        with open_file(file.url, file.size) as stream:
            return pq.ParquetFile(stream).metadata
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:  # the last of columns' names
        if isinstance(error, FileNotFoundError | PermissionError | ConnectionError):
            raise
        raise ValueError(f"{file.url}: not a readable Parquet file ({error})") from error


def parquet_schema(file: File) -> Any:
    """The file's Arrow schema."""
    return parquet_metadata(file).schema.to_arrow_schema()


def parquet_rows(
    url: str,
    size: int,
    groups: Sequence[int],
    source: Source,
    content: str = "",
    *,
    start: int = 0,
) -> Iterator[object]:
    """The rows of the row groups from the `start`th of each, in order, a few in memory at a time:
    the columns that the source reads. Of a group that cannot be decoded, what is left of its rows
    are Defects, as is a row that would take more than ROW_BYTES.
    """
    import pyarrow.parquet as pq

    with ExitStack() as stack:
        stream = stack.enter_context(open_file(url, size, content=content))
        remote = stretches.is_elsewhere(url, content)
        about = stretches.footer(url, size, content) if remote else None
        file = pq.ParquetFile(stream, metadata=about)
        about = file.metadata
        columns = columns_read(file.schema_arrow, source)
        classes = class_names(file.schema_arrow) if source.by_config else {}
        if content and 0 <= size <= WHOLE_BYTES and len(groups) == about.num_row_groups:
            stream.seek(0)
            stream, remote = stack.enter_context(io.BytesIO(stream.read())), False
        for group in groups:
            place = stream
            if remote:
                place = stretches.group_stream(url, stream, about.row_group(group), columns)
            for row in group_rows(place, about, group, columns, start=start):
                yield with_classes(row, classes)


def group_rows(
    stream: BinaryIO, about: Any, group: int, columns: Sequence[str], *, start: int = 0
) -> Iterator[object]:
    """These columns of the rows of one row group from the `start`th, of which there are as many as
    the footer says.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = about.row_group(group)
    given, why = 0, "the footer says more rows"
    try:
        chunks = [rows.column(number) for number in range(rows.num_columns)]
        read = [chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns]
        repeating = [chunk.path_in_schema for chunk in read if may_repeat(chunk)]
        row_bytes = rows.total_byte_size // max(1, rows.num_rows)
        at_once = max(1, min(256, BATCH_BYTES // max(1, row_bytes)))
        if stored := next(filter(None, map(too_expansive, read)), ""):
            given, why = rows.num_rows - (start == 0), stored  # one line stands for all
        else:
            file = pq.ParquetFile(
                stream,
                metadata=about,
                page_checksum_verification=True,
                read_dictionary=repeating,
                # A thread of Arrow that still reads a Python stream as the process ends aborts it:
                # https://github.com/apache/arrow/issues/34314
                pre_buffer=False,
            )
            for batch in file.iter_batches(
                batch_size=at_once, row_groups=[group], columns=columns, use_threads=False
            ):
                passed = min(len(batch), max(0, start - given))
                given += passed  # before they become values of Python's
                for row in batch_rows(batch.slice(passed), one_by_one=bool(repeating)):
                    if given < rows.num_rows:
                        given += 1
                        yield row
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last of columns' names
        if getattr(error, "errno", None) is not None or is_network(error):
            raise
        why = str(error).splitlines()[0]
    for _ in range(max(0, start - given), min(rows.num_rows - given, MOST_LOST)):
        yield Defect("broken_rows", f"row group {group} does not decode: {why}"[:200])


def may_repeat(column: Any) -> bool:
    """Whether a column of texts or bytes may hold one long value many times: writers keep
    dictionaries of about 1 MB, but a value of 20 MB takes 2 kB when it is one letter.
    """
    shared = column.has_dictionary_page or "DELTA_BYTE_ARRAY" in column.encodings
    most = column.total_uncompressed_size * column.num_values
    packed = column.total_uncompressed_size > 8 * column.total_compressed_size
    return column.physical_type == "BYTE_ARRAY" and shared and packed and most > ROW_BYTES


def too_expansive(column: Any) -> str:
    """Why a column is not read at all: it would become far more than it is; else nothing."""
    size, stored = column.total_uncompressed_size, column.total_compressed_size
    if size > UNSUSPECTED and size > MAX_EXPANSION * stored:
        return f"{stored:,} bytes of {column.path_in_schema} become {size:,}"
    if column.num_values > MOST_VALUES:
        return f"{column.num_values:,} values of {column.path_in_schema}"
    return ""


def batch_rows(batch: Any, *, one_by_one: bool) -> Iterator[object]:
    """The rows of a batch as mappings; `one_by_one`: what one row takes is looked at first."""
    if not one_by_one:
        yield from values(batch)
        return
    for number in range(batch.num_rows):
        row = batch.slice(number, 1)
        size = sum(value_bytes(column) for column in row.columns)
        yield (
            Defect("too_many_bytes", f"a row of {size:,} bytes")
            if size > ROW_BYTES
            else values(row)[0]
        )


def value_bytes(column: Any) -> int:
    """Bytes of the texts and bytes in a column, each as often as it stands there."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_dictionary(kind):
        lengths = pc.binary_length(column.dictionary).take(column.indices)
        return int(pc.sum(lengths).as_py() or 0)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return value_bytes(column.flatten())
    if pa.types.is_struct(kind):
        return sum(map(value_bytes, column.flatten()))
    return int(column.nbytes)


def compressed_rows(url: str, size: int, content: str = "") -> Iterator[object]:
    """The rows of a compressed JSON-lines file, in order; a line that does not parse is its text.

    A stream that breaks off ends with the Defect `truncated_file` in place of a row, one that
    becomes far more than it is with `too_many_bytes`.
    """
    with (
        open_file(url, size, content=content) as raw,
        decompressed(raw, url.rpartition(".")[2]) as stream,
    ):
        try:
            for line in lines(stream, MAX_LINE):
                if line.strip():
                    yield parse_line(line)
            if getattr(stream, "cut", False):
                yield Defect("truncated_file", f"{base_name(url)} breaks off")
        except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
            if is_network(error):
                raise
            yield Defect("truncated_file", f"{base_name(url)}: {error}")
        except Defect as defect:
            yield defect


def base_name(url: str) -> str:
    """The file's name, which says nothing of this machine."""
    return url.rpartition("/")[2]


def document_row(file: File) -> object:
    """The row of a file that is one document: {text}, or the Defect that it is."""
    try:
        with open_file(file.url, file.size) as stream:
            data = stream.read(MAX_LINE + 1)
    except PermissionError as error:
        return Defect("unreadable_media", f"{base_name(file.url)}: {error.strerror}")
    if len(data) > MAX_LINE:
        return Defect("too_many_bytes", base_name(file.url))
    try:
        return {"text": decoded(data, base_name(file.url))}
    except Defect as defect:
        return defect


def labelled_row(file: File) -> dict[str, Any]:
    """The row of an image in the folder of its class: {file_name, label}."""
    return {"file_name": file.name, "label": label_of(file)}


def open_text(url: str, size: int) -> io.TextIOWrapper:
    """The file as text, with its line breaks as they are, in UTF-8 or what its byte order mark
    says; bytes that are none become lone surrogates, which no text of a row may hold.
    """
    stream = open_file(url, size)
    packed = SEPARATED.search(url.lower())
    if packed and packed["packed"]:
        inner = decompressed(stream, packed["packed"])
        stream = cast(BinaryIO, io.BufferedReader(inner, buffer_size=64 << 10))
        with header_errors(url):
            encoding = encoding_of(cast(io.BufferedReader, stream).peek(4)[:4])
    else:
        encoding = encoding_of(stream.read(4))
        stream.seek(0)
    escape = "surrogateescape" if encoding == "utf-8" else "surrogatepass"
    name = "utf-8-sig" if encoding == "utf-8" else encoding
    return io.TextIOWrapper(stream, name, escape, newline="")


def csv_rows(url: str, size: int) -> Iterator[object]:
    """The rows of a CSV or TSV file with a header, in order, as `datasets` reads a metadata.csv:
    quotes doubled; an empty cell is null. A line of too many or too few cells is a Defect.
    """
    with open_text(url, size) as text:
        names, reader = csv_names(text, url)
        while True:
            csv.field_size_limit(CELL_CHARACTERS)
            begun = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:  # a quote that does not end its cell, a cell too long, NUL
                lines = (
                    f"line {begun} is"
                    if begun == reader.line_num
                    else (f"lines {begun} to {reader.line_num} are")
                )
                yield Defect("wrong_schema", f"{lines} no CSV: {error}")
                continue
            except UnicodeDecodeError:  # of UTF-16; what follows cannot be told apart
                yield Defect("broken_text", f"line {reader.line_num + 1} is no {text.encoding}")
                return
            except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
                if is_network(error) or not SEPARATED.search(url.lower()):
                    raise
                yield Defect("truncated_file", f"{base_name(url)}: {error}")
                return
            except Defect as defect:
                yield defect
                return
            if cells:
                row = dict(zip(names, (cell or None for cell in cells), strict=False))
                whole = f"{len(cells)} cells, expected {len(names)}"
                yield row if len(cells) == len(names) else Defect("wrong_schema", whole)


@contextmanager
def header_errors(url: str) -> Iterator[None]:
    """What goes wrong in the first line of a table of text is a ValueError that names the file."""
    try:
        yield
    except (csv.Error, UnicodeDecodeError, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        if getattr(error, "errno", None) is not None or is_network(error):
            raise
        raise ValueError(f"{url}: its first line is no CSV header ({error})") from error
    except Defect as defect:
        raise ValueError(f"{url}: its first line is no CSV header ({defect})") from defect


def csv_names(text: io.TextIOWrapper, url: str) -> tuple[list[str], Any]:
    """(the names of the columns, a reader of the lines that follow)."""
    csv.field_size_limit(CELL_CHARACTERS)  # of the process: packages set it on import
    with header_errors(url):
        reader = csv_reader(text, url)
        return next(reader, []), reader


def csv_reader(text: io.TextIOWrapper, url: str) -> Any:
    """The cells of each line: a tab stands between them in .tsv, a comma in .csv, or a semicolon,
    tab or bar (as spreadsheets write it where a comma is in numbers) where its first line has no
    comma, or the second has as many cells as the first by that mark and not by commas.
    """
    found = SEPARATED.search(url.lower())
    read = [text.readline(CELL_CHARACTERS)]
    marks = [mark for mark in ",;\t|" if mark in read[0]]
    if found is not None and found["by"] == "tsv":
        marks = ["\t"]
    elif "," in marks and len(marks) > 1:
        read.append(text.readline(CELL_CHARACTERS))
        numbers = {mark: [num_cells(line, mark) for line in read] for mark in marks}
        marks = [mark for mark, (head, row) in numbers.items() if head == row > 1]
    return csv.reader(chain(read, text), delimiter=(*marks, ",")[0], strict=True)


def num_cells(line: str, mark: str) -> int:
    """How many cells the line has, if that mark stands between them; 0: it is no whole line."""
    try:
        return len(next(csv.reader([line], delimiter=mark, strict=True), []))
    except csv.Error:
        return 0


def csv_header(file: File, source: Source) -> int:
    """How many rows a CSV file has; raises ValueError where it is not of the source's layout."""
    with open_text(file.url, file.size) as text:
        check_columns(file, csv_names(text, file.url)[0], source)
    return sum(1 for _ in csv_rows(file.url, file.size))
