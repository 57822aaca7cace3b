"""Ids and masks are those of transformers, token for token; nothing is lost, nothing leaks."""

import json
import random
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from num2words import num2words
from transformers.models.smolvlm.processing_smolvlm import DEFAULT_CHAT_TEMPLATE, SmolVLMProcessor
from transformers.video_utils import VideoMetadata

from tests.tokenization.rows import (
    BARE,
    IMAGE,
    SMALL,
    image_record,
    message,
    row_of,
    sample,
    table,
    text,
    their_grid,
    their_ids,
    their_mask,
    tokenizer,
)
from tokenization.encode import encode, encoding_tools, grids_of
from tokenization.images import grid
from tokenization.prompts import clock, in_words
from tokenization.schema import SAMPLE, TOKENS, Encoding
from tokenization.vocab import CHAT_TEMPLATE, load_tokenizer, vocab

WORDS = (
    """the cat, 12 cats! 3.14 x=2*y  naïve café 東京 😀 Assistant: User: \n\n System:\n\t- item
    (a) "quoted" it's don't I'll 100% f(x)→∞ ελληνικά مرحبا  trailing"""
).replace("\n    ", " ").split(" ")  # fmt: skip
MODELS = {
    "500M": BARE,
    "2.2B": replace(BARE, crop_size=384, longest_edge=1536, tokens_per_crop=81),
    "r = 2": replace(BARE, tokens_per_crop=256),
    "unsplit": replace(BARE, split_images=False),
}


def said(rng: random.Random) -> str:
    words = " ".join(rng.choices(WORDS, k=rng.randint(0, 12)))
    return rng.choice(["", " ", "\n", "  \n"]) + words + rng.choice(["", "", " ", "\n"])


def conversation(rng: random.Random, number: int) -> dict:
    """A random sample: system or not, images anywhere, several turns, several parts."""
    messages = [message("system", said(rng))] if rng.random() < 0.3 else []
    images = []
    for _ in range(rng.randint(1, 3)):
        parts: list = []
        for _ in range(rng.choice([0, 0, 1, 1, 2])):
            size = (rng.randint(1, 3000), rng.randint(1, 3000))
            images.append(image_record(*size))
            parts.append(IMAGE)
        parts.append(text(said(rng)))
        if rng.random() < 0.4:
            rng.shuffle(parts)
        if rng.random() < 0.3:
            parts.append(text(said(rng)))
        messages += [message("user", *parts), message("assistant", said(rng))]
    return sample(f"s/{number}", messages, images)


@pytest.mark.parametrize("name", MODELS)
def test_ids_are_those_of_transformers(name: str) -> None:
    encoding = MODELS[name]
    rng = random.Random(name)
    rows = [conversation(rng, n) for n in range(120)]
    out = encode(table(*rows), encoding=encoding).to_pylist()
    for raw, made in zip(rows, out, strict=True):
        assert made["problem"] is None
        sizes = [(image["width"], image["height"]) for image in raw["images"]]
        grids = [their_grid(*size, encoding) if encoding.split_images else (0, 0) for size in sizes]
        assert made["input_ids"] == their_ids(row_of(raw), grids, encoding)
        assert [(g["rows"], g["cols"]) for g in made["grids"]] == grids
        assert made["num_tokens"] == len(made["input_ids"]) == sum(made["seq_lengths"])
        assert made["num_crops"] == sum(r * c + 1 for r, c in grids)
        placeholders = made["input_ids"].count(tokenizer().convert_tokens_to_ids("<image>"))
        assert placeholders == encoding.tokens_per_crop * made["num_crops"]


def test_ids_with_all_our_words_are_those_of_transformers_given_the_same_words() -> None:
    encoding = Encoding(tokens_per_crop=8)
    rng = random.Random(7)
    rows = [conversation(rng, n) for n in range(150)]
    out = encode(table(*rows), encoding=encoding).to_pylist()
    kinds = set()
    for raw, made in zip(rows, out, strict=True):
        row = row_of(raw)
        assert made["input_ids"] == their_ids(row, grids_of(row, encoding=encoding), encoding)
        kinds.add(tokenizer().decode(made["input_ids"][:30]))
    assert len(kinds) > 20


def test_masks_are_those_of_transformers() -> None:
    encoding = replace(SMALL, system_prompts="smolvlm", media_intro_outro=True)
    rng = random.Random(8)
    rows = [conversation(rng, n) for n in range(100)]
    out = encode(table(*rows), encoding=encoding).to_pylist()
    for raw, made in zip(rows, out, strict=True):
        row = row_of(raw)
        ids, mask = their_mask(row, grids_of(row, encoding=encoding), encoding)
        assert made["input_ids"] == ids
        assert made["loss_mask"] == mask
        assert made["num_learned"] == sum(mask)


