"""The training loop: a step is the whole global batch, its loss one sum over one count.

loss = sum of the losses of all learned tokens of the global batch / their number. Micro-batches,
ranks and accumulation only cut the sum into pieces.
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from tokenization.terminal import log
from trainer import checkpoint, optim, parallel
from trainer.config import Config
from trainer.data.batches import Loader
from trainer.data.shards import open_mixtures
from trainer.evaluation.measure import measure
from trainer.inputs import Inputs, open_inputs, run_folder
from trainer.model.initial import initial_objective
from trainer.model.smolvlm import flops, passes
from trainer.monitoring.reporter import Reporter
from trainer.monitoring.watch import until_sigterm
from trainer.parallel import World
from trainer.saving import Saver, clean
from trainer.state import State
from trainer.step import forward_backward, refuse_blindness


class Preempted(Exception):
    """SIGTERM came; the run was saved before leaving."""


@dataclass(frozen=True)
class Start:
    """Where a run stands when it is started, now or again, and what it reads."""

    run: Path
    inputs: Inputs
    loader: Loader
    state: State
    newest: Path | None
    """The checkpoint of `state`; None at the beginning."""
    last: int
    """The step that it ends after, this time."""
    unmeasured: bool
    """The last time ended between a save and its evaluation: that comes first."""


def train(config: Config) -> Path:
    """The last checkpoint of the finished (or stopped) run. Resumes where the run stands."""
    with parallel.processes(config) as world:
        start = open_run(config, world)
        run, inputs, loader, last = start.run, start.inputs, start.loader, start.last
        state, newest = start.state, start.newest
        if newest and is_finished(state, config, last):
            if world.first:
                log(f"{run}: already at step {state.step} of {loader.num_steps}; nothing to do.")
            return newest
        objective, together = initial_objective(config, inputs.tokenizer, world, resume=newest)
        optimizer = optim.optimizer(objective, config.optim)
        if newest:
            checkpoint.load_optimizer(newest, objective, optimizer)
        with (
            until_sigterm() as sigterm,
            Saver(run, objective, optimizer, inputs.tokenizer, inputs.mixtures, config,
                  world) as saver,
            Reporter(config, run, inputs, world, state, loader,
                     unmeasured=start.unmeasured) as report,
        ):  # fmt: skip
            report.begin(objective.model, resumed=newest)
            refuse_blindness(together, config, world, image_token=inputs.image_token)
            evaluate = partial(measure, objective=together, model=objective.model, inputs=inputs,
                               config=config, world=world, report=report, saver=saver)  # fmt: skip
            state = replace(state, num_steps=loader.num_steps)
            if newest and start.unmeasured:
                state = evaluate(state, newest)
            for plan, batches in loader.steps(state.position, last - state.step):
                rates = optim.set_rates(optimizer, scheduled(config, state))
                seed_step(config.seed, state.step, world.rank)
                result = forward_backward(together, plan, batches, config, world, sigterm=sigterm)
                saver.check()
                if result is None:
                    newest = saver.save(state)
                    saver.wait()
                    raise Preempted(f"SIGTERM: saved {newest}. The same command goes on from it.")
                norm = optim.clip_gradients(optimizer, config.optim.clip)
                changed = math.isfinite(result.loss) and math.isfinite(norm)
                if changed:
                    optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                state = state.after(result, rows=config.batch_rows, changed=changed)
                report.trained(state, result, norm, rates, last=last)
                evaluates = is_due(config.evaluate_every, state.step, last)
                if evaluates or is_due(config.save_every, state.step, last):
                    newest = saver.save(state)  # before anything that may fail or take long
                    if evaluates:
                        state = evaluate(state, newest)
                    else:
                        report.saved(state, objective.model, together)
                if is_finished(state, config, last):
                    break  # before the last step: `patience`
    assert newest is not None
    return newest


def open_run(config: Config, world: World) -> Start:
    """All that the run reads is open, and its folder holds nothing half-written: what is wrong with
    either is said before a model is made.
    """
    mixtures = open_mixtures(config)
    run = run_folder(config, mixtures)
    newest = checkpoint.newest(run)
    state = checkpoint.standing(config, mixtures, newest)
    inputs = open_inputs(config, mixtures, resumed=newest is not None)
    clean(run, state, world)
    loader = open_loader(config, inputs, world)
    last = min(loader.num_steps, config.stop_at or loader.num_steps)
    unmeasured = newest is not None and state.measured_at != state.step
    unmeasured = unmeasured and is_due(config.evaluate_every, state.step, last)
    return Start(run, inputs, loader, state, newest, last, unmeasured)


def open_loader(config: Config, inputs: Inputs, world: World) -> Loader:
    """The micro-batches of this rank, shared out by what they cost to train on."""
    work = passes(config.optim.freeze, adapted=config.adapter.rank > 0)
    return Loader(
        config, image_token=inputs.image_token, rank=world.rank, ranks=world.ranks,
        cost=partial(flops, config.model, passes=work), pin=world.device.type == "cuda",
    )  # fmt: skip


def scheduled(config: Config, state: State) -> float:
    """The share of the peak rates at which this step is taken."""
    return optim.schedule_factor(state.step, steps=state.num_steps, settings=config.optim)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Noise and dropout are a function of these three: there is no state of them to save."""
    torch.manual_seed((seed * 1_000_003 + step) * 65_537 + rank)


def is_finished(state: State, config: Config, last: int) -> bool:
    """The last step's weights are measured, or `patience` evaluations in a row were no better."""
    stale = config.patience and state.without_better >= config.patience
    return state.measured_at == state.step and bool(state.step >= last or stale)


def is_due(every: int, step: int, last: int) -> bool:
    """After every so many steps (0: never), and after the last."""
    return step == last or bool(every and step and step % every == 0)
