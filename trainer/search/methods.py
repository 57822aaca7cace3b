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

`evaluate` trains a point (or finds that it was trained) and gives its loss; nan where that failed,
which ends no other run. All that is drawn comes of the seed, and a budget of time (`enough`) goes
by what was recorded, so that a search that is said again takes the same way.
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
LEAST_RUNS = 4
"""Of which a model is fitted; as many are run whatever time they take."""
BEST = 40
"""Of them, as many as are averaged for the proposal of a log-linear model (RegMix has 100)."""

Evaluate = Callable[[np.ndarray], float]
Enough = Callable[[], bool]
"""Whether what was recorded leaves no time for another run."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a method ends with."""

    points: np.ndarray
    """[runs, size] that were tried, and did not fail."""
    losses: np.ndarray
    """[runs] the target of each."""
    model: Model
    best: np.ndarray
    """The point that is proposed."""


def never() -> bool:
    """There is time."""
    return False


def candidates(space: Space, random: np.random.Generator) -> np.ndarray:
    """[CANDIDATES, size] points everywhere in the space, more of them around the prior."""
    wide = space.wide(CANDIDATES // 2, random=random)
    return np.concatenate([wide, space.design(CANDIDATES - len(wide), random=random)])


def require_varying(losses: np.ndarray) -> None:
    """Raises ValueError where all runs gave the same."""
    if len(losses) > 1 and np.ptp(losses) == 0:
        raise ValueError(
            f"search: the target is {losses[0]:.6g} in all of {len(losses)} runs, so no ratio is "
            "better than another.\nway out: a target on components that the runs learn "
            "something of, or longer runs (tokens)."
        )


def require_enough(losses: np.ndarray) -> None:
    """Raises ValueError where too few runs are left of which a model could be fitted."""
    if len(losses) < LEAST_RUNS - 1:
        raise ValueError(
            f"search: {len(losses)} runs did not fail; expected {LEAST_RUNS - 1} at least, of "
            "which a model is fitted.\nway out: the messages of those that failed; the same "
            "command tries them again."
        )


def new_runs(runs: int, earlier: Earlier) -> int:
    """How many are trained, beside those that are known."""
    return max(runs - len(earlier.losses), -(-runs // LEAST_NEW), 2)


def regression(
    space: Space,
    evaluate: Evaluate,
    *,
    runs: int,
    random: np.random.Generator,
    earlier: Earlier,
    enough: Enough = never,
) -> Found:
    """Designs beforehand, the prior among them; proposed is the mean of the best candidates."""
    count = new_runs(runs, earlier)
    planned = np.concatenate([[space.held(space.prior)], space.design(count - 1, random=random)])
    points, losses = _known(*_evaluated(planned, evaluate, enough))
    _require_fit(losses, earlier)
    model = fit_linear(*_all(earlier, points, losses), random=random)
    among = candidates(space, random)
    order = np.argsort(model.predict(earlier.padded(among))[0], kind="stable")[:BEST]
    best = space.nearest(among[order].mean(axis=0))
    return Found(points=points, losses=losses, model=model, best=best)


def bayes(
    space: Space,
    evaluate: Evaluate,
    *,
    runs: int,
    random: np.random.Generator,
    earlier: Earlier,
    enough: Enough = never,
) -> Found:
    """Expected improvement over a Gaussian process; proposed is where its mean is lowest."""
    count = new_runs(runs, earlier)
    first = min(count, max(2 if len(earlier.losses) else space.size + 1, count // 3))
    planned = np.concatenate([[space.held(space.prior)], space.design(first - 1, random=random)])
    points, losses = _evaluated(planned, evaluate, enough)
    _require_fit(_known(points, losses)[1], earlier)
    while len(points) < count and not (len(points) >= LEAST_RUNS and enough()):
        # A run that failed counts as the worst, so that no other is sought beside it.
        counted = np.where(np.isnan(losses), np.nanmax(losses), losses)
        model = fit_gaussian(*_all(earlier, points, counted))
        among = candidates(space, random)
        least = float(model.predict(earlier.padded(points))[0].min())
        gain = expected_improvement(*model.predict(earlier.padded(among)), least)
        chosen = among[int(gain.argmax())]
        points = np.concatenate([points, [chosen]])
        losses = np.append(losses, evaluate(chosen))
    points, losses = _known(points, losses)
    require_varying(losses)
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


def _evaluated(
    points: np.ndarray, evaluate: Evaluate, enough: Enough
) -> tuple[np.ndarray, np.ndarray]:
    """(the points that were run, the loss of each), in their order, until there is no time."""
    losses: list[float] = []
    for point in points:
        if len(losses) >= LEAST_RUNS and enough():
            break
        losses.append(evaluate(point))
    return points[: len(losses)], np.array(losses)


def _known(points: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Without the runs that failed."""
    return points[~np.isnan(losses)], losses[~np.isnan(losses)]


def _require_fit(losses: np.ndarray, earlier: Earlier) -> None:
    require_enough(np.concatenate([earlier.losses, losses]))
    require_varying(losses)
