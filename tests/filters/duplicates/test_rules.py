"""Duplicates: what counts as one, which one stays, and what is left alone."""

import random

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters import mixture_rules
from tests.filters.rows import image_record, sample, verdicts

LONG = "what does the chart say about the number of people who took the train in nineteen ninety"
OTHER = "how many of the apples in the basket are red and how many of them are green or yellow"
HASH = 0x0F0F_3C3C_5A5A_9999


def near_to(bits: int, word: int = HASH) -> dict[str, object]:
    """An image whose hash differs from `word` in `bits` bits, spread out."""
    for n in range(bits):
        word ^= 1 << (7 * n % 64)
    return image_record(dhash=word)


def gone(rules: dict, *samples: dict, **columns: list) -> dict[str, str]:
    """Id of sample n, shortened to n -> which rule took it."""
    frame = verdicts(rules, *samples)
    frame = frame.with_columns(**{k: pl.Series(v) for k, v in columns.items()})
    taken = mixture_rules(frame, settings=rules)
    return {row["id"][-2:]: row["rule"] for row in taken.iter_rows(named=True)}


ONE = image_record()
TWO = image_record(dhash=1, contrast=3.0)
FLAT, FLAG, BANDS = (
    image_record(dhash=word, pixels=n * 0x9E37_79B9_7F4A_7C15 % 2**64)
    for n, word in enumerate((0, 0, 0b101), 1)
)
"""A plain colour, a flag in bands, and one with a bit of noise: their hashes say nothing."""


@pytest.mark.parametrize(
    ("rule", "a", "b", "same"),
    [
        ("duplicate_sample", sample("Q?", "a b"), sample("q", "A, B!"), True),
        ("duplicate_sample", sample("q", "a"), sample("q", "b"), False),
        ("duplicate_sample", sample("q", "a", images=[ONE]), sample("q", "a", images=[TWO]), False),
        ("duplicate_sample", sample("q", "a", images=[ONE]), sample("r", "a", images=[ONE]), False),
        ("duplicate_sample", sample("q", "a", images=[ONE]), sample("q", "a", images=[ONE]), True),
        ("duplicate_sample", sample("q", "a", images=[ONE]), sample("q", "a"), False),
        ("duplicate_sample", sample("q", "a", images=[ONE, TWO]),
         sample("q", "a", images=[TWO, ONE]), False),
        ("duplicate_sample", sample("q", "a", system="be kind"), sample("q", "a"), True),
        ("duplicate_sample", sample("?", "!"), sample(".", ":"), False),
        ("duplicate_text", sample("q", "a", images=[ONE]), sample("q", "a", images=[TWO]), True),
        ("duplicate_images", sample("q", "a", images=[ONE]), sample("r", "b", images=[ONE]), True),
        ("duplicate_images", sample("q", "a"), sample("r", "b"), False),
        ("near_duplicate_text", sample(LONG, "yes"), sample(LONG, "yes"), True),
        ("near_duplicate_text", sample(LONG * 3, "yes"), sample(LONG * 3, "no"), True),
        ("near_duplicate_text", sample(LONG, "yes"), sample(OTHER, "yes"), False),
        ("near_duplicate_images", sample("q", "a", images=[near_to(0)]),
         sample("r", "b", images=[near_to(4)]), True),
        ("near_duplicate_images", sample("q", "a", images=[near_to(0)]),
         sample("r", "b", images=[near_to(5)]), False),
        ("near_duplicate_images", sample("q", "a", images=[near_to(0), ONE]),
         sample("r", "b", images=[near_to(4)]), False),
        ("near_duplicate_images", sample("q", "a", images=[ONE, near_to(0)]),
         sample("r", "b", images=[ONE, near_to(4)]), True),
        ("near_duplicate_images", sample("q", "a", images=[near_to(0), ONE]),
         sample("r", "b", images=[near_to(5), ONE]), False),
        ("near_duplicate_images", sample("q", "a", images=[FLAT]),
         sample("r", "b", images=[FLAG]), False),
        ("near_duplicate_images", sample("q", "a", images=[FLAG]),
         sample("r", "b", images=[BANDS]), False),
        ("near_duplicate_images", sample("q", "a", images=[FLAG]),
         sample("r", "b", images=[FLAG]), True),
        ("near_duplicate_images", sample("q", "a", images=[ONE, FLAT]),
         sample("r", "b", images=[ONE, FLAG]), False),
        ("near_duplicate_images", sample("q", "a", images=[FLAT, ONE, near_to(2)]),
         sample("r", "b", images=[BANDS, ONE, near_to(4)]), True),  # most of them tell
        ("near_duplicate_sample", sample(LONG, "a", images=[FLAT]),
         sample(LONG, "a", images=[FLAG]), False),
        ("duplicate_images", sample("q", "a", images=[FLAT]),
         sample("r", "b", images=[FLAG]), False),
        ("duplicate_sample", sample("q", "a", images=[FLAT]),
         sample("q", "a", images=[FLAG]), False),
        ("near_duplicate_sample", sample(LONG, "a", images=[near_to(0)]),
         sample(LONG, "a", images=[near_to(3)]), True),
        ("near_duplicate_sample", sample(LONG, "a", images=[near_to(0)]),
         sample(OTHER, "a", images=[near_to(3)]), False),
        ("near_duplicate_sample", sample(LONG, "a", images=[near_to(0)]),
         sample(LONG, "a", images=[near_to(9)]), False),
        ("near_duplicate_sample", sample(LONG, "a"), sample(LONG, "a"), True),
        ("near_duplicate_sample", sample(LONG, "a"), sample(LONG, "a", images=[ONE]), False),
    ],
)  # fmt: skip
def test_what_is_a_duplicate(rule, a, b, same):
    assert gone({rule: {}}, a, b) == ({"01": rule} if same else {})


