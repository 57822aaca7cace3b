"""What looking at a finished mixture costs at its size: publish, check, export, diff, show, report.

`python -m benchmarks.finished [1000000 3000000 ...] [components=8] [in=FOLDER]`: the mixture of
`benchmarks.driver` with shards beside its index: every dealt sample's real ids and image, of some
thousand really encoded, in rows within both limits. So `check` finds nothing wrong but what is
checked of `work`, and every command reads what it would read of a build. Each size is made by one
process and looked at in another; all steps there one after the other, CPU seconds and peak memory
above imports of each. `in=` keeps the files there, and takes up what is there.
"""

import json
import pickle
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from benchmarks import driver
from benchmarks.driver import PART_ROWS
from benchmarks.simulation import row
from mixtures.schedule import constant
from pipelines import check, main_path, recipe
from pipelines.engine import tables
from pipelines.engine.tasks import Task
from pipelines.export.conversations import about_shards
from pipelines.report.card import card
from pipelines.report.diff import diff
from pipelines.report.digests import file_digest
from pipelines.report.finished import Finished, open_finished
from pipelines.report.page import report
from pipelines.report.show import show
from pipelines.stages import FACTS
from pipelines.survey import Place
from tokenization.schema import PACKED, PACKED_WRITTEN

ROWS_CHECKED = 8
"""Of a shard."""
SOURCE = {0: "cauldron", PART_ROWS: "smoltalk"}
"""Of the first of the encoded samples."""


def make(root: Path) -> None:
    """The finished mixture of `driver.make`'s files, by a build's own steps."""
    todo, mixture = pickle.loads((root / "made").read_bytes())
    asked = {"tokens": mixture.tokens, "measure": mixture.measure}
    inputs = {f"{p.component}/{p.part.subset}": p.part.identity for p in todo.pieces}
    said = {**todo.recipe, "mixture": {**todo.recipe["mixture"], **asked}, "inputs": inputs}
    fingerprint = recipe.fingerprint(recipe.identity(said))
    todo = replace(todo, recipe={**said, "fingerprint": fingerprint})
    place = Place(output=f"{root}/mix", work=f"{root}/work", workers=0)
    folders = list(dict.fromkeys(Path(p.samples).parent for p in todo.pieces))
    encoded = pa.concat_tables([samples_in(folder) for folder in folders]).combine_chunks()
    first = {str(folder): n * PART_ROWS for n, folder in enumerate(folders)}

    def shards(tasks: list[Task]) -> None:
        for task in tasks:
            if task.stage is not FACTS:
                write_shard(task, encoded, first, limits=mixture.encoding)
        driver.write_facts(tasks)
        for task in tasks:
            if task.stage is FACTS:
                add_digest(task.out, task.settings["shard"])

    found = driver.steps(todo, mixture, place, lambda _, call: call(), shards=shards)
    main_path.publish(found, todo, mixture, place, took={})


def samples_in(folder: Path) -> pa.Table:
    """PART_ROWS samples as `driver.template` repeats them: what of PACKED one sample gives."""
    read = pa.concat_tables([tables.read(str(path)) for path in sorted(folder.glob("*.arrow"))])
    other = folder.parents[1] / "tokens"
    (tokens,) = (
        found
        for one in other.iterdir()
        if (found := pa.concat_tables([tables.read(str(path)) for path in sorted(one.glob("*"))]))[
            "id"
        ].equals(read["id"])
    )
    images = read["images"].combine_chunks()
    data = images.flatten().field("bytes")
    struct = pa.StructArray.from_arrays([data, pa.nulls(len(data), pa.string())], ["bytes", "path"])
    stored = pa.ListArray.from_arrays(images.offsets, struct)
    rows = np.arange(PART_ROWS) % len(read)
    names = ["input_ids", "loss_mask", "seq_lengths", "grids", "num_tokens", "num_crops"]
    return tokens.select(names).append_column("images", stored).take(rows)


def write_shard(task: Task, encoded: pa.Table, first: dict[str, int], *, limits: Any) -> None:
    """A shard of the samples that were dealt to it, in that order, in rows within both limits."""
    picks = tables.read(task.settings["picks"].path)
    part, place = picks["part"].to_numpy(), picks["row"].to_numpy()
    starts = np.array([first[str(Path(samples).parent)] for samples, _ in task.settings["parts"]])
    names = [Path(path).name.split("-") for _, path in task.settings["parts"]]
    source = [Path(samples).parent for samples, _ in task.settings["parts"]]
    prefix = pl.Series(
        [f"{SOURCE[first[str(f)]]}/{c}" for f, (c, *_) in zip(source, names, strict=True)]
    )
    number = np.array([int(n) for _, n, _ in names])[part] * PART_ROWS + place
    ids = pl.DataFrame({"prefix": prefix[part], "number": number}).select(
        pl.format("{}/{}", "prefix", pl.col("number").cast(pl.String).str.zfill(9))
    )
    some = encoded.take(starts[part] + place).combine_chunks()
    ends = rows_within(some["num_tokens"].to_numpy(), some["num_crops"].to_numpy(), limits)
    lists = {
        name: joined(some[name].combine_chunks(), ends)
        for name in PACKED.names
        if name != "sample_ids"
    }
    lists["sample_ids"] = pa.ListArray.from_arrays(
        pa.array(ends, pa.int32()), ids.to_series().to_arrow().cast(pa.string())
    )
    table = tables.conform(pa.table(lists), PACKED_WRITTEN, writer="the benchmark")
    tables.write(table, task.out, rows_per_batch=task.stage.rows_per_batch)


