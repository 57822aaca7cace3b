"""Tokenizer and processor of a checkpoint make the ids that were trained, in every setting."""

import dataclasses
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.smolvlm.processing_smolvlm import SmolVLMProcessor
from transformers.utils import is_torchvision_available

from tests.overlay import ROOT, overlay, torchvision
from tests.tokenization.rows import IMAGE, SMALL, image_record, message, row_of, sample, table
from tokenization import prompts
from tokenization.encode import encode, is_plain, with_added_words
from tokenization.images import grid
from tokenization.inference import (
    asking_encoding,
    plain_encoding,
    save_processing,
    unsaid,
    vocabulary,
)
from tokenization.schema import Encoding
from tokenization.vocab import BEGIN, DOCUMENT_END, END, FAKE, GLOBAL, load_tokenizer
from tokenization.vocab import IMAGE as MARK

POSITIONS = [f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<end_of_utterance>"
    "{% endgeneration %}{% else %}{{ m['content'] | trim }}<end_of_utterance>{% endif %}\n"
    "{% endfor %}"
)
WORDED = replace(SMALL, system_prompts="smolvlm", media_intro_outro=True, seq_len=4096)
SAID_BY_FILES: dict[str, tuple[Any, ...]] = {
    "crop_size": (48, 64),
    "longest_edge": (64, 96),
    "tokens_per_crop": (1,),
    "split_images": (False,),
    "position_tokens": ("string",),
    "chat_template": ("tokenizer", CHATML.replace("role'] }}", "role'] | upper }}")),
}
"""Settings that the files beside a checkpoint say, and values other than the default."""
SAID_BY_CARD: dict[str, tuple[Any, str]] = {
    "system_prompts": ("smolvlm", "put a system prompt before"),
    "media_intro_outro": (False, "no words around a video"),
    "plain_prompts": (0.25, "25% had none"),
    "brevity_hints": (True, "asked for short answers"),
    "tiles": ("random", "random number of crops"),
    "upscale": (False, "shrank images above 128 px"),
}
"""Settings that no file can say: a value, and what the card then says."""
OF_TRAINING_DATA = {
    "seq_len": 8192, "max_crops": 3, "learn": "all", "shuffle_turns": True, "max_turns": 1,
    "split_turns": 1, "cut_documents": False, "unrepresentable": "drop", "pack": "none",
    "images": "fitted", "image_format": "png", "image_quality": 50, "seed": 5,
}  # fmt: skip
"""Settings of which the ids of a conversation that is asked do not depend."""


def test_every_setting_is_in_one_of_the_tables() -> None:
    tables = [*SAID_BY_FILES, *SAID_BY_CARD, *OF_TRAINING_DATA, "tokenizer"]
    assert sorted(tables) == sorted(field.name for field in dataclasses.fields(Encoding))


