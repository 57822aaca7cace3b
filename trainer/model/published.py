"""What a run starts from (`init=`): a checkpoint of this trainer or a published SmolVLM.

Its sizes become the model's, or are compared with what the config says, field by field: two models
of the same shapes may mean different things by their weights (tied or not, heads, rotary base).
"""

import dataclasses
from pathlib import Path
from typing import Any

from tokenization.inference import vocabulary
from tokenization.published import encoding_like
from tokenization.vocab import load_tokenizer
from trainer import checkpoint
from trainer.config import Config, Model
from trainer.data.shards import Mixture

KINDS = ("smolvlm", "idefics3")
"""`model_type`: SmolVLM's first checkpoints (256M, 500M, 2.2B of 2024 and 2025) are Idefics3's
class, whose weights have the same names and meaning."""
PARTS = {"vision": "vision_config", "language": "text_config"}
CONTEXT = ("language.rope_theta", "language.max_position_embeddings")
"""What a stage may raise to stretch the context."""
FREE = frozenset(
    ("dtype", "torch_dtype", "transformers_version", "architectures", "use_cache", "return_dict",
     "initializer_range", "pad_token_id", "bos_token_id", "eos_token_id", "pretraining_tp",
     "output_attentions", "output_hidden_states", "id2label", "label2id", "problem_type",
     "chunk_size_feed_forward", "is_encoder_decoder", "_name_or_path", "tie_word_embeddings")
)  # fmt: skip
"""Fields of a part of `config.json` that change no number of a forward pass. (`tie_word_embeddings`
counts at the top, where `transformers` looks.)"""


def read_config(folder: Path, where: str) -> Any:
    """The checkpoint's config.json as `transformers` reads it, defaults filled in."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    if config.model_type not in KINDS or config.text_config.model_type != "llama":
        raise ValueError(
            f"{where}: a {config.model_type} with a {config.text_config.model_type} inside "
            "is no SmolVLM. Expected one of HuggingFaceTB's SmolVLM checkpoints, or one of this "
            "trainer."
        )
    return config


def model_of(init: str) -> Model:
    """The sizes of the checkpoint."""
    where = f"init={init}"
    return _model(read_config(checkpoint.source_folder(init, weights=False), where))


def _model(config: Any) -> Model:
    empty = Model()
    parts = {
        part: dataclasses.replace(
            getattr(empty, part),
            **{
                field.name: getattr(getattr(config, name), field.name)
                for field in dataclasses.fields(getattr(empty, part))
                if field.name not in ("pretrained", "rope_theta")
            },
        )
        for part, name in PARTS.items()
    }
    theta = float(config.text_config.rope_parameters["rope_theta"])
    return Model(
        vision=parts["vision"],
        language=dataclasses.replace(parts["language"], rope_theta=theta),
        scale_factor=config.scale_factor,
        tie_word_embeddings=config.tie_word_embeddings,
    )


def check_init(config: Config, mixtures: list[Mixture], tokenizer: Any) -> list[str]:
    """Lines for the user; ValueError where the checkpoint means another model or other shards.

    Reads no weights and no rows.
    """
    where = f"init={config.init}"
    folder = checkpoint.source_folder(config.init, weights=False)
    for mixture in mixtures:
        _refuse_other_encoding(config, mixture, folder, tokenizer)
    theirs = read_config(folder, where)
    _refuse_other_parts(config, theirs, tokenizer, where)
    return _compare_sizes(config, _model(theirs), where)


def _compare_sizes(config: Config, theirs: Model, where: str) -> list[str]:
    ours, stated = _flat(config.model), _flat(theirs)
    differ = {key: (stated[key], ours[key]) for key in stated if ours[key] != stated[key]}
    stretched = {
        key: both
        for key, both in differ.items()
        if key in CONTEXT and f"model.{key}" in config.written_by_user and both[1] > both[0]
    }
    refused = [
        f"  model.{key} is {theirs!r} in the checkpoint, {ours!r} in config '{config.name}'"
        for key, (theirs, ours) in differ.items()
        if key not in stretched
    ]
    if refused:
        raise ValueError(
            f"{where}: another model:\n" + "\n".join(refused) + "\n"
            "way out: leave config= out (the sizes are then the checkpoint's), or use the config "
            "that it was trained with. To stretch its context write larger values of "
            "model.language.rope_theta and max_position_embeddings yourself, on the command line "
            "or in your own file."
        )
    if not stretched:
        return []
    changes = ", ".join(
        f"{key.split('.')[1]} {a:,.10g} -> {b:,.10g}" for key, (a, b) in stretched.items()
    )
    return [f"context  stretched as you wrote: {changes}"]


def _flat(model: Model) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in dataclasses.asdict(model).items():
        inner = value if isinstance(value, dict) else {"": value}
        flat.update({f"{key}.{name}".rstrip("."): each for name, each in inner.items()})
    return {
        key: value
        for key, value in flat.items()
        if not key.endswith("pretrained") and key != "initializer_range"
    }


def _refuse_other_parts(config: Config, theirs: Any, tokenizer: Any, where: str) -> None:
    """What no setting says (activations, biases, eps of the encoder) is as it is computed here."""
    from trainer.model.smolvlm import smolvlm_config

    ours = smolvlm_config(config.model, tokenizer)
    sizes = {key for part in PARTS for key in dataclasses.asdict(getattr(config.model, part))}
    for name in PARTS.values():
        mine, other = (vars_of(getattr(each, name)) for each in (ours, theirs))
        for key, value in mine.items():
            found = other.get(key)
            if key == "rope_parameters":
                value, found = ({**each, "rope_theta": None} for each in (value, found or {}))
            if key not in FREE and key not in sizes and key != "model_type" and found != value:
                raise ValueError(
                    f"{where}: {name}.{key} is {found!r} in the checkpoint; this trainer's models "
                    f"have {value!r}, so its weights would mean something else here."
                )
    if theirs.image_token_id != ours.image_token_id:
        raise ValueError(
            f"{where}: image_token_id is {theirs.image_token_id} in the checkpoint, <image> is "
            f"{ours.image_token_id} in the mixture's tokenizer.\nway out: build the mixture with "
            f"encoding.tokenizer={config.init}."
        )


def vars_of(part: Any) -> dict[str, Any]:
    """The fields of a part of a config, in JSON's terms."""
    found: dict[str, Any] = part.to_dict()
    return found


def _refuse_other_encoding(config: Config, mixture: Mixture, folder: Path, tokenizer: Any) -> None:
    """The shards were encoded as the checkpoint's processor encodes, but for what may differ."""
    where = f"init={config.init}"
    said = encoding_like(folder, where=where)
    del said["seq_len"]  # checked against the model that is trained: a stage may stretch it
    written = dataclasses.asdict(mixture.encoding)
    differ = [
        f"  encoding.{key} is {value!r} in the checkpoint's processor, {written[key]!r} in the "
        f"mixture {mixture.name}"
        for key, value in said.items()
        if written[key] != value and key not in config.init_may_differ
    ]
    theirs = vocabulary(load_tokenizer(str(folder)))
    if theirs != vocabulary(tokenizer):
        differ.append(
            f"  the tokenizer has other ids ({len(theirs)}) than the mixture's ({len(tokenizer)})"
        )
    if differ:
        raise ValueError(
            f"{where}: the mixture in {mixture.folder} is encoded otherwise than this checkpoint "
            "reads:\n" + "\n".join(differ) + "\n"
            f"way out: build it with encoding: {{like: {config.init}}}, or, where the difference "
            "is meant "
            "(another longest_edge, say), name it: init_may_differ=[longest_edge]."
        )
