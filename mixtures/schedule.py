"""A ratio that changes over the run: points, its mean, and where along the run a share is reached.

    ratio: {0: 0.30, 0.7: 0.30, 1: 0.05}   --settle-->  ratio 0.2625, schedule [[0, .3], ...]

A *point* is (position, share). A position is the part of the train split that has passed, 0 to 1,
in the unit of `measure`; between points the share is linear, and a position that stands twice is a
step. `ratio` becomes the mean over the run, which is the component's part of the whole, so budgets,
limits and the val split know means alone; only the order of samples knows the schedule.

| function    | says                                                                       |
|-------------|----------------------------------------------------------------------------|
| settle      | ratios of a raw mixture: schedules apart, their means in place of them     |
| mean        | the component's part of the whole                                          |
| passed      | of a position: how much of the whole has come from the component until then |
| position_of | of a part of the component: the position at which so much of it has passed |
| crowding    | how much closer its samples lie, where most, than evenly spread ones       |
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

Points = Sequence[Sequence[float]]
"""(position, share), ascending from position 0 to 1."""
REST = "rest"
"""The ratio of the one component that fills what the others leave, at every point."""
DIGITS = 12
"""To which means and what is left for `rest` are rounded: below them lies floating point."""
CLOSE = 1e-6
"""How far ratios may sum from 1."""


def settle(components: Mapping[str, Any], *, where: str) -> None:
    """Every `ratio` that is a schedule is its mean, in place, the points beside it as `schedule`.

    A schedule is a mapping position -> share, or a list of such pairs. One component may say
    `rest`. A schedule that never changes is a plain ratio. Raises ValueError where points are no
    schedule, or leave nothing for `rest`.
    """
    known = {name: c for name, c in components.items() if isinstance(c, dict) and "ratio" in c}
    rest = [name for name, c in known.items() if c["ratio"] == REST]
    if len(rest) > 1:
        raise ValueError(
            f"{where}: ratio is rest in {' and '.join(rest)}; expected it in one component, which "
            "fills what all others leave."
        )
    for name, component in known.items():
        if component.get("schedule"):
            raise ValueError(
                f"{where}: components.{name}.schedule is what a ratio becomes.\nway out: write "
                f"the points as ratio: {component['schedule']!r}."
            )
        key = f"{where}: components.{name}.ratio"
        if isinstance(component["ratio"], list | dict):
            _put(component, _points(component["ratio"], key=key))
    if rest:
        others = {name: c for name, c in known.items() if name != rest[0]}
        _put(known[rest[0]], _left_by(others, where=where))


def _put(component: dict[str, Any], points: Points) -> None:
    component["ratio"], found = mean_and_points(points)
    if found:
        component["schedule"] = found


def mean_and_points(points: Points) -> tuple[float, list[list[float]]]:
    """The ratio that a schedule comes to, and its points: none where it never changes."""
    shares = {round(share, DIGITS) for _, share in points}
    if len(shares) == 1:
        return shares.pop(), []
    return round(mean(points), DIGITS), [list(point) for point in points]


def _points(stated: Any, *, key: str) -> list[list[float]]:
    """What a ratio states, as points; ValueError says which of them is none."""
    pairs = list(stated.items()) if isinstance(stated, dict) else stated
    form = "expected {position: share, ...} or [[position, share], ...]"
    points = []
    for pair in pairs:
        numbers = [_number(value) for value in pair] if isinstance(pair, list | tuple) else []
        if len(numbers) != 2 or not all(0 <= number <= 1 for number in numbers):
            raise ValueError(f"{key} holds {pair!r}; {form}, all of them 0 to 1.")
        points.append(numbers)
    positions = [position for position, _ in points]
    if len(points) < 2 or positions[0] != 0 or positions[-1] != 1:
        raise ValueError(
            f"{key} goes from {positions[0] if points else 'nothing'} to "
            f"{positions[-1] if points else 'nothing'}; {form} from position 0 to position 1."
        )
    if positions != sorted(positions):
        raise ValueError(f"{key} has its positions in the order {positions}; expected ascending.")
    for position in dict.fromkeys(positions):
        most = 2 if 0 < position < 1 else 1
        if positions.count(position) > most:
            raise ValueError(
                f"{key} states position {position:g} {positions.count(position)} times; expected "
                "each once, or twice between 0 and 1, where the share steps."
            )
    return points


def _number(value: Any) -> float:
    """A value of YAML, or a key of JSON, as a number; nan where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except ValueError:
        return math.nan