def test_bytes_and_pixels_are_different_questions():
    a = sample("q", "a", images=[image_record(bytes=b"png")])
    b = sample("q", "a", images=[image_record(bytes=b"webp")])
    c = sample("q", "a", images=[image_record(bytes=b"png", contrast=1.0)])
    assert gone({"duplicate_sample": {"same": "pixels"}}, a, b) == {"01": "duplicate_sample"}
    assert gone({"duplicate_sample": {"same": "bytes"}}, a, b) == {}
    assert gone({"duplicate_sample": {"same": "bytes"}}, a, c) == {"01": "duplicate_sample"}


@pytest.mark.parametrize("rule", ["duplicate_sample", "near_duplicate_sample"])
def test_scope_is_a_subset_a_component_or_the_mixture(rule):
    rows = [sample(LONG, "a") | {"id": i} for i in ("s/x/01", "s/x/02", "s/y/03", "s/x/04")]
    component = ["a", "a", "a", "b"]
    within = {
        scope: set(gone({rule: {"within": scope}}, *rows, component=component))
        for scope in ("subset", "component", "mixture")
    }
    assert within == {
        "subset": {"02"},
        "component": {"02", "03"},
        "mixture": {"02", "03", "04"},
    }


@pytest.mark.parametrize("rule", ["duplicate_sample", "near_duplicate_text"])
def test_the_component_of_the_lowest_priority_number_stays_then_the_smallest_id(rule):
    rows = [sample(LONG, "a") | {"id": f"s/x/0{n}"} for n in (1, 2, 3)]
    frame = verdicts({rule: {}}, *rows).with_columns(priority=pl.Series([1, 0, 0]))
    taken = mixture_rules(frame, settings={rule: {}})
    assert sorted(taken["id"]) == ["s/x/01", "s/x/03"]
    assert set(taken["detail"]) == {"of s/x/02"}


def test_rows_in_any_order_lose_the_same_samples():
    words = LONG.split()
    rng = random.Random(3)
    rows = [
        sample(" ".join(words[: rng.randint(10, 16)]), "a", images=[near_to(rng.randint(0, 9))])
        | {"id": f"s/x/{n:02}"}
        for n in range(30)
    ]
    rules = {"near_duplicate_sample": {}, "near_duplicate_images": {}, "duplicate_text": {}}
    frame = verdicts(rules, *rows)
    expected = mixture_rules(frame, settings=rules).sort("id")
    for seed in range(3):
        shuffled = mixture_rules(frame.sample(fraction=1, shuffle=True, seed=seed), settings=rules)
        assert shuffled.sort("id").equals(expected)
    assert len(expected) > 0


