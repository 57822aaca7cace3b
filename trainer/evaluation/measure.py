"""What is measured of a checkpoint's weights, and whether they are the best so far."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from trainer.config import Config
from trainer.evaluation import held_out, selection
from trainer.inputs import Inputs
from trainer.monitoring.reporter import Reporter
from trainer.parallel import World
from trainer.saving import Saver
from trainer.state import State


def measure(
    state: State,
    folder: Path,
    *,
    objective: nn.Module,
    model: Any,
    inputs: Inputs,
    config: Config,
    world: World,
    report: Reporter,
    saver: Saver,
) -> State:
    """The state with what its weights score, which its checkpoint in `folder` then states too.

    Held-out losses, and the benchmarks of `select`.
    """
    losses = held_out.held_out(
        objective, inputs.held_out, inputs.components, config,
        image_token=inputs.image_token, world=world,
    )  # fmt: skip
    metrics = {f"held_out/{name}": value for name, value in losses.items()}
    if config.select:
        metrics |= selection.selection_scores(
            objective, model, inputs.tokenizer, inputs.questions, config, state, folder.parent,
            world,
        )  # fmt: skip
    state = ranked(replace(state, metrics=metrics, measured_at=state.step), config)
    report.measured(state)
    report.saved(state, model, objective)
    # Last: a run that ends before this is measured, and told of, by its next start.
    saver.record(folder, state)
    return state


def ranked(state: State, config: Config) -> State:
    """The state whose `best` is the best of those measured so far, this one included."""
    key, sign = ("selected", -1) if config.select else ("held_out/all", 1)
    value = state.metrics.get(key)
    if value is None:
        return state
    if math.isfinite(value) and (not state.best or sign * value < sign * state.best["value"]):
        return replace(state, best={"step": state.step, "value": value}, without_better=0)
    return replace(state, without_better=state.without_better + 1)
