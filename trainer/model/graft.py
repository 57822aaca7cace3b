"""Two pretrained backbones become one SmolVLM: a vision encoder and a language model.

The weights are copied as they are. What is new: the connector, the rows of added tokens, and the
rotary base and context, which are settings. A grafted language model says of text what it said
before, unless the rotary base was changed.
"""

from typing import Any

import torch

from tokenization.published import CONFIGS, WEIGHTS, offline_way
from trainer.config import Model


def graft(model: Any, settings: Model, tokenizer: Any, *, seed: int) -> None:
    """The model's towers hold the weights of the backbones that the settings name."""
    if settings.vision.pretrained:
        name = settings.vision.pretrained
        where = f"model.vision.pretrained={name}"
        load_exactly(
            model.model.vision_model, vision_weights(_load(name, where, "AutoModel")), where
        )
    if settings.language.pretrained:
        name = settings.language.pretrained
        where = f"model.language.pretrained={name}"
        backbone = _load(name, where, "AutoModelForCausalLM")
        refuse_other_ids(name, tokenizer, where)
        weights = dict(backbone.model.state_dict())
        embeddings = weights.pop("embed_tokens.weight")
        load_exactly(model.model.text_model, weights, where, but=("embed_tokens.weight",))
        put_rows(model.model.text_model.embed_tokens.weight, embeddings, where, seed=seed)
        if not settings.tie_word_embeddings:
            put_rows(model.lm_head.weight, backbone.lm_head.weight, where, seed=seed + 1)


def _load(name: str, where: str, kind: str) -> Any:
    import transformers

    try:
        loaded = getattr(transformers, kind).from_pretrained(
            name, dtype=torch.float32, trust_remote_code=False
        )
    except OSError as error:
        raise ValueError(
            f"{where}: {str(error).splitlines()[0]} Expected a hub id or a folder; "
            f"an empty value starts from random weights.{offline_way(name, (*CONFIGS, *WEIGHTS))}"
        ) from error
    return loaded


def vision_weights(backbone: Any) -> dict[str, torch.Tensor]:
    """The encoder's weights of a SigLIP, its vision part, or a SmolVLM; without a pooling head."""
    for inside in ("vision_model", "model.vision_model"):
        part: Any = backbone
        for name in inside.split("."):
            part = getattr(part, name, None)
        if part is not None:
            backbone = part
            break
    weights = backbone.state_dict()
    return {name: w for name, w in weights.items() if not name.startswith("head.")}


def load_exactly(
    module: Any, weights: dict[str, torch.Tensor], where: str, *, but: tuple[str, ...] = ()
) -> None:
    """The module holds these weights; ValueError names the first that does not fit."""
    own = {name: w for name, w in module.state_dict().items() if name not in but}
    for name in [*own, *weights]:
        ours = tuple(own[name].shape) if name in own else "none"
        theirs = tuple(weights[name].shape) if name in weights else "none"
        if ours != theirs:
            raise ValueError(
                f"{where}: {name} is {theirs} there and {ours} in this config. Give the sizes of "
                "that backbone (hidden_size, num_hidden_layers, image_size, ...)."
            )
    module.load_state_dict(weights, strict=not but)


def put_rows(matrix: torch.Tensor, rows: torch.Tensor, where: str, *, seed: int) -> None:
    """The first rows are those given; the others have their mean and, per column, their spread."""
    known, total = len(rows), len(matrix)
    if known > total or rows.shape[1] != matrix.shape[1]:
        raise ValueError(
            f"{where}: embeddings are {tuple(rows.shape)} there and {tuple(matrix.shape)} in this "
            f"config. Set model.language.vocab_size (at least {known}) and hidden_size to fit."
        )
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(total - known, rows.shape[1], generator=generator)
    with torch.no_grad():
        matrix[:known] = rows
        matrix[known:] = rows.mean(0) + rows.std(0) * noise


def refuse_other_ids(name: str, tokenizer: Any, where: str) -> None:
    """Raises ValueError where the backbone's ids mean other tokens than the shards' do."""
    from transformers import AutoTokenizer

    ours = tokenizer.get_vocab()
    theirs = AutoTokenizer.from_pretrained(name, trust_remote_code=False).get_vocab()
    moved = [token for token, number in theirs.items() if ours.get(token, number) != number]
    if moved:
        raise ValueError(
            f"{where}: {len(moved)} tokens have other ids there than in the mixture's tokenizer, "
            f"for example {moved[0]!r}: {theirs[moved[0]]} there, {ours[moved[0]]} here.\n"
            "way out: build the mixture with a tokenizer that extends the backbone's."
        )
