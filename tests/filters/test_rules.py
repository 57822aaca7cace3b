"""Every per-sample rule on both sides of its boundary, with the reason."""

import re

import pytest

from filters import RULES, judge, rewrite, validate_weight
from tests.filters.rows import image_record, message, reasons, sample, table

WHOLE = (
    "<SUMMARY>s</SUMMARY> <CAPTION>c</CAPTION> <REASONING>r</REASONING> <CONCLUSION>4</CONCLUSION>"
)
PROSE = (
    "The train leaves the station at nine and it arrives in the old town before noon. "
    "People of all ages sit at the windows to look at the hills and the rivers of the valley. "
    "Some of them have brought bread, fruit and a bottle of water for the long journey. "
    "In the last carriage a man with a grey hat reads a book that his brother has written. "
    "When the whistle sounds, everyone on board looks up for a moment and then goes on talking."
)

WORDS = len(re.findall(r"\w+", PROSE))


HASH = 0x0F0F_3C3C_5A5A_9999


def video(*frames: dict, duration: float = 3.0, **given: object) -> dict:
    return sample("q", "a", images=list(frames), duration=duration, **given)


def frame(second: float = 0.0, **given: object) -> dict:
    return image_record(seconds=second, **given)


def said(answer: str, /, **given: object) -> dict:
    return sample("What is it?", answer, **given)


def with_roles(*roles: str) -> dict:
    return sample() | {"messages": [message(role, "text") for role in roles]}


def rated(*relevance: int | None) -> dict:
    turns = [text for n in range(len(relevance)) for text in (f"q{n}", f"a{n}")]
    four = ("relevance", "image_correspondence", "visual_dependency", "formatting")
    ratings = [dict.fromkeys(four, 5) | {"relevance": value} for value in relevance]
    return sample(*turns, images=[image_record()], ratings=ratings)


