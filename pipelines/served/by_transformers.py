"""A model that `transformers` loads answers chat requests here, one after another.

For small models, for CPUs and for our own checkpoints. It knows no schema: `response_format` is not
kept to, and what comes back is checked as everybody's is.
"""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.served.batches import Answering
from pipelines.served.endpoint import NotTaken, Reply


def loaded(model: str) -> Answering:
    """The model of a folder or of the hub, on the GPU where there is one.

    Raises:
        ValueError: there is none, or torch is not installed.
    """
    try:
        import torch
        from transformers import AutoModelForImageTextToText

        from tokenization.processor import processor_of
    except ImportError as error:
        raise ValueError(
            f"engine=transformers: {error.name} is not installed. Install the trainer's packages "
            "(pip install 'smolvlm-pipelines[trainer]'), or serve the model and name endpoint=URL."
        ) from error
    try:
        folder = folder_of(model)
        found: Any = AutoModelForImageTextToText.from_pretrained(
            str(folder), dtype="auto", trust_remote_code=False
        )
        processor = processor_of(folder)
    except (OSError, ValueError, KeyError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"model={model}: transformers does not load it ({said[:200]})\n"
            "expected: a folder or a hub id of a model for images and text, as "
            "AutoModelForImageTextToText takes it"
        ) from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = found.to(device).eval()

    def answer(requests: list[Mapping[str, Any]]) -> list[Reply | NotTaken]:
        with torch.inference_mode():
            return [answered(request, found, processor) for request in requests]

    return answer


def folder_of(model: str) -> Path:
    """The folder of the model's files, fetched from the hub where it is no folder."""
    if Path(model).expanduser().is_dir():
        return Path(model).expanduser()
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(model))


def answered(request: Mapping[str, Any], model: Any, processor: Any) -> Reply | NotTaken:
    """What the model says to one request."""
    inputs = processor.apply_chat_template(
        [{**message, "content": content_of(message)} for message in request["messages"]],
        add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
    ).to(model.device)  # fmt: skip
    if "pixel_values" in inputs:
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    text_config = model.config.get_text_config()
    put, most = inputs["input_ids"].shape[1], text_config.max_position_embeddings
    if put >= most:
        return NotTaken(status=400, message=f"{put} tokens, the model takes {most}")
    tokenizer = processor.tokenizer
    warm = request["temperature"] > 0
    stated = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(stated if isinstance(stated, list) else [stated])} - {None}
    out = model.generate(
        **inputs, max_new_tokens=min(request["max_tokens"], most - put), do_sample=warm,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=sorted(ends),
        **({"temperature": request["temperature"]} if warm else {}),
    )[0, put:]  # fmt: skip
    ended = len(out) > 0 and int(out[-1]) in ends
    return Reply(
        text=tokenizer.decode(out, skip_special_tokens=True),
        finish="stop" if ended else "length",
        input_tokens=put,
        output_tokens=len(out),
    )


def content_of(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parts of a message as processors take them."""
    from PIL import Image

    parts: list[dict[str, Any]] = []
    for part in message["content"]:
        if part["type"] == "text":
            parts.append({"type": "text", "text": part["text"]})
        else:
            data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
            parts.append({"type": "image", "image": Image.open(io.BytesIO(data)).convert("RGB")})
    return parts
