"""How far a run is: a bar per stage on a terminal and in notebooks, plain lines elsewhere."""

import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tqdm.auto import tqdm

from pipelines.engine.timings import Report
from tokenization.terminal import printable, say, tells

SLOW = 5
"""A task is a straggler past so many medians of its stage, and past SLOW_SECONDS."""
SLOW_SECONDS = 60.0


@dataclass
class Progress:
    """What is said while tasks run; `interval` in seconds between two lines of a stage."""

    totals: Counter[str]
    """Tasks to run, per stage."""
    interval: float = 10.0
    bars: dict[str, Any] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)
    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Of the finished tasks, per stage."""
    started: dict[str, float] = field(default_factory=dict)
    said: dict[str, float] = field(default_factory=dict)
    slow: set[tuple[str, str]] = field(default_factory=set)

    def start(self, name: str) -> None:
        """The stage's clock runs, and on a terminal its bar is there."""
        if name not in self.started:
            self.started[name] = self.said[name] = time.monotonic()
            if tells("pipelines") and (sys.stderr.isatty() or "ipykernel" in sys.modules):
                total = self.totals[name]
                place = len(self.bars)
                self.bars[name] = tqdm(total=total, desc=f"{name:>7}", unit="part", position=place)

    def advance(self, report: Report) -> None:
        """Counts a finished task."""
        name = report.stage
        self.rows[name] += report.rows
        self.seconds[name].append(report.seconds)
        done, total = len(self.seconds[name]), self.totals[name]
        now = time.monotonic()
        rate = self.rows[name] / max(now - self.started[name], 1e-9)
        said = f"{self.rows[name]:,} rows, {rate:,.0f} rows/s"
        if name in self.bars:
            self.bars[name].set_postfix_str(said, refresh=False)
            self.bars[name].update()
        elif done == total or now - self.said[name] >= self.interval:
            self.said[name] = now
            seconds = now - self.started[name]
            left = seconds / done * (total - done)
            parts = f"{done:,} of {total:,} parts"
            eta = f", {left:,.0f} s left" if left >= 1 else f", {seconds:,.1f} s"
            self.say(f"{name:>7}  {parts}, {said}{eta}")

    def watch(self, running: Iterable[tuple[str, str, float]]) -> None:
        """Names each straggler once: of (stage, part, since when) what takes far longer than the
        finished tasks of its stage did. The time in Ray's queue counts, about one task's.
        """
        now = time.monotonic()
        for name, part, since in running:
            usual = statistics.median(self.seconds[name]) if self.seconds[name] else None
            long = usual is not None and now - since > max(SLOW_SECONDS, SLOW * usual)
            if long and (name, part) not in self.slow:
                self.slow.add((name, part))
                self.say(
                    f"{name:>7}  {part} has taken {now - since:,.0f} s so far; "
                    f"half of the parts took at most {usual:,.1f} s"
                )

    def say(self, line: str) -> None:
        """The line stands on stderr, above the bars where there are some."""
        if self.bars:
            tqdm.write(printable(line), file=sys.stderr)
        elif tells("pipelines"):
            say(line, error=True)

    def close(self) -> None:
        """The bars stay on the screen as they are."""
        for bar in self.bars.values():
            bar.close()
