"""Progress as lines, bars and in notebooks."""

import logging
import sys
from collections import Counter
from types import ModuleType

import pytest

from pipelines.engine.progress import Progress
from pipelines.engine.timings import Report
from pipelines.main_path import interleave_components
from tokenization.terminal import logging_at


def report(stage: str, part: str, seconds: float) -> Report:
    return Report(stage=stage, part=part, rows=10, bytes=1, seconds=seconds, peak_bytes=1)


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_lines_come_at_intervals_and_when_a_stage_ends(clock, capfd):
    progress = Progress(totals=Counter(ingest=4))
    progress.start("ingest")
    for at, part in ((5, "a"), (11, "b"), (15, "c"), (20, "d")):
        clock[0] = 1000.0 + at
        progress.advance(report("ingest", part, 5))
    assert capfd.readouterr().err.splitlines() == [
        " ingest  2 of 4 parts, 20 rows, 2 rows/s, 11 s left",
        " ingest  4 of 4 parts, 40 rows, 2 rows/s, 20.0 s",
    ]


def test_nothing_is_said_where_the_log_is_quiet(clock, capfd):
    with logging_at(logging.WARNING, apart=False):
        progress = Progress(totals=Counter(ingest=1))
        progress.start("ingest")
        progress.advance(report("ingest", "a", 5))
    assert capfd.readouterr() == ("", "")


def test_a_notebook_gets_bars(capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    progress = Progress(totals=Counter(ingest=2))
    progress.start("ingest")
    progress.advance(report("ingest", "a", 5))
    progress.close()
    assert "ingest:  50%" in capfd.readouterr().err


def test_a_straggler_is_named_once(clock, capfd):
    progress = Progress(totals=Counter(ingest=9), interval=1e9)
    progress.start("ingest")
    running = [("ingest", "ai2d/00003", 1000.0), ("ingest", "ai2d/00004", 1090.0)]
    clock[0] = 1101.0
    progress.watch(running)  # nothing to compare with yet
    for seconds in (18, 20, 1000):
        progress.advance(report("ingest", "x", seconds))
    clock[0] = 1099.0  # 5 times the median of 20 s is 100 s
    progress.watch(running)
    assert capfd.readouterr().err == ""
    for _ in range(2):
        clock[0] = 1101.0
        progress.watch(running)
    assert capfd.readouterr().err.splitlines() == [
        " ingest  ai2d/00003 has taken 101 s so far; half of the parts took at most 20.0 s"
    ]


class Named:
    """What `side_by_side` reads of a piece."""

    def __init__(self, component: str, number: int, num_bytes: int | None) -> None:
        self.component, self.number, self.part = component, number, self
        self.num_bytes = num_bytes


def test_components_run_side_by_side_and_end_together():
    few = [Named("video", n, 900) for n in range(2)]
    many = [Named("text", n, None) for n in range(6)]
    order = [(p.component[0], p.number) for p in interleave_components([*many, *few])]
    assert order == [
        ("v", 0), ("t", 0), ("t", 1), ("t", 2), ("v", 1), ("t", 3), ("t", 4), ("t", 5),
    ]  # fmt: skip
