"""Ratios hold to a sample, whatever the seed, the measure and the epochs."""

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtures import draw
from mixtures.columns import in_memory
from mixtures.config import Mixture
from mixtures.copies import share_to_reach
from mixtures.draws import DRAW, Drawn
from mixtures.pick import (
    INDEX,
    apply_caps,
    as_tables,
    categorical,
    pick,
    pick_samples,
    shortage_notes,
)
from mixtures.samples import samples_of
from tests.mixtures.synthetic import index_of, mixture_of

MODALITY = {"text": "text", "image": "image", "video": "video", "multi": "multi_image"}
RATIOS = {"text": 0.14, "image": 0.40, "multi": 0.13, "video": 0.33}
UNIT = {
    "tokens": pl.col("num_tokens"),
    "learned_tokens": pl.col("num_learned"),
    "samples": pl.lit(1),
}

INDEX_4 = index_of(
    {
        ("text", "a"): 1500,
        ("image", "x"): 900,
        ("image", "y"): 300,
        ("image", "z"): 5,
        ("multi", "m"): 250,
        ("video", "v"): 240,
    },
    modality=MODALITY,
)


def budgets(index: pl.DataFrame, mixture: Mixture) -> pl.DataFrame:
    """Supply and budget per stratum."""
    return pick_samples(samples_of(index, mixture, licences={})[0], mixture).budgets


def used(picked: pl.DataFrame, measure: str, *by: str, split: str = "train") -> dict:
    """Units used in a split, by component (and subset)."""
    by = by or ("component",)
    table = (
        picked.filter(pl.col("split") == split)
        .group_by(*by)
        .agg(units=(UNIT[measure] * pl.col("copies")).sum())
    )
    return {row[:-1] if len(by) > 1 else row[0]: row[-1] for row in table.iter_rows()}


def largest_sample(index: pl.DataFrame, measure: str, component: str) -> int:
    one = index.filter(component=component).select(UNIT[measure].max()).item()
    return int(one)


@settings(max_examples=60)
@given(
    measure=st.sampled_from(["tokens", "learned_tokens", "samples"]),
    parts=st.lists(st.integers(1, 100), min_size=4, max_size=4),
    share=st.floats(0.01, 1.0),
    epochs=st.sampled_from([1.0, 1.5, 2.0, 4.0]),
    seed=st.integers(0, 2**40),
)
def test_every_ratio_is_within_a_sample_of_its_target(measure, parts, share, epochs, seed):
    ratios = {name: p / sum(parts) for name, p in zip(RATIOS, parts, strict=True)}
    settings_ = {"measure": measure, "max_epochs": epochs, "seed": seed, "val_fraction": 0.01}
    most = pick(INDEX_4, mixture_of(ratios, tokens="max", **settings_))
    tokens = max(20_000, int(share * 0.9 * sum(used(most, "tokens").values())))
    picked = pick(INDEX_4, mixture_of(ratios, tokens=tokens, **settings_))
    for index in (most, picked):
        got = used(index, measure)
        total = sum(got.values())
        for name, ratio in ratios.items():
            assert abs(got[name] - ratio * total) <= largest_sample(INDEX_4, measure, name)
        assert index["copies"].max() <= np.ceil(epochs)
    largest = INDEX_4.group_by("component").agg(pl.col("num_tokens").max())["num_tokens"]
    one = tokens / max(1, min(used(picked, "samples").values()))  # of the scarcest stands for it
    bound = largest.max() if measure == "tokens" else max(largest.sum(), one)
    assert abs(sum(used(picked, "tokens").values()) - tokens) <= bound


def test_nothing_but_rule_split_and_copies_changes():
    picked = pick(INDEX_4, mixture_of(RATIOS, tokens=300_000))
    same = [c for c in INDEX_4.columns if c not in {"rule", "split", "copies"}]
    assert picked.select(same).equals(INDEX_4.select(same))
    written = pa.concat_tables(as_tables(categorical(picked), rows=100))
    assert written.schema == INDEX
    assert pl.DataFrame(written).equals(pl.DataFrame(picked.select(INDEX.names).to_arrow()))


