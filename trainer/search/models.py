"""What runs say of ratios that were not run: a log-linear model, and a Gaussian process.

    points [runs, groups], losses [runs] --fit_*--> Model: predict(points) -> (mean, spread)

| model     | is                                                                            |
|-----------|-------------------------------------------------------------------------------|
| linear    | log loss, linear in log ratios (as RegMix, arXiv 2407.01492, with the log of   |
|           | data mixing laws, 2403.16952); ridge; spread by bootstrap over runs            |
| gaussian  | log loss, a Gaussian process of the same features; spread of the process      |
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize, stats

FLOOR = 0.02
"""Added to a ratio before its logarithm: below it a component is nearly absent."""
LEAST = 1e-3
"""A target below it counts as that: a mistake in a thousand questions."""
PENALTIES = 10.0 ** np.arange(-4, 2)
BOOTSTRAPS = 200


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model of the loss."""

    predict: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    """Points [n, groups] -> mean of the log loss, its spread (a standard deviation)."""
    error: float
    """Cross-validated (one run left out at a time): root mean square, of the log loss."""
    rank_correlation: float
    """Of left-out predictions with what was measured (Spearman)."""
    left_out: np.ndarray
    """[runs] the prediction of each from the others, as a loss."""


def log_of(losses: np.ndarray) -> np.ndarray:
    """The logarithm of targets; a score without a mistake leaves 0, which counts as `LEAST`."""
    return np.log(np.maximum(losses, LEAST))


def features(points: np.ndarray) -> np.ndarray:
    """[n, groups] log ratios."""
    return np.log(points + FLOOR)


def fit_linear(points: np.ndarray, losses: np.ndarray, *, random: np.random.Generator) -> Model:
    """The log-linear model; the penalty is that of the least error on runs left out."""
    x, y = features(points), log_of(losses)
    left = {penalty: _left_out_ridge(x, y, penalty) for penalty in PENALTIES}
    penalty = min(PENALTIES, key=lambda p: float(np.square(left[p] - y).mean()))
    weights = _ridge(x, y, penalty)
    drawn = [random.integers(0, len(y), len(y)) for _ in range(BOOTSTRAPS)]
    others = np.array([_ridge(x[rows], y[rows], penalty) for rows in drawn])

    def predict(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = np.c_[np.ones(len(at)), features(at)]
        return rows @ weights, (rows @ others.T).std(axis=1)

    return _model(predict, left[penalty], y)


def _ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """[1 + groups] intercept and weights."""
    rows = np.c_[np.ones(len(x)), x]
    shrink = penalty * len(x) * np.diag([1e-9, *np.ones(x.shape[1])])
    return np.asarray(linalg.solve(rows.T @ rows + shrink, rows.T @ y, assume_a="pos"))


def _left_out_ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    found = []
    for n in range(len(y)):
        rest = np.arange(len(y)) != n
        found.append(np.r_[1, x[n]] @ _ridge(x[rest], y[rest], penalty))
    return np.array(found)


def fit_gaussian(points: np.ndarray, losses: np.ndarray) -> Model:
    """A Gaussian process with one length for all groups, fitted by its likelihood."""
    x, y = features(points), log_of(losses)
    scale = x.std(axis=0) + 1e-9
    middle, spread = y.mean(), y.std() + 1e-12
    z, target = x / scale, (y - middle) / spread

    def covariance(a: np.ndarray, b: np.ndarray, length: float) -> np.ndarray:
        apart = np.square(a[:, None] - b[None]).sum(axis=2)
        return np.asarray(np.exp(-apart / (2 * length**2)))

    def cost(logs: np.ndarray) -> float:
        length, noise = np.exp(logs)
        own = covariance(z, z, length) + (noise + 1e-8) * np.eye(len(z))
        factor = linalg.cho_factor(own, lower=True)
        fitted = linalg.cho_solve(factor, target)
        size = float(target @ fitted) / len(target) + 1e-12
        return len(target) * np.log(size) / 2 + float(np.log(np.diag(factor[0])).sum())

    starts = [(np.log(length), np.log(noise)) for length in (1.0, 3.0) for noise in (0.01, 0.3)]
    limits = [(np.log(0.3), np.log(30)), (np.log(1e-4), np.log(10))]
    best = min(
        (optimize.minimize(cost, start, bounds=limits, method="L-BFGS-B") for start in starts),
        key=lambda found: float(found.fun),
    )
    length, noise = np.exp(best.x)
    own = covariance(z, z, length) + (noise + 1e-8) * np.eye(len(z))
    inverse = np.linalg.inv(own)
    fitted = inverse @ target
    size = float(target @ fitted) / len(target)

    def predict(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cross = covariance(features(at) / scale, z, length)
        variance = np.maximum(1 - ((cross @ inverse) * cross).sum(axis=1), 1e-12)
        return middle + spread * (cross @ fitted), spread * np.sqrt(size * variance)

    left = y - spread * fitted / np.diag(inverse)  # Rasmussen and Williams 2006, section 5.4.2
    return _model(predict, left, y)


def _model(
    predict: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], left: np.ndarray, y: np.ndarray
) -> Model:
    varied = left.std() > 0 and y.std() > 0
    rank = float(stats.spearmanr(left, y).statistic) if varied else 0.0
    error = float(np.sqrt(np.square(left - y).mean()))
    return Model(predict=predict, error=error, rank_correlation=rank, left_out=np.exp(left))


def expected_improvement(mean: np.ndarray, spread: np.ndarray, best: float) -> np.ndarray:
    """[n] by how much a point is expected to be below `best` (Jones et al. 1998)."""
    gain = (best - mean) / np.maximum(spread, 1e-12)
    return np.asarray(spread * (gain * stats.norm.cdf(gain) + stats.norm.pdf(gain)))


def effects(model: Model, point: np.ndarray, *, groups: int) -> list[tuple[float, float]]:
    """Per number of the point (change of the log loss where it doubles and the others of its stage
    shrink alike, its spread), as the model sees it at a point; a ratio below 0.02 counts as that.
    """
    stages = np.maximum(point, FLOOR).reshape(-1, groups)
    whole = point.reshape(-1, groups).sum(axis=1, keepdims=True)
    stages = stages / stages.sum(axis=1, keepdims=True) * whole
    found = []
    for stage, n in np.ndindex(stages.shape):
        more, total = stages.copy(), float(whole[stage, 0])
        more[stage, n] = min(2 * stages[stage, n], 0.9 * total)
        others = np.arange(groups) != n
        left = total - more[stage, n]
        more[stage, others] *= left / stages[stage, others].sum()
        mean, spread = model.predict(np.stack([stages.ravel(), more.ravel()]))
        found.append((float(mean[1] - mean[0]), float(np.hypot(*spread))))
    return found
