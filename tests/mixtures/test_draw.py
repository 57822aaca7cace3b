"""The random key of a sample depends on its id and the seed alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mixtures import draw


def test_keys_are_the_published_xxh3_values():
    # XXH3-64 of the empty string with seed 0, as in the algorithm's own test vectors.
    assert draw.sample_keys([""], seed=0)[0] == 0x2D06800538D394C2


def test_a_key_depends_on_its_id_and_the_seed_alone():
    alone = draw.sample_keys(["cauldron/ai2d/000123"], seed=17)[0]
    among = draw.sample_keys(["a", "cauldron/ai2d/000123", "b"], seed=17)[1]
    assert alone == among
    assert alone != draw.sample_keys(["cauldron/ai2d/000123"], seed=18)[0]


@given(st.integers(min_value=0))
def test_any_seed_is_taken(seed):
    assert draw.sample_keys(["x"], seed=seed).dtype == np.uint64


def test_draws_of_several_purposes_are_uniform_and_independent():
    keys = draw.sample_keys((str(i) for i in range(20_000)), seed=1)
    first = draw.unit_fractions(draw.rehash(keys, "split"))
    second = draw.unit_fractions(draw.rehash(keys, "order"))
    for numbers in (draw.unit_fractions(keys), first, second):
        assert numbers.min() >= 0
        assert numbers.max() < 1
        # A uniform draw's mean is 0.5 within 4 standard errors.
        assert abs(numbers.mean() - 0.5) < 4 * np.sqrt(1 / 12 / len(keys))
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(len(keys))
    assert abs(np.corrcoef(first, draw.unit_fractions(keys))[0, 1]) < 4 / np.sqrt(len(keys))