def _left_by(others: Mapping[str, Mapping[str, Any]], *, where: str) -> list[list[float]]:
    """The points of what these components leave of 1."""
    stated = [
        c.get("schedule") or constant(c["ratio"])
        for c in others.values()
        if isinstance(c["ratio"], int | float) and not isinstance(c["ratio"], bool)
    ]
    points: list[list[float]] = []
    for position in _knots(stated):
        sums = np.sum([share_at(one, position) for one in stated], axis=0) if stated else [0, 0]
        if max(sums) > 1 + CLOSE:
            raise ValueError(
                f"{where}: the other ratios sum to {max(sums):.7g} at position {position:g} of the "
                "run; expected at most 1, so that something is left for `rest`."
            )
        before, after = (max(0.0, round(1 - float(part), DIGITS)) for part in sums)
        points += [[position, before]] if position > 0 else []
        points += [[position, after]] if position < 1 and (after != before or not position) else []
    return points


def constant(share: float) -> list[list[float]]:
    """A schedule that never changes."""
    return [[0.0, float(share)], [1.0, float(share)]]


def _knots(schedules: Sequence[Points]) -> list[float]:
    """The positions at which any of them has a point; 0 and 1 are among them."""
    return sorted({0.0, 1.0, *(float(position) for points in schedules for position, _ in points)})


def share_at(points: Points, position: float) -> tuple[float, float]:
    """The share just before and just after a position."""
    at, shares = np.array(points, np.float64).T
    if position in at:
        where = np.flatnonzero(at == position)
        return float(shares[where[0]]), float(shares[where[-1]])
    between = float(np.interp(position, at, shares))
    return between, between


def sums(schedules: Mapping[str, Points]) -> Iterator[tuple[float, str, dict[str, float]]]:
    """(position, which side of it, share of each) where any of the schedules has a point."""
    for position in _knots(list(schedules.values())):
        both = {name: share_at(points, position) for name, points in schedules.items()}
        before = {name: share for name, (share, _) in both.items()}
        after = {name: share for name, (_, share) in both.items()}
        steps = before != after
        if steps:
            yield position, f"before position {position:g}", before
        yield position, f"{'after' if steps else 'at'} position {position:g}", after


def require_sums(schedules: Mapping[str, Points], *, where: str) -> None:
    """The shares sum to 1 at every position, or ValueError says at which they do not."""
    for _, place, shares in sums(schedules):
        total = sum(shares.values())
        if abs(total - 1) > CLOSE:
            told = ", ".join(f"{name} {share:g}" for name, share in shares.items())
            raise ValueError(
                f"{where}: ratios sum to {total:.7g} {place} of the run, not 1 ({told}).\nway out: "
                "let the schedules of the others make up for it, or say `ratio: rest` in one "
                "component, which then fills what is left."
            )


def added(points: Points, others: Points, *, factor: float) -> list[list[float]]:
    """The schedule of both together, the second times `factor`."""
    out: list[list[float]] = []
    for position in _knots([points, others]):
        one, other = share_at(points, position), share_at(others, position)
        before, after = (round(a + factor * b, DIGITS) for a, b in zip(one, other, strict=True))
        out += [[position, before]] if position > 0 else []
        out += [[position, after]] if position < 1 and (after != before or not position) else []
    return out


def mean(points: Points) -> float:
    """The share over the whole run: the component's part of the whole."""
    return math.fsum((b - a) * (x + y) / 2 for (a, x), (b, y) in pairwise(points))


def _pieces(points: Points) -> tuple[np.ndarray, ...]:
    """Where each straight piece begins, its length and shares at both ends; what passed before."""
    at, shares = np.array(points, np.float64).T
    length, first, last = np.diff(at), shares[:-1], shares[1:]
    through = np.r_[0.0, np.cumsum(length * (first + last) / 2)]
    return at[:-1], length, first, last, through


def passed(points: Points, position: np.ndarray) -> np.ndarray:
    """[N] the part of the whole that came from the component until each position."""
    begin, length, first, last, through = _pieces(points)
    piece = np.clip(np.searchsorted(begin, position, side="right") - 1, 0, len(begin) - 1)
    inside = np.clip(position - begin[piece], 0, length[piece])
    slope = np.divide(last - first, length, out=np.zeros(len(length)), where=length > 0)
    return np.asarray(through[piece] + inside * (first[piece] + slope[piece] * inside / 2))


def position_of(points: Points, part: np.ndarray) -> np.ndarray:
    """[N] the position at which each part (0 to below 1) of the component has passed."""
    begin, length, first, last, through = _pieces(points)
    amount = part * through[-1]
    piece = np.clip(np.searchsorted(through, amount, side="right") - 1, 0, len(begin) - 1)
    left = np.maximum(amount - through[piece], 0.0)
    slope = np.divide(last - first, length, out=np.zeros(len(length)), where=length > 0)[piece]
    root = np.sqrt(np.maximum(first[piece] ** 2 + 2 * slope * left, 0.0))
    divisor = first[piece] + root
    inside = np.divide(2 * left, divisor, out=np.zeros(len(left)), where=divisor > 0)
    found = begin[piece] + np.minimum(inside, length[piece])
    return np.asarray(np.minimum(found, np.nextafter(1.0, 0.0)))


def crowding(points: Points) -> float:
    """How many times closer samples of the component lie, where most, than evenly spread ones."""
    return max(share for _, share in points) / mean(points)
