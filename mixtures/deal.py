"""The order of a mixture: every copy gets a place so that every stretch of it holds the ratios.

    picked samples --order of a stream--> q in [0, 1) --copies--> place (q + j) / copies --> shards

A *stream* is what should be spread evenly: the samples of one subset that are used the same number
of times. Inside it, parts are taken in windows of a few (so that a shard opens few), the rows of a
window in groups of a few blocks, the samples of a group mixed. A sample's q is its place in the
stream by units before it, so that any stretch [a, b) of places holds (b - a) of every stream, to a
sample. Copy j of c lies at (q + j) / c: copies are 1/c of the whole apart, which is about one epoch
of the subset.

Size, too, is spread evenly: the seconds of videos, the crops of other samples. A window gets parts
and a group blocks from every range of mean sizes, by hash within a range; windows, groups of a
window and samples of a group follow each other so that every stretch has all ranges of sizes: the
one of rank r among n lies at the fraction of r times the golden ratio, shifted by a hash.

Only what is of parts (windows) is worked out of all at once; the samples of some windows at a time
get their q, and the copies of some shards at a time their order.

Where a component's ratio is a schedule, places of its train split are moved to where so much of it
has passed (`schedule.position_of`): every stretch then holds what the schedule says of it.

Shards are equal stretches. There are at least as many as any sample has copies, so no shard, and
with it no packed row, holds a sample twice.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pyarrow as pa

from mixtures.columns import ROWS, Column, stretches
from mixtures.config import Mixture, schedules_of
from mixtures.draws import in_val
from mixtures.places import TOKEN_BYTES, Used, some_windows, used_of, windows_of, write_places
from mixtures.samples import Samples, samples_of
from mixtures.schedule import crowding, position_of

SIDES = ("train", "val")
COPY = np.dtype(
    [("shard", np.int32), ("place", np.float64), ("key", np.uint64), ("sample", np.int64)]
)
"""Of a copy: where in the order of its split it lies."""


@dataclass(frozen=True, kw_only=True)
class Shards:
    """The shards of one split."""

    count: int
    """Equal stretches."""
    sizes: np.ndarray
    """[count] copies in each."""

    @property
    def numbers(self) -> np.ndarray:
        """[count] the number of each: 0, 1, 2, ... where an empty stretch leaves no gap."""
        return np.cumsum(self.sizes > 0) - 1

    def of(self, place: np.ndarray) -> np.ndarray:
        """The stretch in which each place lies."""
        return np.minimum((place * self.count).astype(np.int64), self.count - 1)


@dataclass(frozen=True, kw_only=True)
class Dealt:
    """Where every copy of the samples of an index lies."""

    samples: Samples
    copies: Column
    q: Column
    """float64: where in its stream each sample lies."""
    groups: list[tuple[int, list[Column]]]
    """(Side, COPY of the copies of some consecutive shards) in the order of the shards."""
    shards: tuple[Shards, Shards]
    """Of train, of val."""
    mixture: Mixture

    def in_order(self) -> Iterator[tuple[str, int, np.ndarray]]:
        """(Split, number, samples in deal order) of every shard, once: what it reads is cleared."""
        for side, columns in self.groups:
            numbers = self.shards[side].numbers
            for column in columns:
                some = column[:]
                column.clear()
                some = some[np.lexsort((some["key"], some["place"], some["shard"]))]
                begins = np.flatnonzero(np.r_[True, some["shard"][1:] != some["shard"][:-1]])
                for shard in np.split(some, begins[1:]) if len(some) else ():
                    yield SIDES[side], int(numbers[shard["shard"][0]]), shard["sample"]

    def shards_of(self, start: int, stop: int) -> pa.LargeListArray:
        """Of each sample of a stretch the shards that hold it, ascending; empty where none."""
        sample, place, side = _copies_of(self, start, stop)
        number = np.empty(len(place), np.int32)
        for which, shards in enumerate(self.shards):
            mine = side == which
            number[mine] = shards.numbers[shards.of(place[mine])]
        ends = np.cumsum(np.bincount(sample - start, minlength=stop - start))
        return pa.LargeListArray.from_arrays(pa.array(np.r_[0, ends]), pa.array(number))


def _copies_of(dealt: Dealt, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(Sample, place, side) of every copy of a stretch of samples."""
    copies, q = dealt.copies[start:stop], dealt.q[start:stop]
    row = np.repeat(np.arange(stop - start), copies)
    number = np.arange(len(row)) - np.repeat(np.cumsum(copies) - copies, copies)  # j of its copies
    key = dealt.samples.columns["key"][start:stop]
    side = in_val(key[row], dealt.mixture).astype(np.int8)
    place = place_of(q[row], number, copies[row])
    if schedules := schedules_of(dealt.mixture):
        for subset, where in dealt.samples.runs(start, stop):
            if points := schedules.get(dealt.samples.subsets[subset][0]):
                first, last = np.searchsorted(row, (where.start, where.stop))
                mine = np.flatnonzero(side[first:last] == 0) + first
                place[mine] = position_of(points, place[mine])
    return row + start, place, side


