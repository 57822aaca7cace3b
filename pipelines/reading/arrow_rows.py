"""Rows of Arrow IPC files, streams (`save_to_disk`) and files alike; and the names of classes that
`datasets` keeps in the schema of a table.

| file   | counted at planning                         | read by a part |
|--------|---------------------------------------------|----------------|
| local  | the heads of its batches, mapped to memory  | its batches    |
| remote | not at all                                  | the whole file |
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from pipelines.reading.files import File, is_url, open_file
from pipelines.reading.unread_media import columns_read
from pipelines.reading.values import MOST_LOST, is_network, values
from pipelines.sources.sample import Defect, Source
from pipelines.sources.shape import of_schema

BATCH_ROWS = 64
"""Rows that are made Python values of at once."""
MAGIC = b"ARROW1"
"""How an Arrow file begins; a stream begins otherwise: https://arrow.apache.org/docs/format."""


@contextmanager
def opened(url: str, size: int) -> Iterator[Any]:
    """A reader of the file's batches; raises pyarrow.ArrowInvalid where it is no Arrow."""
    import pyarrow as pa

    with ExitStack() as stack:
        stream = stack.enter_context(open_file(url, size) if is_url(url) else pa.memory_map(url))
        head = stream.read(len(MAGIC))
        stream.seek(0)
        open_reader = pa.ipc.open_file if head == MAGIC else pa.ipc.open_stream
        yield stack.enter_context(open_reader(stream))


def batches_of(reader: Any, first: int, stop: int | None) -> Iterator[Any]:
    """The batches from `first` to before `stop`."""
    if hasattr(reader, "get_batch"):
        for number in range(first, reader.num_record_batches if stop is None else stop):
            yield reader.get_batch(number)
        return
    for number, batch in enumerate(reader):
        if stop is not None and number >= stop:
            return
        if number >= first:
            yield batch


def schema_of(file: File) -> Any:
    """The file's schema; raises ValueError where it is no Arrow."""
    import pyarrow as pa

    try:
        with opened(file.url, file.size) as reader:
            of_schema(reader.schema)  # every name in it is text
            return reader.schema
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if getattr(error, "errno", None) is not None or is_network(error):
            raise
        raise ValueError(f"{file.url}: not a readable Arrow file ({error})") from error


def sizes_of(file: File) -> list[tuple[int, int]]:
    """(rows, bytes) of every batch of a local file; where it breaks off, a last one of one row."""
    import pyarrow as pa

    found = []
    try:
        with opened(file.url, file.size) as reader:
            for batch in batches_of(reader, 0, None):
                found.append((batch.num_rows, batch.get_total_buffer_size()))
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        found.append((1, 0))
    return found


def require_one_of_each(url: str, names: Sequence[str]) -> None:
    """Raises ValueError where two columns have one name: the last would be taken for both."""
    for name, count in Counter(names).items():
        if name and count > 1:
            raise ValueError(
                f"{url}: {count} columns are called {name!r}.\nexpected: a name for each\n"
                "way out: rename all but one of them."
            )


def arrow_rows(
    url: str,
    size: int,
    source: Source,
    first: int = 0,
    stop: int | None = None,
    *,
    count: int | None = None,
) -> Iterator[object]:
    """The rows of some batches (`count` in all, where known): the columns that the source reads.
    Where they do not decode, what is left of them are Defects.
    """
    import pyarrow as pa

    given = 0
    try:
        with opened(url, size) as reader:
            require_one_of_each(url, reader.schema.names)
            names = columns_read(reader.schema, source)
            classes = class_names(reader.schema) if source.by_config else {}
            for batch in batches_of(reader, first, stop):
                chosen = batch.select(names)
                chosen.validate(full=True)  # else offsets of a damaged file lead anywhere
                for start in range(0, chosen.num_rows, BATCH_ROWS):
                    for row in values(chosen.slice(start, BATCH_ROWS)):
                        given += 1
                        yield with_classes(row, classes)
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None or is_network(error):
            raise
        lost = 1 if count is None else min(count - given, MOST_LOST)
        for _ in range(lost):
            yield Defect("broken_rows", f"the Arrow file does not decode: {error}"[:200])


# ------------------------------------------------------------------ classes


def class_names(schema: Any) -> dict[str, Any]:
    """Column -> where in it are numbers of classes (as `features_in` says), of those that have any:
    `datasets` states them in the schema.
    """
    told = (schema.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(told)["info"]["features"] if told else {}
    except (ValueError, KeyError, TypeError):
        return {}
    found = {name: features_in(feature) for name, feature in dict(features).items()}
    return {name: feature for name, feature in found.items() if feature}


def features_in(feature: Any) -> Any:
    """The names of a ClassLabel; for a list or mapping those of what is inside; else nothing."""
    if isinstance(feature, list):
        return features_in(feature[0]) if feature else None
    if not isinstance(feature, Mapping):
        return None
    if feature.get("_type") == "ClassLabel":
        return list(feature.get("names") or ())
    if isinstance(feature.get("feature"), Mapping | list):
        return features_in(feature["feature"])
    found = {name: features_in(inner) for name, inner in feature.items()}
    return {name: inner for name, inner in found.items() if inner} or None


def with_classes(row: Any, classes: Mapping[str, Any]) -> Any:
    """The row with names of classes in place of their numbers; -1, no class, is null."""
    if not classes or not isinstance(row, dict):
        return row
    return {k: in_words(v, classes[k]) if k in classes else v for k, v in row.items()}


def in_words(value: Any, names: Mapping[str, Any] | Sequence[str]) -> Any:
    """A cell with the names of classes in place of their numbers."""
    if isinstance(value, list):
        return [in_words(each, names) for each in value]
    if isinstance(names, Mapping):
        whole = isinstance(value, dict)
        return (
            {k: in_words(v, names[k]) if k in names else v for k, v in value.items()}
            if whole
            else value
        )
    if isinstance(value, int) and not isinstance(value, bool):
        return names[value] if 0 <= value < len(names) else None if value < 0 else value
    return value
