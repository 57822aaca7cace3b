"""How sure a score is: intervals and paired tests over questions, clustered by image.

Questions about one image are right or wrong together, so images are what is counted: the variance
of a mean is that of the sums over clusters (Miller 2024, arXiv 2411.00640). Where several
benchmarks make one score, each is a stratum whose clusters stand alone.

    scores of one or more benchmarks --> mean, 95 % interval
    scores of two checkpoints on the same questions --> difference, 95 % interval, p
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
"""Of an interval: the share of such intervals that hold the true score."""
EXACT = 14
"""Clusters that differ up to which all 2^n signs are tried."""
DRAWS = 9_999
"""Random signs beyond that: p is known to 0.005 at 0.05."""
CHUNK = 512
"""Draws at one time: bounds memory."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What one checkpoint scored on one benchmark, in the order of its questions."""

    points: Sequence[float]
    """0..1 per question."""
    clusters: Sequence[int]
    """Per question: questions of one number share an image."""
    weight: float = 1.0
    """Of this benchmark among others."""


@dataclass(frozen=True)
class Interval:
    """A mean, or a difference of means, and where the true one lies (95 %)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """By how much the first checkpoint is better, and how likely chance alone does that (p)."""

    difference: Interval
    p: float


def clusters_of(groups: Sequence[Iterable[Hashable]]) -> list[int]:
    """A number per question; two questions have one where a chain of shared images links them.

    `groups`: what each question shows. A question that shows nothing stands alone.
    """
    parent = list(range(len(groups)))

    def root(n: int) -> int:
        while parent[n] != n:
            parent[n] = n = parent[parent[n]]
        return n

    first: dict[Hashable, int] = {}
    for n, shown in enumerate(groups):
        for each in shown:
            parent[root(n)] = root(first.setdefault(each, n))
    return [root(n) for n in range(len(groups))]


def _sums(values: np.ndarray, clusters: Sequence[int]) -> np.ndarray:
    """Per cluster, the sum of its values."""
    return np.bincount(np.unique(clusters, return_inverse=True)[1], values)


def _weights(strata: Sequence[Scores]) -> list[float]:
    """Of each benchmark's mean in the mean over all."""
    total = sum(scores.weight for scores in strata)
    return [scores.weight / total for scores in strata]


def _spread(strata: Sequence[Scores]) -> tuple[float, float, int]:
    """(the weighted mean, its variance, degrees of freedom); the variance is infinite where a
    benchmark is one cluster, which says nothing about others.
    """
    value, variance, freedom = 0.0, 0.0, 0
    for scores, weight in zip(strata, _weights(strata), strict=True):
        points = np.asarray(scores.points, float)
        mean = float(points.mean())
        value += weight * mean
        sums = _sums((points - mean) * weight / len(points), scores.clusters)
        number = len(sums)
        freedom += number - 1
        variance += float(sums @ sums) * number / (number - 1) if number > 1 else np.inf
    return value, variance, freedom


def critical_t(freedom: int) -> float:
    """Standard errors from the mean to the end of an interval: Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def mean_interval(strata: Sequence[Scores]) -> Interval:
    """The weighted mean of the benchmarks' scores, and its interval, which lies in 0..1.

    Wilson's interval for as many independent questions as have this variance, clusters where all
    questions score alike (Franco et al. 2019, https://doi.org/10.1093/jssam/smy019).
    """
    mean, variance, freedom = _spread(strata)
    if not np.isfinite(variance):
        return Interval(mean, 0.0, 1.0)
    clusters = freedom + len(strata)
    number = mean * (1 - mean) / variance if variance > 0 else clusters
    critical = critical_t(freedom) ** 2 / number
    centre = (mean + critical / 2) / (1 + critical)
    half = np.sqrt(critical * mean * (1 - mean) + critical**2 / 4) / (1 + critical)
    return Interval(mean, max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def compare(first: Sequence[Scores], second: Sequence[Scores]) -> Comparison:
    """Both checkpoints answered the same questions. Positive: the first is better.

    p is of a sign test on the clusters' differences: with two equal checkpoints each cluster's
    could as well have the other sign. Two-sided, exact up to EXACT clusters that differ.
    """
    both = [
        Scores(points=np.subtract(a.points, b.points), clusters=a.clusters, weight=a.weight)  # type: ignore[arg-type]
        for a, b in zip(first, second, strict=True)
    ]
    mean, variance, freedom = _spread(both)
    half = critical_t(freedom) * np.sqrt(variance) if np.isfinite(variance) else np.inf
    low, high = max(-1.0, float(mean - half)), min(1.0, float(mean + half))
    sums = np.concatenate(
        [
            _sums(np.asarray(scores.points) * (weight / len(scores.points)), scores.clusters)
            for scores, weight in zip(both, _weights(both), strict=True)
        ]
    )
    return Comparison(Interval(mean, low, high), _sign_test(sums[sums != 0]))


def _sign_test(sums: np.ndarray) -> float:
    """How often random signs bring the total at least as far from 0 as it is."""
    rounding = 1e-9 * float(np.abs(sums).sum())  # of the whole: a total of 0 may come as 1e-17
    reached = abs(float(sums.sum())) - rounding
    if len(sums) <= EXACT:
        signs = (np.arange(1 << len(sums))[:, None] >> np.arange(len(sums))) & 1
        return float(np.mean(np.abs((2 * signs - 1) @ sums) >= reached))
    generator = np.random.default_rng(0)  # the same scores have the same p
    hits = 0
    for start in range(0, DRAWS, CHUNK):
        signs = generator.integers(0, 2, (min(CHUNK, DRAWS - start), len(sums)), dtype=np.int8)
        hits += int((np.abs((2.0 * signs - 1.0) @ sums) >= reached).sum())
    return (hits + 1) / (DRAWS + 1)
