"""What a build took: seconds, rows, bytes and peak memory of every task, and the cost of its rules.

Measured, not determined: it stands in `stats.json` under `timings`, the one key there that two
builds of the same recipe do not share.
"""

import os
import re
import resource
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PEAK = re.compile(r"VmHWM:\s+(\d+) kB")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a task took; nothing in it enters an output."""

    stage: str
    part: str
    rows: int
    bytes: int
    """Written."""
    seconds: float
    peak_bytes: int
    """Peak resident memory while it ran, of the worker and the decoders that it keeps."""
    node: str = ""
    """Ray's id of the node that did it; empty: this process."""


def _processes() -> list[Path]:
    """`/proc/PID` of this process and of those it started; empty where there is no `/proc`."""
    found = [str(os.getpid())]
    for thread in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # the thread ended just now
            found += thread.read_text().split()
    return [p for pid in found if (p := Path(f"/proc/{pid}")).is_dir()]


def reset_peak() -> None:
    """`peak_bytes` counts from here; where the kernel refuses that, from the process's start.

    https://docs.kernel.org/filesystems/proc.html (clear_refs: 5 resets the peak)
    """
    for process in _processes():
        with suppress(OSError):
            (process / "clear_refs").write_text("5")


def peak_bytes() -> int:
    """Peak resident memory of this process and of those it started that still run."""
    found = 0
    for process in _processes():
        with suppress(OSError):  # a child ended just now
            peak = PEAK.search((process / "status").read_text())
            found += int(peak[1]) * 1024 if peak else 0
    unit = 1 if sys.platform == "darwin" else 1024
    return found or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def timings(
    reports: Sequence[Report], *, seconds: float, rules: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """`timings` of stats.json: of the run that finished the mixture, JSON-able.

    `seconds` is its wall time up to the card; `stages` sums over `tasks`, which are what this run
    did itself: files found in `work` are not among them. `rules` is component -> rule -> CPU
    seconds that the rule adds to judging one of its samples.
    """
    stages: defaultdict[str, list[Report]] = defaultdict(list)
    for report in reports:
        stages[report.stage].append(report)
    return {
        "seconds": round(seconds, 3),
        "stages": {
            name: {
                "parts": len(done),
                "rows": sum(each.rows for each in done),
                "bytes": sum(each.bytes for each in done),
                "seconds": round(sum(each.seconds for each in done), 3),
                "peak_bytes": max(each.peak_bytes for each in done),
            }
            for name, done in stages.items()
        },
        "rules": {component: dict(costs) for component, costs in rules.items()},
        "tasks": [asdict(report) for report in reports],
    }
