"""Where in its stream each sample lies, 0..1: q, which `deal` turns into places and shards.

Samples, copies --sums of parts--> windows --some at a time: blocks, groups, turns--> q
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from mixtures import draw
from mixtures.columns import Column, stretches
from mixtures.config import Mixture
from mixtures.draws import UNIT, in_val
from mixtures.samples import Samples

BLOCK_ROWS = 16
"""Rows of a part that stay near each other: a record batch of a samples file, so that a shard reads
whole batches (an object store gives no less) and each batch is read by few shards."""
BLOCKS_MIXED = 4
"""Blocks whose samples are mixed with each other."""
GOLDEN = (math.sqrt(5) - 1) / 2
"""Multiples of it fill [0, 1) most evenly (Weyl; van Ravenstein 1988, The three gap theorem)."""
TOKEN_BYTES = 5
"""Bytes of a token in a shard: an int32 id and (one byte, rounded up) its bit of the loss mask."""

OF = ["component", "subset"]


@dataclass(kw_only=True)
class Used:
    """What of the samples is used, summed up."""

    of_part: np.ndarray
    """[parts, 2] how many samples, and the sum of their sizes."""
    units: dict[int, float]
    """Stream -> units of its samples."""
    bytes: list[int]
    """[sides] of all copies."""
    copies: list[int]
    """[sides] in all."""
    most: list[int]
    """[sides] of one sample."""


def used_of(samples: Samples, copies: Column, mixture: Mixture, *, at_once: int) -> Used:
    """The sums over all samples that are used."""
    used = Used(
        of_part=np.zeros((len(samples.parts), 2), np.int64),
        units={},
        bytes=[0, 0],
        copies=[0, 0],
        most=[0, 0],
    )
    for start, stop in stretches(len(samples), rows=at_once):
        there = copies[start:stop]
        row = np.flatnonzero(there > 0)
        key, size, num_bytes, tokens = (
            values[row]
            for values in samples.read(("key", "size", "num_bytes", "num_tokens"), start, stop)
        )
        part, many, val = samples.part_of(start, stop)[row], there[row], in_val(key, mixture)
        parts = len(samples.parts)
        used.of_part[:, 0] += np.bincount(part, minlength=parts)
        used.of_part[:, 1] += np.bincount(part, size, parts).astype(np.int64)
        unit = _units(samples, start, stop, mixture)[row]
        stream, inverse = np.unique(_streams(samples, part, many, val), return_inverse=True)
        for name, units in zip(stream.tolist(), np.bincount(inverse, unit), strict=True):
            used.units[name] = used.units.get(name, 0.0) + units
        for side in (0, 1):
            mine = val == bool(side)
            whole = num_bytes[mine] + TOKEN_BYTES * tokens[mine].astype(np.int64)
            used.bytes[side] += int((whole * many[mine]).sum())
            used.copies[side] += int(many[mine].sum())
            used.most[side] = max(used.most[side], int(many[mine].max(initial=0)))
    return used


def _streams(samples: Samples, part: np.ndarray, copies: np.ndarray, val: np.ndarray) -> np.ndarray:
    """int64 per sample: which stream it is of."""
    return (samples.subset_of[part] * 2 + val) << 32 | copies


def _units(samples: Samples, start: int, stop: int, mixture: Mixture) -> np.ndarray:
    """float64: what counts nothing still has a place."""
    if mixture.measure == "samples":
        return np.ones(stop - start)
    units = samples.columns[UNIT[mixture.measure]][start:stop]
    return np.maximum(units.astype(np.float64), 1e-9)


def _named(samples: Samples, part: np.ndarray) -> pl.DataFrame:
    """Component, subset, part of each of these parts."""
    subset = samples.subset_of[part]
    component = pl.Series([component for component, _ in samples.subsets], dtype=pl.String)
    name = pl.Series([name for _, name in samples.subsets], dtype=pl.String)
    return pl.DataFrame(
        {
            "component": component.gather(subset),
            "subset": name.gather(subset),
            "part": pl.Series(samples.parts, dtype=pl.String).gather(part),
        }
    )


def windows_of(samples: Samples, used: Used, *, part_window: int) -> pl.DataFrame:
    """A line per part that is used: its number, window and window_turn; by subset and turn."""
    part = np.flatnonzero(used.of_part[:, 0] > 0)
    count, size = (pl.Series(column) for column in used.of_part[part].T)
    lines = _named(samples, part).with_columns(
        number=pl.Series(part), place=pl.Series(samples.subset_of[part]), count=count, size=size
    )
    lines = _mixed(lines, OF, ["part"], "window", count=part_window)
    return lines.select("number", "place", "window", "window_turn").sort(
        "place", "window_turn", "window", "number"
    )


def _mixed(
    lines: pl.DataFrame, within: list[str], what: list[str], name: str, *, count: int
) -> pl.DataFrame:
    """The lines with `name`, the number of what is mixed, and its turn."""
    together = _together(lines, within, what, count=count, name=name)
    lines = lines.join(together, on=[*within, *what], how="left", maintain_order="left")
    turns = _in_turn(lines, within, name)
    return lines.join(turns, on=[*within, name], how="left", maintain_order="left")


def some_windows(
    samples: Samples, windows: pl.DataFrame, *, at_once: int
) -> Iterator[pl.DataFrame]:
    """The lines of `windows`, those of about `at_once` samples at a time; windows of one turn stay
    together.
    """
    if windows.is_empty():
        return
    turn = windows.select(pl.struct("place", "window_turn").rle_id()).to_series().to_numpy()
    sizes = np.diff(samples.starts)[windows["number"].to_numpy()]
    before = np.cumsum(np.bincount(turn, sizes)) // at_once
    for _, some in windows.group_by(pl.Series(before[turn]), maintain_order=True):
        yield some


def write_places(
    samples: Samples,
    copies: Column,
    q: Column,
    parts: pl.DataFrame,
    used: Used,
    reached: dict[int, float],
    mixture: Mixture,
) -> None:
    """`q` of the samples of some windows; `reached`: stream -> units of it up to them."""
    number = parts["number"].to_numpy()
    stretch = [(int(samples.starts[n]), int(samples.starts[n + 1])) for n in number]
    many = np.concatenate([copies[a:b] for a, b in stretch])
    here = np.flatnonzero(many > 0)
    many = many[here]
    key, size, row = (
        np.concatenate([samples.columns[name][a:b] for a, b in stretch])[here]
        for name in ("key", "size", "row")
    )
    unit = np.concatenate([_units(samples, a, b, mixture) for a, b in stretch])[here]
    line = np.repeat(np.arange(len(number)), [b - a for a, b in stretch])[here]
    stream = _streams(samples, number[line], many, in_val(key, mixture))
    position, block = _positions(samples, parts, line, row // BLOCK_ROWS, size)
    hashed = draw.rehash(key, "order")
    names, which = np.unique(stream, return_inverse=True)
    cell = which * (int(position.max(initial=0)) + 1) + position[block]
    turn = _turns(cell, size, hashed)
    order = np.lexsort((hashed, turn, cell))
    sizes, streams = unit[order], which[order]
    through = np.cumsum(sizes)
    begins = np.flatnonzero(np.r_[True, streams[1:] != streams[:-1]])
    had = np.array([reached[name] for name in names.tolist()])
    base = (through - sizes)[begins] - had
    jitter = draw.unit_fractions(draw.rehash(key[order], "jitter"))
    total = np.array([used.units[name] for name in names.tolist()])
    place = (through - sizes - base[streams] + jitter * sizes) / total[streams]
    found = np.empty(len(order))
    found[order] = np.clip(place, 0, 1 - 1e-9)
    for name, end in zip(names.tolist(), through[np.r_[begins[1:], len(order)] - 1], strict=True):
        reached[name] = float(end - base[names.tolist().index(name)])
    whole = np.zeros(sum(b - a for a, b in stretch))
    whole[here] = found
    at = 0
    for a, b in stretch:
        q.write(a, whole[at : at + b - a])
        at += b - a


def _positions(
    samples: Samples, parts: pl.DataFrame, line: np.ndarray, block: np.ndarray, size: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """([blocks] the place of its cell in the order of windows and groups, [N] each one's block);
    `line` is the part of each, among `parts`.
    """
    code, inverse = np.unique(line << 32 | block, return_inverse=True)
    of = (code >> 32).astype(np.int64)
    blocks = _named(samples, parts["number"].to_numpy()[of]).with_columns(
        parts.select("window", "window_turn")[of],
        block=pl.Series((code & 0xFFFF_FFFF).astype(np.int32)),
        size=pl.Series(np.bincount(inverse, size).astype(np.int64)),
        count=pl.Series(np.bincount(inverse)),
    )
    within = [*OF, "window"]
    mixed = _mixed(blocks, within, ["part", "block"], "group", count=BLOCKS_MIXED)
    ordered = pl.struct(*OF, "window_turn", "group_turn", "window", "group")
    rank = mixed.select(ordered.rank("dense").cast(pl.Int64)).to_series().to_numpy() - 1
    return rank, inverse


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
    mean = pl.col("size").sum() / pl.col("count").sum()  # of integers: the same in any order
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
