"""The search: space, runs, proposal, verification with fresh seeds; said again, it goes on.

    mixture --prior, facts--> space --method--> proposal --seeds--> verdicts --> result.json, page

Nothing but runs (trainer/ablation/runs.py) and mixtures takes time, and both are made once and kept
under what determines them; the rest is computed from them each time. So a search that was killed
goes on, ends the same, and shares its runs with another over the same mixtures.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from trainer import average
from trainer.ablation import runs as ablation
from trainer.ablation.comparison import (
    BETTER,
    NOT_FINITE,
    NOT_SHOWN,
    WORSE,
    compare_by_seed,
    mean,
    spread,
)
from trainer.ablation.judging import sample_scores
from trainer.ablation.runs import (
    Run,
    as_json,
    held_out_losses,
    judge_run,
    plan_run,
    train_run,
    write_json,
)
from trainer.config_file import load as load_config
from trainer.data.shards import Mixture, open_mixture
from trainer.loop import train
from trainer.search.earlier import Earlier, as_points, earlier_runs
from trainer.search.methods import Found, bayes, merged, regression
from trainer.search.mixing import Facts, Kitchen, facts_of
from trainer.search.models import effects
from trainer.search.space import Space, space_of

FRESH = 1000
"""Added to the seed of the search: no run of the search has a seed of the verification."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is searched, and how."""

    mixture: str
    target: dict[str, float]
    """Component -> weight of its held-out loss."""
    config: str = "tiny"
    method: str = "regression"
    runs: int = 16
    seeds: int = 5
    """Of the verification; 0: none."""
    tokens: int = 100_000
    """Of each run's mixture, which is seen once."""
    seed: int = 17
    output: str = ""
    work: str = ""
    trials: str = ""
    """Where mixtures and runs are kept; searches with the same share them."""
    bounds: dict[str, list[float]] = field(default_factory=dict)
    groups: list[list[str]] = field(default_factory=list)
    fixed: dict[str, float] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    """Of the trainer."""
    overrides: tuple[str, ...] = ()
    """Of the mixture."""


class Bench:  # holds what is made once: mixtures, runs
    """Where points are tried: mixtures are built, runs trained and judged, each once."""

    def __init__(self, chosen: Settings, say: Callable[[str], None]) -> None:
        self.chosen, self.say = chosen, say
        self.output = Path(chosen.output)
        self.trials = Path(chosen.trials or f"{chosen.output}/trials")
        fraction = [word for word in chosen.overrides if word.startswith("val_fraction=")]
        self.kitchen = Kitchen(
            mixture=chosen.mixture, trials=self.trials,
            work=chosen.work or f"{chosen.output}/work",
            overrides=(f"tokens={chosen.tokens}", *chosen.overrides,
                       *([] if fraction else ["val_fraction=0.1"])),
        )  # fmt: skip
        prior = self.kitchen.build(None)
        self.facts: Facts = facts_of(prior, tokens=chosen.tokens)
        self.judge: Mixture = open_mixture(str(prior))
        self.prior = prior
        _require_target(chosen, self.facts)
        self.held = ablation.sample_ids(str(prior), "val")
        self.apart: set[Path] = set()
        self.runs: dict[str, Run] = {}

    def config(self, mixture: Path, *, seed: int, **more: str) -> Any:
        """The settings of a run on a mixture."""
        pairs = {"data": str(mixture), "seed": str(seed), "page_samples": "0",
                 **self.chosen.settings, **more}  # fmt: skip
        return load_config(self.chosen.config, pairs)

    def run(self, ratios: Mapping[str, float] | None, *, seed: int, **more: str) -> Run:
        """The finished run of these ratios."""
        mixture = self.kitchen.build(ratios)
        if mixture not in self.apart:
            _require_apart(self.held, mixture)
            self.apart.add(mixture)
        run = plan_run(self.config(mixture, seed=seed, **more), self.trials / "runs")
        train_run(run, train)
        self.runs[run.fingerprint] = run
        return run

    def loss(self, run: Run) -> float:
        """The target of a finished run."""
        return target_of(held_out_losses(judge_run(run, self.judge)), self.chosen.target)

    def earlier(self, space: Space) -> Earlier:
        """What runs over other components say; which they are stays as it was found first."""
        like = plan_run(self.config(self.prior, seed=self.chosen.seed), self.trials / "runs")
        known = earlier_runs(self.trials, like, self.prior)
        key = hashlib.sha256(repr((self.chosen, self.judge.fingerprint)).encode()).hexdigest()[:12]
        file = self.output / f"earlier-{key}.json"
        if not file.is_file():
            self.output.mkdir(parents=True, exist_ok=True)
            write_json(file, [n for n, (run, _) in known.items() if self._is_apart(run)])
        chosen = [known[name] for name in json.loads(file.read_text()) if name in known]
        losses = [(ratios, self.loss(run)) for run, ratios in chosen]
        return as_points(space, losses, list(self.facts.ratios))

    def _is_apart(self, run: Run) -> bool:
        (mixture,) = run.config.data
        return not self.held & ablation.sample_ids(mixture, "train")

    @property
    def cost(self) -> dict[str, float]:
        """What all runs took that this search needed."""
        costs = [ablation.cost_of(run) for run in self.runs.values()]
        return {
            "runs": len(costs),
            "tokens": sum(cost.tokens for cost in costs),
            "cpu_seconds": round(sum(cost.cpu_seconds for cost in costs), 1),
        }


