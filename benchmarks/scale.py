"""Growth: what a build of N synthetic samples takes, stage by stage.

`python -m benchmarks.scale [10000 100000 ...] [workers=2]`. Three of four samples have a small real
JPEG (of a pool of 500), one is text; lengths are log-normal, as conversations are. Each size is
built from nothing in a process of its own; figures come from the `timings` of its stats.json and
the system's accounting. `simulate` says what the measured task times predict for more workers.
"""

import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mixtures.deal import BLOCK_ROWS
from pipelines import tables

MIXTURE = """
tokens: max
measure: samples
shard_bytes: 32_000_000
encoding: {{seq_len: 2048, max_crops: 64, crop_size: 64, longest_edge: 256, tokens_per_crop: 16}}
filters: {{empty_answer: {{}}, duplicate_sample: {{}}}}
components:
  pictures: {{source: cauldron, data: {root}/cauldron, ratio: 0.75, max_epochs: 1}}
  text: {{source: smoltalk, data: {root}/smoltalk, ratio: 0.25, max_epochs: 1}}
"""
ROW_GROUP = 1000


def picture(rng: np.random.Generator) -> bytes:
    """A JPEG of about 10 kB."""
    height, width = (int(n) for n in rng.integers(96, 320, 2))
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((width, height)).save(out, "JPEG", quality=85)
    return out.getvalue()


def write(root: Path, count: int) -> None:
    """`count` samples in the layouts of The Cauldron and SmolTalk."""
    rng = np.random.default_rng(0)
    pool = [picture(rng) for _ in range(500)]
    words = [f"word{i}" for i in range(2000)]
    length = lambda: int(min(rng.lognormal(3, 0.8), 400))
    say = lambda: " ".join(words[i] for i in rng.integers(0, len(words), length()))
    image = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    folder = root / "cauldron" / "vqav2"
    folder.mkdir(parents=True)
    pictures = 3 * count // 4
    for number, start in enumerate(range(0, pictures, 20_000)):
        size = min(20_000, pictures - start)
        table = pa.table(
            {
                "images": pa.array(
                    [[{"bytes": pool[i], "path": None}] for i in rng.integers(0, 500, size)], image
                ),
                "texts": [
                    [{"user": f"{start + i}: {say()}?", "assistant": say(), "source": "made"}]
                    for i in range(size)
                ],
            }
        )
        pq.write_table(
            table, folder / f"train-{number:05d}-of-99999.parquet", row_group_size=ROW_GROUP
        )
    folder = root / "smoltalk" / "data" / "all"
    folder.mkdir(parents=True)
    turns = [
        [{"role": "user", "content": f"{i}: {say()}"}, {"role": "assistant", "content": say()}]
        for i in range(count - pictures)
    ]
    talk = pa.table({"messages": turns, "source": ["made"] * len(turns)})
    pq.write_table(talk, folder / "train-00000-of-00001.parquet", row_group_size=ROW_GROUP)
    (root / "mix.yaml").write_text(MIXTURE.format(root=root))


def build(root: Path, out: Path, workers: int) -> tuple[float, float]:
    """(wall seconds, driver's peak bytes) of a build from nothing."""
    began = time.monotonic()
    place = [f"mixture={root}/mix.yaml", f"output={out}/mix", f"work={out}/work"]
    code = (
        "import resource, sys; from pipelines.__main__ import main; "
        "status = main(sys.argv[1:]); "
        "print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "build", *place, f"workers={workers}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.monotonic() - began, float(done.stdout.rsplit("PEAK", 1)[1])


def read_over_written(mix: Path) -> float:
    """Bytes of the record batches that packing opens, over bytes of the samples that it writes."""
    index = pl.DataFrame(tables.read(mix / "index.arrow"))
    lines = index.with_columns(batch=pl.col("row") // BLOCK_ROWS)
    size = lines.group_by("part", "batch").agg(size=pl.col("num_bytes").sum())
    used = lines.filter(pl.col("copies") > 0).explode("shard")
    opened = used.unique(["part", "batch", "split", "shard"]).join(size, on=["part", "batch"])
    return opened["size"].sum() / used["num_bytes"].sum()


def simulate(tasks: list[dict], scale: int, *, driver: float) -> list[str]:
    """Lines of what `scale` times these tasks take on more workers.

    The model: tasks of the measured lengths fill W workers; Ray hands out 1,300 tasks a second
    (measured with Ray 2.60 on 2 cores); the store gives 200 MB/s a worker and 20 GB/s in all; the
    `driver` seconds (index, pick, deal, publish: serial) come on top.
    """
    seconds = sum(t["seconds"] for t in tasks) * scale
    moved = sum(t["bytes"] for t in tasks) * scale * 2
    longest = max(t["seconds"] for t in tasks)
    lines = []
    for workers in (1, 8, 64, 512):
        bounds = {
            "workers": seconds / workers + longest,
            "scheduler": len(tasks) * scale / 1300,
            "store": max(moved / (200e6 * workers), moved / 20e9),
        }
        first = max(bounds, key=bounds.__getitem__)
        total = bounds[first] + driver
        what = first if bounds[first] > driver else "driver"
        lines.append(f"| {workers} | {total / 3600:.2f} | {what} |")
    return lines


def main(words: list[str]) -> None:
    """Prints Markdown tables."""
    settings = dict(w.split("=", 1) for w in words if "=" in w)
    workers = int(settings.get("workers", "2"))
    sizes = [int(w) for w in words if "=" not in w] or [10_000, 100_000]
    head = [
        "samples",
        "seconds",
        "per 1 000",
        "ingest",
        "judge",
        "encode",
        "pack",
        "worker peak (MB)",
        "driver peak (MB)",
        "read / written by pack",
    ]
    print("| " + " | ".join(head) + " |\n" + "|--:" * len(head) + "|")
    serial: list[float] = []
    for count in sizes:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write(root / "data", count)
            wall, driver = build(root / "data", root / "out", workers)
            found = json.loads((root / "out" / "mix" / "stats.json").read_text())["timings"][
                "tasks"
            ]
            spent = {
                stage: sum(t["seconds"] for t in found if t["stage"] == stage)
                for stage in ("ingest", "judge", "encode", "pack")
            }
            peak = max(t["peak_bytes"] for t in found)
            ratio = read_over_written(root / "out" / "mix")
            print(
                f"| {count:,} | {wall:.1f} | {1000 * wall / count:.2f} | "
                + " | ".join(f"{s:.1f}" for s in spent.values())
                + f" | {peak / 1e6:.0f} | {driver / 1e6:.0f} | {ratio:.2f} |",
                flush=True,
            )
            serial.append(max(wall - sum(t["seconds"] for t in found) / workers, 0))
    if len(sizes) < 2:
        return
    # Starting Ray and importing cost the same at any size; the rest of the driver grows.
    slope = max(serial[-1] - serial[0], 0) / (sizes[-1] - sizes[0])
    driver = serial[0] + slope * (50_000_000 - sizes[0])
    print(
        f"\nDriver alone: {serial[0]:.0f} s at {sizes[0]:,}, {serial[-1]:.0f} s at {sizes[-1]:,}."
    )
    print("Predicted for 50 M such samples from the tasks of the largest:\n")
    print("| workers | hours | binds first |\n|--:|--:|---|")
    print("\n".join(simulate(found, 50_000_000 // sizes[-1], driver=driver)))
    print(f"\n(This process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB.)")


if __name__ == "__main__":
    main(sys.argv[1:])
