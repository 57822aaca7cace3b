"""What a run tells while it runs: log.jsonl, a line for human_count, trackers, spikes and run.html.

Of the first rank alone; where numbers of all ranks are needed, all call and the first one writes.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import nn

from tokenization.terminal import human_time, log
from trainer import parallel
from trainer.config import Config
from trainer.data.batches import Loader, cores, threads
from trainer.evaluation import generations
from trainer.evaluation.held_out import Sums
from trainer.inputs import Inputs
from trainer.monitoring import page
from trainer.monitoring.devices import estimate, peak_tflops
from trainer.monitoring.watch import (
    describe_run,
    device_name,
    human_count,
    human_list,
    numbers_of,
    open_log,
    peak_memory,
    tensorboard,
    tracker,
    write_line,
)
from trainer.optim import schedule_factor
from trainer.parallel import World
from trainer.state import State
from trainer.step import SampleLosses, StepResult

SMOOTHING = 0.9
"""Weight of the past in the running mean that a spike is compared with."""
DATA_WAIT = 0.1
"""Share of the time spent waiting for data above which it is said, once, what to raise."""


def _not_finite(samples: Sequence[SampleLosses]) -> list[str]:
    return [
        name
        for each in samples
        for name, loss in zip(each.sample_ids, each.losses.tolist(), strict=True)
        if not math.isfinite(loss)
    ]


@dataclass
class Meter:
    """What happened since the last logged step, on this rank."""

    sums: Sums = field(default_factory=Sums)
    started: float = field(default_factory=time.perf_counter)
    tokens: int = 0
    learned: int = 0
    crops: int = 0
    flops: float = 0.0
    waited: float = 0.0

    def add(self, result: StepResult, components: Mapping[str, str]) -> None:
        """Counts a step."""
        for samples in result.samples:
            self.sums.add_samples(samples, components)
        self.tokens += result.tokens
        self.learned += result.num_learned
        self.crops += result.crops
        self.flops += result.flops
        self.waited += result.waited


def waiting_for_data(config: Config, share: float, *, fitted: bool) -> str:
    """How much of the time is lost to waiting, and the way out."""
    workers, available = threads(config)["workers"], cores()
    if workers < available:
        way = f"Raise workers to {available}, the cores that this process may use"
    elif fitted:
        way = "Give the machine more cores for each process"
    else:
        way = (
            "Give the machine more cores for each process, or build the mixture with "
            "encoding.images=fitted, so that images are decoded and no longer resized"
        )
    return (
        f"waiting  {share:.0%} of the time went by waiting for data: {workers} workers decode and "
        f"crop too slowly for this model. {way}."
    )


def schedule_note(epochs: float) -> str:
    """What becomes of a schedule of ratios that the run passes so often."""
    passes = round(epochs, 2)
    if passes < 1:
        return f"         its ratios follow a schedule, of which the run ends after {epochs:.0%}"
    again = f", {passes:g} times: epochs=1 passes it once" if passes > 1.01 else ""
    return f"         its ratios follow a schedule, so its rows keep their order{again}"


class Reporter:
    """Everything that is told of one run; open inside `with`."""

    def __init__(
        self,
        config: Config,
        run: Path,
        inputs: Inputs,
        world: World,
        state: State,
        loader: Loader,
        *,
        unmeasured: bool = False,
    ) -> None:
        self.config, self.run, self.inputs, self.world = config, run, inputs, world
        self.began, self.loader, self.unmeasured = state, loader, unmeasured
        self.num_steps = loader.num_steps
        self.tflops = config.peak_tflops or peak_tflops(device_name(world.device))
        self.meter = Meter()
        self.running_loss = math.nan
        self.told_of_waiting = False
        self.started = time.perf_counter()

    def __enter__(self) -> "Reporter":
        self.open = ExitStack()
        log = open_log(self.run, self.began.step, self.world, unmeasured=self.unmeasured)
        self.log = self.open.enter_context(log)
        self.followers = [
            self.open.enter_context(follows(self.config, self.run, self.world))
            for follows in (tensorboard, tracker)
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.open.__exit__(kind, error, trace)

    def print(self, text: str) -> None:
        """One process speaks."""
        if self.world.first:
            log(text)

    def begin(self, model: Any, *, resumed: Path | None) -> None:
        """The run's sizes, hours and data are printed, and from where it goes on."""
        began, world = self.began, self.world
        if not world.first:
            return
        self.print(describe_run(self.config, model, self.run))
        name = device_name(world.device)
        left = self.loader.step_flops(began.position) * (self.num_steps - began.step)
        hours = estimate(
            left, device=name, count=world.ranks, tflops=self.tflops,
            price=self.config.price_per_hour,
        )  # fmt: skip
        self.print(f"compute  {hours}")
        for mixture, epochs in zip(self.inputs.mixtures, self.loader.epochs(), strict=True):
            fingerprint = mixture.fingerprint[:12]
            self.print(f"data     {mixture.name} ({fingerprint}), {epochs:.2f} epochs")
            if mixture.on_schedule:
                self.print(schedule_note(epochs))
        for note in self.inputs.notes:
            self.print(note)
        if resumed:
            self.print(f"resuming {resumed} at step {began.step} of {self.num_steps}")
            if began.num_steps not in (0, self.num_steps):
                before, now = (
                    schedule_factor(began.step, steps=steps, settings=self.config.optim)
                    for steps in (began.num_steps, self.num_steps)
                )
                self.print(
                    f"steps    {began.num_steps} -> {self.num_steps}: the rate goes from "
                    f"{before:.3f} to {now:.3f} of its peak here"
                )

    def trained(
        self, state: State, result: StepResult, norm: float, rates: Mapping[str, float], *,
        last: int,
    ) -> None:  # fmt: skip
        """The step is counted; every `log_every` steps those since become a line.

        FloatingPointError after too many steps that are not finite.
        """
        if state.skipped_in_a_row:
            self._skipped(state, result, norm)
        else:
            self.meter.add(result, self.inputs.components)
            self._write_spike(state.step - 1, result)
            if state.step % self.config.log_every == 0 or state.step == last:
                self._log_step(state, result, norm, rates, last=last)
                self.meter = Meter()

    def _skipped(self, state: State, result: StepResult, norm: float) -> None:
        """The step that changed nothing is written down; FloatingPointError after too many."""
        step = state.step - 1
        facts = {"loss": str(result.loss), "gradient_norm": str(norm)}
        self._write_samples("skipped", step, result, facts)
        if self.log is not None:
            write_line(self.log, {"step": state.step, "skipped": facts})
        names = _not_finite(result.samples) or [
            name for samples in result.samples for name in samples.sample_ids
        ]
        what = f"the loss is {result.loss}, the gradient's norm {norm}"
        rows = [row for samples in result.samples for row in samples.rows]
        found = f"step {step}: {what}. Rows {human_list(rows)}, samples {human_list(names)}."
        if state.skipped_in_a_row > self.config.max_skipped:
            raise FloatingPointError(
                f"{found} These were {state.skipped_in_a_row} steps in a row (max_skipped is "
                f"{self.config.max_skipped}). Look at them (python -m pipelines show DIR id=...), "
                "lower optim.lr, or go on from an older checkpoint with a filter against them."
            )
        self.print(f"{found} Nothing was changed by this step; {self.run / 'skipped'} has more.")

    def _write_spike(self, step: int, result: StepResult) -> None:
        limit, loss = self.config.max_loss_spike, result.loss
        if limit and loss > limit * self.running_loss:
            self._write_samples(
                "spikes", step, result, {"loss": loss, "running_mean": self.running_loss}
            )
        self.running_loss = (
            loss
            if math.isnan(self.running_loss)
            else SMOOTHING * self.running_loss + (1 - SMOOTHING) * loss
        )

    def _write_samples(
        self, kind: str, step: int, result: StepResult, facts: Mapping[str, Any]
    ) -> None:
        folder = self.run / kind
        folder.mkdir(exist_ok=True)
        batches = [
            {
                "rows": samples.rows,
                "loss_per_sample": dict(
                    zip(samples.sample_ids, samples.losses.tolist(), strict=True)
                ),
            }
            for samples in result.samples
        ]
        file = folder / f"step-{step:06d}-rank-{self.world.rank}.json"
        file.write_text(json.dumps({**facts, "batches": batches}, indent=1) + "\n")

    def _time_left(self, state: State, last: int) -> str:
        """`12 min left`, at the pace so far, with what checkpoints and evaluations took."""
        steps = state.step - self.began.step
        seconds = (time.perf_counter() - self.started) / max(steps, 1) * (last - state.step)
        return f"{human_time(seconds)} left" if state.step < last else "done"

    def _log_step(
        self, state: State, result: StepResult, norm: float, rates: Mapping[str, float], *,
        last: int,
    ) -> None:  # fmt: skip
        meter = self.meter
        seconds = max(time.perf_counter() - meter.started, 1e-9)
        gathered = parallel.gather(
            self.world,
            (meter.sums, meter.crops, meter.flops, meter.waited, peak_memory(self.world)),
        )
        if not self.world.first:
            return
        means = Sums().merge(each[0] for each in gathered).means()
        line: dict[str, Any] = {
            "step": state.step,
            "loss": result.loss,
            "mean_loss": means.get("all", result.loss),
            "gradient_norm": norm,
            "lr": dict(rates),
            "tokens": state.tokens,
            "learned_tokens": state.learned_tokens,
            "tokens_per_second": meter.tokens / seconds,
            "learned_tokens_per_second": meter.learned / seconds,
            "crops_per_second": sum(each[1] for each in gathered) / seconds,
            "data_wait": max(each[3] for each in gathered) / seconds,
            "peak_memory_gb": max(each[4] for each in gathered),
            "step_seconds": result.seconds,
            "losses": {name: value for name, value in means.items() if name != "all"},
        }
        if self.tflops:
            done = sum(each[2] for each in gathered) / seconds
            line["mfu"] = done / (self.tflops * 1e12 * self.world.ranks)
        self._tell(line)
        if line["data_wait"] > DATA_WAIT and not self.told_of_waiting:
            self.told_of_waiting = True
            encodings = [mixture.encoding for mixture in self.inputs.mixtures]
            fitted = all(encoding.images == "fitted" for encoding in encodings)
            self.print(waiting_for_data(self.config, line["data_wait"], fitted=fitted))
        width = len(str(self.num_steps))
        self.print(
            f"step {state.step:>{width}}/{self.num_steps}  loss {line['mean_loss']:.4f}  "
            f"tokens/s {human_count(line['tokens_per_second'])}  "
            f"learned/s {human_count(line['learned_tokens_per_second'])}  "
            f"data wait {line['data_wait']:.1%}  gradient {norm:.2f}  "
            f"lr {max(rates.values()):.2e}  {self._time_left(state, last)}"
        )

    def _tell(self, line: dict[str, Any]) -> None:
        """The line stands in the log, and its numbers wherever else they are followed."""
        assert self.log is not None
        line["time"] = time.time()
        write_line(self.log, line)
        for follow in self.followers:
            follow(numbers_of(line))

    def measured(self, state: State) -> None:
        """What was measured of the weights of this step is a line."""
        if self.log is None or not state.metrics:
            return
        losses = {
            name.removeprefix("held_out/"): value
            for name, value in state.metrics.items()
            if name.startswith("held_out/")
        }
        self._tell({"step": state.step, "held_out": losses, "metrics": state.metrics})
        shown = "  ".join(
            f"{name.removeprefix('component/')} {value:.3f}"
            for name, value in losses.items()
            if not name.startswith("modality/")
        )
        self.print(f"held out: {shown}")

    def saved(self, state: State, model: Any, objective: nn.Module) -> None:
        """RUN/run.html is of this state; what the model says to its samples is in the log.

        All ranks call this, since one alone may not hold all weights.
        """
        shown = self.inputs.shown
        if shown:
            with parallel.inference(objective, self.world, self.config):
                if self.log is not None:
                    words = generations.generate_answers(model, self.inputs.tokenizer, shown)
                    write_line(self.log, {"step": state.step, "said": words})
        if self.log is not None and self.config.page_samples:
            page.write(
                self.run, self.config, shown, steps=self.num_steps, mixtures=self.inputs.mixtures,
                device=device_name(self.world.device),
            )  # fmt: skip
        self.meter.started = time.perf_counter()  # what a checkpoint takes is no training
