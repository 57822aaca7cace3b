"""Growth: what a build of N synthetic samples takes, stage by stage, and what binds beyond.

`python -m benchmarks.scale [10000 100000 ...] [workers=2] [longest=160] [keep=DIR]`

Three of four samples have a small real JPEG (of a pool of 500, sides of 48 to `longest` px), one is
text; words and their frequencies are those of this project's documentation, lengths log-normal.
Small images leave the pipeline's own cost in front: decoding larger ones is the decoder's, and
linear. Each size is built from nothing in a process of its own. Figures come from its stats.json,
from the files, and from the system's accounts of every process that it started, looked at twice a
second.
"""

import io
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.simulation import BOUNDS, Work, row, simulate
from mixtures.places import BLOCK_ROWS
from pipelines.engine import tables
from pipelines.engine.runner import ray_connection, run
from pipelines.engine.tasks import Stage, Task

MIXTURE = """
tokens: max
measure: samples
shard_bytes: 32_000_000
encoding: {{seq_len: 2048, max_crops: 64, crop_size: 64, longest_edge: 256, tokens_per_crop: 16}}
filters: {{empty_answer: {{}}, duplicate_sample: {{}}}}
components:
  images: {{source: cauldron, data: {root}/cauldron, ratio: 0.75, max_epochs: 1}}
  text: {{source: smoltalk, data: {root}/smoltalk, ratio: 0.25, max_epochs: 1}}
"""
ROW_GROUP = 1000
ROWS_PER_FILE = 20_000
STAGES = ("ingest", "judge", "encode", "pack", "facts")

DRIVER = (
    *("survey", "run", "read_enough", "pick_or_keep", "deal_samples"),
    *("pack_tasks", "write_index", "publish"),
)
"""Steps of `pipelines.main_path` whose own time is taken, without that of those within; `run` is
when Ray has the work."""
BUILDER = """
import json, sys, time
from pipelines import main_path
from pipelines.__main__ import main
spent, within = {}, [[0, 0]]
def timed(name, call):
    def wrapped(*args, **kwargs):
        wall, cpu = time.monotonic(), time.process_time()
        within.append([0, 0])
        try:
            return call(*args, **kwargs)
        finally:
            took = time.monotonic() - wall, time.process_time() - cpu
            inner = within.pop()
            within[-1] = [a + b for a, b in zip(within[-1], took)]
            before = spent.get(name, [0, 0])
            spent[name] = [a + b - c for a, b, c in zip(before, took, inner)]
    return wrapped
for name in sys.argv[1].split(","):
    home = main_path if hasattr(main_path, name) else main_path.picking
    setattr(home, name, timed(name, getattr(home, name)))
status = main(sys.argv[2:])
print("SPENT", json.dumps(spent))
sys.exit(status)
"""


def image_record(rng: np.random.Generator, longest: int) -> bytes:
    """A JPEG with sides of 48 to `longest` px."""
    height, width = (int(n) for n in rng.integers(48, longest, 2))
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((width, height)).save(out, "JPEG", quality=85)
    return out.getvalue()


def texts(rng: np.random.Generator, count: int) -> list[str]:
    """Texts of 20 words in the median, of the words of this project's documentation."""
    pages = (*Path().glob("*.md"), *Path("docs").glob("*.md"))
    words = np.array(re.findall(r"[A-Za-z']+[,.]?", " ".join(p.read_text() for p in pages)))
    lengths = np.minimum(rng.lognormal(3, 0.8, count), 400).astype(np.int64) + 1
    drawn = words[rng.integers(0, len(words), lengths.sum())]
    return [" ".join(said) for said in np.split(drawn, np.cumsum(lengths)[:-1])]


def write(root: Path, count: int, *, longest: int) -> None:
    """`count` samples in the layouts of The Cauldron and SmolTalk."""
    rng = np.random.default_rng(0)
    pool = [image_record(rng, longest) for _ in range(500)]
    image = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    images = 3 * count // 4
    for folder, name, rows in (
        (root / "cauldron" / "vqav2", "train-{:05d}.parquet", images),
        (root / "smoltalk" / "data" / "all", "train-{:05d}-of-99999.parquet", count - images),
    ):
        folder.mkdir(parents=True)
        for number, start in enumerate(range(0, rows, ROWS_PER_FILE)):
            size = min(ROWS_PER_FILE, rows - start)
            asked, said = texts(rng, size), texts(rng, size)
            asked = [f"{start + i}: {text}" for i, text in enumerate(asked)]
            columns: dict[str, Any] = {"source": ["made"] * size}
            if "cauldron" in str(folder):
                seen = [[{"bytes": pool[i], "path": None}] for i in rng.integers(0, 500, size)]
                pairs = zip(asked, said, strict=True)
                columns = {
                    "images": pa.array(seen, image),
                    "texts": [[{"user": a, "assistant": b, "source": "made"}] for a, b in pairs],
                }
            else:
                columns["messages"] = [
                    [{"role": "user", "content": a}, {"role": "assistant", "content": b}]
                    for a, b in zip(asked, said, strict=True)
                ]
            file = folder / name.format(number)
            pq.write_table(pa.table(columns), file, row_group_size=ROW_GROUP)
    (root / "mix.yaml").write_text(MIXTURE.format(root=root))


