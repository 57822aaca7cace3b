"""The training loop: a step is the whole global batch, its loss one sum over one count.

loss = sum of the losses of all learned tokens of the global batch / their number. Micro-batches,
ranks and accumulation only cut the sum into pieces.
"""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import nn

from trainer import checkpoint, optim, parallel
from trainer.checkpoint import State
from trainer.config import Config, changed_fields
from trainer.data.batches import Batch, Loader, Step
from trainer.data.shards import Mixture, open_mixtures, refuse_mismatch
from trainer.evaluation import generations, held_out
from trainer.model import initial
from trainer.model.smolvlm import Objective, flops, passes
from trainer.monitoring import page
from trainer.monitoring.card import card
from trainer.monitoring.watch import (
    Meter,
    describe_run,
    full_tensor,
    human_count,
    human_list,
    open_log,
    peak_memory,
    refuse_loss,
    tensorboard,
    tracker,
    until_sigterm,
    write_line,
)
from trainer.parallel import World


class Preempted(Exception):
    """SIGTERM came; the run was saved before leaving."""


def run_folder(config: Config, mixtures: list[Mixture]) -> Path:
    """Where this run lives."""
    name = "+".join(mixture.name for mixture in mixtures)
    return Path(config.output or f"out/runs/{config.name}-{name}")


def train(config: Config) -> Path:
    """The last checkpoint of the finished (or stopped) run. Resumes where the run stands."""
    if not config.data:
        raise ValueError(
            "data is not set. Expected data=DIR, a finished mixture, e.g. out/quickstart."
        )
    from transformers.utils import logging

    logging.disable_progress_bar()
    with parallel.world(config) as here:
        mixtures = open_mixtures(config)
        tokenizer = initial.tokenizer_of(mixtures)
        for mixture in mixtures:
            refuse_mismatch(config, mixture, vocabulary=len(tokenizer))
        run = run_folder(config, mixtures)
        if here.first:
            run.mkdir(parents=True, exist_ok=True)
            checkpoint.remove_unfinished(run)
        parallel.barrier(here)
        return _train(config, mixtures, tokenizer, run, here)


def _train(config: Config, mixtures: list[Mixture], tokenizer: Any, run: Path, here: World) -> Path:
    standing = checkpoint.checkpoint_folders(run)
    state = _state(config, mixtures, standing)
    model = initial.initial_model(config, tokenizer, resume=standing[-1] if standing else None)
    initial.prepare_model(model, config, here)
    if here.first:
        print(describe_run(config, model, mixtures, run), flush=True)
    objective = Objective(model, logits_chunk=config.logits_chunk, neftune=config.optim.neftune).to(
        here.device
    )
    wrapped = parallel.wrap(objective, here, config)
    optimizer = optim.optimizer(objective, config.optim)
    if standing:
        checkpoint.load_optimizer(standing[-1], objective, optimizer)
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    work = passes(config.optim.freeze, adapted=config.adapter.rank > 0)
    loader = Loader(
        config, image_token=image_token, rank=here.rank, ranks=here.ranks,
        cost=partial(flops, config.model, passes=work), pin=here.device.type == "cuda",
    )  # fmt: skip
    steps = config.steps or max(
        1, math.ceil(config.epochs * loader.rows_per_epoch / config.batch_rows)
    )
    last = min(steps, config.stop_at or steps)
    if state.step >= last and standing:
        if here.first:
            print(f"{run}: already at step {state.step} of {steps}; nothing to do.")
        return standing[-1]
    if standing and here.first:
        print(f"resuming {standing[-1]} at step {state.step} of {steps}")

    job = _Job(config, mixtures, tokenizer, run, here, objective, wrapped, optimizer, steps)
    if here.first and config.page_samples:
        job.shown = generations.choose_samples(mixtures, tokenizer, count=config.page_samples)
    names: dict[str, str] = {}
    for mixture in mixtures:
        names.update(held_out.components(mixture))
    folder = standing[-1] if standing else run
    meter = Meter()
    with (
        tracker(config, run, here) as job.track,
        until_sigterm() as terminated,
        open_log(run, state.step, here) as log,
    ):
        source = loader.steps(state.position, last - state.step)
        while True:
            waiting = time.perf_counter()
            planned = next(source, None)
            meter.waited += time.perf_counter() - waiting
            if planned is None:
                break
            before = time.perf_counter()
            step, batches = planned
            loss, norm, rates = job.step(state.step, step, batches, meter, names)
            state = replace(
                state,
                step=state.step + 1,
                position=state.position + config.batch_rows,
                seconds=state.seconds + time.perf_counter() - before,
                learned_tokens=state.learned_tokens + step.num_learned,
                tokens=state.tokens + job.step_tokens,
            )
            done = state.step == last
            if state.step % config.log_every == 0 or done:
                job.report(log, state, loss, norm, rates, meter)
                meter = Meter()
            if (config.evaluate_every and state.step % config.evaluate_every == 0) or done:
                state = job.evaluate(log, state)
                meter.started = time.perf_counter()
            stop = any(parallel.gather(here, bool(terminated)))
            if state.step % config.save_every == 0 or done or stop:
                folder = job.save(state)
                if not stop or done:  # on SIGTERM seconds count
                    job.show(log, state)
                meter.started = time.perf_counter()
            if stop and not done:
                raise Preempted(f"SIGTERM: saved {folder}. The same command goes on from there.")
    return folder


