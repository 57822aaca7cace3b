"""Who answers: an endpoint over HTTP, or a model that is run here.

| kind         | who                                                          | where              |
|--------------|--------------------------------------------------------------|--------------------|
| endpoint     | whatever speaks the chat API behind a URL                    | endpoint.py        |
| vllm         | vLLM in this process, or one on each GPU of a Ray cluster    | by_vllm.py         |
| transformers | a model that `transformers` loads, one request after another | by_transformers.py |

All take the same requests and give the same replies, so that answers are kept, counted and paid for
alike; which of them it was is no part of an answer's identity.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.served.endpoint import Endpoint, NotTaken, Pace, Reply, Unanswered, ask

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
