"""Near neighbours against brute force, and bands against their formula."""

from itertools import groupby

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.duplicates import hashes, near

words64 = st.integers(0, 2**64 - 1)


@given(words64, st.integers(0, 9), st.integers(1, 10_000_000), st.randoms())
def test_two_words_within_the_radius_agree_under_some_mask(word, radius, count, random):
    other = word
    for bit in random.sample(range(64), radius):
        other ^= 1 << bit
    for masks in (near.block_masks(radius, count=count), near.few_masks(radius)):
        assert any(word & mask == other & mask for mask in masks)


def test_blocks_grow_with_the_rows_so_that_chance_meetings_stay_few():
    small = near.block_masks(4, count=1_000)
    large = near.block_masks(4, count=10_000_000)
    assert len(small) < len(large) <= 126
    assert min(mask.bit_count() for mask in large) >= 24


def by_value(values):
    """Compare: two bands of overlapping buckets of width 8; near is within 2."""

    def compare(order, settled):
        found = []
        for band in range(2):
            keys = near.scatter_bits(((values[order] + 4 * band) // 8).astype(np.uint64))
            words = near.pack_keys(keys, np.arange(len(order)), count=len(order))
            met = near.bucket_members(words, count=len(order), settled=settled)
            bits = np.uint64(near.position_bits(len(order)))
            ranks = order[(met & ((np.uint64(1) << bits) - np.uint64(1))).astype(int)]
            pairs = near.near_pairs(
                met >> bits, lambda a, b, r=ranks: np.abs(values[r[a]] - values[r[b]]) <= 2
            )
            found.append(ranks[pairs])
        return np.concatenate(found)

    return compare


@given(st.lists(st.integers(0, 60), max_size=60))
def test_what_goes_is_near_what_stays_and_what_stays_is_apart(values):
    values_ = np.array(values, np.int64)
    place = near.representatives(len(values), by_value(values_))
    stays = place == np.arange(len(values))
    assert stays[place].all()
    assert (np.abs(values_ - values_[place]) <= 2).all()
    kept = np.sort(values_[stays])
    assert (np.diff(kept) > 2).all()


def test_chains_do_not_collapse_and_the_first_is_preferred():
    values = np.array([10, 12, 14, 11, 10])
    assert near.representatives(5, by_value(values)).tolist() == [0, 0, 2, 0, 0]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=200), st.integers(0, 200))
def test_buckets_hold_all_that_share_a_key_and_a_settled_row_only_beside_an_open_one(keys, settled):
    count = len(keys)
    words = near.pack_keys(
        near.scatter_bits(np.array(keys, np.uint64)), np.arange(count), count=count
    )
    bits = near.position_bits(count)
    met = near.bucket_members(words.copy(), count=count, settled=min(settled, count))
    found = (met & np.uint64((1 << bits) - 1)).astype(int).tolist()
    by_key = {key: [n for n in range(count) if keys[n] == key] for key in set(keys)}
    wanted = {n for rows in by_key.values() for n in rows if len(rows) > 1 and rows[-1] >= settled}
    assert wanted <= set(found)
    assert all(len(by_key[keys[n]]) > 1 for n in found)
    groups = [list(rows) for _, rows in groupby(found, key=lambda n: keys[n])]
    assert len(groups) == len({keys[rows[0]] for rows in groups})
    assert all(rows == sorted(rows) for rows in groups)


@pytest.mark.parametrize("similarity", [0.5, 0.7, 0.8, 0.9, 0.95])
def test_the_chosen_band_size_finds_95_percent_and_the_next_larger_would_not(similarity):
    rows = near.band_rows(similarity)
    assert near.band_probability(similarity, rows) >= 0.95
    larger = [r for r in (8, 7, 4, 2) if r > rows]
    assert all(near.band_probability(similarity, r) < 0.95 for r in larger)


def test_word_runs_are_those_of_python():
    texts = pl.Series(["a b c d", "", "a b", None, "b c d e f", "é é é"])
    for n in (1, 2, 3, 5):
        runs, offsets = hashes.ngrams(texts, n=n, short=True)
        expected, seen = [], {}
        for text in texts:
            words = (text or "").split()
            whole = [tuple(words)] if 0 < len(words) < n else []
            expected.append(whole or [tuple(words[i : i + n]) for i in range(len(words) - n + 1)])
        assert np.diff(offsets).tolist() == [len(e) for e in expected]
        for run, got in zip([r for e in expected for r in e], runs.tolist(), strict=True):
            assert seen.setdefault(run, got) == got
        assert len(set(seen.values())) == len(seen)
        _, none_short = hashes.ngrams(texts, n=n, short=False)
        long = [max(0, len((t or "").split()) - n + 1) for t in texts]
        assert np.diff(none_short).tolist() == long


def test_signatures_estimate_the_jaccard_index():
    rng = np.random.default_rng(0)
    for wanted in (0.5, 0.8, 0.95):
        errors = []
        for _ in range(40):
            shared = [f"w{n}" for n in rng.integers(0, 10**9, 300)]
            cut = int(len(shared) * (1 - wanted) / 2)
            texts = [" ".join(shared[cut:]), " ".join(shared[: len(shared) - cut])]
            sets = [{tuple(t.split()[i : i + 5]) for i in range(len(t.split()) - 4)} for t in texts]
            truth = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
            made = hashes.text_signature(pl.DataFrame({"text": texts}))
            a, b = (np.frombuffer(s, np.uint8) for s in made)
            errors.append(((a == b).mean() - 1 / 256) / (1 - 1 / 256) - truth)
        assert abs(np.mean(errors)) < 0.02
        assert np.std(errors) < 0.06


def test_signatures_do_not_depend_on_batches():
    texts = [
        "the cat sat on the mat today",
        "",
        "one",
        "word " * 900_000,
        "word " * 900_000,
        "a b c d e f g h",
    ]
    whole = hashes.text_signature(pl.DataFrame({"text": texts}))
    alone = [hashes.text_signature(pl.DataFrame({"text": [text]}))[0] for text in texts]
    assert whole.to_list() == alone
    assert whole[1] is None
