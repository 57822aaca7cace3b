"""The model that a run starts from: random, grafted from two backbones, an earlier checkpoint."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from tokenization.inference import vocabulary
from tokenization.vocab import load_tokenizer
from trainer import checkpoint, optim, parallel
from trainer.config import Config
from trainer.data.shards import Mixture
from trainer.model import adapter
from trainer.model.attention import choose_attention
from trainer.model.smolvlm import (
    Objective,
    checkpoint_activations,
    random_model,
    use_attention,
)
from trainer.parallel import World


def tokenizer_of(mixtures: list[Mixture]) -> Any:
    """The one tokenizer of these mixtures; ValueError where they differ."""
    folders = [mixture.folder / "tokenizer" for mixture in mixtures]
    for folder in folders:
        if not (folder / "tokenizer.json").is_file():
            raise FileNotFoundError(
                f"{folder}: no tokenizer.json, which a finished mixture holds. Build it again."
            )
    tokenizers = [load_tokenizer(str(folder)) for folder in folders]
    for folder, tokenizer in zip(folders[1:], tokenizers[1:], strict=True):
        if vocabulary(tokenizer) != vocabulary(tokenizers[0]):
            raise ValueError(
                f"data: {folder} and {folders[0]} are different vocabularies. Mixtures that are "
                "trained together need one tokenizer.\n"
                "way out: build them with the same encoding.tokenizer."
            )
    return tokenizers[0]


def initial_objective(
    config: Config, tokenizer: Any, world: World, *, resume: Path | None
) -> tuple[Objective, nn.Module]:
    """The objective on this rank's device, and what the ranks call together in its place.

    With FSDP only the first process holds the whole model, on the CPU, and sends the others their
    shards: sharded is what has sizes only (PyTorch's meta device). All ranks call this.
    """

    def objective_of(model: Any) -> Objective:
        prepare_model(model, config, world.device)
        return Objective(model, logits_chunk=config.logits_chunk, neftune=config.optim.neftune)

    if world.kind != "fsdp":
        objective = objective_of(initial_model(config, tokenizer, resume=resume))
        return objective, parallel.wrap(objective.to(world.device), world, config)
    whole = objective_of(initial_model(config, tokenizer, resume=resume)) if world.first else None
    with torch.device("meta"):
        model = random_model(config.model, tokenizer, seed=config.seed)
        objective = objective_of(adapted_and_frozen(model, config))
    sharded = parallel.wrap(objective, world, config)
    parallel.fill(sharded, whole, world)
    return objective, sharded


def initial_model(config: Config, tokenizer: Any, *, resume: Path | None) -> Any:
    """The model, float32, on the CPU; what is frozen is frozen, adapters are in place."""
    model = random_model(config.model, tokenizer, seed=config.seed)
    if resume is None and config.init:
        source = checkpoint.source_folder(config.init, weights=True)
        load_into(model, checkpoint.load_weights(source), str(source))
    elif resume is None and (config.model.vision.pretrained or config.model.language.pretrained):
        from trainer.model.graft import graft

        graft(model, config.model, tokenizer, seed=config.seed)
    model = adapted_and_frozen(model, config)
    if resume is not None:
        unmerged = resume / "trainer" / checkpoint.UNMERGED
        if unmerged.is_file():
            adapter.load(model, torch.load(unmerged, map_location="cpu", weights_only=True))
        else:
            load_into(model, checkpoint.load_weights(resume), str(resume))
    return model


def adapted_and_frozen(model: Any, config: Config) -> Any:
    """The model with adapters where the settings ask for them; what is frozen needs no gradient."""
    if config.adapter.rank:
        model = adapter.adapt(model, config.adapter)
    optim.freeze(model, config.optim.freeze)
    return model


def prepare_model(model: Any, config: Config, device: torch.device) -> None:
    """The model computes as the settings say, on this machine."""
    use_attention(model, choose_attention(config.attention, device, config.dtype))
    checkpoint_activations(model, config.gradient_checkpointing)


def load_into(model: Any, weights: dict[str, torch.Tensor], where: str) -> None:
    """The model holds exactly these weights; ValueError where names or shapes differ."""
    missing = set(model.state_dict()) - set(weights)
    unknown = set(weights) - set(model.state_dict())
    if model.config.tie_word_embeddings:
        head, embeddings = "lm_head.weight", "model.text_model.embed_tokens.weight"
        if head in weights and embeddings in weights:
            if not torch.equal(weights[head], weights[embeddings]):
                raise ValueError(
                    f"{where}: {head} is not {embeddings} there, though the model ties the two "
                    "(model.tie_word_embeddings): these weights are of an untied model."
                )
        elif {head, embeddings} & set(weights):
            missing -= {head, embeddings}
    if missing or unknown:
        raise ValueError(
            f"{where}: not the weights of this model: {len(missing)} are missing "
            f"({', '.join(sorted(missing)[:3])}), {len(unknown)} are unknown "
            f"({', '.join(sorted(unknown)[:3])})."
        )
    model.load_state_dict(weights, strict=False)