def place_of(q: np.ndarray, number: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """Where in the order of its split a copy lies, 0..1: number j of so many of a sample at q."""
    return (q + number) / copies


def deal_samples(
    samples: Samples,
    copies: Column,
    mixture: Mixture,
    *,
    part_window: int = 4,
    at_once: int = ROWS,
) -> Dealt:
    """Where every copy lies. `copies`: int32, how often each sample is used. `part_window`: parts
    mixed at a time; `at_once`: samples in memory.
    """
    used = used_of(samples, copies, mixture, at_once=at_once)
    q = samples.new(np.float64)
    for start, stop in stretches(len(samples), rows=at_once):
        q.append(np.zeros(stop - start))
    windows = windows_of(samples, used, part_window=part_window)
    reached = dict.fromkeys(used.units, 0.0)
    for parts in some_windows(samples, windows, at_once=at_once):
        write_places(samples, copies, q, parts, used, reached, mixture)
    counts = [
        max(math.ceil(used.bytes[side] / mixture.shard_bytes), used.most[side], 1)
        for side in (0, 1)
    ]
    dealt = Dealt(
        samples=samples, copies=copies, q=q, groups=[], shards=_shards(counts), mixture=mixture
    )
    if schedules_of(mixture):
        counts[0] = _uneven_count(dealt, used, counts[0], at_once=at_once)
        dealt = replace(dealt, shards=_shards(counts))
    each = []
    for side in (0, 1):
        of_one = max(1, used.copies[side] // counts[side])
        each.append(max(1, at_once // of_one))
        columns = [samples.new(COPY) for _ in range(math.ceil(counts[side] / each[side]))]
        dealt.groups.append((side, columns if used.copies[side] else []))
    for start, stop in stretches(len(samples), rows=at_once):
        _scatter(dealt, start, stop, each)
    return dealt


def _shards(counts: list[int]) -> tuple[Shards, Shards]:
    train, val = (Shards(count=n, sizes=np.zeros(n, np.int64)) for n in counts)
    return train, val


def _uneven_count(dealt: Dealt, used: Used, count: int, *, at_once: int) -> int:
    """How many shards of train, at least `count`, keep copies apart where a schedule crowds them,
    and the fullest one near its size.
    """
    schedules = schedules_of(dealt.mixture)
    for stream in used.units:
        copies, subset, val = stream & 0xFFFF_FFFF, stream >> 33, (stream >> 32) & 1
        points = schedules.get(dealt.samples.subsets[subset][0])
        if points and copies > 1 and not val:
            count = max(count, math.ceil(copies * crowding(points) * (1 + 1e-9)))
    held, shards = np.zeros(count), Shards(count=count, sizes=np.zeros(0))
    for start, stop in stretches(len(dealt.samples), rows=at_once):
        sample, place, side = _copies_of(dealt, start, stop)
        num_bytes, tokens = dealt.samples.read(("num_bytes", "num_tokens"), start, stop)
        size = num_bytes + TOKEN_BYTES * tokens.astype(np.int64)
        mine = side == 0
        held += np.bincount(shards.of(place[mine]), size[sample[mine] - start], count)
    return max(count, math.ceil(count * held.max() / dealt.mixture.shard_bytes))


def _scatter(dealt: Dealt, start: int, stop: int, each: list[int]) -> None:
    """The copies of a stretch of samples are in the columns of their shards, and counted."""
    sample, place, sides = _copies_of(dealt, start, stop)
    key = dealt.samples.columns["key"][start:stop]
    for (side, columns), shards in zip(dealt.groups, dealt.shards, strict=True):
        mine = np.flatnonzero(sides == side)
        some = np.empty(len(mine), COPY)
        some["shard"], some["place"] = shards.of(place[mine]), place[mine]
        some["sample"], some["key"] = sample[mine], key[sample[mine] - start]
        shards.sizes[:] += np.bincount(some["shard"], minlength=shards.count)
        group = some["shard"] // each[side]
        order = np.argsort(group, kind="stable")
        edges = np.searchsorted(group[order], np.arange(len(columns) + 1))
        for column, a, b in zip(columns, edges[:-1], edges[1:], strict=True):
            if b > a:
                column.append(some[order[a:b]])


def deal(
    index: pl.DataFrame, mixture: Mixture, *, part_window: int = 4, at_once: int = ROWS
) -> pl.DataFrame:
    """One row per copy: split, shard, order, index_row, sorted so; shards count from 0 per split.

    Reads: id, component, subset, copies, num_tokens, num_learned, num_crops, duration, num_bytes,
    part, row of a picked index. `order` is the place within the shard. `part_window`: parts mixed
    at a time; `at_once`: samples in memory besides the index.
    """
    licences = dict.fromkeys(mixture.components, "")  # nothing here is under a limit
    samples, rows = samples_of(index, mixture, licences=licences)
    copies = samples.new(np.int32)
    copies.append(index["copies"].to_numpy()[rows])
    dealt = deal_samples(samples, copies, mixture, part_window=part_window, at_once=at_once)
    frames = [
        pl.DataFrame(
            {
                "split": pl.Series([split] * len(found), dtype=pl.Categorical),
                "shard": pl.repeat(number, len(found), dtype=pl.Int32, eager=True),
                "order": np.arange(len(found), dtype=np.int32),
                "index_row": rows[found],
            }
        )
        for split, number, found in dealt.in_order()
    ]
    schema = {"split": pl.Categorical, "shard": pl.Int32, "order": pl.Int32, "index_row": pl.Int64}
    return pl.concat(frames) if frames else pl.DataFrame(schema=schema)


def with_shards(index: pl.DataFrame, dealt: pl.DataFrame) -> pl.DataFrame:
    """The index with `shard`: the shards that hold each sample, ascending; empty where none."""
    row, shard = dealt["index_row"].to_numpy(), dealt["shard"].to_numpy()
    order = np.lexsort((shard, row))
    ends = np.cumsum(np.bincount(row, minlength=len(index)))
    starts = np.concatenate([[0], ends]).astype(np.int64)
    lists = pa.LargeListArray.from_arrays(pa.array(starts), pa.array(shard[order]))
    return index.with_columns(pl.Series("shard", lists))