@dataclass(frozen=True, kw_only=True)
class Account:
    """What a build took."""

    wall: float
    cpu: float
    """s, of every process."""
    driver: dict[str, list[float]]
    """Step -> wall and CPU seconds of the driver."""
    driver_cpu: float
    driver_peak: int
    """Bytes, resident."""
    worker_peak: int
    """Bytes, resident, of the largest worker."""
    calls: tuple[int, int]
    """System calls that read and that write, of every process."""


def build(root: Path, out: Path, workers: int) -> Account:
    """A build from nothing, watched."""
    began = time.monotonic()
    place = [f"mixture={root}/mix.yaml", f"output={out}/mix", f"work={out}/work"]
    place.append(f"workers={workers}")
    log = out / "said"
    with log.open("w") as said:
        child = subprocess.Popen(
            [sys.executable, "-c", BUILDER, ",".join(DRIVER), "build", *place],
            stdout=said, stderr=subprocess.STDOUT,
        )  # fmt: skip
        seen: dict[tuple[int, float], dict[str, float]] = {}
        while child.poll() is None:
            watch(child.pid, seen)
            time.sleep(0.5)
    wall = time.monotonic() - began
    words = log.read_text()
    if child.returncode:
        raise SystemExit(words)
    driver = next(v for (pid, _), v in seen.items() if pid == child.pid)
    others = [v for (pid, _), v in seen.items() if pid != child.pid and v["worker"]]
    return Account(
        wall=wall,
        cpu=sum(v["cpu"] for v in seen.values()),
        driver=json.loads(words.rsplit("SPENT", 1)[1]),
        driver_cpu=driver["cpu"],
        driver_peak=int(driver["peak"]),
        worker_peak=int(max((v["peak"] for v in others or [driver]), default=0)),
        calls=(
            int(sum(v["reads"] for v in seen.values())),
            int(sum(v["writes"] for v in seen.values())),
        ),
    )


def watch(pid: int, seen: dict[tuple[int, float], dict[str, float]]) -> None:
    """`seen` holds the accounts of the process and of all that descend from it, as of now."""
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            with process.oneshot():
                times, io_ = process.cpu_times(), process.io_counters()
                before = seen.get((process.pid, process.create_time()), {"peak": 0, "worker": 0})
                seen[process.pid, process.create_time()] = {
                    "cpu": times.user + times.system,
                    "peak": max(before["peak"], process.memory_info().rss),
                    "worker": before["worker"] or process.name().startswith("ray::"),
                    "reads": io_.read_count,
                    "writes": io_.write_count,
                }
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue


