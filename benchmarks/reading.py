"""What `read: enough` costs and how even it is: `python -m benchmarks.reading [rows]`.

| table | does                                                                               |
|-------|------------------------------------------------------------------------------------|
| cost  | builds one budget from repositories of some size and of ten times that: CPU s,     |
|       | samples read over those used                                                       |
| bias  | of a subset sorted by length, and by category, the parts that a build would read:  |
|       | how far their lengths and categories stray from those of all                       |

Cost: photographs-to-be of 320 x 240 in Parquet groups of 100 and conversations, half of the tokens
each; every build is a process of its own (`workers=0`), CPU seconds because machines are shared.
Bias: 20 seeds each, beside what a simple random sample of as many rows would give (means of the
half-normal and of Kolmogorov's distribution, with the correction of a finite whole).
"""

import math
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.reading.parts import in_turn, list_parts
from tests.pipelines.sources.making import IMAGE, TEXTS, cell, coarse_jpeg, qa

ROOT = Path(__file__).parents[1]
SEEDS = 20
MIXTURE = """
tokens: {tokens}
val_fraction: 0.02
encoding: {{seq_len: 2048, crop_size: 64, longest_edge: 256, tokens_per_crop: 16}}
filters: {{empty_answer: {{}}, duplicate_sample: {{}}}}
components:
  images: {{source: cauldron, data: {folder}/images, subsets: [ai2d], ratio: 0.5}}
  text: {{source: smoltalk, data: {folder}/text, subsets: [everyday-conversations], ratio: 0.5}}
"""


def write_repositories(folder: Path, rows: int) -> None:
    """So many rows with an image, and as many conversations."""
    schema = pa.schema([("images", pa.list_(IMAGE)), ("texts", TEXTS)])
    path = folder / "images/ai2d/train-00000-of-00001-ab.parquet"
    path.parent.mkdir(parents=True)
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, 100):
            some = [
                {
                    "images": [cell(coarse_jpeg(n, 320, 240))],
                    "texts": qa((f"Q {n}?", f"It is {n}.")),
                }
                for n in range(start, min(rows, start + 100))
            ]
            writer.write_table(pa.Table.from_pylist(some, schema=schema))
    talks = [
        [{"role": "user", "content": f"Say {n}."}, {"role": "assistant", "content": f"w{n} " * 90}]
        for n in range(rows)
    ]
    path = folder / "text/data/everyday-conversations/train-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    table = pa.table({"messages": talks, "source": ["made"] * rows})
    pq.write_table(table, path, row_group_size=1000)


def built(folder: Path, tokens: int) -> tuple[float, int, float]:
    """(CPU s of a build, samples read, those read over those used)."""
    file = folder / "bench.yaml"
    file.write_text(MIXTURE.format(tokens=tokens, folder=folder))
    words = ["build", f"mixture={file}", f"output={folder}/mix", f"work={folder}/work"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "pipelines", *words, "workers=0", "probe=false", "quiet=true"],
        check=True, cwd=ROOT, env={**os.environ, "POLARS_MAX_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    index = pl.read_ipc(folder / "mix/index.arrow", columns=["rule", "copies"])
    used = index.filter(pl.col("copies") > 0).height
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, index.height, index.filter(pl.col("rule").is_null()).height / used


def cost(rows: int) -> Iterator[str]:
    """A line of the table per size."""
    yield "| rows of each | budget, tokens | CPU s | samples read | kept / used |"
    yield "|--:|--:|--:|--:|--:|"
    tokens = 400 * rows
    for times in (1, 10):
        with tempfile.TemporaryDirectory() as folder:
            write_repositories(Path(folder), rows * times)
            spent, read, over = built(Path(folder), tokens)
        yield f"| {rows * times:,} | {tokens:,} | {spent:.1f} | {read:,} | {over:.3f} |"


def bias(rows: int) -> Iterator[str]:
    """A line of the table per layout and fraction that is read."""
    yield (
        "| sorted by length | read | rows | mean, in standard deviations | KS | category, points |"
    )
    yield "|---|--:|--:|--:|--:|--:|"
    lengths = np.sort(np.random.default_rng(0).lognormal(5, 1, rows))
    # eight categories one behind the other, each of them sorted
    category = np.arange(rows) * 8 // rows
    for name, files, group in (
        ("one file, groups of 100", 1, 100),
        ("one file, groups of 1,000", 1, 1000),
        ("20 files, groups of 1,000", 20, 1000),
    ):
        with tempfile.TemporaryDirectory() as folder:
            parts = parts_of(Path(folder), rows, files=files, group=group)
        ends = np.cumsum([part.rows for part in parts])
        for fraction in (0.02, 0.05, 0.25):
            strays = [
                strayed(chosen(parts, ends, fraction, seed=seed), lengths, category)
                for seed in range(SEEDS)
            ]
            counts, smd, ks, share = np.mean(strays, axis=0)
            left = math.sqrt((1 - counts / rows) / counts)
            of_random = (math.sqrt(2 / math.pi) * left, math.sqrt(math.pi / 2) * math.log(2) * left)
            by_chance = 100 * math.sqrt(2 / math.pi) * math.sqrt(1 / 8 * 7 / 8) * left
            yield (
                f"| {name} | {100 * fraction:.0f} % | {counts:,.0f} | {smd:.3f} "
                f"({of_random[0]:.3f}) | {ks:.3f} ({of_random[1]:.3f}) | {share:.2f} "
                f"({by_chance:.2f}) |"
            )


def parts_of(folder: Path, rows: int, *, files: int, group: int) -> list:
    """The parts of a subset of so many rows in so many files."""
    each = rows // files
    place = folder / "data/everyday-conversations"
    place.mkdir(parents=True)
    talk = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    table = pa.table({"messages": [talk] * each, "source": ["made"] * each})
    for number in range(files):
        name = f"train-{number:05d}-of-{files:05d}.parquet"
        pq.write_table(table, place / name, row_group_size=group)
    return list_parts(source="smoltalk", data=str(folder), subsets=["everyday-conversations"])


def chosen(parts: list, ends: np.ndarray, fraction: float, *, seed: int) -> np.ndarray:
    """The rows of the parts that are read until they are this fraction of all."""
    taken, have = [], 0
    for part in sorted(in_turn(parts, seed=seed), key=lambda part: part.turn):
        if have >= fraction * ends[-1]:
            break
        taken.append(np.arange(ends[part.number] - part.rows, ends[part.number]))
        have += part.rows
    return np.concatenate(taken)


def strayed(
    rows: np.ndarray, lengths: np.ndarray, category: np.ndarray
) -> tuple[int, float, float, float]:
    """(rows, distance of the mean length in standard deviations of all, KS distance, mean distance
    of a category's share in percentage points).
    """
    mine = np.sort(lengths[rows])
    apart = abs(mine.mean() - lengths.mean()) / lengths.std()
    whole = np.searchsorted(lengths, mine, side="right") / len(lengths)
    steps = np.arange(1, len(mine) + 1) / len(mine)
    ks = max(np.abs(steps - whole).max(), np.abs(steps - 1 / len(mine) - whole).max())
    shares = np.bincount(category[rows], minlength=8) / len(rows)
    of_all = np.bincount(category, minlength=8) / len(category)
    return len(rows), float(apart), float(ks), float(100 * np.abs(shares - of_all).mean())


def main(arguments: list[str]) -> int:
    """Prints both tables."""
    rows = int(arguments[0]) if arguments else 3000
    for table in (bias(20_000), cost(rows)):
        for line in table:
            print(line, flush=True)
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
