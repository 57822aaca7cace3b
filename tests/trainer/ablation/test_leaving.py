"""SIGTERM ends a command of many runs with 143, and leaves the handler that was there."""

import os
import signal

import pytest

from tokenization.command_line import PREEMPTED, Answer
from trainer.ablation.leaving import answer_or_leave


def test_sigterm_ends_it_with_143_and_says_that_it_goes_on() -> None:
    before = signal.getsignal(signal.SIGTERM)
    reached = []

    def work() -> Answer:
        os.kill(os.getpid(), signal.SIGTERM)
        reached.append(signal.getsignal(signal.SIGTERM))  # a handler runs before the next line
        return Answer("went on")

    found = answer_or_leave(work)
    assert (found.status, reached) == (PREEMPTED, [])
    assert "same command goes on" in found.text
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_else_ends_it_is_not_hidden() -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert answer_or_leave(lambda: Answer("done", status=1)) == Answer("done", status=1)
    with pytest.raises(ZeroDivisionError):
        answer_or_leave(lambda: Answer(str(1 // 0)))
    assert signal.getsignal(signal.SIGTERM) is before
