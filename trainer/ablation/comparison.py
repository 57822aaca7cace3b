"""What the difference between an arm and the baseline shows: paired by seed, Student's t.

Each seed gives one difference, of two runs that begin with the same random weights; the interval is
their mean and `t * s / sqrt(n)` on both sides (95 %, n - 1 degrees of freedom). A verdict is an
interval without zero. Every interval stands for itself: of 20 arms without an effect one is
expected to show one.
"""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from trainer.evaluation.confidence import critical_t

BETTER, WORSE, NOT_SHOWN = "better", "worse", "not shown"
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
    """Standard deviation over seeds; nan of fewer than two."""
    return statistics.stdev(values.values()) if len(values) > 1 else math.nan


def compare_by_seed(
    arm: Mapping[int, float], baseline: Mapping[int, float], *, lower_is_better: bool
) -> Difference:
    """The paired difference; its interval is infinite where fewer than two seeds have both."""
    seeds = sorted(arm.keys() & baseline.keys())
    by_seed = [arm[seed] - baseline[seed] for seed in seeds]
    if not seeds:
        return Difference(0, math.nan, -math.inf, math.inf, FEW)
    mean = statistics.fmean(by_seed)
    if len(seeds) == 1:
        return Difference(1, mean, -math.inf, math.inf, FEW)
    half = critical_t(len(seeds) - 1) * statistics.stdev(by_seed) / math.sqrt(len(seeds))
    low, high = mean - half, mean + half
    if len({*arm.values(), *baseline.values()}) == 1:
        return Difference(len(seeds), mean, low, high, CONSTANT)
    shown = low > 0 or high < 0
    verdict = NOT_SHOWN if not shown else BETTER if (mean < 0) == lower_is_better else WORSE
    return Difference(len(seeds), mean, low, high, verdict)
