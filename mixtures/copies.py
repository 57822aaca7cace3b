"""How often each sample is used, so that every component meets its target to a sample.

    targets in units (allocate)  --whole epochs, first samples, one that fits-->  Share of a stratum

Samples of a stratum are in the order of their draw. A target is whole epochs of them, then a
prefix, then one more sample chosen to close the gap: sums are exact to a fraction of a sample.
"""

from itertools import chain
from typing import NamedTuple

import numpy as np
import polars as pl

from mixtures.config import Mixture
from mixtures.draws import Cut, Drawn, Draws

FIT_WINDOW = 256
"""Samples looked at for the one that fills a budget's last gap best."""


class Share(NamedTuple):
    """How often the samples of a stratum are used, on one side of the split."""

    epochs: int = 0
    """Of all."""
    first: int = 0
    """So many of the first once more."""
    beside: int = -1
    """The place of one more; -1: none."""

    def amounts(self, drawn: Drawn) -> tuple[float, int]:
        """(Units, tokens) of all copies."""
        units, tokens = drawn.first(self.first)
        if self.beside >= 0:
            one = drawn.column[self.beside : self.beside + 1][0]
            units, tokens = units + float(one["unit"]), tokens + int(one["tokens"])
        return self.epochs * drawn.total + units, self.epochs * drawn.sums["tokens"] + tokens

    def any(self, drawn: Drawn) -> bool:
        """Whether any sample is used."""
        return bool(len(drawn)) and (self.epochs > 0 or self.first > 0 or self.beside >= 0)


class Use(NamedTuple):
    """The same as what says of any sample how often it is used."""

    epochs: int
    until: Cut | None
    """Once more before this place; None: nowhere or, with `all`, everywhere."""
    all: bool
    beside: int
    """The sample that is used once more; -1: none."""


def use_of(share: Share, drawn: Drawn) -> Use:
    """The share in terms that need no order."""
    until = drawn.at(share.first) if share.first else None
    beside = (
        int(drawn.column[share.beside : share.beside + 1][0]["row"]) if share.beside >= 0 else -1
    )
    return Use(share.epochs, until, share.first > 0 and until is None, beside)


def unit_of(mixture: Mixture) -> pl.Expr:
    """What a sample counts in the unit of `measure`, as float64."""
    if mixture.measure == "samples":
        return pl.lit(1.0)
    column = {"tokens": "num_tokens", "learned_tokens": "num_learned"}[mixture.measure]
    return pl.col(column).cast(pl.Float64)


class Stratum(NamedTuple):
    """Samples that are drawn from alike, on one side of the split."""

    drawn: Drawn
    target: float
    """Units wanted."""
    most: float
    """Epochs at most."""
    capped: bool
    """Under a limit: never above its target."""


Sides = tuple[list[list[Stratum]], list[list[Stratum]]]
"""Train, val: components: strata."""
Shares = list[list[Share]]
"""Components: strata."""


def uses(
    draws: Draws, subsets: list[tuple[str, str]], table: pl.DataFrame, mixture: Mixture
) -> dict[tuple[int, int, bool], Use]:
    """(subset, limited, val) -> how often its samples are used, given the budgets in `table`.

    Where `measure` is not tokens the budget in units came from mean tokens per unit, while the
    samples drawn have their own: a few steps bring the tokens of the train split to within a sample
    of `tokens`, or as near as ratios allow that hold to a sample (where one component has few
    samples, each of them stands for many of the others). Where not all of a stratum was read
    (`there` below 1) no sample of it is used twice.
    """
    table = table.with_columns(
        max_epochs=pl.when(pl.col("there") < 1)
        .then(pl.min_horizontal("max_epochs", 1.0))
        .otherwise("max_epochs"),
        units=pl.col("units") * pl.col("there"),
    )
    code = {subset: i for i, subset in enumerate(subsets)}
    names: list[tuple[int, int]] = []
    sides: Sides = ([], [])
    for component in mixture.components:
        sides[0].append([])
        sides[1].append([])
        for at in table.filter(component=component).iter_rows(named=True):
            stratum = code.get((component, at["subset"]), -1), at["limited"]
            if stratum in draws.strata:
                train, val = draws.strata[stratum]
                capped = at["limited"] > 0
                names.append(stratum)
                sides[0][-1].append(Stratum(train, at["target"], at["max_epochs"], capped))
                part = at["target"] * mixture.val_fraction
                sides[1][-1].append(Stratum(val, part, 1.0, capped))
    chosen = _drawn_to_the_tokens(sides, table, mixture, longest=draws.longest)
    found: dict[tuple[int, int, bool], Use] = {}
    for side, strata, shares in zip((False, True), sides, chosen, strict=True):
        flat = zip(names, chain(*strata), chain(*shares), strict=True)
        found |= {(*name, side): use_of(share, stratum.drawn) for name, stratum, share in flat}
    return found