def trained_tokenizer(
    *, rstrip: bool = False, bos: bool = False, joins: bool = False
) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of few ids with SmolVLM's marks; a template of its own."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not joins)
    backend.decoder = decoders.ByteLevel()
    marks = [DOCUMENT_END, BEGIN, END, GLOBAL, *POSITIONS, FAKE, MARK]
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    text = "Assistant: It's\n" * 9 if joins else Path(__file__).read_text()
    backend.train_from_iterator([text], trainer)
    backend.add_special_tokens([AddedToken(mark, rstrip=rstrip, special=True) for mark in marks])
    if bos:
        start = backend.token_to_id(BEGIN)
        backend.post_processor = processors.TemplateProcessing(
            single=f"{BEGIN} $A", special_tokens=[(BEGIN, start)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=BEGIN, eos_token=END, pad_token=DOCUMENT_END,
        extra_special_tokens={"image_token": MARK, "global_image_token": GLOBAL},
        chat_template=CHATML,
    )  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    trained_tokenizer().save_pretrained(folder)
    return str(folder)


class NoVideos(SmolVLMProcessor):
    """The processor where torchvision, which its videos need, is missing."""

    def check_argument_for_proper_class(self, name: str, argument: Any) -> None: ...


class Videos:
    num_frames = fps = None


def processor_of(folder: Path) -> Any:
    """AutoProcessor of a folder; without torchvision, made of what it would be made of."""
    (folder / "config.json").write_text(json.dumps({"model_type": "smolvlm"}))
    assert is_torchvision_available() == ("OVERLAY" in os.environ)
    if is_torchvision_available():
        return AutoProcessor.from_pretrained(str(folder))
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    images = AutoImageProcessor.from_pretrained(str(folder), backend="pil")
    settings = json.loads((folder / "processor_config.json").read_text())
    template = (folder / "chat_template.jinja").read_text()
    length = settings["image_seq_len"]
    return NoVideos(images, tokenizer, Videos(), image_seq_len=length, chat_template=template)


def conversations(encoding: Encoding) -> Iterator[tuple[dict, list[Image.Image]]]:
    """Samples of every shape, and their images as a client has them."""
    rng = random.Random(3)
    sizes = [(90, 50), (20, 130), (500, 60), (32, 32), (7, 5)]
    shapes: list[list[tuple[Any, ...]]] = [
        [("user", "What's 12 + 30?\n"), ("assistant", " 42 \n")],
        [("system", "Be brief."), ("user", "hi"), ("assistant", "Hello"), ("user", "And?"),
         ("assistant", "User: no")],
        [("user", IMAGE, "Colour?"), ("assistant", "red")],
        [("user", IMAGE, IMAGE, "Same?"), ("assistant", "yes"), ("user", "Sure?"),
         ("assistant", "yes")],
        [("user", "First ", IMAGE, " then\n", IMAGE, "?"), ("assistant", "é東京"),
         ("user", IMAGE), ("assistant", "No more.")],
    ]  # fmt: skip
    for number in range(4 * len(shapes)):
        turns = shapes[number % len(shapes)]
        count = sum(part is IMAGE for turn in turns for part in turn)
        images = [Image.new("RGB", rng.choice(sizes), "red") for _ in range(count)]
        if not encoding.upscale:  # as the card asks for
            for image in images:
                image.thumbnail((encoding.longest_edge,) * 2, Image.Resampling.LANCZOS)
        messages = [message(role, *parts) for role, *parts in turns]
        yield sample(f"s/{number}", messages, [image_record(*i.size) for i in images]), images


def clients_ids(processor: Any, raw: dict, images: list[Image.Image], encoding: Encoding) -> list:
    """What a program makes of the conversation, with the words that training put around it."""
    row = row_of(raw)
    said = with_added_words(row, row.conversation, encoding=encoding)
    messages = [
        {
            "role": role,
            "content": [
                {"type": "text", "text": part}
                if isinstance(part, str)
                else {"type": "image", "image": images[part]}
                for part in parts
            ],
        }
        for role, parts in said
    ]
    out = processor.apply_chat_template(messages, tokenize=True, return_dict=True)
    return list(out["input_ids"][0])


def assert_ids_are_the_trained_ones(encoding: Encoding, folder: Path, asked: Encoding) -> None:
    save_processing(load_tokenizer(encoding.tokenizer), folder, encoding=encoding)
    processor = processor_of(folder)
    for raw, images in conversations(encoding):
        trained = encode(table(raw), encoding=asked).to_pylist()[0]
        assert trained["problem"] is None
        ids = clients_ids(processor, raw, images, asked)
        assert ids == trained["input_ids"], processor.tokenizer.decode(ids)


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field, values in SAID_BY_FILES.items() for value in (None, *values)],
)
def test_files_say_how_ids_are_made(field: str, value: Any, small: str, tmp_path: Path) -> None:
    encoding = replace(WORDED, tokenizer=small)
    if value is not None:
        encoding = replace(encoding, **{field: value})
    assert_ids_are_the_trained_ones(encoding, tmp_path, encoding)
    assert not [words for words in unsaid(encoding) if "other ids" in words]


@pytest.mark.parametrize("field", [*SAID_BY_CARD, *OF_TRAINING_DATA])
def test_what_files_cannot_say_is_said_or_is_about_training_data(
    field: str, small: str, tmp_path: Path
) -> None:
    value = SAID_BY_CARD[field][0] if field in SAID_BY_CARD else OF_TRAINING_DATA[field]
    encoding = replace(WORDED, tokenizer=small, **{field: value})
    # Turns and tiles are reshaped in training alone; the other settings hold for who asks, too.
    reshapes = field in ("tiles", "shuffle_turns", "max_turns", "split_turns")
    asked = asking_encoding(encoding) if reshapes else encoding
    assert_ids_are_the_trained_ones(encoding, tmp_path, asked)
    before = set(unsaid(replace(WORDED, tokenizer=small, system_prompts="none")))
    if field in SAID_BY_CARD:
        assert [words for words in unsaid(encoding) if SAID_BY_CARD[field][1] in words]
        assert not [words for words in before if SAID_BY_CARD[field][1] in words]
    else:
        assert unsaid(encoding) == unsaid(replace(WORDED, tokenizer=small))


@pytest.mark.parametrize("position_tokens", ["learned", "string"])
def test_the_builtin_tokenizer_keeps_its_ids(position_tokens: Any, tmp_path: Path) -> None:
    encoding = replace(WORDED, position_tokens=position_tokens)
    assert_ids_are_the_trained_ones(encoding, tmp_path, encoding)
    saved, ours = AutoTokenizer.from_pretrained(str(tmp_path)), load_tokenizer("builtin")
    assert vocabulary(saved) == ours.get_vocab()
    known = "<row_1_col_2>" in saved.get_vocab()
    assert known == (position_tokens == "learned")
    spelled = saved("<row_1_col_2>", add_special_tokens=False)["input_ids"]
    assert (len(spelled) == 1) == known
    assert saved.decode(spelled) == "<row_1_col_2>"


