"""Pairs of answers in their published layouts: what the sample of a row is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources import SOURCES
from pipelines.sources.mapping import configured
from pipelines.sources.preferences import as_rating, turns_of_pair
from pipelines.sources.sample import Defect, Turn
from tests.pipelines.sources.making import cell, png, read, said, write, write_lines, write_parquet

ASKED, CHOSEN = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
REJECTED = {"role": "assistant", "content": "B"}
PAIR = [("user", "Q"), ("rejected", "B"), ("assistant", "A")]
PART = {"type": "text", "text": "A"}
SEEN = [{"type": "image"}, {"type": "text", "text": "Q"}]


def turns(row, source="preferences", columns=None):
    """What a row becomes, by its adapter: (role, text), or the defect's reason."""
    about = configured(source, columns=columns, where="components.pairs")
    try:
        sample = about.adapter(row)
    except Defect as defect:
        return defect.reason
    text = lambda turn: "".join(part for part in turn.content if isinstance(part, str))
    return [(turn.role, text(turn)) for turn in sample.turns]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        {"question": "Q", "chosen": "A", "rejected": "B"},
        {"prompt": [ASKED], "chosen": [CHOSEN], "rejected": [REJECTED]},
        {"prompt": [{"role": "user", "content": SEEN}], "chosen": "A", "rejected": "B"},
        {"prompt": [ASKED], "chosen": [{**CHOSEN, "content": [PART]}], "rejected": [REJECTED]},
        {"chosen": [ASKED, CHOSEN], "rejected": [ASKED, REJECTED]},
        {"prompt": "Q", "chosen": [ASKED, CHOSEN], "rejected": [ASKED, REJECTED]},  # UltraFeedback
        {"conversations": [{"from": "human", "value": "Q"}],
         "chosen": {"from": "gpt", "value": "A"}, "rejected": {"from": "gpt", "value": "B"}},
        {"messages": [ASKED], "chosen": CHOSEN, "rejected": REJECTED},
        {"messages": [ASKED, CHOSEN], "rejected_response": "B"},  # ms-swift
        {"messages": [ASKED, CHOSEN], "rejected_messages": [ASKED, REJECTED]},
        {"prompt": {"role": ["user"], "content": ["Q"]}, "chosen": "A", "rejected": "B"},
    ],
)  # fmt: skip
def test_a_pair_is_read_in_every_form(row):
    assert turns(row) == PAIR


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Q", "chosen": "A", "rejected": " A\n"}, "no_preference"),
        ({"prompt": "Q", "chosen": "", "rejected": "B"}, "missing_answer"),
        ({"prompt": "Q", "chosen": "A", "rejected": "  "}, "missing_answer"),
        ({"prompt": "Q", "chosen": "A", "rejected": None}, "missing_answer"),
        ({"prompt": "Q", "chosen": [], "rejected": "B"}, "missing_answer"),
        ({"chosen": "A", "rejected": "B"}, "wrong_schema"),  # asked nothing
        ({"chosen": [ASKED, CHOSEN], "rejected": [{**ASKED, "content": "R"}, REJECTED]},
         "wrong_schema"),
        ({"prompt": "Q", "chosen": [CHOSEN, ASKED], "rejected": "B"}, "wrong_schema"),
        ({"prompt": "Q", "chosen": [{**CHOSEN, "content": SEEN}], "rejected": "B"}, "wrong_schema"),
    ],
)  # fmt: skip
def test_what_is_no_pair_says_why(row, reason):
    assert turns(row) == reason


@given(st.text(min_size=1), st.text(min_size=1))
def test_either_a_pair_of_both_answers_or_a_defect(chosen, rejected):
    prompt = (Turn("user", ("Q",)),)
    worse, better = (text.replace("\ufeff", "") for text in (rejected, chosen))
    if worse.strip() and better.strip() and worse.strip() != better.strip():
        found = turns_of_pair(prompt, chosen, rejected)
        assert found == (*prompt, Turn("rejected", (worse,)), Turn("assistant", (better,)))
        return
    with pytest.raises(Defect) as defect:
        turns_of_pair(prompt, chosen, rejected)
    empty = not (worse.strip() and better.strip())
    assert defect.value.reason == ("missing_answer" if empty else "no_preference")


def test_rlaif_v_is_read_from_the_files_of_its_repository(tmp_path):
    row = {"ds_name": "d", "image": cell(png()), "question": "Q", "chosen": "A", "rejected": "B",
           "origin_dataset": "o", "origin_split": "{}", "idx": "1", "image_path": ""}  # fmt: skip
    file = tmp_path / "RLAIF-V-Dataset_000.parquet"
    write_parquet(file, [row, {**row, "rejected": "A"}, {**row, "chosen": "See <image>."}])
    whole, same, leaky = read("rlaif_v", data=str(tmp_path))
    assert said(whole) == [("user", "[i]Q"), ("rejected", "B"), ("assistant", "A")]
    assert whole["tags"] == ["preference"]
    assert (same["defect"], leaky["defect"]) == ("no_preference", "placeholder_mismatch")


