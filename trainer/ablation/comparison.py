"""What the difference between an arm and the baseline shows: paired by seed, Student's t.

Each seed gives one difference, of two runs that begin with the same random weights; the interval is
their mean and `t * s / sqrt(n)` on both sides (95 %, n - 1 degrees of freedom). A verdict is an
interval without zero. Differences that are all the same have no interval: seeds that change nothing
say nothing of chance. A loss that is not finite has no difference. Every interval stands for
itself: of 20 arms without an effect one is expected to show one.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.evaluation.confidence import critical_t

BETTER, WORSE, NOT_SHOWN = "better", "worse", "not shown"
NOT_FINITE = "not finite"
ROUNDING = 1e-12
"""Share of the largest difference up to which those of the seeds are the same."""
CONSTANT, FEW = "constant: it says nothing", "not shown: needs two seeds"


@dataclass(frozen=True)
class Difference:
    """An arm less the baseline, over the seeds that both have."""

    seeds: int
    mean: float
    low: float
    high: float
    verdict: str


def spread(values: Mapping[int, float]) -> float:
    """Standard deviation over seeds; nan of fewer than two, and where one is not finite."""
    known = len(values) > 1 and all(map(math.isfinite, values.values()))
    return statistics.stdev(values.values()) if known else math.nan


def mean(values: Mapping[int, float]) -> float:
    """Over seeds; nan of none, and where one is not finite."""
    known = bool(values) and all(map(math.isfinite, values.values()))
    return statistics.fmean(values.values()) if known else math.nan


def all_the_same(differences: Sequence[float]) -> bool:
    """They differ by rounding at most."""
    return max(differences) - min(differences) <= ROUNDING * max(map(abs, differences))


def compare_by_seed(
    arm: Mapping[int, float], baseline: Mapping[int, float], *, lower_is_better: bool
) -> Difference:
    """The paired difference; its interval is infinite where fewer than two seeds have both, or all
    of them differ by the same.
    """
    seeds = sorted(arm.keys() & baseline.keys())
    by_seed = [arm[seed] - baseline[seed] for seed in seeds]
    if not seeds:
        return Difference(0, math.nan, -math.inf, math.inf, FEW)
    if not all(map(math.isfinite, by_seed)):
        return Difference(len(seeds), math.nan, -math.inf, math.inf, NOT_FINITE)
    middle = statistics.fmean(by_seed)
    if len(seeds) == 1:
        return Difference(1, middle, -math.inf, math.inf, FEW)
    if all_the_same(by_seed):
        constant = len({*arm.values(), *baseline.values()}) == 1
        verdict = CONSTANT if constant else NOT_SHOWN
        return Difference(len(seeds), middle, -math.inf, math.inf, verdict)
    half = critical_t(len(seeds) - 1) * statistics.stdev(by_seed) / math.sqrt(len(seeds))
    low, high = middle - half, middle + half
    shown = low > 0 or high < 0
    verdict = NOT_SHOWN if not shown else BETTER if (middle < 0) == lower_is_better else WORSE
    return Difference(len(seeds), middle, low, high, verdict)
