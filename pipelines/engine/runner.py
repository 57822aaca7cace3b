"""Runs tasks, in this process or on Ray: the only file that knows Ray.

`run` does all that tasks (tasks.py) do not do themselves, once: order, a bounded window of
submissions, resources, progress. A task whose file is there is not run. A worker that dies is
replaced and its task tried again by Ray; an exception ends the run after the tasks that are running
have finished, so that their work is kept.
"""

import heapq
import logging
import math
import os
import secrets
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from pipelines.engine import tables, versions
from pipelines.engine.progress import Progress
from pipelines.engine.tasks import Needs, Task, run_task
from pipelines.engine.timings import Report
from tokenization.terminal import log

RETRIES = 3
"""Times that a task is tried again whose worker or node died."""
OOM_RETRIES = 8
"""Times that a task is tried again which Ray ended because its node ran out of memory; Ray waits
1, 2, 4 ... s between them, four minutes in all."""
LOOK_SECONDS = 10.0
"""s between looks at a cluster's size and at tasks that take long."""
BEFORE_TASKS: dict[str, Callable[[], None]] = {}
"""What every worker calls before a task: picklable, and quick where it was called before."""


def _node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


@contextmanager
def ray_connection(address: str, *, workers: int | None) -> Iterator[int]:
    """Ray is up; yields its number of CPUs, or 0 where `workers=0` asks for this process alone.

    `local` starts Ray on this machine with `workers` CPUs, `auto` joins the running cluster,
    anything else is a cluster's address. A cluster gets this program's packages with each job.
    """
    if workers == 0:
        yield 0
        return
    # Ray asks to choose: GPUs stay visible to tasks that ask for none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # By default a part that never fits is tried for ever.
    os.environ.setdefault("RAY_task_oom_retries", str(OOM_RETRIES))
    if address == "local" and "ray" not in sys.modules:  # Ray reads it as it is imported
        # Another user of this machine, who knows no token, can run nothing as this one.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        if os.environ["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN_PATH" not in os.environ:
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    which = f"{workers or os.cpu_count()} CPUs" if address == "local" else address
    log(f"Ray comes up ({which}); workers=0 builds without it.")
    import ray

    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": True}
    if ray.is_initialized():
        yield _cpus()
        return
    if address == "local":
        _start_here(workers or os.cpu_count(), **quiet)
    else:
        _join(address, **quiet)
    try:
        yield workers or _cpus()
    finally:
        ray.shutdown()


