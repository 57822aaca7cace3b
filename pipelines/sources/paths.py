"""How a mixture names what is in a row: a column, a field inside it, a text with both in it.

| written               | gives                                                              |
|-----------------------|--------------------------------------------------------------------|
| `answer`              | the cell                                                           |
| `qa.question`         | the field of a struct; of a list of structs, a list; of a mapping  |
|                       | of lists, the list; of a text that is JSON, what that has there    |
| `answers.0`           | the first of a list                                                |
| `pairs.*.1`           | of each in a list, a list of pairs say, the second                 |
| `What is {a.b}?`      | text with the cell in it; where the cell is a list, a list of them |
| `{image_id:012d}.jpg` | the same, as Python formats it                                     |

A column whose own name has a dot is found by it. `{{` is a brace.
"""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.sources import cells
from pipelines.sources.cells import Unreadable
from pipelines.sources.sample import Defect


@dataclass(frozen=True)
class Text:
    """A text with columns in it, as (text before, path, how it is formatted); or one column."""

    pieces: tuple[tuple[str, str | None, str], ...]
    column: str = ""
    """Where it is that column and nothing else."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The columns in it."""
        found = (path for _, path, _ in self.pieces if path is not None)
        return (self.column,) if self.column else tuple(dict.fromkeys(found))

    def without(self, names: Sequence[str]) -> tuple[str, ...]:
        """Its columns but for these, which are no columns."""
        return tuple(path for path in self.paths if path not in names)


def column(path: str) -> Text:
    """The text that is one column."""
    return Text((), path)


def parse_text(written: str, *, where: str) -> Text:
    """The text of a template such as `What is the {field}?`; raises ValueError for a broken one."""
    try:
        found = [
            (before, name, spec or "", conversion)
            for before, name, spec, conversion in string.Formatter().parse(written)
        ]
    except ValueError as error:
        raise ValueError(
            f"{where} is {written!r}: {error}. Write {{column}}, and {{{{ for a brace."
        ) from error
    for _, name, _, conversion in found:
        if name is not None and (not name or name.isdigit() or conversion):
            raise ValueError(
                f"{where} is {written!r}: expected the name of a column between braces, "
                "as in {question}; {{ is a brace."
            )
    return Text(tuple((before, name, spec) for before, name, spec, _ in found))


def value_at(value: Any, path: str, name: str = "") -> Any:
    """What is at the path below a row or a cell; null where there is nothing. Raises Defect."""
    if isinstance(value, list) and value and all(is_pair(each) for each in value):
        value = dict(value)  # an Arrow map
    if not path or value is None:
        return value
    if isinstance(value, Unreadable):
        raise cells.unfit(value, name, "a mapping")
    if isinstance(value, str | bytes):
        value = cells.unpacked(value, name or "the row")
    head, _, rest = path.partition(".")
    if isinstance(value, list):
        if head == "*":
            return [value_at(each, rest, f"{name}[{n}]") for n, each in enumerate(value)]
        if head.isdigit():
            return value_at(value[int(head)], rest, name) if int(head) < len(value) else None
        return [value_at(each, path, f"{name}[{n}]") for n, each in enumerate(value)]
    if not isinstance(value, Mapping):
        raise cells.unfit(value, name or "the row", f"a mapping with {head}")
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        key = ".".join(parts[:count])
        if key in value:
            whole = f"{name}.{key}" if name else key
            return value_at(value[key], ".".join(parts[count:]), whole)
    return None


def is_pair(value: object) -> bool:
    """Whether it is a key and a value, as Arrow gives those of a map."""
    return isinstance(value, tuple) and len(value) == 2


def filled(text: Text, row: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> Any:
    """The cell of a column; of a template the text, or the texts where a column holds a list.

    `given` are values of names that are no columns.
    """
    if text.column:
        return value_at(row, text.column)
    known = dict(given or {})
    values = {path: known[path] if path in known else value_at(row, path) for path in text.paths}
    counts = {len(value) for value in values.values() if isinstance(value, list)}
    if len(counts) > 1:
        raise Defect("wrong_schema", f"{' and '.join(values)} are lists of different lengths")
    if not counts:
        return formatted(text, values)
    return [
        formatted(text, {p: v[n] if isinstance(v, list) else v for p, v in values.items()})
        for n in range(counts.pop())
    ]


def formatted(text: Text, values: Mapping[str, Any]) -> str:
    """The template with these values."""
    out = []
    for before, path, spec in text.pieces:
        out.append(before)
        if path is not None:
            value = values[path]
            out.append(cells.written(value, path) if not spec else in_format(value, spec, path))
    return "".join(out)


def in_format(value: Any, spec: str, name: str) -> str:
    """The value as Python formats it; digits are a number where the format is of one."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and spec[-1:] in "dbxXo":
        value = int(value[:300])
    try:
        return format(value, spec)
    except (ValueError, TypeError) as error:
        kind = type(value).__name__
        raise Defect(
            "wrong_schema", f"{name} is {kind}, which {{:{spec}}} does not take"
        ) from error
