"""The same run on a Ray cluster: Ray Train starts the processes, `train` is what each of them does.

```
python -m trainer config=smolvlm_2b2 data=/shared/sft output=/shared/run ray=auto ranks=16
```

The nodes need one file system, where the data are and the run is written: every process works in
the folder the command was given in. A process that dies ends the run, or, with `failures=3`, up to
three times all start again from the newest checkpoint.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenization.terminal import log
from trainer.config import Config


def cluster_settings(pairs: dict[str, str]) -> dict[str, Any]:
    """What `launch` is to be given; `ray=`, `ranks=` and `failures=` are taken out of the pairs."""
    found = {key: pairs.pop(key) for key in ("ray", "ranks", "failures") if key in pairs}
    if not found:
        return {}
    for key in ("ranks", "failures"):
        if not found.setdefault(key, "0").isdigit():
            raise ValueError(f"{key}={found[key]}: expected a whole number.")
    if not found.get("ray"):
        raise ValueError(
            "ranks= and failures= need ray=auto (the running cluster), ray=local (this machine) or "
            "ray=ADDRESS.\nway out: without Ray: torchrun --nproc-per-node=N -m trainer "
            "config=... data=..."
        )
    if found["ranks"] == "0":
        raise ValueError(f"ray={found['ray']}: set ranks=N, the number of processes (GPUs).")
    return {
        "address": found["ray"], "ranks": int(found["ranks"]), "failures": int(found["failures"])
    }  # fmt: skip


def launch(config: Config, *, address: str, ranks: int, failures: int) -> Path:
    """The last checkpoint of the run, trained by `ranks` processes of a Ray cluster."""
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # else every line comes twice
    ray = _connected(address, cpus=ranks)
    gpus = ray.cluster_resources().get("GPU", 0) > 0
    use_gpu = config.device == "cuda" or (config.device == "auto" and gpus)
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    try:
        _say_shortage(ray, address, {"ranks": ranks}, "GPU" if use_gpu else "CPU")
        work: Any = _work
        trainer = TorchTrainer(
            work,
            train_loop_config={"config": config, "folder": os.getcwd()},  # noqa: PTH109
            scaling_config=ScalingConfig(num_workers=ranks, use_gpu=use_gpu),
            run_config=RunConfig(
                storage_path=str(Path(config.output or "out/runs").absolute() / "ray"),
                failure_config=FailureConfig(max_failures=failures),
            ),
        )
        return Path(str(_result(trainer)))
    finally:
        ray.shutdown()


def run_tasks(
    function: Callable[[Any], None], given: Sequence[Any], *, address: str, gpus: float
) -> Iterator[tuple[int, Exception | None]]:
    """`function` of each as a task with so many GPUs: its number and what it raised, as they end.

    Plain tasks, not Ray Tune: what a trial needs of Tune (schedulers, checkpoints of its own) the
    runs' own folders give. A task whose node dies is said to have failed, and tried again by the
    next start.
    """
    ray = _connected(address, cpus=os.cpu_count() or 1)
    try:
        _say_shortage(ray, address, {"gpus": gpus}, "GPU")
        task = ray.remote(_at_home).options(num_gpus=gpus, num_cpus=1, max_retries=0)
        folder = os.getcwd()  # noqa: PTH109
        waiting = {task.remote(function, each, folder): n for n, each in enumerate(given)}
        while waiting:
            (done, *_), _ = ray.wait(list(waiting), num_returns=1)
            number = waiting.pop(done)
            try:
                ray.get(done)
            except ray.exceptions.RayTaskError as error:
                yield number, _cause(error)
            except ray.exceptions.RayError as error:
                yield number, error
            else:
                yield number, None
    finally:
        ray.shutdown()


def _say_shortage(ray: Any, address: str, asked: dict[str, float], kind: str) -> None:
    """Ray waits in silence for what is not there: it is said (a node may still join), or refused
    where none can.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    told = shortage(nodes, asked, kind)
    if told and address == "local":
        raise ValueError(f"{told}, and to ray=local no other node comes.")
    if told:
        log(f"{told}: waiting until nodes with more join (Ctrl-C ends it).")


def shortage(nodes: Sequence[Mapping[str, float]], asked: dict[str, float], kind: str) -> str:
    """What these nodes lack for `gpus` of one task, or one of `kind` for each of `ranks`; empty:
    nothing.
    """
    held = [node.get(kind, 0.0) for node in nodes]
    ((key, number),) = asked.items()
    if key == "gpus":
        most = max(held, default=0.0)
        return f"gpus={number:g}: no node has more than {most:g} GPUs" if number > most else ""
    total = sum(int(each) for each in held)
    return f"{key}={number:g}: the cluster has {total} {kind}s" if number > total else ""


def _cause(error: Any) -> Exception:
    """What the task raised, where it could be sent."""
    return error.cause if isinstance(error.cause, Exception) else error


def _at_home(function: Callable[[Any], None], each: Any, folder: str) -> None:
    _enter(folder)
    function(each)


def _connected(address: str, *, cpus: int) -> Any:
    """Ray, joined with the cluster at this address or begun here; ValueError where it is not."""
    try:
        import ray
        import ray.train
    except ImportError as error:
        raise ValueError("ray= needs Ray Train: pip install 'ray[train]'.") from error
    quiet: dict[str, Any] = {"logging_level": "ERROR"}
    if address == "local":
        ray.init(address="local", num_cpus=cpus, **quiet)  # Ray Train asks its dashboard
        return ray
    # A submitted job brings its code by its own runtime environment (or the image).
    code = {} if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else {"py_modules": _packages()}
    try:
        ray.init(address=address, runtime_env=code, **quiet)
    except ConnectionError as error:
        raise ValueError(
            f"ray={address}: no Ray cluster answers there. Start one (ray start --head), or "
            "use ray=local."
        ) from error
    return ray


def _result(trainer: Any) -> str:
    """What rank 0 returned; a user's mistake is raised as if it had happened here."""
    from ray.train import WorkerGroupError

    try:
        return str(trainer.fit().return_value)
    except WorkerGroupError as error:
        for failure in error.worker_failures.values():
            cause = getattr(failure, "_base_exc", failure)
            if isinstance(cause, (ValueError, FileNotFoundError)):
                raise type(cause)(str(cause)) from error
        raise


def _packages() -> list[str]:
    root = Path(__file__).parent.parent
    return [str(root / name) for name in ("trainer", "tokenization")]


def _work(given: dict[str, Any]) -> str:
    """One process; Ray has set its rank and joined it with the others."""
    _enter(given["folder"])
    from trainer.loop import train  # PyTorch comes in where it runs

    return str(train(given["config"]).absolute())


def _enter(folder: str) -> None:
    """This process works in the folder that the command was given in."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(
            f"{folder} is not on the node {os.uname().nodename}: start the run from a folder that "
            "all nodes of the cluster share."
        )
    os.chdir(folder)
