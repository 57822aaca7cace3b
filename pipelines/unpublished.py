"""What a build read that could not be finished: kept, to be looked at with `show`.

Where a component has nothing left or a ratio cannot be met, nothing is published; but the index
says why rows were rejected. It goes, with recipe and numbers, to `work/unpublished/NAME`, which
`show` opens as it does a finished mixture (it has no shards).
"""

import shlex

import polars as pl

from mixtures import pick as picking
from mixtures.config import Mixture
from mixtures.pick import INDEX
from pipelines.availability import known_causes
from pipelines.engine import tables
from pipelines.index import Index, whole_rows
from pipelines.report.finished import lines_of, open_finished
from pipelines.report.stats import stats
from pipelines.survey import Place, Survey


def pick_or_keep(index: Index, todo: Survey, mixture: Mixture, place: Place) -> picking.Picked:
    """The copies of every sample; raises ValueError where they cannot be had, which says how to
    look at what was read.
    """
    full = {p.component for p in todo.pieces}
    empty = {name: "; ".join(told) for name, told in todo.unread.items() if name not in full}

    def gone(picked: picking.Picked) -> dict[str, str]:
        lines = index.picked_lines(picked, mixture)
        return picking.why_gone(lines, mixture, causes={**known_causes(mixture), **empty})

    try:
        return picking.pick_samples(
            index.samples, mixture, rows=whole_rows(todo.pieces), read=todo.read, gone=gone
        )
    except ValueError as error:
        folder = keep(index, todo, place, mixture)
        found = open_finished(folder).index
        told = f"{error}\n{where_media_lie(found, todo)}{way_to_look(found, folder, place)}"
        raise ValueError(told) from error


def keep(index: Index, todo: Survey, place: Place, mixture: Mixture) -> str:
    """The folder where the index lies, of which nothing was picked."""
    folder = tables.join(place.work, "unpublished", mixture.name)
    path = tables.join(folder, "index.arrow")
    split = pl.lit("train").cast(pl.Categorical)
    none = {"split": split, "copies": pl.lit(0, pl.Int32), "shard": pl.lit(None, pl.List(pl.Int32))}
    lines = (lines.with_columns(**none) for _, lines in index.lines())
    written = (table for some in lines for table in picking.as_tables(some))
    tables.write_pieces(written, INDEX, path, rows_per_batch=1 << 16)
    found = stats(lines_of(path), (), todo.recipe)
    tables.write_json(tables.join(folder, "stats.json"), found)
    tables.write_json(tables.join(folder, "recipe.json"), todo.recipe)
    return folder


def where_media_lie(index: pl.DataFrame, todo: Survey) -> str:
    """Where missing media were looked for, where a component has nothing left for want of them."""
    missing = index.filter(pl.col("rule") == "missing_media")["component"].unique().to_list()
    left = index.filter(pl.col("rule").is_null())["component"].unique().to_list()
    roots = {
        root
        for p in todo.pieces
        if p.component in missing and p.component not in left
        for root in p.part.inputs["media"]["roots"]
    }
    return f"Media were looked for below {' and '.join(sorted(roots))}. " if roots else ""


def way_to_look(index: pl.DataFrame, folder: str, place: Place) -> str:
    """The end of a message: the command that shows what was rejected most, if anything was."""
    if index.is_empty():
        return "Nothing was published."
    counts = index["rule"].drop_nulls().value_counts(sort=True)
    what = f"rule={counts['rule'][0]}" if len(counts) else f"component={index['component'][0]}"
    work = "" if place.work == Place.work else f" work={shlex.quote(place.work)}"
    command = f"python -m pipelines show {shlex.quote(folder)} {what}{work}"
    return f"Nothing was published; what was read: {command}"
