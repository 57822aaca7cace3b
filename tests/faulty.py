"""Stages that fail for real where they run, a given number of times in all; then they work."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.media import decoders
from pipelines.stages import STAGES


def claimed(folder: str, times: int) -> int | None:
    """The number of this failure among `times`, or None where all have happened."""
    for number in range(times):
        try:
            os.close(os.open(f"{folder}/failure-{number}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        return number
    return None


def dying(call: Callable, folder: str, times: int, seed: int, /, **settings: Any) -> Any:
    """The worker is killed at a random moment: while the stage computes, while its file is
    written, or when the next task has begun.
    """
    number = claimed(folder, times)
    if number is not None:
        delay = random.Random(f"{seed} {number}").random() * 0.05
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return call(**settings)


def hungry(call: Callable, folder: str, times: int, num_bytes: int, /, **settings: Any) -> Any:
    """The worker takes `num_bytes` of memory and holds them until it is killed."""
    if claimed(folder, times) is not None:
        held = bytearray(b"\1") * num_bytes
        time.sleep(60)
        raise AssertionError(f"{len(held)} bytes were taken, and nobody minded")
    return call(**settings)


def with_a_hanging_decoder(call: Callable, folder: str, times: int, /, **settings: Any) -> Any:
    """The decoding child sleeps for ever over the video whose bytes the folder names, and videos
    have ten seconds.
    """
    true = decoders.CODE
    code = f"from tests import faulty; faulty.serve_and_hang({folder!r})"
    decoders.decode_video.__kwdefaults__["limit"] = 10.0
    decoders.stop_child()
    decoders.CODE = true.split("from ")[0] + code
    try:
        table = call(**settings)
        return table if hasattr(table, "schema") else iter(list(table))
    finally:
        decoders.CODE = true
        decoders.decode_video.__kwdefaults__["limit"] = decoders.SECONDS_LIMIT
        decoders.stop_child()


def serve_and_hang(folder: str) -> None:
    """The decoding child's loop, but that one video never ends."""
    decode, marked = decoders.video.decode, (Path(folder) / "hangs").read_bytes()

    def hanging(stream: Any, **settings: Any) -> Any:
        if stream.read() == marked:
            time.sleep(3600)
        return decode(stream, **settings)

    decoders.video.decode = hanging
    decoders.serve_requests()


def inject(patch: Any, fault: Callable, *settings: Any, stages: list[str]) -> None:
    """The stages have the fault; their identity is as before."""
    for name in stages:
        spec = STAGES[name]
        patch.setitem(STAGES, name, replace(spec, call=partial(fault, spec.call, *settings)))
