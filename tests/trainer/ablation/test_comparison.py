"""What an interval shows: Student's paired t, as SciPy has it."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trainer.ablation import comparison
from trainer.ablation.comparison import compare_by_seed, spread
from trainer.ablation.results import _line
from trainer.ablation.sweep import read_sweep

VALUES = st.lists(
    st.tuples(st.floats(-10, 10, width=32), st.floats(-10, 10, width=32)), min_size=2, max_size=6
)


@given(VALUES, st.booleans())
def test_intervals_are_those_of_scipy_and_verdicts_are_theirs(
    pairs: list[tuple[float, float]], lower: bool
) -> None:
    arm = {seed: a for seed, (a, _) in enumerate(pairs)}
    baseline = {seed: b for seed, (_, b) in enumerate(pairs)}
    found = compare_by_seed(arm, baseline, lower_is_better=lower)
    turned = compare_by_seed(baseline, arm, lower_is_better=lower)
    assert (turned.mean, turned.low, turned.high) == (-found.mean, -found.high, -found.low)
    by = [a - b for a, b in pairs]
    if not (same := comparison.all_the_same(by)):
        right = stats.ttest_1samp(by, 0).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((right.low, right.high), abs=1e-9)
    assert (found.verdict in (comparison.BETTER, comparison.WORSE)) == (
        (found.low > 0 or found.high < 0) and not same
    )
    swapped = {"better": "worse", "worse": "better"}
    assert turned.verdict == swapped.get(found.verdict, found.verdict)


def test_lower_is_better_of_losses_and_worse_of_scores() -> None:
    arm, baseline = {1: 1.0, 2: 1.1, 3: 1.05}, {1: 2.0, 2: 2.1, 3: 2.0}
    assert compare_by_seed(arm, baseline, lower_is_better=True).verdict == "better"
    assert compare_by_seed(arm, baseline, lower_is_better=False).verdict == "worse"


def test_seeds_that_only_one_has_count_for_nothing() -> None:
    both = compare_by_seed({1: 1.0, 2: 3.0, 4: 99.0}, {1: 0.0, 2: 0.5, 3: -99.0},
                           lower_is_better=True)  # fmt: skip
    assert (both.seeds, both.mean) == (2, 1.75)
    one = compare_by_seed({1: 1.0}, {1: 0.0}, lower_is_better=True)
    assert one.verdict == comparison.FEW
    assert one.high == math.inf
    assert compare_by_seed({1: 1.0}, {2: 0.0}, lower_is_better=True).verdict == comparison.FEW
    assert math.isnan(spread({1: 1.0}))


def test_a_metric_that_is_the_same_everywhere_says_so() -> None:
    same = dict.fromkeys((1, 2, 3), 0.5)
    assert compare_by_seed(same, dict(same), lower_is_better=False).verdict == comparison.CONSTANT


def test_differences_that_are_all_the_same_show_nothing() -> None:
    """0.5 - 0.4 and 0.6 - 0.5 differ in their last digits."""
    found = compare_by_seed({1: 0.5, 2: 0.6}, {1: 0.4, 2: 0.5}, lower_is_better=False)
    assert (found.verdict, found.low, found.high) == (comparison.NOT_SHOWN, -math.inf, math.inf)
    assert found.mean == pytest.approx(0.1)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_has_a_verdict_of_its_own(odd: float) -> None:
    fine = {1: 1.0, 2: 1.5, 3: 1.25}
    for pair in (({**fine, 2: odd}, fine), (fine, {**fine, 2: odd})):
        found = compare_by_seed(*pair, lower_is_better=True)
        assert found.verdict == comparison.NOT_FINITE
        assert math.isnan(found.mean)
    assert math.isnan(spread({1: odd, 2: odd}))
    assert math.isnan(comparison.mean({1: odd, 2: -odd}))


def test_a_metric_that_is_not_finite_is_null_in_the_table(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(
        "mixture: quickstart\nconfig: tiny\nseeds: 2\narms: {a: {}, b: {train: {steps: 2}}}"
    )
    baseline = {1: {"all": 1.0}, 2: {"all": 1.5}}
    line = _line("all", {1: {"all": math.nan}, 2: {"all": 1.0}}, baseline, read_sweep(file))
    json.dumps(line, allow_nan=False)
    assert line["by_seed"] == {"1": None, "2": 1.0}
    assert (line["mean"], line["difference"]["verdict"]) == (None, "not finite")
