"""What the driver does alone while workers wait, step by step, and the memory that it takes.

`python -m benchmarks.driver [1000000 3000000 ...] [components=8]`: the narrow files (verdicts,
tokens) of N samples in so many components, made from those of some really ingested, judged and
encoded (other ids, other hashes, one in a hundred a duplicate), are joined, compared, picked,
dealt, cut into tasks and accounted for by a build's own code. Files are made by one process, each
size is measured in another. Half of what is there is used, in shards of 32 MB.
"""

import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from benchmarks.scale import write
from benchmarks.simulation import row
from mixtures import draw
from mixtures import pick as picking
from mixtures.config import Mixture
from mixtures.mixture_file import load
from pipelines import main_path
from pipelines.engine import tables
from pipelines.engine.runner import run_task
from pipelines.engine.timings import peak_bytes, reset_peak
from pipelines.index import index_in
from pipelines.report.card import card
from pipelines.report.row_facts import FACTS_SCHEMA
from pipelines.stages import FACTS, STAGES
from pipelines.survey import Piece, Place, Survey, survey
from tokenization.schema import Encoding

REAL = 2666
"""Samples that are really made: three of four with an image."""
PART_ROWS = 2000
SAMPLES_PER_ROW = 4
HASHES = ("text_hash", "bytes_hash", "pixels_hash")
Timed = Callable[[str, Callable[[], Any]], Any]
"""A step's name and what it does -> what that returns."""
DUPLICATES = 50
"""Of so many two have the hashes of one sample."""


