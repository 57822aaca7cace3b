"""The only Arrow IO of the build: a table becomes a file whole or not at all, on any file system.

Every file is in the Arrow IPC *file* format, uncompressed, cut into record batches of a known
number of rows, so that it can be memory-mapped and any row found without reading the others.

Each record batch carries a hash of each of its columns, which is compared whenever a column of the
batch is read: what has changed on the way raises `DamagedError`, which names the file.
"""

import io
import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import numpy as np
import pyarrow as pa
import xxhash

ROWS_PER_BATCH = 256
"""Small enough that one row costs little to reach, large enough that 1 M rows are 4,000 batches."""

BLOCK_BYTES = 8 << 20
"""Read ahead on an object store; a file of at most so many bytes is fetched whole."""

ROWS = "\0rows"
"""In the metadata of a file's last batch: rows of the file. No column is called so."""

ATTEMPTS = 5
"""Tries at a remote write or read before its error is passed on, 1, 2, 4, 8 s apart."""
PASSING = frozenset({"408", "429", "500", "502", "503", "504"})
"""Statuses of HTTP that may pass by themselves."""


class FileError(ValueError):
    """A file is not what it is said to be: the data's fault, wherever it is found."""


class DamagedError(FileError):
    """A file of ours is not as it was written."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(path, why)
        self.path, self.why = path, why

    def __str__(self) -> str:
        return f"{self.path} is damaged: {self.why}"


def is_remote(path: str | Path) -> bool:
    """True of a URL beyond this machine's file system (`s3://`, `gs://`, `hf://`, `memory://`)."""
    return "://" in str(path) and not str(path).startswith(("file://", "local://"))


def join(root: str | Path, *parts: str) -> str:
    """The path of `parts` under `root`, which may be a URL."""
    return "/".join([str(root).rstrip("/"), *parts])


def _local(path: str | Path) -> Path:
    return Path(str(path).removeprefix("file://").removeprefix("local://"))


def retrying(call: Callable[[], Any], *, what: str) -> Any:
    """What `call` returns, tried again with back-off on errors that may pass (connections, 5xx)."""
    for attempt in range(ATTEMPTS):
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
            if attempt == ATTEMPTS - 1:
                error.add_note(f"{what}: failed {ATTEMPTS} times")
                raise
            time.sleep(2**attempt)
    raise AssertionError("unreachable")


def is_transient(error: Exception) -> bool:
    """Whether another attempt may succeed, whichever store's package raised it."""
    if isinstance(error, FileNotFoundError | FileExistsError | PermissionError):
        return False
    connection = any(kind.__module__.startswith("aiohttp") for kind in type(error).__mro__)
    return isinstance(error, OSError) or connection or str(getattr(error, "code", "")) in PASSING


def exists(path: str | Path) -> bool:
    """True where a finished file (or a folder) of that name is."""
    if not is_remote(path):
        return _local(path).exists()
    fs, name = fsspec.core.url_to_fs(str(path))
    fs.invalidate_cache()
    return retrying(lambda: fs.exists(name), what=f"looking for {path}")


def existing(paths: Sequence[str]) -> set[str]:
    """Those of the files that are there, by one listing per folder rather than a look per file."""
    folders = {path.rpartition("/")[0] for path in paths}
    there = {join(folder, name) for folder in folders for name in listing(folder)}
    return there.intersection(paths)


def size(path: str | Path) -> int:
    """Bytes of the file."""
    if not is_remote(path):
        return _local(path).stat().st_size
    fs, name = fsspec.core.url_to_fs(str(path))
    return int(retrying(lambda: fs.size(name), what=f"looking for {path}"))


def listing(folder: str | Path) -> list[str]:
    """Names of what lies directly in `folder`, sorted; empty where it does not exist."""
    if not is_remote(folder):
        root = _local(folder)
        return sorted(p.name for p in root.iterdir()) if root.is_dir() else []
    fs, name = fsspec.core.url_to_fs(str(folder))
    fs.invalidate_cache()
    try:
        found = retrying(lambda: fs.ls(name, detail=False), what=f"listing {folder}")
    except FileNotFoundError:
        return []
    return sorted(str(p).rstrip("/").rsplit("/", 1)[-1] for p in found)


