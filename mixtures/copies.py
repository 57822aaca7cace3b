"""How often each sample is used, so that every component meets its target to a sample.

    targets in units (allocate)  --whole epochs, first samples, one that fits-->  copies per sample

Samples of a stratum are in the order of their draw. A target is whole epochs of them, then a
prefix, then one more sample chosen to close the gap: sums are exact to a fraction of a sample.
"""

from typing import NamedTuple

import numpy as np
import polars as pl

from mixtures.config import Mixture

FIT_WINDOW = 256
"""Samples looked at for the one that fills a budget's last gap best."""


def unit_of(mixture: Mixture) -> pl.Expr:
    """What a sample counts in the unit of `measure`, as float64."""
    if mixture.measure == "samples":
        return pl.lit(1.0)
    column = {"tokens": "num_tokens", "learned_tokens": "num_learned"}[mixture.measure]
    return pl.col(column).cast(pl.Float64)


def live_rows(
    frame: pl.DataFrame, by: list[str], rank: np.ndarray, keys: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the frame still in, sorted by group and rank; where each group starts; its sizes.

    Groups are in the order of their names.
    """
    rows = np.flatnonzero(frame["rule"].is_null().to_numpy())
    code = frame.select(pl.struct(by).rank("dense")).to_series().to_numpy()[rows]
    order = np.lexsort((keys[rows], rank[rows], code))
    rows, code = rows[order], code[order]
    starts = np.flatnonzero(np.r_[True, code[1:] != code[:-1]]) if len(rows) else np.zeros(0, int)
    return rows, starts, np.diff(np.r_[starts, len(rows)])


def copies_of(
    frame: pl.DataFrame, table: pl.DataFrame, mixture: Mixture, rank: np.ndarray, keys: np.ndarray
) -> np.ndarray:
    """[N] int32: how often each sample is used, given the budgets in `table`.

    Reads: component, subset, limited, split, rule, num_tokens, num_learned. Where `measure` is not
    tokens the budget in units came from mean tokens per unit, while the samples drawn have their
    own: a few steps bring the tokens of the train split to within a sample of `tokens`, or as near
    as ratios allow that hold to a sample (where one component has few samples, each of them stands
    for many of the others). Where not all of a stratum was read (`there` below 1) no sample of it
    is used twice.
    """
    # Longer than a screen: budget, draw and correction share the strata; parts would pass six
    # tables on.
    table = table.with_columns(
        max_epochs=pl.when(pl.col("there") < 1)
        .then(pl.min_horizontal("max_epochs", 1.0))
        .otherwise("max_epochs"),
        units=pl.col("units") * pl.col("there"),
    )
    by = ["component", "subset", "limited"]
    live, starts, sizes = live_rows(frame, by, rank, keys)
    names = frame.select(by)
    members = {
        names.row(int(live[start])): live[start : start + size]
        for start, size in zip(starts, sizes, strict=True)
    }
    train = (frame["split"] == "train").to_numpy()
    unit = frame.select(unit_of(mixture) + pl.repeat(0.0, pl.len())).to_series().to_numpy()
    sides: list[list[list[Stratum]]] = [[], []]  # train, val: components: strata
    for component in mixture.components:
        lines = [
            (members[stratum], line)
            for line in table.filter(component=component).iter_rows(named=True)
            if (stratum := (line["component"], line["subset"], line["limited"])) in members
        ]
        sides[0].append(
            [
                Stratum(rows[train[rows]], unit, at["target"], at["max_epochs"], at["limited"] > 0)
                for rows, at in lines
            ]
        )
        part = mixture.val_fraction
        sides[1].append(
            [
                Stratum(rows[~train[rows]], unit, at["target"] * part, 1.0, at["limited"] > 0)
                for rows, at in lines
            ]
        )

    def drawn(scale: float) -> np.ndarray:
        copies = np.zeros(frame.height, np.int32)
        train_side, val_side = sides
        _draw_all(copies, train_side, scale)
        _draw_once(copies, val_side, scale)  # has what it has: allocate knows the train side's
        if mixture.val_fraction:
            for strata in sides[1]:
                _at_least_one(copies, strata)
        return copies

    copies = drawn(1.0)
    if mixture.measure == "tokens" or not isinstance(mixture.tokens, int):
        return copies
    granted, asked = table.select(pl.col("target").sum(), pl.col("asked").sum()).row(0)
    if granted < asked * (1 - 1e-9):
        return copies
    tokens = frame["num_tokens"].to_numpy()
    room = pl.col("units") * pl.col("max_epochs") / pl.col("target")
    highest = float(table.filter(pl.col("target") > 0).select(room.min()).item())
    scale, tried = 1.0, []
    for _ in range(8):
        got = int((copies * tokens)[train].sum())
        tried.append((abs(got - mixture.tokens), copies))
        if got == 0 or tried[-1][0] <= int(tokens.max()):
            break
        scale = min(scale * mixture.tokens / got, highest)
        copies = drawn(scale)
    return min(tried, key=lambda one: one[0])[1]


class Stratum(NamedTuple):
    """Samples that are drawn from alike, on one side of the split."""

    rows: np.ndarray
    """Rows of the index in the order of the draw."""
    unit: np.ndarray
    """Units of every row of the index."""
    target: float
    """Units wanted."""
    most: float
    """Epochs at most."""
    capped: bool
    """Under a limit: never above its target."""


def _draw_all(copies: np.ndarray, components: list[list[Stratum]], scale: float) -> None:
    """`copies` of every component, each within a sample of its part of what all come to.

    A component that has nothing more to give falls behind what the others round up to: then all
    are drawn for a little less.
    """
    for _ in range(20):
        behind = _draw_once(copies, components, scale)
        if behind >= 1:
            return
        scale *= behind


def _draw_once(copies: np.ndarray, components: list[list[Stratum]], scale: float) -> float:
    """`copies` of every component, and the least of got over exact of those that are more than a
    sample short of their part; 1 where none is.

    Rounding a component of long samples moves the total, and with it what the exact part of a
    component of short samples is: those that are then off by more than a sample are drawn again.
    """
    targets = np.array([sum(s.target for s in strata) for strata in components])
    whole = targets.sum()
    if whole == 0:
        return 1.0
    longest = np.array(
        [
            max((s.unit[s.rows].max() for s in strata if len(s.rows)), default=0.0)
            for strata in components
        ]
    )
    goals = targets * scale
    got = np.zeros(len(components))
    again = np.ones(len(components), bool)
    for _ in range(20):
        for i in np.flatnonzero(again):
            got[i] = _draw(copies, components[i], goals[i] / targets[i] if targets[i] else 0.0)
        exact = targets / whole * got.sum()
        again = np.abs(got - exact) > longest
        if not again.any():
            return 1.0
        stuck = goals == exact
        goals = np.where(again, exact, goals)
        if (stuck | ~again).all():
            break
    return float((got[again] / exact[again]).min())


def _draw(copies: np.ndarray, strata: list[Stratum], scale: float) -> float:
    """`copies` of a component's strata whose units sum to the targets; what they do sum to.

    What rounding leaves goes to the next stratum, the largest last.
    """
    left = reached = 0.0
    totals = [float(s.unit[s.rows].sum()) for s in strata]
    for i in sorted(range(len(strata)), key=lambda i: (not strata[i].capped, totals[i])):
        stratum = strata[i]
        target = stratum.target * scale
        left += target
        if totals[i] == 0:
            continue
        goal = min(target if stratum.capped else max(left, 0.0), totals[i] * stratum.most)
        size = stratum.unit[stratum.rows]
        mine = copies_to_reach(size, goal, capped=stratum.capped)
        copies[stratum.rows] = mine
        left -= float((mine * size).sum())
        reached += float((mine * size).sum())
    return reached


def copies_to_reach(size: np.ndarray, goal: float, *, capped: bool) -> np.ndarray:
    """[n] int32 copies: whole epochs, then the first samples, then the one that best fills the gap.

    `size`: units of each sample in the order of the draw. The sum is within half a sample of
    `goal`, mostly much nearer; capped: never above it.
    """
    total = float(size.sum())
    epochs = int(goal / total + 1e-12)
    rest = max(goal - epochs * total, 0.0)
    reached = np.cumsum(size)
    first = int(np.searchsorted(reached, rest * (1 + 1e-12), side="right")) if rest else 0
    gap = rest - (float(reached[first - 1]) if first else 0.0)
    chosen = (abs(gap), first, -1)  # what is missing then, how many of the first, and which beside
    for back in (0, 1):  # beside all that fit, or in place of the last of them
        if back > first:
            break
        start = first - back
        open_gap = gap + (float(size[start]) if back else 0.0)
        window = size[start : start + FIT_WINDOW]
        if capped:
            window = np.where(window <= open_gap * (1 + 1e-12), window, np.inf)
        if len(window):
            best = int(np.argmin(np.abs(window - open_gap)))
            chosen = min(chosen, (abs(float(window[best]) - open_gap), start, start + best))
    _, first, beside = chosen
    copies = np.full(len(size), epochs, np.int32)
    copies[:first] += 1
    if beside >= 0:
        copies[beside] += 1
    return copies


def _at_least_one(copies: np.ndarray, strata: list[Stratum]) -> None:
    """A component whose val side has samples uses one at least: the largest stratum's first."""
    largest = max((s.rows for s in strata), key=len, default=np.zeros(0, int))
    if len(largest) and not any(copies[s.rows].any() for s in strata):
        copies[largest[0]] = 1
