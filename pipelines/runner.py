"""Runs tasks, in this process or on Ray: the only file that knows Ray.

A *stage* is a pure function that returns a table (or its pieces, one by one); a *task* is one call
of it with the file to write. `run` does everything else, once: order, a bounded window of
submissions, resources, atomic writes, schema checks, progress, errors that say stage and part. A
task whose file is there is not run. A worker that dies is replaced and its task tried again by Ray;
an exception ends the run after the tasks that are running have finished, so that their work is
kept.
"""

import heapq
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines import tables, timings
from pipelines.progress import Progress
from pipelines.timings import Report


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A pure function on tables, and what the runner must know of it."""

    name: str
    call: Callable[..., pa.Table | Iterator[pa.Table]]
    """Gives its table whole, or in pieces where it is too large to hold."""
    writes: pa.Schema
    version: int
    """Bumped when the output would change; enters fingerprints. Code is never hashed."""
    num_cpus: float = 1
    memory: int = 0
    """Bytes reserved on Ray per task; 0 reserves none."""
    max_calls: int = 0
    """A Ray worker is replaced after so many tasks (gives leaked memory back); 0 never."""
    rows_per_batch: int = tables.ROWS_PER_BATCH

    @property
    def identity(self) -> dict[str, Any]:
        """What of the stage determines its output: its version, and the columns it writes."""
        columns = {column.name: str(column.type) for column in self.writes}
        return {"version": self.version, "columns": columns}


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
    """What the progress bar, Ray's dashboard and errors call it: `cauldron/ai2d/00003`."""
    settings: dict[str, Any]
    """Arguments; a `File` among them is read by the worker."""
    out: str
    after: tuple[str, ...] = ()
    """Files of other tasks that must be there first."""


@dataclass(frozen=True)
class File:
    """A table to be read where the task runs."""

    path: str


def perform(task: Task) -> Report:
    """The task's file is there, whole; called where the work is done."""
    started = time.monotonic()
    timings.forget_peak()
    spec = task.stage
    try:
        read = {
            k: tables.read(v.path) if isinstance(v, File) else v for k, v in task.settings.items()
        }
        made = spec.call(**read)
        pieces = (
            tables.conform(piece, spec.writes, writer=f"stage {spec.name}")
            for piece in ([made] if isinstance(made, pa.Table) else made)
        )
        rows = tables.write_pieces(
            pieces, spec.writes, task.out, rows_per_batch=spec.rows_per_batch
        )
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
        node=_node(),
    )


def _node() -> str:
    ray = sys.modules.get("ray")  # importing it here would cost builds without Ray a second
    if ray is None or not ray.is_initialized():
        return ""
    return str(ray.get_runtime_context().get_node_id())


@contextmanager
def connected(address: str, *, workers: int | None) -> Iterator[int]:
    """Ray is up; yields its number of CPUs, or 0 where `workers=0` asks for this process alone.

    `local` starts Ray on this machine with `workers` CPUs, `auto` joins the running cluster,
    anything else is a cluster's address. A cluster gets this program's packages with each job.
    """
    if workers == 0:
        yield 0
        return
    os.environ.setdefault(
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
    )  # Ray asks to choose; GPUs untouched
    import ray

    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": True}
    if ray.is_initialized():
        yield int(ray.cluster_resources().get("CPU", 1))
        return
    if address == "local":
        # Tables travel as files; the object store holds only small tables of picks.
        ray.init(
            address="local",
            num_cpus=workers or os.cpu_count(),
            object_store_memory=512 << 20,
            include_dashboard=False,
            **quiet,
        )
    else:
        # A submitted job brings its code by its own runtime environment (or the image).
        code = {} if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else {"py_modules": _packages()}
        ray.init(address=address, runtime_env=code, **quiet)
    try:
        yield workers or int(ray.cluster_resources().get("CPU", 1))
    finally:
        ray.shutdown()


def _packages() -> list[Any]:
    import filters
    import mixtures
    import pipelines
    import tokenization

    return [mixtures, filters, tokenization, pipelines]


def run(tasks: Sequence[Task], *, slots: int) -> list[Report]:
    """Every task's file is there; returns reports of the tasks that had to run, in the order given.

    `slots` is the number of CPUs to fill, or 0 to run in this process. Tasks run in the order given
    as soon as the files they come `after` are there, so the stages of different parts overlap.

    Raises:
        Exception: the first that a stage raised, with a note of stage and part, once the tasks that
            were running have ended. Finished files stay.
    """
    made = {task.out for task in tasks}
    present = {task.out for task in tasks if tables.exists(task.out)}
    waiting = {
        i: {p for p in t.after if p in made and p not in present} for i, t in enumerate(tasks)
    }
    todo = [i for i, t in enumerate(tasks) if t.out not in present]
    followers: dict[str, list[int]] = {}
    for i in todo:
        for path in waiting[i]:
            followers.setdefault(path, []).append(i)
    ready = [i for i in todo if not waiting[i]]
    heapq.heapify(ready)
    progress = Progress(totals=Counter(tasks[i].stage.name for i in todo))
    reports: dict[int, Report] = {}

    def finish(i: int, report: Report) -> None:
        reports[i] = report
        progress.advance(report)
        for follower in followers.get(tasks[i].out, ()):
            waiting[follower].discard(tasks[i].out)
            if not waiting[follower]:
                heapq.heappush(ready, follower)

    try:
        if slots == 0:
            while ready:
                i = heapq.heappop(ready)
                progress.start(tasks[i].stage.name)
                finish(i, perform(tasks[i]))
        else:
            _run_on_ray(tasks, ready, finish, progress, window=2 * slots)
    finally:
        progress.close()
    return [reports[i] for i in sorted(reports)]


def _run_on_ray(
    tasks: Sequence[Task],
    ready: list[int],
    finish: Callable[[int, Report], None],
    progress: Progress,
    *,
    window: int,
) -> None:
    import ray

    remote: dict[str, Any] = {}
    for spec in {t.stage.name: t.stage for t in tasks}.values():
        options: dict[str, Any] = {"num_cpus": spec.num_cpus, "max_retries": 3}
        if spec.memory:
            options["memory"] = spec.memory
        if spec.max_calls:
            options["max_calls"] = spec.max_calls
        remote[spec.name] = ray.remote(**options)(perform)
    running: dict[Any, int] = {}
    failure: Exception | None = None
    while running or (ready and failure is None):
        while ready and failure is None and len(running) < window:
            i = heapq.heappop(ready)
            task = tasks[i]
            progress.start(task.stage.name)
            submit = remote[task.stage.name].options(name=f"{task.stage.name} {task.part}")
            running[submit.remote(task)] = i
        done, _ = ray.wait(list(running), num_returns=1)
        i = running.pop(done[0])
        try:
            report = ray.get(done[0])
        except ray.exceptions.RayTaskError as error:
            failure = failure or _cause(error, tasks[i])
        except ray.exceptions.RayError as error:
            error.add_note(f"stage {tasks[i].stage.name}, part {tasks[i].part}")
            failure = failure or error
        else:
            finish(i, report)
    if failure is not None:
        raise failure


def _cause(error: Any, task: Task) -> Exception:
    # `cause` is the stage's own exception where it could be pickled; its notes survive.
    cause = getattr(error, "cause", None)
    if not isinstance(cause, Exception):
        cause = error
    note = f"stage {task.stage.name}, part {task.part}"
    if note not in getattr(cause, "__notes__", ()):
        cause.add_note(note)
    return cause