# rule, settings, a sample that goes, a sample next to it that stays
CASES = [
    ("undecodable", {}, said("a", defect="undecodable"), said("a")),
    ("empty_answer", {}, sample("q", " \n"), sample("q", " .\n")),
    ("empty_answer", {}, sample("q"), sample("q", "a")),
    ("empty_answer", {}, sample("q", "a", "r", ""), sample("q", "a", "r", "b")),
    ("empty_answer", {}, with_roles(), with_roles("document")),
    ("empty_answer", {}, sample() | {"messages": [message("document", " ")]},
     sample() | {"messages": [message("document", "x")]}),
    ("roles_not_alternating", {}, with_roles("user", "user", "assistant"),
     with_roles("user", "assistant", "user", "assistant")),
    ("roles_not_alternating", {}, with_roles("assistant", "user"), with_roles("user", "assistant")),
    ("roles_not_alternating", {}, with_roles("user", "assistant", "user"),
     with_roles("system", "user", "assistant")),
    ("roles_not_alternating", {}, with_roles("user", "system", "assistant"),
     with_roles("document", "document")),
    ("roles_not_alternating", {}, with_roles("document", "user"), with_roles("document")),
    ("too_many_turns", {"max_turns": 2}, sample(*"qaqaqa"), sample(*"qaqa")),
    ("placeholder_mismatch", {}, sample("q", "a") | {"images": [image_record()]},
     sample("q", "a", images=[image_record()])),
    ("placeholder_mismatch", {}, sample("q", "a", images=[image_record(), image_record()])
     | {"images": [image_record()]}, sample("q", "a")),
    ("leaked_special_token", {}, sample("is <image> a tag?", "y"), sample("is <img> one?", "y")),
    ("leaked_special_token", {}, said("a<|im_end|>"), said("a<|end|>")),
    ("leaked_special_token", {}, said("<row_12_col_3>"), said("<row_a_col_3>")),
    ("leaked_special_token", {"patterns": ["xyz+"]}, said("xyzz"), said("<image>")),
    ("leaked_system_text", {}, said("You are a helpful assistant. Four."), said("You are late.")),
    ("leaked_system_text", {}, said("SYSTEM PROMPT: answer"), said("The system prompt: answer")),
    ("refusal", {}, said("I'm sorry, but I can't help with that."), said("Sorry seems to be it.")),
    ("refusal", {}, said("As an AI language model, no."), said("As an artist, yes.")),
    ("refusal", {}, said("I cannot assist with this."), said("I cannot be 30 years old.")),
    ("answer_copies_question", {}, sample("A red car?", "a red car"), sample("A red car?", "red")),
    ("answer_copies_question", {}, sample("q", "a", "So?", "So."), sample("?", "!")),
    ("repeated_turns", {}, sample(*"qarbqa"), sample(*"qaraqb")),
    ("punctuation_answer", {}, said(" ... !"), said("...1")),
    ("punctuation_answer", {}, sample("q", "a", "r", "?"), said("+")),
    ("small_image", {}, sample("q", "a", images=[image_record(), image_record(height=27)]),
     sample("q", "a", images=[image_record(height=28)])),
    ("extreme_aspect", {"max_aspect": 10},
     sample("q", "a", images=[image_record(width=50, height=501)]),
     sample("q", "a", images=[image_record(width=50, height=500)])),
    ("huge_image", {}, sample("q", "a", images=[image_record(width=89_478_486, height=1)]),
     sample("q", "a", images=[image_record(width=89_478_485, height=1)])),
    ("broken_exif", {}, sample("q", "a", images=[image_record(), image_record(broken_exif=True)]),
     sample("q", "a", images=[image_record(broken_exif=False), image_record(broken_exif=None)])),
    ("broken_exif", {}, video(frame(broken_exif=True)), said("no image")),
    ("uniform_image", {}, sample("q", "a", images=[image_record(), image_record(contrast=1.99)]),
     sample("q", "a", images=[image_record(contrast=2.0)])),
    ("uniform_image", {}, sample("q", "a", images=[image_record(contrast=0.0)]),
     video(frame(contrast=0.0))),
    ("blurred_image", {}, sample("q", "a", images=[image_record(sharpness=99.0)]),
     sample("q", "a", images=[image_record(sharpness=100.0)])),
    ("text_free_page", {}, sample("q", "a", images=[image_record(edges=0.0199)]),
     sample("q", "a", images=[image_record(edges=0.0201)])),
    ("too_short", {"min_seconds": 2}, video(frame(), duration=1.99), video(frame(), duration=2.0)),
    ("too_short", {"min_seconds": 2}, video(duration=0.0), said("no video")),
    ("too_long_video", {"max_seconds": 60}, video(duration=60.1), video(duration=60.0)),
    ("too_few_frames", {"min_frames": 2}, video(frame()), video(frame(), frame(1.0))),
    ("too_few_frames", {"min_frames": 2}, video(), sample("q", "a", images=[image_record()])),
    ("frozen_video", {}, video(frame(dhash=0b0011 ^ HASH), frame(dhash=HASH)),
     video(frame(dhash=0b0111 ^ HASH), frame(dhash=HASH))),
    ("frozen_video", {}, video(frame(dhash=0, pixels=1), frame(dhash=0, pixels=1)),
     video(frame(dhash=0, pixels=1), frame(dhash=0, pixels=2))),  # red, then blue
    ("frozen_video", {}, video(*[frame(dhash=7)] * 9), video(frame())),
    ("frozen_video", {}, video(frame(), frame()), sample("q", "a", images=[image_record()] * 2)),
    ("black_video", {}, video(*[frame(contrast=0.0)] * 2, frame()),
     video(frame(contrast=0.0), frame())),
    ("wrong_duration", {}, video(frame(), duration=4.0, header_seconds=4.81),
     video(frame(), duration=4.0, header_seconds=4.79)),
    ("wrong_duration", {}, video(frame(), duration=4.0, header_seconds=3.19),
     video(frame(), duration=4.0, header_seconds=3.21)),
    ("wrong_duration", {"max_share": 0.5}, video(frame(), duration=4.0, header_seconds=6.25),
     video(frame(), duration=4.0, header_seconds=6.0)),
    ("wrong_duration", {}, video(frame(), duration=4.0, header_seconds=0.0),
     video(frame(0), frame(3.9), duration=4.0, header_seconds=None)),
    ("unclosed_section", {}, said("<think>so"), said("<think>so</think>")),
    ("unclosed_section", {}, said(WHOLE.replace("</CAPTION>", "")), said(WHOLE)),
    ("unclosed_section", {}, sample("q", "<think>", "q", "</think>"), said("1 < 2 > think")),
    ("missing_section", {}, said(WHOLE.replace("<CAPTION>c</CAPTION>", "")), said(WHOLE)),
    ("missing_section", {}, said("<CAPTION>c</CAPTION> <SUMMARY>s</SUMMARY>"), said("plain")),
    ("wrong_conclusion", {}, said(WHOLE, answer="5", tags=["cot"]),
     said(WHOLE, answer="4.", tags=["cot"])),
    ("wrong_conclusion", {}, said("So 4", answer="4", tags=["cot"]), said("So 4", answer="4")),
    ("wrong_conclusion", {}, said("The answer is 1,201.", answer="1200", tags=["cot"]),
     said("The answer is 1,200.50.", answer="1200.5", tags=["cot"])),
    ("wrong_conclusion", {}, said(r"\boxed{12}", answer="2", tags=["cot"]),
     said(r"\boxed{12}", answer="12.0", tags=["cot"])),
    ("wrong_conclusion", {}, said("x #### No", answer="yes", tags=["cot"]),
     said("x #### No", tags=["cot"])),
    ("too_long_reasoning", {"max_words": 3}, said("<think>a b c</think> d"),
     said("<think>a b</think> c <CONCLUSION>d e f</CONCLUSION>")),
    ("too_long_reasoning", {"max_words": 3}, said("a b c d", tags=["cot"]), said("a b c d")),
    ("low_rating", {"min_relevance": 3}, rated(5, 2), rated(5, 3)),
    ("low_rating", {"min_relevance": 3, "turns": "all"}, rated(2, 1), rated(2, 3)),
    ("low_rating", {"min_relevance": 3}, rated(2, None), rated(None, None)),
    ("low_rating", {}, rated(0), said("unrated")),
    ("out_of_bounds", {"facts": {"relevance_min": {"min": 3}}}, rated(5, 2), rated(5, 3)),
    ("out_of_bounds", {"facts": {"num_turns": {"max": 1}}}, rated(5, 2), rated(None)),
    ("language", {}, said("Das ist ein ganz normaler deutscher Satz über das Wetter."),
     said(PROSE)),
    ("language", {"languages": ["de"]}, said(PROSE),
     sample("Wie ist das Wetter?", "Das ist ein ganz normaler deutscher Satz über das Wetter.")),
    ("language", {}, sample("¿Qué hora es en Madrid?", "Las tres"), sample("¿Qué?", "Sí, claro")),
    ("gopher_quality", {}, said(" ".join(PROSE.split()[:40])), said(PROSE)),
    ("gopher_quality", {}, said("!!! ??? " * 40), said(PROSE)),
    ("gopher_quality", {"min_words": WORDS + 1}, said(PROSE), said(PROSE + " Yes.")),
    ("gopher_repetition", {}, said("\n".join(["The same line again."] * 9)), said(PROSE)),
    ("fineweb_quality", {}, said("\n".join(f"item {n}" for n in range(30))), said(PROSE)),
    ("c4_quality", {}, said(" ".join(PROSE.split(". ")[:2])), said(PROSE)),
    ("c4_quality", {}, said(PROSE + " {x} is it."), said(PROSE)),
    ("c4_quality", {"curly_brackets": True}, said("{x} " + PROSE), said(PROSE)),
    ("blocked_url", {"domains": ["bad.org"]}, said("see https://www.bad.org/a?b=1."),
     said("see https://www.good.org/bad.org and bad.org")),
    ("blocked_url", {"urls": ["http://a.org/x"]}, said("(http://a.org/x)"), said("http://a.org/y")),
    ("blocked_url", {"banned_words": ["casino"]}, said("https://a.org/casino/1"),
     said("https://a.org/casinos the casino")),
    ("personal_information", {}, said("write to jo@uni-x.org"), said("write to jo@home")),
    ("personal_information", {}, said("ping 8.8.8.8"), said("ping 192.168.0.1 or 1.2.3")),
    ("personal_information", {"emails": False}, said("a@b.org 8.8.8.8"), said("a@b.org")),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "settings", "goes", "stays"), CASES)
