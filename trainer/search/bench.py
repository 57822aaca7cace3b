"""Where points are tried: mixtures are built, runs trained and judged, each once and kept.

    ratios, seed, size --Bench.tried--> target of the finished run

Nothing but runs (trainer/ablation/runs.py) and mixtures takes time, and both are kept under what
determines them; the rest of a search is computed from them each time. What time a try took is kept
as well (OUTPUT/seconds.json), so that a budget of hours ends where it ended before.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import safe_open

from trainer.ablation import runs as ablation
from trainer.ablation.benchmarks import benchmark_score, refuse_trained
from trainer.ablation.building import mixture_key
from trainer.ablation.runs import Run, held_out_losses, judge_run, plan_run, train_run, write_json
from trainer.config import Config
from trainer.config_file import load as load_config
from trainer.data.shards import Mixture, open_mixture, refuse_mismatch
from trainer.loop import Preempted, train
from trainer.model.initial import tokenizer_of
from trainer.search.earlier import Earlier, as_points, earlier_runs
from trainer.search.methods import LEAST_RUNS
from trainer.search.mixing import Facts, Kitchen, facts_of
from trainer.search.settings import Settings, Size
from trainer.search.space import Ratio, Space
from trainer.search.target import require_learning, require_target, target_of

HOUR = 3600.0


class Bench:  # holds what is made once: mixtures, runs, what they took
    """Mixtures, runs and their targets; all that is wrong with the settings is said as it opens."""

    def __init__(self, chosen: Settings, say: Callable[[str], None]) -> None:
        self.chosen, self.say = chosen, say
        self.output = Path(chosen.output)
        self.trials = Path(chosen.trials or f"{chosen.output}/trials")
        fraction = [word for word in chosen.overrides if word.startswith("val_fraction=")]
        self.kitchen = Kitchen(
            mixture=chosen.mixture, trials=self.trials,
            work=chosen.work or f"{chosen.output}/work",
            overrides=(*chosen.overrides, *([] if fraction else ["val_fraction=0.1"])),
        )  # fmt: skip
        self.output.mkdir(parents=True, exist_ok=True)
        self._seconds_file = self.output / "seconds.json"
        self.runs: dict[str, Run] = {}
        self.failed: list[dict[str, Any]] = []
        self._apart: set[Path] = set()
        self._taken: dict[str, float] = {}
        words = dict(word.split("=", 1) for word in self.kitchen.overrides)
        self._about = f" of {mixture_key(chosen.mixture, words)}, {vars(chosen.proxy)}"
        with self.timed("the prior's mixture"):
            self.prior = self.kitchen.build(None, tokens=chosen.tokens)
        self.facts: Facts = facts_of(self.prior, tokens=chosen.supply_at, stages=chosen.stages)
        self.judge: Mixture = open_mixture(str(self.prior))
        require_target(chosen, self.facts.ratios, self.judge)
        for size in (chosen.proxy, chosen.larger):
            if size:
                config = self.config(self.prior, seed=chosen.seed, size=size)
                refuse_mismatch(config, self.judge, vocabulary=len(tokenizer_of([self.judge])))
                require_learning(config)
        self.held = ablation.sample_ids(str(self.prior), "val")
        self._require_apart(self.prior)

    def config(self, mixture: Path, *, seed: int, size: Size, **more: str) -> Config:
        """The settings of a run on a mixture."""
        pairs = {"data": str(mixture), "seed": str(seed), "page_samples": "0",
                 **size.settings, **more}  # fmt: skip
        return load_config(size.config, pairs)

    def run(
        self,
        ratios: Mapping[str, Ratio] | None,
        *,
        seed: int,
        size: Size | None = None,
        **more: str,
    ) -> Run:
        """The finished run of these ratios."""
        size = size or self.chosen.proxy
        mixture = self.kitchen.build(ratios, tokens=size.tokens)
        self._require_apart(mixture)
        run = plan_run(self.config(mixture, seed=seed, size=size, **more), self.trials / "runs")
        train_run(run, train)
        self.runs[run.fingerprint] = run
        return run

    def loss(self, run: Run) -> float:
        """The target of a finished run."""
        target = self.chosen.target
        scores = {name: benchmark_score(run, each) for name, each in self.chosen.benchmarks.items()}
        losses: Mapping[str, float] = {}
        if len(scores) < len(target):
            losses = held_out_losses(judge_run(run, self.judge))
        return target_of(losses, target, scores)

    def tried(
        self, ratios: Mapping[str, Ratio], *, seed: int, size: Size | None = None
    ) -> tuple[Run, float]:
        """The finished run of these ratios, its target; how long it took is kept."""
        with self.timed(json.dumps([dict(ratios), seed, vars(size or self.chosen.proxy)])):
            run = self.run(ratios, seed=seed, size=size)
            return run, self.loss(run)

    def attempted(
        self,
        ratios: Mapping[str, Ratio],
        *,
        seed: int,
        name: str,
        size: Size | None = None,
        finite: bool = False,
    ) -> float | None:
        """The target, or None where the run failed: it is named, and ends no other. One that is not
        finite fails where it says so.
        """  # fmt: skip
        try:
            run, loss = self.tried(ratios, seed=seed, size=size)
            if finite:
                require_finite(loss, run.fingerprint)
        except Preempted:
            raise
        except Exception as error:  # named in the result
            why = f"{type(error).__name__}: {error}".strip()
            self.failed.append({"run": name, "seed": seed, "ratios": dict(ratios), "why": why})
            self.say(f"{name}, seed {seed} failed: {why}")
            return None
        return loss

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """How long it takes is kept, as it was taken first."""
        key = hashlib.sha256(f"{what}{self._about}".encode()).hexdigest()[:16]
        began = time.monotonic()
        yield
        known = self._known_seconds()
        if key not in known:
            known[key] = time.monotonic() - began
            write_json(self._seconds_file, known)
        self._taken[key] = known[key]

    def _known_seconds(self) -> dict[str, float]:
        found: dict[str, float] = {}
        if self._seconds_file.is_file():
            found = json.loads(self._seconds_file.read_text())
        return found

    @property
    def seconds(self) -> float:
        """Of all that this search has waited for, as it was taken first."""
        return sum(self._taken.values())

    def runs_paid(self) -> int:
        """How many runs the hours pay for if all take as long as the first, which has been tried.

        Raises ValueError where they are too few.
        """
        prior, *tries = self._taken.values()
        paid = int((self.chosen.hours * HOUR - prior) / max(*tries, 1e-9))
        if paid < LEAST_RUNS:
            needed = (prior + LEAST_RUNS * max(tries)) / HOUR
            raise ValueError(
                f"search: hours={self.chosen.hours:g} pays for {max(paid, 0)} runs: reading took "
                f"{prior:.0f} s, the first run {max(tries):.0f} s; expected {LEAST_RUNS} runs at "
                f"least, of which a model is fitted.\nway out: hours={needed:.2g}, or fewer tokens."
            )
        return paid

    def enough(self) -> bool:
        """Whether another run, as long as the mean of those before, goes beyond the hours."""
        if not self.chosen.hours:
            return False
        _, *tries = self._taken.values()
        mean = sum(tries) / max(len(tries), 1)
        return self.seconds + mean > self.chosen.hours * HOUR

    def earlier(self, space: Space) -> Earlier:
        """What runs over other components say; which they are stays as it was found first."""
        like = plan_run(
            self.config(self.prior, seed=self.chosen.seed, size=self.chosen.proxy),
            self.trials / "runs",
        )
        known = earlier_runs(self.trials, like, self.prior)
        key = hashlib.sha256(repr((self.chosen, self.judge.fingerprint)).encode()).hexdigest()[:12]
        file = self.output / f"earlier-{key}.json"
        if not file.is_file():
            write_json(file, [n for n, (run, _) in known.items() if self._is_apart(run)])
        chosen = [known[name] for name in json.loads(file.read_text()) if name in known]
        losses = [(ratios, self.loss(run)) for run, ratios in chosen]
        return as_points(
            space, [(r, loss) for r, loss in losses if math.isfinite(loss)], list(self.facts.ratios)
        )

    def _is_apart(self, run: Run) -> bool:
        (mixture,) = run.config.data
        try:
            self._require_apart(Path(mixture))
        except ValueError:
            return False
        return True

    def _require_apart(self, mixture: Path) -> None:
        """Raises ValueError where it trains on what the target is measured by."""
        if mixture in self._apart:
            return
        both = self.held & ablation.sample_ids(str(mixture), "train")
        if both:
            raise ValueError(
                f"search: {len(both)} held-out samples are trained on in {mixture}, {min(both)} "
                "for one. Did its seed or val_fraction change? Remove that folder."
            )
        refuse_trained(self.chosen.benchmarks, open_mixture(str(mixture)), who="search")
        self._apart.add(mixture)

    @property
    def cost(self) -> dict[str, float]:
        """What all runs took that this search needed."""
        costs = [ablation.cost_of(run) for run in self.runs.values()]
        return {
            "runs": len(costs),
            "tokens": sum(cost.tokens for cost in costs),
            "cpu_seconds": round(sum(cost.cpu_seconds for cost in costs), 1),
        }


def require_finite(loss: float, which: str) -> None:
    """Raises ArithmeticError where a run has lost its numbers."""
    if not math.isfinite(loss):
        raise ArithmeticError(
            f"search: the target of {which} is {loss}: training diverged.\n"
            "found: a loss on held-out samples that is not finite\nexpected: numbers\n"
            "way out: a lower rate (train.optim.lr=...), or bounds that leave such ratios out."
        )


def parameters_of(run: Run) -> int:
    """How many numbers the checkpoint of the finished run holds."""
    folder = ablation.finished(run)
    assert folder is not None
    found = 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            found += sum(math.prod(tensors.get_slice(k).get_shape()) for k in tensors.keys())  # noqa: SIM118
    return found
