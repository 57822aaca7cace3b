"""The search: space, runs, proposal, verification with fresh seeds; said again, it goes on.

    mixture --prior, facts--> space --method--> proposal --seeds--> verdicts --> result.json, page

All that takes time is kept (bench.py), so a search that was killed goes on, ends the same, and
shares its runs with another over the same mixtures.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from trainer.search import proxies
from trainer.search.bench import Bench, parameters_of, require_finite
from trainer.search.earlier import Earlier
from trainer.search.merging import merging, require_mergeable
from trainer.search.methods import Found, bayes, merged, regression, require_varying
from trainer.search.models import effects
from trainer.search.settings import Settings
from trainer.search.space import Space, space_of
from trainer.search.verification import arms_of, at_larger_size, verified

ALIKE = 3
"""Runs with one and the same held-out loss, after which a search has nothing to find."""


def searched(chosen: Settings, *, say: Callable[[str], None]) -> dict[str, Any]:
    """What was found, as result.json has it: proposal, runs, model, verification, cost.

    Raises ValueError for a mistake in the settings, before the first run where it can be known.
    """
    bench = Bench(chosen, say)
    facts = bench.facts
    space = space_of(
        facts.ratios, bounds=chosen.bounds, groups=chosen.groups, fixed=chosen.fixed,
        most=facts.most, stages=chosen.stages,
    )  # fmt: skip
    if chosen.method == "merge":
        require_mergeable(chosen, len(space.groups))
    found, earlier = _found(bench, space)
    tries = len(bench.runs)
    cost, seconds = bench.cost, bench.seconds
    ratios = space.ratios(found.best)
    say(f"proposal {proxies.said(ratios)}")
    arms = {n: space.ratios(p) for n, p in arms_of(space, facts.supply, found.best).items()}
    told = _told(found, space, earlier)
    there = verified(bench, arms)
    larger = {}
    if chosen.larger and chosen.seeds:
        larger = {"larger": at_larger_size(bench, chosen.larger, space, found, arms, there)}
    return {
        "method": chosen.method,
        "target": chosen.target,
        "benchmarks": sorted(chosen.benchmarks),
        "stages": chosen.stages,
        "proposal": ratios,
        "prior": facts.ratios,
        "parameters": parameters_of(next(iter(bench.runs.values()))),
        **told,
        "search_cost": cost,
        "budget": {
            "runs": None if chosen.hours else chosen.runs,
            "hours": chosen.hours or None,
            "seconds": round(seconds, 1) if chosen.hours else None,
            "tried": tries,
        },
        "verified": there,
        **larger,
        "failed": bench.failed,
        "cost": bench.cost,
    }


def _found(bench: Bench, space: Space) -> tuple[Found, Earlier]:
    """What the method ends with, and what was known before it."""
    chosen, random = bench.chosen, np.random.default_rng(bench.chosen.seed)
    if chosen.method == "merge":
        judge = merging(bench, space)
        proxies.advise(bench, space)
        return merged(space, judge, random=random), Earlier.none(space)
    evaluate = _evaluation(bench, space)
    earlier = bench.earlier(space)
    if len(earlier.losses):
        bench.say(f"{len(earlier.losses)} runs over other components are there and count")
    runs = chosen.runs
    if chosen.hours:
        evaluate(space.held(space.prior))
        runs = min(runs, bench.runs_paid())
    method = {"regression": regression, "bayes": bayes}[chosen.method]
    found = method(space, evaluate, runs=runs, random=random, earlier=earlier, enough=bench.enough)
    return found, earlier


def _evaluation(bench: Bench, space: Space) -> Callable[[np.ndarray], float]:
    """The target of a point, each once; nan where its run failed, which ends the search where it is
    the first.
    """
    chosen = bench.chosen
    known: dict[bytes, float] = {}

    def evaluate(point: np.ndarray) -> float:
        key = point.tobytes()
        if key not in known:
            known[key] = first(point) if not known else later(point)
            told = "failed" if math.isnan(known[key]) else f"{known[key]:.4f}"
            bench.say(f"run {len(known)}  target {told}  {proxies.said(space.ratios(point))}")
            if len(known) == ALIKE and not chosen.benchmarks:
                require_varying(np.array([each for each in known.values() if not math.isnan(each)]))
        return known[key]

    def first(point: np.ndarray) -> float:
        run, loss = bench.tried(space.ratios(point), seed=chosen.seed)
        try:
            require_finite(loss, run.fingerprint)
        except ArithmeticError as error:
            raise ValueError(str(error)) from error
        proxies.advise(bench, space)
        return loss

    def later(point: np.ndarray) -> float:
        ratios = space.ratios(point)
        loss = bench.attempted(ratios, seed=chosen.seed, name=f"run {len(known) + 1}", finite=True)
        return math.nan if loss is None else loss

    return evaluate


def _told(found: Found, space: Space, earlier: Earlier) -> dict[str, Any]:
    """The model, the runs and the effects, as result.json has them."""

    def predict(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return found.model.predict(earlier.padded(at))

    predicted, spread = (float(value[0]) for value in predict(found.best[None]))
    own = replace(found.model, predict=predict)
    doubled = effects(own, found.best, groups=len(space.groups))
    return {
        "predicted": {"target": float(np.exp(predicted)), "spread": float(np.exp(spread) - 1)},
        "model": {
            "error": found.model.error,
            "rank_correlation": found.model.rank_correlation,
            "left_out": found.model.left_out.tolist(),
        },
        "runs": [
            {"ratios": space.ratios(point), "target": float(loss)}
            for point, loss in zip(found.points, found.losses, strict=True)
        ],
        "reused": len(earlier.losses),
        "effects": {
            name: {"doubled": change, "spread": its}
            for name, (change, its) in zip(space.names, doubled, strict=True)
        },
    }
