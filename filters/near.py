"""Near neighbours among millions of short hashes: candidates by bands, then verified pairs.

    hashes --keys of a band--> buckets of candidates --compare with the bucket's first--> pairs
    pairs of all bands --clusters--> the first member of each sample's cluster

Two kinds of hash: MinHash signatures (bytes that agree in proportion to the Jaccard index of two
texts) and 64-bit difference hashes (bits that differ where two pictures do). For both, every pair
that is returned has been compared in full; bands decide only which pairs are looked at.

A text pair of Jaccard index s shares at least one of b bands of r bytes with probability
1 - (1 - s^r)^b. `band_rows` takes the largest r that keeps this at 0.95 or more at the wanted s:

| s    | 0.5  | 0.6  | 0.7  | 0.75 | 0.8  | 0.85 | 0.9  | 0.95 |
|------|------|------|------|------|------|------|------|------|
| r=8  | 0.05 | 0.21 | 0.56 | 0.77 | 0.92 | 0.99 | 1.00 | 1.00 |
| r=7  | 0.12 | 0.36 | 0.75 | 0.90 | 0.98 | 1.00 | 1.00 | 1.00 |
| r=4  | 0.84 | 0.98 | 1.00 | 1.00 | 1.00 | 1.00 | 1.00 | 1.00 |

Picture pairs within the radius are always candidates (pigeonhole): of B blocks of bits, at least
B - radius are equal, so one of C(B, radius) tables, each keyed by B - radius blocks, holds both.
The scheme is that of Manku, Jain, Das Sarma, WWW 2007, https://doi.org/10.1145/1242572.1242592.

Index 0 is the first to stay: callers order the rows by priority. N = rows.
"""

from collections.abc import Callable, Iterator
from itertools import combinations, pairwise
from math import comb

import numpy as np

PERMUTATIONS = 112
"""Bytes of a signature: 14 x 8, as FineWeb, https://arxiv.org/abs/2406.17557, section 3.4."""
NGRAM = 5
"""Words of a shingle, FineWeb's again."""
LARGE_BUCKET = 256
"""Candidates from which a bucket is split by a second key, where there is one."""

Verify = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(indices [M], indices [M]) -> bool [M]: this pair is near."""
Map = Callable[..., Iterator[np.ndarray]]
"""Python's `map`, or one that works in parallel."""


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


def block_masks(radius: int, *, count: int) -> list[int]:
    """64-bit masks such that two words within `radius` bits agree under at least one of them.

    The number of blocks is the one with the least work for `count` random words: a sort per table
    plus the pairs that meet by chance.
    """
    if radius == 0:
        return [(1 << 64) - 1]

    def work(blocks: int) -> float:
        bits = 64 * (blocks - radius) / blocks
        return comb(blocks, radius) * (count + count**2 / 2**bits)

    blocks = min(range(radius + 1, radius + 9), key=work)
    edges = [round(64 * n / blocks) for n in range(blocks + 1)]
    block = [(1 << high) - (1 << low) for low, high in pairwise(edges)]
    return [sum(chosen) for chosen in combinations(block, blocks - radius)]


def mix(words: np.ndarray) -> np.ndarray:
    """uint64 [N], scattered: SplitMix64's finalizer, https://doi.org/10.1145/2714064.2660195."""
    words = words.astype(np.uint64, copy=True)
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words


def near_pairs(keys: np.ndarray, verify: Verify, *, rows: np.ndarray) -> np.ndarray:
    """[M, 2] of (earlier, later) among `rows` that share a key and are near.

    In each bucket all are compared with its first row; those not near it are compared with the
    first of them, and so on: a bucket of near rows costs one comparison a row, however large it is.
    keys: uint64 [len(rows)]; rows: ascending indices.
    """
    order = np.argsort(keys, kind="stable")
    keys, rows = keys[order], rows[order]
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


def split_large(keys: np.ndarray, second: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Keys under which rows of small buckets meet once, and rows of large ones per `second` key."""
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    large = counts[inverse] > LARGE_BUCKET
    alone = mix(np.arange(len(keys), dtype=np.uint64) + np.uint64(1) << np.uint64(1))
    yield np.where(large, alone, keys)
    if large.any():
        for other in second:
            yield np.where(large, mix(keys ^ mix(other)), alone)


def clusters(pairs: np.ndarray, count: int) -> np.ndarray:
    """int64 [count]: the smallest index that each row is connected to through `pairs` [M, 2]."""
    first = np.arange(count)
    while True:
        left, right = first[pairs[:, 0]], first[pairs[:, 1]]
        low = np.minimum(left, right)
        if (left == right).all():
            return first
        np.minimum.at(first, np.maximum(left, right), low)
        while (first != first[first]).any():
            first = first[first]
