"""What the columns of a table hold, as far as its schema or its first rows tell; and whether the
columns that a mixture names are there and of a kind that fits.

    Arrow schema | rows of JSON, CSV --> Shape --check_mapped--> nothing, or ValueError with a hint

A Shape is the kinds of values (`text`, `bytes`, `number`, `bool`, `time`, `list`, `mapping`,
`null`) and the fields inside; those of a list's elements count as its own.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.sources.sample import Mapped, Source

JSON_TEXT = "text"
"""A text may hold JSON: fields below it are looked for row by row."""
SHOWN = 40
"""Names that a message gives."""


@dataclass
class Shape:
    """What cells of a column hold; empty: nothing is known yet."""

    kinds: set[str] = field(default_factory=set)
    fields: dict[str, "Shape"] = field(default_factory=dict)
    open: bool = False
    """Whether it may have fields of any name: an Arrow map."""

    def at(self, name: str) -> "Shape":
        """The shape of a field, which is there from now on."""
        return self.fields.setdefault(name, Shape())


def add_value(shape: Shape, value: object) -> None:
    """The shape knows of this value, too."""
    if isinstance(value, Mapping):
        shape.kinds.add("mapping")
        for name, inner in value.items():
            add_value(shape.at(str(name)), inner)
    elif isinstance(value, list | tuple):
        shape.kinds.add("list")
        for inner in value:
            add_value(shape, inner)
    else:
        shape.kinds.add(kind_of(value))


def kind_of(value: object) -> str:
    """The kind of a value of one cell."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "bytes" if isinstance(value, bytes) else "text" if isinstance(value, str) else "time"


def of_schema(schema: Any) -> Shape:
    """The shape of an Arrow schema: its columns are the fields."""
    whole = Shape({"mapping"})
    for column in schema:
        add_type(whole.at(column.name), column.type)
    return whole


def add_type(shape: Shape, kind: Any) -> None:
    """The shape knows of an Arrow type."""
    import pyarrow as pa

    of = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if of.is_dictionary(kind) or of.is_run_end_encoded(kind):
        add_type(shape, kind.value_type)
    elif of.is_map(kind):
        shape.kinds.add("mapping")
        shape.open = True
    elif of.is_struct(kind):
        shape.kinds.add("mapping")
        for number in range(kind.num_fields):
            add_type(shape.at(kind.field(number).name), kind.field(number).type)
    elif hasattr(kind, "value_type"):
        shape.kinds.add("list")
        add_type(shape, kind.value_type)
    else:
        shape.kinds.add(kind_of_type(kind))


def kind_of_type(kind: Any) -> str:
    """The kind of an Arrow type of one value."""
    import pyarrow as pa

    of = pa.types
    if of.is_null(kind):
        return "null"
    if of.is_boolean(kind):
        return "bool"
    if of.is_integer(kind) or of.is_floating(kind) or of.is_decimal(kind):
        return "number"
    if of.is_string(kind) or of.is_large_string(kind) or of.is_string_view(kind):
        return "text"
    return "time" if of.is_temporal(kind) else "bytes"


def find(shape: Shape, path: str) -> Shape | None:
    """The shape at a path; null where it is not there; an empty one where only rows tell."""
    if not path:
        return shape
    head, _, rest = path.partition(".")
    if (head.isdigit() or head == "*") and "list" in shape.kinds and head not in shape.fields:
        return find(shape, rest)
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        key = ".".join(parts[:count])
        if key in shape.fields:
            return find(shape.fields[key], ".".join(parts[count:]))
    return Shape() if shape.open or JSON_TEXT in shape.kinds else None


def leaves(shape: Shape, prefix: str = "") -> Iterator[str]:
    """The paths of every column and of every field inside."""
    for name, inner in shape.fields.items():
        yield prefix + name
        yield from leaves(inner, f"{prefix}{name}.")


def absent(about: Source, shape: Shape) -> list[Mapped]:
    """The columns that a mixture names and that are not there."""
    return [one for one in about.mapped if find(shape, one.path) is None]


def check_mapped(about: Source, shape: Shape, *, where: str, file: str) -> None:
    """Every column that the mixture names is there and may hold what it is named for.

    Raises:
        ValueError: with the nearest name, or what else the column holds.
    """
    for one in absent(about, shape):
        if f"/{one.path}=" in file:
            raise ValueError(
                f"{where}.columns.{one.key}: no column {one.path!r} in {file}.\n"
                f"found: folders named {one.path}=..., whose names are not read\n"
                "way out: write it into the files, or make a component of each folder: "
                f"data: {file.partition(f'/{one.path}=')[0]}/{one.path}=..."
            )
        raise ValueError(
            f"{where}.columns.{one.key}: no column {one.path!r} in {file}. "
            f"{hint(one.path, list(leaves(shape)))}"
        )
    for one in about.mapped:
        found = find(shape, one.path)
        assert found is not None
        real = found.kinds - {"null", "list"}
        same = (find(shape, other.path) for other in about.mapped if other.key == one.key)
        if all(other is not None and other.kinds == {"null"} for other in same):
            raise ValueError(
                f"{where}.columns.{one.key}: column {one.path!r} of {file} holds null in every "
                f"row. {others(shape, one)}"
            )
        known = found.open or not one.inside or bool(found.fields.keys() & set(one.inside))
        if real and one.kinds and (not real & one.kinds or (real == {"mapping"} and not known)):
            inside = f" with the fields {listed(list(found.fields))}" if found.fields else ""
            example = f" Name one: {one.path}.{next(iter(found.fields))}." if found.fields else ""
            raise ValueError(
                f"{where}.columns.{one.key}: column {one.path!r} of {file} holds "
                f"{' and '.join(sorted(real))}{inside}; expected {expected(one)}.{example}"
            )


def expected(one: Mapped) -> str:
    """What a column may hold, in words."""
    words = {kind: kind for kind in sorted(one.kinds)}
    if "mapping" in words and one.inside:
        words["mapping"] = f"a mapping with {' or '.join(one.inside)}"
    return " or ".join(words.values())


def hint(name: str, known: Sequence[str]) -> str:
    """The nearest of the names, else all of them."""
    folded = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(name.casefold(), folded, 1, cutoff=0.6)
    ends = [other for other in known if other.rpartition(".")[2] == name]
    if not close and not ends and any(mark in name for mark in " ?.!") and " " in name:
        return f"A text that is the same for all rows is a `prompt`. Found: {listed(known)}."
    near = ends[0] if ends else folded[close[0]] if close else ""
    found = f"Found: {listed(known)}."
    return f"Did you mean {near!r}? {found}" if near else found


def others(shape: Shape, one: Mapped) -> str:
    """What else there is."""
    return f"Found besides: {listed([name for name in leaves(shape) if name != one.path])}."


def listed(names: Sequence[str]) -> str:
    """The names, cut where they are many."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}" if names else "none"
