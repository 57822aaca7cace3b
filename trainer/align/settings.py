"""The settings of `python -m trainer align`: a YAML of this folder or any, then `key=value`."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trainer.arguments import did_you_mean
from trainer.config_file import find_config, refuse_interpolation

FOLDER = Path(__file__).parent
PLACES = ("output", "micro", "device", "threads", "log_every", "save_every", "license", "name")
"""Fields that may change when a run is gone on with."""
LOSSES = ("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair",
          "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft",
          "sigmoid_norm")  # fmt: skip
"""Of TRL's DPOTrainer: https://huggingface.co/docs/trl/dpo_trainer."""
TOWERS = ("vision", "connector", "language")
OURS = {
    "output_dir": "output", "learning_rate": "lr", "num_train_epochs": "epochs",
    "max_steps": "steps", "per_device_train_batch_size": "micro", "loss_type": "loss",
    "gradient_accumulation_steps": "batch", "loss_weights": "loss", "beta": "beta", "seed": "seed",
    "warmup_steps": "warmup", "lr_scheduler_type": "schedule", "weight_decay": "weight_decay",
    "save_steps": "save_every", "logging_steps": "log_every", "bf16": "precision",
    "num_generations": "generations", "max_completion_length": "max_new_tokens",
    "temperature": "temperature", "gradient_checkpointing": "gradient_checkpointing",
}  # fmt: skip
"""TRL's names of what has one here."""


@dataclass(frozen=True, kw_only=True)
class Align:
    """What is aligned, on what, and how."""

    name: str = ""
    """Of the run; default: the config's."""
    method: Literal["dpo", "grpo"] = "dpo"
    """dpo: pairs of answers. grpo: answers that the model gives, scored against gold ones."""
    init: str = ""
    """The checkpoint (or its run, or a SmolVLM of the hub) that is aligned; also the reference."""
    init_may_differ: list[str] = field(default_factory=list)
    """Fields of the encoding in which the mixture may differ from what `init` was trained on."""
    data: str = ""
    """A finished mixture. Its val split is held out."""
    output: str = ""
    """Folder of the run; default out/runs/<name>-<mixture>."""
    loss: dict[str, float] = field(default_factory=dict)
    """dpo: TRL's losses and their weights, summed; empty: {sigmoid: 1}, which is DPO's own."""
    beta: float = 0.1
    """How strongly the reference holds (Rafailov et al. 2023, arXiv 2305.18290); of grpo the weight
    of its KL term, 0 in grpo.yaml as in TRL."""
    lr: float = 1e-6
    """At its highest; TRL's for both methods."""
    warmup: float = 0.1
    """Share of the steps over which it rises."""
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    """How it falls then."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    epochs: float = 1.0
    """Over the pairs (grpo: the questions); `steps` wins."""
    steps: int = 0
    """0: as `epochs` says."""
    batch: int = 32
    """Pairs (grpo: questions) a step, over all processes."""
    micro: int = 4
    """Of them at one time in memory; of a pair both answers."""
    freeze: list[str] = field(default_factory=list)
    """Towers that stay as they are: vision, connector, language."""
    seed: int = 17
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the arithmetic; weights are kept in float32. auto: bfloat16 on CUDA."""
    gradient_checkpointing: bool = False
    """Less memory, more time."""
    held_out: int = 512
    """Pairs (questions) of the val split that are measured before and after, at most."""
    metric: Literal["exact", "anls", "relaxed", "yes_no"] = "exact"
    """grpo: the reward, the answer against the gold one."""
    generations: int = 8
    """grpo: answers to each question."""
    max_new_tokens: int = 64
    """grpo: of an answer."""
    temperature: float = 1.0
    """grpo: of sampling."""
    trl: dict[str, Any] = field(default_factory=dict)
    """Further fields of TRL's DPOConfig or GRPOConfig, as it names them."""
    save_every: int = 0
    """Steps between states from which the same command goes on; 0: none."""
    log_every: int = 10
    save_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights in the checkpoint."""
    license: str = ""
    """Of the checkpoint, for its card; default: what `init` states."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 0
    """CPU threads of torch; 0 leaves torch's own choice."""

    @property
    def losses(self) -> dict[str, float]:
        """TRL's losses -> their weights."""
        return self.loss or {"sigmoid": 1.0}


def load(pairs: Mapping[str, str]) -> Align:
    """The checked settings of `config=` (default: dpo) with the other words on top."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = find_config(pairs.get("config", "dpo"), folder=FOLDER)
    where = str(path)
    try:
        written = OmegaConf.load(path)
        refuse_interpolation(OmegaConf.to_container(written, resolve=False), where=where)
        merged = OmegaConf.merge(OmegaConf.structured(Align), written)
        for key, value in pairs.items():
            if key == "config":
                continue
            where = f"align: {key}={value}"
            refuse_interpolation(value, where=where)
            taken = key in ("data", "init", "output") or not value
            merged = OmegaConf.merge(
                merged, OmegaConf.create({key: value}) if taken else _dotted(key, value)
            )
        found = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        message = str(error).splitlines()[0]
        raise ValueError(f"{where}: {message}") from error
    assert isinstance(found, Align)
    settings = dataclasses.replace(found, name=found.name or path.stem)
    check(settings, where=str(path))
    return settings


def _dotted(key: str, value: str) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.from_dotlist([f"{key}={value}"])


def check(settings: Align, *, where: str) -> None:
    """Raises ValueError for what is missing or contradicts itself."""
    if not settings.init:
        raise ValueError("align: init is not set. Expected init=CHECKPOINT, e.g. out/runs/sft.")
    if not settings.data:
        raise ValueError("align: data is not set. Expected data=DIR, a finished mixture.")
    for loss in settings.loss:
        if loss not in LOSSES:
            raise ValueError(f"{where}: unknown loss '{loss}'. {did_you_mean(loss, LOSSES)}")
    for tower in settings.freeze:
        if tower not in TOWERS:
            raise ValueError(f"{where}: freeze: {tower}: {did_you_mean(tower, TOWERS)}")
    if set(settings.freeze) == set(TOWERS):
        raise ValueError(f"{where}: freeze names every tower: nothing would be trained.")
    for key in ("batch", "micro", "log_every"):
        if getattr(settings, key) < 1:
            raise ValueError(f"{where}: {key} is {getattr(settings, key)}; expected 1 or more.")
    if settings.method == "grpo" and settings.generations < 2:
        raise ValueError(
            f"{where}: generations is {settings.generations}; expected 2 or more: an answer is "
            "judged by the others to its question."
        )
    if settings.epochs <= 0 and settings.steps < 1:
        raise ValueError(f"{where}: epochs is {settings.epochs} and steps 0: nothing to train.")
    for key in settings.trl:
        if key in OURS:
            raise ValueError(f"{where}: trl.{key}: say it as {OURS[key]}.")


def to_yaml(settings: Align) -> str:
    """The settings as `load` reads them."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.structured(settings))


def changed(before: str, now: Align) -> list[str]:
    """What differs from the settings as YAML, but for places."""
    from omegaconf import OmegaConf

    then = OmegaConf.to_object(
        OmegaConf.merge(OmegaConf.structured(Align), OmegaConf.create(before))
    )
    assert isinstance(then, Align)
    return [
        f"{f.name}: {getattr(then, f.name)} -> {getattr(now, f.name)}"
        for f in dataclasses.fields(Align)
        if f.name not in PLACES and getattr(then, f.name) != getattr(now, f.name)
    ]
