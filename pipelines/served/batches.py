"""Requests of many threads, answered some at a time by whoever is free.

    thread --request--> queue --up to `most` that wait--> worker --> replies, each to its thread

A worker is a function of a list of requests: a model in this process, or one on a GPU of a cluster.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from pipelines.served.endpoint import NotTaken, Reply, Unanswered

Request = Mapping[str, Any]
Answering = Callable[[list[Request]], Sequence[Reply | NotTaken]]
"""As many replies as requests, in their order."""
Asking = Callable[[Request, Callable[[], bool]], tuple[Reply | NotTaken | Unanswered, int]]


@contextmanager
def batches(
    workers: Sequence[Answering], *, most: int
) -> Iterator[tuple[Asking, Callable[[], None]]]:
    """(asks one request and waits, stops what waits): at most `most` requests go to a worker at a
    time. An exception of a worker is that of all requests it had.
    """
    waiting: queue.SimpleQueue[tuple[Request, Future[Reply | NotTaken]] | None]
    waiting = queue.SimpleQueue()
    stopped = threading.Event()

    def ask(
        request: Request, permitted: Callable[[], bool]
    ) -> tuple[Reply | NotTaken | Unanswered, int]:
        if stopped.is_set() or not permitted():
            return Unanswered(why="stopped"), 0
        future: Future[Reply | NotTaken] = Future()
        waiting.put((request, future))
        return future.result(), 1

    def serve(worker: Answering) -> None:
        while (first := waiting.get()) is not None:
            some = [first, *taken(waiting, most - 1)]
            try:
                replies = worker([request for request, _ in some])
                for (_, future), reply in zip(some, replies, strict=True):
                    future.set_result(reply)
            except Exception as error:  # told to whoever asked
                for _, future in some:
                    if not future.done():
                        future.set_exception(error)

    threads = [threading.Thread(target=serve, args=(worker,), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        yield ask, stopped.set
    finally:
        for _ in threads:
            waiting.put(None)
        for thread in threads:
            thread.join()


def taken(
    waiting: "queue.SimpleQueue[tuple[Request, Future[Reply | NotTaken]] | None]", most: int
) -> Iterator[tuple[Request, "Future[Reply | NotTaken]"]]:
    """What waits now, at most so many; a mark of the end stays in the queue."""
    for _ in range(most):
        try:
            found = waiting.get_nowait()
        except queue.Empty:
            return
        if found is None:
            waiting.put(None)
            return
        yield found