def remove(path: str | Path) -> None:
    """The file or folder at `path`, if any, is gone, also where another process removes it too."""
    fs, name = fsspec.core.url_to_fs(str(path))
    while exists(path):
        with suppress(FileNotFoundError):  # the other one was first with some of it: look again
            retrying(lambda: fs.rm(name, recursive=True), what=f"removing {path}")


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a file for writing that appears under `path` when the block ends, or never.

    On a disk: a temporary name beside it, synced, then renamed. On an object store: gathered in
    memory, then one put (a large one is a multipart upload, which shows only when completed).
    """
    if is_remote(path):
        fs, name = fsspec.core.url_to_fs(str(path))
        buffer = io.BytesIO()
        yield buffer
        retrying(lambda: fs.pipe_file(name, buffer.getvalue()), what=f"writing {path}")
        return
    final = _local(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    draft = final.with_name(f".{final.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(final)
    except BaseException as error:
        draft.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.add_note(f"while writing {final}; nothing was left under that name")
        raise


def write_text(path: str | Path, text: str) -> None:
    """The file holds `text` in UTF-8, whole or not at all."""
    with atomic_file(path) as file:
        file.write(text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """The file holds `value` as indented JSON, keys in the order given."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_bytes(path: str | Path) -> bytes:
    """The file's content."""
    if not is_remote(path):
        return _local(path).read_bytes()
    fs, name = fsspec.core.url_to_fs(str(path))
    return retrying(lambda: fs.cat_file(name), what=f"reading {path}")


def read_json(path: str | Path) -> Any:
    """The JSON value in the file; raises DamagedError where there is none in it."""
    try:
        return json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise DamagedError(str(path), f"no JSON ({error})") from error


