"""Ratios into budgets: how much of what there is every part of a mixture shall give.

    supply (what could be used)  --shares, epochs, ratios-->  budgets (what shall be used)

A *stratum* is what is drawn from alike: the samples of one subset of one component, apart by which
`limits` they fall under. A *unit* is what `measure` counts: a token, a learned token or a sample.

| column                                      | of a stratum                                      |
|---------------------------------------------|---------------------------------------------------|
| component, subset, limited                  | which; `limited`: bit i set = under limit i       |
| samples, units, tokens, learned, crops, bytes | supply of the train side                        |
| val_samples, val_units                      | supply of the val side                            |
| share                                       | of the component, 0..1                            |
| max_epochs                                  | how often a sample may be used                    |
| asked, target                               | units of the train split: by the ratios; granted  |
| epochs                                      | target / units                                    |
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import polars as pl

from mixtures.config import Component, Mixture

UNIT = {"tokens": "tokens", "samples": "samples", "learned_tokens": "learned tokens"}

STRATUM = ("component", "subset", "limited")

Rows = float | np.ndarray
"""How many rows, of one subset or as seen from several places."""
BINDS = 5e-4
"""Of the whole, what a binding component must cost to be spoken of."""


def shares(supply: pl.DataFrame, mixture: Mixture, *, units: np.ndarray) -> np.ndarray:
    """[strata] the share of its component that each stratum shall fill; sums to 1 per component.

    Without weights, in proportion to `units` (the same number of epochs for all). With weights, a
    subset's share is its weight over the sum of them; its strata share it by their units.
    """
    component, subset = groups(supply)
    of_component = np.bincount(component, units)[component]
    of_subset = np.bincount(subset, units)[subset]
    strata = np.bincount(component)[component]
    by_supply = np.divide(units, of_component, out=1 / strata, where=of_component > 0)
    inside = np.divide(
        units, of_subset, out=1 / np.bincount(subset)[subset].astype(float), where=of_subset > 0
    )
    weight = weights(supply, mixture)
    first = np.unique(subset, return_index=True)[1]
    total = np.bincount(component[first], np.nan_to_num(weight[first]))[component]
    by_weight = np.divide(weight, total, out=np.zeros(len(units)), where=total > 0) * inside
    return np.where(np.isnan(weight), by_supply, by_weight)


def groups(supply: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """[strata], [strata]: a number per component, and one per subset of a component."""
    numbered = supply.select(
        component=pl.col("component").rank("dense") - 1,
        subset=pl.struct("component", "subset").rank("dense") - 1,
    )
    return (
        numbered["component"].to_numpy().astype(np.int64),
        numbered["subset"].to_numpy().astype(np.int64),
    )


def weights(supply: pl.DataFrame, mixture: Mixture) -> np.ndarray:
    """[strata] the weight of the stratum's subset; nan where no subset of the component has one."""
    out = []
    for name, subset in supply.select("component", "subset").iter_rows():
        settings = mixture.components[name].subsets
        stated = settings[subset].weight if subset in settings else None
        weighted = any(s.weight is not None for s in settings.values())
        out.append(math.nan if not weighted else 1.0 if stated is None else stated)
    return np.array(out)


def epochs_of(component: Component, subset: str) -> float:
    """How often a sample of this subset may be used."""
    settings = component.subsets.get(subset)
    own = settings.max_epochs if settings is not None else None
    return component.max_epochs if own is None else own


def caps_of(mixture: Mixture, component: str, subset: str, *, rows: Rows) -> list[tuple[str, Rows]]:
    """(rule, the most samples of the subset that it leaves), the last to bind being the reason;
    `rows`: how many the subset has.
    """
    settings = mixture.components[component].subsets.get(subset)
    if settings is None:
        return []
    graded = mixture.grades.get(settings.grade) if settings.grade is not None else None
    caps: list[tuple[str, Rows | None]] = [
        ("grade", graded),
        ("max_samples", settings.max_samples),
        ("keep", np.round(settings.keep * rows) if settings.keep < 1 else None),
    ]
    return [(rule, most) for rule, most in caps if most is not None]


