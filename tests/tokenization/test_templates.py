"""A tokenizer of another family in its own chat format: ids and masks of apply_chat_template."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.tokenization.rows import BARE, IMAGE, image_record, message, sample, table
from tokenization.encode import encode
from tokenization.schema import Encoding
from tokenization.vocab import load_tokenizer

QWEN = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>"
    "{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] not in ['user', 'assistant'] %}{{ raise_exception('role') }}{% endif %}"
    "[{{ m['role'] | upper }}] "
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] | trim }}{{ eos_token }}"
    "{% endgeneration %}{% else %}{{ m['content'] | trim }}{% endif %}{% endfor %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PLAIN = ["<think>", "</think>"]
"""Added, but not special, as in Qwen3."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a byte-level tokenizer of 600 ids, trained on this repository's own text."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=sorted(alphabet),
        special_tokens=SPECIAL,
        show_progress=False,
    )
    backend.train_from_iterator([Path(__file__).read_text()], trainer)
    backend.add_tokens(PLAIN)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=QWEN,
    )
    path = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(path)
    return path


def made(folder: Path, messages: list[dict], **settings_: object) -> dict:
    encoding = replace(BARE, tokenizer=str(folder), position_tokens="string", **settings_)
    rows = table(sample("a", messages))
    return encode(rows, encoding=encoding).to_pylist()[0]


def theirs(folder: Path, messages: list[dict], template: str) -> tuple[list[int], list[bool]]:
    plain = [
        {"role": m["role"], "content": "".join(p["text"] for p in m["content"])} for m in messages
    ]
    out = load_tokenizer(str(folder)).apply_chat_template(
        plain,
        chat_template=template,
        return_assistant_tokens_mask=True,
        return_dict=True,
        tokenize=True,
    )
    return out["input_ids"], [bool(x) for x in out["assistant_masks"]]


@pytest.mark.parametrize(("name", "template"), [("tokenizer", QWEN), (LLAMA, LLAMA)])
def test_ids_and_masks_are_those_of_apply_chat_template(
    folder: Path, name: str, template: str
) -> None:
    rng = random.Random(0)
    words = ["cat", "Dog", "12", "don't", "user", "assistant", "\n", "é", "東京", "😀", "[USER]"]
    say = lambda: " ".join(rng.choices(words, k=rng.randint(1, 9)))
    for _ in range(150):
        messages = []
        for _ in range(rng.randint(1, 3)):
            messages += [message("user", say(), say()), message("assistant", say())]
        out = made(folder, messages, chat_template=name)
        ids, mask = theirs(folder, messages, template)
        assert out["input_ids"] == ids
        # Nothing comes before the first token, so it is not learned; a character of several tokens
        # is learned in all of them, of which transformers marks the first alone.
        assert len(mask) == len(out["loss_mask"])
        assert all(a or not b for a, b in zip(out["loss_mask"], mask, strict=True))
        extra = [
            n for n, (a, b) in enumerate(zip(out["loss_mask"], mask, strict=True)) if a and not b
        ]
        assert all(n > 0 and out["loss_mask"][n - 1] for n in extra)
        if all(ord(c) < 128 for m in messages for p in m["content"] for c in p["text"]):
            assert out["loss_mask"] == mask


dangerous = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.sampled_from([*SPECIAL, *PLAIN, "\ufdd00\ufdd1", "\ufdd2", "\ufdd2999\ufdd3"]),
    max_size=5,
).map("".join)


@settings(max_examples=200)
@given(dangerous, dangerous)
def test_text_never_becomes_a_special_token(folder: Path, question: str, answer: str) -> None:
    out = made(
        folder, [message("user", question), message("assistant", answer)], chat_template="tokenizer"
    )
    tokenizer = load_tokenizer(str(folder))
    added = set(tokenizer.added_tokens_decoder)
    marks = [tokenizer.convert_ids_to_tokens(i) for i in out["input_ids"] if i in added]
    assert marks == ["<|im_start|>", "<|im_end|>"] * 2
    pairs = list(zip(out["input_ids"], out["loss_mask"], strict=True))
    assert tokenizer.decode([i for i, learned in pairs if learned]) == f"{answer}<|im_end|>"
    expected = f"<|im_start|>user\n{question}<|im_end|>\n"
    assert tokenizer.decode(out["input_ids"]).startswith(expected)


def test_a_template_that_refuses_is_a_problem_of_the_sample(folder: Path) -> None:
    messages = [message("system", "s"), message("user", "q"), message("assistant", "a")]
    assert made(folder, messages, chat_template=LLAMA)["problem"] == "template_refuses"


def test_images_need_their_tokens(folder: Path) -> None:
    row = sample(
        "a", [message("user", IMAGE, "q"), message("assistant", "a")], [image_record(90, 90)]
    )
    encoding = replace(
        BARE, tokenizer=str(folder), position_tokens="string", chat_template="tokenizer"
    )
    assert encode(table(row), encoding=encoding)["problem"].to_pylist() == ["no_image_token"]


def test_a_tokenizer_with_image_tokens_shows_images_inside_its_own_template(
    folder: Path, tmp_path: Path
) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_tokens(["<image>", "<fake_token_around_image>"], special_tokens=True)
    tokenizer.save_pretrained(tmp_path)
    row = sample(
        "a", [message("user", "See ", IMAGE, "?"), message("assistant", "a")], [image_record(9, 9)]
    )
    encoding = Encoding(
        tokenizer=str(tmp_path),
        position_tokens="string",
        chat_template="tokenizer",
        system_prompts="none",
        media_intro_outro=False,
        longest_edge=512,
        tokens_per_crop=3,
    )
    out = encode(table(row), encoding=encoding).to_pylist()[0]
    assert load_tokenizer(str(tmp_path)).decode(out["input_ids"]) == (
        "<|im_start|>user\nSee <fake_token_around_image><global-img><image><image><image>"
        "<fake_token_around_image>?<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
    )
    assert sum(out["loss_mask"]) == 2


def test_documents_end_with_the_tokenizers_end(folder: Path) -> None:
    out = made(folder, [message("document", "one two")], chat_template="tokenizer")
    assert load_tokenizer(str(folder)).decode(out["input_ids"]) == "one two<|endoftext|>"


@pytest.mark.parametrize(
    ("settings_", "match"),
    [
        ({"chat_template": "smolvlm"}, r"lacks 3 of SmolVLM's marks .*chat_template"),
        ({"chat_template": "smol"}, r"found 'smol'\. Expected `smolvlm`, `tokenizer`"),
        ({"chat_template": "{% for m in messages %}{% endfor %}"}, r"marks nothing as learned"),
    ],
)
def test_what_cannot_be_rendered_says_the_way_out(
    folder: Path, settings_: dict, match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        made(folder, [message("user", "q")], **settings_)
