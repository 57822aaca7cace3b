r"""What came later of samples: texts that a model wrote for them, ratings that one gave.

    SAMPLE + files of `rewrites` + a file of ratings --revise--> REVISED, row for row beside them

A text is replaced only where it still is the text that was rewritten; what a sample is without is
said beside it and counted.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.reading import identity
from pipelines.reading.files import File, open_file
from pipelines.revised import (
    REVISED,
    REWRITES,
    Messages,
    texts_of,
    with_conversation,
    with_turns,
)
from tokenization.schema import RATINGS

ABOUT = "smolvlm_pipelines.judged"
"""In the metadata of a table that a served model made: what it is of."""
VERSION = 1
"""Bumped when the same files would revise the same samples otherwise."""
NO_ROW, OTHER_TEXT, SAME_TEXT, OTHER_RATED = (
    "not in the file",
    "other texts were rewritten",
    "came back the same",
    "other texts were rated",
)
RATED = [field.name for field in RATINGS.value_type]
Ratings = list[dict[str, Any]]
RATED_COLUMN = "turns"
"""Of the table that `judge` writes: per turn its scores."""


@dataclass(frozen=True, kw_only=True)
class Revisions:
    """The files of one component, for tasks: picklable; places, not identity."""

    rewrites: tuple[File, ...] = ()
    """In the order in which they are applied."""
    ratings: tuple[File, ...] = ()
    """At most one: ratings of the turns as they then are."""

    @property
    def identity(self) -> str:
        """What determines what they do."""
        held = [
            [identity.contents(files), identity.changed(files)]
            for files in (self.rewrites, self.ratings)
        ]
        return identity.digest([VERSION, *held, [name_of(file) for file in self.rewrites]])


def with_about(schema: pa.Schema, about: Mapping[str, Any]) -> pa.Schema:
    """The schema of a table that says what it is of."""
    return schema.with_metadata({ABOUT: json.dumps(about)})


# ------------------------------------------------------------------ the files


@lru_cache(maxsize=64)
def about_file(file: File) -> dict[str, Any]:
    """What a table says of itself; nothing where another made it.

    Raises:
        ValueError: it is no Parquet file.
    """
    schema = schema_of(file)
    text = (schema.metadata or {}).get(ABOUT.encode())
    return dict(json.loads(text)) if text else {}


def schema_of(file: File) -> pa.Schema:
    """The columns of a Parquet file; raises ValueError where it is none."""
    try:
        with open_file(file.url, file.size, scattered=True) as stream:
            return pq.read_schema(stream)
    except pa.ArrowException as error:
        raise ValueError(f"{file.url}: not a readable Parquet file ({error})") from error


def name_of(file: File) -> str:
    """What a rewriting is called: its prompt's name and language, or the file's own name."""
    prompt = about_file(file).get("prompt") or {}
    stem = file.name.rpartition("/")[2].rpartition(".")[0]
    return "-".join(filter(None, (prompt.get("name") or stem, prompt.get("language", "").lower())))


def check_file(file: File, *, where: str, ratings: bool) -> None:
    """The file has the columns that are read of it, or ValueError says which not."""
    schema = schema_of(file)
    command = "judge" if ratings else "rewrite"
    for name in ("id", RATED_COLUMN) if ratings else REWRITES.names:
        if name not in schema.names:
            raise ValueError(
                f"{where}: {file.url} has no column {name!r}, but {', '.join(schema.names)}\n"
                f"expected: a table that `pipelines {command}` wrote"
            )
    if ratings:
        of_turn = schema.field(RATED_COLUMN).type
        inner = of_turn.value_type if pa.types.is_list(of_turn) else of_turn
        names = [field.name for field in inner] if pa.types.is_struct(inner) else []
        if not set(names) & set(RATED):
            raise ValueError(
                f"{where}: {file.url} rates {', '.join(names) or 'nothing'} per turn\n"
                f"expected: some of {', '.join(RATED)}, as prompt=finevision has them"
            )


def rows_of(file: File, ids: pa.Array, columns: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The file's rows of these samples, by id; raises ValueError where it has one twice."""
    found: dict[str, dict[str, Any]] = {}
    with open_file(file.url, file.size, content=file.content) as stream:
        for batch in pq.ParquetFile(stream).iter_batches(columns=list(columns), use_threads=False):
            for row in batch.filter(pc.is_in(batch["id"], value_set=ids)).to_pylist():
                if row["id"] in found:
                    raise ValueError(f"{file.url}: two rows of the sample {row['id']!r}.")
                found[row["id"]] = row
    return found


# ------------------------------------------------------------------ the stage


def revise(samples: pa.Table, revisions: Revisions) -> pa.Table:
    """REVISED of the samples, row for row."""
    ids = samples["id"].combine_chunks()
    texts = samples["messages"].to_pylist()
    rewritten: list[list[str]] = [[] for _ in texts]
    without: list[list[str]] = [[] for _ in texts]
    for file in revisions.rewrites:
        name, rows = name_of(file), rows_of(file, ids, REWRITES.names)
        for n, sample in enumerate(ids.to_pylist()):
            made = rewritten_by(rows.get(sample), texts[n] or [])
            if isinstance(made, str):
                without[n].append(f"{name}: {made}")
            else:
                texts[n] = made
                rewritten[n].append(name)
    ratings: list[Ratings | None] = [None] * len(texts)
    for file in revisions.ratings:
        rows = rows_of(file, ids, ["id", RATED_COLUMN])
        seen = about_file(file).get("rewritten")  # null: another program's table does not say
        others = seen is not None and [name_of(one) for one in revisions.rewrites] not in seen
        for n, sample in enumerate(ids.to_pylist()):
            rated = ratings_in(rows.get(sample), turns=len(texts_of(texts[n] or [])))
            if others and rewritten[n] and not isinstance(rated, str):
                rated = OTHER_RATED
            if isinstance(rated, str):
                without[n].append(f"ratings: {rated}")
            else:
                ratings[n] = rated
    changed = [text if done else None for text, done in zip(texts, rewritten, strict=True)]
    columns = [ids, changed, rewritten, ratings, without]
    arrays = [
        each if isinstance(each, pa.Array) else pa.array(each, field.type)
        for each, field in zip(columns, REVISED, strict=True)
    ]
    return pa.table(arrays, schema=REVISED)


def rewritten_by(row: Mapping[str, Any] | None, messages: Messages) -> Messages | str:
    """The conversation as a row of REWRITES makes it, or why it stays as it is."""
    if row is None:
        return NO_ROW
    if row["turns"] is None:
        return str(row["verdict"] or NO_ROW)
    if not messages or any(message["role"] == "rejected" for message in messages):
        return OTHER_TEXT
    if row["original"] != texts_of(messages):
        return OTHER_TEXT
    if row["whole"]:
        return with_conversation(messages, row["turns"])
    if len(row["turns"]) != len(row["original"]):
        return OTHER_TEXT
    made = with_turns(messages, row["turns"])
    return SAME_TEXT if texts_of(made) == row["original"] else made


def ratings_in(row: Mapping[str, Any] | None, *, turns: int) -> Ratings | str:
    """The ratings of so many turns that a row gives, or why it gives none."""
    if row is None:
        return NO_ROW
    rated = row[RATED_COLUMN] or []
    if len(rated) != turns:
        return "no ratings" if not rated else f"of {len(rated)} turns, the sample has {turns}"
    return [{name: turn.get(name) for name in RATED} for turn in rated]
