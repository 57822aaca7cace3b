"""What a build takes on more workers: a model of stated seconds, not a run.

`python -m benchmarks.simulation sft_v2 smolvlm2_256m smolvlm2_2b2 [driver=10] [task=3.4]`: of the
mixture's plan (recorded sizes) with all read at the speeds of before, and with enough read at
those of today, in whole parts as `pipelines/reading/splitting.py` cuts them.

`python -m benchmarks.simulation 50000000 [driver=10] [task=3.4]`: of so many samples of
`benchmarks.scale`, with the seconds that a sample of 1 M took, all of them used.

`driver`: µs a sample that its own steps take (`benchmarks.driver`); `task`: ms that handing one out
takes (`benchmarks.scale`). Decoding, which is nearly all of it, is of `plan`'s speeds.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from mixtures import plan as costing
from mixtures.config import Mixture
from mixtures.mixture_file import load
from mixtures.plan import BuildSpeed
from pipelines.availability import settled
from pipelines.reading.splitting import rows_of_a_part
from pipelines.sources import SOURCES
from pipelines.survey import Place, licences_of
from tokenization.schema import Encoding

WORKERS = (1, 2, 8, 64, 512)
STORE = (200e6, 20e9)
"""Bytes/s that a store gives one worker, and all of them: the network model."""
BOUNDS = (
    *("workers", "hours in all", "tasks", "scheduler", "store, one worker", "store, all"),
    *("driver", "binds"),
)
"""The columns of `simulate`."""
SECONDS = {
    "ingest": 0.94e-3,
    "judge": 0.09e-3,
    "encode": 0.33e-3,
    "pack": 0.21e-3,
    "facts": 0.01e-3,
}
"""Of a sample, as the run of 1 M samples took (benchmarks/README.md), encode as measured since."""
WRITTEN = 8700.0
"""Bytes of a sample that all stages of that run wrote."""
PART_ROWS = 2000
"""Rows of a part where a subset has more than 256 of them."""
SHARD_SAMPLES = 142e-6
"""Shards of a sample, of 32 MB."""
BEFORE = BuildSpeed(stills_per_second=55, frames_per_second=43)
"""As a plan counted before issue 19; its driver took 20 µs a sample."""
DRIVER_BEFORE = 20e-6
TOKEN_BYTES = 5
"""Of an id and whether it is learned."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a build comes to."""

    tasks: float
    seconds: float
    """CPU seconds of all tasks."""
    longest: float
    """CPU seconds of the longest part in all its stages."""
    written: float
    """Bytes."""
    samples: float
    """Lines of the index."""


def bounds_of(work: Work, *, workers: int, driver: float, per_task: float) -> dict[str, float]:
    """Seconds that each alone would take. The largest binds: tasks fill the workers, the longest
    last; the driver hands out one task each `per_task` s; the store gives STORE, each byte written
    being read once. The driver's own steps, `driver` s a sample, are serial and come on top.
    """
    moved = 2 * work.written
    return {
        "tasks": work.seconds / workers + work.longest,
        "scheduler": work.tasks * per_task,
        "store, one worker": moved / (STORE[0] * workers),
        "store, all": moved / STORE[1],
        "driver": work.samples * driver,
    }


def hours_of(bounds: dict[str, float]) -> float:
    """Of the whole build."""
    most = max(seconds for name, seconds in bounds.items() if name != "driver")
    return (most + bounds["driver"]) / 3600


def simulate(work: Work, *, driver: float, per_task: float) -> list[str]:
    """A line per number of workers: BOUNDS."""
    lines = []
    for workers in WORKERS:
        bounds = bounds_of(work, workers=workers, driver=driver, per_task=per_task)
        cells = [f"{bound / 3600:.2f}" for bound in bounds.values()]
        what = max(bounds, key=bounds.__getitem__)
        lines.append(row([str(workers), f"{hours_of(bounds):.2f}", *cells, what]))
    return lines


def row(cells: Sequence[str], rule: bool = False) -> str:
    """A line of a Markdown table, with the rule below it where asked for."""
    return "| " + " | ".join(cells) + " |" + ("\n" + "|--:" * len(cells) + "|" if rule else "")


def thumbnails(count: int) -> Work:
    """`count` samples of `benchmarks.scale` in subsets of many parts."""
    return Work(
        tasks=3 * count / PART_ROWS + 2 * count * SHARD_SAMPLES,
        seconds=count * sum(SECONDS.values()),
        longest=PART_ROWS * max(SECONDS.values()),
        written=count * WRITTEN,
        samples=count,
    )


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A mixture's plan."""

    work: Work
    hours: float
    """CPU hours of ingest."""
    ample: tuple[float, float]
    """Unique samples read and used, of components of which not all is needed."""


