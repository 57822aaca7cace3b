"""Samples in the order of their draw: whatever a mixture has of them, first samples first.

    Samples --scattered by subset--> in order of rank, some at a time --caps--> strata (Drawn)

A budget takes whole epochs of a stratum and then its first samples, so all that is asked of a
stratum is how many of the first come to so many units; a record of DRAW where they end says of any
sample, wherever it lies, whether it is among them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from mixtures import draw
from mixtures.allocate import caps_of
from mixtures.columns import ROWS, Column, New, in_memory, stretches
from mixtures.config import Mixture
from mixtures.samples import Samples, ranks, refuse_weights

DRAW = np.dtype(
    [
        ("rank", np.uint64),
        ("key", np.uint64),
        ("row", np.int64),
        ("unit", np.int32),
        ("tokens", np.int32),
        ("learned", np.int32),
        ("crops", np.int32),
        ("bytes", np.int64),
        ("limited", np.uint32),
        ("val", np.bool_),
    ]
)
"""Of a sample that no rule took: its place in the draw (rank, key, row), and what it counts."""
SUMS = ("unit", "tokens", "learned", "crops", "bytes")
BLOCK = 1 << 14
"""Samples between two sums that are kept."""
SORTED_ROWS = 4 * ROWS
"""Put in order at a time."""
UNIT = {"tokens": "num_tokens", "learned_tokens": "num_learned"}


class Cut(NamedTuple):
    """A place in the draw: what comes before it is among the first."""

    rank: int
    key: int
    row: int

    def before(self, rank: np.ndarray, key: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Bool per sample: it comes before."""
        at, mine = np.uint64(self.rank), np.uint64(self.key)
        beside = (key < mine) | ((key == mine) & (row < self.row))
        earlier: np.ndarray = (rank < at) | ((rank == at) & beside)
        return earlier