def test_a_rejected_sample_is_never_used():
    out = INDEX_4.with_columns(
        rule=pl.when(pl.int_range(pl.len()) % 3 == 0).then(pl.lit("small_image"))
    )
    mixture = mixture_of(RATIOS, tokens="max", subsets={"image": {"x": {"keep": 0.5}}})
    picked = pick(out, mixture)
    rejected = picked.filter(pl.col("rule").is_not_null())
    assert rejected["copies"].sum() == 0
    assert set(rejected["rule"]) == {"small_image", "keep"}
    assert picked.filter(pl.col("rule") == "small_image").height == -(-INDEX_4.height // 3)


@settings(max_examples=25)
@given(keep=st.floats(0.001, 1.0), rejected=st.integers(0, 300))
def test_keep_is_exact_and_nested(keep, rejected):
    index = INDEX_4.with_columns(
        rule=pl.when((pl.col("subset") == "x") & (pl.col("row") < rejected // 2)).then(
            pl.lit("blurred")
        )
    )
    survivors = index.filter((pl.col("subset") == "x") & pl.col("rule").is_null()).height

    def kept(fraction: float) -> set[str]:
        mixture = mixture_of(RATIOS, subsets={"image": {"x": {"keep": fraction}}})
        picked = pick(index, mixture).filter(subset="x")
        assert set(picked["rule"].drop_nulls()) <= {"keep", "blurred"}
        return set(picked.filter(pl.col("rule").is_null())["id"])

    assert len(kept(keep)) == min(round(keep * 900), survivors)
    assert kept(keep / 2) <= kept(keep)


def test_keep_counts_from_all_rows_where_only_some_parts_were_read():
    mixture = mixture_of(RATIOS, subsets={"image": {"x": {"keep": 0.1}}})
    picked = pick(INDEX_4, mixture, rows={("image", "x"): 5000})
    assert picked.filter(subset="x")["rule"].null_count() == 500


def test_max_samples_and_grades_cap_a_subset():
    caps = {"x": {"max_samples": 100}, "y": {"grade": 2}, "z": {"grade": 2}}
    picked = pick(INDEX_4, mixture_of(RATIOS, subsets={"image": caps}, grades={2: 40}))
    left = picked.filter(pl.col("rule").is_null()).group_by("subset").len()
    assert dict(left.iter_rows()) == {"a": 1500, "x": 100, "y": 40, "z": 5, "m": 250, "v": 240}
    assert set(picked.filter(subset="x")["rule"].drop_nulls()) == {"max_samples"}
    assert set(picked.filter(subset="y")["rule"].drop_nulls()) == {"grade"}


def test_keep_is_the_reason_before_max_samples():
    caps = {"x": {"max_samples": 100, "keep": 0.5}}
    reasons = pick(INDEX_4, mixture_of(RATIOS, subsets={"image": caps})).filter(subset="x")["rule"]
    counts = {rule: (reasons == rule).sum() for rule in ("keep", "max_samples")}
    assert counts == {"keep": 450, "max_samples": 350}


def test_without_weights_all_subsets_are_used_equally_often():
    mixture = mixture_of({"image": 1.0}, tokens=1_700_000)
    picked = pick(INDEX_4.filter(component="image"), mixture)
    table = budgets(INDEX_4.filter(component="image"), mixture)
    assert table["epochs"].max() - table["epochs"].min() < 1e-9
    got = used(picked, "tokens", "component", "subset")
    whole = dict(table.select("subset", "units").iter_rows())
    for (_, subset), units in got.items():
        assert abs(units / whole[subset] - table["epochs"][0]) * whole[subset] < 2500


@pytest.mark.parametrize("measure", ["tokens", "samples", "learned_tokens"])
def test_a_weight_is_the_share_inside_the_component(measure):
    weights = {"x": {"weight": 3}, "y": {"weight": 1}, "z": {"keep": 0.2}}
    mixture = mixture_of(
        {"image": 0.5, "text": 0.5},
        tokens=20_000,
        measure=measure,
        subsets={"image": weights},
        max_epochs=50,
    )
    index = INDEX_4.filter(pl.col("component").is_in(["image", "text"]))
    got = used(pick(index, mixture), measure, "component", "subset")
    total = sum(units for (component, _), units in got.items() if component == "image")
    for subset, share in (("x", 0.6), ("y", 0.2), ("z", 0.2)):
        assert abs(got["image", subset] - share * total) <= largest_sample(index, measure, "image")


def test_copies_inside_a_subset_differ_by_one_at_most():
    picked = pick(INDEX_4, mixture_of(RATIOS, tokens=2_400_000))
    train = picked.filter(split="train").group_by("component", "subset")
    spread = train.agg(pl.col("copies").max() - pl.col("copies").min())["copies"]
    assert spread.max() == 1


def test_the_split_is_a_hash_of_id_and_seed_and_never_moves():
    mixture = mixture_of(RATIOS, tokens=300_000, val_fraction=0.1)
    picked = pick(INDEX_4, mixture)
    sides = dict(picked.select("id", "split").iter_rows())
    fewer = pick(INDEX_4.sample(fraction=0.6, shuffle=True, seed=3), mixture)
    assert all(sides[i] == side for i, side in fewer.select("id", "split").iter_rows())
    more = pick(INDEX_4, mixture_of(RATIOS, tokens=300_000, val_fraction=0.2))
    assert set(picked.filter(split="val")["id"]) < set(more.filter(split="val")["id"])
    keys = draw.sample_keys(picked["id"], seed=mixture.seed)
    expected = draw.unit_fractions(draw.rehash(keys, "split")) < 0.1
    assert (picked["split"] == "val").to_numpy().tolist() == expected.tolist()


def test_val_samples_are_used_once_in_the_same_ratios():
    mixture = mixture_of(RATIOS, tokens=900_000, val_fraction=0.2)
    picked = pick(INDEX_4, mixture)
    val = picked.filter(split="val")
    assert set(val["copies"]) <= {0, 1}
    got = used(picked, "tokens", split="val")
    for name, ratio in RATIOS.items():
        target = ratio * 0.2 * 900_000
        assert abs(got[name] - target) <= largest_sample(INDEX_4, "tokens", name)


def test_a_component_has_a_val_sample_where_its_val_side_has_any():
    mixture = mixture_of(RATIOS, tokens=50_000, val_fraction=0.01)
    picked = pick(INDEX_4, mixture)
    there = set(picked.filter(split="val")["component"])
    assert there
    assert set(picked.filter(pl.col("copies") > 0, split="val")["component"]) == there
    assert pick(INDEX_4, mixture_of(RATIOS, tokens=50_000, val_fraction=0))["split"].unique()[
        0
    ] == ("train")


def test_the_order_of_rows_changes_nothing():
    mixture = mixture_of(RATIOS, tokens=700_000, subsets={"image": {"x": {"keep": 0.3}}})
    shuffled = INDEX_4.sample(fraction=1, shuffle=True, seed=5)
    columns = ["id", "rule", "split", "copies"]
    assert (pick(shuffled, mixture).select(columns).sort("id")).equals(
        pick(INDEX_4, mixture).select(columns).sort("id")
    )


def test_a_larger_budget_hardly_takes_any_copies():
    small = pick(INDEX_4, mixture_of(RATIOS, tokens=300_000))["copies"]
    large = pick(INDEX_4, mixture_of(RATIOS, tokens=900_000))["copies"]
    # The one sample that fills a gap may differ, per subset.
    assert (large < small).sum() <= 6


def test_weight_by_prefers_heavy_samples_in_partial_epochs():
    light = pl.when(pl.col("row") % 2 == 0).then(1.0).otherwise(9.0)
    index = index_of({("image", "x"): 20_000}).with_columns(weight=light)
    mixture = mixture_of({"image": 1.0}, tokens=int(0.1 * index["num_tokens"].sum()))
    weighted = mixture_of(
        {"image": 1.0}, tokens=int(0.1 * index["num_tokens"].sum()), weight_by="sharpness"
    )
    heavy = pl.col("copies").filter(pl.col("row") % 2 == 1).sum() / pl.col("copies").sum()
    assert abs(pick(index, mixture).select(heavy).item() - 0.5) < 0.03
    # A tenth is drawn from 1 : 9, so about nine tenths of it are heavy (a little less, as they go).
    assert 0.86 < pick(index, weighted).select(heavy).item() < 0.91


def test_weight_by_says_what_is_wrong_with_the_weights():
    mixture = mixture_of(RATIOS, weight_by="sharpness")
    with pytest.raises(ValueError, match="weight_by is 'sharpness', but the index has no column"):
        pick(INDEX_4, mixture)
    with pytest.raises(ValueError, match=r"negative(.|\n)*way out: .*sharpness: {min: 0}"):
        pick(INDEX_4.with_columns(weight=-1.0), mixture)


def test_what_a_rule_took_may_have_any_weight():
    """So that a rule may take what has none that counts."""
    odd = pl.col("row") % 2 == 1
    index = INDEX_4.with_columns(
        rule=pl.when(odd).then(pl.lit("out_of_bounds")),
        weight=pl.when(odd & (pl.col("row") % 3 == 0))
        .then(-1.0)
        .when(odd)
        .then(float("nan"))
        .otherwise(1.0),
    )
    picked = pick(index, mixture_of(RATIOS, tokens=200_000, weight_by="sharpness"))
    assert picked.filter(odd)["copies"].sum() == 0
    assert picked["copies"].sum() > 0


def test_an_index_of_another_mixture_is_refused():
    with pytest.raises(ValueError, match=r"made: the index holds components \['video'\]"):
        pick(INDEX_4, mixture_of({"text": 0.5, "image": 0.3, "multi": 0.2}))


def copies_to_reach(size: np.ndarray, goal: float, *, capped: bool) -> np.ndarray:
    """[n] copies of samples of these sizes, in the order of the draw."""
    column, some = in_memory(DRAW), np.zeros(len(size), DRAW)
    some["unit"] = size
    column.append(some)
    share = share_to_reach(Drawn(column), goal, capped=capped)
    copies = np.full(len(size), share.epochs, np.int32)
    copies[: share.first] += 1
    if share.beside >= 0:
        copies[share.beside] += 1
    return copies


@given(
    sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=60),
    goal=st.floats(0, 3.0),
    capped=st.booleans(),
)
def test_what_is_taken_is_within_half_a_sample_of_the_goal(sizes, goal, capped):
    size = np.array(sizes, float)
    wanted = goal * size.sum()
    copies = copies_to_reach(size, wanted, capped=capped)
    got = float((copies * size).sum())
    assert copies.max() - copies.min() <= 1
    if capped:
        assert got <= wanted * (1 + 1e-9)
        assert wanted - got < size.max() + 1e-6
    else:
        assert abs(got - wanted) <= size.max() / 2 + 1e-6


def test_a_component_picked_alone_uses_what_it_uses_beside_the_others():
    """The way past one machine's memory: a mixture per component (docs/mixtures.md)."""
    whole = pick(INDEX_4, mixture_of(RATIOS, tokens=400_000))
    for name, ratio in RATIOS.items():
        mixture = mixture_of({name: 1.0}, tokens=round(ratio * 400_000))
        alone = pick(INDEX_4.filter(component=name), mixture)
        assert alone.equals(whole.filter(component=name))


def test_what_a_shortage_did_is_said_of_the_picked_index():
    mixture = mixture_of(RATIOS, tokens=10**9, on_shortage="shrink")
    told = shortage_notes(budgets(INDEX_4, mixture), mixture)
    assert [line.split(":")[0] for line in told] == [*RATIOS]
    assert "on_shortage: shrink" in told[0]
    enough = mixture_of(RATIOS, tokens=400_000)
    assert shortage_notes(budgets(INDEX_4, enough), enough) == []


def test_thousands_of_millions_of_tokens_are_counted():
    """Of one component: more than an int32 holds, as Polars would sum int32."""
    most = pl.lit(2**30, pl.Int32)
    index = INDEX_4.with_columns(num_tokens=most, num_learned=most)
    _, table = apply_caps(index, mixture_of(RATIOS, val_fraction=0.0))
    sizes = {tuple(key): n for *key, n in INDEX_4.group_by("component", "subset").len().iter_rows()}
    assert max(sizes.values()) * 2**30 > 2**31
    for *key, tokens, learned in table.select(
        "component", "subset", "tokens", "learned"
    ).iter_rows():
        assert tokens == learned == sizes[tuple(key)] * 2**30