def target_of(losses: Mapping[str, float], target: Mapping[str, float]) -> float:
    """The weighted mean of the losses of the target's components."""
    whole = sum(target.values())
    return sum(losses[f"component/{name}"] * share for name, share in target.items()) / whole


def _require_target(chosen: Settings, facts: Facts) -> None:
    for name, weight in chosen.target.items():
        if name not in facts.ratios:
            raise ValueError(
                f"search: target names {name!r}; expected components of the mixture: "
                f"{', '.join(facts.ratios)}."
            )
        if not facts.val_samples.get(name):
            raise ValueError(
                f"search: target {name} has no held-out samples.\nway out: more rows of it, or a "
                "larger val_fraction (val_fraction=0.2)."
            )
        if weight < 0 or not isinstance(weight, int | float):
            raise ValueError(f"search: target.{name} is {weight}; expected a weight above 0.")


def _require_finite(loss: float, run: str) -> None:
    """No model is fitted to what diverged."""
    if not math.isfinite(loss):
        raise ValueError(
            f"search: the target of {run} is {loss}: its training diverged.\n"
            "found: a loss on held-out samples that is not finite\nexpected: numbers\n"
            "way out: a lower rate (train.optim.lr=...), or bounds that leave such ratios out."
        )


def _require_apart(held: set[str], mixture: Path) -> None:
    both = held & ablation.sample_ids(str(mixture), "train")
    if both:
        raise ValueError(
            f"search: {len(both)} held-out samples are trained on in {mixture}, {min(both)} for "
            "one. Did its seed or val_fraction change? Remove that folder."
        )


def searched(chosen: Settings, *, say: Callable[[str], None]) -> dict[str, Any]:
    """What was found, as result.json has it: proposal, runs, model, verification, cost.

    Raises ValueError for a mistake in the settings, before the first run where it can be known.
    """
    bench = Bench(chosen, say)
    facts = bench.facts
    space = space_of(
        facts.ratios, bounds=chosen.bounds, groups=chosen.groups, fixed=chosen.fixed,
        most=facts.most,
    )  # fmt: skip
    random = np.random.default_rng(chosen.seed)

    def evaluate(point: np.ndarray) -> float:
        run = bench.run(space.ratios(point), seed=chosen.seed)
        loss = bench.loss(run)
        _require_finite(loss, run.fingerprint)
        told = ", ".join(f"{n} {share:.3f}" for n, share in space.ratios(point).items())
        say(f"run {len(bench.runs)}  {run.fingerprint}  target {loss:.4f}  {told}")
        return loss

    earlier = Earlier.none(space)
    if chosen.method == "merge":
        found = merged(space, _merging(bench, space), random=random)
    else:
        earlier = bench.earlier(space)
        if len(earlier.losses):
            say(f"{len(earlier.losses)} runs over other components are there and count")
        method = {"regression": regression, "bayes": bayes}[chosen.method]
        found = method(space, evaluate, runs=chosen.runs, random=random, earlier=earlier)
    cost = bench.cost
    ratios = space.ratios(found.best)
    say(f"proposal {', '.join(f'{n} {share:.3f}' for n, share in ratios.items())}")
    told = _told(found, space, earlier)
    return {
        "method": chosen.method,
        "proposal": ratios,
        "prior": facts.ratios,
        **told,
        "search_cost": cost,
        "verified": _verified(bench, space, ratios),
        "cost": bench.cost,
    }


def _told(found: Found, space: Space, earlier: Earlier) -> dict[str, Any]:
    """The model, the runs and the effects, as result.json has them."""
    predicted, spread = (
        float(value[0]) for value in found.model.predict(earlier.padded(found.best[None]))
    )
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
            for name, (change, its) in zip(
                space.names, _effects(found, space, earlier), strict=True
            )
        },
    }


