"""Every component's budget: shortages say what binds and how out of them."""

import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixtures.allocate import allocate, fill_in_proportion, human_count, shortage_notes
from mixtures.pick import pick
from tests.mixtures.synthetic import index_of, mixture_of


def supply_of(units: dict[tuple[str, str], int], *, tokens_each: int = 1000) -> pl.DataFrame:
    """A supply table in tokens, of samples of `tokens_each`."""
    return pl.DataFrame(
        {
            "component": [c for c, _ in units],
            "subset": [s for _, s in units],
            "limited": pl.Series([0] * len(units), dtype=pl.UInt32),
            "samples": [n // tokens_each for n in units.values()],
            "units": [float(n) for n in units.values()],
            "tokens": list(units.values()),
        }
    )


def test_a_shortage_says_what_binds_and_every_way_out():
    supply = supply_of({("video", "v"): 120_400_000, ("rest", "r"): 2_000_000_000})
    mixture = mixture_of({"video": 0.3, "rest": 0.7}, tokens=1_000_000_000, max_epochs=2)
    with pytest.raises(ValueError, match="made: ") as caught:
        allocate(supply, mixture)
    message = str(caught.value)
    assert "video can give 240.8M tokens (120.4M x 2 epochs), but 0.3 of 1.0B is 300.0M." in message
    assert "Each can give, in tokens: video 240.8M, rest 4.0B." in message
    assert "lower tokens to 802.6M (tokens=802666666)" in message
    assert "raise components.video.max_epochs to 2.5" in message
    assert "lower components.video.ratio to 0.2408 and give 0.0592 to rest" in message
    assert "on_shortage=shrink" in message


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": 802_666_666},
        {"max_epochs": 2.5},
        {"ratios": {"video": 0.2408, "rest": 0.7592}},
        {"on_shortage": "shrink"},
        {"on_shortage": "redistribute"},
    ],
)
def test_every_way_out_that_is_named_works(change):
    supply = supply_of({("video", "v"): 120_400_000, ("rest", "r"): 2_000_000_000})
    ratios = change.pop("ratios", {"video": 0.3, "rest": 0.7})
    mixture = mixture_of(ratios, **{"tokens": 1_000_000_000, "max_epochs": 2, **change})
    assert allocate(supply, mixture)["target"].sum() > 800_000_000


def test_the_binding_subset_is_named():
    supply = supply_of({("charts", "a"): 1_000_000, ("charts", "b"): 9_000_000})
    subsets = {"charts": {"a": {"weight": 1}, "b": {"weight": 1}}}
    mixture = mixture_of({"charts": 1.0}, subsets=subsets, tokens=10_000_000)
    says = "charts (bound by its subset 'a') can give 8.0M tokens (1.0M x 4 epochs / 0.5 of the"
    with pytest.raises(ValueError, match=re.escape(says)):
        allocate(supply, mixture)
    own = {"charts": {"a": {"weight": 1, "max_epochs": 5}, "b": {"weight": 1}}}
    assert allocate(supply, mixture_of({"charts": 1.0}, subsets=own, tokens=10_000_000)).height


@pytest.mark.parametrize("tokens", ["max", 1000])
@pytest.mark.parametrize("on_shortage", ["error", "shrink"])
def test_a_component_with_nothing_left_is_an_error(tokens, on_shortage):
    index = index_of({("text", "a"): 50, ("image", "x"): 50}).with_columns(
        rule=pl.when(pl.col("component") == "text").then(pl.lit("refusal"))
    )
    mixture = mixture_of({"text": 0.2, "image": 0.8}, tokens=tokens, on_shortage=on_shortage)
    with pytest.raises(ValueError, match="text can give nothing: no tokens of it are left"):
        pick(index, mixture)


@pytest.mark.parametrize("tokens", ["max", 1000])
def test_a_mixture_with_nothing_left_at_all_is_an_error(tokens):
    index = index_of({("text", "a"): 50, ("image", "x"): 50})
    mixture = mixture_of({"text": 0.2, "image": 0.8}, tokens=tokens)
    with pytest.raises(ValueError, match=r"image can give nothing.* text can give nothing"):
        pick(index.clear(), mixture)
    unlearned = index.with_columns(num_learned=pl.lit(0, pl.Int32))
    learned = mixture_of({"text": 0.2, "image": 0.8}, tokens=tokens, measure="learned_tokens")
    with pytest.raises(ValueError, match="text can give nothing: no learned tokens of it are left"):
        pick(unlearned, learned)


def test_a_weighted_subset_that_is_not_there_is_an_error():
    subsets = {"image": {"x": {"weight": 1}, "gone": {"weight": 1}}}
    mixture = mixture_of({"image": 1.0}, subsets=subsets, tokens=1000)
    with pytest.raises(ValueError, match="its subset 'gone'"):
        pick(index_of({("image", "x"): 50}), mixture)


def test_shrink_keeps_the_ratios_and_says_so():
    supply = supply_of({("video", "v"): 100_000, ("rest", "r"): 10_000_000})
    ratios = {"video": 0.3, "rest": 0.7}
    mixture = mixture_of(ratios, tokens=4_000_000, on_shortage="shrink", max_epochs=2)
    table = allocate(supply, mixture)
    assert table["target"].to_list() == pytest.approx([200_000, 200_000 / 0.3 * 0.7])
    assert shortage_notes(table, mixture) == [
        "video: 200.0k tokens instead of 1.2M (lowered with all others, so that the ratios hold; "
        "on_shortage: shrink)",
        "rest: 466.6k tokens instead of 2.8M (lowered with all others, so that the ratios hold; "
        "on_shortage: shrink)",
    ]


