"""Bounds and quantiles of facts: own ones, ratings, scores and annotations alike."""

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import filters
from filters.bounds import NUMBERS, beyond_quantile, validate_facts
from filters.facts import FACTS, facts
from tests.filters.rows import sample, table
from tokenization.schema import SAMPLE


def judged(values, **settings):
    made = table(*(sample(id=f"s/{n}") for n in range(len(values))))
    made = made.append_column("quality", pa.array(values, pa.float64()))
    return filters.judge(made, rules={"out_of_bounds": settings}).select(["rule", "detail"])


def test_numbers_are_the_facts_that_are_numbers():
    frame = facts(SAMPLE.empty_table(), names=set(FACTS))
    numeric = {name for name, kind in frame.schema.items() if kind.is_numeric()}
    assert set(NUMBERS) == numeric


def test_a_bound_fires_on_its_far_side_alone_and_says_which():
    found = judged([0.1, 0.2, 0.5, 0.51, None], facts={"quality": {"min": 0.2, "max": 0.5}})
    assert found["rule"].to_pylist() == ["out_of_bounds", None, None, "out_of_bounds", None]
    assert found["detail"].to_pylist()[::3] == ["quality below 0.2", "quality above 0.5"]


def test_bounds_may_be_negative_and_the_absent_may_go():
    found = judged([-2, -1, None], facts={"quality": {"min": -1}}, absent="goes")
    assert found["rule"].to_pylist() == ["out_of_bounds", None, "out_of_bounds"]
    assert found["detail"][2].as_py() == "quality is absent"


def test_own_facts_and_ratings_come_through_the_same_door():
    rated = {"relevance": 2, "image_correspondence": 5, "visual_dependency": 5, "formatting": 5}
    made = table(sample(id="s/0", ratings=[rated]), sample(id="s/1"))
    rules = {"out_of_bounds": {"facts": {"relevance_min": {"min": 3}, "num_turns": {"max": 9}}}}
    found = filters.judge(made, rules=rules, weight_by="relevance_mean")
    assert found["rule"].to_pylist() == ["out_of_bounds", None]
    assert found["weight"].to_pylist() == [2.0, None]


def quantile(values, within="component", subset=None, **sides):
    frame = pl.DataFrame({
        "id": [f"a/b/{n}" for n in range(len(values))],
        "component": "c",
        "subset": subset or ["x"] * len(values),
        "q.value": pl.Series(values, dtype=pl.Float64),
    })  # fmt: skip
    gone = beyond_quantile(frame, facts={"q": sides}, within=within)
    return [int(name.rpartition("/")[2]) for name in gone["id"]]


def test_a_share_goes_ties_at_the_edge_stay():
    assert quantile([5, 1, 4, 2, 3], lowest=0.4) == [1, 3]
    assert quantile([5, 1, 4, 2, 3], highest=0.2) == [0]
    assert quantile([1, 1, 1, 2], lowest=0.5) == []
    assert quantile(range(100), lowest=0.29) == [*range(29)]  # as floats, 100 * 0.29 < 29
    assert quantile([1, None, 2, None], lowest=0.5) == [0]
    assert quantile([1, 2, 9, 8], within="subset", subset=["x", "x", "y", "y"], lowest=0.5) == [
        0,
        3,
    ]


@given(st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=40), st.floats(0, 1))
def test_no_more_than_the_share_goes_and_none_that_is_higher_than_one_that_stays(values, share):
    gone = quantile(values, lowest=share)
    there = [value for value in values if value is not None]
    assert len(gone) <= share * len(there) + 1e-9
    stay = [v for n, v in enumerate(values) if n not in gone and v is not None]
    assert not gone or not stay or max(values[n] for n in gone) < min(stay)
    if len(set(there)) == len(there):
        assert len(gone) == int(share * len(there) + 1e-9)


@pytest.mark.parametrize(
    ("rule", "given_facts", "words"),
    [
        ("out_of_bounds", {}, "empty"),
        ("out_of_bounds", {"min_side": 3}, "expected `fact: {min: NUMBER}`"),
        ("out_of_bounds", {"min_side": {"mim": 3}}, "Did you mean 'min'"),
        ("out_of_bounds", {"min_side": {"min": "3"}}, "expected a number"),
        ("out_of_bounds", {"min_side": {"min": float("nan")}}, "expected a number"),
        ("out_of_bounds", {"min_side": {"min": 3, "max": 2}}, "is above max"),
        ("beyond_quantile", {"min_side": {"lowest": 1.5}}, "from 0 to 1"),
        ("beyond_quantile", {"min_side": {"min": 0.5}}, "unknown setting 'min'"),
    ],
)
def test_a_mistake_names_the_key(rule, given_facts, words):
    with pytest.raises(ValueError, match=words) as error:
        filters.validate({rule: {"facts": given_facts}}, where="x.yaml: filters")
    assert f"x.yaml: filters.{rule}.facts" in str(error.value)


@pytest.mark.parametrize(
    ("fact", "words"),
    [
        ("qualty", "Did you mean 'quality'"),
        ("roles", "no number"),
        ("relevanse_min", "relevance_min"),
    ],
)
def test_a_fact_that_is_none_is_told_with_its_like(fact, words):
    rules = {"beyond_quantile": {"facts": {fact: {"lowest": 0.1}}}}
    with pytest.raises(ValueError, match=words):
        validate_facts(rules, annotated=["quality"], where="x")


def test_an_annotation_does_not_stand_in_for_a_fact_of_the_samples():
    with pytest.raises(ValueError, match="annotated_min_side"):
        validate_facts({}, annotated=["min_side"], where="x")
