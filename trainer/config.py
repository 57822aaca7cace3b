"""The settings of a run, as dataclasses: what each means, and what contradicts itself.

Fields either bear identity (what is trained, on what, how) or say where and how fast it runs; only
the second kind (`MAY_CHANGE`) may change when a run is resumed.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trainer.arguments import did_you_mean

MAY_CHANGE = (
    "output", "micro_rows", "workers", "prefetch", "cache", "cache_bytes", "device", "attention",
    "parallel", "reshard",
    "gradient_checkpointing", "compile", "logits_chunk", "threads", "log_every", "save_every",
    "keep_last", "async_save", "evaluate_every", "evaluate_rows", "select", "stop_at",
    "max_skipped", "max_loss_spike",
    "tensorboard", "track", "page_samples", "peak_tflops", "price_per_hour", "name",
    "init_may_differ", "written_by_user", "save_dtype", "license", "patience", "steps", "epochs",
)  # fmt: skip
"""Fields that may change between a run and its resumption. More `steps` or `epochs` continue a
finished run; the schedule is then that of the longer run, from where this one stands."""


COUNT = (0.0, math.inf)
"""What a number may be of which nothing else is said below."""
SIZES = (1.0, math.inf)
"""A number of `model`."""
BOUNDS = {
    **dict.fromkeys(
        ("batch_rows", "micro_rows", "logits_chunk", "log_every", "save_every", "adapter.alpha"),
        SIZES,
    ),
    **dict.fromkeys(("optim.decay", "optim.final", "optim.betas", "adapter.dropout"), (0.0, 1.0)),
    "model.initializer_range": COUNT,
    "model.language.rms_norm_eps": COUNT,
    "seed": (-math.inf, math.inf),
}
"""Smallest and largest value of a number by its key; `check` says it of any other."""


@dataclass(frozen=True, kw_only=True)
class Vision:
    """The vision encoder (SigLIP's architecture)."""

    pretrained: str = ""
    """A hub id or folder of a SigLIP or SmolVLM whose encoder is taken; empty: random weights.
    The sizes below must then be those of that encoder."""
    image_size: int = 512
    """px, the side of the square input: the shards' `crop_size`."""
    patch_size: int = 16
    """px."""
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12


@dataclass(frozen=True, kw_only=True)
class Language:
    """The language model (Llama's architecture)."""

    pretrained: str = ""
    """A hub id or folder of a causal language model; empty: random weights."""
    vocab_size: int = 49280
    """Ids, the added ones included; a smaller pretrained vocabulary is extended to it."""
    hidden_size: int = 576
    intermediate_size: int = 1536
    num_hidden_layers: int = 30
    num_attention_heads: int = 9
    num_key_value_heads: int = 3
    head_dim: int = 64
    rope_theta: float = 100000.0
    """The base of the rotary positions (273k in the 2.2B recipe, for a context of 16k)."""
    max_position_embeddings: int = 8192
    """Tokens of context."""
    rms_norm_eps: float = 1e-5


@dataclass(frozen=True, kw_only=True)
class Model:
    """Two towers and a linear connector behind a pixel shuffle."""

    vision: Vision = field(default_factory=Vision)
    language: Language = field(default_factory=Language)
    scale_factor: int = 4
    """Pixel shuffle: scale_factor^2 patches become one token."""
    tie_word_embeddings: bool = False
    """The head is the transposed embedding."""
    initializer_range: float = 0.02
    """Standard deviation of random weights."""

    @property
    def tokens_per_crop(self) -> int:
        """Tokens that one crop becomes."""
        side = self.vision.image_size // self.vision.patch_size
        return side * side // self.scale_factor**2


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Peak learning rate per tower; the paper's video stage (5e-6, 1e-4, 2e-5) is the default."""

    vision: float = 5e-6
    connector: float = 1e-4
    language: float = 2e-5
    """Embeddings and head included."""


TOWER_RATES = tuple(field.name for field in dataclasses.fields(Rates))
"""`optim.lr=2e-4` sets all of these."""


@dataclass(frozen=True, kw_only=True)
class Optim:
    """AdamW and its schedule."""

    lr: Rates = field(default_factory=Rates)
    schedule: Literal["constant", "linear", "cosine", "wsd"] = "cosine"
    """`wsd`: warm-up, stable, then a linear decay over the last `decay` of the steps."""
    warmup: float = 0.03
    """Share of the steps; a value of 1 or more is a number of steps."""
    decay: float = 0.2
    """Share of the steps (`wsd` only)."""
    final: float = 0.0
    """Share of the peak rate at the last step."""
    weight_decay: float = 0.0
    """On matrices; never on biases and norms."""
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip: float = 1.0
    """Largest norm of the gradient; 0 does not clip."""
    freeze: list[str] = field(default_factory=list)
    """Towers that stay as they are: vision, connector, language."""
    neftune: float = 0.0
    """Alpha of the uniform noise on text embeddings (arXiv 2310.05914; SmolVLM used 5)."""
    name: Literal["adamw", "adamw_8bit"] = "adamw"
    """`adamw_8bit` keeps its moments in 8 bits (arXiv 2110.02861; needs bitsandbytes)."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """Low-rank adapters (peft) on frozen towers; checkpoints hold the merged weights."""

    rank: int = 0
    """0: none."""
    alpha: int = 16
    dropout: float = 0.0
    dora: bool = True
    """Weight-decomposed (arXiv 2402.09353); false: LoRA."""
    targets: str = "all-linear"
    """`all-linear`, or a regular expression on module names."""
    beside: list[str] = field(default_factory=lambda: ["embeddings", "head", "norms"])
    """What is trained whole beside the adapters, besides the connector: `embeddings` (of tokens and
    of patches), `head`, `norms`, as SmolVLM's own DoRA stage has it. Without embeddings and head,
    tokens added by a graft stay at their random values."""
    quantize: Literal["", "nf4"] = ""
    """`nf4` holds the adapted layers' own weights in 4 bits (QLoRA; needs bitsandbytes)."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark file: of `select`, of a sweep, of a search's target."""

    file: str = ""
    """VLMEvalKit's TSV."""
    metric: str = "exact"
    weight: float = 1.0
    choices_from: str = "auto"
    """0 or 1: from where answers that are numbers of options count; auto: as the file tells."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that one run needs."""

    name: str = ""
    """Of the settings; the file's stem."""
    data: dict[str, float] = field(default_factory=dict)
    """Finished mixtures and their weights (shares of rows); `data=DIR` is one of weight 1."""
    output: str = ""
    """Folder of the run; default out/runs/<config>-<mixture>."""
    init: str = ""
    """What to start from: a checkpoint, a run (its newest one), or a SmolVLM of the hub
    (`ORG/NAME`, `ORG/NAME@revision`); empty: the model as `model` says. Without `config=`, and
    where the file has no `model:`, the sizes are those of this checkpoint."""
    init_may_differ: list[str] = field(default_factory=list)
    """Settings of the mixture's encoding in which the shards may differ from the processor of
    `init`: longest_edge, split_images, position_tokens."""
    written_by_user: list[str] = field(default_factory=list)
    """Keys of `model` that stand in the user's own file or on the command line: only they may
    stretch the context of `init`. Filled in as they are read."""
    model: Model = field(default_factory=Model)
    optim: Optim = field(default_factory=Optim)
    adapter: Adapter = field(default_factory=Adapter)
    seed: int = 17
    steps: int = 0
    """0: as many as `epochs` needs."""
    epochs: float = 1.0
    """Times the mixture that is used up first is seen; the others are then seen less often, as
    their weights say. The start prints each one's."""
    batch_rows: int = 64
    """Packed rows per step, over all ranks."""
    shuffle_shards: int = 0
    """Shards whose rows are shuffled with each other, a few after a few in an order of each epoch's
    own, so that only these need to be at hand; 0: all."""
    shuffle_rows: int = 0
    """Of a mixture whose ratios follow a schedule the order of rows is kept: rows in a row that are
    shuffled with each other; 0: a hundredth of all."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """What is multiplied in; weights and optimizer stay float32."""

    save_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights in checkpoints. With `bfloat16`, trainer/ holds them as they are trained too,
    so that a run goes on, and a next stage begins, without rounding."""
    license: str = ""
    """Of the checkpoint, for its card, as the hub names licences (`apache-2.0`); empty: that of
    `init`, where it states one."""

    micro_rows: int = 1
    """Packed rows per forward pass on one rank, of the dearest: cheaper ones (text beside images)
    go together, up to the same cost and four times the tokens."""
    workers: int = 0
    """Threads that decode and crop; 0: as many as cores, shared by the ranks of the machine."""
    prefetch: int = 0
    """Micro-batches that are ready or being made, at most; 0: two more than workers."""
    cache: str = ""
    """Folder on this machine for what is read of `data` at a URL; empty: the user's
    own cache folder, which nobody else may write to."""
    cache_bytes: int = 0
    """Of shards in the cache, at most: the least recently used go; 0: no bound."""
    device: str = "auto"
    """auto | cpu | cuda."""
    attention: Literal["auto", "loop", "sdpa", "flex", "varlen"] = "auto"
    """How samples of a row are kept apart; all give the same numbers. `auto`: varlen on CUDA, a
    loop over the samples elsewhere."""
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    """Under torchrun; `auto` is ddp."""
    reshard: Literal["auto", "always", "never"] = "auto"
    """FSDP: let gathered weights go after every layer, and gather them again for the backward pass
    and the next micro-batch; `auto`: only where all would take an eighth of a device's memory."""
    gradient_checkpointing: Literal["none", "language", "vision", "both"] = "none"
    """Towers whose layers keep only their inputs and are computed again going back: less memory,
    up to a third more arithmetic."""
    compile: bool = False
    """torch.compile on the decoder layers and the encoder layers."""
    logits_chunk: int = 4096
    """Learned tokens whose logits exist at one time."""
    threads: int = 0
    """CPU threads of torch; 0 leaves torch's own choice."""
    log_every: int = 10
    """Steps."""
    save_every: int = 500
    """Steps; the last step is always saved."""
    async_save: bool = True
    """Checkpoints are written beside the training, from copies in host memory: 12 bytes for each
    trained weight, 4 for each frozen one; false: training waits."""
    keep_last: int = 2
    """Checkpoints kept besides `best`; 0 keeps all."""
    evaluate_every: int = 0
    """Steps between passes over the val shards; 0: at the end only."""
    evaluate_rows: int = 200
    """Packed rows of the val shards, at most; several mixtures share them by weight."""
    select: dict[str, Benchmark] = field(default_factory=dict)
    """Benchmarks whose weighted mean chooses `best`; empty: the lowest held-out loss does."""
    stop_at: int = 0
    """Save and leave after this step, the schedule unchanged; 0: never."""
    patience: int = 0
    """Evaluations in a row without a better held-out loss (or `select`) after which the run ends;
    0: it runs to its last step."""
    max_skipped: int = 3
    """Steps in a row whose loss or gradient is not finite that change nothing and are written down;
    one more ends the run."""
    max_loss_spike: float = 0.0
    """Write down the rows of a step whose loss is this many times the running mean; 0: never."""
    tensorboard: bool = False
    track: Literal["", "trackio", "wandb"] = ""
    """`trackio` or `wandb`: what is logged goes there too, under the run folder's name and id."""
    page_samples: int = 8
    """Val samples that the model answers at every checkpoint, for RUN/run.html, evenly of all
    modalities and components; 0: no such page."""
    peak_tflops: float = 0.0
    """Of one device, for the model FLOPs utilisation and the hours announced at the start; 0: by
    the device's name."""
    price_per_hour: float = 0.0
    """Of one device, in your currency: the start then states what the run costs."""


def check(config: Config, *, where: str) -> None:
    """Raises ValueError where a value is out of its bounds, or values contradict each other."""
    refuse_out_of_bounds(config, where=where)
    vision, model = config.model.vision, config.model
    side = vision.image_size // vision.patch_size
    if side % model.scale_factor:
        raise ValueError(
            f"{where}: model.scale_factor {model.scale_factor} does not divide the "
            f"{side} patches ({vision.image_size} px / {vision.patch_size} px) of a side.\n"
            "way out: change image_size, patch_size or scale_factor."
        )
    for tower, heads, size in (
        ("vision", vision.num_attention_heads, vision.hidden_size),
        ("language", model.language.num_key_value_heads, model.language.num_attention_heads),
    ):
        if size % heads:
            raise ValueError(f"{where}: model.{tower}: {size} is not a multiple of {heads} heads.")
    for tower in config.optim.freeze:
        if tower not in ("vision", "connector", "language"):
            hint = did_you_mean(tower, ("vision", "connector", "language"))
            raise ValueError(f"{where}: optim.freeze: unknown tower '{tower}'. {hint}")
    for kind in config.adapter.beside:
        known = ("embeddings", "head", "norms")
        if kind not in known:
            raise ValueError(
                f"{where}: adapter.beside: unknown '{kind}'. {did_you_mean(kind, known)}"
            )
    if config.adapter.quantize and not config.adapter.rank:
        raise ValueError(
            f"{where}: adapter.quantize={config.adapter.quantize} keeps weights that cannot be "
            "trained: set adapter.rank above 0, or leave adapter.quantize empty."
        )
    if config.parallel == "fsdp" and (config.adapter.quantize or config.optim.name == "adamw_8bit"):
        raise ValueError(
            f"{where}: parallel=fsdp cannot shard bitsandbytes tensors. Use parallel=ddp, or "
            "optim.name=adamw and an empty adapter.quantize."
        )
    if config.steps == 0 and config.epochs == 0:
        raise ValueError(
            f"{where}: steps {config.steps}, epochs {config.epochs}: nothing to train."
        )
    if any(weight <= 0 for weight in config.data.values()):
        raise ValueError(f"{where}: data: weights are {config.data}, expected each above 0.")


def refuse_out_of_bounds(config: Config, *, where: str) -> None:
    """Raises ValueError that names the first number that is none of those its setting takes."""
    for key, value in numbers_of(dataclasses.asdict(config)):
        if key.startswith("data."):
            continue
        low, high = BOUNDS.get(key, SIZES if key.startswith("model.") else COUNT)
        if not (low <= value <= high and math.isfinite(value)):
            expected = f"at least {low:g}" if low else "0 or more"
            expected = expected if high == math.inf else f"{low:g} to {high:g}"
            raise ValueError(f"{where}: {key} is {value:g}, expected {expected}.")


def numbers_of(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of the settings by their dotted keys; those of a list by the list's."""
    for name, value in settings.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from numbers_of(value, f"{key}.")
        for each in value if isinstance(value, list | tuple) else [value]:
            if isinstance(each, int | float) and not isinstance(each, bool):
                yield key, each


def changed_fields(old: Config, new: Config) -> list[str]:
    """Dotted names of identity fields that differ, with both values: `optim.lr.vision: 1 -> 2`."""
    return [
        f"{key}: {before!r} -> {after!r}"
        for key, before, after in _differences(dataclasses.asdict(old), dataclasses.asdict(new), "")
        if key.split(".")[0] not in MAY_CHANGE
    ]


def _differences(old: Any, new: Any, prefix: str) -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict) and prefix.split(".")[0] != "data":
        found = []
        for key in {**old, **new}:
            found += _differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
        return found
    return [] if old == new else [(prefix, old, new)]
