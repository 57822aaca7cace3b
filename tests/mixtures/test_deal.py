"""Every copy is dealt to one place of one shard, evenly over the run."""

import itertools
from hashlib import sha256

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtures.deal import deal, with_shards
from mixtures.pick import VERSION, pick
from mixtures.places import BLOCK_ROWS
from tests.mixtures.synthetic import index_of, mixture_of

MODALITY = {"text": "text", "image": "image", "video": "video"}
RATIOS = {"text": 0.2, "image": 0.5, "video": 0.3}
INDEX_3 = index_of(
    {("text", "a"): 3000, ("image", "x"): 1500, ("image", "y"): 600, ("video", "v"): 300},
    modality=MODALITY,
    part_rows=50,
)


def dealt_of(index: pl.DataFrame, **settings_) -> tuple[pl.DataFrame, pl.DataFrame]:
    mixture = mixture_of(RATIOS, **settings_)
    picked = pick(index, mixture)
    return picked, deal(picked, mixture)


def test_other_shards_of_the_same_index_are_another_version():
    """Fingerprints know what is picked and dealt by VERSION alone: bump it with this digest."""
    _, dealt = dealt_of(INDEX_3, tokens=500_000, val_fraction=0.02, shard_bytes=200_000)
    digest = sha256(dealt.select(pl.col("split") == "val").to_series().to_numpy().tobytes())
    for name in ("shard", "order", "index_row"):
        digest.update(dealt[name].cast(pl.Int64).to_numpy().tobytes())
    assert (VERSION, digest.hexdigest()[:16]) == (1, "0334b2491d0515ea")


@settings(max_examples=25)
@given(
    tokens=st.sampled_from([30_000, 500_000, 4_000_000, "max"]),
    measure=st.sampled_from(["tokens", "samples", "learned_tokens"]),
    shard_bytes=st.sampled_from([200_000, 5_000_000, 2**40]),
    seed=st.integers(0, 10_000),
)
def test_every_copy_is_dealt_once_and_never_twice_in_a_shard(tokens, measure, shard_bytes, seed):
    settings_ = {"measure": measure, "shard_bytes": shard_bytes, "seed": seed}
    picked, dealt = dealt_of(INDEX_3, tokens=tokens, val_fraction=0.02, **settings_)
    counts = np.bincount(dealt["index_row"].to_numpy(), minlength=picked.height)
    assert counts.tolist() == picked["copies"].to_list()
    assert not dealt.select("split", "shard", "index_row").is_duplicated().any()
    sides = picked["split"].gather(dealt["index_row"])
    assert sides.to_list() == dealt["split"].to_list()
    # Shards count 0, 1, 2, ... per split, orders 0, 1, 2, ... per shard, and the table is in order.
    assert dealt.equals(dealt.sort("split", "shard", "order"))
    for (_, shard), group in dealt.group_by("split", "shard", maintain_order=True):
        assert group["order"].to_list() == list(range(group.height))
        assert shard >= 0
    for _, group in dealt.group_by("split"):
        assert sorted(group["shard"].unique()) == list(range(group["shard"].max() + 1))


def test_copies_lie_about_an_epoch_apart():
    picked, dealt = dealt_of(INDEX_3, tokens="max", shard_bytes=1_000_000)
    place = dealt.filter(split="train").with_row_index("place")
    length = place.height
    gaps = (
        place.sort("index_row", "place")
        .with_columns(gap=pl.col("place").diff().over("index_row") / length)
        .join(
            picked.with_row_index("index_row").select(pl.col("index_row").cast(pl.Int64), "copies"),
            on="index_row",
        )
        .drop_nulls("gap")
    )
    assert gaps.height > 1000
    assert (gaps["gap"] * gaps["copies"] - 1).abs().max() < 0.05


def test_every_prefix_holds_the_ratios():
    picked, dealt = dealt_of(INDEX_3, tokens=6_000_000, shard_bytes=2_000_000, val_fraction=0)
    rows = picked[dealt["index_row"].to_numpy()]
    tokens = rows["num_tokens"].to_numpy()
    through = np.cumsum(tokens)
    streams = rows.select(pl.struct("component", "subset", "copies").n_unique()).item()
    for name, ratio in RATIOS.items():
        mine = np.cumsum(np.where((rows["component"] == name).to_numpy(), tokens, 0))
        # Off by a few samples at any point of millions of tokens, not only at the end.
        assert np.abs(mine - ratio * through).max() <= streams * tokens.max()
        late = through > 500_000
        assert np.abs(mine / through - ratio)[late].max() < 0.02