def _effects(found: Found, space: Space, earlier: Earlier) -> list[tuple[float, float]]:
    """Of the groups, at the proposal."""

    def predict(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return found.model.predict(earlier.padded(at))

    return effects(replace(found.model, predict=predict), found.best, points=found.points)


def _merging(bench: Bench, space: Space) -> Callable[[np.ndarray], float]:
    """Judges averages of the weights of experts, one per group from a common start; as many sets
    of them, each with its seed, as the runs pay for: their mean.
    """
    chosen, size = bench.chosen, len(space.groups) + 1
    if chosen.runs < size:
        raise ValueError(
            f"search: method=merge trains a start and {size - 1} experts, but runs={chosen.runs}.\n"
            f"way out: runs={size} or a multiple of it, or fewer groups."
        )
    sets = [_experts(bench, space, seed=chosen.seed + n) for n in range(chosen.runs // size)]
    file = bench.output / "merged.json"
    known: dict[str, float] = json.loads(file.read_text()) if file.is_file() else {}

    def judged(start: Run, experts: Sequence[Path], weights: Sequence[float]) -> float:
        names = [start.fingerprint, *(e.parent.name for e in experts), bench.judge.fingerprint]
        key = json.dumps([names, list(weights), chosen.target])
        if key not in known:
            made = bench.output / "merged"
            shutil.rmtree(made, ignore_errors=True)
            average.weighted(experts, weights, output=made)
            scores = sample_scores(start.config, made, bench.judge)
            loss = target_of(held_out_losses(scores), chosen.target)
            _require_finite(loss, f"the average {list(weights)} of experts")
            known[key] = loss
            shutil.rmtree(made)
            write_json(file, known)
        return known[key]

    def judge(point: np.ndarray) -> float:
        weights = [round(float(share / space.total), 6) for share in point]
        return float(np.mean([judged(start, experts, weights) for start, experts in sets]))

    return judge


def _experts(bench: Bench, space: Space, *, seed: int) -> tuple[Run, list[Path]]:
    """(a run of the prior, one of each group that begins where that ended)."""
    start = bench.run(None, seed=seed)
    first = ablation.finished(start)
    experts: list[Path] = []
    for number in range(len(space.groups)):
        alone = space.nearest(np.eye(len(space.groups))[number] * space.total)
        run = bench.run(space.ratios(alone), seed=seed, init=str(first))
        last = ablation.finished(run)
        assert last is not None
        experts.append(last)
        bench.say(f"expert {space.names[number]}  seed {seed}  {run.fingerprint}")
    return start, experts


def _verified(bench: Bench, space: Space, proposal: Mapping[str, float]) -> dict[str, Any]:
    """Per arm: its ratios, the target of each fresh seed, the difference to the prior."""
    chosen, facts = bench.chosen, bench.facts
    if not chosen.seeds:
        return {}
    amounts = np.array([sum(facts.supply[n] for n in group) for group in space.groups])
    even = np.full(len(space.groups), space.total / len(space.groups))
    arms = {
        "proposal": dict(proposal),
        "prior": space.ratios(space.nearest(space.prior)),
        "uniform": space.ratios(space.nearest(even)),
        "supply": space.ratios(space.nearest(amounts / amounts.sum() * space.total)),
    }
    targets: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(chosen.seeds):
        for name, ratios in arms.items():
            run = bench.run(ratios, seed=chosen.seed + FRESH + number)
            targets[name].append(bench.loss(run))
            bench.say(f"verify {name}  seed {number + 1}  target {targets[name][-1]:.4f}")
    return {
        name: {"ratios": ratios, "targets": as_json(targets[name]),
               **compared(targets[name], targets["prior"])}
        for name, ratios in arms.items()
    }  # fmt: skip


def compared(ours: Sequence[float], prior: Sequence[float]) -> dict[str, Any]:
    """Mean, spread over seeds, and the paired difference to the prior with its interval: `better`
    or `worse` where 0 is outside it, else `not shown`; `not finite` where a target is not.
    """
    by_seed = [dict(enumerate(targets)) for targets in (ours, prior)]
    found = compare_by_seed(*by_seed, lower_is_better=True)
    spreads = spread(by_seed[0]) if len(ours) > 1 else 0.0
    interval = [found.low, found.high] if math.isfinite(found.low) else None
    verdict = found.verdict if found.verdict in (BETTER, WORSE, NOT_FINITE) else NOT_SHOWN
    told = {"mean": mean(by_seed[0]), "spread": spreads, "difference": found.mean}
    return {**as_json(told), "interval": interval, "verdict": verdict}