def json_if_there(path: str | Path) -> Any | None:
    """The JSON value in the file, or None where there is none: asked and read in one go."""
    try:
        return read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def conform(table: pa.Table, schema: pa.Schema, *, writer: str) -> pa.Table:
    """The table with exactly the columns and types of `schema`.

    Types that differ only in width or layout (Polars writes large lists and strings) are cast.

    Raises:
        ValueError: a column is missing, is too many, or does not cast.
    """
    missing = [name for name in schema.names if name not in table.column_names]
    extra = [name for name in table.column_names if name not in schema.names]
    if missing or extra:
        raise ValueError(f"{writer} wrote columns {table.column_names}, declared {schema.names}.")
    columns = []
    for field in schema:
        column = table.column(field.name)
        if column.type != field.type:
            try:
                column = column.cast(field.type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise ValueError(
                    f"{writer} wrote column '{field.name}' as {column.type}, declared {field.type}."
                ) from error
        columns.append(column)
    return pa.table(columns, schema=schema)


def write(table: pa.Table, path: str | Path, *, rows_per_batch: int = ROWS_PER_BATCH) -> int:
    """The file holds the table in record batches of `rows_per_batch` rows; returns its bytes.

    Equal tables give equal files, however their columns were chunked.
    """
    write_pieces([table], table.schema, path, rows_per_batch=rows_per_batch)
    return size(path)


def write_pieces(
    pieces: Iterable[pa.Table], schema: pa.Schema, path: str | Path, *, rows_per_batch: int
) -> int:
    """The same file as `write` makes of all pieces joined; returns its rows.

    Of the pieces, one and the rows that fill no batch yet are in memory.
    """
    num_rows = 0
    with atomic_file(path) as file, pa.ipc.new_file(file, schema) as writer:
        rest = schema.empty_table()
        for piece in pieces:
            num_rows += piece.num_rows
            waiting = pa.concat_tables([rest, piece]) if rest.num_rows else piece
            whole = (waiting.num_rows - 1) // rows_per_batch * rows_per_batch
            for start in range(0, whole, rows_per_batch):
                _write_batch(writer, waiting.slice(start, rows_per_batch), {})
            rest = compact(waiting.slice(max(0, whole)).combine_chunks())
        _write_batch(writer, rest, {ROWS: str(num_rows)})
    return num_rows


def _write_batch(
    writer: pa.ipc.RecordBatchFileWriter, rows: pa.Table, about: dict[str, str]
) -> None:
    table = compact(rows.combine_chunks())
    columns = [
        column.chunk(0) if column.num_chunks else pa.array([], column.type)
        for column in table.columns
    ]
    batch = pa.record_batch(columns, schema=table.schema)
    writer.write_batch(batch, custom_metadata=hashes(batch) | about)


def hashes(batch: pa.RecordBatch) -> dict[str, str]:
    """Column -> XXH3-128 of what stands in the file for it: the same after writing and reading."""
    return {
        name: xxhash.xxh3_128_hexdigest(
            pa.record_batch([batch.column(name)], names=["column"]).serialize()
        )
        for name in batch.schema.names
    }


def batches(path: str | Path, reader: pa.RecordBatchFileReader) -> Iterator[pa.RecordBatch]:
    """The record batches that `reader` gives, each as it was written; else DamagedError."""
    return (batch_at(path, reader, number) for number in range(reader.num_record_batches))


def batch_at(
    path: str | Path,
    reader: pa.RecordBatchFileReader,
    number: int,
    *,
    columns: Sequence[str] = (),
) -> pa.RecordBatch:
    """The record batch (or those of its columns), as it was written; else DamagedError."""
    with _intact(path):
        found = reader.get_batch_with_custom_metadata(number)
        batch = found.batch.select(list(columns)) if columns else found.batch
        written = dict(found.custom_metadata or {})
        made = hashes(batch) if written else {}
    wrong = [name for name, digest in made.items() if written.get(name.encode()) != digest.encode()]
    if wrong:
        raise DamagedError(str(path), f"batch {number} holds another '{wrong[0]}' than was written")
    return batch


@contextmanager
def _intact(path: str | Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DamagedError(str(path), str(error).splitlines()[0][:200]) from error
    except OSError as error:
        if error.errno is not None or type(error) is not OSError:
            raise
        raise DamagedError(str(path), str(error).splitlines()[0][:200]) from error


def compact(table: pa.Table) -> pa.Table:
    """The table copied into fresh buffers of its own size, which refer to no file and no parent."""
    # `take_rows` starts each column at offset 0, so that the bytes written do not depend on the
    # slice's place in its parent (offsets, padding bits, validity maps).
    return table.take(pa.array(np.arange(table.num_rows)))


def open_file(path: str | Path, *, columns: Sequence[str] = ()) -> pa.RecordBatchFileReader:
    """A reader of the file, memory-mapped on a disk; with `columns`, of those alone.

    Of an object store's file, what is asked for is fetched by ranges; a small one whole.
    """
    with _intact(path):
        source = _source(path)
        reader = pa.ipc.open_file(source)
        if not is_remote(path):  # elsewhere it would be a request
            _refuse_lost_batches(path, reader)
        if not columns:
            return reader
        wanted = [reader.schema.get_field_index(name) for name in columns]
        if -1 in wanted:
            raise DamagedError(
                str(path), f"found columns {reader.schema.names}, expected {list(columns)}"
            )
        options = pa.ipc.IpcReadOptions(included_fields=sorted(wanted))
        return pa.ipc.open_file(source, options=options)


def _refuse_lost_batches(path: str | Path, reader: pa.RecordBatchFileReader) -> None:
    """Raises DamagedError where the footer names fewer batches than were written."""
    count = reader.num_record_batches
    last = reader.get_batch_with_custom_metadata(count - 1) if count else None
    written = dict(last.custom_metadata or {}) if last else {}
    if last is None or (written and ROWS.encode() not in written):
        raise DamagedError(str(path), "its last rows are missing")


def _source(path: str | Path) -> pa.NativeFile:
    if not is_remote(path):
        return pa.memory_map(str(_local(path)), "r")
    fs, name = fsspec.core.url_to_fs(str(path))

    def opened() -> pa.NativeFile:
        file = fs.open(name, "rb", block_size=BLOCK_BYTES, cache_type="readahead")
        if file.size > BLOCK_BYTES:
            return pa.PythonFile(file, mode="r")
        with file:
            return pa.BufferReader(file.read())

    return retrying(opened, what=f"opening {path}")


def read(path: str | Path, *, columns: Sequence[str] = ()) -> pa.Table:
    """The file's table (memory-mapped on a disk); with `columns`, only those, in that order."""
    reader = open_file(path, columns=columns)
    table = pa.Table.from_batches(batches(path, reader), schema=reader.schema)
    return table.select(list(columns)) if columns else table


def head(path: str | Path, rows: int) -> pa.Table:
    """The file's first `rows` rows, or all; only the batches they lie in are touched."""
    reader = open_file(path)
    found: list[pa.RecordBatch] = []
    while sum(map(len, found)) < rows and len(found) < reader.num_record_batches:
        found.append(batch_at(path, reader, len(found)))
    return pa.Table.from_batches(found, schema=reader.schema).slice(0, rows)


def num_rows(path: str | Path) -> int:
    """Rows of the file, without reading a column."""
    reader = open_file(path)
    with _intact(path):
        return sum(reader.get_batch(i).num_rows for i in range(reader.num_record_batches))


def take_rows(path: str | Path, rows: np.ndarray, *, columns: Sequence[str]) -> pa.Table:
    """The rows at `rows` (ascending, may repeat); only the batches they lie in are touched."""
    if not len(rows):
        return open_file(path).schema.empty_table().select(list(columns))
    return pa.concat_tables(taken_rows(path, rows, columns=columns))


def taken_rows(path: str | Path, rows: np.ndarray, *, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The same, those of one record batch at a time; no other column is read."""
    reader = open_file(path, columns=columns)
    batch, start = 0, 0
    while len(rows):
        if batch == reader.num_record_batches:
            raise DamagedError(str(path), f"row {int(rows[0])} asked for, found {start} rows")
        with _intact(path):
            count = reader.get_batch(batch).num_rows
        here = int(np.searchsorted(rows, start + count))
        if here:
            part = pa.table(batch_at(path, reader, batch, columns=columns))
            yield part.take(pa.array(rows[:here] - start))
            rows = rows[here:]
        start += count
        batch += 1


def human_bytes(count: float) -> str:
    """`12.3 MB`: decimal units, three digits."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5 or unit == "TB":
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.3g} {unit}"
        count /= 1000
    raise AssertionError("unreachable")
