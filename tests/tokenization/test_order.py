"""Every stretch of a shard's rows holds what the whole shard holds."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenization.order import STRATA, even_order, features_of, strata_of


@settings(max_examples=30)
@given(st.integers(1, 200), st.integers(1, 5), st.integers(0, 9))
def test_every_row_comes_once_and_the_seed_decides(rows: int, wide: int, seed: int) -> None:
    features = np.random.default_rng(seed).exponential(size=(rows, wide))
    order = even_order(features, rng=np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(rows))
    assert np.array_equal(order, even_order(features, rng=np.random.default_rng(seed)))


def strays(features: np.ndarray, window: int) -> float:
    """The farthest that the mean of a window is from the whole mean, in mean rows."""
    through = np.concatenate([np.zeros((1, features.shape[1])), features.cumsum(axis=0)])
    means = (through[window:] - through[:-window]) / window
    return float(np.abs(means - features.mean(axis=0)).max())


def test_windows_stray_far_less_than_at_random() -> None:
    rng = np.random.default_rng(0)
    kind = rng.choice(4, 9000, p=[0.4, 0.4, 0.15, 0.05])
    tokens = rng.integers(100, 4000, 9000)
    crops = np.where(kind == 0, 0, rng.integers(1, 60, 9000))
    rows = np.array_split(rng.permutation(9000), 3000)
    features = features_of(rows, kind, tokens, crops)
    assert np.allclose(features[:, :4].sum(axis=1).mean(), 1)
    assert np.isclose(features[:, 4].mean(), 1)
    order = even_order(features, rng=rng)
    assert strays(features[order], 300) < 0.02
    assert strays(features, 300) > 0.06


def test_kinds_are_subsets_and_rare_ones_count_as_one() -> None:
    ids = ["a/x/1", "a/x/2", "a/y/1", "b/x/1"]
    kinds = strata_of(ids, np.array([1, 1, 1, 1]))
    assert kinds[0] == kinds[1]
    assert len(set(kinds.tolist())) == 3
    many = [f"s/{n}/0" for n in range(2 * STRATA)]
    kinds = strata_of(many, np.arange(2 * STRATA))
    assert kinds.max() == STRATA - 1
    assert kinds[-1] == 0  # of most tokens
    assert (kinds[:STRATA] == STRATA - 1).all()
