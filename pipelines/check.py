"""Whether a finished mixture keeps its contracts: what anybody can verify who has the folder.

| what        | must be                                                                       |
|-------------|-------------------------------------------------------------------------------|
| rows        | counts, lengths, limits, masks, image tokens, grids against decoded images    |
| lineage     | every sample in a row is in the index, as often as `copies`, where `shard` says |
| index       | ids unique; a rejected sample is never used                                   |
| ratios      | within one sample of the target, unless a shortage was settled otherwise      |
| fingerprint | that of the recipe beside it                                                  |
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from pipelines import recipe
from pipelines.engine import tables
from pipelines.report.finished import Finished
from tokenization import check as rows_check
from tokenization.schema import Encoding


def faults(mixture: Finished, *, rows: int) -> Iterator[str]:
    """Every broken contract as a sentence, the cheap checks first.

    `rows`: packed rows per shard to look into, evenly spread; 0: all of them.
    """
    yield from _fingerprint(mixture.recipe)
    yield from _index(mixture.index)
    yield from _lineage(mixture)
    yield from _ratios(mixture)
    encoding = Encoding(**mixture.recipe["mixture"]["encoding"])
    for name in (shard for shards in mixture.shards.values() for shard in shards):
        reader = tables.open_file(mixture.path(name))
        count = tables.num_rows(mixture.path(name))
        chosen = np.unique(np.linspace(0, count - 1, min(rows or count, count)).astype(np.int64))
        for start in range(0, len(chosen), 64):
            part = chosen[start : start + 64]
            table = tables.take_rows(mixture.path(name), part, columns=reader.schema.names)
            found = rows_check.violations(
                table, encoding=encoding, decode=True, numbers=part.tolist()
            )
            yield from (f"shards/{name}, {fault}" for fault in found)


def _fingerprint(found: dict[str, Any]) -> Iterator[str]:
    now = recipe.fingerprint(recipe.identity(found))
    if now != found["fingerprint"]:
        yield f"recipe.json: fingerprint {found['fingerprint']}, but its content gives {now}"


def _index(index: pl.DataFrame) -> Iterator[str]:
    twice = index.filter(pl.col("id").is_duplicated())
    if len(twice):
        yield f"index.arrow: {twice['id'][0]} has {(index['id'] == twice['id'][0]).sum()} lines"
    used = index.filter(pl.col("rule").is_not_null() & (pl.col("copies") > 0))
    if len(used):
        line = used.row(0, named=True)
        yield f"index.arrow: {line['id']} has rule {line['rule']}, yet {line['copies']} copies"


def _lineage(mixture: Finished) -> Iterator[str]:
    seen = []
    for split, shards in mixture.shards.items():
        for number, name in enumerate(shards):
            ids = tables.read(mixture.path(name), columns=["sample_ids"])["sample_ids"]
            each = pl.Series(pl.from_arrow(ids)).list.unique().explode(keep_nulls=False)
            here = pl.DataFrame({"id": each, "split": split, "at": number})
            seen.append(here.with_columns(pl.col("split").cast(pl.Categorical)))
    found = (
        pl.concat(seen)
        .group_by("id", "split")
        .agg(pl.col("at").unique().sort(), times=pl.len().cast(pl.Int32))
    )
    both = mixture.index.filter(pl.col("copies") > 0).join(
        found, on=["id", "split"], how="full", coalesce=True
    )
    # A cut document lies in several rows: then `times` counts its rows, not its copies.
    wrong = both.filter(
        pl.col("copies").is_null()
        | pl.col("times").is_null()
        | (pl.col("times") < pl.col("copies"))
        | (pl.col("shard").list.unique().list.sort().cast(pl.List(pl.Int64)) != pl.col("at"))
    )
    for line in wrong.head(5).iter_rows(named=True):
        yield (
            f"{line['id']} ({line['split']}): the index says {line['copies']} copies in shards "
            f"{line['shard']}, found {line['times']} in {line['at']}"
        )


def _ratios(mixture: Finished) -> Iterator[str]:
    settings = mixture.recipe["mixture"]
    if settings["on_shortage"] == "redistribute":
        return
    unit = {"tokens": pl.col("num_tokens"), "learned_tokens": pl.col("num_learned")}.get(
        settings["measure"], pl.lit(1)
    )
    train = mixture.index.filter(split="train").with_columns(unit=unit)
    used = train.with_columns(used=pl.col("unit").cast(pl.Int64) * pl.col("copies"))
    whole = int(used["used"].sum())
    for name, component in settings["components"].items():
        mine = used.filter(component=name)
        got, target = int(mine["used"].sum()), component["ratio"] * whole
        # One sample of its own, and its share of the sample by which the whole may miss.
        largest = max(used.filter(pl.col("copies") > 0)["unit"].to_list(), default=0)
        if abs(got - target) > largest:
            yield (
                f"component {name}: {got:,} {settings['measure']}, its ratio {component['ratio']} "
                f"of {whole:,} is {target:,.0f}; off by more than a sample ({largest:,})"
            )
