"""How alike two sizes rank, which runs are taken for it, and what the page says of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trainer.search.earlier import Earlier
from trainer.search.methods import LEAST_RUNS, bayes, regression
from trainer.search.page import conclusion, page
from trainer.search.proxies import advice
from trainer.search.space import space_of
from trainer.search.verification import _spread_out, arms_of, compared, rank_correlation

SPACE = {"bounds": {}, "groups": [], "fixed": {}, "most": {}}


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=12))
def test_the_rank_correlation_is_that_of_scipy(pairs: list[tuple[int, int]]) -> None:
    points = [{"proxy": float(a), "larger": float(b)} for a, b in pairs]
    found = rank_correlation([*points, {"proxy": None, "larger": 2.0}])
    across, up = zip(*pairs, strict=True)
    if 1 in (len(set(across)), len(set(up))):
        assert found is None
    else:
        assert found == pytest.approx(stats.spearmanr(across, up).statistic)


def test_of_two_points_no_rank_is_told() -> None:
    assert rank_correlation([{"proxy": 1.0, "larger": 2.0}, {"proxy": 2.0, "larger": 3.0}]) is None


def test_runs_are_taken_from_the_best_to_the_worst() -> None:
    losses = np.array([5.0, 1.0, 4.0, 2.0, 3.0])
    assert _spread_out(losses, 3) == [1, 4, 0]
    assert _spread_out(losses, 0) == []
    assert sorted(_spread_out(losses, 9)) == [0, 1, 2, 3, 4]


def test_a_schedule_is_held_beside_its_means() -> None:
    made = space_of({"a": 0.5, "b": 0.5}, **SPACE, stages=2)
    arms = arms_of(made, {"a": 3.0, "b": 1.0}, np.array([0.2, 0.8, 0.6, 0.4]))
    assert arms["its means"] == pytest.approx([0.4, 0.6, 0.4, 0.6])
    assert arms["supply"] == pytest.approx([0.75, 0.25, 0.75, 0.25])
    assert made.ratios(arms["proposal"]) == {"a": [0.2, 0.6], "b": [0.8, 0.4]}


@pytest.mark.parametrize("method", [regression, bayes])
def test_a_method_ends_where_time_does_with_the_runs_that_it_had(method) -> None:
    made, tried = space_of({"a": 0.4, "b": 0.3, "c": 0.3}, **SPACE), []

    def evaluate(point: np.ndarray) -> float:
        tried.append(point)
        return float("nan") if len(tried) == 3 else float(3 + point[2] + 0.1 * point[0])

    more = {"earlier": Earlier.none(made), "runs": 9}
    found = method(made, evaluate, random=np.random.default_rng(1), **more,
                   enough=lambda: len(tried) >= 6)  # fmt: skip
    assert len(tried) == 6
    assert len(found.points) == 5  # one failed
    tried.clear()
    method(made, evaluate, random=np.random.default_rng(1), **more, enough=lambda: True)
    assert len(tried) == LEAST_RUNS

    def failing(point: np.ndarray) -> float:
        return float(point[0]) if not tried.append(point) and len(tried) < 3 else float("nan")

    tried.clear()
    with pytest.raises(ValueError, match="2 runs did not fail; expected 3 at least"):
        method(made, failing, random=np.random.default_rng(1), **more)


def _result(**more) -> dict:
    seeds = {1: 2.0, 2: 2.1, 3: 1.9}
    prior = compared(seeds, seeds) | {"targets": list(seeds.values())}
    ours = {seed: value - 0.5 - 0.01 * seed for seed, value in seeds.items()}
    better = compared(ours, seeds) | {"targets": list(ours.values())}
    return {
        "target": {"a": 1, "vqa": 2}, "benchmarks": ["vqa"], "stages": 2, "parameters": 900_000,
        "proposal": {"a": [0.2, 0.6], "<b>": [0.8, 0.4]}, "prior": {"a": 0.5, "<b>": 0.5},
        "predicted": {"target": 1.4, "spread": 0.02},
        "model": {"error": 0.01, "rank_correlation": 0.9, "left_out": [1.4, 1.6]},
        "runs": [{"ratios": {"a": [0.1, 0.2], "<b>": [0.9, 0.8]}, "target": 1.5}] * 2,
        "effects": {"a, stage 1": {"doubled": 0.01, "spread": 0.001}},
        "search_cost": {"runs": 2, "tokens": 10, "cpu_seconds": 1.0},
        "cost": {"runs": 9, "tokens": 90, "cpu_seconds": 9.0},
        "budget": {"runs": 2, "hours": None, "seconds": None, "tried": 2},
        "verified": {"proposal": better, "prior": prior}, "failed": [],
    } | more  # fmt: skip


def test_the_page_says_what_is_known_of_a_larger_size() -> None:
    plain = _result()
    assert conclusion(plain).startswith("The proposal is better than the prior: -0.52")
    assert "larger" not in conclusion(plain)
    text = page(plain, name="m")
    assert "&lt;b&gt;" in text
    assert "stage 2" in text
    assert "1 x loss of a, 2 x 1 - score of vqa" in text
    assert "The budget was 2 runs." in text
    verified = plain["verified"]
    points = [
        {"name": n, "proxy": p, "larger": p * 2} for n, p in (("a", 1.0), ("b", 2.0), ("c", 3))
    ]
    larger = {"config": "tiny", "tokens": 10, "parameters": 2_000_000, "verified": verified,
              "points": points, "rank_correlation": rank_correlation(points)}  # fmt: skip
    failed = [{"run": "run 2", "seed": 17, "ratios": {}, "why": "no <memory>"}]
    told = _result(larger=larger, failed=failed)
    assert "The sizes rank 3 mixtures with a correlation of 1.00" in conclusion(told)
    text = page(told, name="m")
    assert "At a larger size: tiny, 2,000,000 parameters" in text
    assert "no &lt;memory&gt;" in text
    unknown = _result(larger=larger | {"rank_correlation": None})
    assert "not known: too few points" in conclusion(unknown)


def test_advice_is_of_the_proxy_at_hand() -> None:
    assert "less is to be expected of this one" in advice(900_000)
    assert "between" in advice(2_000_000)
    assert "large enough" in advice(15_000_000)
    for parameters in (1, 10**9):
        assert "0.73 at 1 M parameters and above 0.89 from 15 M on" in advice(parameters)