def test_a_text_alone_is_rendered_as_one_part(tmp_path: Path) -> None:
    save_processing(load_tokenizer("builtin"), tmp_path, encoding=WORDED)
    render = AutoTokenizer.from_pretrained(str(tmp_path)).apply_chat_template
    parts = [{"role": "user", "content": [{"type": "text", "text": "Who?"}]}]
    expected = "<|im_start|>User: Who?<end_of_utterance>\n"
    assert render(parts, tokenize=False) == expected
    assert render([{"role": "user", "content": "Who?"}], tokenize=False) == expected


@pytest.mark.parametrize("template", ["smolvlm", "tokenizer"])
@pytest.mark.parametrize("position_tokens", ["learned", "string"])
def test_a_tokenizer_that_adds_or_swallows_is_saved_without_these_habits(
    template: Any, position_tokens: Any, tmp_path: Path
) -> None:
    trained_tokenizer(rstrip=True, bos=True).save_pretrained(tmp_path / "own")
    encoding = replace(
        WORDED, tokenizer=str(tmp_path / "own"), chat_template=template,
        position_tokens=position_tokens,
    )  # fmt: skip
    (tmp_path / "saved").mkdir()
    assert_ids_are_the_trained_ones(encoding, tmp_path / "saved", encoding)
    assert not [words for words in unsaid(encoding) if "other ids" in words]
    # A checkpoint's tokenizer may be the next mixture's, which trains the same ids.
    again = replace(encoding, tokenizer=str(tmp_path / "saved"))
    raw, _ = next(conversations(encoding))
    first, second = (encode(table(raw), encoding=e).to_pylist()[0] for e in (encoding, again))
    assert first["input_ids"] == second["input_ids"]


def test_ids_that_no_file_makes_are_found_out(tmp_path: Path) -> None:
    """A tokenizer that joins what stands on both sides of a role's colon."""
    trained_tokenizer(joins=True).save_pretrained(tmp_path)
    told = unsaid(replace(WORDED, tokenizer=str(tmp_path)))
    assert "make other ids than were trained" in told[-1]
    assert "What is 2+2?" in told[-1]


def test_plain_prompts_leave_a_share_of_the_samples_without_our_words() -> None:
    encoding = replace(WORDED, plain_prompts=0.3)
    rows = [
        sample(f"s/{n}", [message("user", IMAGE, f"{n}?"), message("assistant", "a")],
               [image_record(40, 30)])
        for n in range(600)
    ]  # fmt: skip
    mixed, worded, plain = (
        [row["input_ids"] for row in encode(table(*rows), encoding=each).to_pylist()]
        for each in (encoding, WORDED, plain_encoding(WORDED))
    )
    bare = [is_plain(f"s/{n}", encoding=encoding) for n in range(600)]
    assert 0.24 < sum(bare) / 600 < 0.36
    expected = [p if is_bare else w for p, w, is_bare in zip(plain, worded, bare, strict=True)]
    assert mixed == expected
    more = [is_plain(f"s/{n}", encoding=replace(encoding, plain_prompts=0.6)) for n in range(600)]
    assert all(b or not a for a, b in zip(bare, more, strict=True))  # a larger share holds it
    other = [is_plain(f"s/{n}", encoding=replace(encoding, seed=1)) for n in range(600)]
    assert other != bare
    for share in (-0.1, 1.5):
        with pytest.raises(ValueError, match=r"plain_prompts: found .*a share of the samples"):
            encode(table(rows[0]), encoding=replace(WORDED, plain_prompts=share))


def test_plain_prompts_keep_what_is_the_samples_own_or_transformers() -> None:
    encoding = replace(WORDED, plain_prompts=1.0)
    own = sample(
        "s/1", [message("system", "Mine."), message("user", "q"), message("assistant", "a")]
    )
    text = load_tokenizer("builtin").decode
    (row,) = encode(table(own), encoding=encoding).to_pylist()
    assert "System: Mine." in text(row["input_ids"])
    video = sample(
        "s/2", [message("user", IMAGE, IMAGE, "q"), message("assistant", "a")],
        [image_record(40, 30, seconds=float(n)) for n in range(2)], duration=2.0,
    )  # fmt: skip
    (row,) = encode(table(video), encoding=encoding).to_pylist()
    said = text(row["input_ids"])
    assert "System:" not in said
    assert prompts.VIDEO_INTRO.format(count="two", duration="0:00:02") in said
    assert "Frame from 00:01:" in said


def test_images_that_are_shrunk_first_have_the_trained_grid() -> None:
    encoding = replace(WORDED, upscale=False)
    for width, height in ((500, 60), (129, 400), (128, 128), (40, 20)):
        image = Image.new("RGB", (width, height))
        image.thumbnail((encoding.longest_edge,) * 2, Image.Resampling.LANCZOS)
        assert grid(*image.size, encoding=encoding, video=False) == grid(
            width, height, encoding=encoding, video=False
        )


@pytest.mark.slow
def test_all_of_this_with_the_real_autoprocessor(tmp_path: Path) -> None:
    """In a process that has torchvision, `processor_of` is AutoProcessor."""
    environment = overlay(tmp_path, torchvision())
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(tests, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