def allocate(
    supply: pl.DataFrame, mixture: Mixture, *, gone: Callable[[], Mapping[str, str]] = dict
) -> pl.DataFrame:
    """`supply` with share, max_epochs, asked, target and epochs; a shortage is told or settled.

    Raises ValueError where `on_shortage` is `error` and a component cannot give its part, saying
    what each can give, which one binds, and the ways out. `gone` is asked
    then: component -> a sentence on why rows of it are gone; the message begins with those.
    """
    units = supply["units"].to_numpy().astype(np.float64)
    names = supply["component"].to_list()
    share = shares(supply, mixture, units=units)
    ratio = np.array([mixture.components[name].ratio for name in names])
    most = np.array(
        [
            epochs_of(mixture.components[name], subset)
            for name, subset in zip(names, supply["subset"], strict=True)
        ]
    )
    per_unit = np.divide(
        supply["tokens"].to_numpy(), units, out=np.zeros(len(units)), where=units > 0
    )
    tokens_per_unit = float((ratio * share * per_unit).sum())
    frame = supply.with_columns(
        share=pl.Series(share), max_epochs=pl.Series(most), ratio=pl.Series(ratio)
    )
    budget = largest = _largest(frame)
    if isinstance(mixture.tokens, int):
        budget = mixture.tokens / tokens_per_unit if tokens_per_unit else 1.0
    asked = ratio * share * budget
    target = asked
    short = shortages(frame, budget=budget)
    rest = _shared_out(names, ratio * share, units * most)
    settled = mixture.on_shortage == "redistribute" and rest.any()
    if mixture.tokens == "max" and largest == 0 and settled:
        largest = float(((units * most)[rest > 0] / rest[rest > 0]).min())
        asked, target = ratio * share * largest, rest * largest
    elif mixture.tokens == "max" and largest == 0:
        short = shortages(frame, budget=1.0)
        told = _explained(short, frame, mixture, budget=0, tokens_per_unit=0)
        raise ValueError(_led_by(gone(), short, told, mixture))
    if short.height and mixture.tokens != "max":
        if settled:
            target = redistributed(names, asked, units * most)
        elif mixture.on_shortage == "shrink" and largest > 0:
            target = ratio * share * largest
        else:
            told = _explained(short, frame, mixture, budget=budget, tokens_per_unit=tokens_per_unit)
            raise ValueError(_led_by(gone(), short, told, mixture))
    target = np.minimum(target, units * most)
    epochs = np.divide(target, units, out=np.zeros(len(units)), where=units > 0)
    return frame.with_columns(
        asked=pl.Series(asked), target=pl.Series(target), epochs=pl.Series(epochs)
    )


def _led_by(gone: Mapping[str, str], short: pl.DataFrame, told: str, mixture: Mixture) -> str:
    """The message of a shortage: first why, then how much."""
    why = [gone[name] for name in short["component"] if name in gone]
    return " ".join([f"{mixture.name}:", *why, told])


def _shared_out(names: Sequence[str], parts: np.ndarray, capacity: np.ndarray) -> np.ndarray:
    """[strata] the parts again; those of strata that can give nothing are shared out in proportion,
    inside their component where it can give anything, else between the others.
    """
    out = np.zeros(len(parts))
    for name in dict.fromkeys(names):
        mine = np.array([other == name for other in names])
        live = mine & (capacity > 0)
        if live.any() and parts[live].sum() > 0:
            out[live] = parts[live] / parts[live].sum() * parts[mine].sum()
    return out / out.sum() * parts.sum() if out.any() else out


def _largest(frame: pl.DataFrame) -> float:
    """Units of the largest mixture that keeps every ratio and share."""
    wanted = frame.filter((pl.col("share") > 0) & (pl.col("ratio") > 0))
    can = pl.col("units") * pl.col("max_epochs") / (pl.col("share") * pl.col("ratio"))
    return float(wanted.select(can.min()).item())


