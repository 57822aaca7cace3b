"""Judging: every sample one verdict, first reason first, nothing lost."""

import json

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters import RULES, VERDICTS, identity, judge, rewriting, seconds_per_sample, validate
from tests.filters.rows import image_record, reasons, sample, table
from tokenization.schema import SAMPLE


def test_verdicts_have_the_declared_schema_and_the_rows_of_the_samples():
    samples = table(sample("q", "a"), sample("q", ""))
    judged = judge(samples, rules={"empty_answer": {}})
    assert judged.schema == VERDICTS
    assert judged["id"].to_pylist() == samples["id"].to_pylist()
    assert judged["rule"].to_pylist() == [None, "empty_answer"]


def test_no_samples_give_no_verdicts():
    empty = judge(SAMPLE.empty_table(), rules={"small_image": {}, "duplicate_sample": {}})
    assert empty.schema == VERDICTS
    assert len(empty) == 0


def test_the_first_rule_in_the_order_of_the_mixture_is_the_reason_and_all_are_in_fired():
    bad = table(sample("q", "", images=[image_record(width=10)]))
    one = judge(bad, rules={"small_image": {}, "empty_answer": {}})
    other = judge(bad, rules={"empty_answer": {}, "small_image": {}})
    assert one["rule"].to_pylist() == ["small_image"]
    assert other["rule"].to_pylist() == ["empty_answer"]
    assert one["fired"].to_pylist() == [["small_image", "empty_answer"]]


def test_a_defect_is_the_reason_before_any_rule_and_without_any_rule():
    bad = table(sample("q", "", defect="undecodable_image"))
    assert judge(bad, rules={})["rule"].to_pylist() == ["undecodable_image"]
    judged = judge(bad, rules={"empty_answer": {}})
    assert judged["rule"].to_pylist() == ["undecodable_image"]
    assert judged["fired"].to_pylist() == [["undecodable_image", "empty_answer"]]


def test_a_marking_rule_fires_but_rejects_nothing():
    judged = judge(table(sample("q", "")), rules={"empty_answer": {"mode": "mark"}})
    assert judged["rule"].to_pylist() == [None]
    assert judged["fired"].to_pylist() == [["empty_answer"]]


def test_modality_and_counts():
    frame = image_record(seconds=1.0)
    samples = table(
        sample("q", "a"),
        sample("q", "a", images=[image_record(bytes=b"12345")]),
        sample("q", "a", "q", "a", images=[image_record(), image_record()]),
        sample("q", "a", images=[frame], duration=3.0),
        sample("q", "a", system="be kind", duration=3.0),
    )
    judged = judge(samples, rules={})
    assert judged["modality"].to_pylist() == ["text", "image", "multi_image", "video", "video"]
    assert judged["num_images"].to_pylist() == [0, 1, 2, 1, 0]
    assert judged["num_turns"].to_pylist() == [1, 1, 2, 1, 1]
    assert judged["num_bytes"].to_pylist() == [3, 8, 11, 5, 10]


def test_images_that_could_not_be_decoded_count_no_bytes():
    broken = image_record(bytes=None, width=None, height=None, dhash=None)
    judged = judge(table(sample("q", "a", images=[broken])), rules={"small_image": {}})
    assert judged["rule"].to_pylist() == [None]
    assert judged["num_bytes"].to_pylist() == [3]


def test_slices_and_chunks_judge_like_the_whole():
    samples = table(*[sample("q", "a" * (n % 3), images=[image_record(width=n + 20)] * (n % 4))
                      for n in range(20)])  # fmt: skip
    rules = {"small_image": {}, "empty_answer": {}, "duplicate_sample": {"same": "bytes"}}
    whole = judge(samples, rules=rules)
    parts = [judge(samples.slice(n, 7), rules=rules) for n in range(0, 20, 7)]
    assert pa.concat_tables(parts).equals(whole)
    chunked = pa.concat_tables([samples.slice(0, 3), samples.slice(3, 10), samples.slice(13)])
    assert judge(chunked, rules=rules).equals(whole)


some_text = st.sampled_from(["", "?", "yes", "<image>", "I'm sorry, but I cannot help.", "why"])
some_image = st.builds(
    image_record,
    width=st.integers(1, 60),
    height=st.integers(1, 900),
    contrast=st.floats(0, 9, width=32),
)
some_sample = st.builds(
    lambda turns, images, defect: sample(*turns, images=images, defect=defect),
    st.lists(some_text, max_size=5),
    st.lists(some_image, max_size=3),
    st.sampled_from([None, None, "missing_media"]),
)
PER_SAMPLE = [
    name
    for name, rule in RULES.items()
    if rule.scope == "sample"
    and rule.score is None
    and all(p.default is not p.empty for p in rule.settings.values())
]


