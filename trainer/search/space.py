"""The ratios that are searched: what is fixed, kept together, bounded, and what supply allows.

    ratios of the prior, bounds, groups, fixed, most --space_of--> Space
    Space: point [stages x groups] (each stage sums to what is not fixed) <--> ratios {component: .}

A *point* has a number per stage and group: the share of its components together, which keep their
prior proportions inside it. A component that is named in no group is a group of its own. With one
stage a ratio is a number, with more a list: a schedule of steps of one length. Bounds hold in every
stage, supply over the whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.search.bounds import require_names

DIGITS = 6
"""Of a ratio in a mixture's file."""
STRENGTHS = (2.0, 6.0, 20.0)
"""How close to the prior designs are drawn, in turn: parameters of a Dirichlet distribution."""
WIDE = 0.7
"""The same for points anywhere: below 1 the corners are reached."""
LEAST = 0.02
"""Share of a component in what designs are drawn around, so that one of 0 is tried as well."""

Ratio = float | list[float]
"""Of a component: a number, or one for each stage."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """The points that may be tried."""

    groups: list[list[str]]
    prior: np.ndarray
    """[groups]"""
    low: np.ndarray
    high: np.ndarray
    """[groups] in every stage."""
    most: np.ndarray
    """[groups] over the whole: what supply allows."""
    inside: dict[str, float]
    """Component -> its part of its group."""
    fixed: dict[str, float]
    order: list[str]
    """The components in the order of the mixture."""
    stages: int = 1

    @property
    def total(self) -> float:
        """What is not fixed."""
        return 1.0 - sum(self.fixed.values())

    @property
    def size(self) -> int:
        """Numbers of a point."""
        return self.stages * len(self.groups)

    @property
    def names(self) -> list[str]:
        """Of the numbers of a point."""
        groups = [" + ".join(group) for group in self.groups]
        if self.stages == 1:
            return groups
        return [f"{name}, stage {n + 1}" for n in range(self.stages) for name in groups]

    def held(self, shares: np.ndarray) -> np.ndarray:
        """The point of these shares [groups] in every stage."""
        return self.nearest(np.tile(shares, self.stages))

    def ratios(self, point: np.ndarray) -> dict[str, Ratio]:
        """What a mixture's file says: the ratios of a point, which sum to 1 in their digits."""
        by_stage = [self._ratios(stage) for stage in point.reshape(self.stages, -1)]
        if self.stages == 1:
            return dict(by_stage[0])
        return {name: [each[name] for each in by_stage] for name in self.order}

    def _ratios(self, stage: np.ndarray) -> dict[str, float]:
        found = dict(self.fixed)
        for group, share in zip(self.groups, stage, strict=True):
            found |= {name: round(float(share) * self.inside[name], DIGITS) for name in group}
        free = [name for group in self.groups for name in group]
        largest = max(free, key=found.__getitem__)
        found[largest] = round(found[largest] + 1 - sum(found.values()), DIGITS)
        return {name: found[name] for name in self.order}

    def nearest(self, points: np.ndarray) -> np.ndarray:
        """[..., size] points within all bounds: what goes beyond one is shared out among the
        others, of a group beyond its supply in the proportions of its stages.
        """
        stages = points.reshape(-1, self.stages, len(self.groups))
        limits = np.broadcast_to(self.high, stages.shape)
        first = found = _shared_out(stages, self.low, limits, self.total)
        for _ in self.groups:
            over = found.mean(axis=1, keepdims=True) > self.most + 1e-12
            if not over.any():
                break
            above = found - self.low
            room = (self.most - self.low) / np.maximum(above.mean(axis=1, keepdims=True), 1e-15)
            limits = np.where(over, self.low + above * room, limits)
            found = _shared_out(stages, self.low, limits, self.total)
        whole = np.abs(found.sum(axis=2) - self.total).max(axis=1) < 1e-9
        within = (found.mean(axis=1) <= self.most + 1e-9).all(axis=1)
        right = (whole & within)[:, None, None]
        return np.where(right, found, self._between(first)).reshape(points.shape)

    def _between(self, stages: np.ndarray) -> np.ndarray:
        """[n, stages, groups] from ratios that stay as far to these stages as supply allows."""
        mean = stages.mean(axis=1, keepdims=True)
        middle = _shared_out(mean, self.low, np.minimum(self.high, self.most), self.total)
        step = mean - middle
        room = np.where(step > 1e-15, (self.most - middle) / np.maximum(step, 1e-15), 1.0)
        part = np.clip(room.min(axis=2, keepdims=True), 0.0, 1.0)
        return np.asarray(middle + part * (stages - middle))

    def design(self, count: int, *, random: np.random.Generator) -> np.ndarray:
        """[count, size] points around the prior, near and far in turn; of one state of `random` the
        first are the same, however many.
        """
        found = []
        for n in range(count):
            drawn = self._drawn(self.prior, STRENGTHS[n % len(STRENGTHS)], random)
            if self.stages > 1:
                strength = STRENGTHS[n // len(STRENGTHS) % len(STRENGTHS)]
                drawn = np.concatenate(
                    [self._drawn(drawn, strength, random) for _ in range(self.stages)]
                )
            found.append(drawn * self.total)
        return self.nearest(np.array(found).reshape(count, self.size))

    def _drawn(
        self, around: np.ndarray, strength: float, random: np.random.Generator
    ) -> np.ndarray:
        share = np.maximum(around / around.sum(), LEAST)
        return random.dirichlet(share / share.sum() * strength * len(share) / 2)

    def wide(self, count: int, *, random: np.random.Generator) -> np.ndarray:
        """[count, size] points everywhere in the space."""
        drawn = random.dirichlet(np.full(len(self.groups), WIDE), (count, self.stages))
        return self.nearest(drawn.reshape(count, self.size) * self.total)


def _shared_out(share: np.ndarray, low: np.ndarray, high: np.ndarray, total: float) -> np.ndarray:
    """[..., groups] shares within their bounds that sum to the total, as near as it is simple."""
    found = np.clip(share, low, high)
    for _ in range(100):
        missing = total - found.sum(axis=-1, keepdims=True)
        missing = np.where(np.abs(missing) < 1e-12, 0.0, missing)
        room = np.where(missing > 0, high - found, found - low)
        weight = np.where(room > 1e-15, np.maximum(found, 1e-6), 0.0)
        whole = weight.sum(axis=-1, keepdims=True)
        if not (missing.astype(bool) & (whole > 0)).any():
            break
        part = weight / np.where(whole > 0, whole, 1.0)
        found = found + np.sign(missing) * np.minimum(np.abs(missing) * part, room)
    return found


def space_of(
    prior: Mapping[str, float],
    *,
    bounds: Mapping[str, Sequence[float]],
    groups: Sequence[Sequence[str]],
    fixed: Mapping[str, float],
    most: Mapping[str, float],
    stages: int = 1,
) -> Space:
    """The space that these settings leave; `most`: the largest ratio of each component over the
    whole that its supply allows.

    Raises ValueError where names are unknown, bounds contradict, or nothing is left to choose.
    """
    require_names(prior, bounds=bounds, groups=groups, fixed=fixed)
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
        name: prior[name] / share if share else 1 / len(group)
        for group, share in zip(every, shares, strict=True)
        for name in group
    }
    limits = [_limits(group, inside, total, bounds, most) for group in every]
    low, high, supply = (np.array(each) for each in zip(*limits, strict=True))
    whole = np.minimum(high, supply)
    _require_room(low, whole, high if stages > 1 else whole, total)
    return Space(
        groups=every, prior=np.array(shares) / (sum(shares) or 1) * total, low=low,
        high=whole if stages == 1 else high, most=supply, inside=inside, fixed=dict(fixed),
        order=list(prior), stages=stages,
    )  # fmt: skip


