"""What the card needs to know of each packed row: FACTS, taken from a shard by a task beside it.

| function     | reads                                  | gives                                  |
|--------------|----------------------------------------|----------------------------------------|
| row_facts    | a shard (PACKED), DEALT of its samples | FACTS: one narrow line per packed row  |
| facts_in     | a file of FACTS                        | the same, as `stats` reads it          |

Ids are not in FACTS: the driver reads those of every shard, so they are narrow.
"""

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from mixtures import draw
from pipelines.engine import tables

FACTS: dict[str, Any] = {
    "split": pl.String,
    "shard": pl.Int32,
    "row": pl.Int32,  # within the shard
    "num_tokens": pl.Int32,
    "num_learned": pl.Int32,
    "num_crops": pl.Int32,
    "num_images": pl.Int32,
    "num_samples": pl.Int32,
    "flops": pl.Float64,  # modelled
    # Of each sample of the row (of each sequence of one that was split):
    "components": pl.List(pl.Int16),  # its place in the mixture
    "sample_tokens": pl.List(pl.Int32),
    "sample_learned": pl.List(pl.Int32),
    "sample_crops": pl.List(pl.Int32),
    "seconds": pl.List(pl.Float32),  # of its video, or null
    "grids": pl.List(pl.String),  # per image, "3x4"; "0x0" = global view only
}
FACTS_SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("shard", pa.int32()),
        ("row", pa.int32()),
        *((name, pa.int32()) for name in ("num_tokens", "num_learned", "num_crops")),
        *((name, pa.int32()) for name in ("num_images", "num_samples")),
        ("flops", pa.float64()),
        ("components", pa.list_(pa.int16())),
        *((f"sample_{name}", pa.list_(pa.int32())) for name in ("tokens", "learned", "crops")),
        ("seconds", pa.list_(pa.float32())),
        ("grids", pa.list_(pa.string())),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
    ]
)
"""The same as a file; each line says of the whole shard how large it is, and its SHA-256."""
DEALT = pa.schema(
    [
        ("key", pa.uint64()),  # of the id (mixtures/draw.py)
        ("component", pa.int16()),  # its place in the mixture
        ("num_crops", pa.int32()),
        ("seconds", pa.float32()),  # of its video, or null
    ]
)
"""What FACTS need of each sample of a shard."""
FACTS_READ = ["loss_mask", "seq_lengths", "grids", "sample_ids"]
FACTS_ROWS = 4096
"""Rows taken at once: enough that an expression costs its rows, few enough to bound memory."""


def row_facts(
    table: pa.Table, *, shard: str, samples: pa.Table, tokens_per_crop: int, seed: int
) -> pl.DataFrame:
    """FACTS of a shard, one line per packed row in order; `shard` is its file ("val-00003.arrow").

    Reads: FACTS_READ of PACKED; a row has the tokens of its samples. `samples`: DEALT of all its
    samples, each once, and the `seed` of their keys. Raises ValueError where the shard holds
    another sample.
    """
    table = table.select(FACTS_READ).combine_chunks()
    about = pl.DataFrame(samples).sort("key")
    held = draw.sample_keys(table["sample_ids"].combine_chunks().flatten().to_pylist(), seed=seed)
    place = np.searchsorted(about["key"].to_numpy(), held)
    if not np.array_equal(about["key"].gather(np.minimum(place, len(about) - 1)).to_numpy(), held):
        raise ValueError(f"{shard} holds samples that were not dealt to it: of another build?")
    sequences = np.maximum(np.bincount(place, minlength=len(about)), 1)  # of a sample
    about = about.with_columns(num_crops=pl.col("num_crops") // pl.Series(sequences))[place]
    model = "2.2B" if tokens_per_crop > 64 else "500M"
    parts, start = [], 0
    for batch in table.to_batches(max_chunksize=FACTS_ROWS):
        count = len(batch["sample_ids"].flatten())
        parts.append(_batch_facts(batch, about[start : start + count], model=model))
        start += count
    split, number = shard.removesuffix(".arrow").split("-")
    frame = pl.concat(parts) if parts else pl.DataFrame(schema=FACTS).drop("split", "shard", "row")
    return frame.select(
        pl.lit(split).alias("split"),
        pl.lit(int(number), dtype=pl.Int32).alias("shard"),
        pl.int_range(pl.len(), dtype=pl.Int32).alias("row"),
        pl.all(),
    )


def _batch_facts(batch: pa.RecordBatch, about: pl.DataFrame, *, model: str) -> pl.DataFrame:
    """The facts of one record batch; `about` has a line per sequence.

    The learned tokens of one are a difference of running sums.
    """
    from tokenization.pack import row_flops

    mask = batch["loss_mask"].flatten().to_numpy(zero_copy_only=False)
    lengths = batch["seq_lengths"].flatten().to_numpy().astype(np.int64)
    running = np.concatenate([[0], np.cumsum(mask, dtype=np.int64)])
    ends = np.cumsum(lengths)
    learned = running[ends] - running[ends - lengths]
    offsets = pa.array(_offsets(batch["seq_lengths"]))
    per_sequence = {
        "components": about["component"],
        "sample_learned": pl.Series(learned.astype(np.int32)),
        "sample_crops": about["num_crops"],
        "seconds": about["seconds"],
    }
    per_row = pl.DataFrame(
        {
            "sample_tokens": pl.from_arrow(batch["seq_lengths"]),
            "grids": pl.from_arrow(batch["grids"]),
            **{
                name: pl.from_arrow(pa.ListArray.from_arrays(offsets, values.to_arrow()))
                for name, values in per_sequence.items()
            },
        }
    )
    cell = pl.element().struct
    crops = cell.field("rows").cast(pl.Int32) * cell.field("cols").cast(pl.Int32) + 1
    name = pl.format("{}x{}", cell.field("rows"), cell.field("cols"))
    counted = per_row.with_columns(num_crops=pl.col("grids").list.eval(crops).list.sum())
    rows = counted.select("sample_tokens", "num_crops").iter_rows()
    flops = [float(row_flops(lengths, crops, model=model)) for lengths, crops in rows]
    return counted.with_columns(
        pl.col("sample_tokens").list.sum().alias("num_tokens"),
        pl.col("sample_learned").list.sum().alias("num_learned"),
        pl.col("grids").list.len().alias("num_images"),
        pl.col("sample_tokens").list.len().alias("num_samples"),
        pl.Series("flops", flops, pl.Float64),
        pl.col("grids").list.eval(name),
    ).select(pl.col(name).cast(kind) for name, kind in list(FACTS.items())[3:])


def _offsets(lists: pa.ListArray) -> np.ndarray:
    """Where each list starts in the flattened values, and the end; from 0 also for a slice."""
    offsets = lists.offsets.to_numpy().astype(np.int32)
    return offsets - offsets[0]


def facts_in(path: str) -> pl.DataFrame:
    """FACTS of a file."""
    return pl.DataFrame(tables.compact(tables.read(path, columns=list(FACTS))))
