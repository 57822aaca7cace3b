"""Arrow values as Python's; what Python cannot hold is Unreadable in its place."""

from typing import Any

from pipelines.sources.cells import Unreadable

MOST_LOST = 100_000
"""Lines for the rows of a row group or file that cannot be read, at most."""


def values(batch: Any) -> list[dict[str, Any]]:
    """The rows of a record batch; what Python cannot hold is Unreadable in its place."""
    try:
        return list(batch.to_pylist())
    except MemoryError:
        raise
    except Exception:  # of one value, whatever its type leads Arrow to: the others are whole
        names = batch.schema.names
        return [
            {name: value_of(column[n]) for name, column in zip(names, batch.columns, strict=True)}
            for n in range(len(batch))
        ]


def value_of(scalar: Any) -> Any:
    """The value of an Arrow scalar, Unreadable where Python cannot hold it: text that is no UTF-8,
    a date beyond the year 9999.
    """
    import pyarrow as pa

    try:
        return scalar.as_py()
    except MemoryError:
        raise
    except Exception as error:  # as above
        if isinstance(scalar, pa.StructScalar):
            return {name: value_of(value) for name, value in scalar.items()}
        if isinstance(scalar, pa.ListScalar | pa.LargeListScalar | pa.FixedSizeListScalar):
            return [value_of(value) for value in scalar.values]
        if isinstance(error, UnicodeDecodeError):
            return Unreadable("broken_text", "is no UTF-8")
        return Unreadable("wrong_schema", f"is a {scalar.type} that cannot be read")


def is_network(error: Exception) -> bool:
    """Whether it says nothing of the file's bytes."""
    return isinstance(error, ConnectionError | TimeoutError | FileNotFoundError | PermissionError)