def test_learned_text_is_the_answers_with_their_space_and_end() -> None:
    row = sample(
        "a",
        [message("user", IMAGE, "Who?"), message("assistant", "A cat."), message("user", "Why?"),
         message("assistant", "No.")],
        [image_record(100, 50)],
    )  # fmt: skip
    for encoding in (SMALL, Encoding()):
        made = encode(table(row), encoding=encoding).to_pylist()[0]
        pairs = zip(made["input_ids"], made["loss_mask"], strict=True)
        learned = tokenizer().decode([i for i, is_learned in pairs if is_learned])
        assert learned == " A cat.<end_of_utterance> No.<end_of_utterance>"


def their_video(frames: int, seconds: list[float], duration: float, encoding: Encoding) -> str:
    """What SmolVLMProcessor puts in the place of <video>; only its own method is called."""
    self = SimpleNamespace(
        image_seq_len=encoding.tokens_per_crop,
        image_token="<image>",
        fake_image_token="<fake_token_around_image>",
        global_image_token="<global-img>",
    )
    fps = 10.0
    metadata = VideoMetadata(
        total_num_frames=round(duration * fps),
        fps=fps,
        duration=duration,
        frames_indices=[round(s * fps) for s in seconds],
    )
    inputs = {"pixel_values": np.zeros((1, frames)), "video_metadata": [metadata]}
    return SmolVLMProcessor.replace_video_token(self, inputs, 0)


def test_videos_are_written_as_transformers_writes_them() -> None:
    encoding = replace(Encoding(), system_prompts="none")
    rng = random.Random(9)
    rows, expected = [], []
    for number in range(60):
        frames = rng.randint(1, 64)
        duration = rng.uniform(1, 9000)
        seconds = sorted(round(rng.uniform(0, duration), 1) for _ in range(frames))
        question = said(rng)
        before = rng.choice([[], ["Watch this."]])
        images = [image_record(320, 240, s) for s in seconds]
        user = message("user", *before, *[IMAGE] * frames, question)
        rows.append(
            sample(f"v/{number}", [user, message("assistant", "Yes.")], images, duration=duration)
        )
        video = their_video(frames, [float(np.float32(s)) for s in seconds], duration, encoding)
        content = [text(t) for t in before] + [{"type": "video"}, text(question)]
        rendered = tokenizer().apply_chat_template(
            [{"role": "user", "content": content}, message("assistant", "Yes.")],
            chat_template=DEFAULT_CHAT_TEMPLATE,
            tokenize=False,
        )
        expected.append(rendered.replace("<video>", video))
    out = encode(table(*rows), encoding=encoding).to_pylist()
    for made, string in zip(out, expected, strict=True):
        assert made["input_ids"] == tokenizer()(string, add_special_tokens=False)["input_ids"]
        assert made["num_crops"] == string.count("<global-img>")


def test_numbers_and_times_read_as_in_transformers() -> None:
    for number in [*range(1100), 1999, 2000, 2001, 12_345, 100_100, 999_999]:
        assert in_words(number) == num2words(number)
    for seconds in (0, 59.9, 60, 3599, 3600, 86_399, 86_400, 200_000):
        assert clock(seconds) == str(timedelta(seconds=int(seconds)))


def test_without_intros_a_video_keeps_its_times() -> None:
    row = sample(
        "a",
        [message("user", IMAGE, IMAGE, "Q"), message("assistant", "A")],
        [image_record(9, 9, 0.0), image_record(9, 9, 61.0)],
        duration=62.0,
    )
    made = encode(table(row), encoding=SMALL).to_pylist()[0]
    shown = tokenizer().decode(made["input_ids"])
    assert "\nFrame from 01:01:<fake" in shown
    assert "series of" not in shown


def test_the_bundled_template_renders_as_that_of_transformers() -> None:
    rng = random.Random(10)
    for number in range(100):
        messages = conversation(rng, number)["messages"]
        render = lambda template, ask, messages=messages: tokenizer().apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=ask
        )
        for ask in (False, True):
            assert render(CHAT_TEMPLATE, ask) == render(DEFAULT_CHAT_TEMPLATE, ask)


SPECIAL = sorted(tokenizer().get_added_vocab())
anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
ROLES = ["User:", "\nAssistant:", "<end_of_utterance>\nAssistant: ", " ", "\n"]
hostile = st.lists(anything | st.sampled_from([*SPECIAL, *ROLES]), max_size=6).map("".join)
MISSING = "\x04\x06\x13\x14\x16\x1d"


def representable(string: str) -> bool:
    return not any(c in MISSING or 0x40000 <= ord(c) < 0xC0000 for c in string)


