"""The training loop: a step is the whole global batch, its loss one sum over one count.

loss = sum of the losses of all learned tokens of the global batch / their number. Micro-batches,
ranks and accumulation only cut the sum into pieces.
"""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from tokenization.terminal import log
from trainer import checkpoint, optim, parallel
from trainer.config import Config
from trainer.data.batches import Loader
from trainer.data.shards import open_mixtures
from trainer.evaluation.measure import measure
from trainer.inputs import open_inputs, run_folder
from trainer.model import initial
from trainer.model.smolvlm import Objective, flops, passes
from trainer.monitoring.reporter import Reporter
from trainer.monitoring.watch import until_sigterm
from trainer.state import State
from trainer.step import forward_backward, refuse_blindness


class Preempted(Exception):
    """SIGTERM came; the run was saved before leaving."""


def train(config: Config) -> Path:
    """The last checkpoint of the finished (or stopped) run. Resumes where the run stands."""
    with parallel.processes(config) as world:
        mixtures = open_mixtures(config)
        run = run_folder(config, mixtures)
        newest = checkpoint.newest(run)
        state = checkpoint.standing(config, mixtures, newest)
        inputs = open_inputs(config, mixtures, resumed=newest is not None)
        checkpoint.clean(run, state, world)
        work = passes(config.optim.freeze, adapted=config.adapter.rank > 0)
        loader = Loader(
            config, image_token=inputs.image_token, rank=world.rank, ranks=world.ranks,
            cost=partial(flops, config.model, passes=work), pin=world.device.type == "cuda",
        )  # fmt: skip
        num_steps = loader.num_steps
        last = min(num_steps, config.stop_at or num_steps)
        if newest and is_finished(state, config, last):
            if world.first:
                log(f"{run}: already at step {state.step} of {num_steps}; nothing to do.")
            return newest

        model = initial.initial_model(config, inputs.tokenizer, resume=newest)
        initial.prepare_model(model, config, world.device)
        objective = Objective(model, logits_chunk=config.logits_chunk, neftune=config.optim.neftune)
        parallel_objective = parallel.wrap(objective.to(world.device), world, config)
        optimizer = optim.optimizer(objective, config.optim)
        if newest:
            checkpoint.load_optimizer(newest, objective, optimizer)
        save = partial(
            checkpoint.save, run, objective=objective, optimizer=optimizer,
            tokenizer=inputs.tokenizer, mixtures=mixtures, config=config, world=world,
        )  # fmt: skip

        # Where the last time ended between a save and its evaluation, that comes first.
        unmeasured = newest is not None and state.measured_at != state.step
        unmeasured = unmeasured and is_due(config.evaluate_every, state.step, last)
        with (
            Reporter(config, run, inputs, world, state, loader, unmeasured=unmeasured) as report,
            until_sigterm() as sigterm,
        ):
            report.begin(model, resumed=newest)
            state = replace(state, num_steps=num_steps)
            refuse_blindness(
                parallel_objective, config.model, image_token=inputs.image_token, world=world,
                config=config,
            )  # fmt: skip
            evaluate = partial(measure, objective=parallel_objective, model=model, inputs=inputs,
                               config=config, world=world, report=report)  # fmt: skip
            if newest and unmeasured:
                state = evaluate(state, newest)
            for plan, batches in loader.steps(state.position, last - state.step):
                # Noise and dropout are a function of (seed, step, rank): nothing to save.
                torch.manual_seed((config.seed * 1_000_003 + state.step) * 65_537 + world.rank)
                factor = optim.schedule_factor(state.step, steps=num_steps, settings=config.optim)
                rates = optim.set_rates(optimizer, factor)
                result = forward_backward(
                    parallel_objective, plan, batches, config=config, world=world, sigterm=sigterm
                )
                if result is None:
                    folder = save(state)
                    raise Preempted(
                        f"SIGTERM: saved {folder}. The same command goes on from there."
                    )
                norm = optim.clip_gradients(optimizer, config.optim.clip)
                changes = math.isfinite(result.loss) and math.isfinite(norm)
                if changes:
                    optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                state = state.after(result, rows=config.batch_rows, changed=changes)
                report.trained(state, result, norm, rates, last=last)
                evaluates = is_due(config.evaluate_every, state.step, last)
                if evaluates or is_due(config.save_every, state.step, last):
                    newest = save(state)  # before anything that may fail or take long
                    if evaluates:
                        state = evaluate(state, newest)
                    else:
                        report.saved(state, model, parallel_objective)
                if is_finished(state, config, last):
                    break  # before the last step: `patience`
    assert newest is not None
    return newest


def is_finished(state: State, config: Config, last: int) -> bool:
    """The last step's weights are measured, or `patience` evaluations in a row were no better."""
    stale = config.patience and state.without_better >= config.patience
    return state.measured_at == state.step and bool(state.step >= last or stale)


def is_due(every: int, step: int, last: int) -> bool:
    """After every so many steps (0: never), and after the last."""
    return step == last or bool(every and step and step % every == 0)
