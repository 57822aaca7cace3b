"""What lies beside a checkpoint so that `transformers` makes the ids that were trained.

| setting of `encoding`                          | is said by                                    |
|------------------------------------------------|-----------------------------------------------|
| tokenizer, position_tokens                     | tokenizer.json: its added tokens              |
| chat_template                                  | chat_template.jinja                           |
| crop_size, longest_edge, split_images, upscale | preprocessor_config.json, its twin for videos |
| tokens_per_crop                                | processor_config.json                         |
| what no file can say                           | `unsaid`: sentences that the card has to hold |

The other settings choose, cut and pack training data: no id of a conversation depends on them.
"""

import json
import re
import tempfile
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tokenization import prompts
from tokenization.encode import encode
from tokenization.images import processor_settings
from tokenization.schema import SAMPLE, Encoding
from tokenization.vocab import CHAT_TEMPLATE, FAKE, GLOBAL, IMAGE, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

POSITION = re.compile(rf"<row_\d+_col_\d+>|{re.escape(GLOBAL)}")
"""The marks that `position_tokens: string` spells out."""
UNUSED = "<|unused:{}|>"
"""What such a mark is called in the saved tokenizer: its id stays, and no prompt holds this."""
PARTS_TO_TEXT = (
    "{%- set flat = namespace(messages=[], text='') -%}"
    "{%- for message in messages -%}"
    "{%- if message['content'] is string -%}{%- set flat.text = message['content'] -%}"
    "{%- else -%}{%- set flat.text = '' -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'text' -%}{%- set flat.text = flat.text + part['text'] -%}"
    "{%- else -%}{%- set flat.text = flat.text + '<' + part['type'] + '>' -%}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{%- set flat.messages = flat.messages + [dict(message, content=flat.text)] -%}"
    "{%- endfor -%}{%- set messages = flat.messages -%}"
)
"""Stands before a template that takes texts alone, as it got in training: processors pass parts."""
OF_IDS = (
    "position_tokens", "chat_template", "longest_edge", "split_images", "upscale",
    "system_prompts", "media_intro_outro", "plain_prompts", "brevity_hints", "tiles",
)  # fmt: skip
"""Settings that decide the ids of a conversation, less those that one model cannot mix."""
PROBED = ((700, 500), (300, 900), (64, 64))
"""px; sizes of images with several grids."""


def save_processing(
    tokenizer: "PreTrainedTokenizerFast", folder: Path, *, encoding: Encoding
) -> None:
    """AutoTokenizer and AutoProcessor of the folder make the trained ids, but for what `unsaid`
    says.
    """
    _save_tokenizer(tokenizer, folder, encoding=encoding)
    for name, content in processor_files(encoding).items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def _save_tokenizer(
    tokenizer: "PreTrainedTokenizerFast", folder: Path, *, encoding: Encoding
) -> None:
    for name, text in _tokenizer_files(tokenizer, encoding).items():
        (folder / name).write_text(text, encoding="utf-8")


@lru_cache(maxsize=2)  # every checkpoint of a run has the same
def _tokenizer_files(tokenizer: "PreTrainedTokenizerFast", encoding: Encoding) -> dict[str, str]:
    """File -> its text: nothing is added around a text, and no mark swallows the spaces beside it,
    as in training; position marks are tokens only where they were.
    """
    with tempfile.TemporaryDirectory() as folder:
        saved = map(Path, tokenizer.save_pretrained(folder))
        files = {file.name: file.read_text(encoding="utf-8") for file in saved if file.is_file()}
    # Parsing and indenting the vocabulary in Python takes a second: `tokenizers` writes it last,
    # and it stays as it is.
    around, key, vocabulary = files["tokenizer.json"].partition(',\n  "model": ')
    spec = json.loads(around + "}")
    spec["truncation"] = spec["padding"] = spec["post_processor"] = None
    spelled = encoding.position_tokens == "string"
    for token in spec["added_tokens"]:
        token["lstrip"] = token["rstrip"] = token["single_word"] = False
        if spelled and POSITION.fullmatch(token["content"]):
            token["content"] = UNUSED.format(token["content"].strip("<>"))
    around = json.dumps(spec, ensure_ascii=False, indent=2).removesuffix("\n}")
    files["tokenizer.json"] = around + key + vocabulary
    settings = json.loads(files["tokenizer_config.json"])
    # Any other class may build its backend anew, from the vocabulary alone.
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast"}
    settings |= {"add_bos_token": False, "add_eos_token": False}
    settings.pop("added_tokens_decoder", None)  # they are in tokenizer.json
    if spelled:
        settings = {k: v for k, v in settings.items() if not POSITION.fullmatch(str(v))}
    files["tokenizer_config.json"] = json.dumps(settings, ensure_ascii=False, indent=2) + "\n"
    files["chat_template.jinja"] = chat_template(tokenizer, encoding=encoding)
    return files