@settings(max_examples=300)
@given(hostile, hostile)
def test_text_of_datasets_stays_text(question: str, answer: str) -> None:
    row = sample(
        "a", [message("user", IMAGE, question), message("assistant", answer)], [image_record(9, 9)]
    )
    made = encode(table(row), encoding=replace(SMALL, longest_edge=32)).to_pylist()[0]
    if not (representable(question) and representable(answer)):
        assert made["problem"] == "unrepresentable_text"
        assert (made["input_ids"], made["num_tokens"], made["num_learned"]) == ([], 0, 0)
        assert made["lost_bytes"] > 0
        return
    assert made["problem"] is None
    assert made["lost_bytes"] == 0
    ids = np.array(made["input_ids"])
    mask = np.array(made["loss_mask"])
    marks = ids[np.isin(ids, list(tokenizer().added_tokens_decoder))].tolist()
    begin, end = 1, 49279
    image = [49189, 49152, *[49190] * 4, 49189]
    assert marks == [begin, *image, end, end]
    body = len(image) + 3  # <|im_start|>User:<image>
    first_end = ids.tolist().index(end)
    assert tokenizer().decode(ids[body:first_end]) == question
    assert tokenizer().decode(ids[mask]) == f" {answer}<end_of_utterance>"


@settings(max_examples=100)
@given(st.integers(0, 0x10FFFF).filter(lambda c: not 0xD800 <= c < 0xE000))
def test_every_code_point_is_kept_or_named(code: int) -> None:
    string = f"a{chr(code)}b"
    row = sample("a", [message("user", "q"), message("assistant", string)])
    made = encode(table(row), encoding=SMALL).to_pylist()[0]
    if representable(string):
        assert f" {string}<end_of_utterance>" in tokenizer().decode(made["input_ids"])
    else:
        assert made["problem"] == "unrepresentable_text"
    kept = encode(table(row), encoding=replace(SMALL, unrepresentable="drop")).to_pylist()[0]
    assert kept["problem"] is None
    assert (kept["lost_bytes"] == 0) == representable(string)


def test_the_vocabulary_lacks_21_bytes() -> None:
    missing = vocab(tokenizer(), SMALL).missing
    assert len(missing) == 21
    assert missing[:6] == MISSING.encode()


ASKED = [message("user", IMAGE, "q"), message("assistant", "a")]
PROBLEMS = {
    "more_placeholders_than_images": (
        [message("user", IMAGE, IMAGE), message("assistant", "a")],
        1,
    ),
    "more_images_than_placeholders": (ASKED, 2),
    "unknown_role": ([message("user", "q"), message("robot", "a")], 0),
    "mixed_document": ([message("document", "text"), message("assistant", "a")], 0),
    "nothing_learned": ([message("user", "q")], 0),
    "grid_without_token": (ASKED, 1),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_problems_are_named_and_no_row_is_lost(problem: str) -> None:
    messages, images = PROBLEMS[problem]
    encoding = replace(SMALL, longest_edge=7 * 32) if problem == "grid_without_token" else SMALL
    good = sample("good", [message("user", "q"), message("assistant", "a")])
    bad = sample("bad", messages, [image_record(50, 40)] * images)
    out = encode(table(good, bad, good), encoding=encoding)
    assert out.schema == TOKENS
    assert out["problem"].to_pylist() == [None, problem, None]
    assert out["id"].to_pylist() == ["good", "bad", "good"]
    empty = out.to_pylist()[1]
    assert empty["input_ids"] == empty["loss_mask"] == empty["grids"] == empty["seq_lengths"] == []


def test_defects_are_kept_as_empty_rows_with_their_reason() -> None:
    rows = [
        sample("a", None, None, defect="wrong_schema"),
        sample(
            "b", [message("user", IMAGE, "q")], [image_record(5, 5)], defect="undecodable_image"
        ),
    ]
    rows[1]["images"][0] |= {"width": None, "height": None, "bytes": None}
    rows[0]["images"] = rows[0]["tags"] = None
    out = encode(table(*rows), encoding=SMALL)
    assert out["problem"].to_pylist() == ["wrong_schema", "undecodable_image"]
    assert out["num_tokens"].to_pylist() == [0, 0]


def test_an_empty_table_encodes_to_an_empty_table() -> None:
    assert encode(SAMPLE.empty_table(), encoding=SMALL).schema == TOKENS


def test_rows_do_not_depend_on_their_neighbours_order_or_chunks() -> None:
    rng = random.Random(11)
    rows = [conversation(rng, n) for n in range(40)]
    together = encode(table(*rows), encoding=Encoding()).to_pylist()
    backwards = encode(table(*rows[::-1]), encoding=Encoding()).to_pylist()[::-1]
    chunked = pa.concat_tables([table(*rows[:7]), table(*rows[7:])]).slice(3, 30)
    assert backwards == together
    assert encode(chunked, encoding=Encoding()).to_pylist() == together[3:33]


def test_documents_are_learned_wholly_and_cut_at_seq_len() -> None:
    row = sample("doc", [message("document", "One two three. " * 40)])
    made = encode(table(row), encoding=replace(SMALL, seq_len=50)).to_pylist()[0]
    assert tokenizer().decode(made["input_ids"]) == "One two three. " * 40 + "<|endoftext|>"
    full, rest = divmod(made["num_tokens"], 50)
    assert made["splittable"]
    assert made["seq_lengths"] == [50] * full + [rest]
    starts = set(range(0, made["num_tokens"], 50))
    assert [n not in starts for n in range(made["num_tokens"])] == made["loss_mask"]
    whole = encode(table(row), encoding=replace(SMALL, seq_len=50, cut_documents=False))
    assert whole["splittable"].to_pylist() == [False]
    assert len(whole["seq_lengths"].to_pylist()[0]) == 1


def test_learning_all_spares_only_what_images_are_made_of() -> None:
    row = sample(
        "a", [message("user", IMAGE, "Who?"), message("assistant", "I.")], [image_record(90, 40)]
    )
    made = encode(table(row), encoding=replace(SMALL, learn="all")).to_pylist()[0]
    pairs = zip(made["input_ids"], made["loss_mask"], strict=True)
    learned = tokenizer().decode([i for i, is_learned in pairs if is_learned])
    assert learned == "User:Who?<end_of_utterance>\nAssistant: I.<end_of_utterance>\n"


def test_position_strings_are_spelled_out_as_the_first_smolvlm_did() -> None:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    spec = json.loads(tokenizer().backend_tokenizer.to_str())
    for token in spec["added_tokens"]:  # SmolVLM-Instruct (2024) has no token for a position
        if "row_" in token["content"] or "global" in token["content"]:
            token["content"] = f"<|gone_{token['id']}|>"
    first = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(spec)))
    encoding = replace(MODELS["2.2B"], position_tokens="string", longest_edge=384 * 8)
    rng = random.Random(12)
    rows = [conversation(rng, n) for n in range(40)]
    out = encode(table(*rows), encoding=encoding).to_pylist()
    for raw, made in zip(rows, out, strict=True):
        row = row_of(raw)
        expected = tokenizer().decode(their_ids(row, grids_of(row, encoding=encoding), encoding))
        assert made["input_ids"] == first(expected, add_special_tokens=False)["input_ids"]
    assert any(max(g["rows"], g["cols"]) == 8 for made in out for g in made["grids"])


