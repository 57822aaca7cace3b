"""How even the packed rows of the train split are, along their order and in what they cost.

| function    | says                                                                          |
|-------------|-------------------------------------------------------------------------------|
| windows     | how far any WINDOW rows in a row stray from the whole: shares, seconds, crops |
| asked_along | how much of each component the ratios, or their schedules, ask so far         |
| imbalance   | how much longer the dearest row takes than the mean one                       |
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from mixtures.balance import balance
from mixtures.schedule import Points, constant, passed

WINDOW = 1000
RANKS = 8
"""Rows that are computed at the same time, one on each of so many processes."""


def windows(packed: pl.DataFrame, mixture: Mapping[str, Any]) -> dict[str, Any]:
    """`rows` of a window, and per component (also of `seconds` per video and `crops` per row) the
    `whole`, and the `worst` and `p95` distance of windows from it; relative, but of shares.

    Reads: `packed` (FACTS of all shards in order).
    """
    rows = packed.filter(pl.col("split") == "train")
    if rows.is_empty():
        return {"rows": 0, "strays": {}}
    tokens, learned = pl.col("sample_tokens"), pl.col("sample_learned")
    units = {"tokens": tokens, "learned_tokens": learned}.get(mixture["measure"], tokens)
    crops = pl.col("num_crops") / pl.col("num_samples")  # only their sum in a row counts
    place = pl.int_range(pl.len(), dtype=pl.Int32)
    lists = rows.select("seconds", component="components", units=units, crops=crops, place=place)
    pieces = lists.explode("component", "units", "seconds", empty_as_null=True)
    if mixture["measure"] == "samples":
        pieces = pieces.with_columns(units=pl.lit(1))
    names = pl.Series(list(mixture["components"]), dtype=pl.Categorical)
    named = pieces.with_columns(component=names[pieces["component"]])
    found = balance(named, window=WINDOW, schedules=schedules_in(mixture))
    strays = {line.pop("what"): line for line in found.to_dicts()}
    return {"rows": min(WINDOW, len(rows)), "strays": strays}


def schedules_in(mixture: Mapping[str, Any]) -> dict[str, Points]:
    """Component -> its schedule, of the components of a recipe's mixture that have one."""
    components = mixture["components"].items()
    return {name: stated["schedule"] for name, stated in components if stated.get("schedule")}


def asked_along(mixture: Mapping[str, Any], through: np.ndarray) -> dict[str, np.ndarray]:
    """Component -> [points] its part of the whole that the ratios ask until each part of it."""
    return {
        name: passed(stated.get("schedule") or constant(stated["ratio"]), through)
        for name, stated in mixture["components"].items()
    }


def imbalance(packed: pl.DataFrame) -> dict[str, float]:
    """Modelled FLOPs of rows: `rows`, the dearest over the mean; `ranks`, the mean over batches of
    RANKS consecutive rows of the dearest over the mean: what waiting for each other costs.

    The model is the SmolVLM whose crops have as many tokens. Reads: `packed` (FACTS) of a split,
    its shards in order.
    """
    if packed.is_empty():
        return {"rows": 1.0, "ranks": 1.0}
    cost = packed["flops"].to_numpy()
    whole = cost[: len(cost) // RANKS * RANKS].reshape(-1, RANKS)
    batches = whole if len(whole) else cost[None]
    ranks = batches.max(axis=1) / batches.mean(axis=1)
    return {"rows": float(cost.max() / cost.mean()), "ranks": float(ranks.mean())}