def test_a_rule_takes_what_it_says_and_nothing_next_to_it(rule, settings, goes, stays):
    assert reasons({rule: settings}, goes, stays) == [goes["defect"] or rule, None]


def test_every_rule_has_a_boundary_test():
    elsewhere = {"contaminated", "unsafe_image", "low_agreement", "high_perplexity"}
    tested = {rule for rule, *_ in CASES} | elsewhere
    assert {name for name, rule in RULES.items() if rule.scope == "sample"} <= tested


@pytest.mark.parametrize(("rule", "settings", "goes", "stays"), CASES[::9])
def test_marked_samples_stay(rule, settings, goes, stays):
    if rule != "undecodable":
        judged = judge(table(goes, stays), rules={rule: settings | {"mode": "mark"}})
        assert judged["rule"].to_pylist() == [None, None]
        assert judged["fired"].to_pylist() == [[rule], []]


def test_reasoning_is_tagged_where_answers_show_it():
    samples = table(
        said("Let's think step by step."), said("4"), said("<think>", tags=["cot", "x"])
    )
    tags = judge(samples, rules={})["tags"].to_pylist()
    assert [sorted(t) for t in tags] == [["cot"], [], ["cot", "x"]]


def test_addresses_are_masked_where_a_rule_rewrites():
    samples = table(said("write to jo@uni-x.org", images=[image_record()]), said("nothing"))
    rules = {"personal_information": {"mode": "rewrite"}}
    judged = judge(samples, rules=rules)
    assert judged["rule"].to_pylist() == [None, None]
    assert judged["fired"].to_pylist() == [["personal_information"], []]
    masked = rewrite(samples, rules=rules)
    assert masked.schema == samples.schema
    texts = [m["content"][-1]["text"] for m in masked["messages"][0].as_py()]
    assert texts == ["What is it?", "write to email@example.com"]
    assert masked.slice(1).equals(samples.slice(1))
    assert rewrite(samples, rules={"personal_information": {}}) is samples


