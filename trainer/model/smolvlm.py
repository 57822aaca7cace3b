"""A SmolVLM of `transformers`, and the loss over one packed micro-batch.

Nothing of the model is ours: `SmolVLMForConditionalGeneration`, its vision encoder and its Llama.
Ours is the call: one sequence without padding, positions that restart at every sample, no attention
mask, no cache, and logits only where a token is learned.
Shapes: T tokens, L learned tokens, C crops, S px a side, E hidden size of the language model.
"""

import math
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
    """Random weights, the same for the same seed."""
    from transformers import SmolVLMForConditionalGeneration

    torch.manual_seed(seed)
    return SmolVLMForConditionalGeneration._from_config(
        smolvlm_config(model, tokenizer), dtype=torch.float32
    )


def use_attention(model: "SmolVLMForConditionalGeneration", name: str) -> None:
    """The language model keeps packed samples apart by means `name` afterwards (vision: sdpa)."""
    attention.register()
    model.set_attn_implementation(
        {"text_config": attention.implementation(name), "vision_config": "sdpa"}
    )


def checkpoint_activations(model: "SmolVLMForConditionalGeneration") -> None:
    """Layers keep only their inputs and are computed again in the backward pass (checkpointing)."""
    settings = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):  # transformers 5.20 renamed it
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=settings)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)


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


def _token_losses(head: nn.Module, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = head(hidden)
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return functional.cross_entropy(wide, targets, reduction="none")


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
        dtype = next(inner.connector.parameters()).dtype
        extra: torch.Tensor | float = 0.0
        arguments: dict[str, Any] = {}
        if len(batch.pixels):
            features = inner.get_image_features(
                normalize_pixels(batch.pixels, dtype), return_dict=True
            )
            arguments["mm_encoder_outputs"] = {"image": features}
        else:
            # A batch without images must still give the encoder a gradient (of zero): DDP and
            # FSDP wait for it. A crop of zeros, times zero.
            size = inner.config.vision_config.image_size
            blank = torch.zeros(1, 1, 3, size, size, dtype=dtype, device=batch.pixels.device)
            features = inner.get_image_features(blank, return_dict=True)
            extra = torch.cat(features.pooler_output).sum() * 0.0
        if self.training and self._neftune:
            lengths = torch.tensor(batch.seq_lengths, device=batch.input_ids.device)
            width = inner.config.text_config.hidden_size
            scale = self._neftune / (lengths * width).sqrt()
            self._noise_scale = torch.repeat_interleave(scale, lengths)
        if inner.text_model.config._attn_implementation != "sdpa":
            arguments["seq_lengths"] = torch.tensor(batch.seq_lengths)
        output = inner(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            use_cache=False,
            **arguments,
        )
        self._noise_scale = None
        return output.last_hidden_state[0] + extra

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """(sum [], per sample [samples]) of the losses of the learned tokens, in natural logs."""
        hidden = self.hidden(batch)
        head = self.model.lm_head
        # Of several chunks only one has its logits at a time: they are computed again going back.
        again = torch.is_grad_enabled() and len(batch.targets) > self.logits_chunk
        pieces = [
            checkpoint(_token_losses, head, h, t, use_reentrant=False)
            if again
            else _token_losses(head, h, t)
            for h, t in zip(
                hidden[batch.predictors].split(self.logits_chunk),
                batch.targets.split(self.logits_chunk),
                strict=True,
            )
        ]
        # Without a learned token there is still a graph, through the head as well.
        losses = torch.cat(pieces) if len(batch.targets) else head(hidden[:1])[0] * 0.0
        total = losses.sum()
        per_sample = torch.zeros(len(batch.seq_lengths), dtype=losses.dtype, device=losses.device)
        if len(batch.targets):
            per_sample.index_add_(0, batch.owners, losses.detach())
        return total, per_sample


def logits(objective: Objective, batch: Batch) -> torch.Tensor:
    """Of every token: [T, vocabulary]."""
    return objective.model.lm_head(objective.hidden(batch))


def flops(model: Model, seq_lengths: Any, num_crops: int, num_learned: int) -> float:
    """Modelled multiply-adds x 2 of a forward and backward pass (3 x forward) over one row.

    Matrices: 2 x weights x tokens; attention: 4 x hidden x pairs, halved where causal
    (Kaplan et al. 2020, arXiv 2001.08361, appendix B).
    """
    text, vision = model.language, model.vision
    tokens, pairs = 0, 0
    for length in seq_lengths:
        tokens += int(length)
        pairs += int(length) ** 2
    width = text.num_attention_heads * text.head_dim
    keys = text.num_key_value_heads * text.head_dim
    layer = text.hidden_size * (2 * width + 2 * keys + 3 * text.intermediate_size)
    forward = 2.0 * layer * text.num_hidden_layers * tokens
    forward += 2.0 * width * pairs * text.num_hidden_layers
    forward += 2.0 * text.hidden_size * text.vocab_size * num_learned
    patches = (vision.image_size // vision.patch_size) ** 2
    encoder = 4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size
    forward += 2.0 * encoder * vision.num_hidden_layers * patches * num_crops
    forward += 4.0 * vision.hidden_size * patches**2 * vision.num_hidden_layers * num_crops
    joined = vision.hidden_size * model.scale_factor**2
    forward += 2.0 * joined * text.hidden_size * model.tokens_per_crop * num_crops
    return 3 * forward


def perplexity(loss: float) -> float:
    """exp(loss), infinite where that overflows."""
    return math.exp(loss) if loss < 700 else math.inf
