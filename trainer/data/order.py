"""Which row stands at which position, and which rank takes it: pure functions of numbers.

The row at a position is a pure function of (seed, position), so the same global order is trained
on 1, 2 or 4 ranks, and a run goes on from its position after any change of their number. A step
takes the positions [p, p + batch_rows); the ranks share these rows out by modelled cost.
"""

import heapq
import math
from collections.abc import Sequence

import numpy as np

MIX_BLOCK = 1000
"""Positions in which a list of mixtures holds its weights exactly (to one row)."""
EPOCHS_KEPT = 2
"""Permutations of a mixture: of the rows now trained on, and of those that are fetched ahead."""
SCHEDULE_RUNS = 100
"""Runs of rows that are each shuffled in themselves, where ratios follow a schedule."""
CHEAP_ROWS = 4
"""Rows of text in one forward pass where one row full of images would fill it. One alone leaves a
GPU waiting for the launches of its kernels (256M: 7,027 launches, 42 ms beside 26 ms of
arithmetic on an H100, modelled)."""


def _mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele, Lea, Flood 2014): 64 well-mixed bits, the same on every machine."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _hashed(seed: int, *words: int) -> np.uint64:
    state = np.array([seed % 2**64], dtype=np.uint64)
    for word in words:
        state = _mix(state ^ np.uint64(word % 2**64))
    return _mix(state)[0]


