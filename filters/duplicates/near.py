"""Near neighbours among millions of short hashes: candidates by bands, then verified pairs.

    keys of a band --packed, in_buckets--> buckets of candidates --near_pairs--> pairs
    pairs of all bands --thinned--> which rows go, each near one that stays

Two kinds of hash: MinHash signatures (bytes that agree in proportion to the Jaccard index of two
texts) and 64-bit difference hashes (bits that differ where two images do). For both, every pair
that is returned has been compared in full; bands decide only which pairs are looked at.

A text pair of Jaccard index s shares at least one of b bands of r bytes with probability
1 - (1 - s^r)^b. `band_rows` takes the largest r that keeps this at 0.95 or more at the wanted s:

| s    | 0.5  | 0.6  | 0.7  | 0.75 | 0.8  | 0.85 | 0.9  | 0.95 |
|------|------|------|------|------|------|------|------|------|
| r=8  | 0.05 | 0.22 | 0.57 | 0.78 | 0.93 | 0.99 | 1.00 | 1.00 |
| r=7  | 0.12 | 0.37 | 0.75 | 0.90 | 0.98 | 1.00 | 1.00 | 1.00 |
| r=4  | 0.84 | 0.98 | 1.00 | 1.00 | 1.00 | 1.00 | 1.00 | 1.00 |

Image pairs within the radius are always candidates (pigeonhole): of B blocks of bits, at least
B - radius are equal, so one of C(B, radius) tables, each keyed by B - radius blocks, holds both.
The scheme is that of Manku, Jain, Das Sarma, WWW 2007, https://doi.org/10.1145/1242572.1242592.

Rows are known by their rank, 0 the first to stay. N = rows.
"""

from collections.abc import Callable
from functools import lru_cache
from itertools import combinations, pairwise
from math import comb

import numpy as np

PERMUTATIONS = 112
"""Bytes of a signature: 14 x 8, as FineWeb, https://arxiv.org/abs/2406.17557, section 3.4."""
NGRAM = 5
"""Words of a shingle, FineWeb's again."""
Verify = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(indices [M], indices [M]) -> bool [M]: this pair is near."""
Compare = Callable[[np.ndarray, int], np.ndarray]
"""(ranks in order of preference [A], how many of the first ones are settled) -> int [M, 2]: near
pairs of all bands, (preferred, other). No pair of two settled ones need be found."""
_FILTER_BITS = 22
"""4 MB of flags: stays in a core's cache."""