def _drawn_to_the_tokens(
    sides: Sides, table: pl.DataFrame, mixture: Mixture, *, longest: int
) -> tuple[Shares, Shares]:
    """The shares of both sides, the tokens of train as near `tokens` as can be."""

    def drawn(scale: float) -> tuple[Shares, Shares]:
        train = _draw_all(sides[0], scale)
        val, _ = _draw_once(sides[1], scale)  # has what it has: allocate knows the train side's
        if mixture.val_fraction:
            val = [_at_least_one(*both) for both in zip(val, sides[1], strict=True)]
        return train, val

    shares = drawn(1.0)
    if mixture.measure == "tokens" or not isinstance(mixture.tokens, int):
        return shares
    granted, asked = table.select(pl.col("target").sum(), pl.col("asked").sum()).row(0)
    if granted < asked * (1 - 1e-9):
        return shares
    room = pl.col("units") * pl.col("max_epochs") / pl.col("target")
    highest = float(table.filter(pl.col("target") > 0).select(room.min()).item())
    scale, tried = 1.0, []
    for _ in range(8):
        flat = zip(chain(*shares[0]), chain(*sides[0]), strict=True)
        got = sum(share.amounts(stratum.drawn)[1] for share, stratum in flat)
        tried.append((abs(got - mixture.tokens), shares))
        if got == 0 or tried[-1][0] <= longest:
            break
        scale = min(scale * mixture.tokens / got, highest)
        shares = drawn(scale)
    return min(tried, key=lambda one: one[0])[1]


def _draw_all(components: list[list[Stratum]], scale: float) -> Shares:
    """The shares of every component, each within a sample of its part of what all come to.

    A component that has nothing more to give falls behind what the others round up to: then all
    are drawn for a little less.
    """
    for _ in range(20):
        shares, behind = _draw_once(components, scale)
        if behind >= 1:
            break
        scale *= behind
    return shares


def _draw_once(components: list[list[Stratum]], scale: float) -> tuple[Shares, float]:
    """The shares, and the least of got over exact of those that are more than a sample short of
    their part; 1 where none is.

    Rounding a component of long samples moves the total, and with it what the exact part of a
    component of short samples is: those that are then off by more than a sample are drawn again.
    """
    shares = [[Share()] * len(strata) for strata in components]
    targets = np.array([sum(s.target for s in strata) for strata in components])
    whole = targets.sum()
    if whole == 0:
        return shares, 1.0
    longest = np.array(
        [float(max((s.drawn.longest for s in strata), default=0)) for strata in components]
    )
    goals = targets * scale
    got = np.zeros(len(components))
    again = np.ones(len(components), bool)
    for _ in range(20):
        for i in np.flatnonzero(again):
            part = goals[i] / targets[i] if targets[i] else 0.0
            shares[i], got[i] = _draw(components[i], part)
        exact = targets / whole * got.sum()
        again = np.abs(got - exact) > longest
        if not again.any():
            return shares, 1.0
        stuck = goals == exact
        goals = np.where(again, exact, goals)
        if (stuck | ~again).all():
            break
    return shares, float((got[again] / exact[again]).min())


def _draw(strata: list[Stratum], scale: float) -> tuple[list[Share], float]:
    """The shares of a component's strata whose units sum to the targets; what they do sum to.

    What rounding leaves goes to the next stratum, the largest last.
    """
    left = reached = 0.0
    shares = [Share()] * len(strata)
    totals = [s.drawn.total for s in strata]
    for i in sorted(range(len(strata)), key=lambda i: (not strata[i].capped, totals[i])):
        stratum = strata[i]
        target = stratum.target * scale
        left += target
        if totals[i] == 0:
            continue
        goal = min(target if stratum.capped else max(left, 0.0), totals[i] * stratum.most)
        shares[i] = share_to_reach(stratum.drawn, goal, capped=stratum.capped)
        units, _ = shares[i].amounts(stratum.drawn)
        left -= units
        reached += units
    return shares, reached


def share_to_reach(drawn: Drawn, goal: float, *, capped: bool) -> Share:
    """Whole epochs, then the first samples, then the one that best fills the gap.

    The sum is within half a sample of `goal` units, mostly much nearer; capped: never above it.
    """
    epochs = int(goal / drawn.total + 1e-12)
    rest = max(goal - epochs * drawn.total, 0.0)
    first = drawn.fitting(rest * (1 + 1e-12)) if rest else 0
    gap = rest - drawn.first(first)[0]
    chosen = (abs(gap), first, -1)  # what is missing then, how many of the first, and which beside
    for back in (0, 1):  # beside all that fit, or in place of the last of them
        if back > first:
            break
        start = first - back
        window = drawn.sizes(start, start + FIT_WINDOW)
        open_gap = gap + (float(window[0]) if back else 0.0)
        if capped:
            window = np.where(window <= open_gap * (1 + 1e-12), window, np.inf)
        if len(window):
            best = int(np.argmin(np.abs(window - open_gap)))
            chosen = min(chosen, (abs(float(window[best]) - open_gap), start, start + best))
    _, first, beside = chosen
    return Share(epochs, first, beside)


def _at_least_one(shares: list[Share], strata: list[Stratum]) -> list[Share]:
    """A component whose val side has samples uses one at least: the largest stratum's first."""
    sizes = [len(s.drawn) for s in strata]
    if not any(sizes) or any(share.any(s.drawn) for share, s in zip(shares, strata, strict=True)):
        return shares
    largest = sizes.index(max(sizes))
    return [Share(first=1) if i == largest else share for i, share in enumerate(shares)]
