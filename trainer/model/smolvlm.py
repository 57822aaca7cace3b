"""A SmolVLM of `transformers`, and the loss over one packed micro-batch.

Nothing of the model is ours: `SmolVLMForConditionalGeneration`, its vision encoder and its Llama.
Ours is the call: one sequence without padding, positions that restart at every sample, no attention
mask, no cache, and logits only where a token is learned.
Shapes: T tokens, L learned tokens, C crops, S px a side, E hidden size of the language model.
"""

import math
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from trainer.config import Model
from trainer.data.batches import Batch
from trainer.model import attention
from trainer.model.adapter import num_weights

if TYPE_CHECKING:
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

MEAN = STD = 0.5
"""Of SmolVLM's image processor (transformers, models/smolvlm)."""

TOWERS = ("vision", "connector", "language")


def tower(parameter: str) -> str:
    """Which tower a parameter of the model belongs to, by its name."""
    if ".vision_model." in parameter:
        return "vision"
    return "connector" if ".connector." in parameter else "language"


def smolvlm_config(model: Model, tokenizer: Any) -> "SmolVLMConfig":
    """The settings as `transformers` states them, ids from the tokenizer."""
    from transformers import SmolVLMConfig

    vision, language = model.vision, model.language
    ids = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return SmolVLMConfig(
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=model.scale_factor,
        tie_word_embeddings=model.tie_word_embeddings,
        vision_config={
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.intermediate_size,
            "num_hidden_layers": vision.num_hidden_layers,
            "num_attention_heads": vision.num_attention_heads,
            "initializer_range": model.initializer_range,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": language.vocab_size,
            "hidden_size": language.hidden_size,
            "intermediate_size": language.intermediate_size,
            "num_hidden_layers": language.num_hidden_layers,
            "num_attention_heads": language.num_attention_heads,
            "num_key_value_heads": language.num_key_value_heads,
            "head_dim": language.head_dim,
            "rope_parameters": {"rope_type": "default", "rope_theta": language.rope_theta},
            "max_position_embeddings": language.max_position_embeddings,
            "rms_norm_eps": language.rms_norm_eps,
            "initializer_range": model.initializer_range,
            "tie_word_embeddings": model.tie_word_embeddings,
            **ids,
        },
        **ids,
    )


def random_model(model: Model, tokenizer: Any, *, seed: int) -> "SmolVLMForConditionalGeneration":
    """Random weights, the same for the same seed.

    Places of patches are embedded as large as a bright patch is (3 x patch_size^2 inputs near 1):
    where both have one small deviation, as in `transformers`, a patch drowns its place, and whether
    something is left or right is learned late or never.
    """
    from transformers import SmolVLMForConditionalGeneration

    torch.manual_seed(seed)
    made = SmolVLMForConditionalGeneration._from_config(
        smolvlm_config(model, tokenizer), dtype=torch.float32
    )
    places = made.model.vision_model.embeddings.position_embedding.weight
    with torch.no_grad():
        places.mul_(math.sqrt(3) * model.vision.patch_size)
    return made


def use_attention(model: "SmolVLMForConditionalGeneration", name: str) -> None:
    """The language model keeps packed samples apart by means `name` afterwards (vision: sdpa)."""
    attention.register()
    model.set_attn_implementation(
        {"text_config": attention.implementation(name), "vision_config": "sdpa"}
    )