def band_probability(similarity: float, rows: int) -> float:
    """The chance that two texts of this Jaccard index share a band of `rows` bytes."""
    agree = similarity + (1 - similarity) / 256  # a byte may agree by chance
    return 1 - (1 - agree**rows) ** (PERMUTATIONS // rows)


def band_rows(similarity: float) -> int:
    """Bytes per band: the largest divisor up to 8 that finds 95 % of pairs at `similarity`."""
    fitting = [r for r in (8, 7, 4, 2) if band_probability(similarity, r) >= 0.95]
    return fitting[0] if fitting else 1


def band_keys(signatures: np.ndarray, *, rows: int, band: int) -> np.ndarray:
    """uint64 [N]: the bytes of one band of `signatures`, uint8 [N, PERMUTATIONS]."""
    padded = np.zeros((len(signatures), 8), np.uint8)
    padded[:, :rows] = signatures[:, band * rows : (band + 1) * rows]
    return padded.view(np.uint64)[:, 0]


@lru_cache(maxsize=16)
def block_masks(radius: int, *, count: int) -> tuple[int, ...]:
    """64-bit masks such that two words within `radius` bits agree under at least one of them.

    The number of blocks is the one with the least work for `count` random words: a sort per table
    plus the pairs that meet by chance.
    """
    if radius == 0:
        return ((1 << 64) - 1,)

    def work(blocks: int) -> float:
        bits = 64 * (blocks - radius) / blocks
        return comb(blocks, radius) * (count + count**2 / 2**bits)

    return _masks(min(range(radius + 1, radius + 9), key=work), radius)


def few_masks(radius: int) -> tuple[int, ...]:
    """Such masks again: as few as leave 12 bits, for tables that are kept in memory."""
    if radius == 0:
        return ((1 << 64) - 1,)
    fine = (b for b in range(radius + 1, 65) if 64 * (b - radius) / b >= 12)
    return _masks(next(fine), radius)


def _masks(blocks: int, radius: int) -> tuple[int, ...]:
    """Of so many blocks of bits, all choices that leave out `radius`."""
    edges = [round(64 * n / blocks) for n in range(blocks + 1)]
    block = [(1 << high) - (1 << low) for low, high in pairwise(edges)]
    return tuple(sum(chosen) for chosen in combinations(block, blocks - radius))


def scatter_bits(words: np.ndarray) -> np.ndarray:
    """uint64, scattered: SplitMix64's finalizer, https://doi.org/10.1145/2714064.2660195."""
    words = words.astype(np.uint64, copy=True)
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words


def pack_keys(keys: np.ndarray, positions: np.ndarray, *, count: int) -> np.ndarray:
    """uint64 [N]: the position in the low bits that `count` rows need, the key's high bits above.

    So one sort of plain numbers, ten times as fast as one of indices, orders rows by key and within
    a key by position. The bits of a key that are cut off make strangers meet, seldom: 45 pairs of
    10 M rows. keys: uint64, scattered.
    """
    low = np.uint64(position_bits(count))
    return keys >> low << low | positions.astype(np.uint64)


def position_bits(count: int) -> int:
    """Low bits of a packed word that hold a position below `count`."""
    return max(1, (count - 1).bit_length())


def bucket_members(words: np.ndarray, *, count: int, settled: int) -> np.ndarray:
    """The packed words whose key another one has, sorted; those of settled rows only where an open
    row (of a position from `settled` on) may have their key.
    """
    bits = np.uint64(position_bits(count))
    if settled:
        top = np.uint64(64 - _FILTER_BITS)
        is_open = (words & ((np.uint64(1) << bits) - np.uint64(1))) >= settled
        sought = np.zeros(1 << _FILTER_BITS, bool)
        sought[words[is_open] >> top] = True
        words = words[sought[words >> top]]
    words.sort()
    again = words[1:] >> bits == words[:-1] >> bits
    shared = np.zeros(len(words), bool)
    shared[1:] = again
    shared[:-1] |= again
    return words[shared]


def near_pairs(keys: np.ndarray, verify: Verify) -> np.ndarray:
    """[M, 2] of (earlier, later) indices of `keys`, sorted, that share a key and are near.

    In each bucket all are compared with its first; those not near it are compared with the first of
    them, and so on: a bucket of near rows costs one comparison a row, however large it is.
    """
    rows = np.arange(len(keys))
    found = [np.empty((0, 2), np.int64)]
    while len(keys):
        first = np.ones(len(keys), bool)
        first[1:] = keys[1:] != keys[:-1]
        starts = np.flatnonzero(first)
        sizes = np.diff(np.append(starts, len(keys)))
        leaders = np.repeat(rows[starts], sizes)
        others = ~first
        near = np.zeros(len(keys), bool)
        near[others] = verify(leaders[others], rows[others])
        found.append(np.stack([leaders[near], rows[near]], axis=1))
        left = others & ~near
        keys, rows = keys[left], rows[left]
    return np.concatenate(found)


def representatives(count: int, compare: Compare) -> np.ndarray:
    """int64 [count]: for each rank the one that stays in its place, itself where it stays.

    Every row that goes is near the one in its place; no two that stay and share a key are near.
    So chains do not collapse: where b is near a and c near b, but c not near a, only b goes.

    A round compares those that stay so far, first, with those still open. A row that is not near an
    earlier one stays; one that is near a row that stays goes; who was near a row that went is open
    again. Rounds are as many as the longest such chain; after the first, few rows are left in them.
    """
    place = np.arange(count)
    stays, is_open = np.zeros(count, bool), np.ones(count, bool)
    while is_open.any():
        settled = np.flatnonzero(stays)
        pairs = compare(
            np.concatenate([settled, np.flatnonzero(is_open)]).astype(np.int32), len(settled)
        )
        pairs = pairs[is_open[pairs[:, 1]]]
        is_later = np.zeros(count, bool)
        is_later[pairs[:, 1]] = True
        new = is_open & ~is_later
        stays |= new
        final = pairs[stays[pairs[:, 0]]]
        final = final[np.lexsort((final[:, 0], final[:, 1]))]
        gone, first = np.unique(final[:, 1], return_index=True)
        place[gone] = final[first, 0]
        is_open &= ~new
        is_open[gone] = False
    return place
