"""What of the packed rows the card tells, counted shard by shard.

FACTS of a shard --counted_rows--> Packed: sums, how often each size occurs, and, in columns that
                                   may be files, what is told of the order of rows
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from mixtures.balance import COLUMNS, Rows, append_rows
from mixtures.columns import Column, New, in_memory
from pipelines.report.index_counts import EDGES, Sums, histogram

SUMMED = ("num_tokens", "num_learned", "num_images", "num_crops", "num_samples")


@dataclass(kw_only=True)
class Split:
    """Of the rows of one split."""

    flops: Column
    """Of each row, in order."""
    rows: int = 0
    shards: int = 0
    sums: Counter[str] = field(default_factory=Counter)
    crops_per_row: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    samples_per_row: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """[largest + 1] how many rows have so many."""
    sizes: Sums = field(default_factory=lambda: Sums(("tokens", "crops")))
    """How many samples have so many tokens and crops."""


@dataclass(kw_only=True)
class Packed:
    """Of all rows."""

    splits: Mapping[str, Split]
    """train, val."""
    order: Rows
    """Of the train split."""
    there: np.ndarray
    """[components] whether a row of the train split holds a sample of it."""
    grids: Counter[str] = field(default_factory=Counter)
    fill: np.ndarray
    """Rows by fill, between the edges of shares."""


def counted_rows(
    shards: Iterable[pl.DataFrame], mixture: Mapping[str, Any], *, new: New = in_memory
) -> Packed:
    """What is told of the rows of all shards. Reads: FACTS of each shard in order. `new`: where
    columns are made.
    """
    names = list(mixture["components"])
    found = Packed(
        splits={split: Split(flops=new(np.float64)) for split in ("train", "val")},
        order=Rows(names=names, **{name: new(np.float64) for name in COLUMNS}),
        there=np.zeros(len(names), bool),
        fill=np.zeros(len(EDGES["learned_share"]) - 1, np.int64),
    )
    for some in shards:
        for (split,), rows in some.group_by("split", maintain_order=True):
            count_rows(rows, found.splits[str(split)])
            if split == "train":
                count_order(rows, found, mixture["measure"])
        found.fill += histogram(
            some["num_tokens"] / mixture["encoding"]["seq_len"], EDGES["learned_share"]
        )
        grids = some["grids"].list.explode(empty_as_null=False, keep_nulls=False)
        found.grids.update(dict(grids.value_counts().iter_rows()))
    return found


def count_rows(rows: pl.DataFrame, split: Split) -> None:
    """Sums and sizes of the rows of a shard."""
    split.rows += len(rows)
    split.shards += rows["shard"].n_unique()
    split.flops.append(rows["flops"].to_numpy())
    split.sums.update({name: int(rows[name].cast(pl.Int64).sum()) for name in SUMMED})
    split.crops_per_row = _with(split.crops_per_row, rows["num_crops"])
    split.samples_per_row = _with(split.samples_per_row, rows["num_samples"])
    sizes = pl.DataFrame(
        {name: rows[f"sample_{name}"].list.explode() for name in ("tokens", "crops")}
    )
    split.sizes.add(sizes.group_by("tokens", "crops").agg(samples=pl.len().cast(pl.Int64)))


def _with(counts: np.ndarray, values: pl.Series) -> np.ndarray:
    """How often each number occurs, with others."""
    found = np.bincount(values.to_numpy(), minlength=len(counts))
    found[: len(counts)] += counts
    return found


def count_order(rows: pl.DataFrame, found: Packed, measure: str) -> None:
    """What the rows of a train shard hold, one after the other."""
    number = rows["num_samples"].to_numpy()
    place = np.repeat(np.arange(len(rows)), number)
    component = rows["components"].list.explode().to_numpy()
    found.there |= np.bincount(component, minlength=len(found.there)) > 0
    column = {"tokens": "sample_tokens", "learned_tokens": "sample_learned"}.get(measure)
    crops = rows["num_crops"].to_numpy() / number  # only their sum in a row counts
    append_rows(
        found.order,
        place,
        component,
        units=rows[column].list.explode().to_numpy() if column else np.ones(len(place)),
        seconds=rows["seconds"].list.explode().fill_null(float("nan")).to_numpy(),
        crops=np.bincount(place, crops[place], len(rows)),
    )
