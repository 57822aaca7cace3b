"""Caps of tags hold over all components, and are used up."""

import dataclasses

import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mixtures.limits import limit_masks
from mixtures.pick import pick
from tests.mixtures.synthetic import index_of, mixture_of

MODALITY = {"text": "text", "image": "image", "video": "video"}
RATIOS = {"text": 0.2, "image": 0.5, "video": 0.3}
INDEX_3 = index_of(
    {("text", "a"): 1200, ("image", "x"): 800, ("image", "y"): 400, ("video", "v"): 200},
    modality=MODALITY,
).with_columns(  # chain of thought hides in text and in one of the image subsets
    tags=pl.when(
        ((pl.col("subset") == "a") & (pl.col("row") % 5 == 0))
        | ((pl.col("subset") == "y") & (pl.col("row") % 2 == 0))
    )
    .then(pl.lit(["cot"], dtype=pl.List(pl.String)))
    .otherwise(pl.lit([], dtype=pl.List(pl.String)))
)

COT = pl.col("tags").list.contains("cot")


def part_of(picked: pl.DataFrame, what: pl.Expr, measure: str = "tokens") -> float:
    """Share of the train split, in the unit of `measure`."""
    unit = {"tokens": pl.col("num_tokens"), "samples": 1, "learned_tokens": pl.col("num_learned")}
    units = unit[measure] * pl.col("copies")
    train = picked.filter(split="train")
    return float(train.select(units.filter(what).sum() / units.sum()).item())


@settings(max_examples=40)
@given(
    most=st.sampled_from([0.0005, 0.005, 0.02, 0.05]),
    measure=st.sampled_from(["tokens", "samples", "learned_tokens"]),
    tokens=st.sampled_from([200_000, 900_000, "max"]),
    seed=st.integers(0, 1000),
)
def test_a_tag_is_capped_over_all_components_and_used_up_to_the_cap(most, measure, tokens, seed):
    free = mixture_of(RATIOS, tokens=tokens, measure=measure, seed=seed)
    capped = mixture_of(
        RATIOS, tokens=tokens, measure=measure, seed=seed, limits={"cot": {"max_ratio": most}}
    )
    before, after = (pick(INDEX_3, mixture) for mixture in (free, capped))
    assume(part_of(before, COT, measure) > 1.2 * most)  # small mixtures vary; else nothing binds
    assert part_of(after, COT, measure) <= most * (1 + 1e-3)
    assert set(after["rule"].drop_nulls()) == {"limit_cot"}
    assert after.filter(pl.col("rule") == "limit_cot").select(COT.all()).item()
    for name, ratio in RATIOS.items():  # the ratios hold all the same
        longest = INDEX_3["num_tokens"].max() if measure != "samples" else 1
        total = part_of(after, pl.lit(value=True), measure)
        units = after.filter(split="train")
        count = {"tokens": pl.col("num_tokens"), "samples": 1}.get(measure, pl.col("num_learned"))
        whole = units.select((count * pl.col("copies")).sum()).item()
        assert total == 1
        got = part_of(after, pl.col("component") == name, measure)
        assert abs(got - ratio) * whole <= longest


def test_most_of_a_cap_is_used():
    mixture = mixture_of(RATIOS, tokens="max", limits={"cot": {"max_ratio": 0.02}})
    assert 0.015 < part_of(pick(INDEX_3, mixture), COT) <= 0.02


def test_a_cap_that_does_not_bind_changes_nothing():
    free = pick(INDEX_3, mixture_of(RATIOS, tokens=600_000))
    loose = pick(INDEX_3, mixture_of(RATIOS, tokens=600_000, limits={"cot": {"max_ratio": 0.9}}))
    assert loose["rule"].null_count() == free["rule"].null_count() == INDEX_3.height


def test_a_component_of_nothing_else_contradicts_a_lower_cap():
    index = INDEX_3.with_columns(
        tags=pl.when(pl.col("component") == "video")
        .then(pl.lit(["cot"], dtype=pl.List(pl.String)))
        .otherwise("tags")
    )
    mixture = mixture_of(RATIOS, tokens=100_000, limits={"cot": {"max_ratio": 0.1}})
    with pytest.raises(ValueError, match=r"limits.cot.max_ratio is 0.1, but video hold nothing"):
        pick(index, mixture)
    # Exactly its ratio is no contradiction: the others give none.
    exact = mixture_of(RATIOS, tokens=100_000, limits={"cot": {"max_ratio": 0.3}})
    picked = pick(index, exact)
    assert picked.filter(COT & (pl.col("copies") > 0))["component"].unique().to_list() == ["video"]


def test_several_limits_hold_at_once():
    limits = {
        "cot": {"max_ratio": 0.03},
        "short": {"modality": "video", "max_seconds": 60, "max_ratio": 0.05},
        "charts": {"category": "Chart & Table", "max_ratio": 0.1},
    }
    subsets = {"image": {"y": {"category": "Chart & Table"}}}
    mixture = mixture_of(RATIOS, tokens=700_000, limits=limits, subsets=subsets)
    picked = pick(INDEX_3, mixture)
    assert part_of(picked, COT) <= 0.03
    assert part_of(picked, pl.col("duration") < 60) <= 0.05
    assert part_of(picked, pl.col("subset") == "y") <= 0.1
    assert {"limit_short", "limit_charts"} <= set(picked["rule"].drop_nulls())


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ({"tag": "cot"}, COT),
        ({"modality": "text"}, pl.col("modality") == "text"),
        ({"category": "OCR"}, pl.col("subset") == "x"),
        ({"category": "VQA"}, pl.col("subset") == "y"),
        ({"licence": "MIT"}, pl.col("component") == "text"),
        ({"min_seconds": 100}, pl.col("duration") >= 100),
        ({"max_seconds": 100}, pl.col("duration") < 100),
        ({"min_seconds": 50, "max_seconds": 100}, pl.col("duration").is_between(50, 100)),
        ({"component": "image", "tag": "cot"}, COT & (pl.col("component") == "image")),
        ({"modality": "text", "tag": "cot"}, COT & (pl.col("modality") == "text")),
    ],
)
def test_what_is_under_a_limit(limit, expected):
    subsets = {"image": {"x": {"category": "OCR"}, "y": {}}}
    made = mixture_of(RATIOS, limits={"it": {"max_ratio": 0.1, **limit}}, subsets=subsets)
    image = dataclasses.replace(made.components["image"], category="VQA")
    mixture = dataclasses.replace(made, components={**made.components, "image": image})
    licences = {"text": "MIT", "image": "CC-BY-4.0", "video": "CC-BY-NC-4.0"}
    under = limit_masks(INDEX_3, mixture, licences=licences) > 0
    assert under.to_list() == INDEX_3.select(expected.fill_null(value=False)).to_series().to_list()


def test_a_limit_on_a_licence_needs_to_know_them():
    mixture = mixture_of(RATIOS, limits={"nc": {"max_ratio": 0.1, "licence": "CC-BY-NC-4.0"}})
    with pytest.raises(ValueError, match=r"limits.nc is on a licence, but no licences are known"):
        pick(INDEX_3, mixture)
