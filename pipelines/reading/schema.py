"""What the columns of a subset's files are, read with as little as can be: footers, headers, and of
JSON as many rows as it takes to meet every column that a mixture names.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from pipelines.reading import annotations, json_spans, rows
from pipelines.reading.arrow_rows import arrow_rows, schema_of
from pipelines.reading.files import File
from pipelines.reading.splitting import kind_of
from pipelines.sources.sample import Defect, Source
from pipelines.sources.shape import Shape, absent, add_value, check_mapped, find, of_schema
from pipelines.sources.table import TableMapping, counted_choice

LOOKED = 2000
"""Rows of a compressed file or CSV that are looked at for a column."""


def check_files(about: Source, files: Sequence[File], *, where: str) -> None:
    """Every column that the mixture names is in the files; raises ValueError as `check_mapped`."""
    if not about.mapped or not files:
        return
    file = files[0]
    shape = Shape({"mapping"})
    if kind_of(file) == "parquet":
        try:
            shape = of_schema(rows.parquet_schema(file))
        except UnicodeDecodeError as error:
            raise ValueError(f"{file.url}: the name of a column is no UTF-8") from error
    elif kind_of(file) == "arrow":
        shape = of_schema(schema_of(file))
    else:
        seen = 0
        for row in first_rows(about, files):
            seen += isinstance(row, dict)
            if isinstance(row, dict):
                add_value(shape, row)
                if not absent(about, shape) and not only_null(about, shape):
                    break
        if not seen:
            return  # the reader of its kind says what it is instead
        if seen == 1:
            refuse_object(about, shape, where=where, file=file.url)
    check_mapped(about, shape, where=where, file=file.url)
    check_counting(about, files, where=where)


def check_counting(about: Source, files: Sequence[File], *, where: str) -> None:
    """Where answers are numbers of choices, the first rows show that they count from 0.

    Raises:
        ValueError: they count from 1, or none of them tells: every answer might be another choice.
    """
    mapping = getattr(about.adapter, "keywords", {}).get("mapping")
    if not isinstance(mapping, TableMapping) or not mapping.choices or mapping.answer_is != "auto":
        return
    mapped = tuple(one for one in about.mapped if one.key in ("answer", "choices"))
    narrow = replace(about, mapped=mapped, columns=(), media_columns=(), also=())
    largest: tuple[int, int] | None = None
    for row in islice(head_rows(narrow, files), LOOKED):
        try:
            found = counted_choice(row, mapping) if isinstance(row, Mapping) else None
        except Defect:
            continue  # its verdict comes when it is read
        if found is None:
            continue
        if found[0] == 0:
            return
        largest = max(largest or found, found, key=lambda one: one[0] - one[1])
    if largest is None:
        return
    number, count = largest
    told = "from 1" if number == count else "from 0 or from 1, which none of the first rows tells"
    raise ValueError(
        f"{where}.columns: the answers in {files[0].url} are numbers that count the choices {told}."
        f"\nfound: {number} of {count} choices, and no 0\nway out: say columns: {{answer_is: "
        "number} where they count from 1, {answer_is: index} where they count from 0."
    )


def head_rows(about: Source, files: Sequence[File]) -> Iterator[object]:
    """Rows from the start of the files, the columns that the source reads."""
    file = files[0]
    if kind_of(file) == "parquet":
        groups = range(min(1, rows.parquet_metadata(file).num_row_groups))
        return rows.parquet_rows(file.url, file.size, groups, about, file.content)
    if kind_of(file) == "arrow":
        return arrow_rows(file.url, file.size, about)
    return first_rows(about, files)


def refuse_object(about: Source, shape: Shape, *, where: str, file: str) -> None:
    """Raises ValueError where a JSON file is one object whose rows are a list inside it."""
    gone = absent(about, shape)
    for name, inner in shape.fields.items():
        if gone and "list" in inner.kinds and all(find(inner, one.path) for one in gone):
            raise ValueError(
                f"{where}: {file} is one JSON object, and its rows are the list under {name!r}. "
                f"Write that list to a file of its own (an array, or one row a line)."
            )


def only_null(about: Source, shape: Shape) -> bool:
    """Whether a top-level column has been null in every row so far: later ones may say more."""
    return any(
        shape.at(one.path).kinds == {"null"} for one in about.mapped if one.path in shape.fields
    )


def first_rows(about: Source, files: Sequence[File]) -> Iterator[object]:
    """Rows of JSON, CSV or compressed files: of small JSON all, else those at the start."""
    file, kind = files[0], kind_of(files[0])
    if kind == "csv":
        yield from islice(rows.csv_rows(file.url, file.size), LOOKED)
    elif kind == "json" and annotations.is_small(files, about):
        for one in files:
            with annotations.open_annotations(one) as stream:
                spans = json_spans.row_spans(stream, one.url, by_line=one.name.endswith(".jsonl"))
                yield from (row for _, _, row in spans)
    elif kind == "json":
        yield from annotations.head(file)
    elif kind == "compressed":
        yield from islice(rows.compressed_rows(file.url, file.size), LOOKED)
