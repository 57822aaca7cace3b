"""SIGTERM in a command of many runs: it ends as a training does, and the same command goes on."""

import signal
import threading
from collections.abc import Callable
from types import FrameType

from tokenization.command_line import PREEMPTED, Answer
from trainer.loop import Preempted


def answer_or_leave(work: Callable[[], Answer]) -> Answer:
    """What the work answers; exit status 143 where SIGTERM came before, wherever it was.

    A training saves itself first (`until_sigterm` is nearer then); all else is made whole or not
    at all, and made again.
    """
    here = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _leave) if here else None
    try:
        return work()
    except Preempted as stopped:
        return Answer(str(stopped), {"stopped": str(stopped)}, status=PREEMPTED)
    finally:
        if here:
            signal.signal(signal.SIGTERM, before)


def _leave(number: int, frame: FrameType | None) -> None:
    raise Preempted("SIGTERM: what was finished stays. The same command goes on from it.")
