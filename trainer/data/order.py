"""Which row stands at which position, and which rank takes it: pure functions of numbers.

The row at a position is a pure function of (seed, position), so the same global order is trained
on 1, 2 or 4 ranks, and a run goes on from its position after any change of their number. A step
takes the positions [p, p + batch_rows); the ranks share these rows out by modelled cost.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

MIX_BLOCK = 1000
"""Positions in which a list of mixtures holds its weights exactly (to one row)."""


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


@lru_cache(maxsize=8)
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


@lru_cache(maxsize=8)
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


@lru_cache(maxsize=8)
def _turns(weights: tuple[float, ...], seed: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """(mixture, how many of its rows came before in this block) of each position of a block."""
    counts = shares(weights, MIX_BLOCK)
    owners = np.repeat(np.arange(len(counts)), counts)[order(MIX_BLOCK, seed, block)]
    before = np.empty(MIX_BLOCK, np.int64)
    for mixture, count in enumerate(counts):
        before[owners == mixture] = np.arange(count)
    return owners, before


def row_at(
    position: int,
    mixtures: Sequence[tuple[int, ...]],
    weights: Sequence[float],
    seed: int,
    *,
    window: int = 0,
) -> tuple[int, int]:
    """(mixture, row) at a position of the endless global order; `mixtures`: rows of each shard."""
    mixture, inside = 0, position
    if len(mixtures) > 1:
        block, slot = divmod(position, MIX_BLOCK)
        owners, before = _turns(tuple(weights), seed + 1, block)
        mixture = int(owners[slot])
        inside = block * shares(weights, MIX_BLOCK)[mixture] + int(before[slot])
    shards = mixtures[mixture]
    epoch, place = divmod(inside, sum(shards))
    return mixture, int(rows_in_order(shards, seed + 2 + mixture, epoch, window)[place])


def share_out(costs: Sequence[float], ranks: int) -> list[list[int]]:
    """Indices per rank: equally many (to one), the dearest first to the rank with least to do.

    Ranks wait for the slowest at every step, so the step costs the largest sum.
    """
    limit = -(-len(costs) // ranks)
    sums, groups = [0.0] * ranks, [[] for _ in range(ranks)]  # type: ignore[var-annotated]
    for i in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        free = [r for r in range(ranks) if len(groups[r]) < limit]
        rank = min(free, key=lambda r: (sums[r], r))
        groups[rank].append(i)
        sums[rank] += costs[i]
    return [sorted(group) for group in groups]
