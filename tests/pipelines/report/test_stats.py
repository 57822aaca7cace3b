"""Counts of stats.json equal what lies in the rows."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.report.card import card, stats, terminal_table
from pipelines.report.stats import spread
from tests.pipelines.made import facts, index, line, lines_in, packed, recipe
from tokenization.pack import row_flops

LINES = [
    line("cauldron/ai2d/0", "images", 60, 10, num_crops=5, tags=["category:diagram"]),
    line("cauldron/ai2d/1", "images", 30, 5, num_crops=1, copies=2, shard=[0, 1]),
    line("cauldron/vqa/0", "images", 40, 9, rule="small_image", copies=0, fired=["small_image"]),
    line("cauldron/vqa/1", "images", 40, 9, rule="keep", copies=0, fired=["blurred"]),
    line("smoltalk/all/0", "words", 40, 30, tags=["cot"]),
    line("smoltalk/all/1", "words", 25, 20, copies=0, shard=[]),
    line("smoltalk/all/2", "words", 20, 11, split="val"),
]
TRAIN = [
    [[("cauldron/ai2d/0", 60, 10, [(2, 2)]), ("cauldron/ai2d/1", 30, 5, [(0, 0)])]],
    [[("smoltalk/all/0", 40, 30, []), ("cauldron/ai2d/1", 30, 5, [(0, 0)])]],
]
VAL = [[("smoltalk/all/2", 20, 11, [])]]


def counted() -> dict:
    shards = {f"train-{k:05d}.arrow": rows for k, rows in enumerate(TRAIN)}
    shards["val-00000.arrow"] = VAL
    found = [facts(packed(rows), index(LINES), shard=name) for name, rows in shards.items()]
    return stats(lines_in(index(LINES)), found, recipe())


def test_row_facts_counts_what_lies_in_each_row():
    lines = [LINES[0], {**LINES[1], "duration": 2.5}, LINES[6]]
    found = facts(packed(TRAIN[0] + VAL), index(lines), shard="train-00003.arrow")
    assert found["split"].to_list() == ["train", "train"]
    assert found["shard"].to_list() == [3, 3]
    assert found["row"].to_list() == [0, 1]
    assert found["num_tokens"].to_list() == [90, 20]
    assert found["num_learned"].to_list() == [15, 11]
    assert found["num_crops"].to_list() == [6, 0]
    assert found["num_images"].to_list() == [2, 0]
    assert found["flops"].to_list() == [
        row_flops([60, 30], 6, model="500M"),
        row_flops([20], 0, model="500M"),
    ]
    assert found["components"].to_list() == [[0, 0], [1]]
    assert found["sample_tokens"].to_list() == [[60, 30], [20]]
    assert found["sample_learned"].to_list() == [[10, 5], [11]]
    assert found["sample_crops"].to_list() == [[5, 1], [0]]
    assert found["seconds"].to_list() == [[None, 2.5], [None]]
    assert found["grids"].to_list() == [["2x2", "0x0"], []]


def test_crops_of_a_sample_in_several_sequences_arespread_over_them():
    sample = [("cauldron/ai2d/0", 30, 5, [(2, 2)]), ("cauldron/ai2d/0", 30, 5, [])]
    for rows in ([sample], [[sequence] for sequence in sample]):
        found = facts(packed(rows), index(LINES), shard="train-00000.arrow")
        assert found["sample_crops"].list.explode().to_list() == [2, 2]


def test_a_shard_of_another_build_is_refused():
    with pytest.raises(ValueError, match=r"train-00000.arrow holds samples that were not dealt"):
        facts(packed(VAL), index(LINES[:6]), shard="train-00000.arrow")


def test_row_facts_of_a_slice_are_those_rows_facts():
    table = packed([*TRAIN[0], [("smoltalk/all/0", 40, 30, [])], *VAL])
    whole = facts(table, index(LINES), shard="train-00000.arrow")
    part = facts(table.slice(1, 2), index(LINES), shard="train-00000.arrow")
    assert part.drop("row").equals(whole[1:].drop("row"))


def test_a_shard_without_rows_has_no_facts_but_the_same_columns():
    empty = facts(packed([]), index([]), shard="val-00000.arrow")
    assert len(empty) == 0
    assert pl.concat([empty, facts(packed(VAL), index(LINES), shard="val-00000.arrow")]).height == 1


samples = st.tuples(st.integers(1, 30), st.integers(0, 30), st.booleans())


@settings(max_examples=40)
@given(st.lists(st.lists(samples, min_size=1, max_size=5), min_size=1, max_size=6))
def test_row_facts_agree_with_counting_one_by_one(rows):
    made = [
        [
            (f"s/t/{r}{k}", n, min(m, n), [(1, 3)] if imaged else [])
            for k, (n, m, imaged) in enumerate(row)
        ]
        for r, row in enumerate(rows)
    ]
    lines = [
        line(name, "words", n, m, num_crops=4 * len(cells))
        for row in made
        for name, n, m, cells in row
    ]
    found = facts(packed(made), index(lines), shard="train-00000.arrow")
    for row, fact in zip(made, found.iter_rows(named=True), strict=True):
        assert fact["sample_crops"] == [4 * len(cells) for *_, cells in row]
        assert fact["num_tokens"] == sum(n for _, n, _, _ in row)
        assert fact["sample_learned"] == [m for _, _, m, _ in row]
        assert fact["num_crops"] == sum(4 for *_, grids in row for _ in grids)
        assert fact["num_samples"] == len(row)


def test_asked_and_got_in_three_measures():
    parts = counted()["components"]
    assert parts["images"]["asked"] == 0.75
    assert parts["images"]["got"] == {
        "tokens": 120 / 160,
        "learned_tokens": 20 / 50,
        "samples": 3 / 4,
    }
    assert parts["words"]["got"] == {
        "tokens": 40 / 160,
        "learned_tokens": 30 / 50,
        "samples": 1 / 4,
    }
    assert parts["images"]["off"] == 0


def test_each_sample_read_is_accounted_for():
    found = counted()
    assert (found["read"], found["kept"]) == (7, 5)
    images = found["components"]["images"]
    assert images["read"] == images["kept"] + sum(images["rejected"].values())
    assert images["rejected"] == {"keep": 1, "small_image": 1}
    assert images["epochs"] == 3 / 2
    assert images["most_copies"] == 2
    assert found["components"]["words"]["epochs"] == 1 / 2
    assert images["subsets"]["vqa"]["kept"] == 0
    assert found["val"] == {
        "tokens": 20,
        "learned_tokens": 11,
        "samples": 1,
        "crops": 0,
        "distinct": 1,
    }


def test_rejected_counts_the_first_reason_and_all_that_fired():
    rejected = counted()["rejected"]
    assert rejected["small_image"] == {"samples": 1, "fired": 1, "examples": ["cauldron/vqa/0"]}
    assert rejected["keep"]["samples"] == 1
    assert rejected["blurred"] == {"samples": 0, "fired": 1, "examples": ["cauldron/vqa/1"]}


def test_shards_and_index_tell_of_the_same_tokens():
    found = counted()
    train = found["packing"]["train"]
    assert train["tokens"] == found["train"]["tokens"] == 160
    assert train["learned_tokens"] == found["train"]["learned_tokens"] == 50
    assert train["crops"] == found["train"]["crops"] == 7
    assert train["fill"] == 160 / 200
    assert 160 / 200 <= train["fill_bound"] <= 1
    assert train["crops_per_row"]["max"] == 6


def test_prefix_balance_is_the_share_so_far():
    prefix = counted()["prefix"]
    assert prefix["at"] == [0.5, 1.0]
    assert prefix["components"]["images"] == [1.0, 0.75]
    assert prefix["worst"] == pytest.approx(0.25)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=60))
def test_thespread_of_counted_numbers_is_theirs(numbers):
    series = pl.Series(numbers, dtype=pl.Int32)
    assert spread(np.bincount(numbers)) == {
        "mean": series.mean(),
        "median": series.median(),
        "p95": series.quantile(0.95),
        "max": series.max(),
    }


def test_windows_and_imbalance_are_those_of_the_rows():
    found = counted()
    windows = found["windows"]
    assert windows["rows"] == 2  # fewer than a window has: one window, the whole
    assert windows["strays"]["images"] == {"whole": 0.75, "worst": 0, "p95": 0, "windows": 1}
    assert windows["strays"]["crops"]["whole"] == 3.5
    assert windows["strays"].keys() == {"images", "words", "crops"}
    costs = [row_flops([60, 30], 6, model="500M"), row_flops([40, 30], 1, model="500M")]
    dear = max(costs) / (sum(costs) / 2)
    assert found["packing"]["train"]["imbalance"] == pytest.approx({"rows": dear, "ranks": dear})


def test_the_card_says_what_a_shortage_did():
    found = {**counted(), "notes": ["video: 1 tokens instead of 2 (all it can give)"]}
    for text in (card(found, recipe()), terminal_table(found, output="out")):
        assert "video: 1 tokens instead of 2 (all it can give)" in text


def test_tags_become_facets():
    facets = counted()["facets"]
    assert facets["category"]["diagram"]["tokens"] == 60 / 160
    assert facets["tag"]["cot"]["learned_tokens"] == 30 / 50


def test_categories_that_the_mixture_states_are_a_facet():
    components = {
        "images": {
            "source": "cauldron",
            "ratio": 0.75,
            "category": "Diagrams",
            "subsets": {"ai2d": {"category": "Science"}},
        },
        "words": {"source": "smoltalk", "ratio": 0.25},
    }
    lines = [
        line("cauldron/ai2d/0", "images", 60, 10),
        line("cauldron/vqa/0", "images", 20, 10),
        line("smoltalk/all/0", "words", 20, 10, tags=["cot"]),
    ]
    row = [("cauldron/ai2d/0", 60, 10, []), ("cauldron/vqa/0", 20, 10, [])]
    rows = packed([[*row, ("smoltalk/all/0", 20, 10, [])]])
    found = facts(rows, index(lines), shard="train-00000.arrow")
    facets = stats(lines_in(index(lines)), [found], recipe(components=components))["facets"]
    assert {name: share["tokens"] for name, share in facets["category"].items()} == {
        "Science": 0.6,
        "Diagrams": 0.2,
    }
    assert list(facets["tag"]) == ["cot"]


def test_stats_are_json():
    found = counted()
    assert json.loads(json.dumps(found)) == found


def test_a_mixture_with_nothing_used_has_stats():
    lines = [line("cauldron/vqa/0", "images", 40, 9, rule="small_image", copies=0)]
    none = facts(packed([]), index([]), shard="train-00000.arrow")
    found = stats(lines_in(index(lines)), [none], recipe())
    assert found["train"]["tokens"] == 0
    assert found["components"]["words"]["read"] == 0


def test_thousands_of_millions_of_tokens_are_counted():
    """More than an int32 holds, as Polars would sum int32."""
    lines = [line(f"smoltalk/all/{n}", "words", 2**30, 2**30) for n in range(8)]
    rows = packed([[(f"smoltalk/all/{n}", 4, 4, [])] for n in range(8)])
    found = facts(rows, index(lines), shard="train-00000.arrow").with_columns(
        *(pl.lit(2**30, pl.Int32).alias(name) for name in ("num_tokens", "num_learned")),
        sample_tokens=pl.lit([2**30], pl.List(pl.Int32)),
    )
    given_ = recipe()
    given_["mixture"]["encoding"]["seq_len"] = 2**30
    told = stats(lines_in(index(lines)), [found], given_)
    assert told["train"]["tokens"] == told["packing"]["train"]["tokens"] == 2**33
    assert told["packing"]["train"]["learned_tokens"] == 2**33
    assert told["prefix"]["components"]["words"] == [1.0] * 8


def test_histograms_of_components_are_of_what_train_uses():
    found = counted()
    used = index(LINES).filter((pl.col("copies") > 0) & (pl.col("split") == "train"))
    for key in ("tokens", "learned_share", "crops"):
        parts = found["histograms"][key]["components"]
        assert {name: sum(counts) for name, counts in parts.items()} == dict(
            used.group_by("component").len().iter_rows()
        )
        together = [sum(counts) for counts in zip(*parts.values(), strict=True)]
        assert together == found["histograms"][key]["counts"]
    crops = found["histograms"]["crops"]
    one, five = (crops["edges"].index(edge) for edge in (1, 4))
    assert (crops["components"]["images"][one], crops["components"]["images"][five]) == (1, 1)


def test_val_is_counted_beside_train_and_what_it_lacks_is_named():
    found = counted()["held_out"]
    val = index(LINES).filter((pl.col("copies") > 0) & (pl.col("split") == "val"))
    assert found["components"]["words"]["samples"] == val["copies"].sum() == 1
    assert found["components"]["words"]["share"]["tokens"] == 1
    assert found["components"]["images"] == {
        "samples": 0,
        "share": {"tokens": 0, "learned_tokens": 0, "samples": 0},
    }
    assert found["empty"] == ["images/ai2d"]