def shortages(frame: pl.DataFrame, *, budget: float) -> pl.DataFrame:
    """A line per component that cannot give its part of `budget` units: what binds, need and gift.

    Less than half a sample missing is rounding, not shortage.
    """
    capacity = pl.col("units") * pl.col("max_epochs")
    need = pl.col("ratio") * pl.col("share") * budget
    missing = need - capacity
    half = 0.5 * pl.col("units") / pl.max_horizontal(pl.col("samples"), 1)
    return (
        frame.with_columns(
            gives=capacity / pl.col("share"), missing=missing, whole=pl.col("ratio") * budget
        )
        .filter((pl.col("missing") > half + 1e-9 * need) & (pl.col("share") > 0))
        .sort("component", "gives", maintain_order=True)
        .group_by("component", maintain_order=True)
        .agg(
            pl.col("subset", "share", "units", "max_epochs", "ratio", "gives", "whole").first(),
        )
    )


def _explained(
    short: pl.DataFrame,
    frame: pl.DataFrame,
    mixture: Mixture,
    *,
    budget: float,
    tokens_per_unit: float,
) -> str:
    """The message of a shortage: per component what it can give, then the ways out."""
    unit = UNIT[mixture.measure]
    lines, ways = [], []
    empty = []
    for line in short.iter_rows(named=True):
        name = line["component"]
        subsets = frame.filter(component=name)["subset"].n_unique()
        which = name if subsets == 1 else f"{name} (bound by its subset {line['subset']!r})"
        if line["units"] == 0:
            empty.append(name)
            lines.append(
                f"{which} can give nothing: no {unit} of it are left after its filters, keep and "
                f"limits, but its ratio is {line['ratio']:g}."
            )
            continue
        used = f"{human_count(line['units'])} x {line['max_epochs']:g} epochs"
        if subsets > 1:
            used += f" / {line['share']:.3g} of the component"
        lines.append(
            f"{which} can give {human_count(line['gives'])} {unit} ({used}), but "
            f"{line['ratio']:g} of {human_count(budget)} is {human_count(line['whole'])}."
        )
        needed = math.ceil(10 * line["whole"] * line["share"] / line["units"] - 1e-6) / 10
        key = f"components.{name}.max_epochs"
        own = mixture.components[name].subsets.get(line["subset"])
        if own is not None and own.max_epochs is not None:
            key = f"components.{name}.subsets.{line['subset']}.max_epochs"
        lowered = math.floor(1e5 * line["gives"] / budget) / 1e5
        ways.append(
            f"raise {key} to {needed:g}, or lower components.{name}.ratio to {lowered:g} and give "
            f"{line['ratio'] - lowered:.5g} to {_widest(frame, mixture, budget, but=name)}"
        )
    largest = _largest(frame) * tokens_per_unit
    if empty:
        named = ", ".join(empty)
        ways.append("mend the rows, loosen filters, or use the source that has their layout")
        if len(empty) < frame["component"].n_unique():
            ways.append(f"set the ratio of {named} to 0 and share it out")
    elif largest > 0:
        ways.insert(0, f"lower tokens to {human_count(largest)} (tokens={math.floor(largest)})")
    if not empty:
        ways.append("set on_shortage=shrink or on_shortage=redistribute")
    elif len(empty) < frame["component"].n_unique():
        ways.append("set on_shortage=redistribute")
    can = ", ".join(f"{name} {human_count(gives)}" for name, gives in _gifts(frame).iter_rows())
    found = f"{' '.join(lines)}\nfound: Each can give, in {unit}: {can}."
    return "\n  - ".join([f"{found}\nWays out:", *ways])


def _gifts(frame: pl.DataFrame) -> pl.DataFrame:
    """What each component can give at most in its shares: component, gives."""
    capacity = pl.col("units") * pl.col("max_epochs") / pl.col("share")
    return (
        frame.filter(pl.col("share") > 0)
        .group_by("component", maintain_order=True)
        .agg(gives=capacity.min())
    )


def _widest(frame: pl.DataFrame, mixture: Mixture, budget: float, *, but: str) -> str:
    """The component with the most left over, to which a ratio can go."""
    spare = {
        name: gives - mixture.components[name].ratio * budget
        for name, gives in _gifts(frame).iter_rows()
        if name != but
    }
    widest = max(spare, key=spare.__getitem__, default="")
    return widest if widest and spare[widest] > 0 else "a component with more data"