def chat_template(tokenizer: "PreTrainedTokenizerFast", *, encoding: Encoding) -> str:
    """The Jinja template that renders conversations as they were trained."""
    if encoding.chat_template == "smolvlm":
        return CHAT_TEMPLATE
    own = encoding.chat_template == "tokenizer"
    template = str(tokenizer.chat_template) if own else encoding.chat_template
    return template if template.startswith(PARTS_TO_TEXT) else PARTS_TO_TEXT + template


def vocabulary(tokenizer: "PreTrainedTokenizerFast") -> dict[str, int]:
    """Its tokens and their ids, position marks by the name they have in every mixture's."""
    unused = re.compile(re.escape(UNUSED).replace(r"\{\}", "(.*)"))
    return {unused.sub(r"<\1>", token): id_ for token, id_ in tokenizer.get_vocab().items()}


def processor_files(encoding: Encoding) -> dict[str, dict[str, Any]]:
    """The processor's files, as SmolVLM's published checkpoints have them.

    Frames of videos go to `crop_size` at once and are not cut.
    """
    still = processor_settings(encoding)
    crop = {"longest_edge": encoding.crop_size}
    return {
        "preprocessor_config.json": {
            **still,
            "image_processor_type": "SmolVLMImageProcessor",
            "processor_class": "SmolVLMProcessor",
        },
        "video_preprocessor_config.json": {
            **still,
            "do_resize": True,
            "do_image_splitting": False,
            "do_sample_frames": False,
            "size": crop,
            "max_image_size": crop,
            "video_sampling": {"fps": 1, "max_frames": 64, "video_size": crop},
            "video_processor_type": "SmolVLMVideoProcessor",
            "processor_class": "SmolVLMProcessor",
        },
        "processor_config.json": {
            "image_seq_len": encoding.tokens_per_crop,
            "processor_class": "SmolVLMProcessor",
        },
    }


def asking_encoding(trained: Encoding) -> Encoding:
    """The encoding of training without what only training data needs."""
    return replace(
        trained,
        learn="completions",
        plain_prompts=0.0,
        tiles="full",
        brevity_hints=False,
        shuffle_turns=False,
        max_turns=0,
        split_turns=0,
        images="original",
    )


def plain_encoding(trained: Encoding) -> Encoding:
    """How a conversation is encoded that gets no word of ours, as most programs send it."""
    return replace(asking_encoding(trained), system_prompts="none", media_intro_outro=False)