def checkpoint_activations(model: "SmolVLMForConditionalGeneration", towers: str) -> None:
    """Layers of `towers` (language, vision, both, none) keep only their inputs and are computed
    again in the backward pass (checkpointing).
    """
    settings = {"use_reentrant": False}
    parts = {"language": model.model.text_model, "vision": model.model.vision_model}
    for name, part in parts.items():
        if towers not in (name, "both"):
            continue
        if hasattr(part, "activation_checkpointing_enable"):  # transformers 5.20 renamed it
            part.activation_checkpointing_enable(activation_checkpointing_kwargs=settings)
        else:
            part.gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Parameters per tower, shared ones once, without adapters, which are merged on saving."""
    counts = dict.fromkeys(TOWERS, 0)
    for name, parameter in model.named_parameters():
        if ".lora_" not in name:
            counts[tower(name)] += num_weights(parameter)
    return counts


def normalize_pixels(pixels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """uint8 crops [C, S, S, 3] -> [1, C, 3, S, S] in -1..1. No value is exactly 0, so that
    `transformers` takes no black-and-white average for padding.
    """
    scaled = pixels.permute(0, 3, 1, 2).to(torch.float32) * (1 / 255)
    return ((scaled - MEAN) / STD).to(dtype)[None]


def encode_crops(inner: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Crops [C, 3, S, S] -> their tokens' embeddings [C x tokens per crop, E].

    The encoder's own parts, one after the other: `get_image_features` first looks for crops that
    are padding, and for masked patches, each time waiting for the device. Ours are all real.
    """
    vision = inner.vision_model
    side = pixels.shape[-1] // vision.patch_size
    whole = torch.ones(len(pixels), side, side, dtype=torch.bool, device=pixels.device)
    states = vision.embeddings(pixel_values=pixels, patch_attention_mask=whole)
    states = vision.encoder(inputs_embeds=states, attention_mask=None).last_hidden_state
    features: torch.Tensor = inner.connector(vision.post_layernorm(states))
    return features.flatten(0, 1)


