"""The proposal beside other ratios, with fresh seeds: at the size of the search, and at a larger.

proposal --arms_of--> arms x seeds --verified--> targets, differences to the prior
arms, some runs of the search --at_larger_size--> the same there, rank correlation of the sizes
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from trainer.ablation.comparison import (
    BETTER,
    NOT_FINITE,
    NOT_SHOWN,
    WORSE,
    compare_by_seed,
    mean,
    spread,
)
from trainer.ablation.runs import as_json
from trainer.search.bench import Bench, parameters_of
from trainer.search.methods import Found
from trainer.search.settings import Size
from trainer.search.space import Ratio, Space

FRESH = 1000
"""Added to the seed of the search: no run of the search has a seed of the verification."""
Targets = Mapping[int, float]
"""By seed."""


def arms_of(space: Space, supply: Mapping[str, float], best: np.ndarray) -> dict[str, np.ndarray]:
    """The points that are verified; of a schedule also its means, as ratios that stay."""
    amounts = np.array([sum(supply[n] for n in group) for group in space.groups])
    arms = {
        "proposal": best,
        "prior": space.held(space.prior),
        "uniform": space.held(np.full(len(space.groups), space.total / len(space.groups))),
        "supply": space.held(amounts / amounts.sum() * space.total),
    }
    if space.stages > 1:
        arms["its means"] = space.held(best.reshape(space.stages, -1).mean(axis=0))
    return arms


def verified(
    bench: Bench, arms: Mapping[str, Mapping[str, Ratio]], *, size: Size | None = None
) -> dict[str, Any]:
    """Per arm: its ratios, the target of each fresh seed, the difference to the prior."""
    chosen = bench.chosen
    targets: dict[str, dict[int, float]] = {name: {} for name in arms}
    for number in range(chosen.seeds):
        for name, ratios in arms.items():
            seed = chosen.seed + FRESH + number
            found = bench.attempted(ratios, seed=seed, name=name, size=size)
            if found is not None:
                targets[name][seed] = found
                at = f" at {size.tokens:,} tokens of {size.config}" if size else ""
                bench.say(f"verify {name}  seed {number + 1}  target {found:.4f}{at}")
    if not chosen.seeds:
        return {}
    return {
        name: {"ratios": ratios, "targets": as_json(list(targets[name].values())),
               **compared(targets[name], targets["prior"])}
        for name, ratios in arms.items()
    }  # fmt: skip


def compared(ours: Targets, prior: Targets) -> dict[str, Any]:
    """Mean, spread over seeds, and the paired difference to the prior with its interval: `better`
    or `worse` where 0 is outside it, else `not shown`; `not finite` where a target is not.
    """
    found = compare_by_seed(ours, prior, lower_is_better=True)
    spreads = spread(ours) if len(ours) > 1 else 0.0
    interval = [found.low, found.high] if math.isfinite(found.low) else None
    verdict = found.verdict if found.verdict in (BETTER, WORSE, NOT_FINITE) else NOT_SHOWN
    told = {"mean": mean(ours), "spread": spreads, "difference": found.mean}
    return {**as_json(told), "interval": interval, "verdict": verdict}


def at_larger_size(
    bench: Bench,
    size: Size,
    space: Space,
    found: Found,
    arms: Mapping[str, Mapping[str, Ratio]],
    proxy: Mapping[str, Any],
) -> dict[str, Any]:
    """The arms trained at that size with the same seeds, some runs of the search as well, and how
    alike the two sizes rank them.
    """  # fmt: skip
    chosen, before = bench.chosen, set(bench.runs)
    there = verified(bench, arms, size=size)
    points = [
        {"name": name, "proxy": proxy[name]["mean"], "larger": each["mean"]}
        for name, each in there.items()
    ]
    for number in _spread_out(found.losses, 0 if chosen.method == "merge" else chosen.verify_runs):
        ratios = space.ratios(found.points[number])
        name = f"run {number + 1}"
        target = bench.attempted(ratios, seed=chosen.seed, name=name, size=size)
        if target is not None:
            bench.say(f"{name} at the larger size  target {target:.4f}")
            points.append({"name": name, "proxy": float(found.losses[number]), "larger": target})
    trained = [run for name, run in bench.runs.items() if name not in before]
    return {
        "config": size.config,
        "tokens": size.tokens,
        "parameters": parameters_of(trained[0]) if trained else None,
        "verified": there,
        "points": as_json(points),
        "rank_correlation": rank_correlation(points),
    }


def rank_correlation(points: Sequence[Mapping[str, Any]]) -> float | None:
    """Spearman's, of the targets at the two sizes; None of fewer than three, or where all are the
    same at one.
    """
    known = known_at_both(points)
    if len(known) < 3 or any(len(set(each)) == 1 for each in zip(*known, strict=True)):
        return None
    return float(stats.spearmanr(*zip(*known, strict=True)).statistic)


def known_at_both(points: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """The targets at the two sizes of those that have both."""
    pairs = [(p["proxy"], p["larger"]) for p in points]
    return [(a, b) for a, b in pairs if None not in (a, b) and math.isfinite(a + b)]


def _spread_out(losses: np.ndarray, count: int) -> list[int]:
    """Numbers of so many runs, from the best to the worst at even distances."""
    order = np.argsort(losses, kind="stable")
    places = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return [int(order[place]) for place in dict.fromkeys(places.tolist())]
