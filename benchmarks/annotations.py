"""What joining annotations to samples costs: CPU seconds and peak memory at so many keys.

    python -m benchmarks.annotations [KEYS] [FIELDS]

Shards of 10,000 keys with FIELDS numbers each, of which two are asked for, as JSON (key -> fields),
JSON lines and Parquet; and one Parquet file of all keys. Each layout in a process of its own.
"""

import json
import multiprocessing
import random
import sys
import tempfile
import time
from pathlib import Path

SHARD = 10_000
"""Keys of a shard: DataComp-VLM's pool has 9,908 samples a tar."""
ASKED = (("quality", "scores.f1"), ("perplexity", "f2"))


def annotation(number: int, fields: int) -> dict[str, object]:
    """What is said of one sample."""
    drawn = random.Random(number)
    said: dict[str, object] = {f"f{n}": round(drawn.random(), 6) for n in range(2, fields)}
    return {"scores": {"f1": drawn.random()}, **said}


def write_shards(folder: Path, layout: str, keys: int, fields: int) -> int:
    """The files of a layout; returns their bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    size = keys if layout == "one parquet" else SHARD
    for shard, first in enumerate(range(0, keys, size)):
        numbers = range(first, min(keys, first + size))
        path = folder / f"{shard:06d}.{layout.rpartition(' ')[2]}"
        if layout == "json":
            path.write_text(json.dumps({f"{n:09d}": annotation(n, fields) for n in numbers}))
        elif layout == "jsonl":
            rows = ({"__key__": f"{n:09d}", **annotation(n, fields)} for n in numbers)
            path.write_text("\n".join(map(json.dumps, rows)))
        else:
            rows = [{"__key__": f"{n:09d}", **annotation(n, fields)} for n in numbers]
            pq.write_table(pa.Table.from_pylist(rows), path)
            del rows
    return sum(path.stat().st_size for path in folder.iterdir())


def join_all(folder: Path, layout: str, keys: int, found) -> None:  # type: ignore[no-untyped-def]
    """Every shard is joined; puts (CPU s, peak MB above the start, facts) into `found`."""
    import pyarrow as pa

    from pipelines.engine import timings
    from pipelines.reading.files import local_file
    from pipelines.reading.joining import FactFiles, joined

    paths = sorted(folder.iterdir())
    timings.reset_peak()
    before, start, facts = timings.peak_bytes(), time.process_time(), 0
    for first in range(0, keys, SHARD):
        name = "000000" if layout == "one parquet" else f"{first // SHARD:06d}"
        files = {name: local_file(paths[int(name)], folder)}
        numbers = range(first, min(keys, first + SHARD))
        samples = pa.table({"shard": [name] * len(numbers), "key": [f"{n:09d}" for n in numbers]})
        made, _ = joined(samples, FactFiles(files=files, key="__key__", fields=ASKED))
        facts += len(made) - made["quality"].null_count
    found.put((time.process_time() - start, (timings.peak_bytes() - before) / 1e6, facts))


def main(keys: int = 1_000_000, fields: int = 20) -> None:
    """Prints a line per layout."""
    spawn = multiprocessing.get_context("spawn")
    for layout in ("json", "jsonl", "parquet", "one parquet"):
        with tempfile.TemporaryDirectory() as name:
            size = write_shards(Path(name), layout, keys, fields)
            found = spawn.Queue()
            process = spawn.Process(target=join_all, args=(Path(name), layout, keys, found))
            process.start()
            seconds, peak, facts = found.get()
            process.join()
            assert facts == keys
            print(
                f"{layout:12} {keys:,} keys, {fields} fields, {size / 1e6:,.0f} MB: "
                f"{seconds:.1f} CPU s, peak {peak:,.0f} MB above imports"
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
