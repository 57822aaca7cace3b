"""Dealing of an index that is whole in memory, as plainly as can be: what dealing by ranges has to
equal.
"""

import math

import numpy as np
import polars as pl

from mixtures import draw
from mixtures.config import Mixture

BLOCK_ROWS, BLOCKS_MIXED, TOKEN_BYTES = 16, 4, 5
GOLDEN = (math.sqrt(5) - 1) / 2
READ = ["component", "subset", "split", "part", "row", "copies", "num_tokens", "num_learned",
        "num_crops", "duration", "num_bytes"]  # fmt: skip


def deal(index: pl.DataFrame, mixture: Mixture) -> pl.DataFrame:
    """One row per copy: split, shard, order, index_row, sorted so; shards count from 0 per split.

    Reads: id, component, subset, split, copies, num_tokens, num_learned, num_crops, duration,
    num_bytes, part, row of a picked index. `order` is the place within the shard.
    """
    index_row = np.flatnonzero((index["copies"] > 0).to_numpy())
    if not len(index_row):
        return _dealt(*(np.zeros(0, np.int64) for _ in range(3)), val=np.zeros(0, bool))
    keys = draw.sample_keys(index["id"].gather(index_row), seed=mixture.seed)
    used = index.select(READ)[index_row]
    copies = used["copies"].to_numpy().astype(np.int64)
    unit = np.maximum(_units(used, mixture), 1e-9)  # what counts nothing still has a place
    q = _places(used, unit, keys, part_window=4)

    row = np.repeat(np.arange(used.height), copies)
    number = np.arange(len(row)) - np.repeat(np.cumsum(copies) - copies, copies)  # j of its copies
    place = (q[row] + number) / copies[row]
    val = (used["split"] == "val").to_numpy()
    size = (used["num_bytes"] + TOKEN_BYTES * used["num_tokens"]).to_numpy()
    shard = np.zeros(len(row), np.int64)
    for side in np.unique(val):
        mine = val[row] == side
        count = max(
            math.ceil(size[row][mine].sum() / mixture.shard_bytes), int(copies[row][mine].max()), 1
        )
        shard[mine] = np.minimum((place[mine] * count).astype(np.int64), count - 1)
    order = np.lexsort((keys[row], place, shard, val[row]))
    row, shard, sides = row[order], shard[order], val[row][order]
    new = np.r_[True, (shard[1:] != shard[:-1]) | (sides[1:] != sides[:-1])]
    start = np.maximum.accumulate(np.where(new, np.arange(len(row)), 0))
    return _dealt(_gapless(sides, shard), np.arange(len(row)) - start, index_row[row], val=sides)


def _units(used: pl.DataFrame, mixture: Mixture) -> np.ndarray:
    if mixture.measure == "samples":
        return np.ones(used.height)
    column = {"tokens": "num_tokens", "learned_tokens": "num_learned"}[mixture.measure]
    return used[column].to_numpy().astype(np.float64)


