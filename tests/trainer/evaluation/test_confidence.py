"""Intervals hold the true score as often as they say; the paired test is the exact one."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from trainer.evaluation.confidence import Scores, clusters_of, compare, mean_interval


def scores(points: np.ndarray, clusters: np.ndarray | None = None, weight: float = 1) -> Scores:
    alone = np.arange(len(points)) if clusters is None else clusters
    return Scores(points=points.tolist(), clusters=alone.tolist(), weight=weight)


@pytest.mark.parametrize(
    ("images", "questions", "share", "alike"),
    [(200, 1, 0.9, 0.0), (40, 5, 0.7, 0.5), (20, 3, 0.5, 0.8), (300, 4, 0.97, 0.3)],
)
def test_intervals_hold_the_true_score(
    images: int, questions: int, share: float, alike: float
) -> None:
    """Questions about an image are `alike` (intra-class correlation)."""
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(images), questions)
    runs, held, naive = 800, 0, 0
    for _ in range(runs):
        chance = np.full(images, share)
        if alike:
            number = 1 / alike - 1
            chance = rng.beta(share * number, (1 - share) * number, images)
        points = (rng.random((images, questions)) < chance[:, None]).astype(float).ravel()
        found = mean_interval([scores(points, clusters)])
        held += found.low <= share <= found.high
        found = mean_interval([scores(points)])
        naive += found.low <= share <= found.high
    assert 0.93 < held / runs < 0.985
    if alike:  # as if questions were independent, intervals promise too much
        assert naive / runs < 0.9


def test_the_interval_of_a_weighted_mean_is_that_of_its_parts() -> None:
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(500):
        first = scores((rng.random(150) < 0.3).astype(float), weight=3)
        second = scores((rng.random(60) < 0.8).astype(float))
        found = mean_interval([first, second])
        held += found.low <= (3 * 0.3 + 0.8) / 4 <= found.high
    assert 0.93 < held / 500 < 0.985


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_score_without_exception_is_not_sure(value: float) -> None:
    found = mean_interval([scores(np.full(50, value))])
    assert found.value == value
    assert 0.05 < found.high - found.low < 0.1  # the rule of three: 3 / 50


def test_one_image_says_nothing_of_others() -> None:
    found = mean_interval([scores(np.array([1.0, 0.0, 1.0]), np.zeros(3, int))])
    assert (found.low, found.high) == (0, 1)


@example([0.25, 0.25, 0.25, -0.5, -0.5, 0.25])  # a total of 0, which sixths of it miss
@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), min_size=1, max_size=9))
def test_the_sign_test_is_exact(differences: list[float]) -> None:
    second = np.full(len(differences), 0.0)
    found = compare([scores(np.array(differences))], [scores(second)])
    total = abs(sum(differences))
    signed = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(differences))
    ]
    assert found.p == pytest.approx(np.mean([each >= total - 1e-9 for each in signed]))
    assert found.difference.value == pytest.approx(sum(differences) / len(differences))


def test_the_sign_test_of_right_and_wrong_is_mcnemars() -> None:
    rng = np.random.default_rng(3)
    first = rng.random(400) < 0.6
    second = np.where(rng.random(400) < 0.75, first, rng.random(400) < 0.5)
    better, worse = int((first & ~second).sum()), int((~first & second).sum())
    assert better + worse > 30  # so that signs are drawn
    found = compare([scores(first.astype(float))], [scores(second.astype(float))])
    exact = stats.binomtest(better, better + worse).pvalue
    assert found.p == pytest.approx(exact, abs=0.02)
    again = compare([scores(second.astype(float))], [scores(first.astype(float))])
    assert again.p == found.p
    assert again.difference.value == -found.difference.value
    assert again.difference.low == -found.difference.high


def test_equal_checkpoints_are_rarely_told_apart() -> None:
    rng = np.random.default_rng(4)
    clusters = np.repeat(np.arange(12), 5)
    told = 0
    for _ in range(300):
        shift = rng.normal(0, 0.3, 12)[clusters]  # an image may suit one of the two
        first, second = (np.clip(0.5 + sign * shift + rng.normal(0, 0.1, 60), 0, 1)
                         for sign in (1, -1))  # fmt: skip
        found = compare([scores(first, clusters)], [scores(second, clusters)])
        told += found.p < 0.05
    assert told / 300 < 0.09


def test_a_chain_of_shared_images_is_one_cluster() -> None:
    a, b, c, d, e = clusters_of([["x"], ["x", "y"], ["z"], ["y"], []])
    assert a == b == d
    assert len({a, c, e}) == 3