def redistributed(names: Sequence[str], asked: np.ndarray, capacity: np.ndarray) -> np.ndarray:
    """[strata] the asked total again; what some cannot give is shared out as the others were asked.

    First inside each component, then between components.
    """
    index = {name: [i for i, n in enumerate(names) if n == name] for name in dict.fromkeys(names)}
    wanted = np.array([asked[rows].sum() for rows in index.values()])
    room = np.array([capacity[rows].sum() for rows in index.values()])
    granted = fill_in_proportion(wanted, room, total=float(wanted.sum()))
    target = np.zeros(len(asked))
    for rows, total in zip(index.values(), granted, strict=True):
        target[rows] = fill_in_proportion(asked[rows], capacity[rows], total=float(total))
    return target


def fill_in_proportion(wanted: np.ndarray, room: np.ndarray, *, total: float) -> np.ndarray:
    """[n] amounts in proportion to `wanted`, none above its `room`; sums to `total` if it can."""
    full = np.zeros(len(wanted), bool)
    while True:
        left = total - room[full].sum()
        open_sum = wanted[~full].sum()
        scale = left / open_sum if open_sum > 0 else 0.0
        over = ~full & (wanted * scale > room)
        if not over.any():
            return np.where(full, room, wanted * scale)
        full |= over


def binding(strata: pl.DataFrame, mixture: Mixture) -> list[str]:
    """With `tokens: max`: the component that bounds the whole, and what that costs; else nothing.

    Reads: component, units, max_epochs, share, ratio of every stratum.
    """
    if mixture.tokens != "max":
        return []
    bound = pl.col("units") * pl.col("max_epochs") / (pl.col("share") * pl.col("ratio"))
    allows = (
        strata.filter((pl.col("share") > 0) & (pl.col("ratio") > 0))
        .group_by("component", maintain_order=True)
        .agg(bound=bound.min())
        .sort("bound", maintain_order=True)
    )
    if allows.height < 2 or allows["bound"][0] <= 0:
        return []
    (name, least), (second, more) = allows.rows()[:2]
    if more / least - 1 < BINDS:
        return []
    component, unit = mixture.components[name], UNIT[mixture.measure]
    enough = math.ceil(1000 * component.max_epochs * more / least) / 1000
    gives, whole, next_whole = map(human_count, (least * component.ratio, least, more))
    return [
        f"{name} binds: with every ratio kept, its {gives} {unit} bound the whole to {whole}; "
        f"{second}, the next to bind, would allow {next_whole} ({100 * (more / least - 1):.2g} % "
        f"more). components.{name}.max_epochs={enough:g} would do, or a lower ratio."
    ]


def shortage_notes(budgets: pl.DataFrame, mixture: Mixture) -> list[str]:
    """A sentence for every component that shall give other than its ratio asked, and for the one
    that bounds the whole; often none.
    """
    unit = UNIT[mixture.measure]
    table = budgets.group_by("component", maintain_order=True).agg(
        pl.col("asked").sum(), pl.col("target").sum()
    )
    how = {"shrink": "lowered with all others, so that the ratios hold", "redistribute": ""}
    out = []
    for name, asked, target in table.iter_rows():
        if abs(target - asked) <= max(1.0, 1e-6 * asked):
            continue
        word = how.get(mixture.on_shortage) or (
            "all it can give" if target < asked else "more, for what others cannot give"
        )
        out.append(
            f"{name}: {human_count(target)} {unit} instead of {human_count(asked)} ({word}; "
            f"on_shortage: {mixture.on_shortage})"
        )
    return out + binding(budgets, mixture)


def human_count(number: float) -> str:
    """A count as people read it, never rounded up: 802.6M, 1.0B, 950."""
    if not math.isfinite(number):
        return "unlimited"
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            digits = 3 if number < 10 * size else 2 if number < 100 * size else 1
            text = f"{math.floor(10**digits * number / size + 1e-9) / 10**digits:.{digits}f}"
            return f"{text.rstrip('0')}{'0' if text.rstrip('0').endswith('.') else ''}{letter}"
    return f"{math.floor(number + 1e-9)}"
