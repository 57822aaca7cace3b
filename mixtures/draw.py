"""Randomness: 64-bit hashes of (seed, sample id), and numbers drawn from them.

The same id and seed give the same number in every build, on every machine, in whatever order the
samples come: adding data disturbs nothing else. One hash per id is taken (XXH3-64, whose values are
fixed since 0.8: https://xxhash.com); what is needed beside it comes by mixing that hash.
"""

from collections.abc import Iterable
from itertools import repeat

import numpy as np
import xxhash


def sample_keys(ids: Iterable[str], *, seed: int) -> np.ndarray:
    """[N] uint64: XXH3-64 of each id (UTF-8), seeded."""
    seeds = repeat(seed & 0xFFFF_FFFF_FFFF_FFFF)
    return np.fromiter(map(xxhash.xxh3_64_intdigest, ids, seeds), np.uint64)


def rehash(keys: np.ndarray, purpose: str) -> np.ndarray:
    """[N] uint64: a hash of each key that is independent of it and of every other purpose.

    The finaliser of SplitMix64 (Steele, Lea, Flood 2014; https://prng.di.unimi.it/splitmix64.c).
    """
    x = keys + np.uint64(xxhash.xxh3_64_intdigest(purpose.encode()))  # wraps, as it should
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def unit_fractions(keys: np.ndarray) -> np.ndarray:
    """[N] float64 in [0, 1): the upper 53 bits of each key."""
    return (keys >> np.uint64(11)).astype(np.float64) * 2.0**-53