def test_redistribute_fills_the_budget_and_says_so():
    supply = supply_of({("video", "v"): 100_000, ("a", "r"): 10_000_000, ("b", "r"): 10_000_000})
    mixture = mixture_of(
        {"video": 0.4, "a": 0.4, "b": 0.2},
        tokens=1_000_000,
        on_shortage="redistribute",
        max_epochs=2,
    )
    table = allocate(supply, mixture)
    assert table["target"].to_list() == pytest.approx([200_000, 800_000 * 2 / 3, 800_000 / 3])
    assert shortage_notes(table, mixture)[0].startswith(
        "video: 200.0k tokens instead of 400.0k (all it"
    )
    assert "more, for what others cannot give" in shortage_notes(table, mixture)[1]


def test_redistribute_gives_to_the_other_subsets_first():
    supply = supply_of({("c", "a"): 100, ("c", "b"): 10_000, ("d", "x"): 10_000}, tokens_each=1)
    subsets = {"c": {"a": {"weight": 1}, "b": {"weight": 1}}}
    mixture = mixture_of(
        {"c": 0.5, "d": 0.5}, subsets=subsets, tokens=4000, on_shortage="redistribute", max_epochs=1
    )
    assert allocate(supply, mixture)["target"].to_list() == pytest.approx([100, 1900, 2000])


def test_redistribute_shares_out_what_is_empty_also_where_all_is_asked_for():
    supply = supply_of(
        {("c", "a"): 0, ("c", "b"): 100, ("d", "x"): 0, ("e", "y"): 300}, tokens_each=1
    )
    subsets = {"c": {"a": {"weight": 1}, "b": {"weight": 1}}}
    asked = {"subsets": subsets, "on_shortage": "redistribute", "max_epochs": 1}
    mixture = mixture_of({"c": 0.25, "d": 0.25, "e": 0.5}, tokens="max", **asked)
    table = allocate(supply, mixture)
    assert table["target"].to_list() == pytest.approx([0, 100, 0, 200])  # c to e stays 1 to 2
    nothing = supply_of({("c", "a"): 0, ("c", "b"): 0, ("d", "x"): 0, ("e", "y"): 0}, tokens_each=1)
    with pytest.raises(ValueError, match=r"made: c: why\. .*c .*can give nothing"):
        allocate(nothing, mixture, gone=lambda: {"c": "c: why."})


def test_nothing_is_said_where_nothing_was_short():
    supply = supply_of({("a", "r"): 10_000_000})
    mixture = mixture_of({"a": 1.0}, tokens=1_000_000, on_shortage="shrink")
    assert shortage_notes(allocate(supply, mixture), mixture) == []


@given(
    amounts=st.lists(st.tuples(st.floats(0.01, 100), st.floats(0, 100)), min_size=1, max_size=20),
    total=st.floats(0, 2000),
)
def test_filling_is_proportional_below_every_brim(amounts, total):
    wanted = np.array([w for w, _ in amounts])
    room = np.array([r for _, r in amounts])
    got = fill_in_proportion(wanted, room, total=total)
    assert np.all(got <= room * (1 + 1e-9) + 1e-9)
    assert got.sum() == pytest.approx(min(total, room.sum()), abs=1e-6)
    below = got < room * (1 - 1e-9) - 1e-9
    if below.sum() > 1:
        level = got[below] / wanted[below]
        assert level.max() - level.min() < 1e-6 * max(1, level.max())
    if below.any():  # who is full would have been given at least as much
        full = ~below & (room > 0)
        assert np.all(got[full] / wanted[full] <= (got[below] / wanted[below]).max() + 1e-6)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (950, "950"),
        (1000, "1.0k"),
        (1437, "1.437k"),
        (240_800_000, "240.8M"),
        (802_666_667, "802.6M"),
        (1_000_000_000, "1.0B"),
        (2_345_678_901, "2.345B"),
        (1.5e13, "15.0T"),
        (float("inf"), "unlimited"),
        (0, "0"),
    ],
)
def test_counts_as_people_read_them(number, text):
    assert human_count(number) == text


def test_with_tokens_max_the_component_that_binds_is_named_and_what_it_costs():
    # one film of 100 is missing: the share is kept, and so everything else is a hundredth less
    supply = supply_of({("films", "f"): 99_000, ("rest", "r"): 900_000})
    mixture = mixture_of({"films": 0.1, "rest": 0.9}, tokens="max", max_epochs=1)
    granted = allocate(supply, mixture)
    assert granted["target"].to_list() == pytest.approx([99_000, 891_000])
    (note,) = shortage_notes(granted, mixture)
    assert note.startswith("films binds: with every ratio kept, its 99.0k tokens bound the whole")
    assert "to 990.0k; rest, the next to bind, would allow 1.0M (1 % more)" in note
    enough = float(re.search(r"max_epochs=([\d.]+)", note)[1])
    more = mixture_of({"films": 0.1, "rest": 0.9}, tokens="max", max_epochs=1)
    more.components["films"] = replace(more.components["films"], max_epochs=enough)
    assert allocate(supply, more)["target"].sum() == pytest.approx(1_000_000, rel=1e-3)
    even = supply_of({("films", "f"): 100_000, ("rest", "r"): 900_000})
    assert shortage_notes(allocate(even, mixture), mixture) == []