def order(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of range(num_rows): every row once per epoch, each epoch in another order."""
    key = _hashed(seed, epoch)
    return np.argsort(_mix(np.arange(num_rows, dtype=np.uint64) ^ key), kind="stable")


def shares(weights: Sequence[float], block: int) -> list[int]:
    """Whole numbers that sum to `block` in proportion to `weights` (largest remainders)."""
    exact = [weight / sum(weights) * block for weight in weights]
    whole = [int(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: (whole[i] - exact[i], i))
    for i in by_remainder[: block - sum(whole)]:
        whole[i] += 1
    return whole


def rows_in_order(shards: tuple[int, ...], seed: int, epoch: int, window: int) -> np.ndarray:
    """A permutation of the rows of shards of these sizes, for one epoch.

    `window` 0 takes all rows alike. Else the shards come in an order of the epoch's own, `window`
    at a time, and the rows of those few are taken alike: only they need to be at hand.
    """
    if window == 0 or window >= len(shards):
        return order(sum(shards), seed, epoch)
    place = np.empty(len(shards), np.int64)
    place[order(len(shards), ~seed, epoch)] = np.arange(len(shards))
    keys = _mix(np.arange(sum(shards), dtype=np.uint64) ^ _hashed(seed, epoch))
    return np.lexsort((keys, np.repeat(place // window, shards)))


def run_length(num_rows: int, rows_mixed: int) -> int:
    """Rows that are shuffled with each other where they keep their order; 0: a hundredth of all."""
    return rows_mixed or max(1, num_rows // SCHEDULE_RUNS)


def shards_of_a_run(shards: Sequence[int], rows_mixed: int) -> int:
    """The most shards, of these numbers of rows, that one run of rows lies in."""
    length, ends = run_length(sum(shards), rows_mixed), np.cumsum(shards)
    starts = np.arange(0, ends[-1], length)
    lasts = np.minimum(starts + length, ends[-1]) - 1
    held = np.searchsorted(ends, lasts, side="right") - np.searchsorted(ends, starts, side="right")
    return int(held.max()) + 1


def rows_on_schedule(num_rows: int, seed: int, epoch: int, rows_mixed: int) -> np.ndarray:
    """A permutation of range(num_rows) that keeps their order, but for the rows of each run of
    `rows_mixed` (`run_length`), which come in an order of the epoch's own.
    """
    run = np.arange(num_rows) // run_length(num_rows, rows_mixed)
    return np.lexsort((_mix(np.arange(num_rows, dtype=np.uint64) ^ _hashed(seed, epoch)), run))


def _turns(counts: Sequence[int], seed: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """(mixture, how many of its rows came before in this block) of each position of a block."""
    owners = np.repeat(np.arange(len(counts)), counts)[order(MIX_BLOCK, seed, block)]
    before = np.empty(MIX_BLOCK, np.int64)
    for mixture, count in enumerate(counts):
        before[owners == mixture] = np.arange(count)
    return owners, before


class Order:
    """The endless global order of the rows of some mixtures, and the permutations it now needs.

    Of each mixture the newest `EPOCHS_KEPT` are kept, however many mixtures there are.
    """

    def __init__(
        self,
        mixtures: Sequence[Sequence[int]],
        weights: Sequence[float],
        seed: int,
        *,
        window: int = 0,
        on_schedule: Sequence[bool] = (),
        rows_mixed: int = 0,
    ) -> None:
        """`mixtures`: the rows of each shard, of each mixture; which of them keep their order."""
        self.mixtures = [tuple(shards) for shards in mixtures]
        self.sizes = [sum(shards) for shards in self.mixtures]
        self.weights, self.seed, self.window = tuple(weights), seed, window
        self.on_schedule = tuple(on_schedule) or (False,) * len(self.mixtures)
        self.rows_mixed = rows_mixed
        self.per_block = shares(self.weights, MIX_BLOCK)
        self._epochs: list[dict[int, np.ndarray]] = [{} for _ in self.mixtures]
        self._blocks: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def row_at(self, position: int) -> tuple[int, int]:
        """(mixture, row) at a position."""
        mixture, inside = 0, position
        if len(self.mixtures) > 1:
            block, slot = divmod(position, MIX_BLOCK)
            owners, before = self._block(block)
            mixture = int(owners[slot])
            inside = block * self.per_block[mixture] + int(before[slot])
        epoch, place = divmod(inside, self.sizes[mixture])
        return mixture, int(self._epoch(mixture, epoch)[place])

    def rows(self, start: int, count: int) -> list[tuple[int, int]]:
        """(mixture, row) at `count` positions from `start` on."""
        return [self.row_at(position) for position in range(start, start + count)]

    def _epoch(self, mixture: int, epoch: int) -> np.ndarray:
        kept = self._epochs[mixture]
        if epoch not in kept:
            shards, seed = self.mixtures[mixture], self.seed + 2 + mixture
            if self.on_schedule[mixture]:
                kept[epoch] = rows_on_schedule(sum(shards), seed, epoch, self.rows_mixed)
            else:
                kept[epoch] = rows_in_order(shards, seed, epoch, self.window)
            while len(kept) > EPOCHS_KEPT:
                del kept[next(iter(kept))]
        return kept[epoch]

    def _block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        if block not in self._blocks:
            self._blocks[block] = _turns(self.per_block, self.seed + 1, block)
            while len(self._blocks) > EPOCHS_KEPT:
                del self._blocks[next(iter(self._blocks))]
        return self._blocks[block]


def share_out(
    costs: Sequence[float], tokens: Sequence[int], ranks: int, *, micro_rows: int
) -> list[list[list[int]]]:
    """Indices of a step's rows per rank and micro-batch, as many micro-batches on every rank.

    A micro-batch costs at most `micro_rows` of the dearest row, so cheap rows (text beside rows
    full of images) go together, up to `CHEAP_ROWS` times `micro_rows` of the longest. Ranks have
    nearly the same to do, the dearest micro-batch first: where ranks wait for each other in every
    layer (FSDP), those that run at the same time cost nearly the same.
    """
    budget, longest = micro_rows * max(costs), CHEAP_ROWS * micro_rows * max(tokens)
    share = [
        max(cost / budget if budget else 0.0, count / longest)
        for cost, count in zip(costs, tokens, strict=True)
    ]
    rounds = max(1, math.ceil(sum(share) / ranks - 1e-9))
    while True:
        bins = _fill(costs, share, rounds * ranks)
        if bins is not None:
            return _deal(bins, costs, ranks)
        rounds += 1


def _fill(costs: Sequence[float], share: Sequence[float], count: int) -> list[list[int]] | None:
    """The rows in `count` bins, the dearest first into the cheapest with room; None: no room."""
    bins: list[list[int]] = [[] for _ in range(count)]
    filled = [0.0] * count
    heap = [(0.0, 0, number) for number in range(count)]  # cost, rows, which
    for i in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        full = []
        while heap and heap[0][1] and filled[heap[0][2]] + share[i] > 1 + 1e-9:
            full.append(heapq.heappop(heap))
        if not heap:
            return None
        cost, rows, number = heap[0]
        bins[number].append(i)
        filled[number] += share[i]
        heapq.heapreplace(heap, (cost + costs[i], rows + 1, number))
        for each in full:
            heapq.heappush(heap, each)
    return bins


def _deal(bins: list[list[int]], costs: Sequence[float], ranks: int) -> list[list[list[int]]]:
    """Bins to ranks, one each a round, the dearest to the rank with least to do."""
    cost = {number: sum(costs[i] for i in rows) for number, rows in enumerate(bins)}
    order = sorted(cost, key=lambda number: (-cost[number], number))
    sums, dealt = [0.0] * ranks, [[] for _ in range(ranks)]  # type: ignore[var-annotated]
    for start in range(0, len(order), ranks):
        by_load = sorted(range(ranks), key=lambda rank: (sums[rank], rank))
        for rank, number in zip(by_load, order[start : start + ranks], strict=True):
            dealt[rank].append(sorted(bins[number]))
            sums[rank] += cost[number]
    return dealt