@pytest.mark.parametrize("sorted_", [False, True])
def test_mean_video_length_holds_in_every_window(sorted_):
    """Far better than at random, also where files hold videos in the order of their length."""
    index = index_of({("video", "v"): 2000}, modality=MODALITY, part_rows=250)
    if sorted_:
        index = index.with_columns(pl.col("duration").sort())
    mixture = mixture_of({"video": 1.0}, tokens="max", max_epochs=1)
    picked = pick(index, mixture)
    dealt = deal(picked, mixture).filter(split="train")
    seconds = picked["duration"].gather(dealt["index_row"]).to_numpy()
    window = 200
    means = np.convolve(seconds, np.ones(window) / window, mode="valid")
    stray = np.abs(means / seconds.mean() - 1).max()
    assert stray < (0.12 if sorted_ else 0.04)
    assert seconds.std() / np.sqrt(window) / seconds.mean() > 0.03  # of a random order, the mean


def test_a_shard_opens_a_bounded_number_of_parts():
    index = index_of({("image", "x"): 20_000}, part_rows=100)  # 200 parts
    mixture = mixture_of({"image": 1.0}, tokens="max", max_epochs=1, shard_bytes=20_000_000)
    picked = pick(index, mixture)
    dealt = deal(picked, mixture, part_window=4).filter(split="train")
    parts = dealt.with_columns(part=picked["part"].gather(dealt["index_row"]))
    shards = dealt["shard"].max() + 1
    assert shards > 10
    opened = parts.group_by("shard").agg(pl.col("part").n_unique())["part"]
    assert opened.max() <= 200 / shards + 2 * 4
    shards_of_part = parts.group_by("part").agg(pl.col("shard").n_unique())["shard"]
    assert shards_of_part.max() <= 3


def test_neighbours_come_from_many_parts():
    index = index_of({("image", "x"): 2000}, part_rows=100)
    mixture = mixture_of({"image": 1.0}, tokens="max", max_epochs=1)
    picked = pick(index, mixture)
    dealt = deal(picked, mixture, part_window=4).filter(split="train")
    parts = picked["part"].gather(dealt["index_row"]).to_list()
    same = np.mean([a == b for a, b in itertools.pairwise(parts)])
    # Four blocks of rows are mixed: one in four is of the same block, and of four parts in a window
    # a fourth of the other blocks is of the same part.
    assert 0.25 < same < 0.5


def test_record_batches_are_read_by_few_shards():
    index = index_of({("image", "x"): 20_000}, part_rows=1000)
    mixture = mixture_of({"image": 1.0}, tokens="max", max_epochs=1, shard_bytes=40_000_000)
    picked = pick(index, mixture)
    dealt = deal(picked, mixture).filter(split="train")
    lines = picked.select("part", "row", "num_bytes").with_columns(
        batch=pl.col("row") // BLOCK_ROWS
    )
    written = lines[dealt["index_row"]]["num_bytes"].sum()
    size = lines.group_by("part", "batch").agg(size=pl.col("num_bytes").sum())
    touched = lines[dealt["index_row"]].with_columns(dealt["shard"])
    touched = touched.unique(["part", "batch", "shard"]).join(size, on=["part", "batch"])
    assert dealt["shard"].max() >= 5
    assert touched["size"].sum() <= 1.3 * written


def test_shards_have_about_the_size_asked_for():
    picked, dealt = dealt_of(INDEX_3, tokens=6_000_000, shard_bytes=5_000_000, val_fraction=0)
    size = (picked["num_bytes"] + 5 * picked["num_tokens"]).gather(dealt["index_row"])
    sizes = dealt.with_columns(size=size).group_by("shard").agg(pl.col("size").sum())["size"]
    assert sizes.max() < 5_500_000
    assert sizes.min() > 4_000_000


def test_the_order_does_not_depend_on_the_order_of_the_index():
    mixture = mixture_of(RATIOS, tokens=900_000, shard_bytes=3_000_000)
    picked = pick(INDEX_3, mixture)
    mixed = picked.sample(fraction=1, shuffle=True, seed=2)

    def ids(index: pl.DataFrame) -> list[str]:
        return index["id"].gather(deal(index, mixture)["index_row"]).to_list()

    assert ids(picked) == ids(mixed)


def test_the_index_lists_the_shards_of_each_sample():
    picked, dealt = dealt_of(INDEX_3, tokens="max", shard_bytes=1_000_000)
    index = with_shards(picked, dealt)
    assert index.columns == picked.columns
    assert index.drop("shard").equals(picked.drop("shard"))
    assert index["shard"].list.len().to_list() == picked["copies"].to_list()
    assert (index["shard"].list.n_unique() == index["copies"]).all()
    first = dealt.row(0, named=True)
    assert first["shard"] in index["shard"][first["index_row"]]


def test_nothing_picked_is_nothing_dealt():
    empty = deal(INDEX_3, mixture_of(RATIOS))
    assert empty.height == 0
    assert empty.columns == ["split", "shard", "order", "index_row"]
    assert with_shards(INDEX_3, empty)["shard"].list.len().sum() == 0
