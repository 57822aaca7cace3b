"""What a mixture costs, from recorded sizes and rates."""

import dataclasses

import polars as pl
import pytest

from mixtures.allocate import allocate
from mixtures.config import Component, Frames, Limit
from mixtures.pick import apply_caps, pick
from mixtures.plan import (
    MODELS,
    BuildSpeed,
    build_hours,
    by_modality,
    demand,
    gpu_hours,
    recorded_supply,
    still_crops,
    totals,
    training_cost,
    training_flops,
    what_is_read,
)
from tests.mixtures.synthetic import index_of, mixture_of
from tokenization.schema import Encoding

HEAD = "source,subset,modality,rows,images,seconds,text_tokens,learned_tokens,basis,origin\n"


@pytest.mark.parametrize(
    ("settings", "crops"),
    [
        # 4:3 images by the processor's rule: the longer side to longest_edge, both up to crops.
        ({"longest_edge": 2048, "crop_size": 512}, 4 * 3 + 1),
        ({"longest_edge": 1536, "crop_size": 384}, 4 * 3 + 1),
        ({"longest_edge": 1024, "crop_size": 512}, 2 * 2 + 1),
        ({"longest_edge": 512, "crop_size": 512}, 1),
        ({"split_images": False}, 1),
    ],
)
def test_crops_of_a_still_follow_the_encoding(settings, crops):
    assert still_crops(Encoding(**settings)) == crops


def test_recorded_sizes_become_a_supply(tmp_path):
    sizes = tmp_path / "sizes.csv"
    sizes.write_text(
        HEAD
        + "source_of_text,a,text,1000,0,0,500,300,recorded,https://x\n"
        + "source_of_text,b,text,1000,0,0,500,300,recorded,https://x\n"
        + "source_of_video,1_m_*,video,100,0,60,200,100,estimated,https://x\n"
    )
    mixture = mixture_of(
        {"text": 0.5, "video": 0.5},
        subsets={"text": {"a": {"keep": 0.5}}, "video": {"1_m_x": {}, "1_m_y": {}}},
        val_fraction=0,
    )
    table = recorded_supply(mixture, recorded=sizes)
    text, video = table.iter_rows(named=True)  # subset b was not asked for
    assert (text["component"], text["subset"], text["samples"], text["tokens"]) == (
        *("text", "a", 500, 250_000),
    )
    assert (video["subset"], video["samples"], video["crops"]) == ("1_m_*", 100, 6000)
    assert video["tokens"] == 100 * (200 + 60 * (64 + 11))
    assert video["basis"] == "estimated"


def test_frames_of_a_component_bound_its_tokens(tmp_path):
    sizes = tmp_path / "sizes.csv"
    sizes.write_text(HEAD + "v,default,video,10,0,600,0,0,recorded,https://x\n")
    mixture = dataclasses.replace(mixture_of({"v": 1.0}, val_fraction=0), components={})
    for frames, expected in ((Frames(), 64), (Frames(max_frames=8), 8), (Frames(fps=0.05), 30)):
        component = Component(source="v", ratio=1.0, frames=frames)
        one = dataclasses.replace(mixture, components={"v": component})
        assert recorded_supply(one, recorded=sizes)["crops"].to_list() == [10 * expected]


INDEX_3 = index_of(
    {("text", "a"): 1500, ("image", "x"): 900, ("image", "y"): 300, ("video", "v"): 240},
    modality={"text": "text", "video": "video"},
)
RATIOS = {"text": 0.2, "image": 0.5, "video": 0.3}


@pytest.mark.parametrize("measure", ["tokens", "samples", "learned_tokens"])
@pytest.mark.parametrize("tokens", [500_000, "max"])
def test_demand_is_what_picking_then_takes(measure, tokens):
    mixture = mixture_of(RATIOS, tokens=tokens, measure=measure)
    picked = pick(INDEX_3, mixture)
    table = demand(apply_caps(INDEX_3, mixture)[1], mixture)
    train = picked.filter(split="train")
    for line in table.iter_rows(named=True):
        mine = train.filter(component=line["component"])
        got = mine.select((pl.col("copies") * pl.col("num_tokens")).sum()).item()
        # Means of the whole subset beside what was drawn of it: near, not equal.
        assert got == pytest.approx(line["used_tokens"], rel=0.15)
        assert mine["copies"].sum() == pytest.approx(line["used_samples"], rel=0.15)
    assert table["basis"].unique().to_list() == ["measured"]
    assert not table["short"].any()
    assert table["binds"].sum() == 1
    if tokens == "max":
        assert table["spare"].min() == pytest.approx(1)


