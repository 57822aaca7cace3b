"""The search: space, runs, proposal, verification with fresh seeds; said again, it goes on.

    mixture --prior, facts--> space --method--> proposal --seeds--> verdicts --> result.json, page

Nothing but runs (trainer/ablation/runs.py) and mixtures takes time, and both are made once and kept
under what determines them; the rest is computed from them each time. So a search that was killed
goes on, ends the same, and shares its runs with another over the same mixtures.
"""

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
)
from trainer.config_file import load as load_config
from trainer.data.shards import Mixture, Rows, open_mixture
from trainer.loop import train
from trainer.search.methods import bayes, merged, regression
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
        fraction = [word for word in chosen.overrides if word.startswith("val_fraction=")]
        self.kitchen = Kitchen(
            mixture=chosen.mixture, output=self.output, work=chosen.work or f"{chosen.output}/work",
            overrides=(f"tokens={chosen.tokens}", *chosen.overrides,
                       *([] if fraction else ["val_fraction=0.1"])),
        )  # fmt: skip
        prior = self.kitchen.build(None)
        self.facts: Facts = facts_of(prior, tokens=chosen.tokens)
        self.judge: Mixture = open_mixture(str(prior))
        _require_target(chosen, self.facts)
        self.held = held_out_ids(prior)
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
        run = plan_run(self.config(mixture, seed=seed, **more), self.output / "runs")
        train_run(run, train)
        self.runs[run.fingerprint] = run
        return run

    def loss(self, run: Run) -> float:
        """The target of a finished run."""
        return target_of(held_out_losses(judge_run(run, self.judge)), self.chosen.target)

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


def held_out_ids(mixture: Path) -> set[str]:
    """Ids of the held-out samples."""
    rows = Rows(open_mixture(str(mixture)), "val")
    return {name for number in range(len(rows)) for name in rows[number].sample_ids}


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
    both = held & ablation.trained_ids(str(mixture))
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

    if chosen.method == "merge":
        found = merged(space, _merging(bench, space), runs=chosen.runs, random=random)
    else:
        method = {"regression": regression, "bayes": bayes}[chosen.method]
        found = method(space, evaluate, runs=chosen.runs, random=random)
    cost = bench.cost
    ratios = space.ratios(found.best)
    predicted, spread = (float(value[0]) for value in found.model.predict(found.best[None]))
    say(f"proposal {', '.join(f'{n} {share:.3f}' for n, share in ratios.items())}")
    return {
        "method": chosen.method,
        "proposal": ratios,
        "prior": facts.ratios,
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
        "effects": {
            name: {"doubled": change, "spread": its}
            for name, (change, its) in zip(
                space.names, effects(found.model, found.best, points=found.points), strict=True
            )
        },
        "search_cost": cost,
        "verified": _verified(bench, space, ratios),
        "cost": bench.cost,
    }


def _merging(bench: Bench, space: Space) -> Callable[[np.ndarray], float]:
    """Judges averages of the weights of experts: one per group, from a common start."""
    start = bench.run(None, seed=bench.chosen.seed)
    first = ablation.finished(start)
    experts: list[Path] = []
    for number in range(len(space.groups)):
        alone = space.nearest(np.eye(len(space.groups))[number] * space.total)
        run = bench.run(space.ratios(alone), seed=bench.chosen.seed, init=str(first))
        last = ablation.finished(run)
        assert last is not None
        experts.append(last)
        bench.say(f"expert {space.names[number]}  {run.fingerprint}")
    file = bench.output / f"merged-{start.fingerprint}.json"
    known: dict[str, float] = json.loads(file.read_text()) if file.is_file() else {}

    def judge(point: np.ndarray) -> float:
        weights = [round(float(share / space.total), 6) for share in point]
        key = json.dumps([[e.parent.name for e in experts], weights, bench.chosen.target])
        if key not in known:
            made = bench.output / "merged"
            shutil.rmtree(made, ignore_errors=True)
            average.weighted(experts, weights, output=made)
            scores = sample_scores(start.config, made, bench.judge)
            loss = target_of(held_out_losses(scores), bench.chosen.target)
            _require_finite(loss, f"the average {weights} of experts")
            known[key] = loss
            shutil.rmtree(made)
            arriving = file.with_suffix(".arriving")
            arriving.write_text(json.dumps(known))
            arriving.replace(file)
        return known[key]

    return judge


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
