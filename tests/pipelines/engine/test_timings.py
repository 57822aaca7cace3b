"""Peaks and seconds are of the task that they are told of."""

import subprocess
import sys
import threading
import time

import pytest

from pipelines.engine.timings import Report, peak_bytes, reset_peak, timings

MB = 1 << 20


def report(stage: str, part: str, **numbers: float) -> Report:
    known = {"rows": 1, "bytes": 10, "seconds": 0.5, "peak_bytes": 100}
    return Report(stage=stage, part=part, **{**known, **numbers})


def test_a_peak_is_of_the_task_and_not_of_those_before_it():
    before = bytearray(200 * MB)
    del before
    reset_peak()
    start = peak_bytes()
    now = bytearray(60 * MB)
    del now
    assert start + 50 * MB < peak_bytes() < start + 150 * MB


def test_a_decoder_that_is_kept_counts():
    reset_peak()
    alone = peak_bytes()
    code = "held = bytearray(100 << 20); print(len(held), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        assert peak_bytes() > alone + 90 * MB
        child.communicate(b"\n")


def test_threads_that_end_meanwhile_do_no_harm():
    def breed() -> None:
        while not done.is_set():
            for _ in range(20):
                threading.Thread(target=time.sleep, args=(0.001,)).start()
            time.sleep(0.001)

    done = threading.Event()
    breeder = threading.Thread(target=breed)
    breeder.start()
    try:
        assert all(peak_bytes() > 0 for _ in range(500))
    finally:
        done.set()
        breeder.join()


def test_stages_sum_over_their_tasks():
    reports = [report("ingest", "a", rows=3, peak_bytes=7), report("ingest", "b"), report("x", "a")]
    found = timings(reports, seconds=9.87654, rules={"text": {"empty": 1e-6}})
    assert found["stages"]["ingest"] == {
        "parts": 2, "rows": 4, "bytes": 20, "seconds": 1.0, "peak_bytes": 100,
    }  # fmt: skip
    assert [task["part"] for task in found["tasks"]] == ["a", "b", "a"]
    assert found["seconds"] == pytest.approx(9.877)
    assert found["rules"] == {"text": {"empty": 1e-6}}
