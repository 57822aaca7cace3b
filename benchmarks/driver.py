"""What the driver does alone while workers wait, step by step, and the memory that it takes.

`python -m benchmarks.driver [100000 250000 ...]`: the narrow files of N samples, made from those of
some really ingested, judged and encoded (other ids, other hashes), are joined, picked, dealt, cut
into tasks and accounted for. Each size runs in a process of its own.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from benchmarks.scale import row, write
from mixtures import pick as picking
from mixtures.config import load
from mixtures.pick import INDEX
from pipelines import main_path
from pipelines.engine import tables
from pipelines.engine.runner import run_task
from pipelines.index import picked_index
from pipelines.report.row_facts import FACTS_SCHEMA
from pipelines.report.stats import stats
from pipelines.survey import Piece, Place, Survey, survey
from tokenization.schema import Encoding

REAL = 2666
"""Samples that are really made: a full part of images and one of text."""
SAMPLES_PER_ROW = 4
HASHES = ("text_hash", "bytes_hash", "pixels_hash")


def pieces_of(todo: Survey, count: int, root: Path) -> list[Piece]:
    """Pieces of `count` samples whose verdicts and tokens are files."""
    made: list[Piece] = []
    real = [(p, *(tables.read(path) for path in (p.verdicts, p.tokens))) for p in todo.pieces]
    for number in range(-(-count // REAL)):
        for piece, verdicts, tokens in real:
            rows = np.arange(len(verdicts)) + number * len(verdicts)
            prefix = f"{piece.part.source}/{piece.part.subset}"
            ids = pa.array([f"{prefix}/{n:08d}" for n in rows])
            other = {"id": ids}
            for name in HASHES:
                hashes = pl.Series(verdicts[name]) ^ (number * 0x9E3779B97F4A7C15 % 2**64)
                other[name] = hashes.to_arrow()
            for name, column in other.items():
                place = verdicts.schema.get_field_index(name)
                verdicts = verdicts.set_column(place, verdicts.schema.field(place), column)
            narrow = tokens.select(["id", "num_tokens", "num_learned", "num_crops", "problem",
                                    "splittable"]).set_column(0, "id", ids)  # fmt: skip
            stem = f"{root}/{piece.component}-{number:06d}"
            tables.write(verdicts, f"{stem}-verdicts.arrow")
            tables.write(narrow, f"{stem}-tokens.arrow")
            part = replace(piece.part, name=f"{prefix}/{number:05d}", number=number)
            made.append(
                replace(
                    piece,
                    part=part,
                    verdicts=f"{stem}-verdicts.arrow",
                    tokens=f"{stem}-tokens.arrow",
                )
            )
    return made


def facts_of(copies: pl.DataFrame, index: pl.DataFrame, components: list[str]) -> pl.DataFrame:
    """FACTS of rows of SAMPLES_PER_ROW samples in the order dealt."""
    place = {name: i for i, name in enumerate(components)}
    lines = copies.hstack(
        index.select(
            pl.col("component").replace_strict(place, return_dtype=pl.Int16),
            *("num_tokens", "num_learned", "num_crops", "duration"),
        )[copies["index_row"]]
    )
    rows = lines.with_columns(row=pl.col("order") // SAMPLES_PER_ROW).group_by(
        "split", "shard", "row", maintain_order=True
    )
    return rows.agg(
        num_tokens=pl.col("num_tokens").sum(),
        num_learned=pl.col("num_learned").sum(),
        num_crops=pl.col("num_crops").sum(),
        num_images=pl.len().cast(pl.Int32),
        num_samples=pl.len().cast(pl.Int32),
        flops=pl.col("num_tokens").sum().cast(pl.Float64),
        components=pl.col("component"),
        sample_tokens=pl.col("num_tokens").alias("tokens"),
        sample_learned=pl.col("num_learned").alias("learned"),
        sample_crops=pl.col("num_crops").alias("crops"),
        seconds=pl.col("duration"),
        grids=pl.lit("3x3", pl.Categorical).repeat_by(pl.len()),
    ).select(FACTS_SCHEMA.names)


def measure(count: int) -> dict[str, Any]:
    """Step -> CPU seconds of one size; `peak` and `before`: resident bytes, highest so far."""
    found: dict[str, Any] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        began = time.process_time()
        value = call()
        found[name] = time.process_time() - began
        return value

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write(root / "data", REAL, longest=64)
        mixture = load(str(root / "data" / "mix.yaml"), encoding=Encoding)
        place = Place(output=f"{root}/mix", work=f"{root}/work", workers=0)
        todo = survey(mixture, place)
        for task in main_path.tasks_of(todo.pieces):
            run_task(task)
        (root / "narrow").mkdir()
        pieces = pieces_of(todo, count, root / "narrow")
        found["before"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        timed("tasks", lambda: main_path.tasks_of(pieces))
        index = timed("index and pick", lambda: picked_index(pieces, mixture))
        copies = timed("deal", lambda: picking.deal(index, mixture))
        index = timed("shards of samples", lambda: picking.with_shards(index, copies))
        many = replace(todo, pieces=pieces)
        timed("pack tasks", lambda: main_path.pack_tasks(copies, index, many, mixture, place))
        facts = facts_of(copies, index, list(mixture.components))
        timed("stats", lambda: stats(index, facts, todo.recipe))
        written = (picking.as_tables(index), INDEX, root / "index")
        timed("index written", lambda: tables.write_pieces(*written, rows_per_batch=1 << 16))
        found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        found["samples"] = len(index)
    return found


def main(words: list[str]) -> None:
    """Prints a Markdown table; with `one=N`, the figures of that size as JSON."""
    if words and words[0].startswith("one="):
        print(json.dumps(measure(int(words[0][4:]))))
        return
    all_found = []
    for count in [int(w) for w in words] or [100_000, 250_000]:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.driver", f"one={count}"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        all_found.append(json.loads(done.stdout.splitlines()[-1]))
    steps = [name for name in all_found[0] if name not in ("before", "peak", "samples")]
    print(row(["samples", *steps, "CPU s", "MB above imports"], rule=True))
    for found in all_found:
        cells = [f"{found[step]:.2f}" for step in steps]
        total = sum(found[step] for step in steps)
        more = (found["peak"] - found["before"]) / 1e6
        print(row([f"{found['samples']:,}", *cells, f"{total:.2f}", f"{more:,.0f}"]))


if __name__ == "__main__":
    main(sys.argv[1:])
