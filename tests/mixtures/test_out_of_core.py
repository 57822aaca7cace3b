"""Picks by thresholds on the hash, dealing by ranges of place: whatever is in memory at a time."""

import tempfile

import numpy as np
import polars as pl
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mixtures.columns import in_folder, in_memory
from mixtures.deal import deal_samples
from mixtures.draws import DRAW, sorted_draws
from mixtures.pick import pick_samples
from mixtures.samples import samples_of
from tests.mixtures import reference, reference_deal
from tests.mixtures.synthetic import index_of, mixture_of

SETS = {
    ("text", "a"): 90,
    ("image", "x"): 70,
    ("image", "y"): 30,
    ("image", "z"): 1,
    ("video", "v"): 40,
}
RATIOS = {"text": 0.3, "image": 0.5, "video": 0.2}
MODALITY = {"text": "text", "image": "image", "video": "video"}
cap = st.sampled_from(
    [{}, {"keep": 0.4}, {"max_samples": 25}, {"keep": 0.7, "max_samples": 30}, {"grade": 1}]
)
weight = st.sampled_from([{}, {"weight": 1.0}, {"weight": 3.0}])


@st.composite
def mixtures_(draw):
    """A mixture of SETS, in one of the ways that a mixture can be asked for."""
    weighted = draw(st.booleans())
    subsets = {
        name: draw(cap)
        | (draw(weight) if weighted else {})
        | draw(st.sampled_from([{}, {"max_epochs": 1.5}]))
        for name in "xyz"
    }
    limits = draw(
        st.sampled_from(
            [
                {},
                {"cot": {"max_ratio": 0.05}},
                {"cot": {"max_ratio": 0.1}, "short": {"max_seconds": 60, "max_ratio": 0.1}},
            ]
        )
    )
    return mixture_of(
        RATIOS,
        subsets={"image": subsets},
        limits=limits,
        grades={1: 12},
        max_epochs=draw(st.sampled_from([1.0, 2.5, 4.0])),
        tokens=draw(st.sampled_from([3_000, 40_000, 300_000, "max"])),
        measure=draw(st.sampled_from(["tokens", "samples", "learned_tokens"])),
        on_shortage=draw(st.sampled_from(["shrink", "redistribute"])),
        val_fraction=draw(st.sampled_from([0.0, 0.1, 0.5])),
        seed=draw(st.integers(0, 1000)),
        weight_by=draw(st.sampled_from(["", "sharpness"])),
        shard_bytes=draw(st.sampled_from([50_000, 1_000_000, 2**40])),
    )


def index_with(seed: int, part_rows: int) -> pl.DataFrame:
    """SETS: some rejected, some under limits, one in five of no weight."""
    random = np.random.default_rng(seed)
    index = index_of(SETS, modality=MODALITY, part_rows=part_rows, seed=seed)
    rule = np.where(random.random(len(index)) < 0.1, "duplicate_text", None)
    tags = [["cot"] if under else [] for under in random.random(len(index)) < 0.3]
    return index.with_columns(
        rule=pl.Series(rule.tolist(), dtype=pl.String),
        tags=pl.Series(tags, dtype=pl.List(pl.String)),
        weight=pl.Series(random.integers(0, 5, len(index)).astype(float)),
    )


def picked_or_why(pick):
    """What it returns, or the message of its ValueError."""
    try:
        return pick()
    except ValueError as error:
        return str(error)


@settings(max_examples=40, phases=(Phase.generate,), report_multiple_bugs=False)
@given(
    mixture=mixtures_(),
    seed=st.integers(0, 1000),
    part_rows=st.sampled_from([7, 16, 50]),
    at_once=st.sampled_from([1, 13, 64, 10_000]),
    in_files=st.booleans(),
)
def test_picked_and_dealt_as_in_memory(mixture, seed, part_rows, at_once, in_files):
    index = index_with(seed, part_rows)
    expected = picked_or_why(lambda: reference.pick(index, mixture))
    with tempfile.TemporaryDirectory() as folder:
        new = in_folder(folder) if in_files else in_memory
        samples, rows = samples_of(index, mixture, new=new)
        picked = picked_or_why(lambda: pick_samples(samples, mixture, at_once=at_once))
        if isinstance(expected, str) or isinstance(picked, str):  # limits and ratios contradict
            assert picked == expected
            return
        reasons = np.array([None, *picked.reasons[1:]], object)[picked.reason[:]]
        assert (
            reasons.tolist()
            == np.where(index["rule"].is_null()[rows], expected["rule"][rows], None).tolist()
        )
        assert picked.copies[:].tolist() == expected["copies"][rows].to_list()
        dealt = deal_samples(samples, picked.copies, mixture, at_once=at_once)
        shards = dealt.shards_of(0, len(samples)).to_pylist()
        found = [
            (split, number, order, int(row))
            for split, number, dealt_rows in dealt.in_order()
            for order, row in enumerate(rows[dealt_rows])
        ]
    whole = reference_deal.deal(expected, mixture)
    assert (
        found == whole.select(pl.col("split").cast(pl.String), "shard", "order", "index_row").rows()
    )
    at: dict[int, list[int]] = {}
    for _, shard, _, row in found:
        at.setdefault(row, []).append(shard)
    assert shards == [at.get(int(row), []) for row in rows]


@given(st.integers(0, 100), st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([50, 200]))
@settings(max_examples=20, deadline=None)
def test_samples_of_one_rank_are_not_in_memory_together(seed, share, at_once):
    """Of weight 0 all have the rank of infinity."""
    random = np.random.default_rng(seed)
    records = np.zeros(3000, DRAW)
    records["rank"] = np.where(random.random(3000) < share, 2**60, random.integers(0, 2**50, 3000))
    records["key"], records["row"] = random.permutation(3000), np.arange(3000)
    column = in_memory(DRAW)
    column.append(records)
    found = list(sorted_draws(column, in_memory, at_once=at_once))
    whole = np.concatenate(found)
    assert whole.tolist() == records[np.lexsort((records["key"], records["rank"]))].tolist()
    assert max(map(len, found)) <= 4 * at_once
