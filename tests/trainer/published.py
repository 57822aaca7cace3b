"""A checkpoint rewritten in the layout of the published SmolVLMs, for tests."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

DEFAULTS = {
    "text_config": {"num_hidden_layers": 32},
    "vision_config": {"num_hidden_layers": 12, "intermediate_size": 3072, "num_channels": 3},
}  # fmt: skip
"""Of `transformers`' classes: published files leave these out where they hold."""
KEPT = {
    "text_config": ("head_dim", "hidden_size", "intermediate_size", "max_position_embeddings",
                    "num_attention_heads", "num_hidden_layers", "num_key_value_heads",
                    "pad_token_id", "rms_norm_eps", "vocab_size"),
    "vision_config": ("hidden_size", "image_size", "intermediate_size", "num_attention_heads",
                      "num_hidden_layers", "patch_size"),
}  # fmt: skip


def publish(
    checkpoint: Path, folder: Path, *, shards: int = 1, dtype: torch.dtype = torch.bfloat16,
    model_type: str = "smolvlm", **changes: Any,
) -> Path:  # fmt: skip
    """The folder, its config.json in the older keys and without what is the default.

    `changes`: fields of config.json by `part__name`, or `name` at the top, for models that differ.
    """
    folder.mkdir(parents=True)
    config = json.loads((checkpoint / "config.json").read_text())
    written: dict[str, Any] = {
        "architectures": ["SmolVLMForConditionalGeneration"],
        "image_token_id": config["image_token_id"],
        "model_type": model_type,
        "scale_factor": config["scale_factor"],
        "tie_word_embeddings": config["tie_word_embeddings"],
        "torch_dtype": str(dtype).removeprefix("torch."),
        "transformers_version": "4.47.1",
        "use_cache": False,
        "vocab_size": config["text_config"]["vocab_size"],
    }
    for part, keys in KEPT.items():
        written[part] = {
            key: config[part][key]
            for key in keys
            if DEFAULTS[part].get(key, "none") != config[part][key]
        }
    written["text_config"] |= {
        "architectures": ["VLlama3ForCausalLM"],
        "model_type": "llama",
        "is_llama_config": True,
        "qk_layer_norms": False,
        "rope_theta": int(config["text_config"]["rope_parameters"]["rope_theta"]),
        "torch_dtype": "bfloat16",
    }
    written["vision_config"]["model_type"] = f"{model_type}_vision"
    if model_type == "idefics3":
        written["vision_config"]["model_type"] = "idefics3"
    for key, value in changes.items():
        part, _, name = key.rpartition("__")
        (written[part] if part else written)[name] = value
    (folder / "config.json").write_text(json.dumps(written, indent=2))
    weights = {name: w.to(dtype) for name, w in load_file(checkpoint / "model.safetensors").items()}
    write_shards(folder, weights, shards)
    images = json.loads((checkpoint / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    tokens = json.loads((checkpoint / "processor_config.json").read_text())["image_seq_len"]
    (folder / "processor_config.json").write_text(
        json.dumps({"image_seq_len": tokens, "processor_class": "SmolVLMProcessor"})
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text((checkpoint / name).read_text())
    (folder / "README.md").write_text(
        "---\nlibrary_name: transformers\nlicense: apache-2.0\n---\n# A published SmolVLM\n"
    )
    return folder


def write_shards(folder: Path, weights: dict[str, torch.Tensor], shards: int) -> None:
    """One file, or several and their index."""
    if shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(weights)
    where = {name: f"model-{i % shards + 1:05d}-of-{shards:05d}.safetensors"
             for i, name in enumerate(names)}  # fmt: skip
    for file in sorted(set(where.values())):
        mine = {name: weights[name] for name in names if where[name] == file}
        save_file(mine, folder / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
