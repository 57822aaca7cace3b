"""Who answers: an endpoint over HTTP, or a model that is run here.

| kind         | who                                                          | where              |
|--------------|--------------------------------------------------------------|--------------------|
| endpoint     | whatever speaks the chat API behind a URL                    | endpoint.py        |
| vllm         | vLLM in this process, or one on each GPU of a Ray cluster    | by_vllm.py         |
| transformers | a model that `transformers` loads, one request after another | by_transformers.py |

All take the same requests and give the same replies, so that answers are kept, counted and paid for
alike; which of them it was is no part of an answer's identity.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.served import by_transformers, by_vllm
from pipelines.served.batches import Answering, batches
from pipelines.served.endpoint import Endpoint, NotTaken, Pace, Reply, Unanswered, ask

LOCAL = ("transformers", "vllm")
"""Kinds that run the model themselves."""
DETERMINE = (".json", ".jinja", ".model", ".txt")
"""Files of a model that are hashed whole; of weights, their headers and sizes."""
WEIGHTS = (".safetensors", ".bin")
HEADER = 1 << 20
"""Bytes of a file of weights that are hashed, and as many of its end."""

Permitted = Callable[[], bool]
"""Asked before each request is sent."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Who answers."""

    kind: str
    model: str
    """Its name, part of the identity of answers."""
    where: str
    """For messages."""
    ask: Callable[[Mapping[str, Any], Permitted], tuple[Reply | NotTaken | Unanswered, int]]
    """A request -> (what became of it, how often it was sent); called by many threads."""
    stop: Callable[[], None]
    """What waits to be sent is not."""


def of_endpoint(endpoint: Endpoint) -> Engine:
    """The server behind an address."""
    pace = Pace(per_minute=endpoint.per_minute)
    return Engine(
        kind="endpoint",
        model=endpoint.model,
        where=endpoint.url,
        ask=lambda body, permitted: ask(endpoint, body, pace=pace, permitted=permitted),
        stop=pace.stopped.set,
    )


@contextmanager
def of_model(
    model: str, *, kind: str, batch: int, max_images: int, ray: str = "", gpus: float = 1
) -> Iterator[Engine]:
    """A model that is run in this process, or with `ray` (local, auto, an address) in a worker on
    each `gpus` GPUs of a cluster.

    Raises:
        ValueError: it cannot be loaded, or what loads it is not installed.
    """
    if kind == "vllm":
        by_vllm.require_vllm()
    load: Callable[[], Answering] = (
        partial(by_vllm.loaded, model, max_images=max_images)
        if kind == "vllm"
        else partial(by_transformers.loaded, model)
    )
    with (
        workers_of(load, ray=ray, gpus=gpus) as workers,
        batches(workers, most=-(-batch // len(workers))) as made,
    ):
        asking, stop = made
        yield Engine(kind=kind, model=model_name(model), where=model, ask=asking, stop=stop)


@contextmanager
def workers_of(
    load: Callable[[], Answering], *, ray: str, gpus: float
) -> Iterator[list[Answering]]:
    """Who answers: one here, or those of a cluster."""
    if not ray:
        yield [load()]
        return
    from pipelines.engine.runner import replicas

    with replicas(load, address=ray, num_gpus=gpus) as made:
        yield made


def model_name(model: str) -> str:
    """What stands for a model in the identity of its answers: its hub id; of a folder its name and
    what is in it, wherever it lies.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return model
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix not in (*DETERMINE, *WEIGHTS):
            continue
        digest.update(f"{path.name} {path.stat().st_size}".encode())
        with path.open("rb") as file:
            if path.suffix in DETERMINE:
                digest.update(file.read())
            else:
                digest.update(file.read(HEADER))
                file.seek(max(0, path.stat().st_size - HEADER))
                digest.update(file.read())
    return f"{folder.resolve().name}@{digest.hexdigest()[:12]}"