def test_demand_is_what_allocate_grants():
    mixture = mixture_of(RATIOS, tokens=500_000)
    _, table = apply_caps(INDEX_3, mixture)
    granted = (
        allocate(table, mixture)
        .group_by("component", maintain_order=True)
        .agg(pl.col("target").sum())
    )
    assert demand(table, mixture)["needs"].to_list() == pytest.approx(granted["target"].to_list())


def test_a_shortage_and_a_component_without_supply_are_shown_and_not_raised():
    mixture = mixture_of(RATIOS, tokens=80_000_000)
    table = demand(apply_caps(INDEX_3, mixture)[1].filter(pl.col("component") != "text"), mixture)
    assert table["component"].to_list() == list(RATIOS)
    assert table["short"].all()
    text = table.row(0, named=True)
    assert (text["gives"], text["basis"]) == (0, "not recorded")


def test_rows_are_bounded_by_tokens_or_by_crops():
    mixture = mixture_of(RATIOS, tokens=1_000_000)
    table = demand(apply_caps(INDEX_3, mixture)[1], mixture)
    loose = totals(table, mixture)
    assert loose["tokens"] == pytest.approx(1_000_000)
    assert loose["rows"] == -(-loose["tokens"] // (8192 * 0.99))
    tight = dataclasses.replace(mixture, encoding=Encoding(max_crops=16))
    assert totals(table, tight)["rows"] > loose["rows"]
    assert totals(table, tight)["fill"] < loose["fill"] < 0.991


def test_modality_shares_are_of_what_is_used(tmp_path):
    sizes = tmp_path / "sizes.csv"
    sizes.write_text(
        HEAD
        + "source_of_a,x,image,900,1,0,0,0,recorded,https://x\n"
        + "source_of_a,x,video,100,0,10,0,0,recorded,https://x\n"
        + "source_of_b,y,text,5000,0,0,100,50,recorded,https://x\n"
    )
    mixture = mixture_of({"a": 0.5, "b": 0.5}, measure="samples")
    shares = by_modality(recorded_supply(mixture, recorded=sizes), mixture)
    assert dict(shares.select("modality", "share_of_samples").iter_rows()) == pytest.approx(
        {"image": 0.45, "video": 0.05, "text": 0.5}
    )
    limits = {"few": {"component": "a", "modality": "video", "max_ratio": 0.01}}
    mixture = mixture_of({"a": 0.5, "b": 0.5}, measure="samples", limits=limits)
    shares = by_modality(recorded_supply(mixture, recorded=sizes), mixture)
    assert dict(shares.select("modality", "share_of_samples").iter_rows()) == pytest.approx(
        {"image": 0.49, "video": 0.01, "text": 0.5}
    )


def test_flops_are_six_per_parameter_and_token_and_attention():
    model = MODELS["256M"]
    short = training_flops(1e9, 0, model=model, mean_length=0)
    assert short == pytest.approx(6 * 135e6 * 1e9)
    longer = training_flops(1e9, 0, model=model, mean_length=8192)
    assert longer - short == pytest.approx(12 * 30 * 576 * 8192 * 1e9)
    one_crop = training_flops(0, 1, model=model, mean_length=0)
    assert one_crop == pytest.approx(1024 * (6 * 93e6 + 12 * 12 * 768 * 1024))


def test_gpu_hours_are_flops_over_what_the_gpu_does():
    assert gpu_hours(312e12 * 0.5 * 3600, gpu="A100", mfu=0.5) == pytest.approx(1)
    with pytest.raises(ValueError, match="gpu 'B300' is not known; expected one of A100"):
        gpu_hours(1, gpu="B300", mfu=0.5)
    with pytest.raises(ValueError, match=r"mfu is 1\.5"):
        gpu_hours(1, gpu="A100", mfu=1.5)


def test_larger_models_cost_more():
    cost = training_cost({"tokens": 1e9, "samples": 1e6, "crops": 1e7})
    assert cost["model"].to_list() == ["256M", "500M", "2.2B"]
    assert cost["gpu_hours"].is_sorted()


def supply_table(*lines: tuple[str, str, float]) -> pl.DataFrame:
    """A supply of samples of 100 tokens, 2 crops and 10 bytes."""
    table = pl.DataFrame(lines, schema=["component", "subset", "samples"], orient="row")
    samples = pl.col("samples")
    return table.with_columns(
        units=samples * 100, tokens=samples * 100, learned=samples * 10, crops=samples * 2,
        bytes=samples * 10, limited=pl.lit(0, pl.UInt32), modality=pl.lit("image"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("stated", "of_b", "read"),
    [
        # 500 samples of each: of `a`, whose subsets have no weights, half of both; of `b` by need
        ("enough", None, {"a/x": 400, "a/y": 100, "b/x": 250, "b/y": 250}),
        ("all", None, {"a/x": 800, "a/y": 200, "b/x": 1000, "b/y": 250}),
        ("enough", "all", {"a/x": 400, "a/y": 100, "b/x": 1000, "b/y": 250}),
    ],
)
def test_as_much_is_read_as_covers_what_is_used(stated, of_b, read):
    weights = {"b": {"x": {"weight": 1.0}, "y": {"weight": 1.0}}}
    made = mixture_of({"a": 0.5, "b": 0.5}, subsets=weights, tokens=100_000, read=stated)
    changed = dataclasses.replace(made.components["b"], read=of_b)
    mixture = dataclasses.replace(made, components={**made.components, "b": changed})
    a, b = [("a", "x", 800.0), ("a", "y", 200.0)], [("b", "x", 1000.0), ("b", "y", 250.0)]
    table = supply_table(*a, *b)
    found = what_is_read(table, mixture)
    names = (found["component"] + "/" + found["subset"]).to_list()
    assert dict(zip(names, found["samples"], strict=True)) == pytest.approx(read)
    assert found["crops"].to_list() == pytest.approx((found["samples"] * 2).to_list())
    more = what_is_read(table, dataclasses.replace(mixture, tokens=400_000, on_shortage="shrink"))
    assert (more["samples"] <= [800.0, 200.0, 1000.0, 250.0]).all(), "no row is read twice"


def test_what_limits_take_is_read_with_the_rest(tmp_path):
    sizes = tmp_path / "sizes.csv"
    sizes.write_text(
        HEAD
        + "source_of_a,x,image,1000,1,0,500,300,recorded,https://x\n"
        + "source_of_a,x,video,500,0,60,500,300,recorded,https://x\n"
    )
    none = Limit(component="a", modality="video", max_ratio=0)
    made = mixture_of({"a": 1.0}, subsets={"a": {"x": {}}}, val_fraction=0, measure="samples")
    mixture = dataclasses.replace(made, limits={"no_videos": none}, on_shortage="shrink")
    supply = recorded_supply(mixture, recorded=sizes)
    assert supply["samples"].to_list() == [1000, 0]
    some = dataclasses.replace(mixture, tokens=int(supply["tokens"].sum() / 4))
    assert what_is_read(supply, some)["samples"].to_list() == pytest.approx([250, 125], rel=0.01)
    assert what_is_read(supply, some)["crops"][1] == pytest.approx(125 * 60, rel=0.01)


SLOW = BuildSpeed(stills_per_second=25.0, frames_per_second=40.0)


def test_build_time_is_shared_by_cores():
    mixture = mixture_of({"v": 1.0}, tokens=1000)
    table = pl.DataFrame(
        {"modality": ["image", "video"], "samples": [100.0, 10.0], "crops": [1300.0, 640.0]}
    )
    whole = {"bytes": 1.5e9, "tokens": 0.0}
    one = build_hours(table, whole, mixture, cores=1, speed=SLOW)
    assert one["ingest"] == pytest.approx((100 / 25 + 640 / 40) / 3600)
    assert one["pack"] == pytest.approx(10 / 3600)
    assert one["all"] == pytest.approx(sum(one.values()) - one["all"])
    four = build_hours(table, whole, mixture, cores=4, speed=SLOW)
    assert four["all"] == pytest.approx(one["all"] / 4)
