"""How even the packed rows of the train split are, along their order and in what they cost.

| function  | says                                                                        |
|-----------|-----------------------------------------------------------------------------|
| windows   | how far any WINDOW rows in a row stray from the whole: shares, seconds, crops |
| imbalance | how much longer the dearest row takes than the mean one                     |
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from mixtures.balance import balance

WINDOW = 1000
RANKS = 8
"""Rows that are computed at the same time, one on each of so many processes."""


def windows(
    index: pl.DataFrame, packed: pl.DataFrame, mixture: Mapping[str, Any]
) -> dict[str, Any]:
    """`rows` of a window, and per component (also of `seconds` per video and `crops` per row) the
    `whole`, and the `worst` and `p95` distance of windows from it; relative, but of shares.

    Reads: `index` (id, component, duration), `packed` (FACTS).
    """
    rows = packed.filter(pl.col("split") == "train").sort("shard", "row").with_row_index("place")
    if rows.is_empty():
        return {"rows": 0, "strays": {}}
    tokens, learned = pl.col("sample_tokens"), pl.col("sample_learned")
    units = {"tokens": tokens, "learned_tokens": learned}.get(mixture["measure"], tokens)
    crops = pl.col("num_crops") / pl.col("num_samples")  # only their sum in a row counts
    lists = rows.select("place", id=pl.col("sample_ids"), units=units, crops=crops)
    pieces = lists.explode("id", "units", empty_as_null=True)
    if mixture["measure"] == "samples":
        pieces = pieces.with_columns(units=pl.lit(1))
    about = index.select("id", "component", seconds="duration")
    found = balance(pieces.join(about, on="id", how="left", validate="m:1"), window=WINDOW)
    strays = {line.pop("what"): line for line in found.to_dicts()}
    return {"rows": min(WINDOW, len(rows)), "strays": strays}


def imbalance(packed: pl.DataFrame, encoding: Mapping[str, Any]) -> dict[str, float]:
    """Modelled FLOPs of rows: `rows`, the dearest over the mean; `ranks`, the mean over batches of
    RANKS consecutive rows of the dearest over the mean: what waiting for each other costs.

    The model is the SmolVLM whose crops have that many tokens. Reads: `packed` (FACTS) of a split.
    """
    from tokenization.pack import row_flops

    if packed.is_empty():
        return {"rows": 1.0, "ranks": 1.0}
    model = "2.2B" if encoding["tokens_per_crop"] > 64 else "500M"
    ordered = packed.sort("shard", "row").select("sample_tokens", "num_crops")
    cost = np.array([row_flops(n, crops, model=model) for n, crops in ordered.iter_rows()])
    whole = cost[: len(cost) // RANKS * RANKS].reshape(-1, RANKS)
    batches = whole if len(whole) else cost[None]
    ranks = batches.max(axis=1) / batches.mean(axis=1)
    return {"rows": float(cost.max() / cost.mean()), "ranks": float(ranks.mean())}