def _limits(
    group: Sequence[str],
    inside: Mapping[str, float],
    total: float,
    bounds: Mapping[str, Sequence[float]],
    most: Mapping[str, float],
) -> tuple[float, float, float]:
    """(least, most by bounds, most by supply) of a group; ValueError where they contradict."""
    parts = [name for name in group if inside[name] > 0]
    low = max(float(bounds.get(name, (0, 1))[0]) / inside[name] for name in parts)
    by_bounds = min(float(bounds.get(name, (0, 1))[1]) / inside[name] for name in parts)
    by_supply = min(most.get(name, 1.0) / inside[name] for name in parts)
    limit = min(by_bounds, by_supply, total)
    if low > limit + 1e-9:
        raise ValueError(
            f"search: bounds of {' + '.join(group)} contradict: at least {low:.4g}, but at most "
            f"{limit:.4g} ({'its bounds' if by_bounds < by_supply else 'its supply'} and what is "
            "not fixed).\nway out: lower the least, raise max_epochs, or train fewer tokens."
        )
    return low, min(by_bounds, total), min(by_supply, total)


def _require_room(low: np.ndarray, limits: np.ndarray, free: np.ndarray, total: float) -> None:
    """Raises ValueError where no ratios are within all bounds, or one mixture alone is; `free` are
    the limits of a stage.
    """
    if low.sum() > total + 1e-9 or limits.sum() < total - 1e-9:
        raise ValueError(
            f"search: bounds contradict: together the groups are {low.sum():.4g} to "
            f"{limits.sum():.4g}, but what is not fixed is {total:.4g}.\nway out: widen bounds, "
            "raise max_epochs where supply binds, or train fewer tokens."
        )
    most, least = total - (low.sum() - low), total - (free.sum() - free)  # as the others leave
    if (np.minimum(free, most) - np.maximum(low, least) < 10.0**-DIGITS).all():
        raise ValueError(
            "search: bounds and supply leave one mixture alone, so every run is the same and the "
            "target constant.\nway out: widen bounds, or raise max_epochs where supply binds."
        )
