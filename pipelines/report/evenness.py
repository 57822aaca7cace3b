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

from mixtures.balance import strays
from mixtures.columns import Column, New, in_memory, stretches, total
from mixtures.schedule import Points, constant, passed
from pipelines.report.packed_counts import Packed

WINDOW = 1000
RANKS = 8
"""Rows that are computed at the same time, one on each of so many processes."""


def windows(packed: Packed, mixture: Mapping[str, Any]) -> dict[str, Any]:
    """`rows` of a window, and per component (also of `seconds` per video and `crops` per row) the
    `whole`, and the `worst` and `p95` distance of windows from it; relative, but of shares.
    """
    rows = packed.order
    if not len(rows):
        return {"rows": 0, "strays": {}}
    there = [name for name, some in zip(rows.names, packed.there, strict=True) if some]
    found = strays(rows, there=there, window=WINDOW, schedules=schedules_in(mixture))
    about = {line.pop("what"): line for line in found.to_dicts()}
    return {"rows": min(WINDOW, len(rows)), "strays": about}


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


def imbalance(flops: Column, *, new: New = in_memory) -> dict[str, float]:
    """Modelled FLOPs of rows: `rows`, the dearest over the mean; `ranks`, the mean over batches of
    RANKS consecutive rows of the dearest over the mean: what waiting for each other costs.

    The model is the SmolVLM whose crops have as many tokens. `flops`: of the rows of a split, its
    shards in order.
    """
    rows = len(flops)
    if not rows:
        return {"rows": 1.0, "ranks": 1.0}
    together = min(RANKS, rows)  # fewer are one batch
    dearest, ranks = 0.0, new(np.float64)
    for start, stop in stretches(rows):
        some = flops[start:stop]
        dearest = max(dearest, float(some.max()))
        batches = some[: len(some) // together * together].reshape(-1, together)
        ranks.append(batches.max(axis=1) / batches.mean(axis=1))
    mean = total(flops) / rows
    return {"rows": dearest / mean, "ranks": total(ranks) / len(ranks)}