def packing_reads(mix: Path) -> tuple[float, float, float]:
    """Of packing: bytes of the record batches that it opens over bytes of the samples that it
    writes; sample files opened by a shard; neighbouring batches of a file read in one go.
    """
    index = pl.DataFrame(pl.from_arrow(tables.read(mix / "index.arrow")))
    lines = index.with_columns(batch=pl.col("row") // BLOCK_ROWS)
    size = lines.group_by("part", "batch").agg(size=pl.col("num_bytes").sum())
    used = lines.filter(pl.col("copies") > 0).explode("shard")
    opened = used.unique(["part", "batch", "split", "shard"]).join(size, on=["part", "batch"])
    ratio = opened["size"].sum() / used["num_bytes"].sum()
    files = opened.group_by("split", "shard").agg(pl.col("part").n_unique())["part"].mean()
    order = opened.sort("split", "shard", "part", "batch")
    same = pl.all_horizontal(
        pl.col("batch").diff() == 1, *(pl.col(c) == pl.col(c).shift() for c in ("part", "shard"))
    )
    runs = len(order) - order.select(same.sum()).item()
    return ratio, float(files or 0), len(order) / max(runs, 1)  # type: ignore[arg-type]


def one_row(number: int) -> pa.Table:
    """A table of nothing much."""
    return pa.table({"number": pa.array([number], pa.int32())})


def overhead(tasks: int = 500) -> float:
    """CPU seconds that handing out a task and taking it back costs the driver, warm."""
    spec = Stage(name="one_row", call=one_row, writes=one_row(0).schema, version=1)
    with tempfile.TemporaryDirectory() as folder, ray_connection("local", workers=2) as slots:

        def spent(name: str, number: int) -> float:
            began = time.process_time()
            some = [
                Task(stage=spec, part=str(n), settings={"number": n}, out=f"{folder}/{name}/{n}")
                for n in range(number)
            ]
            run(some, slots=slots)
            return time.process_time() - began

        spent("warm", 20)
        return spent("measured", tasks) / tasks


def main(words: list[str]) -> None:
    """Prints Markdown tables."""
    settings = dict(w.split("=", 1) for w in words if "=" in w)
    workers, longest = int(settings.get("workers", "2")), int(settings.get("longest", "160"))
    sizes = [int(w) for w in words if "=" not in w] or [10_000, 100_000]
    found: list[tuple[int, Account, list[dict[str, Any]]]] = []
    for count in sizes:
        with tempfile.TemporaryDirectory(dir=settings.get("keep")) as folder:
            root = Path(folder)
            write(root / "data", count, longest=longest)
            (root / "out").mkdir()
            account = build(root / "data", root / "out", workers)
            stats = json.loads((root / "out" / "mix" / "stats.json").read_text())
            tasks = stats["timings"]["tasks"]
            found.append((count, account, tasks))
            report(count, account, tasks, root)
    per_task = overhead()
    count, account, tasks = found[-1]
    serial = sum(account.driver[step][1] for step in DRIVER if step != "run")
    # The slope from the smallest size; of one size alone, all of it is taken to grow.
    least, first = found[0][:2] if len(found) > 1 else (0, None)
    smallest = sum(first.driver[step][1] for step in DRIVER if step != "run") if first else 0.0
    driver = serial + (serial - smallest) / (count - least) * (50_000_000 - count)
    print(f"\nHanding out a task: {per_task * 1e3:.2f} CPU ms of the driver.")
    print(f"Driver at 50 M samples: {driver:,.0f} s.\n")
    scale = 50e6 / count
    print(row(BOUNDS, rule=True))
    samples = 50e6
    work = Work(
        tasks=len(tasks) * scale,
        seconds=sum(t["seconds"] for t in tasks) * scale,
        longest=max(t["seconds"] for t in tasks),
        written=sum(t["bytes"] for t in tasks) * scale,
        samples=samples,
    )
    lines = simulate(work, driver=driver / samples, per_task=per_task)
    print("\n".join(lines))


def report(count: int, account: Account, tasks: list[dict[str, Any]], root: Path) -> None:
    """Prints what one size took."""
    ratio, files, run = packing_reads(root / "out" / "mix")
    source = [p.stat().st_size for p in (root / "data").rglob("*.parquet")]
    print(
        f"\n{count:,} samples: {account.wall:.1f} s, {account.cpu:.1f} CPU s, of which the driver"
    )
    print(
        f"{account.driver_cpu:.1f}; {1e3 * account.cpu / count:.2f} CPU ms a sample. Peak memory:"
    )
    print(f"worker {account.worker_peak / 1e6:.0f} MB, driver {account.driver_peak / 1e6:.0f} MB.")
    print(f"System calls that read {account.calls[0]:,}, that write {account.calls[1]:,}.")
    print(f"Packing reads {ratio:.2f} times what it writes, from {files:.1f} files a shard, ")
    print(f"{run:.1f} record batches in one go.\n")
    head = ["stage", "tasks", "seconds", "ms a sample", "files opened", "MB read", "MB written"]
    print(row(head, rule=True))
    each = {stage: [t for t in tasks if t["stage"] == stage] for stage in STAGES}
    written = {stage: sum(t["bytes"] for t in mine) / 1e6 for stage, mine in each.items()}
    parts, shards = len(each["ingest"]), len(each["pack"])
    # What stages ask for: whole files, but of packing (files are mapped: some is never fetched).
    asked = {
        "ingest": (len(source), sum(source) / 1e6),
        "judge": (parts, written["ingest"]),
        "encode": (parts, written["ingest"]),
        "pack": (round(2 * files * shards), ratio * written["pack"]),
        "facts": (shards, written["pack"]),
    }
    for stage, mine in each.items():
        seconds = sum(t["seconds"] for t in mine)
        cells = [f"{len(mine):,}", f"{seconds:.1f}", f"{1e3 * seconds / count:.2f}"]
        opened, read = asked[stage]
        print(row([stage, *cells, f"{opened:,}", f"{read:,.1f}", f"{written[stage]:,.1f}"]))
    print()
    print(row(["driver", "s", "CPU s"], rule=True))
    for step, (wall, cpu) in account.driver.items():
        print(row([step, f"{wall:.1f}", f"{cpu:.2f}"]))
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