@cache
def unsaid(encoding: Encoding) -> tuple[str, ...]:
    """What a user of the checkpoint has to know since no file of `transformers` can say it."""
    words = []
    if encoding.system_prompts != "none":
        words.append(
            "Training put a system prompt before conversations that had none (table "
            f"`{encoding.system_prompts}` of tokenization/prompts.py); the chat template adds none."
        )
    if encoding.media_intro_outro:
        words.append(
            "Training put words before and after images that open a conversation, such as "
            f"{prompts.IMAGE_INTROS[0]!r} and {prompts.IMAGE_OUTROS[0]!r}; the processor adds none."
        )
    else:
        words.append(
            "Training put no words around a video but the time of each frame; the processor "
            "describes the video first. To go without, pass its frames as images with "
            f"do_image_splitting=False, after texts such as {_frame_intro()!r}."
        )
    if encoding.plain_prompts and len(words) > 1:
        words.append(f"Of the samples {encoding.plain_prompts:.0%} had none of these words.")
    if encoding.brevity_hints:
        hint = prompts.BREVITY_HINTS[0]
        words.append(f"Training asked for short answers by a hint, such as {hint!r}.")
    if encoding.tiles == "random":
        words.append(
            "Training cut images into a random number of crops, the processor into all there are."
        )
    if not encoding.upscale:
        words.append(
            f"Training shrank images above {encoding.longest_edge} px to that; the processor "
            "cannot without enlarging others. Shrink them (Pillow's LANCZOS) before you pass them."
        )
    if encoding.chat_template != "smolvlm":
        words.append(
            "For a conversation that holds a video the processor takes a chat template of its own, "
            "which was not trained. Pass chat_template=processor.chat_template."
        )
    return (*words, *_other_ids(plain_encoding(encoding)))


def _frame_intro() -> str:
    return prompts.FRAME_INTRO.format(minutes=0, seconds=5)


def _probes() -> list[dict[str, Any]]:
    """Conversations of every shape: turns, a system, spaces, images before, between and after."""
    image: dict[str, Any] = {"type": "image", "text": None}
    shapes: tuple[list[tuple[Any, ...]], ...] = (
        [("user", "What is 2+2?"), ("assistant", "It's 4.\n\nRight?")],
        [("system", "Be brief."), ("user", " hi"), ("assistant", "Hello "), ("user", "x: 1\n"),
         ("assistant", "User: 2")],
        [("user", image, "What's here?"), ("assistant", "A cat.")],
        [("user", "One: ", image, "\ntwo:", image, " ?"), ("assistant", "."), ("user", image)],
    )  # fmt: skip
    rows = []
    for number, turns in enumerate(shapes):
        messages = [
            {
                "role": role,
                "content": [
                    part if part is image else {"type": "text", "text": part} for part in parts
                ],
            }
            for role, *parts in turns
        ]
        count = sum(part is image for message in messages for part in message["content"])
        images = [{"bytes": None, "width": w, "height": h} for w, h in PROBED[:count]]
        rows.append(
            {
                "id": f"probe/probe/{number}",
                "source": "probe",
                "subset": "probe",
                "messages": messages,
                "images": images,
                "tags": [],
            }
        )
    return rows


def image_text(rows: int, cols: int, *, encoding: Encoding) -> str:
    """What the processor puts in the place of an image (transformers' processing_smolvlm)."""
    crop = IMAGE * encoding.tokens_per_crop
    lines = [
        "".join(f"{FAKE}<row_{row}_col_{col}>{crop}" for col in range(1, cols + 1)) + "\n"
        for row in range(1, rows + 1)
    ]
    return "".join(lines) + ("\n" if rows else "") + f"{FAKE}{GLOBAL}{crop}{FAKE}"


def _other_ids(encoding: Encoding) -> tuple[str, ...]:
    """A sentence where the saved tokenizer makes other ids than `encode`, measured on probes."""
    from transformers import AutoTokenizer

    made = encode(pa.Table.from_pylist(_probes(), schema=SAMPLE), encoding=encoding).to_pylist()
    with tempfile.TemporaryDirectory() as folder:
        _save_tokenizer(load_tokenizer(encoding.tokenizer), Path(folder), encoding=encoding)
        saved: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    for probe, row in zip(_probes(), made, strict=True):
        if row["problem"]:  # it takes no images, or not these roles
            continue
        rendered = saved.apply_chat_template(probe["messages"], tokenize=False)
        text, *after = rendered.split(IMAGE)
        for cell, rest in zip(row["grids"], after, strict=True):
            text += image_text(cell["rows"], cell["cols"], encoding=encoding) + rest
        if saved(text, add_special_tokens=False)["input_ids"] != row["input_ids"]:
            return (
                "The tokenizer and chat template beside this card make other ids than were "
                f"trained, for instance of {rendered!r}: only `python -m trainer evaluate` prompts "
                "this checkpoint as it was trained.",
            )
    return ()