@settings(max_examples=60)  # the first use of a rule loads its model
@given(
    st.lists(some_sample, max_size=12),
    st.dictionaries(
        st.sampled_from(PER_SAMPLE), st.sampled_from([{}, {"mode": "mark"}]), max_size=6
    ),
)
def test_reasons_and_kept_add_up_to_what_was_read(samples, rules):
    read = table(*samples)
    judged = pl.DataFrame(pl.from_arrow(judge(read, rules=rules)))
    counts = judged.group_by("rule").len()
    kept = judged.filter(pl.col("rule").is_null()).height
    assert judged["id"].to_list() == read["id"].to_pylist()
    assert counts.filter(pl.col("rule").is_not_null())["len"].sum() + kept == len(samples)
    dropping = {name for name, settings in rules.items() if settings.get("mode") != "mark"}
    for row in judged.iter_rows(named=True):
        rejecting = [name for name in row["fired"] if name in dropping or name not in rules]
        assert row["rule"] == (rejecting[0] if rejecting else None)
        assert len(set(row["fired"])) == len(row["fired"])


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"smal_image": {}}, "sft.yaml: unknown rule 'smal_image'. Did you mean 'small_image'?"),
        ({"small_image": {"min_sied": 3}}, "unknown setting 'min_sied'. Did you mean 'min_side'?"),
        ({"small_image": {"min_side": "3"}}, "min_side is '3' (str), expected a whole number."),
        ({"small_image": {"min_side": True}}, "min_side is True (bool), expected a whole number."),
        ({"small_image": {"min_side": -1}}, "is -1, expected a number that is not negative."),
        ({"small_image": {"mode": "drp"}}, "mode is 'drp', expected one of drop, mark."),
        ({"small_image": 28}, "small_image is 28, expected settings"),
        ({"too_short": {}}, "too_short: needs min_seconds. Write too_short: {min_seconds: ...}."),
        ({"refusal": {"patterns": "no"}}, "patterns is 'no' (str), expected a list of text."),
        ({"duplicate_sample": {"within": "part"}}, "expected one of subset, component, mixture."),
        ({"refusal": {"patterns": ["a", "("]}}, "'(' is no regular expression of Rust's regex"),
        ({"language": {"languages": ["en", "english"]}}, "english would be taken for foreign."),
        ({"language": {"languages": []}}, "without one, every text would be taken for foreign."),
        ({"near_duplicate_images": {"radius": 9}}, "radius is 9, expected at most 8 of 64 bits"),
        ({"near_duplicate_text": {"similarity": 0.29}}, "is 0.29, expected 0.3 or more"),
        ({"contaminated": {"benchmarks": ["x"], "radius": 20}}, "radius is 20, expected at most"),
    ],
)
def test_a_mistake_in_the_filters_is_named_with_the_way_out(filters, message):
    with pytest.raises(ValueError, match=r"^sft\.yaml") as caught:
        validate(filters, where="sft.yaml")
    assert message in str(caught.value)


def test_settings_left_empty_in_yaml_are_the_defaults():
    validate({"empty_answer": None, "small_image": None}, where="sft.yaml")
    assert reasons({"empty_answer": None}, sample("q", " ")) == ["empty_answer"]


def test_identity_is_json_and_follows_settings_order_and_mode():
    one = identity({"small_image": {}, "empty_answer": {}})
    assert json.loads(json.dumps(one)) == one
    assert one == identity({"small_image": {"min_side": 28}, "empty_answer": None})
    assert one != identity({"empty_answer": {}, "small_image": {}})
    assert one != identity({"small_image": {"min_side": 29}, "empty_answer": {}})
    assert one != identity({"small_image": {"mode": "mark"}, "empty_answer": {}})


def test_where_a_model_runs_is_no_identity():
    assert identity({"unsafe_image": {"num_gpus": 1}}) == identity({"unsafe_image": {}})
    assert identity({"unsafe_image": {"max_score": 0.5}}) != identity({"unsafe_image": {}})


def test_every_rule_says_in_a_sentence_what_it_takes():
    for rule in RULES.values():
        assert rule.sentence.endswith("."), rule.name
        assert len(rule.sentence) > 20, rule.name


def test_what_a_rule_costs_is_known_per_rule():
    samples = table(*[sample("q", "a")] * 50)
    rules = {"small_image": {}, "duplicate_text": {}, "too_long": {}}
    spent = seconds_per_sample(samples, rules=rules)
    assert list(spent) == ["small_image", "duplicate_text"]
    assert all(seconds >= 0 for seconds in spent.values())


def test_rewriting_rules_are_those_in_that_mode():
    rules = {"low_rating": {"mode": "rewrite"}, "personal_information": {}, "small_image": None}
    assert rewriting(rules) == {"low_rating": {"mode": "rewrite"}}
