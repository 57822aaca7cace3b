"""config.json and tokenizer_config.json as SmolVLM's published checkpoints have them.

`transformers` 5 writes some of their fields in a way that version 4 and llama.cpp read as something
else or not at all; here they say the same to all.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

TEXT_ARCHITECTURE = "VLlama3ForCausalLM"
"""Of the published checkpoints' language model; llama.cpp's converter goes by it."""
COMMON_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")


def config_json(written: dict[str, Any], *, dtype: str) -> dict[str, Any]:
    """With what older readers look for, beside what newer ones wrote."""
    text = dict(written["text_config"])
    text["architectures"] = [TEXT_ARCHITECTURE]
    text["rope_theta"] = text["rope_parameters"]["rope_theta"]
    both = {"dtype": dtype, "torch_dtype": dtype}
    kept = {key: value for key, value in written.items() if key != "_pad_token_id"}
    return kept | both | {"vocab_size": text["vocab_size"], "text_config": text | both}


def tokenizer_json(written: dict[str, Any]) -> dict[str, Any]:
    """The tokens that have names of their own in a dict, which version 4 asks for."""
    named = {
        key: value
        for key, value in written.items()
        if key.endswith("_token") and key not in COMMON_TOKENS and isinstance(value, str)
    }
    return {**written, "extra_special_tokens": named}


def write_configs(folder: Path, *, dtype: str) -> None:
    """The two files, written by `transformers`, are as in a published checkpoint."""
    _rewrite(folder / "config.json", lambda written: config_json(written, dtype=dtype))
    _rewrite(folder / "tokenizer_config.json", tokenizer_json)


def _rewrite(file: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    content = change(json.loads(file.read_text(encoding="utf-8")))
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
