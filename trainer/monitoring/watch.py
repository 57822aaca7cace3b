"""What is seen of a run: its sizes, the log, TensorBoard, messages, the signal to leave."""

import importlib
import json
import shutil
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import torch
from torch import nn

from trainer.checkpoint import ARRIVING
from trainer.config import Config
from trainer.model.smolvlm import count_parameters
from trainer.parallel import World


def human_list(names: list[str]) -> str:
    """At most 20 names, and how many more there are."""
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def peak_memory(world: World) -> float:
    """GB: of the device on CUDA, of the process elsewhere."""
    if world.device.type == "cuda":
        return torch.cuda.max_memory_allocated(world.device) / 1e9
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


@contextmanager
def tensorboard(config: Config, run: Path, world: World) -> Iterator[Callable[..., None]]:
    """Yields what takes a log line to RUN/tensorboard: one event file, of what the log holds.

    It is written anew from the log at every start, so that neither a resumed run nor a crash
    leaves a second file, or numbers of steps that were taken again.
    """
    if not config.tensorboard or not world.first:
        yield lambda line: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "tensorboard=true needs tensorboard, which is not installed: pip install -e '.[watch]'."
        ) from error
    shutil.rmtree(run / "tensorboard", ignore_errors=True)
    with SummaryWriter(str(run / "tensorboard")) as writer:

        def take(line: dict[str, Any]) -> None:
            numbers = flat_metrics({key: line[key] for key in line if key not in ("step", "time")})
            for name, number in numbers.items():
                writer.add_scalar(name, number, line["step"], walltime=line["time"])

        for text in (run / "log.jsonl").read_text().splitlines():
            line = json.loads(text)
            take({"time": time.time(), **numbers_of(line)})
        yield take


def numbers_of(line: dict[str, Any]) -> dict[str, Any]:
    """What of a line of the log trackers are told: its step and numbers, metrics by their names."""
    if "metrics" in line:
        return {**line["metrics"], **{key: line[key] for key in ("step", "time") if key in line}}
    return {key: value for key, value in line.items() if key not in ("said", "skipped")}


def flat_metrics(line: dict[str, Any]) -> dict[str, float]:
    """The numbers of a log line, those of a dict in it as `key/name`."""
    return {
        f"{key}/{name}".rstrip("/"): number
        for key, value in line.items()
        for name, number in (value if isinstance(value, dict) else {"": value}).items()
    }


@contextmanager
def tracker(config: Config, run: Path, world: World) -> Iterator[Callable[..., None]]:
    """Yields what takes a log line to `config.track`, where a resumed run goes on as the same one.

    trackio and wandb share the calls that are made here (init, log, finish). The first rank's lines
    alone go there; where no tracker is named they go nowhere. Folders of runs are often called
    alike, so the run's name there ends in its id, which RUN/run_id holds.
    """
    if not config.track or not world.first:
        yield lambda line: None
        return
    try:
        library = importlib.import_module(config.track)
    except ImportError as error:
        raise ValueError(
            f"track={config.track} needs {config.track}, which is not installed: "
            f"pip install -e '.[{config.track}]'."
        ) from error
    identity = run_id(run)
    place = {"id": identity, "dir": str(run)} if config.track == "wandb" else {}
    name = f"{run.name}-{identity[:8]}"
    library.init(project="smolvlm", name=name, config=asdict(config), resume="allow", **place)
    try:
        yield lambda line: library.log(
            {name: n for name, n in flat_metrics(line).items() if name not in ("step", "time")},
            step=line["step"],
        )
    finally:
        library.finish()


def run_id(run: Path) -> str:
    """32 random hexadecimal digits, the same for as long as the folder lives."""
    file = run / "run_id"
    if not file.is_file():
        fresh = run / f"{ARRIVING}run_id"
        fresh.write_text(uuid.uuid4().hex + "\n")
        fresh.replace(file)
    return file.read_text().strip()


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
    """RUN/log.jsonl, without the lines that a crash left behind `step`.

    Where its weights are measured (again), neither what was measured of them.
    """

    def __init__(self, run: Path, step: int, world: World, *, unmeasured: bool = False) -> None:
        self.file, self.step, self.world = run / "log.jsonl", step, world
        self.unmeasured = unmeasured

    def __enter__(self) -> TextIO | None:
        self.stream: TextIO | None = None
        if self.world.first:
            texts = self.file.read_text().splitlines(True) if self.file.is_file() else []
            kept = [t for t in texts if t.endswith("\n") and self._holds(json.loads(t))]
            fresh = self.file.with_name(f"{ARRIVING}log.jsonl")
            fresh.write_text("".join(kept))
            fresh.replace(self.file)
            self.stream = self.file.open("a")
        return self.stream

    def _holds(self, line: dict[str, Any]) -> bool:
        if self.unmeasured and {"held_out", "said"} & set(line):
            return bool(line["step"] < self.step)
        return bool(line["step"] <= self.step)

    def __exit__(self, *_: object) -> None:
        if self.stream is not None:
            self.stream.close()


def training_bytes(config: Config, model: nn.Module) -> int:
    """Bytes of the weights, and for what is trained of a gradient and two moments."""
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    moments = 2 if config.optim.name == "adamw_8bit" else 8
    return weights + (4 + moments) * trained


def describe_run(config: Config, model: nn.Module, run: Path) -> str:
    """Sizes and memory, in three lines."""
    counts = count_parameters(model)
    total = sum(counts.values())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    parts = ", ".join(f"{name} {human_count(count)}" for name, count in counts.items())
    memory = training_bytes(config, model) / 1e9
    return (
        f"output   {run}\n"
        f"model    {config.name}: {human_count(total)} parameters ({parts}); "
        f"{human_count(trained)} trained\n"
        f"memory   {memory:.2f} GB for weights, gradients and moments, activations besides"
    )


def device_name(device: torch.device) -> str:
    """As its maker calls it; `cpu` for any CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
