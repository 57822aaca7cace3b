"""Bands of a search against brute force: any chunks, any order of rows, any slices."""

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.duplicates import near, search
from filters.duplicates.search import Search, candidates, comparison_of_frame, pairs_of_band

COUNT = 300


def rows_of(count: int, seed: int) -> pl.DataFrame:
    """Few distinct images and texts with few changes, some of neither, in three scopes."""
    rng = np.random.default_rng(seed)
    texts = rng.integers(0, 256, (7, near.PERMUTATIONS), dtype=np.uint8)[rng.integers(0, 7, count)]
    changed = rng.random(texts.shape) < rng.choice([0, 0.1, 0.3], count)[:, None]
    texts = np.where(changed, rng.integers(0, 256, texts.shape, dtype=np.uint8), texts)
    hashes = rng.integers(0, 2**64, 5, dtype=np.uint64)
    images = [
        [int(hashes[rng.integers(0, 5)]) ^ sum(1 << int(b) for b in set(rng.integers(0, 64, 3)))
         for _ in range(rng.integers(0, 3))]
        for _ in range(count)
    ]  # fmt: skip
    signatures = [None if rng.random() < 0.2 else text.tobytes() for text in texts]
    return pl.DataFrame(
        {
            "rank": rng.permutation(count).astype(np.int32),
            "scope": rng.integers(0, 3, count).astype(np.uint32),
            "text_signature": pl.Series(signatures, dtype=pl.Binary),
            "dhashes": pl.Series(images, dtype=pl.List(pl.UInt64)),
            "embedding_signature": pl.Series(signatures, dtype=pl.Binary),
        }
    )


def is_near(kind: str, a: dict, b: dict) -> bool:
    """The definition, for similarity 0.8 and radius 4, two rows at a time."""

    def agreement(column: str) -> float:
        x, y = (np.frombuffer(row[column] or bytes(112), np.uint8) for row in (a, b))
        return ((x == y).mean() - 1 / 256) / (1 - 1 / 256)

    def images() -> bool:
        x, y = a["dhashes"], b["dhashes"]
        close = [(p ^ q).bit_count() <= 4 for p, q in zip(x, y, strict=False)]
        return len(x) == len(y) and all(close)

    if a["scope"] != b["scope"]:
        return False
    if kind == "text":
        return None not in (a["text_signature"], b["text_signature"]) and (
            agreement("text_signature") >= 0.8
        )
    if kind == "images":
        return bool(a["dhashes"]) and images()
    if not a["dhashes"] and None in (a["text_signature"], b["text_signature"]):
        return False
    return images() and agreement("text_signature") >= 0.8


def found_by(kind: str, rows, count: int, order: np.ndarray, settled: int) -> set[tuple[int, int]]:
    what = Search(kind=kind, count=count, similarity=0.8, radius=4)
    pairs = [pairs_of_band(rows, order=order, settled=settled, search=what, band=band)
             for band in range(what.num_bands)]  # fmt: skip
    assert all(found.dtype == np.int32 for found in pairs)
    return {(int(a), int(b)) for found in pairs for a, b in found}


@settings(max_examples=15)
@given(
    st.sampled_from(["text", "images", "sample"]),
    st.integers(0, 10**6),
    st.sampled_from([1, 256]),
)
def test_what_goes_is_near_one_that_stays_and_those_that_stay_are_apart(kind, seed, large):
    frame = rows_of(60, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "LARGE_BUCKET", large)
        place = near.representatives(
            60, comparison_of_frame(frame, Search(kind=kind, count=60, similarity=0.8, radius=4))
        )
    by_rank = {row["rank"]: row for row in frame.iter_rows(named=True)}
    stay = [rank for rank in range(60) if place[rank] == rank]
    assert all(is_near(kind, by_rank[r], by_rank[place[r]]) for r in set(range(60)) - set(stay))
    apart = [(a, b) for n, a in enumerate(stay) for b in stay[n + 1 :]]
    missed = [pair for pair in apart if is_near(kind, *(by_rank[r] for r in pair))]
    # Images always meet (pigeonhole); texts as their bands do, which is at least 95 % of pairs.
    assert len(missed) <= (0 if kind == "images" else 0.05 * max(60 - len(stay), 20))


@pytest.mark.parametrize("kind", ["text", "images", "sample", "embedding"])
@pytest.mark.parametrize("settled", [0, 200])
def test_pairs_do_not_depend_on_batches_order_of_rows_or_slices(kind, settled, monkeypatch):
    frame = rows_of(COUNT, 1)
    what = Search(kind=kind, count=COUNT, similarity=0.8, radius=4)
    order = np.random.default_rng(2).permutation(COUNT)[:250].astype(np.int32)
    whole = found_by(kind, candidates(frame, what), COUNT, order, settled)
    assert len(whole) > 10
    shuffled = frame.sample(fraction=1, shuffle=True, seed=3)
    pieces = [candidates(shuffled.slice(at, 37), what) for at in range(0, COUNT, 37)]
    monkeypatch.setattr(search, "SLICE", 8)
    assert found_by(kind, pa.concat_tables(pieces), COUNT, order, settled) == whole
    position = {int(rank): n for n, rank in enumerate(order)}
    assert all(position[a] < position[b] for a, b in whole)
    by_rank = {row["rank"]: row for row in frame.iter_rows(named=True)}
    if kind != "embedding":
        assert all(is_near(kind, by_rank[a], by_rank[b]) for a, b in whole)


def test_an_open_row_meets_the_settled_one_it_is_near():
    frame = rows_of(COUNT, 4)
    order = np.arange(COUNT, dtype=np.int32)
    what = Search(kind="images", count=COUNT, radius=4)
    rows = candidates(frame, what)
    for settled in (100, 299):
        later = {b for a, b in found_by("images", rows, COUNT, order, 0) if b >= settled}
        assert later == {b for a, b in found_by("images", rows, COUNT, order, settled)
                         if b >= settled}  # fmt: skip


def test_nothing_to_compare_has_no_pairs():
    frame = rows_of(COUNT, 5)
    for kind in ("text", "images", "sample", "embedding"):
        what = Search(kind=kind, count=0, similarity=0.8, radius=4)
        assert not len(comparison_of_frame(frame.clear(), what)(np.empty(0, np.int32), 0))
        blank = frame.with_columns(
            text_signature=None, embedding_signature=None, dhashes=pl.lit([])
        )
        blank = blank.cast({"dhashes": pl.List(pl.UInt64)})
        assert not len(comparison_of_frame(blank, what)(np.arange(COUNT, dtype=np.int32), 0))