def planned(name: str, *, read: str, speed: BuildSpeed) -> Planned:
    """What the mixture takes where `read` (enough or all) of it is read, in whole parts."""
    place = Place(output="out", work="work", workers=0)
    mixture, _, _ = settled(load(name, encoding=Encoding), place, asking=False)
    mixture = replace(mixture, read=read)
    supply = costing.recorded_supply(mixture, licences=licences_of(mixture))
    expected = costing.totals(costing.demand(supply, mixture), mixture)
    frame = in_parts(costing.what_is_read(supply, mixture), mixture)
    hours = costing.build_hours(frame, expected, mixture, cores=1, speed=speed)
    packed = expected["bytes"] + TOKEN_BYTES * expected["tokens"]
    work = Work(
        tasks=3 * float(frame["parts"].sum()) + 2 * expected["shards"],
        seconds=3600 * hours["all"],
        longest=longest(frame, mixture, speed=speed),
        written=float(frame["bytes"].sum()) + packed,
        samples=float(frame["samples"].sum()),
    )
    return Planned(work=work, hours=hours["ingest"], ample=ample(supply, frame, mixture))


def in_parts(read: pl.DataFrame, mixture: Mixture) -> pl.DataFrame:
    """What is read of each line of recorded sizes (`what_is_read`), in whole `parts` of `part_rows`
    rows: never less of a line than one part, which a build reads of each that it needs.
    """
    lines = []
    for line in read.iter_rows(named=True):
        there = line["all_samples"] or line["samples"]
        about = SOURCES[mixture.components[line["component"]].source]
        rows = rows_of_a_part(about, there)
        parts = -(-line["samples"] // rows) if line["samples"] else 0
        factor = min(there, parts * rows) / line["samples"] if parts else 0.0
        counts = {count: line[count] * factor for count in costing.READ}
        lines.append({**line, **counts, "parts": parts, "part_rows": min(rows, there)})
    return pl.DataFrame(lines, schema_overrides={"parts": pl.Float64, "part_rows": pl.Float64})


def longest(read: pl.DataFrame, mixture: Mixture, *, speed: BuildSpeed) -> float:
    """CPU seconds of the part that takes longest."""
    one = read.filter(pl.col("samples") > 0).with_columns(
        (pl.col(count) / pl.col("samples") * pl.col("part_rows")) for count in costing.READ
    )
    nothing = {"bytes": 0.0, "tokens": 0.0}
    each = (
        costing.build_hours(part, nothing, mixture, cores=1, speed=speed)["all"]
        for part in one.iter_slices(1)
    )
    return 3600 * max(each, default=0.0)


def ample(supply: pl.DataFrame, read: pl.DataFrame, mixture: Mixture) -> tuple[float, float]:
    """(Unique samples read, used) of components of which less than all is needed."""
    needs = costing.demand(supply, mixture).filter((pl.col("epochs") < 1) & (pl.col("needs") > 0))
    names = needs["component"].implode()
    read_of = read.filter(pl.col("component").is_in(names))["samples"].sum()
    return float(read_of), float(needs["used_samples"].sum())


def main(words: list[str]) -> None:
    """Prints Markdown tables."""
    said = dict(word.split("=", 1) for word in words if "=" in word)
    driver, per_task = float(said.get("driver", "10")) / 1e6, float(said.get("task", "3.4")) / 1e3
    asked = [word for word in words if "=" not in word]
    names = [word for word in asked if not word.isdigit()]
    for count in [int(word) for word in asked if word.isdigit()] or [50_000_000] * (not names):
        print(row(BOUNDS, rule=True))
        print("\n".join(simulate(thumbnails(count), driver=driver, per_task=per_task)))
    if not names:
        return
    head = (
        "mixture",
        "read",
        "samples read",
        "of those used, where ample",
        "parts",
        "hours of ingest, 2 cores",
    )
    print(row([*head, *(f"hours, {n} workers" for n in WORKERS[2:]), "binds"], rule=True))
    for name in names:
        for read, speed, each in (("all", BEFORE, DRIVER_BEFORE), ("enough", BuildSpeed(), driver)):
            found = planned(name, read=read, speed=speed)
            some, used = found.ample
            on = [
                bounds_of(found.work, workers=n, driver=each, per_task=per_task)
                for n in WORKERS[2:]
            ]
            print(
                row(
                    [
                        *(name, read, f"{found.work.samples:,.0f}", f"{some / max(1, used):.2f}"),
                        *(f"{found.work.tasks / 3:,.0f}", f"{found.hours / 2:.1f}"),
                        *(f"{hours_of(bounds):.2f}" for bounds in on),
                        max(on[-1], key=on[-1].__getitem__),
                    ]
                )
            )


if __name__ == "__main__":
    main(sys.argv[1:])
