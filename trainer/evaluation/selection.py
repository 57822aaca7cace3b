"""Benchmarks choose the best checkpoint of a run: `select` of its settings.

RUN/evaluations/step-000100/<benchmark>.tsv holds each question's answer and score, so that every
evaluation is compared with the best one before it, question by question.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from tokenization.inference import asking_encoding
from trainer.checkpoint import said_encoding
from trainer.config import Config
from trainer.evaluation.answer import answers
from trainer.evaluation.benchmark import (
    Case,
    image_clusters,
    read,
    read_points,
    scores,
    write_answers,
)
from trainer.evaluation.confidence import Scores, compare, mean_interval
from trainer.parallel import World, gather, inference
from trainer.state import State


def open_selection(config: Config) -> dict[str, list[Case]]:
    """The questions of every benchmark of `select`; ValueError where one cannot be asked."""
    total = sum(benchmark.weight for benchmark in config.select.values())
    if config.select and total <= 0:
        raise ValueError(f"select: its weights sum to {total:g}, expected a sum above 0.")
    found = {}
    for name, benchmark in config.select.items():
        try:
            scores([], [], benchmark.metric)
            found[name] = read(Path(benchmark.file), choices_from=benchmark.choices_from)
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"select.{name}: {error}") from error
    return found


def selection_scores(
    objective: nn.Module,
    model: Any,
    tokenizer: Any,
    benchmarks: Mapping[str, list[Case]],
    config: Config,
    state: State,
    run: Path,
    world: World,
) -> dict[str, float]:
    """Scores of the benchmarks of `select` (see `open_selection`) and `selected`, their weighted
    mean, all with the ends of their intervals; `selected/p` is of the paired test against the best
    step before.
    """
    encoding = asking_encoding(said_encoding(state, tokenizer))
    found: dict[str, float] = {}
    strata: list[Scores] = []
    folder = run / "evaluations"
    for name, benchmark in config.select.items():
        cases = benchmarks[name]
        mine = cases[world.rank :: world.ranks]
        with inference(objective, world, config):
            said = answers(
                model, tokenizer, [case.question for case in mine], encoding=encoding,
                max_new_tokens=32, batch_size=16,
            )  # fmt: skip
        texts, points = [""] * len(cases), [0.0] * len(cases)
        for rank, (own, scored) in enumerate(
            gather(world, (said, scores(mine, said, benchmark.metric)))
        ):
            texts[rank :: world.ranks], points[rank :: world.ranks] = own, scored
        if world.first:
            write_answers(folder / f"step-{state.step:06d}" / f"{name}.tsv", cases, texts, points)
        strata.append(
            Scores(points=points, clusters=image_clusters(cases), weight=benchmark.weight)
        )
        found |= _with_ends(f"benchmark/{name}", strata[-1:])
    found |= _with_ends("selected", strata)
    best = _best_before(folder, state.step, benchmarks, strata)
    if best:
        found["selected/p"] = compare(strata, best).p
    return found


def _with_ends(name: str, strata: Sequence[Scores]) -> dict[str, float]:
    mean = mean_interval(strata)
    return {name: mean.value, f"{name}/low": mean.low, f"{name}/high": mean.high}


def _best_before(
    folder: Path, step: int, benchmarks: Mapping[str, list[Case]], strata: Sequence[Scores]
) -> list[Scores]:
    """The scores of the best evaluation before `step` of the same questions, or none."""
    best: list[Scores] = []
    for earlier in sorted(folder.glob("step-*")):
        if int(earlier.name.removeprefix("step-")) >= step:
            continue
        points = [read_points(earlier / f"{name}.tsv", cases) for name, cases in benchmarks.items()]
        scored = [
            Scores(points=own, clusters=now.clusters, weight=now.weight)
            for own, now in zip(points, strata, strict=True)
            if own is not None
        ]
        if len(scored) < len(strata):
            continue
        if not best or mean_interval(scored).value > mean_interval(best).value:
            best = scored
    return best
