"""Caps over all components: which samples they bind, and how many of those may stay.

A limit says: samples that meet its conditions are at most `max_ratio` of the mixture. Where they
hide inside a component among others, only so many of them stay (those that go get the rule
`limit_NAME`) that the component's own draw keeps the cap. A component (or a weighted subset) that
holds nothing else cannot give less than its ratio says: then the two contradict, and that is said.
"""

import functools
import operator
from collections.abc import Mapping

import numpy as np
import polars as pl

from mixtures.allocate import groups, shares, weights
from mixtures.config import Limit, Mixture


def limit_masks(index: pl.DataFrame, mixture: Mixture, *, licences: Mapping[str, str]) -> pl.Series:
    """UInt32 per row of the index: bit i is set where the sample is under the i-th limit.

    `licences`: component -> licence, read by limits on a licence.
    """
    bits = pl.lit(0, pl.UInt32)
    for position, (name, limit) in enumerate(mixture.limits.items()):
        under = _condition(name, limit, mixture, licences=licences)
        bits = bits + pl.when(under).then(pl.lit(1 << position, pl.UInt32)).otherwise(
            pl.lit(0, pl.UInt32)
        )
    return index.select(limited=bits + pl.repeat(0, pl.len(), dtype=pl.UInt32))["limited"]


def _condition(
    name: str, limit: Limit, mixture: Mixture, *, licences: Mapping[str, str]
) -> pl.Expr:
    """True where every condition of the limit holds."""
    tests: list[pl.Expr] = []
    if limit.component:
        tests.append(pl.col("component") == limit.component)
    if limit.modality:
        tests.append(pl.col("modality") == limit.modality)
    if limit.category:
        tests.append(_of_category(limit.category, mixture))
    if limit.licence:
        if not licences:
            raise ValueError(
                f"{mixture.name}: limits.{name} is on a licence, but no licences are known here."
            )
        under = [component for component, licence in licences.items() if licence == limit.licence]
        tests.append(pl.col("component").is_in(under))
    if limit.min_seconds is not None:
        tests.append(pl.col("duration") >= limit.min_seconds)
    if limit.max_seconds is not None:
        tests.append(pl.col("duration") < limit.max_seconds)
    if limit.tag or not tests:
        tests.append(pl.col("tags").list.contains(limit.tag or name))
    return functools.reduce(operator.and_, tests).fill_null(value=False)


def _of_category(category: str, mixture: Mixture) -> pl.Expr:
    """True for samples of subsets (or else components) of this category."""
    hit = pl.lit(value=False)
    for name, component in mixture.components.items():
        mine = pl.col("component") == name
        own = {s: c.category for s, c in component.subsets.items() if c.category}
        if component.category == category:
            others = [s for s, c in own.items() if c != category]
            hit = hit | (mine & ~pl.col("subset").is_in(others))
        else:
            hit = hit | (
                mine & pl.col("subset").is_in([s for s, c in own.items() if c == category])
            )
    return hit


def kept_fractions(supply: pl.DataFrame, mixture: Mixture) -> np.ndarray:
    """[strata] fraction of the units of each stratum that may stay so that every limit holds.

    Raises ValueError where ratios alone ask for more than a limit allows.
    """
    units = supply["units"].to_numpy().astype(np.float64)
    limited = supply["limited"].to_numpy()
    ratio = np.array([mixture.components[name].ratio for name in supply["component"]])
    fraction = np.ones(len(units))
    component, subset = groups(supply)
    sharing = np.where(np.isnan(weights(supply, mixture)), component, subset + len(units))
    for _ in range(
        50
    ):  # thinning for one limit moves the shares of another; a few rounds settle it
        settled = True
        for position, (name, limit) in enumerate(mixture.limits.items()):
            under = (limited & (1 << position)) > 0

            def part(f: np.ndarray, under: np.ndarray = under) -> float:
                share = shares(supply, mixture, units=units * f)
                return float((ratio * share)[under].sum())

            if part(fraction) <= limit.max_ratio + 1e-12:
                continue
            settled = False
            mixed = under & np.array(
                [bool((~under & (sharing == group) & (units > 0)).any()) for group in sharing]
            )
            none_left = np.where(mixed, 0.0, fraction)
            if part(none_left) > limit.max_ratio + 1e-12:
                whole = sorted(
                    set(supply.filter(pl.Series(under & ~mixed & (units > 0)))["component"])
                )
                raise ValueError(
                    f"{mixture.name}: limits.{name}.max_ratio is {limit.max_ratio:g}, but "
                    f"{', '.join(whole)} hold nothing else and their ratios come to "
                    f"{part(none_left):.6g}.\nway out: lower those ratios or raise the limit."
                )
            low, high = 0.0, 1.0
            for _ in range(60):
                middle = (low + high) / 2
                if part(np.where(mixed, fraction * middle, fraction)) > limit.max_ratio:
                    high = middle
                else:
                    low = middle
            fraction = np.where(mixed, fraction * low, fraction)
        if settled:
            break
    return fraction