def test_a_rejected_sample_takes_no_other_along():
    rules = {"empty_answer": {}, "duplicate_text": {}}
    assert gone(rules, sample("q", ""), sample("q", "")) == {}
    assert gone(rules, sample("q", ""), sample("q")) == {}


def test_a_sample_is_dropped_by_one_rule_and_a_marked_one_stays_in_play():
    three = [sample("q", "a")] * 3
    rules = {"duplicate_text": {}, "duplicate_sample": {}}
    assert gone(rules, *three) == {"01": "duplicate_text", "02": "duplicate_text"}
    rules = {"duplicate_text": {"mode": "mark"}, "duplicate_sample": {}}
    frame = verdicts(rules, *three)
    taken = mixture_rules(frame, settings=rules)
    by_mode = {mode: set(rows["rule"]) for (mode,), rows in taken.group_by("mode")}
    assert by_mode == {"mark": {"duplicate_text"}, "drop": {"duplicate_sample"}}


def test_no_verdicts_have_no_duplicates():
    rules = {"near_duplicate_sample": {}, "near_duplicate_images": {}, "duplicate_sample": {}}
    frame = verdicts(rules, sample("q", "a")).clear()
    assert mixture_rules(frame, settings=rules).is_empty()


@given(st.lists(st.integers(0, 11), min_size=2, max_size=25), st.integers(0, 6))
def test_near_images_are_those_of_brute_force(bits, radius):
    rng = random.Random(str(bits))
    words = []
    for n in bits:
        word = HASH
        for bit in rng.sample(range(64), n):
            word ^= 1 << bit
        words.append(word)
    rows = [sample("q", "a", images=[image_record(dhash=word)]) for word in words]
    rows = [row | {"id": f"s/x/{n:02}"} for n, row in enumerate(rows)]
    taken = set(gone({"near_duplicate_images": {"radius": radius}}, *rows))
    stay = {n for n in range(len(rows)) if f"{n:02}" not in taken}
    for n, word in enumerate(words):
        # What goes is near to one that stays; what stays is near to none that stays.
        near = {m for m in stay - {n} if (words[m] ^ word).bit_count() <= radius}
        assert bool(near) == (n not in stay)


def test_many_blank_images_with_many_questions_are_told_apart_by_text():
    blank = image_record(dhash=0)
    rows = [sample(f"{OTHER} {n % 400} {n % 400}", "a", images=[blank]) | {"id": f"s/x/{n:04}"}
            for n in range(600)]  # fmt: skip
    frame = verdicts({"near_duplicate_sample": {"similarity": 0.95}}, *rows)
    taken = mixture_rules(frame, settings={"near_duplicate_sample": {"similarity": 0.95}})
    assert {f"s/x/{n:04}" for n in range(400, 600)} <= set(taken["id"])


def test_a_component_may_have_duplicate_rules_of_its_own():
    rows = [sample("q", "a") | {"id": f"s/x/0{n}"} for n in range(4)]
    frame = verdicts({"duplicate_text": {}}, *rows)
    frame = frame.with_columns(component=pl.Series(["a", "a", "b", "b"]))
    taken = mixture_rules(frame, settings={}, components={"b": {"duplicate_text": {}}, "a": {}})
    assert taken["id"].to_list() == ["s/x/03"]


def test_a_component_that_turns_a_rule_off_neither_goes_nor_takes_others_along():
    rows = [sample("q", "a") | {"id": f"s/x/0{n}"} for n in range(5)]
    frame = verdicts({"duplicate_text": {}}, *rows)
    frame = frame.with_columns(component=pl.Series(["a", "a", "b", "b", "b"]))
    rules = {"duplicate_text": {}}

    def taken(**components: object) -> list[str]:
        gone = mixture_rules(frame, settings=rules, components=components)
        return sorted(gone["id"].str.slice(-2))

    assert taken(a={}) == ["01", "02", "03", "04"]
    assert taken(a={"duplicate_text": False}) == ["03", "04"]
    assert taken(b={"duplicate_text": False}) == ["01"]
    assert taken(a={"duplicate_text": False}, b={"duplicate_text": False}) == []
    # One with settings of its own is judged by those, among its own samples.
    assert taken(b={"duplicate_text": {"within": "subset"}}) == ["01", "03", "04"]
