"""Picking from an index that is whole in memory, as plainly as can be: what thresholds on the hash
have to equal (reference_deal.py: the same of dealing).
"""

from typing import NamedTuple

import numpy as np
import polars as pl

from mixtures import draw
from mixtures.allocate import allocate, caps_of
from mixtures.config import Mixture
from mixtures.copies import unit_of
from mixtures.limits import kept_fractions, limit_masks
from mixtures.pick import in_val
from mixtures.supply import SUPPLY, whole_supply

FIT_WINDOW = 256


def pick(index: pl.DataFrame, mixture: Mixture) -> pl.DataFrame:
    """As `mixtures.pick.pick`."""
    keys = draw.sample_keys(index["id"], seed=mixture.seed)
    rank = _ranks(index, mixture, keys)
    side = pl.when(pl.Series(in_val(keys, mixture))).then(pl.lit("val")).otherwise(pl.lit("train"))
    frame = index.with_columns(split=side.cast(pl.Categorical), copies=pl.lit(0, pl.Int32))
    frame = _limited(_capped(frame, mixture, rank, keys), mixture, rank, keys)
    table = allocate(supply(frame, mixture), mixture)
    frame = frame.with_columns(limited=limit_masks(frame, mixture, licences={}))
    copies = copies_of(frame, table, mixture, rank, keys)
    return frame.drop("limited").with_columns(copies=pl.Series(copies))


def supply(index: pl.DataFrame, mixture: Mixture) -> pl.DataFrame:
    """As `mixtures.supply.supply_of`, of an index of which all was read."""
    train, val = pl.col("split") == "train", pl.col("split") == "val"
    counts = {"tokens": "num_tokens", "learned": "num_learned"}
    counts |= {"crops": "num_crops", "bytes": "num_bytes"}
    limited = limit_masks(index, mixture, licences={})
    table = (
        index.with_columns(unit=unit_of(mixture), limited=limited)
        .filter(pl.col("rule").is_null())
        .group_by("component", "subset", "limited")
        .agg(
            samples=train.sum().cast(pl.Int64),
            units=pl.col("unit").filter(train).sum(),
            val_samples=val.sum().cast(pl.Int64),
            val_units=pl.col("unit").filter(val).sum(),
            **{name: pl.col(of).filter(train).cast(pl.Int64).sum() for name, of in counts.items()},
        )
        .with_columns(pl.col("component", "subset").cast(pl.String))
    )
    return whole_supply(table.select(list(SUPPLY)), mixture, {})


def _ranks(index: pl.DataFrame, mixture: Mixture, keys: np.ndarray) -> np.ndarray:
    if not mixture.weight_by:
        return keys
    weight = index["weight"].cast(pl.Float64).fill_null(1.0).to_numpy()
    spent = -np.log1p(-draw.unit_fractions(keys))
    return np.divide(spent, weight, out=np.full(len(keys), np.inf), where=weight > 0)


def _capped(
    frame: pl.DataFrame,
    mixture: Mixture,
    rank: np.ndarray,
    keys: np.ndarray,
) -> pl.DataFrame:
    """The frame with the rules keep, max_samples and grade: a subset keeps its first samples."""
    read = {(c, s): n for c, s, n in frame.group_by("component", "subset").len().iter_rows()}
    live, starts, sizes = live_rows(frame, ["component", "subset"], rank, keys)
    names = frame.select("component", "subset")
    out = np.full(frame.height, None, dtype=object)
    for start, size in zip(starts, sizes, strict=True):
        component, subset = names.row(int(live[start]))
        total = read[component, subset]
        caps = caps_of(mixture, component, subset, rows=total)
        for rule, most in caps:  # the last to write names the rule: keep comes first as a reason
            if most < size:
                out[live[start + int(most) : start + size]] = rule
    return _with_rules(frame, out)


def _with_rules(frame: pl.DataFrame, rules: np.ndarray) -> pl.DataFrame:
    """The frame with these rules where it had none."""
    return frame.with_columns(rule=pl.coalesce("rule", pl.Series(rules.tolist(), dtype=pl.String)))


def _limited(
    frame: pl.DataFrame,
    mixture: Mixture,
    rank: np.ndarray,
    keys: np.ndarray,
) -> pl.DataFrame:
    """The frame with the rules limit_*: of the samples under a cap, the first that fit it stay."""
    if not mixture.limits:
        return frame
    table = supply(frame, mixture)
    fraction = kept_fractions(table, mixture)
    here = table.select("component", "subset", "limited", pl.col("units") * pl.col("there"))
    part = {
        (c, s, m): f * units
        for (c, s, m, units), f in zip(here.iter_rows(), fraction, strict=True)
        if f < 1
    }
    frame = frame.with_columns(limited=limit_masks(frame, mixture, licences={}))
    by = ["component", "subset", "limited"]
    live, starts, sizes = live_rows(frame, by, rank, keys)
    names = frame.select(by)
    train = (frame["split"] == "train").to_numpy()
    unit = frame.select(unit_of(mixture) + pl.repeat(0.0, pl.len())).to_series().to_numpy()
    out = np.full(frame.height, None, dtype=object)
    for start, size in zip(starts, sizes, strict=True):
        stratum = names.row(int(live[start]))
        if stratum not in part:
            continue
        mine = live[start : start + size]
        over = np.cumsum(np.where(train[mine], unit[mine], 0.0)) > part[stratum] * (1 + 1e-12)
        bits = [n for i, n in enumerate(mixture.limits) if stratum[2] & (1 << i)]
        out[mine[over]] = f"limit_{min(bits, key=lambda n: mixture.limits[n].max_ratio)}"
    return _with_rules(frame.drop("limited"), out)


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
    # Longer than a screen: plain is the point.
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
