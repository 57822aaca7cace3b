"""Which points are run, and what is proposed of them: one interface, three methods.

    Method: (space, evaluate, budget, random) --> Found

| method     | runs                                                                          |
|------------|-------------------------------------------------------------------------------|
| regression | designs around the prior, all drawn beforehand; a log-linear model of them    |
| bayes      | a third of them so; then one after the other where most is expected           |
| merge      | one per group beside a common start, in as many sets as the runs pay for;     |
|            | averages of their weights are judged                                          |

Runs of earlier searches over other components (earlier.py) are known points of the first two, which
then train fewer anew.

`evaluate` trains a point (or finds that it was trained) and gives its loss. All that is drawn comes
of the seed, so that a search that is said again takes the same way.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trainer.search.earlier import Earlier
from trainer.search.models import Model, expected_improvement, fit_gaussian, fit_linear
from trainer.search.space import Space

CANDIDATES = 4000
"""Points among which the best is looked for."""
LEAST_NEW = 4
"""A run in so many is trained anew, however many earlier ones are known (Olmix, arXiv 2602.12237,
saves 74 % of the runs so)."""
AVERAGES = 4
"""Averages of experts that are judged, per group."""
BEST = 40
"""Of them, as many as are averaged for the proposal of a log-linear model (RegMix has 100)."""

Evaluate = Callable[[np.ndarray], float]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a method ends with."""

    points: np.ndarray
    """[runs, groups] that were tried."""
    losses: np.ndarray
    """[runs] the target of each."""
    model: Model
    best: np.ndarray
    """The point that is proposed."""


def candidates(space: Space, random: np.random.Generator) -> np.ndarray:
    """[CANDIDATES, groups] points everywhere in the space, more of them around the prior."""
    wide = [space.nearest(p * space.total) for p in
            random.dirichlet(np.full(len(space.groups), 0.7), CANDIDATES // 2)]  # fmt: skip
    return np.concatenate([wide, space.design(CANDIDATES - len(wide), random=random)])


def require_varying(losses: np.ndarray) -> None:
    """Raises ValueError where all runs gave the same."""
    if len(losses) > 1 and np.ptp(losses) == 0:
        raise ValueError(
            f"search: the target is {losses[0]:.6g} in all of {len(losses)} runs, so no ratio is "
            "better than another.\nway out: a target on components that the runs learn "
            "something of, or longer runs (tokens)."
        )


def new_runs(runs: int, earlier: Earlier) -> int:
    """How many are trained, beside those that are known."""
    return max(runs - len(earlier.losses), -(-runs // LEAST_NEW), 2)


def regression(
    space: Space, evaluate: Evaluate, *, runs: int, random: np.random.Generator, earlier: Earlier
) -> Found:
    """Designs beforehand, the prior among them; proposed is the mean of the best candidates."""
    count = new_runs(runs, earlier)
    points = np.concatenate([[space.nearest(space.prior)], space.design(count - 1, random=random)])
    losses = _evaluated(points, evaluate)
    model = fit_linear(*_all(earlier, points, losses), random=random)
    among = candidates(space, random)
    order = np.argsort(model.predict(earlier.padded(among))[0], kind="stable")[:BEST]
    best = space.nearest(among[order].mean(axis=0))
    return Found(points=points, losses=losses, model=model, best=best)


def bayes(
    space: Space, evaluate: Evaluate, *, runs: int, random: np.random.Generator, earlier: Earlier
) -> Found:
    """Expected improvement over a Gaussian process; proposed is where its mean is lowest."""
    count = new_runs(runs, earlier)
    first = min(count, max(2 if len(earlier.losses) else len(space.groups) + 1, count // 3))
    points = np.concatenate([[space.nearest(space.prior)], space.design(first - 1, random=random)])
    losses = _evaluated(points, evaluate)
    while len(points) < count:
        model = fit_gaussian(*_all(earlier, points, losses))
        among = candidates(space, random)
        least = float(model.predict(earlier.padded(points))[0].min())
        gain = expected_improvement(*model.predict(earlier.padded(among)), least)
        chosen = among[int(gain.argmax())]
        points = np.concatenate([points, [chosen]])
        losses = np.append(losses, evaluate(chosen))
    model = fit_gaussian(*_all(earlier, points, losses))
    among = np.concatenate([candidates(space, random), points])
    best = among[int(model.predict(earlier.padded(among))[0].argmin())]
    return Found(points=points, losses=losses, model=model, best=best)


def merged(space: Space, judge: Evaluate, *, random: np.random.Generator) -> Found:
    """As `regression`, of points whose models are averages of experts' weights: `judge` trains
    nothing, so there are as many of them as the model wants.
    """
    runs = AVERAGES * len(space.groups)
    return regression(space, judge, runs=runs, random=random, earlier=Earlier.none(space))


def _all(earlier: Earlier, points: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the model is fitted to: known runs, then those of this search."""
    return (
        np.concatenate([earlier.points, earlier.padded(points)]),
        np.concatenate([earlier.losses, losses]),
    )


def _evaluated(points: np.ndarray, evaluate: Evaluate) -> np.ndarray:
    losses: list[float] = []
    for point in points:
        losses.append(evaluate(point))
        if len(losses) == 3:
            require_varying(np.array(losses))
    require_varying(np.array(losses))
    return np.array(losses)
