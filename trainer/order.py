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


def row_at(
    position: int, sizes: Sequence[int], weights: Sequence[float], seed: int
) -> tuple[int, int]:
    """(mixture, row) at a position of the endless global order."""
    mixture, inside = 0, position
    if len(sizes) > 1:
        counts = shares(weights, MIX_BLOCK)
        block, slot = divmod(position, MIX_BLOCK)
        owners = np.repeat(np.arange(len(counts)), counts)[order(MIX_BLOCK, seed + 1, block)]
        mixture = int(owners[slot])
        inside = block * counts[mixture] + int((owners[:slot] == mixture).sum())
    epoch, place = divmod(inside, sizes[mixture])
    return mixture, int(order(sizes[mixture], seed + 2 + mixture, epoch)[place])


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