def test_rlhf_v_unpacks_the_json_in_its_text(tmp_path):
    pair = {"question": "Q", "chosen": "A", "rejected": "B"}
    rows = [{"image": cell(png()), "text": text} for text in (json.dumps(pair), "{")]
    write_parquet(tmp_path / "RLHF-V-Dataset.parquet", rows)
    whole, broken = read("rlhf_v", data=str(tmp_path))
    assert said(whole) == [("user", "[i]Q"), ("rejected", "B"), ("assistant", "A")]
    assert broken["defect"] == "broken_json"


@pytest.mark.parametrize(
    ("rated", "number"),
    [("3", 3.0), (4, 4.0), ("nan", None), (float("inf"), None), (True, None), ("N/A", None)],
)
def test_a_rating_is_a_number(rated, number):
    assert as_rating({"Rating": rated}) == number


def completions(*rated):
    """A `Sequence` of mappings as `datasets` stores it, of (response, ratings)."""
    names = ("Helpfulness", "Ethical Considerations", "Visual Faithfulness")
    return {
        "annotations": [
            {name: {"Rating": one, "Rationale": "R"} for name, one in zip(names, r, strict=True)}
            for _, r in rated
        ],
        "model": ["m"] * len(rated),
        "response": [response for response, _ in rated],
    }


def test_vlfeedback_pairs_the_best_answer_with_the_worst(tmp_path):
    answers = [
        completions(("middle", "345"), ("best", "555"), ("worst", "131")),
        completions(("worse", ["2", "N/A", None]), ("better", "533")),
        completions(("one", "432"), ("other", "333")),
        completions(("unrated", ["N/A"] * 3), ("alone", "555")),
    ]
    rows = [
        {"id": str(n), "prompt": "Q", "models": ["m"], "completions": c, "img_path": "a.png"}
        for n, c in enumerate(answers)
    ]
    write(tmp_path / "merged_images" / "a.png", png())
    write(tmp_path / "a.png", png())
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", rows)
    first, second, alike, alone = read("vlfeedback", data=str(tmp_path), media=str(tmp_path))
    assert said(first) == [("user", "[i]Q"), ("rejected", "worst"), ("assistant", "best")]
    assert said(second)[1:] == [("rejected", "worse"), ("assistant", "better")]
    assert (alike["defect"], alone["defect"]) == ("no_preference", "no_preference")


def test_mmpr_reads_one_image_or_several(tmp_path):
    row = {"image": "a.png", "question": "<image>\nQ", "chosen": "A", "rejected": "B"}
    several = {**row, "image": ["a.png", "a.png"], "question": "<image> or <image>?"}
    write_lines(tmp_path / "annotations" / "scienceqa.jsonl", [row, several])
    write(tmp_path / "images" / "a.png", png())
    where = {"data": f"{tmp_path}/annotations/*.jsonl", "media": f"{tmp_path}/images"}
    one, two = read("mmpr", **where)
    assert said(one) == [("user", "[i]Q"), ("rejected", "B"), ("assistant", "A")]
    assert said(two)[0] == ("user", "[i] or [i]?")


@pytest.mark.parametrize(
    ("columns", "row"),
    [
        ({"question": "q", "chosen": "good", "rejected": "bad"},
         {"q": "Q", "good": "A", "bad": "B"}),
        ({"question": "q", "chosen": "good", "rejected": "bad"},
         {"q": [ASKED], "good": [CHOSEN], "bad": [REJECTED]}),
        ({"chosen": "good", "rejected": "bad"},
         {"good": [ASKED, CHOSEN], "bad": json.dumps([ASKED, REJECTED])}),
        ({"prompt": "Q", "chosen": "pair.a", "rejected": "pair.b"}, {"pair": {"a": "A", "b": "B"}}),
    ],
)  # fmt: skip
def test_a_table_of_pairs_says_which_column_is_what(columns, row):
    assert turns(row, "table", columns) == PAIR
    assert configured("table", columns=columns, where="components.pairs").pairs


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"question": "q", "chosen": "a"}, "chosen without rejected"),
        ({"question": "q", "answer": "a", "rejected": "b"}, "rejected does not go with answer"),
        ({"question": "q", "prompt": "Q", "chosen": "a", "rejected": "b"}, "state one of them"),
        ({"chosen": "a", "rejected": "b", "choices": "c"}, "choices does not go with chosen"),
    ],
)
def test_a_mistake_in_its_columns_is_told(columns, told):
    with pytest.raises(ValueError, match=told):
        configured("table", columns=columns, where="components.pairs")


def test_sources_without_pairs_are_what_they_were():
    of_pairs = {name for name, source in SOURCES.items() if source.pairs}
    assert of_pairs == {"preferences", "rlaif_v", "rlhf_v", "vlfeedback", "mmpr"}
    plain = configured("table", columns={"question": "q", "answer": "a"}, where="c")
    assert plain.identity == ["table", 1, {"question": "q", "answer": "a"}]
    assert not plain.pairs