@dataclass
class _Job:
    """The pieces that every step uses."""

    config: Config
    mixtures: list[Mixture]
    tokenizer: Any
    run: Path
    here: World
    objective: Objective
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    steps: int
    step_tokens: int = 0
    running_loss: float = math.nan
    shown: list[generations.ShownSample] = field(default_factory=list)
    track: Callable[[dict[str, Any]], None] = lambda line: None

    def step(
        self, number: int, step: Step, batches: Iterator[Batch], meter: Meter, names: dict[str, str]
    ) -> tuple[float, float, dict[str, float]]:
        """One optimizer step; (loss, gradient norm before clipping, rate per tower)."""
        config, here = self.config, self.here
        # Noise and dropout are a function of (seed, step, rank): nothing to save or restore.
        torch.manual_seed((config.seed * 1_000_003 + number) * 65_537 + here.rank)
        rates = optim.set_rates(
            self.optimizer, optim.schedule_factor(number, steps=self.steps, settings=config.optim)
        )
        self.wrapped.train()
        total, seen, tokens = 0.0, [], 0
        for i in range(step.num_batches):
            waiting = time.perf_counter()
            batch = next(batches)
            meter.waited += time.perf_counter() - waiting
            batch = batch.to(here.device)
            with parallel.defer_gradient_exchange(
                self.wrapped, here, config, last=i == step.num_batches - 1
            ):
                with parallel.precision(here, config):
                    loss, per_sample = self.wrapped(batch)
                # Ranks average their gradients; the loss is a sum over all, hence `ranks`.
                (loss * (here.ranks / max(1, step.num_learned))).backward()
            value = loss.item()
            if not math.isfinite(value):
                refuse_loss(value, number, batch, per_sample)
            total += value
            seen.append((batch, per_sample))
            tokens += batch.input_ids.numel()
            meter.crops += len(batch.pixels)
            work = passes(config.optim.freeze, adapted=config.adapter.rank > 0)
            meter.flops += flops(config.model, **batch.sizes, passes=work)
        parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        norm = float(
            full_tensor(nn.utils.clip_grad_norm_(parameters, config.optim.clip or math.inf)).item()
        )
        if not math.isfinite(norm):
            names_seen = [name for batch, _ in seen for name in batch.sample_ids]
            raise FloatingPointError(
                f"step {number}: the gradient's norm is {norm}, the loss was finite. "
                f"Samples: {human_list(names_seen)}. Lower optim.lr, or look at them: "
                "python -m pipelines show."
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        gathered = parallel.gather(here, (total, tokens))
        mean = math.fsum(each[0] for each in gathered) / max(1, step.num_learned)
        self.step_tokens = sum(each[1] for each in gathered)
        for batch, per_sample in seen:
            meter.sums.add_batch(batch, per_sample, names)
        meter.steps += 1
        meter.tokens += self.step_tokens
        meter.learned += step.num_learned
        self._watch_spike(number, mean, seen)
        return mean, norm, rates

    def _watch_spike(
        self, number: int, loss: float, seen: list[tuple[Batch, torch.Tensor]]
    ) -> None:
        limit = self.config.max_loss_spike
        if limit and loss > limit * self.running_loss:
            folder = self.run / "spikes"
            folder.mkdir(exist_ok=True)
            rows = [
                {
                    "rows": batch.rows,
                    "loss_per_sample": dict(
                        zip(batch.sample_ids, per_sample.tolist(), strict=True)
                    ),
                }
                for batch, per_sample in seen
            ]
            file = folder / f"step-{number:06d}-rank-{self.here.rank}.json"
            spike = {"loss": loss, "running_mean": self.running_loss, "batches": rows}
            file.write_text(json.dumps(spike, indent=1) + "\n")
        self.running_loss = (
            loss if math.isnan(self.running_loss) else 0.9 * self.running_loss + 0.1 * loss
        )

    def report(
        self,
        log: TextIO | None,
        state: State,
        loss: float,
        norm: float,
        rates: dict[str, float],
        meter: Meter,
    ) -> None:
        """One JSON line and one line for people."""
        seconds = max(time.perf_counter() - meter.started, 1e-9)
        gathered = parallel.gather(
            self.here, (meter.sums, meter.crops, meter.flops, meter.waited, peak_memory(self.here))
        )
        means = held_out.Sums().merge(each[0] for each in gathered).means()
        line: dict[str, Any] = {
            "step": state.step,
            "loss": loss,
            "mean_loss": means.get("all", loss),
            "gradient_norm": norm,
            "lr": rates,
            "tokens": state.tokens,
            "learned_tokens": state.learned_tokens,
            "tokens_per_second": meter.tokens / seconds,
            "learned_tokens_per_second": meter.learned / seconds,
            "crops_per_second": sum(each[1] for each in gathered) / seconds,
            "data_wait": max(each[3] for each in gathered) / seconds,
            "peak_memory_gb": max(each[4] for each in gathered),
            "losses": {name: value for name, value in means.items() if name != "all"},
        }
        if self.config.peak_tflops:
            done = sum(each[2] for each in gathered) / seconds
            line["mfu"] = done / (self.config.peak_tflops * 1e12 * self.here.ranks)
        if not self.here.first or log is None:
            return
        write_line(log, line)
        self.track(line)
        if self.config.tensorboard:
            tensorboard(self.run, line)
        width = len(str(self.steps))
        print(
            f"step {state.step:>{width}}/{self.steps}  loss {line['mean_loss']:.4f}  "
            f"tokens/s {human_count(line['tokens_per_second'])}  "
            f"learned/s {human_count(line['learned_tokens_per_second'])}  "
            f"data wait {line['data_wait']:.1%}  gradient {norm:.2f}  "
            f"lr {max(rates.values()):.2e}",
            flush=True,
        )

    def evaluate(self, log: TextIO | None, state: State) -> State:
        """The state with the held-out losses (and benchmark scores) of this step."""
        image_token = self.tokenizer.convert_tokens_to_ids("<image>")
        losses = held_out.held_out(
            self.wrapped, self.mixtures, self.config, image_token=image_token, here=self.here
        )
        metrics = {f"held_out/{name}": value for name, value in losses.items()}
        if self.config.select:
            metrics.update(self._benchmarks(state))
        if self.here.first and metrics and log is not None:
            write_line(log, {"step": state.step, "held_out": losses, "metrics": metrics})
            shown = "  ".join(
                f"{name.removeprefix('component/')} {value:.3f}"
                for name, value in losses.items()
                if not name.startswith("modality/")
            )
            print(f"held out: {shown}", flush=True)
            self.track({"step": state.step, **metrics})
            if self.config.tensorboard:
                tensorboard(self.run, {"step": state.step, **metrics})
        return replace(state, metrics=metrics)

    def _benchmarks(self, state: State) -> dict[str, float]:
        from trainer.evaluation.selection import selection_scores

        return selection_scores(
            self.objective, self.tokenizer, self.config, state, self.run, self.here
        )

    def save(self, state: State) -> Path:
        """The checkpoint of this state; older ones are pruned and `best` follows."""
        key, sign = ("selected", -1) if self.config.select else ("held_out/all", 1)
        value = state.metrics.get(key)
        best = state.best
        fresh = value is not None and (not best or sign * value < sign * best["value"])
        if fresh and value is not None:
            state = replace(state, best={"step": state.step, "value": value})
        folder = checkpoint.save(
            self.run, state, objective=self.objective, optimizer=self.optimizer,
            tokenizer=self.tokenizer, config=self.config,
            card=card(self.config, state, self.mixtures, self.objective.model), here=self.here,
        )  # fmt: skip
        if self.here.first:
            if fresh:
                checkpoint.point_best(self.run, folder)
            checkpoint.prune(self.run, keep_last=self.config.keep_last)
        return folder

    def show(self, log: TextIO | None, state: State) -> None:
        """RUN/run.html is of this state; what the model says to its samples is in the log."""
        if log is None or not self.config.page_samples:
            return
        if self.shown and self.here.kind != "fsdp":  # generation needs the whole model on a rank
            words = generations.generate_answers(self.objective.model, self.tokenizer, self.shown)
            write_line(log, {"step": state.step, "said": words})
        page.write(self.run, self.config, self.shown, steps=self.steps, mixtures=self.mixtures)


def _state(config: Config, mixtures: list[Mixture], standing: list[Path]) -> State:
    """Where the run stands, or its beginning; ValueError where settings or data have changed."""
    used = [
        {"name": m.name, "fingerprint": m.fingerprint, "weight": w}
        for m, w in zip(mixtures, config.data.values(), strict=True)
    ]
    encoding = dataclasses.asdict(mixtures[0].encoding)
    if not standing:
        history: list[dict[str, Any]] = []
        if config.init:
            source = checkpoint.resolve_checkpoint(Path(config.init))
            if (source / "trainer" / "state.json").is_file():
                past = checkpoint.read_state(source)
                kept = ("step", "tokens", "learned_tokens", "mixtures")
                history = [*past.history, {key: getattr(past, key) for key in kept}]
        return State(mixtures=used, history=history, encoding=encoding)
    newest = standing[-1]
    state = checkpoint.read_state(newest)
    before = initial.written_config(newest)
    drift = changed_fields(dataclasses.replace(before, data=config.data), config)
    if state.mixtures != used:
        drift.append(f"data: {state.mixtures} -> {used}")
    if drift:
        raise ValueError(
            f"{newest} was trained with other settings:\n  " + "\n  ".join(drift) + "\n"
            "Use these settings again to go on, choose another output=..., or start a new stage "
            f"from it with init={newest} and another output."
        )
    return state
