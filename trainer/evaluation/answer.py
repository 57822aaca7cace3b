"""A checkpoint answers questions about images, prompted exactly as it was trained.

Prompts come from `tokenization.encode` under the encoding the checkpoint names, cut where the
answer would begin; crops from the function of training; generation is `transformers`' own.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from tokenization.encode import encode
from tokenization.images import crop_pixels as crops
from tokenization.images import image_size
from tokenization.inference import asking_encoding
from tokenization.schema import SAMPLE, Encoding
from tokenization.vocab import load_tokenizer
from trainer import checkpoint
from trainer.evaluation.sampling import Drawing
from trainer.model.smolvlm import normalize_pixels
from trainer.parallel import uses_cuda


@dataclass(frozen=True, kw_only=True)
class Question:
    """A text and its images (encoded), which come before it."""

    text: str
    images: list[bytes] = field(default_factory=list)


@dataclass(frozen=True)
class Prompt:
    """A question as ids, and the grids of its images."""

    ids: np.ndarray
    grids: list[tuple[int, int]]


@dataclass(frozen=True)
class Reply:
    """What was said to a prompt, without spaces around it."""

    text: str
    finished: bool
    """False: it was cut at `max_new_tokens`."""


def encoding_for(folder: Path) -> Encoding:
    """How prompts of this checkpoint are made: as its training data, or as its processor says."""
    if (folder / "trainer" / "state.json").is_file():
        trained = checkpoint.encoding_of(checkpoint.read_state(folder))
        return asking_encoding(dataclasses.replace(trained, tokenizer=str(folder)))
    for file in ("config.json", "preprocessor_config.json"):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder}: no {file}, so this is no SmolVLM checkpoint.")
    config = json.loads((folder / "config.json").read_text())
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    side = config["vision_config"]["image_size"] // config["vision_config"]["patch_size"]
    marks = load_tokenizer(str(folder)).get_vocab()
    return Encoding(
        tokenizer=str(folder),
        position_tokens="learned" if "<row_1_col_1>" in marks else "string",
        seq_len=config["text_config"]["max_position_embeddings"],
        crop_size=processor["max_image_size"]["longest_edge"],
        longest_edge=processor["size"]["longest_edge"],
        tokens_per_crop=side**2 // config.get("scale_factor", 4) ** 2,
        split_images=processor.get("do_image_splitting", True),
        upscale=processor.get("do_resize", True),
        system_prompts="none",
        media_intro_outro=False,
    )


def prompts(questions: Sequence[Question], encoding: Encoding) -> list[Prompt]:
    """The questions as ids, up to where the answer begins. ValueError names one that cannot be."""
    rows = []
    for number, question in enumerate(questions):
        sizes = [image_size(image) for image in question.images]
        content = [{"type": "image", "text": None}] * len(sizes)
        content = [*content, {"type": "text", "text": question.text}]
        answer = [{"type": "text", "text": "x"}]  # stands where the answer will; cut off below
        images = [{"bytes": None, "width": w, "height": h} for w, h in sizes]
        rows.append(
            {
                "id": f"question/asked/{number:06d}",
                "source": "question",
                "subset": "asked",
                "messages": [
                    {"role": "user", "content": content},
                    {"role": "assistant", "content": answer},
                ],
                "images": images,
                "tags": [],
            }
        )
    encoded = encode(pa.Table.from_pylist(rows, schema=SAMPLE), encoding=encoding)
    made = []
    for number, row in enumerate(encoded.to_pylist()):
        if row["problem"]:
            raise ValueError(f"question {number} ({questions[number].text!r}): {row['problem']}.")
        start = row["loss_mask"].index(True)
        grids = [(grid["rows"], grid["cols"]) for grid in row["grids"]]
        made.append(Prompt(np.array(row["input_ids"][:start], dtype=np.int64), grids))
    return made


@contextmanager
def generation_mode(model: Any) -> Iterator[None]:
    """The model attends as `transformers` generates (with a cache) inside, as before outside."""
    before = model.config.text_config._attn_implementation
    training = model.training
    model.eval()
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation({"text_config": before, "vision_config": "sdpa"})
        model.train(training)


def answers(
    model: Any,
    tokenizer: Any,
    questions: Sequence[Question],
    *,
    encoding: Encoding,
    max_new_tokens: int,
    batch_size: int,
) -> list[str]:
    """The greedy answers, in the order of the questions; batches hold prompts of similar length."""
    found = replies(
        model,
        tokenizer,
        prompts(questions, encoding),
        [question.images for question in questions],
        encoding=encoding,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
    )
    return [each.text for each in found]


def replies(
    model: Any,
    tokenizer: Any,
    asked: Sequence[Prompt],
    images: Sequence[list[bytes]],
    *,
    encoding: Encoding,
    max_new_tokens: int,
    batch_size: int,
    keys: Sequence[int] = (),
    temperature: float = 1.0,
) -> list[Reply]:
    """What the model says after each prompt, in their order; greedily, or by chance with
    `keys` (sampling.py), one of each.
    """
    by_length = sorted(range(len(asked)), key=lambda i: (len(asked[i].ids), i))
    said = [Reply("", finished=False)] * len(asked)
    with generation_mode(model), torch.no_grad():
        for start in range(0, len(by_length), batch_size):
            chosen = by_length[start : start + batch_size]
            found = _answer_batch(
                model,
                tokenizer,
                [asked[i] for i in chosen],
                [images[i] for i in chosen],
                encoding=encoding,
                max_new_tokens=max_new_tokens,
                drawing=[Drawing([keys[i] for i in chosen], temperature=temperature)]
                if keys
                else [],
            )
            for i, reply in zip(chosen, found, strict=True):
                said[i] = reply
    return said


def pixels_of(
    images: Sequence[Sequence[bytes]],
    grids: Sequence[Sequence[tuple[int, int]]],
    *,
    encoding: Encoding,
    dtype: torch.dtype,
) -> torch.Tensor | None:
    """The crops of several samples, as `transformers` takes them, [B, crops, 3, side, side]; None
    where there are no images.
    """
    pieces = [
        [crops(data, *grid, encoding=encoding) for data, grid in zip(own, cells, strict=True)]
        for own, cells in zip(images, grids, strict=True)
    ]
    most = max((sum(map(len, own)) for own in pieces), default=0)
    if not most:
        return None
    size = encoding.crop_size
    # Rows with fewer crops end in crops of zeros, which `transformers` takes for padding.
    pixels = torch.zeros(len(images), most, 3, size, size, dtype=dtype)
    for i, own in enumerate(pieces):
        if own:
            stacked = torch.from_numpy(np.concatenate(own))
            pixels[i, : len(stacked)] = normalize_pixels(stacked, dtype)[0]
    return pixels


def _answer_batch(
    model: Any,
    tokenizer: Any,
    asked: list[Prompt],
    images: list[list[bytes]],
    *,
    encoding: Encoding,
    max_new_tokens: int,
    drawing: list[Drawing],
) -> list[Reply]:
    width = max(len(prompt.ids) for prompt in asked)
    ids = torch.full((len(asked), width), tokenizer.pad_token_id, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, prompt in enumerate(asked):  # padded on the left, so that answers begin together
        ids[i, width - len(prompt.ids) :] = torch.from_numpy(prompt.ids)
        mask[i, width - len(prompt.ids) :] = 1
    grids = [prompt.grids for prompt in asked]
    pixels = pixels_of(images, grids, encoding=encoding, dtype=model.dtype)
    arguments = {} if pixels is None else {"pixel_values": pixels.to(model.device)}
    made = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        do_sample=False,
        synced_gpus=False,  # ranks answer questions of their own
        max_new_tokens=max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        logits_processor=drawing,
        **arguments,
    )[:, width:]
    ended = (made == tokenizer.eos_token_id).any(dim=1).tolist()
    texts = tokenizer.batch_decode(made, skip_special_tokens=True)
    return [Reply(text.strip(), finished=end) for text, end in zip(texts, ended, strict=True)]


def open_checkpoint(path: str, *, device: str = "auto") -> tuple[Any, Any, Encoding, Path]:
    """(model, tokenizer, encoding, folder) of a checkpoint or of a run's newest one."""
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = checkpoint.resolve_checkpoint(Path(path))
    cuda = uses_cuda(device)
    model: Any = AutoModelForImageTextToText.from_pretrained(
        str(folder), dtype=torch.float32, trust_remote_code=False
    )
    model = model.to("cuda" if cuda else "cpu").eval()
    return model, load_tokenizer(str(folder)), encoding_for(folder), folder
