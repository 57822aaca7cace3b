"""Time and memory of mixing, from the index to dealt shards: `python benchmarks/mixing.py [sizes]`.

| line    | does                                                                             |
|---------|----------------------------------------------------------------------------------|
| index   | reads the narrow columns of an index of that size from an Arrow file             |
| pick    | keep, limits, budgets and copies                                                 |
| deal    | the order of every copy and its shard                                            |
| shards  | the shards of every sample, and the index as the table that is written           |
| plan    | supply and demand of the same index                                              |
| balance | the worst of all windows of 1,000 packed rows, beside two naive orders           |

The index is made here: 66 subsets of four components (text, image, several images, video), lengths
as in the published mixtures (medians 300, 950, 2,500, 4,500 tokens), a twentieth of the text tagged
`cot` and capped to 0.05 %. Each size runs in a process of its own, one Polars thread. CPU seconds,
because machines are shared; peak is the resident memory of the process beyond what it has after
its imports (`base`).
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["POLARS_MAX_THREADS"] = "1"

import numpy as np
import polars as pl
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[1]))

from mixtures.balance import balance
from mixtures.config import Component, Limit, Mixture
from mixtures.pick import INDEX, apply_caps, as_tables, categorical, deal, pick, with_shards
from mixtures.plan import demand, totals
from tokenization.schema import Encoding

SETS = {  # component: subsets, share of the samples, median tokens, spread of log, crops
    "text": (10, 0.25, 300, 0.9, 0),
    "image": (45, 0.45, 950, 0.4, 13),
    "multi_image": (1, 0.10, 2500, 0.5, 26),
    "video": (10, 0.20, 4500, 0.2, 64),
}
RATIOS = {"text": 0.14, "image": 0.40, "multi_image": 0.13, "video": 0.33}
PART_ROWS = 2000
STEPS = ("base", "index", "pick", "deal", "shards", "plan")


def make(size: int, path: Path) -> None:
    """An index of about `size` samples at `path`."""
    random = np.random.default_rng(0)
    frames = []
    for component, (subsets, part, median, spread, crops) in SETS.items():
        for number in range(subsets):
            n = max(1, int(size * part / subsets))
            row = np.arange(n)
            tokens = np.maximum(8, median * np.exp(spread * random.standard_normal(n)))
            video = component == "video"
            frames.append(
                pl.DataFrame({"row": row.astype(np.int32)}).with_columns(
                    id=pl.format("{}/s{}/{}", pl.lit(component), number, "row"),
                    source=pl.lit(component),
                    component=pl.lit(component),
                    subset=pl.format("s{}", number),
                    modality=pl.lit(component),
                    split=pl.lit("train"),
                    rule=pl.lit(None, pl.String),
                    num_tokens=pl.Series(tokens.astype(np.int32)),
                    num_learned=pl.Series((tokens / 5).astype(np.int32)),
                    num_crops=pl.lit(crops, pl.Int32),
                    copies=pl.lit(0, pl.Int32),
                    shard=pl.lit([], pl.List(pl.Int32)),
                    part=pl.format(
                        "{}/s{}/{}", pl.lit(component), number, pl.col("row") // PART_ROWS
                    ),
                    fired=pl.lit([], pl.List(pl.String)),
                    tags=pl.when((pl.col("row") % 20 == 0) & pl.lit(component == "text"))
                    .then(pl.lit(["cot"], pl.List(pl.String)))
                    .otherwise(pl.lit([], pl.List(pl.String))),
                    duration=pl.Series(random.uniform(5, 200, n).astype(np.float32))
                    if video
                    else pl.lit(None, pl.Float32),
                    num_bytes=pl.lit(35_000 * 64 if video else 200_000 * (crops // 13), pl.Int64),
                )
            )
    table = pa.concat_tables(as_tables(pl.concat([f.select(INDEX.names) for f in frames])))
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def mixture(index: pl.DataFrame) -> Mixture:
    """Half of what there is, in RATIOS."""
    return Mixture(
        name="benchmark",
        tokens=int(0.5 * index["num_tokens"].cast(pl.Int64).sum()),
        encoding=Encoding(),
        components={n: Component(source=n, ratio=r) for n, r in RATIOS.items()},
        limits={"cot": Limit(max_ratio=0.0005)},
    )


def resident() -> float:
    """Peak resident memory of this process so far, MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1000


def measure(path: Path) -> None:
    """Prints a tab-separated line per step: name, CPU seconds, peak MB."""
    print("base", 0.0, resident(), sep="\t")

    def step(name: str, work: Callable[[], Any]) -> Any:
        begun = time.process_time()
        result = work()
        print(name, time.process_time() - begun, resident(), sep="\t")
        return result

    index = step("index", lambda: categorical(pl.read_ipc(path)))
    asked = mixture(index)
    picked = step("pick", lambda: pick(index, asked))
    dealt = step("deal", lambda: deal(picked, asked))
    step("shards", lambda: [len(t) for t in as_tables(with_shards(picked, dealt))])
    step("plan", lambda: totals(demand(apply_caps(index, asked)[1], asked), asked))
    train = dealt.filter(split="train")["index_row"].to_numpy()
    used = np.flatnonzero((picked["copies"] * (picked["split"] == "train")).to_numpy())
    shuffled = np.random.default_rng(0).permutation(train)
    for name, rows in (("dealt", train), ("shuffled", shuffled), ("as they lie", used)):
        samples = picked[rows].select(
            "component", units=pl.col("num_tokens"), seconds="duration", crops="num_crops"
        )
        place = samples["units"].cast(pl.Int64).cum_sum() // asked.encoding.seq_len
        found = balance(samples.with_columns(place=place), window=1000)
        shares = found.filter(pl.col("what").is_in(list(RATIOS)))
        print(f"balance {name}", shares["worst"].max(), shares["p95"].max(), sep="\t")
        if name == "dealt":
            others = found.filter(~pl.col("what").is_in(list(RATIOS)))
            for what, worst, p95 in others.select("what", "worst", "p95").iter_rows():
                print(f"balance {name}, {what}", worst, p95, sep="\t")


def main(sizes: list[int]) -> None:
    """A table of all sizes."""
    print(f"{'samples':>10}  {'step':<12}{'CPU s':>8}{'peak MB above base':>20}")
    strays = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "index.arrow"
            make(size, path)
            command = [sys.executable, __file__, "--measure", str(path)]
            lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows = [line.split("\t") for line in lines.splitlines()]
        base, total = float(rows[0][2]), 0.0
        for name, first, second in rows[1:]:
            if name in STEPS:
                total += float(first)
                print(f"{size:>10,}  {name:<12}{float(first):>8.2f}{float(second) - base:>20,.0f}")
            else:
                strays.append((size, name, float(first), float(second)))
        print(f"{size:>10,}  {'all':<12}{total:>8.2f}")
    print("\nHow far windows of 1,000 rows stray: shares in points, seconds, crops in % of mean")
    print(f"{'samples':>10}  {'order':<28}{'worst':>8}{'p95':>8}")
    for size, name, worst, p95 in strays:
        print(f"{size:>10,}  {name:<28}{100 * worst:>8.2f}{100 * p95:>8.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(Path(sys.argv[2]))
    else:
        main([int(size) for size in sys.argv[1:]] or [10_000, 100_000, 1_000_000])
