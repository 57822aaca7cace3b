"""Runs are completed one after the other: trained, judged, asked; what fails ends no other.

| how                 | where a run is trained                                             |
|---------------------|--------------------------------------------------------------------|
| (nothing)           | in this process                                                    |
| `ranks=N`           | by N processes of `torchrun`, one run at a time                    |
| `ray=auto` `gpus=1` | as a task of a Ray cluster with so many GPUs, as many as fit there |
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tokenization.terminal import log
from trainer import checkpoint
from trainer.ablation.benchmarks import benchmark_score
from trainer.ablation.runs import Run, judge_run, train_run
from trainer.config import Benchmark, Config
from trainer.config_file import to_yaml
from trainer.data.shards import open_mixture


@dataclass(frozen=True)
class Job:
    """One run of a sweep, and what it is judged by."""

    arm: str
    seed: int
    run: Run
    judge: str
    """Folder of a finished mixture."""
    benchmarks: Mapping[str, Benchmark]

    @property
    def name(self) -> str:
        """For people."""
        return f"arm '{self.arm}', seed {self.seed}"


@dataclass(frozen=True)
class How:
    """Where runs are trained."""

    ranks: int = 0
    ray: str = ""
    gpus: float = 0.0


def complete(job: Job, *, ranks: int = 0) -> None:
    """The run is finished, judged and asked; nothing that stands is done again."""
    train_run(job.run, partial(train_here, ranks=ranks), devices=max(1, ranks))
    judge_run(job.run, open_mixture(job.judge))
    for asked in job.benchmarks.values():
        benchmark_score(job.run, asked)


def train_here(config: Config, *, ranks: int) -> Path:
    """The last checkpoint, trained in this process or by `ranks` processes."""
    if not ranks:
        from trainer.loop import train

        return train(config)
    settings = Path(config.output).with_suffix(".yaml")
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(to_yaml(config))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               f"--nproc-per-node={ranks}", "-m", "trainer", f"config={settings}"]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, said = process.communicate()
        except BaseException:
            process.terminate()  # torchrun passes it on, and each rank saves
            raise
    if process.returncode:
        raise RuntimeError("\n".join(said.strip().splitlines()[-20:]))
    last = checkpoint.newest(Path(config.output))
    assert last is not None
    return last


def complete_all(jobs: Sequence[Job], how: How) -> dict[int, str]:
    """All jobs were tried; why those failed that did, by their number.

    What ends this program (Ctrl-C, SIGTERM) ends it here: the same command goes on from there.
    """
    failed: dict[int, str] = {}
    ended = _on_ray(jobs, how) if how.ray else _here(jobs, how.ranks)
    for tried, (number, error) in enumerate(ended, start=1):
        if error is not None:
            failed[number] = f"{type(error).__name__}: {error}".strip()
            log(f"{jobs[number].name} failed: {failed[number]}")
        else:
            log(f"{jobs[number].name}: {tried} of {len(jobs)} runs")
    return failed


def _here(jobs: Sequence[Job], ranks: int) -> Iterator[tuple[int, Exception | None]]:
    from trainer.loop import Preempted

    for number, job in enumerate(jobs):
        try:
            complete(job, ranks=ranks)
        except Preempted:
            raise
        except Exception as error:  # named in the table
            yield number, error
        else:
            yield number, None


def _on_ray(jobs: Sequence[Job], how: How) -> Iterator[tuple[int, Exception | None]]:
    from trainer.cluster import run_tasks

    return run_tasks(complete, jobs, address=how.ray, gpus=how.gpus)