def _token_losses(head: nn.Module, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = head(hidden)
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return functional.cross_entropy(wide, targets, reduction="none")


def chunked_losses(
    head: nn.Module, hidden: torch.Tensor, targets: torch.Tensor, *, chunk: int
) -> torch.Tensor:
    """The loss of every target: [N], of hidden states [N, E].

    Of several chunks only one has its logits at a time: they are computed again going back.
    """
    again = torch.is_grad_enabled() and len(targets) > chunk
    pieces = [
        checkpoint(_token_losses, head, h, t, use_reentrant=False)
        if again
        else _token_losses(head, h, t)
        for h, t in zip(hidden.split(chunk), targets.split(chunk), strict=True)
    ]
    return torch.cat(pieces)


class Objective(nn.Module):
    """Batch -> (sum of the losses of its learned tokens, the same per sample, detached).

    A module, because DDP and FSDP hook the forward call of what they wrap.
    """

    model: Any

    def __init__(
        self, model: "SmolVLMForConditionalGeneration", *, logits_chunk: int, neftune: float
    ) -> None:
        super().__init__()
        self.model = model
        self.logits_chunk = logits_chunk
        self._noise_scale: torch.Tensor | None = None
        if neftune > 0:
            self._neftune = neftune
            model.get_input_embeddings().register_forward_hook(self._add_noise)
        else:
            self._neftune = 0.0

    def _add_noise(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        if self._noise_scale is None:
            return output
        noise = torch.empty_like(output).uniform_(-1, 1)
        return output + noise * self._noise_scale[None, :, None]

    def hidden(self, batch: Batch) -> torch.Tensor:
        """Last hidden states of all tokens: [T, E]."""
        inner = self.model.model
        text = inner.text_model
        if self.training and self._neftune:
            lengths = batch.ends.diff()
            width = inner.config.text_config.hidden_size
            self._noise_scale = torch.repeat_interleave(
                self._neftune / (lengths * width).sqrt(),
                lengths,
                output_size=batch.input_ids.numel(),
            )
        embedded = text.get_input_embeddings()(batch.input_ids)
        self._noise_scale = None
        pixels = batch.pixels
        if not len(pixels):
            # A batch without images must still give the encoder a gradient (of zero): DDP and
            # FSDP wait for it. A black crop, its embeddings times zero.
            size = inner.config.vision_config.image_size
            pixels = torch.zeros(1, size, size, 3, dtype=torch.uint8, device=pixels.device)
        features = encode_crops(inner, normalize_pixels(pixels, self._precision())[0]).to(
            embedded.dtype
        )
        if len(batch.pixels):
            embedded = embedded.index_copy(1, batch.image_places, features[None])
        else:
            embedded = embedded + features.sum() * 0.0
        output = text(
            inputs_embeds=embedded,
            position_ids=batch.position_ids,
            use_cache=False,
            **attention.arguments(text.config._attn_implementation, batch.seq_lengths, batch.ends),
        )
        states: torch.Tensor = output.last_hidden_state
        return states[0]

    def _precision(self) -> torch.dtype:
        """What the encoder multiplies in: autocast's type, else that of its weights."""
        weight = self.model.model.vision_model.embeddings.patch_embedding.weight
        if torch.is_autocast_enabled(weight.device.type):
            return torch.get_autocast_dtype(weight.device.type)
        dtype: torch.dtype = weight.dtype
        return dtype

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """(sum [], per sample [samples]) of the losses of the learned tokens, in natural logs."""
        hidden = self.hidden(batch)
        head = self.model.lm_head
        # Without a learned token there is still a graph, through the head as well.
        losses = (
            chunked_losses(head, hidden[batch.predictors], batch.targets, chunk=self.logits_chunk)
            if len(batch.targets)
            else head(hidden[:1])[0] * 0.0
        )
        total = losses.sum()
        per_sample = torch.zeros(len(batch.seq_lengths), dtype=losses.dtype, device=losses.device)
        if len(batch.targets):
            per_sample.index_add_(0, batch.owners, losses.detach())
        return total, per_sample


def logits(objective: Objective, batch: Batch) -> torch.Tensor:
    """Of every token: [T, vocabulary]."""
    return objective.model.lm_head(objective.hidden(batch))


def passes(freeze: Collection[str], *, adapted: bool) -> dict[str, float]:
    """How many forward passes the work on each tower is, in one step of training.

    One goes forward, one gives the gradient of what comes in, one that of the weights; what needs
    no gradient is not computed. `adapted`: both towers' weights are frozen beside adapters.
    """
    work, before = {}, False
    for which in TOWERS:  # from the pixels to the loss
        learns = which not in freeze
        inner = learns and which != "connector"  # a tower of several layers
        weights = learns and not (adapted and which != "connector")
        work[which] = 1.0 + (before or inner) + weights
        before = before or learns
    return work


def flops(
    model: Model,
    *,
    tokens: Any,
    pairs: Any,
    crops: Any,
    learned: Any,
    passes: Mapping[str, float] = MappingProxyType(dict.fromkeys(TOWERS, 3.0)),
) -> Any:
    """Modelled multiply-adds x 2 of a step on rows of these sizes (numbers, or one array each).

    `pairs` is the sum of the samples' squared lengths, `passes` says what is trained.
    Matrices: 2 x weights x tokens; attention: 4 x hidden x pairs, halved where causal
    (Kaplan et al. 2020, arXiv 2001.08361, appendix B). Activations computed again do not count.
    """
    text, vision = model.language, model.vision
    width = text.num_attention_heads * text.head_dim
    keys = text.num_key_value_heads * text.head_dim
    layer = text.hidden_size * (2 * width + 2 * keys + 3 * text.intermediate_size)
    language = 2.0 * layer * text.num_hidden_layers * tokens
    language += 2.0 * width * text.num_hidden_layers * pairs
    language += 2.0 * text.hidden_size * text.vocab_size * learned
    patches = (vision.image_size // vision.patch_size) ** 2
    block = 4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size
    encoder = 2.0 * block * patches + 4.0 * vision.hidden_size * patches**2
    joined = vision.hidden_size * model.scale_factor**2
    connector = 2.0 * joined * text.hidden_size * model.tokens_per_crop
    return (
        passes["language"] * language
        + passes["vision"] * encoder * vision.num_hidden_layers * crops
        + passes["connector"] * connector * crops
    )


def perplexity(loss: float) -> float:
    """exp(loss), infinite where that overflows."""
    return math.exp(loss) if loss < 700 else math.inf
