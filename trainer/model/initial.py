"""The model that a run starts from: random, grafted from two backbones, an earlier checkpoint."""

import json
from pathlib import Path
from typing import Any

import torch

from tokenization.inference import vocabulary
from trainer import checkpoint, optim
from trainer.config import Config, load
from trainer.data.shards import Mixture
from trainer.model import adapter
from trainer.model.attention import choose_attention
from trainer.model.smolvlm import checkpoint_activations, random_model, use_attention
from trainer.parallel import World


def tokenizer_of(mixtures: list[Mixture]) -> Any:
    """The one tokenizer of these mixtures; ValueError where they differ."""
    from transformers import AutoTokenizer

    folders = [mixture.folder / "tokenizer" for mixture in mixtures]
    for folder in folders:
        if not (folder / "tokenizer.json").is_file():
            raise FileNotFoundError(
                f"{folder}: no tokenizer.json, which a finished mixture holds. Build it again."
            )
    tokenizers = [AutoTokenizer.from_pretrained(str(folder)) for folder in folders]
    for folder, tokenizer in zip(folders[1:], tokenizers[1:], strict=True):
        if vocabulary(tokenizer) != vocabulary(tokenizers[0]):
            raise ValueError(
                f"data: {folder} and {folders[0]} are different vocabularies. Mixtures that are "
                "trained together need one tokenizer: build them with the same encoding.tokenizer."
            )
    return tokenizers[0]


def written_config(folder: Path) -> Config:
    """The settings that a checkpoint was trained with."""
    return load(str(folder / "trainer" / "config.yaml"), {})


def initial_model(config: Config, tokenizer: Any, *, resume: Path | None) -> Any:
    """The model, float32, on the CPU; what is frozen is frozen, adapters are in place."""
    model = random_model(config.model, tokenizer, seed=config.seed)
    if resume is None and config.init:
        source = checkpoint.resolve_checkpoint(Path(config.init))
        _refuse_other_shapes(config, source, tokenizer)
        load_into(model, checkpoint.load_weights(source), str(source))
    elif resume is None and (config.model.vision.pretrained or config.model.language.pretrained):
        from trainer.model.graft import graft

        graft(model, config.model, tokenizer, seed=config.seed)
    if config.adapter.rank:
        model = adapter.adapt(model, config.adapter)
    optim.freeze(model, config.optim.freeze)
    if resume is not None:
        unmerged = resume / "trainer" / "unmerged.pt"
        if unmerged.is_file():
            adapter.load(model, torch.load(unmerged, map_location="cpu", weights_only=True))
        else:
            load_into(model, checkpoint.load_weights(resume), str(resume))
    return model


def prepare_model(model: Any, config: Config, here: World) -> None:
    """The model computes as the settings say, on this machine."""
    use_attention(model, choose_attention(config.attention, here.device, config.dtype))
    checkpoint_activations(model, config.gradient_checkpointing)


def load_into(model: Any, weights: dict[str, torch.Tensor], where: str) -> None:
    """The model holds exactly these weights; ValueError where names or shapes differ."""
    tied = set(model.state_dict()) - set(weights)
    if model.config.tie_word_embeddings:
        tied -= {"lm_head.weight", "model.text_model.embed_tokens.weight"}
    unknown = set(weights) - set(model.state_dict())
    if tied or unknown:
        raise ValueError(
            f"{where}: not the weights of this model: {len(tied)} are missing "
            f"({', '.join(sorted(tied)[:3])}), {len(unknown)} are unknown "
            f"({', '.join(sorted(unknown)[:3])})."
        )
    model.load_state_dict(weights, strict=False)


def _refuse_other_shapes(config: Config, source: Path, tokenizer: Any) -> None:
    """Raises ValueError where a checkpoint is of another size, context or vocabulary."""
    from transformers import AutoTokenizer

    written = json.loads((source / "config.json").read_text())
    vision, text = written["vision_config"], written["text_config"]
    ours = config.model
    compared = [("model.scale_factor", ours.scale_factor, written["scale_factor"])]
    for key in ("image_size", "patch_size", "hidden_size", "num_hidden_layers"):
        compared.append((f"model.vision.{key}", getattr(ours.vision, key), vision[key]))
    for key in ("vocab_size", "hidden_size", "num_hidden_layers", "num_key_value_heads"):
        compared.append((f"model.language.{key}", getattr(ours.language, key), text[key]))
    for key, mine, theirs in compared:
        if mine != theirs:
            raise ValueError(
                f"init={source}: {key} is {theirs} in the checkpoint, {mine} in config "
                f"'{config.name}'. Use the config that it was trained with."
            )
    theirs = vocabulary(AutoTokenizer.from_pretrained(str(source)))
    if theirs != vocabulary(tokenizer):
        raise ValueError(
            f"init={source}: its tokenizer has other ids ({len(theirs)}) than the mixture's "
            f"({len(tokenizer)}). Build the mixture with encoding.tokenizer={source}."
        )