def test_an_unknown_table_or_tokenizer_says_the_way_out(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"unknown table 'smol'\. Expected one of none, smolvlm"):
        encode(table(), encoding=replace(SMALL, system_prompts="smol"))
    with pytest.raises(FileNotFoundError, match=r"found no tokenizer at .*Expected `builtin`"):
        encode(table(), encoding=replace(SMALL, tokenizer=str(tmp_path / "nothing")))


def test_the_saved_tokenizer_is_the_same_tokenizer(tmp_path) -> None:
    tokenizer().save_pretrained(tmp_path)
    again = load_tokenizer(str(tmp_path))
    assert again.get_vocab() == tokenizer().get_vocab()
    assert (again.bos_token_id, again.eos_token_id, again.pad_token_id) == (1, 49279, 2)
    assert again.image_token == "<image>"
    row = table(conversation(random.Random(13), 0))
    encoding = replace(SMALL, tokenizer=str(tmp_path))
    assert encode(row, encoding=encoding).equals(encode(row, encoding=SMALL))
    assert encoding_tools(encoding).vocab.positions == encoding_tools(SMALL).vocab.positions


def test_random_tiles_have_the_published_shares_and_never_exceed_the_longest_edge() -> None:
    encoding = replace(BARE, tiles="random")
    rows = [
        sample(
            f"t/{n}",
            [message("user", IMAGE, "q"), message("assistant", "a")],
            [image_record(800, 800)],
        )
        for n in range(3000)
    ]
    out = encode(table(*rows), encoding=encoding)
    sides = np.array([g[0]["rows"] for g in out["grids"].to_pylist()])
    shares = [(sides == n).mean() for n in (2, 3, 4)]
    np.testing.assert_allclose(shares, [0.4, 0.3, 0.3], atol=0.03)  # 5 is clipped to 4
    few = encode(table(*rows), encoding=replace(encoding, longest_edge=1024))
    sides = np.array([g[0]["rows"] for g in few["grids"].to_pylist()])
    np.testing.assert_allclose([(sides == 0).mean(), (sides == 2).mean()], [0.5, 0.5], atol=0.03)
    assert encode(table(*rows), encoding=encoding).equals(out)
    other = encode(table(*rows), encoding=replace(encoding, seed=1))
    assert not other["grids"].equals(out["grids"])
    assert grid(800, 800, encoding=encoding, video=False) == (4, 4)