def _places(
    used: pl.DataFrame, unit: np.ndarray, keys: np.ndarray, *, part_window: int
) -> np.ndarray:
    """[N] float64 in [0, 1): where in its stream each sample lies."""
    of = ["component", "subset"]
    size = pl.coalesce("duration", "num_crops").cast(pl.Float64) * 1000
    block = (pl.col("row") // BLOCK_ROWS).cast(pl.Int32)
    lines = used.select(*of, "part", block=block, size=size.cast(pl.Int64))
    stream = used.select(pl.struct("split", *of, "copies").rank("dense")).to_series().to_numpy()
    for within, what, name, count in (
        (of, ["part"], "window", part_window),
        ([*of, "window"], ["part", "block"], "group", BLOCKS_MIXED),
    ):
        together = _together(lines, within, what, count=count, name=name)
        lines = lines.join(together, on=[*within, *what], how="left", maintain_order="left")
        turns = _in_turn(lines, within, name)
        lines = lines.join(turns, on=[*within, name], how="left", maintain_order="left")
    window, group = lines["window_turn"].to_numpy(), lines["group_turn"].to_numpy()
    key = draw.rehash(keys, "order")
    cell = lines.select(pl.struct(*of, "window", "group").rank("dense")).to_series().to_numpy()
    within = cell.astype(np.int64) * (int(stream.max()) + 1) + stream
    turn = _turns(within, lines["size"].to_numpy(), key)
    order = np.lexsort((key, turn, cell, group, window, stream))
    sizes, streams = unit[order], stream[order]
    total = np.bincount(streams, sizes)
    through = np.cumsum(sizes)
    begins = np.flatnonzero(np.r_[True, streams[1:] != streams[:-1]])
    base = np.repeat((through - sizes)[begins], np.diff(np.r_[begins, len(order)]))
    jitter = draw.unit_fractions(draw.rehash(keys[order], "jitter"))
    q = np.empty(len(order))
    q[order] = np.clip((through - sizes - base + jitter * sizes) / total[streams], 0, 1 - 1e-9)
    return q


def _turns(cell: np.ndarray, size: np.ndarray, key: np.ndarray) -> np.ndarray:
    """[N] float64 in [0, 1): a place among those of the same `cell`, such that every stretch of
    places has all ranks of size; equal sizes rank by key.
    """
    order = np.lexsort((key, size, cell))
    new = np.r_[True, cell[order][1:] != cell[order][:-1]]
    start = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    turn = np.empty(len(order))
    shift = draw.unit_fractions(draw.rehash(key[order[start]], "shift"))
    turn[order] = ((np.arange(len(order)) - start) * GOLDEN + shift) % 1.0
    return turn


def _sized(lines: pl.DataFrame, unit: list[str], *, name: str) -> pl.DataFrame:
    """A line per `unit`, with the mean size of its samples and a hash of what it is."""
    mean = pl.col("size").sum() / pl.len()  # a sum of integers: the same in any order
    found = lines.group_by(unit).agg(mean.alias("mean")).sort(unit)
    words = pl.concat_str([pl.col(column).cast(pl.String) for column in unit], separator="/")
    keys = draw.sample_keys(found.select(words).to_series(), seed=0)
    return found.with_columns(key=pl.Series(draw.rehash(keys, name)))


def _in_turn(lines: pl.DataFrame, within: list[str], name: str) -> pl.DataFrame:
    """A line per `name` with its place among those `within`."""
    found = _sized(lines, [*within, name], name=f"{name} turn")
    cell = found.select(pl.struct(within).rank("dense")).to_series().to_numpy()
    turn = _turns(cell, found["mean"].to_numpy(), found["key"].to_numpy())
    return found.select(*within, name, pl.Series(f"{name}_turn", turn))


def _together(
    lines: pl.DataFrame, within: list[str], unit: list[str], *, count: int, name: str
) -> pl.DataFrame:
    """A line per `unit` with the number of its `name`: at most `count` units `within` have the
    same, one of each of `count` ranges of mean sizes.
    """
    rank = pl.struct("mean", "key").rank("ordinal").over(within).cast(pl.Int64) - 1
    found = _sized(lines, [*within, *unit], name=name).with_columns(
        range=rank // ((pl.len().over(within) + count - 1) // count)
    )
    place = pl.col("key").rank("ordinal").over(*within, "range").cast(pl.Int64) - 1
    return found.select(*within, *unit, place.cast(pl.Int32).alias(name))


def _gapless(val: np.ndarray, shard: np.ndarray) -> np.ndarray:
    """Shards of each split numbered 0, 1, 2, ... where an empty stretch left a gap."""
    out = np.empty(len(shard), np.int64)
    for side in np.unique(val):
        mine = val == side
        out[mine] = np.unique(shard[mine], return_inverse=True)[1]
    return out


def _dealt(
    shard: np.ndarray, order: np.ndarray, index_row: np.ndarray, *, val: np.ndarray
) -> pl.DataFrame:
    columns = {"val": val, "shard": shard, "order": order, "index_row": index_row}
    split = pl.when("val").then(pl.lit("val")).otherwise(pl.lit("train")).cast(pl.Categorical)
    return pl.DataFrame(columns).select(
        split.alias("split"),
        pl.col("shard", "order").cast(pl.Int32),
        pl.col("index_row").cast(pl.Int64),
    )