def rows_within(tokens: np.ndarray, crops: np.ndarray, limits: Any) -> np.ndarray:
    """Where rows end, 0 first: one goes on while the next sample fits."""
    ends, held, seen = [0], 0, 0
    for n, (more, cut) in enumerate(zip(tokens.tolist(), crops.tolist(), strict=True)):
        if held + more > limits.seq_len or seen + cut > limits.max_crops:
            ends.append(n)
            held = seen = 0
        held, seen = held + more, seen + cut
    return np.array([*ends, len(tokens)])


def joined(lists: pa.ListArray, ends: np.ndarray) -> pa.ListArray:
    """The lists of each row as one."""
    offsets = lists.offsets.to_numpy()[ends] - lists.offsets[0].as_py()
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), lists.flatten())


def add_digest(facts: str, shard: str) -> None:
    """FACTS say bytes and SHA-256 of their shard."""
    table = tables.read(facts)
    for name, value in file_digest(shard).items():
        at = table.schema.get_field_index(name)
        column = pa.array([value] * len(table), table.schema.field(at).type)
        table = table.set_column(at, table.schema.field(at), column)
    tables.write(table, facts)


def look(root: Path) -> dict[str, Any]:
    """Step -> CPU seconds and peak bytes above imports."""
    found: dict[str, Any] = {}
    timed = driver.timer(found)
    folder = f"{root}/mix"
    mixture = open_finished(folder)
    for name, fault in (
        ("recipe", lambda found: check._fingerprint(found.recipe)),
        ("files", check._files),
        ("index", check._index),
        ("lineage", check._lineage),
        ("ratios", check._ratios),
    ):
        timed(f"check: {name}", lambda fault=fault: told(fault(mixture)))
    timed("check: a schedule", lambda: told(check._schedule(scheduled(mixture))))
    rows = [n for names in mixture.shards.values() for n in names][
        :: max(1, len(mixture.shards["train"]) // 8)
    ]
    timed(f"check: {ROWS_CHECKED} rows of {len(rows)} shards",
          lambda: [told(check._rows(mixture, name, ROWS_CHECKED)) for name in rows])  # fmt: skip
    timed("diff", lambda: diff(folder, folder))
    sample = next(mixture.lines(["id", "copies"])).filter(pl.col("copies") > 0)["id"][0]
    asked = {"row": 5, "id": sample, "rule": "duplicate_sample", "component": "images0"}
    for name, value in asked.items():
        words = {"row": 0, "id": "", "rule": "", "component": "", name: value}
        timed(f"show {name}=", lambda words=words: show(
            folder, split="train", work=f"{root}/cleaned", color=False, **words))  # fmt: skip
    timed("card", lambda: card(mixture.stats, mixture.recipe))
    timed("report.html", lambda: report(open_finished(folder)))
    timed("export: lines of a shard", lambda: lines_of_a_shard(mixture))
    return found


def told(faults: Iterator[str]) -> None:
    """Raises where something is at fault."""
    if found := list(faults):
        raise AssertionError(found[:3])


def scheduled(mixture: Finished) -> Finished:
    """The same, its ratios stated as schedules that never change."""
    said = mixture.recipe["mixture"]
    parts = {
        name: {**about, "schedule": constant(about["ratio"])}
        for name, about in said["components"].items()
    }
    return replace(mixture, recipe={**mixture.recipe, "mixture": {**said, "components": parts}})


def lines_of_a_shard(mixture: Finished) -> None:
    """What an export reads of the index, and of it what is of one shard."""
    with about_shards(mixture) as about:
        about.of(about.names["train"][-1])


def main(words: list[str]) -> None:
    """Prints a Markdown table."""
    said = dict(word.split("=", 1) for word in words if "=" in word)
    if "look" in said:
        print(json.dumps(look(Path(said["look"]))))
        return
    if "make" in said:
        make(Path(said["make"]))
        return
    components = f"components={said.get('components', 8)}"
    sizes = [int(word) for word in words if "=" not in word] or [100_000]
    seen = {}
    for count in sizes:
        with tempfile.TemporaryDirectory() as near:
            root = Path(said.get("in", near)) / str(count)
            root.mkdir(parents=True, exist_ok=True)
            if not (root / "made").exists():
                driver.child(f"make={count}", f"in={root}", components)
            if not (root / "mix" / "recipe.json").exists():
                driver.child(f"make={root}", program="benchmarks.finished")
            printed = driver.child(f"look={root}", program="benchmarks.finished")
            seen[count] = json.loads(printed.splitlines()[-1])
    print(row(["", *(f"{count:,}: CPU s, MB" for count in sizes)], rule=True))
    for step in next(iter(seen.values())):
        cells = (found.get(step, (0, 0)) for found in seen.values())
        print(row([step, *(f"{cpu:.1f}, {peak / 1e6:,.0f}" for cpu, peak in cells)]))


if __name__ == "__main__":
    main(sys.argv[1:])