def test_low_turns_are_dropped_and_their_images_kept():
    samples = table(rated(1, 5, 2), rated(1, 2), rated(5))
    rules = {"low_rating": {"min_relevance": 3, "mode": "rewrite"}}
    judged = judge(samples, rules=rules)
    assert judged["rule"].to_pylist() == [None, "low_rating", None]
    assert judged["fired"].to_pylist() == [["low_rating"], ["low_rating"], []]
    kept = rewrite(samples, rules=rules)
    first = kept["messages"][0].as_py()
    assert [(m["role"], m["content"][-1]["text"]) for m in first] == [
        ("user", "q1"),
        ("assistant", "a1"),
    ]
    assert [part["type"] for part in first[0]["content"]] == ["image", "text"]
    assert [r["relevance"] for r in kept["ratings"][0].as_py()] == [5]
    assert kept["images"].equals(samples["images"])
    assert kept.slice(1).equals(samples.slice(1))


def test_images_of_a_dropped_last_question_move_to_the_one_before():
    late = rated(5, 1)
    late["messages"][2]["content"].insert(0, {"type": "image", "text": None})
    late["images"] *= 2
    kept = rewrite(table(late), rules={"low_rating": {"min_relevance": 3, "mode": "rewrite"}})
    parts = [part["type"] for part in kept["messages"][0].as_py()[0]["content"]]
    assert parts == ["image", "text", "image"]


def test_a_fact_can_weigh_samples():
    judged = judge(table(rated(2, 4), said("a")), rules={}, weight_by="relevance_mean")
    assert judged["weight"].to_pylist() == [3.0, None]
    validate_weight("relevance_mean", rules={}, where="sft.yaml")
    validate_weight("", rules={}, where="sft.yaml")
    with pytest.raises(ValueError, match="Did you mean 'relevance_mean'"):
        validate_weight("relevance_men", rules={}, where="sft.yaml")