@contextmanager
def replicas(
    make: Callable[[], Callable[[Any], Any]], *, address: str, num_gpus: float
) -> Iterator[list[Callable[[Any], Any]]]:
    """Callables, each of which runs what `make` made in a worker of its own on Ray: one for every
    `num_gpus` GPUs of the cluster, and one where it has none or none is asked for.

    Raises:
        ValueError: there is no such cluster, or it has not so many GPUs.
    """
    with ray_connection(address, workers=None):
        import ray

        class Worker:
            """Holds what was made."""

            def __init__(self) -> None:
                self.call = make()

            def run(self, given: Any) -> Any:
                """What it makes of that."""
                return self.call(given)

        gpus = float(ray.available_resources().get("GPU", 0))
        if gpus < num_gpus or num_gpus < 0:
            raise ValueError(
                f"ray={address}: the cluster has {gpus:g} free GPUs, and gpus={num_gpus:g} are "
                "asked for by each worker.\nexpected: 0 or more, and as many that are free\n"
                "way out: wait for them, join a cluster that has some, or say gpus=0"
            )
        count = int(gpus // num_gpus) if num_gpus else 1
        remote = ray.remote(num_cpus=1, num_gpus=num_gpus)(Worker)
        actors = [remote.remote() for _ in range(count)]
        log(f"{count} workers load the model.")

        def on(actor: Any) -> Callable[[Any], Any]:
            return lambda given: ray.get(actor.run.remote(given))

        yield [on(actor) for actor in actors]


def _start_here(cpus: int | None, **quiet: Any) -> None:
    """Ray of this machine alone; ValueError where it does not come up."""
    import ray

    try:
        # Tables travel as files; the object store holds only small tables of picks.
        ray.init(
            address="local",
            num_cpus=cpus,
            object_store_memory=512 << 20,
            include_dashboard=False,
            **quiet,
        )
    except Exception as error:
        if "AF_UNIX" in str(error):
            place = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
            raise ValueError(
                f"TMPDIR={place}: too long for Ray, whose sockets lie in it (a socket's path "
                "has at most 107 bytes).\nway out: set RAY_TMPDIR to a short folder on "
                "this machine's own disk, as in RAY_TMPDIR=/tmp, or say workers=0."
            ) from error
        # Of processes that are late or end early Ray raises no class but Exception itself.
        late = isinstance(error, RuntimeError | ConnectionError | TimeoutError)
        if not late and type(error) is not Exception:
            raise
        raise ValueError(
            f"Ray did not come up on this machine ({str(error).splitlines()[0]}).\nway out: "
            "where it is busy, the same command may do it later; workers=0 builds in this "
            "process, without Ray."
        ) from error


def _join(address: str, **quiet: Any) -> None:
    """This process is a client of the running cluster; ValueError where there is none."""
    import ray

    # A submitted job brings its code by its own runtime environment (or the image).
    code = {} if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else {"py_modules": _packages()}
    try:
        require_listening(address)
        ray.init(address=address, runtime_env=code, **quiet)
    except (ConnectionError, TimeoutError) as error:
        raise ValueError(
            f"ray={address}: no cluster answers there ({error}). Start one with `ray start "
            "--head`, or leave ray= out to use this machine alone."
        ) from error
    except RuntimeError as error:  # Ray compares its own version and Python's
        if "ersion mismatch" not in str(error):
            raise
        raise ValueError(f"ray={address}: {error}") from error


def require_listening(address: str) -> None:
    """Raises ConnectionError or TimeoutError where nothing listens at `HOST:PORT`: Ray itself
    keeps trying for minutes.
    """
    host, _, port = address.rpartition(":")
    if port.isdigit() and "/" not in host:
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except socket.gaierror as error:
            raise ConnectionError(f"{host}: {error.strerror}") from error


def _cpus() -> int:
    import ray

    return int(ray.cluster_resources().get("CPU", 1))


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
    present = tables.existing([task.out for task in tasks])
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
        took = f"{report.rows:,} rows, {report.seconds:.2f} s"
        log(f"{report.stage} {report.part}: {took}", level=logging.DEBUG)
        for follower in followers.get(tasks[i].out, ()):
            waiting[follower].discard(tasks[i].out)
            if not waiting[follower]:
                heapq.heappush(ready, follower)

    try:
        if slots == 0:
            while ready:
                i = heapq.heappop(ready)
                progress.start(tasks[i].stage.name)
                finish(i, run_task(tasks[i]))
        else:
            _run_on_ray(tasks, ready, finish, progress, slots=slots)
    finally:
        progress.close()
    return [reports[i] for i in sorted(reports)]


def _run_on_ray(
    tasks: Sequence[Task],
    ready: list[int],
    finish: Callable[[int, Report], None],
    progress: Progress,
    *,
    slots: int,
) -> None:
    import ray

    here, shown = versions.packages(), task_labels(tasks)
    before = ray.put(tuple(BEFORE_TASKS.values()))
    remote: dict[tuple[str, Needs], Any] = {}
    running: dict[Any, tuple[int, float]] = {}  # -> task, since when
    failure: Exception | None = None
    asked_for_less = slots < _cpus()
    window, looked = 0, -math.inf
    while running or (ready and failure is None):
        if time.monotonic() - looked > LOOK_SECONDS:
            # Two a CPU: none is idle, an autoscaler sees what waits, and no more is in flight.
            window, looked = slots if asked_for_less else 2 * _cpus(), time.monotonic()
            waited = [(tasks[i].stage.name, tasks[i].part, t) for i, t in running.values()]
            progress.watch(waited)
        while ready and failure is None and len(running) < window:
            i = heapq.heappop(ready)
            task = tasks[i]
            name, needs = task.stage.name, task.needs or task.stage.needs
            if (name, needs) not in remote:
                remote[name, needs] = ray.remote(**_options(name, needs))(_perform_for)
            progress.start(name)
            submit = remote[name, needs].options(name=shown[i])
            running[submit.remote(task, here, before)] = i, time.monotonic()
        done, _ = ray.wait(list(running), num_returns=1, timeout=LOOK_SECONDS)
        if done:  # and whatever else is: a wait on 1,024 takes 4 ms, on a cluster too long for each
            done, _ = ray.wait(list(running), num_returns=len(running), timeout=0)
        for ref in done:
            i, _ = running.pop(ref)
            try:
                report = ray.get(ref)
            except ray.exceptions.RayTaskError as error:
                failure = failure or _cause(error, tasks[i])
            except ray.exceptions.RayError as error:
                error.add_note(f"stage {tasks[i].stage.name}, part {tasks[i].part}")
                failure = failure or error
            else:
                finish(i, report)
    if failure is not None:
        raise failure


def task_labels(tasks: Sequence[Task]) -> list[str]:
    """What Ray's dashboard calls each task: `ingest cauldron/ai2d 3/40` is part 00003 of forty."""
    places = [(task.stage.name, *task.part.rpartition("/")[::2]) for task in tasks]
    totals = Counter((stage, subset) for stage, subset, _ in places)
    return [
        f"{stage} {subset} {int(number)}/{totals[stage, subset]}"
        if subset and number.isdigit()
        else f"{stage} {task.part}"
        for task, (stage, subset, number) in zip(tasks, places, strict=True)
    ]


def _perform_for(
    task: Task, drivers: dict[str, str], before: Sequence[Callable[[], None]]
) -> Report:
    versions.check(drivers)
    for call in before:
        call()
    return replace(run_task(task), node=_node())


def _options(name: str, needs: Needs) -> dict[str, Any]:
    """Ray's options for tasks of these needs; raises ValueError where no node has the GPUs."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = max(node.get("GPU", 0) for node in nodes)
    if needs.num_gpus > gpus:
        raise ValueError(
            f"stage {name} asks for {needs.num_gpus:g} GPUs (a rule's num_gpus), but the largest "
            f"node has {gpus:g}.\nway out: start the node with the GPU first, or leave num_gpus "
            "out."
        )
    options: dict[str, Any] = {
        "num_cpus": needs.num_cpus,
        "num_gpus": needs.num_gpus,
        "memory": min(needs.memory, max(int(node.get("memory", 0)) for node in nodes)),
        "max_retries": RETRIES,
    }
    return {**options, "max_calls": needs.max_calls} if needs.max_calls else options


def _cause(error: Any, task: Task) -> Exception:
    # `cause` is the stage's own exception where it could be pickled; its notes survive.
    cause = getattr(error, "cause", None)
    if not isinstance(cause, Exception):
        cause = error
    if isinstance(cause, versions.OtherVersionsError):
        return cause
    note = f"stage {task.stage.name}, part {task.part}"
    if note not in getattr(cause, "__notes__", ()):
        cause.add_note(note)
    return cause
