"""What a stage and a task are, and what it is to do a task here, in this process.

A *stage* is a pure function that returns a table (or its pieces, one by one); a *task* is one call
of it with the file to write. runner.py runs many of them, in order, on Ray where that is asked for.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.engine import tables, timings
from pipelines.engine.timings import Report


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a task asks of Ray; nothing of it counts where the task runs in this process."""

    num_cpus: float = 1
    num_gpus: float = 0
    memory: int = 512 << 20
    """Bytes reserved; lowered to what the largest node has."""
    max_calls: int = 0
    """A worker is replaced after so many tasks (gives leaked memory back); 0: never."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A pure function on tables, and what the runner must know of it."""

    name: str
    call: Callable[..., pa.Table | Iterator[pa.Table]]
    """Gives its table whole, or in pieces where it is too large to hold."""
    writes: pa.Schema
    version: int
    """Bumped when the output would change; enters fingerprints. Code is never hashed."""
    needs: Needs = Needs()
    rows_per_batch: int = tables.ROWS_PER_BATCH

    @property
    def identity(self) -> dict[str, Any]:
        """What of the stage determines its output: its version, and the columns it writes."""
        columns = {column.name: str(column.type) for column in self.writes}
        return {"version": self.version, "columns": columns}


class AgainError(Exception):
    """Raised by a stage that gives its table in pieces and found out late how it should have begun:
    nothing of it is kept, and it is called anew with these settings over its own.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__("to be called anew")
        self.settings = settings


STAGES: dict[str, Stage] = {}


def stage(*, writes: pa.Schema, version: int, **settings: Any) -> Callable[..., Any]:
    """Registers a function as the stage of its name and leaves the function as it is."""

    def register(call: Callable[..., Any]) -> Callable[..., Any]:
        name = call.__name__
        STAGES[name] = Stage(name=name, call=call, writes=writes, version=version, **settings)
        return call

    return register


@dataclass(frozen=True, kw_only=True)
class Task:
    """One call of a stage, and the file that it writes."""

    stage: Stage
    part: str
    """What progress and errors call it: `cauldron/ai2d/00003`."""
    settings: dict[str, Any]
    """Arguments; a `File` among them is read by the worker."""
    out: str
    after: tuple[str, ...] = ()
    """Files of other tasks that must be there first."""
    needs: Needs | None = None
    """Where other than its stage's."""


@dataclass(frozen=True)
class File:
    """A table to be read where the task runs."""

    path: str


def run_task(task: Task) -> Report:
    """The task's file is there, whole; called where the work is done."""
    started = time.monotonic()
    timings.reset_peak()
    spec = task.stage
    try:
        read = {
            k: tables.read(v.path) if isinstance(v, File) else v for k, v in task.settings.items()
        }
        rows = written(spec, read, task.out)
    except Exception as error:
        error.add_note(f"stage {spec.name}, part {task.part}")
        raise
    return Report(
        stage=spec.name,
        part=task.part,
        rows=rows,
        bytes=tables.size(task.out),
        seconds=time.monotonic() - started,
        peak_bytes=timings.peak_bytes(),
    )


def written(spec: Stage, settings: dict[str, Any], out: str) -> int:
    """The file `out` holds what the stage makes of the settings; returns its rows."""
    made = spec.call(**settings)
    pieces = (
        tables.conform(piece, spec.writes, writer=f"stage {spec.name}")
        for piece in ([made] if isinstance(made, pa.Table) else made)
    )
    try:
        return tables.write_pieces(pieces, spec.writes, out, rows_per_batch=spec.rows_per_batch)
    except AgainError as again:
        return written(spec, {**settings, **again.settings}, out)
