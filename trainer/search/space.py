"""The ratios that are searched: what is fixed, kept together, bounded, and what supply allows.

    ratios of the prior, bounds, groups, fixed, most --space_of--> Space
    Space: point [groups] (sums to what is not fixed) <--> ratios {component: ratio}

A *point* has a number per group: the share of its components together, which keep their prior
proportions inside it. A component that is named in no group is a group of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

DIGITS = 6
"""Of a ratio in a mixture's file."""
STRENGTHS = (2.0, 6.0, 20.0)
"""How close to the prior designs are drawn, in turn: parameters of a Dirichlet distribution."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """The points that may be tried."""

    groups: list[list[str]]
    prior: np.ndarray
    """[groups]"""
    low: np.ndarray
    high: np.ndarray
    inside: dict[str, float]
    """Component -> its part of its group."""
    fixed: dict[str, float]
    order: list[str]
    """The components in the order of the mixture."""

    @property
    def total(self) -> float:
        """What is not fixed."""
        return 1.0 - sum(self.fixed.values())

    @property
    def names(self) -> list[str]:
        """Of the groups."""
        return [" + ".join(group) for group in self.groups]

    def ratios(self, point: np.ndarray) -> dict[str, float]:
        """What a mixture's file says: the ratios of a point, which sum to 1 in their digits."""
        found = dict(self.fixed)
        for group, share in zip(self.groups, point, strict=True):
            found |= {name: round(float(share) * self.inside[name], DIGITS) for name in group}
        free = [name for group in self.groups for name in group]
        largest = max(free, key=found.__getitem__)
        found[largest] = round(found[largest] + 1 - sum(found.values()), DIGITS)
        return {name: found[name] for name in self.order}

    def nearest(self, point: np.ndarray) -> np.ndarray:
        """A point within all bounds: what goes beyond one is shared out among the others."""
        found = np.clip(point, self.low, self.high)
        for _ in range(100):
            missing = self.total - found.sum()
            if abs(missing) < 1e-12:
                break
            room = (self.high - found) if missing > 0 else (found - self.low)
            weight = np.where(room > 1e-15, np.maximum(found, 1e-6), 0.0)
            if not weight.sum():
                break
            step = np.minimum(np.abs(missing) * weight / weight.sum(), room)
            found = found + np.sign(missing) * step
        return found

    def design(self, count: int, *, random: np.random.Generator) -> np.ndarray:
        """[count, groups] points around the prior, near and far in turn."""
        share = np.maximum(self.prior / self.prior.sum(), 0.02)
        drawn = [
            random.dirichlet(share / share.sum() * STRENGTHS[n % len(STRENGTHS)] * len(share) / 2)
            for n in range(count)
        ]
        return np.array([self.nearest(one * self.total) for one in drawn])


def space_of(
    prior: Mapping[str, float],
    *,
    bounds: Mapping[str, Sequence[float]],
    groups: Sequence[Sequence[str]],
    fixed: Mapping[str, float],
    most: Mapping[str, float],
) -> Space:
    """The space that these settings leave; `most`: the largest ratio of each component that its
    supply allows.

    Raises ValueError where names are unknown, bounds contradict, or nothing is left to choose.
    """
    _require_names(prior, bounds=bounds, groups=groups, fixed=fixed)
    grouped = [name for group in groups for name in group]
    every = [list(group) for group in groups]
    every += [[name] for name in prior if name not in grouped and name not in fixed]
    if len(every) < 2:
        raise ValueError(
            f"search: {len(every)} group of ratios is free, so there is nothing to choose; "
            "expected two at least.\nway out: fix fewer components, or group fewer together."
        )
    total = 1 - sum(fixed.values())
    shares = [sum(prior[name] for name in group) for group in every]
    inside = {
        name: prior[name] / share for group, share in zip(every, shares, strict=True)
        for name in group
    }  # fmt: skip
    low, high = [], []
    for group in every:
        low.append(max(float(bounds.get(name, (0, 1))[0]) / inside[name] for name in group))
        by_bounds = min(float(bounds.get(name, (0, 1))[1]) / inside[name] for name in group)
        by_supply = min(most.get(name, 1.0) / inside[name] for name in group)
        high.append(min(by_bounds, by_supply, total))
        if low[-1] > high[-1] + 1e-9:
            raise ValueError(
                f"search: bounds of {' + '.join(group)} contradict: at least {low[-1]:.4g}, but at "
                f"most {high[-1]:.4g} ({'its bounds' if by_bounds < by_supply else 'its supply'} "
                "and what is not fixed).\nway out: lower the least, raise max_epochs, or train "
                "fewer tokens."
            )
    if sum(low) > total + 1e-9 or sum(high) < total - 1e-9:
        raise ValueError(
            f"search: bounds contradict: together the groups are {sum(low):.4g} to "
            f"{sum(high):.4g}, but what is not fixed is {total:.4g}.\nway out: widen bounds, raise "
            "max_epochs where supply binds, or train fewer tokens."
        )
    return Space(
        groups=every, prior=np.array(shares) / sum(shares) * total, low=np.array(low),
        high=np.array(high), inside=inside, fixed=dict(fixed), order=list(prior),
    )  # fmt: skip


def _require_names(
    prior: Mapping[str, float],
    *,
    bounds: Mapping[str, Sequence[float]],
    groups: Sequence[Sequence[str]],
    fixed: Mapping[str, float],
) -> None:
    """Raises ValueError where what is said of components is of none, or says two things of one."""
    named = [*bounds, *fixed, *(name for group in groups for name in group)]
    for name in named:
        if name not in prior:
            raise ValueError(
                f"search: the mixture has no component {name!r}; expected {', '.join(prior)}."
            )
    grouped = [name for group in groups for name in group]
    twice = [name for name in prior if [*fixed, *grouped].count(name) > 1]
    if twice:
        raise ValueError(f"search: {twice[0]} is in two groups, or fixed and in a group.")
    for name, pair in bounds.items():
        right = isinstance(pair, list | tuple) and len(pair) == 2
        if not right or not 0 <= float(pair[0]) <= float(pair[1]) <= 1:
            raise ValueError(f"search: bounds.{name} is {pair}; expected [least, most], 0 to 1.")
        if name in fixed:
            raise ValueError(f"search: {name} is fixed and has bounds; state one of the two.")
