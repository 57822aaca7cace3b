"""What is seen of a run: its sizes, the log, TensorBoard, messages, the signal to leave."""

import importlib
import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import torch
from torch import nn

from trainer.config import Config
from trainer.data.batches import Batch
from trainer.data.shards import Mixture
from trainer.evaluation.held_out import Sums
from trainer.model.smolvlm import count_parameters
from trainer.parallel import World


@dataclass
class Meter:
    """What happened since the last logged step."""

    sums: Sums = field(default_factory=Sums)
    started: float = field(default_factory=time.perf_counter)
    steps: int = 0
    tokens: int = 0
    learned: int = 0
    crops: int = 0
    flops: float = 0.0
    waited: float = 0.0
    """s, spent waiting for data."""


def refuse_loss(value: float, number: int, batch: Batch, per_sample: torch.Tensor) -> None:
    """Raises FloatingPointError that names the samples whose loss is not finite."""
    bad = [
        name
        for name, loss in zip(batch.sample_ids, per_sample.tolist(), strict=True)
        if not math.isfinite(loss)
    ]
    raise FloatingPointError(
        f"step {number}: the loss is {value}. Rows {human_list(batch.rows)}, "
        f"samples {human_list(bad)}. Look at them (python -m pipelines show "
        "DIR id=...), lower optim.lr, or go on from the "
        "last checkpoint with a filter against them."
    )


def human_list(names: list[str]) -> str:
    """At most 20 names, and how many more there are."""
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A sharded tensor as one; any other as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def peak_memory(here: World) -> float:
    """GB: of the device on CUDA, of the process elsewhere."""
    if here.device.type == "cuda":
        return torch.cuda.max_memory_allocated(here.device) / 1e9
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def human_count(number: float) -> str:
    """12,345 -> 12.3 k."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f}"


def write_line(log: TextIO, line: dict[str, Any]) -> None:
    """One more line of JSON, on disk."""
    log.write(json.dumps(line) + "\n")
    log.flush()


def tensorboard(run: Path, line: dict[str, Any]) -> None:
    """The numbers of a log line are in RUN/tensorboard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "tensorboard=true needs tensorboard, which is not installed: pip install -e '.[watch]'."
        ) from error
    with SummaryWriter(str(run / "tensorboard")) as writer:
        for name, number in flat_metrics(line).items():
            writer.add_scalar(name, number, line["step"])


def flat_metrics(line: dict[str, Any]) -> dict[str, float]:
    """The numbers of a log line, those of a dict in it as `key/name`."""
    return {
        f"{key}/{name}".rstrip("/"): number
        for key, value in line.items()
        for name, number in (value if isinstance(value, dict) else {"": value}).items()
    }


@contextmanager
def tracker(config: Config, run: Path, here: World) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yields what takes a log line to `config.track`, where a resumed run goes on as the same one.

    trackio and wandb share the calls that are made here (init, log, finish). The first rank's lines
    alone go there; where no tracker is named they go nowhere.
    """
    if not config.track or not here.first:
        yield lambda line: None
        return
    try:
        library = importlib.import_module(config.track)
    except ImportError as error:
        raise ValueError(
            f"track={config.track} needs {config.track}, which is not installed: "
            f"pip install -e '.[{config.track}]'."
        ) from error
    place = {"id": run.name, "dir": str(run)} if config.track == "wandb" else {}
    library.init(project="smolvlm", name=run.name, config=asdict(config), resume="allow", **place)
    try:
        yield lambda line: library.log(
            {name: number for name, number in flat_metrics(line).items() if name != "step"},
            step=line["step"],
        )
    finally:
        library.finish()


class until_sigterm:
    """A list that is not empty once SIGTERM has come; the old handler is back afterwards."""

    def __enter__(self) -> list[int]:
        self.received: list[int] = []
        self.previous: Any = None
        try:
            self.previous = signal.signal(signal.SIGTERM, self._note)
        except ValueError:  # not the main thread: the caller handles signals
            self.previous = None
        return self.received

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)

    def __exit__(self, *_: object) -> None:
        if self.previous is not None:
            signal.signal(signal.SIGTERM, self.previous)


class open_log:
    """RUN/log.jsonl, without the lines after `step` that a crash left behind."""

    def __init__(self, run: Path, step: int, here: World) -> None:
        self.file, self.step, self.here = run / "log.jsonl", step, here

    def __enter__(self) -> TextIO | None:
        self.stream: TextIO | None = None
        if self.here.first:
            kept = []
            if self.file.is_file():
                for text in self.file.read_text().splitlines(keepends=True):
                    if text.endswith("\n") and json.loads(text)["step"] <= self.step:
                        kept.append(text)
            fresh = self.file.with_suffix(".arriving")
            fresh.write_text("".join(kept))
            fresh.replace(self.file)
            self.stream = self.file.open("a")
        return self.stream

    def __exit__(self, *_: object) -> None:
        if self.stream is not None:
            self.stream.close()


def training_bytes(config: Config, model: nn.Module) -> int:
    """Bytes of the weights, and for what is trained of a gradient and two moments."""
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    moments = 2 if config.optim.name == "adamw_8bit" else 8
    return weights + (4 + moments) * trained


def describe_run(config: Config, model: nn.Module, mixtures: list[Mixture], run: Path) -> str:
    """Sizes, memory and data, in four lines."""
    counts = count_parameters(model)
    total = sum(counts.values())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    parts = ", ".join(f"{name} {human_count(count)}" for name, count in counts.items())
    memory = training_bytes(config, model) / 1e9
    data = ", ".join(f"{m.name} ({m.fingerprint[:12]})" for m in mixtures)
    return (
        f"model    {config.name}: {human_count(total)} parameters ({parts}); "
        f"{human_count(trained)} trained\n"
        f"memory   {memory:.2f} GB for weights, gradients and moments, activations besides\n"
        f"data     {data}\n"
        f"output   {run}"
    )