class Drawn:
    """A stratum's samples of one side of the split, in the order of their draw."""

    def __init__(self, column: Column, *, length: int | None = None) -> None:
        self.column, self.length = column, len(column) if length is None else length
        self.longest = 0
        through = [(0, 0)]
        self.sums = dict.fromkeys(SUMS, 0)
        for some in self.blocks():
            for name in SUMS:
                self.sums[name] += int(some[name].sum(dtype=np.int64))
            through.append((self.sums["unit"], self.sums["tokens"]))
            self.longest = max(self.longest, int(some["unit"].max(initial=0)))
        self.through = np.array(through, np.int64)

    def __len__(self) -> int:
        return self.length

    @property
    def total(self) -> float:
        """Units of all."""
        return float(self.sums["unit"])

    def blocks(self) -> Iterator[np.ndarray]:
        """All records, some at a time."""
        for start, stop in stretches(self.length, rows=BLOCK):
            yield self.column[start:stop]

    def fitting(self, most: float) -> int:
        """How many of the first come to `most` units at most."""
        block = int(np.searchsorted(self.through[1:, 0], most, side="right"))
        start = block * BLOCK
        inside = self.sizes(start, start + BLOCK).cumsum() + float(self.through[block, 0])
        return min(self.length, start) + int(np.searchsorted(inside, most, side="right"))

    def sizes(self, start: int, stop: int) -> np.ndarray:
        """float64: units of some of them."""
        return self.column[start : min(stop, self.length)]["unit"].astype(np.float64)

    def first(self, count: int) -> tuple[float, int]:
        """(Units, tokens) of the first `count`."""
        units, tokens = self.through[count // BLOCK]
        rest = self.column[count // BLOCK * BLOCK : count]
        return (
            float(units + rest["unit"].sum(dtype=np.int64)),
            int(tokens + rest["tokens"].sum(dtype=np.int64)),
        )

    def at(self, place: int) -> Cut | None:
        """What the first `place` come before; None where those are all."""
        if place >= self.length:
            return None
        return cut_at(self.column[place : place + 1][0])

    def before(self, cut: Cut) -> int:
        """How many come before it."""
        return sum(int(cut.before(b["rank"], b["key"], b["row"]).sum()) for b in self.blocks())


def cut_at(record: np.void) -> Cut:
    """The place of a record."""
    return Cut(int(record["rank"]), int(record["key"]), int(record["row"]))


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Every subset of an index in the order of its draw, as far as its caps let it be used."""

    strata: dict[tuple[int, int], tuple[Drawn, Drawn]]
    """(subset, limited) -> those of train, those of val."""
    caps: dict[int, list[tuple[str, Cut]]]
    """Subset -> rules, and from where on each takes; the last that does is the reason."""
    live: np.ndarray
    """[subsets] how many are left."""
    longest: int
    """Tokens of the longest sample that was read."""
    cuts: dict[tuple[int, int], tuple[str, Cut]] = field(default_factory=dict)
    """(subset, limited) -> the rule of a limit, and from where on it takes."""


def draws_of(
    samples: Samples, mixture: Mixture, *, rows: Mapping[tuple[str, str], int], at_once: int
) -> Draws:
    """The samples that no rule took, in the order of their draw. `rows`: (component, subset) ->
    rows of the subset, where only some of its parts were read. `at_once`: samples in memory.
    """
    scattered, longest = _scattered(samples, mixture, at_once=at_once)
    read = samples.rows_of_subsets()
    strata: dict[tuple[int, int], tuple[Drawn, Drawn]] = {}
    caps: dict[int, list[tuple[str, Cut]]] = {}
    live = np.zeros(len(samples.subsets), np.int64)
    for code, column in scattered.items():
        key = samples.subsets[code]
        bounds = caps_of(mixture, *key, rows=rows.get(key, int(read[code])))
        most = [(rule, int(bound)) for rule, bound in bounds if bound < len(column)]
        live[code] = min([len(column), *(bound for _, bound in most)])
        ends: dict[str, Cut] = {}
        sides: dict[tuple[int, bool], Column] = {}
        start = 0
        for some in sorted_draws(column, samples.new, at_once=at_once):
            for rule, bound in most:
                if start <= bound < start + len(some):
                    ends[rule] = cut_at(some[bound - start])
            _distribute(some[: max(0, int(live[code]) - start)], sides, samples.new)
            start += len(some)
        caps[code] = [(rule, ends[rule]) for rule, _ in most]
        for limited in sorted({limited for limited, _ in sides}):
            train, val = (sides.get((limited, side)) for side in (False, True))
            none = in_memory(DRAW)
            strata[code, limited] = (
                Drawn(none if train is None else train),
                Drawn(none if val is None else val),
            )
    return Draws(strata=strata, caps=caps, live=live, longest=longest)


def _scattered(
    samples: Samples, mixture: Mixture, *, at_once: int
) -> tuple[dict[int, Column], int]:
    """(Subset -> DRAW of its samples in their order, the most tokens of any sample)."""
    found: dict[int, Column] = {}
    longest = 0
    names = ("key", "live", "limited", "num_tokens", "num_learned", "num_crops", "num_bytes")
    for start, stop in stretches(len(samples), rows=at_once):
        key, live, limited, tokens, learned, crops, size = samples.read(names, start, stop)
        if mixture.weight_by:
            refuse_weights(samples, mixture, start, stop)
        longest = max(longest, int(tokens.max(initial=0)))
        some = np.empty(stop - start, DRAW)
        some["rank"], some["key"], some["row"] = ranks(samples, start, stop), key, 0
        some["row"] = np.arange(start, stop)
        some["unit"] = {"samples": 1, "tokens": tokens, "learned_tokens": learned}[mixture.measure]
        some["tokens"], some["learned"], some["crops"] = tokens, learned, crops
        some["bytes"], some["limited"] = size, limited
        some["val"] = in_val(key, mixture)
        for code, here in samples.runs(start, stop):
            if live[here].any():
                column = found.setdefault(code, samples.new(DRAW))
                column.append(some[here][live[here]])
    return dict(sorted(found.items())), longest


def in_val(keys: np.ndarray, mixture: Mixture) -> np.ndarray:
    """[N] whether the samples of these keys are of the val split."""
    return draw.unit_fractions(draw.rehash(keys, "split")) < mixture.val_fraction


def sorted_draws(
    column: Column, new: New, *, at_once: int, by: str = "rank"
) -> Iterator[np.ndarray]:
    """The records in the order of the draw, about `at_once` at a time; the column is cleared. They
    are divided `by` their ranks or, of those that share one (as all of weight 0 do), by their keys.
    """
    if len(column) <= at_once:
        some = column[:]
        column.clear()
        yield some[np.lexsort((some["key"], some["rank"]))]
        return
    bounds = _bounds(column, by, at_once=at_once)
    pieces = [new(DRAW) for _ in range(len(bounds) + 1)]
    for start, stop in stretches(len(column), rows=at_once):
        some = column[start:stop]
        which = np.searchsorted(bounds, some[by], side="right")
        order = np.argsort(which, kind="stable")
        edges = np.searchsorted(which[order], np.arange(len(pieces) + 1))
        for piece, a, b in zip(pieces, edges[:-1], edges[1:], strict=True):
            if b > a:
                piece.append(some[order[a:b]])
    column.clear()
    for piece in pieces:
        again = by == "rank" and len(piece) > at_once and _alike(piece)
        most = at_once if again else max(at_once, len(piece))
        yield from sorted_draws(piece, new, at_once=most, by="key")


def _bounds(column: Column, by: str, *, at_once: int) -> np.ndarray:
    """Values of a field that divide the records into pieces of about `at_once`; one that fills a
    piece has one of its own.
    """
    step = max(1, len(column) // (1 << 16))
    sample = [column[s:e][by][::step] for s, e in stretches(len(column), rows=min(at_once, ROWS))]
    ordered = np.sort(np.concatenate(sample))
    values, times = np.unique(
        ordered[:: max(1, len(ordered) * at_once // len(column))][1:], return_counts=True
    )
    return np.unique(np.r_[values, values[times > 1] + np.uint64(1)])


def _alike(piece: Column) -> bool:
    """Whether all records have one rank."""
    ends = [piece[s:e]["rank"] for s, e in stretches(len(piece), rows=ROWS)]
    return len({int(end.min()) for end in ends} | {int(end.max()) for end in ends}) == 1


def _distribute(some: np.ndarray, sides: dict[tuple[int, bool], Column], new: New) -> None:
    """Records appended to the column of their `limited` and side."""
    for limited in np.unique(some["limited"]).tolist():
        mine = some if (some["limited"] == limited).all() else some[some["limited"] == limited]
        for side in (False, True):
            of_side = mine[mine["val"] == side]
            if len(of_side):
                sides.setdefault((limited, side), new(DRAW)).append(of_side)
