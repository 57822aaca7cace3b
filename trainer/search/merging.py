"""`merge`: one expert per group from a common start; averages of their weights are judged.

Bench --experts--> [(start, experts)] --weighted average--> target, nothing trained
"""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from trainer import average
from trainer.ablation import runs as ablation
from trainer.ablation.benchmarks import checkpoint_score
from trainer.ablation.judging import sample_scores
from trainer.ablation.runs import Run, held_out_losses, write_json
from trainer.data.integrity import sha256_of
from trainer.search.bench import Bench, require_finite
from trainer.search.settings import Settings
from trainer.search.space import Space
from trainer.search.target import target_of


def require_mergeable(chosen: Settings, groups: int) -> None:
    """Raises ValueError where runs are too few, or a schedule is sought: averages have none."""
    if chosen.runs < groups + 1:
        raise ValueError(
            f"search: method=merge trains a start and {groups} experts, but runs={chosen.runs}.\n"
            f"way out: runs={groups + 1} or a multiple of it, or fewer groups."
        )
    if chosen.stages > 1:
        raise ValueError(
            f"search: method=merge averages weights, which have no order, but stages="
            f"{chosen.stages}.\nway out: method=regression or method=bayes."
        )


def merging(bench: Bench, space: Space) -> Callable[[np.ndarray], float]:
    """Judges averages of the weights of experts; as many sets of them, each with its seed, as the
    budget pays for: their mean.
    """
    chosen = bench.chosen
    sets: list[tuple[Run, list[Path]]] = []
    for number in range(chosen.runs // (len(space.groups) + 1)):
        if sets and _is_spent(bench, len(sets)):
            break
        sets.append(_experts(bench, space, seed=chosen.seed + number))
    file = bench.output / "merged.json"
    known: dict[str, float] = json.loads(file.read_text()) if file.is_file() else {}

    def judged(start: Run, experts: Sequence[Path], weights: Sequence[float]) -> float:
        names = [start.fingerprint, *(e.parent.name for e in experts), bench.judge.fingerprint]
        benchmarks = {
            name: [repr(each), sha256_of(Path(each.file))]
            for name, each in chosen.benchmarks.items()
        }
        key = json.dumps([names, list(weights), chosen.target, *([benchmarks] * bool(benchmarks))])
        if key not in known:
            made = bench.output / "merged"
            shutil.rmtree(made, ignore_errors=True)
            average.weighted(experts, weights, output=made)
            losses = held_out_losses(sample_scores(start.config, made, bench.judge))
            scores = {
                name: checkpoint_score(start, made, each)
                for name, each in chosen.benchmarks.items()
            }
            loss = target_of(losses, chosen.target, scores)
            require_finite(loss, f"the average {list(weights)} of experts")
            known[key] = loss
            shutil.rmtree(made)
            write_json(file, known)
        return known[key]

    def judge(point: np.ndarray) -> float:
        weights = [round(float(share / space.total), 6) for share in point]
        try:
            return float(np.mean([judged(start, experts, weights) for start, experts in sets]))
        except ArithmeticError as error:
            bench.say(str(error))
            return math.nan

    return judge


def _is_spent(bench: Bench, sets: int) -> bool:
    """Whether another set of experts, as long as those before, goes beyond the hours."""
    return bool(bench.chosen.hours) and bench.seconds * (sets + 1) / sets > (
        bench.chosen.hours * 3600
    )


def _experts(bench: Bench, space: Space, *, seed: int) -> tuple[Run, list[Path]]:
    """(a run of the prior, one of each group that begins where that ended)."""
    with bench.timed(f"start, seed {seed}"):
        start = bench.run(None, seed=seed)
    first = ablation.finished(start)
    experts: list[Path] = []
    for number in range(len(space.groups)):
        with bench.timed(f"expert {number}, seed {seed}"):
            alone = space.nearest(np.eye(len(space.groups))[number] * space.total)
            run = bench.run(space.ratios(alone), seed=seed, init=str(first))
        last = ablation.finished(run)
        assert last is not None
        experts.append(last)
        bench.say(f"expert {space.names[number]}  seed {seed}  {run.fingerprint}")
    return start, experts
