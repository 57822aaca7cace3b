"""Small rows of SAMPLE, and what `transformers` itself makes of them."""

import io
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from transformers import PreTrainedTokenizerFast, SmolVLMImageProcessorPil
from transformers.image_utils import SizeDict
from transformers.models.smolvlm import image_processing_pil_smolvlm as theirs
from transformers.models.smolvlm import processing_smolvlm as prompts_of_transformers

from tokenization.encode import Row, rows_of, with_added_words
from tokenization.prompts import Conversation
from tokenization.schema import SAMPLE, Encoding
from tokenization.vocab import load_tokenizer

IMAGE = {"type": "image", "text": None}
BARE = Encoding(system_prompts="none", media_intro_outro=False)
"""Nothing of ours is added: the conversation as transformers would get it."""
SMALL = replace(BARE, crop_size=32, longest_edge=128, tokens_per_crop=4, seq_len=256, max_crops=24)


def text(string: str) -> dict[str, Any]:
    return {"type": "text", "text": string}


def message(role: str, *parts: Any) -> dict[str, Any]:
    return {"role": role, "content": [text(p) if isinstance(p, str) else p for p in parts]}


def image_record(width: int, height: int, seconds: float | None = None, data: bytes = b"") -> dict:
    values = {"bytes": data, "width": width, "height": height, "dhash": 0, "seconds": seconds}
    return values | {"contrast": 1.0, "sharpness": 1.0, "edges": 0.1}


def sample(
    id_: str, messages: list[dict] | None, images: list[dict] | None = None, **more: Any
) -> dict:
    row = {"id": id_, "source": "cauldron", "subset": "ai2d", "messages": messages}
    row |= {"images": images or [], "duration": None, "defect": None, "tags": []}
    return row | {"ratings": [], "answer": None} | more


def table(*rows: dict) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SAMPLE)


def row_of(row: dict) -> Row:
    return next(rows_of(table(row).to_batches()[0]))


def noise(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


class SizesOnly(SmolVLMImageProcessorPil):
    """The processor of transformers on images that have a size and no memory."""

    def resize(self, image: np.ndarray, size: SizeDict, **kwargs: Any) -> np.ndarray:
        if size.longest_edge:
            height, width = theirs.get_resize_output_image_size(image, size.longest_edge)
        else:
            height, width = size.height, size.width
        return np.broadcast_to(np.uint8(0), (3, height, width))


def their_grid(width: int, height: int, encoding: Encoding) -> tuple[int, int]:
    """(rows, cols) as the processor of transformers returns them."""
    processor = SizesOnly()
    image = np.broadcast_to(np.uint8(0), (3, height, width))
    if encoding.upscale:
        image = processor.resize(image, SizeDict(longest_edge=encoding.longest_edge))
    image = processor.resize_for_vision_encoder(image, encoding.crop_size)
    _, rows, cols = processor.split_images(image, {"longest_edge": encoding.crop_size})
    return rows, cols


def image_prompt(rows: int, cols: int, encoding: Encoding) -> str:
    return prompts_of_transformers.get_image_prompt_string(
        rows,
        cols,
        encoding.tokens_per_crop,
        fake_token_around_image="<fake_token_around_image>",
        image_token="<image>",
        global_image_token="<global-img>",
    )


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    return load_tokenizer("builtin")


def their_messages(conversation: Conversation, grids: list[tuple[int, int]], encoding: Encoding):
    """Messages for a chat template with every image already expanded to its prompt."""
    return [
        {
            "role": role,
            "content": [
                {"type": "text", "text": part}
                if isinstance(part, str)
                else {"type": "image", "prompt": image_prompt(*grids[part], encoding)}
                for part in parts
            ],
        }
        for role, parts in conversation
    ]


def their_ids(row: Row, grids: list[tuple[int, int]], encoding: Encoding) -> list[int]:
    """input_ids by the template, the prompt functions and the tokenizer, of the dressed row."""
    conversation = with_added_words(row, row.conversation, encoding=encoding)
    messages = their_messages(conversation, grids, encoding)
    rendered = tokenizer().apply_chat_template(
        messages, chat_template=prompts_of_transformers.DEFAULT_CHAT_TEMPLATE, tokenize=False
    )
    pieces = rendered.split("<image>")
    prompts = [part["prompt"] for m in messages for part in m["content"] if "prompt" in part]
    assert len(pieces) == len(prompts) + 1
    whole = pieces[0] + "".join(p + rest for p, rest in zip(prompts, pieces[1:], strict=True))
    return tokenizer()(whole, add_special_tokens=False)["input_ids"]


_PARTS = (
    "{% for p in m['content'] %}"
    "{{ p['prompt'] if p['type'] == 'image' else p['text'] }}"
    "{% endfor %}"
)
MASKING_TEMPLATE = (
    "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}:"
    "{% if m['content'][0]['type'] != 'image' and m['role'] != 'assistant' %} {% endif %}"
    "{% if m['role'] == 'assistant' %}{% generation %} "
    f"{_PARTS}"
    "<end_of_utterance>{% endgeneration %}{{ '\n' }}"
    "{% else %}"
    f"{_PARTS}"
    "{{ '<end_of_utterance>\n' }}{% endif %}{% endfor %}"
)
"""Renders as DEFAULT_CHAT_TEMPLATE does, images expanded, and says what is learned."""


def their_mask(row: Row, grids: list[tuple[int, int]], encoding: Encoding) -> tuple[list, list]:
    """(input_ids, mask) by apply_chat_template's own generation tracking."""
    conversation = with_added_words(row, row.conversation, encoding=encoding)
    out = tokenizer().apply_chat_template(
        their_messages(conversation, grids, encoding),
        chat_template=MASKING_TEMPLATE,
        return_assistant_tokens_mask=True,
        return_dict=True,
        tokenize=True,
    )
    return out["input_ids"], [bool(x) for x in out["assistant_masks"]]