def make(root: Path, count: int, components: int) -> None:
    """The files of `count` samples in `root`, and what `measure` needs beside them."""
    write(root / "data", REAL, longest=64)
    mixture = load(str(root / "data" / "mix.yaml"), encoding=Encoding)
    todo = survey(mixture, Place(output=f"{root}/mix", work=f"{root}/work", workers=0))
    for task in main_path.tasks_of(todo.pieces):
        run_task(task)
    templates = [template(todo, name) for name in mixture.components]
    (root / "narrow").mkdir()
    pieces: list[Piece] = []
    names = [f"{list(mixture.components)[n % 2]}{n}" for n in range(components)]
    tokens = 0
    for n, name in enumerate(names):
        first, verdicts, narrow = templates[n % 2]
        for number in range(-(-count // components // PART_ROWS)):
            made = part(first, verdicts, narrow, name, number, root / "narrow")
            tokens += int(np.sum(narrow["num_tokens"].to_numpy()))
            pieces.append(made)
    settings = {
        name: replace(mixture.components[names[n % 2][:-1]], ratio=1 / components, max_epochs=2)
        for n, name in enumerate(names)
    }
    many = replace(mixture, components=settings, tokens=tokens // 2, measure="tokens")
    recipe = {**todo.recipe, "mixture": {**todo.recipe["mixture"], "components": {
        name: {**todo.recipe["mixture"]["components"][names[n % 2][:-1]], "ratio": 1 / components}
        for n, name in enumerate(names)}}}  # fmt: skip
    recipe["sources"] = {name: recipe["sources"][names[n % 2][:-1]] for n, name in enumerate(names)}
    made_of = replace(todo, pieces=pieces, recipe=recipe)
    (root / "made").write_bytes(pickle.dumps((made_of, many)))


def template(todo: Survey, component: str) -> tuple[Piece, pa.Table, pa.Table]:
    """(A piece, verdicts, tokens) of PART_ROWS samples of a component."""
    mine = [p for p in todo.pieces if p.component == component]
    columns = ["id", "num_tokens", "num_learned", "num_crops", "problem", "splittable"]
    verdicts = pa.concat_tables([tables.read(p.verdicts) for p in mine])
    tokens = pa.concat_tables([tables.read(p.tokens, columns=columns) for p in mine])
    rows = pa.array(np.arange(PART_ROWS) % len(verdicts))
    return mine[0], verdicts.take(rows), tokens.take(rows)


def part(
    first: Piece, verdicts: pa.Table, tokens: pa.Table, component: str, number: int, root: Path
) -> Piece:
    """A piece of a component, its verdicts and tokens as files."""
    rows = np.arange(PART_ROWS) + number * PART_ROWS
    prefix = f"{first.part.source}/{component}"
    ids = pa.array([f"{prefix}/{n:09d}" for n in rows])
    other = {"id": ids}
    same = np.where(rows % DUPLICATES == 0, rows // (2 * DUPLICATES) * 2 * DUPLICATES, rows)
    keys = draw.sample_keys([f"{component}/{n}" for n in same], seed=0)
    for name in HASHES:
        there = pl.Series(verdicts[name]).is_not_null()
        values = pl.DataFrame({"value": draw.rehash(keys, name), "there": there})
        other[name] = values.select(pl.when("there").then("value")).to_series().to_arrow()
    for name, column in other.items():
        place = verdicts.schema.get_field_index(name)
        verdicts = verdicts.set_column(place, verdicts.schema.field(place), column)
    stem = f"{root}/{component}-{number:06d}"
    rows_per_batch = STAGES["judge"].rows_per_batch
    tables.write(verdicts, f"{stem}-verdicts.arrow", rows_per_batch=rows_per_batch)
    tables.write(tokens.set_column(0, "id", ids), f"{stem}-tokens.arrow")
    return replace(
        first,
        component=component,
        part=replace(
            first.part, name=f"{prefix}/{number:05d}", subset=component, number=number, share=1.0,
            component=component,
        ),
        verdicts=f"{stem}-verdicts.arrow",
        tokens=f"{stem}-tokens.arrow",
    )  # fmt: skip


def write_facts(tasks: list[Any]) -> None:
    """FACTS of every shard, of rows of SAMPLES_PER_ROW samples in the order dealt."""
    random = np.random.default_rng(0)
    for task in tasks:
        if task.stage is not FACTS:
            continue
        picks = pl.DataFrame(tables.read(task.settings["samples"].path))
        tokens = pl.Series(random.integers(20, 500, len(picks)).astype(np.int32))
        lines = picks.with_columns(num_tokens=tokens, num_learned=tokens // 3)
        rows = lines.with_columns(row=pl.int_range(pl.len()) // SAMPLES_PER_ROW).group_by(
            "row", maintain_order=True
        )
        split, _, number = task.part.partition("-")
        made = rows.agg(
            num_tokens=pl.col("num_tokens").sum(),
            num_learned=pl.col("num_learned").sum(),
            num_crops=pl.col("num_crops").sum(),
            num_images=pl.len(),
            num_samples=pl.len(),
            flops=pl.col("num_tokens").sum().cast(pl.Float64),
            components=pl.col("component"),
            sample_tokens=pl.col("num_tokens").alias("tokens"),
            sample_learned=pl.col("num_learned").alias("learned"),
            sample_crops=pl.col("num_crops").alias("crops"),
            seconds=pl.col("seconds"),
            grids=pl.lit("3x3").repeat_by(pl.len()),
        ).with_columns(
            split=pl.lit(split), shard=pl.lit(int(number)), bytes=pl.lit(0), sha256=pl.lit("0" * 64)
        )
        table = tables.conform(made.to_arrow(), FACTS_SCHEMA, writer="the benchmark")
        tables.write(table, task.out)


def measure(root: Path) -> dict[str, Any]:
    """Step -> CPU seconds and peak bytes above imports."""
    todo, mixture = pickle.loads((root / "made").read_bytes())
    place = Place(output=f"{root}/mix", work=f"{root}/work", workers=0)
    found: dict[str, Any] = {}
    steps(todo, mixture, place, timer(found))
    return found


def timer(found: dict[str, Any]) -> Timed:
    """What calls something; its CPU seconds and peak bytes, above those of now, are in `found`."""
    reset_peak()
    before = peak_bytes()

    def timed(name: str, call: Callable[[], Any]) -> Any:
        reset_peak()
        began = time.process_time()
        value = call()
        found[name] = [time.process_time() - began, peak_bytes() - before]
        return value

    return timed


def steps(
    todo: Survey,
    mixture: Mixture,
    place: Place,
    timed: Timed,
    *,
    shards: Callable[[list[Any]], None] = write_facts,
) -> dict[str, Any]:
    """A build's own steps, in its order, `shards` in place of packing; returns the stats."""
    pieces = todo.pieces
    timed("tasks", lambda: main_path.tasks_of(pieces))
    with main_path.scratch(place) as folder:
        index = timed("index", lambda: index_in(f"{folder}/index", pieces, mixture))
        picked = timed("pick", lambda: picking.pick_samples(index.samples, mixture))
        deal = picking.deal_samples
        dealt = timed("deal", lambda: deal(index.samples, picked.copies, mixture))
        packing = partial(main_path.pack_tasks, dealt, index, todo, mixture, place)
        tasks = timed("pack tasks", packing)
        shards(tasks)
        writing = partial(main_path.write_index, index, picked, dealt, todo, mixture, place)
        found = timed("index and stats written", writing)
    timed("card", lambda: card(found, todo.recipe))
    return dict(found)


def child(*words: str, program: str = "benchmarks.driver") -> str:
    """What the program prints with these words, in a process of its own."""
    command = [sys.executable, "-m", program, *words]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def main(words: list[str]) -> None:
    """Prints a Markdown table."""
    said = dict(word.split("=", 1) for word in words if "=" in word)
    if "make" in said:
        make(Path(said["in"]), int(said["make"]), int(said["components"]))
        return
    if "in" in said:
        print(json.dumps(measure(Path(said["in"]))))
        return
    head = True
    for count in [int(w) for w in words if "=" not in w] or [1_000_000]:
        with tempfile.TemporaryDirectory() as folder:
            child(f"make={count}", f"in={folder}", f"components={said.get('components', 8)}")
            found = json.loads(child(f"in={folder}").splitlines()[-1])
        if head:
            print(
                row(["samples", *(f"{step}: µs, MB" for step in found), "µs", "peak MB"], rule=True)
            )
        head = False
        cells = [f"{1e6 * cpu / count:.2f}, {peak / 1e6:,.0f}" for cpu, peak in found.values()]
        total = 1e6 * sum(cpu for cpu, _ in found.values()) / count
        most = max(peak for _, peak in found.values())
        print(row([f"{count:,}", *cells, f"{total:.1f}", f"{most / 1e6:,.0f}"]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
