"""Options that change which turns a sample has, and what is asked: they keep ids and images."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tests.tokenization.rows import (
    BARE,
    IMAGE,
    SMALL,
    image_record,
    message,
    row_of,
    sample,
    table,
    tokenizer,
)
from tokenization import prompts
from tokenization.encode import encode, with_added_words
from tokenization.schema import Encoding


def asked(number: int, *, images: int = 1, answer: str = "Answer {n}.") -> list[dict]:
    """`number` turns; the images open the first."""
    turns = []
    for n in range(number):
        opening = [IMAGE] * images if n == 0 else []
        turns += [message("user", *opening, f"Q{n}?"), message("assistant", answer.format(n=n))]
    return turns


def shown(made: dict) -> str:
    return tokenizer().decode(made["input_ids"]).replace("<image>", "")


def one(encoding: Encoding, messages: list[dict], images: int = 1, **more) -> dict:
    seen = [image_record(60, 40) for _ in range(images)]
    return encode(table(sample("a", messages, seen, **more)), encoding=encoding).to_pylist()[0]


def test_shuffled_turns_are_the_same_turns_and_the_image_stays_first() -> None:
    encoding = replace(SMALL, shuffle_turns=True)
    plain = one(SMALL, asked(8))
    mixed = one(encoding, asked(8))
    assert sorted(mixed["input_ids"]) == sorted(plain["input_ids"])
    assert mixed["input_ids"] != plain["input_ids"]
    assert shown(mixed).startswith("<|im_start|>User:<fake_token_around_image>")
    order = [int(part[0]) for part in shown(mixed).split("Q")[1:]]
    answers = [int(part[0]) for part in shown(mixed).split("Answer ")[1:]]
    assert sorted(order) == list(range(8))
    assert order == answers
    assert mixed == one(encoding, asked(8))


def test_a_chat_without_images_is_never_shuffled() -> None:
    chat = asked(6, images=0)
    assert one(replace(SMALL, shuffle_turns=True), chat, 0) == one(SMALL, chat, 0)


@pytest.mark.parametrize("most", [1, 3, 7, 8])
def test_max_turns_keeps_the_first(most: int) -> None:
    made = one(replace(SMALL, max_turns=most), asked(7))
    assert shown(made).count("Q") == min(most, 7)
    assert f"Q{min(most, 7) - 1}?" in shown(made)
    assert made["num_crops"] == one(SMALL, asked(7))["num_crops"]


def test_max_turns_never_leaves_a_image_without_its_tokens() -> None:
    late = [*asked(2, images=0), message("user", IMAGE, "Q2?"), message("assistant", "A.")]
    assert one(replace(SMALL, max_turns=1), late) == one(SMALL, late)


def test_long_samples_become_several_sequences_each_with_the_image() -> None:
    encoding = replace(SMALL, split_turns=3, seq_len=2000)
    made = one(encoding, asked(8), subset="ai2d")
    whole = one(SMALL, asked(8))
    assert len(made["seq_lengths"]) == 3
    assert sum(made["seq_lengths"]) == made["num_tokens"] == len(made["input_ids"])
    assert made["num_crops"] == 3 * whole["num_crops"]
    assert made["num_learned"] == whole["num_learned"]
    assert made["splittable"]
    starts = np.cumsum([0, *made["seq_lengths"]])
    turns = []
    for start, end in pairwise(starts):
        part = tokenizer().decode(made["input_ids"][start:end])
        assert part.startswith("<|im_start|>User:<fake_token_around_image><row_1_col_1>")
        turns.append(part.count("Assistant:"))
    assert turns == [3, 3, 2]


def test_sequences_of_a_split_sample_fit_a_row_where_single_turns_do() -> None:
    long = asked(9, answer="word " * 60)
    encoding = replace(SMALL, split_turns=5, seq_len=256)
    made = one(encoding, long)
    assert made["splittable"]
    assert max(made["seq_lengths"]) <= 256
    assert not one(replace(encoding, max_crops=made["num_crops"] // 9), long)["splittable"]
    too_long = one(replace(encoding, seq_len=100), long)
    assert not too_long["splittable"]
    assert len(too_long["seq_lengths"]) == 9


def test_brevity_hints_only_where_all_answers_are_brief() -> None:
    encoding = replace(SMALL, brevity_hints=True)
    hints = [*prompts.BREVITY_HINTS, *prompts.BREVITY_HINTS_MANY]
    hinted = lambda made: any(hint in shown(made) for hint in hints)
    assert hinted(one(encoding, asked(1, answer="Yes.")))
    assert hinted(one(encoding, asked(3, answer="Yes.")))
    assert not hinted(one(encoding, asked(1, answer="Yes, it is indeed a cat.")))
    assert not hinted(one(encoding, asked(1, images=0, answer="Yes."), 0))
    assert not hinted(one(SMALL, asked(1, answer="Yes.")))


KINDS = {
    "conversation": sample("a", asked(1, images=0)),
    "vision_task": sample("a", asked(1, answer="two"), [image_record(9, 9)], subset="vqav2"),
    "vision_conversation": sample("a", asked(1, answer="it is " * 9), [image_record(9, 9)]),
    "document": sample("a", asked(1), [image_record(9, 9)], source="docmatix"),
    "transcription": sample("a", asked(1), [image_record(9, 9)], source="mathwriting"),
    "multi_image": sample("a", asked(1, images=2), [image_record(9, 9)] * 2),
    "video": sample("a", asked(1), [image_record(9, 9, 0.0)], duration=3.0),
    "reasoning": sample("a", asked(1), [image_record(9, 9)], tags=["cot"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_system_prompts_are_those_of_the_task(kind: str) -> None:
    seen = set()
    for number in range(60):
        row = row_of(KINDS[kind] | {"id": f"s/{number}"})
        role, parts = with_added_words(row, row.conversation, encoding=Encoding())[0]
        assert role == "system"
        seen.add(parts[0])
    assert seen == set(prompts.SYSTEM_PROMPTS["smolvlm"][kind])


def test_a_sample_keeps_its_own_system_prompt() -> None:
    made = one(Encoding(), [message("system", "Mine."), *asked(1)])
    assert shown(made).count("System:") == 1
    assert "System: Mine.<end_of_utterance>" in shown(made)


def test_intros_and_outros_stand_around_opening_images_only() -> None:
    encoding = replace(BARE, media_intro_outro=True)
    opening = shown(one(encoding, asked(1)))
    assert any(f"User: {intro}<fake" in opening for intro in prompts.IMAGE_INTROS)
    assert any(f"{outro}Q0?" in opening for outro in prompts.IMAGE_OUTROS)
    several = shown(one(encoding, asked(1, images=3), 3))
    assert any(intro.format(count="three") in several for intro in prompts.IMAGES_INTROS)
    between = [message("user", "Look: ", IMAGE, "Q?"), message("assistant", "A")]
    assert one(encoding, between) == one(BARE, between)
