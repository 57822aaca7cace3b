"""Low-rank adapters through `peft`: trained beside frozen weights, saved merged into them.

`quantize=nf4` holds the frozen weights in 4 bits (QLoRA, arXiv 2305.14314, by bitsandbytes): the
adapters learn beside what is left of the weights, and the checkpoint is the sum of the two.
"""

import logging
import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tokenization.terminal import log
from trainer.config import Adapter

LINEAR = (
    r".*\.(vision_model|text_model)\..*\."
    r"(q_proj|k_proj|v_proj|o_proj|out_proj|fc1|fc2|gate_proj|up_proj|down_proj)"
)
"""Every linear layer of both towers."""

BESIDE = {
    "embeddings": r".*(\.embed_tokens|\.embeddings\.\w+)\.\w+",
    "head": r"(.*\.)?lm_head\.\w+",
    "norms": r".*norm\w*\.\w+",
    "connector": r".*\.connector\..*",
}
"""Names of the parameters that `adapter.beside` trains whole; the connector always."""

NAME = "default"
"""Of the one adapter, which `peft` calls so."""
NF4_GAP = 0.3038
"""Widest gap between NF4's 16 values in -1..1 (arXiv 2305.14314, appendix E), in units of the
largest weight of a block: rounding moves a weight by at most half of it."""
SCALE_GAP = 0.0143
"""Widest gap between the 256 values of 8 bits in which the scales are kept (arXiv 2110.02861)."""
PROBES = 4
"""Inputs on which a layer of 4 bits is asked what it computes."""


def is_adapted(model: Any) -> bool:
    """The model carries adapters."""
    return hasattr(model, "peft_config")


def adapt(model: Any, settings: Adapter) -> Any:
    """The model with adapters on its linear layers, everything else frozen but `beside`."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ValueError(
            "adapter.rank above 0 needs peft, which is not installed: pip install -e '.[lora]'."
        ) from error
    targets = LINEAR if settings.targets == "all-linear" else settings.targets
    settings_peft = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_dora=settings.dora,
        target_modules=targets,
    )
    for name, layer in model.named_modules():
        if re.fullmatch(targets, name) and not isinstance(layer, nn.Linear):
            raise ValueError(
                f"adapter.targets={targets} names {name}, a {type(layer).__name__}: expected names "
                "of linear layers."
            )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if settings.quantize == "nf4":
        quantize(model, targets)
        model.is_loaded_in_4bit = True  # peft then takes its layers for 4 bits
    adapted = inject_adapter_in_model(settings_peft, model)
    if settings.quantize == "nf4":
        del model.is_loaded_in_4bit
    for name, parameter in adapted.named_parameters():
        if any(re.fullmatch(BESIDE[kind], name) for kind in (*settings.beside, "connector")):
            parameter.requires_grad_(True)
    return adapted


def quantize(model: nn.Module, targets: str) -> list[str]:
    """Linear layers named by `targets` hold their weights in NF4, scales of blocks in 8 bits; the
    names of those that stay as they are, since NF4 came out wrong on this processor.
    """
    bnb = _bitsandbytes()
    kept = []
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear) and re.fullmatch(targets, name):
            kind = {"compress_statistics": True, "quant_type": "nf4"}
            small = bnb.nn.Linear4bit(
                layer.in_features, layer.out_features, bias=layer.bias is not None,
                compute_dtype=torch.float32, device="meta", **kind,
            )  # fmt: skip
            # Its packing for some CPUs happens in evaluation and stays for the steps after it.
            small.support_avx512bf16_for_cpu = False
            small.weight = bnb.nn.Params4bit(
                layer.weight.data, requires_grad=False, module=small, **kind
            ).to("cpu")
            small.bias = layer.bias
            if is_faithful(small, layer):
                model.set_submodule(name, small)
            else:
                kept.append(name)
    if kept and os.environ.get("RANK", "0") == "0":
        log(
            f"adapter.quantize=nf4: {len(kept)} layers stay in full precision, since bitsandbytes "
            f"makes their 4-bit weights wrong on this processor: {', '.join(kept)}",
            level=logging.WARNING,
        )
    return kept


@torch.no_grad()
def is_faithful(small: Any, layer: nn.Linear) -> bool:
    """Every 4-bit weight is within NF4's bound of what it was, and the layer computes with those.

    bitsandbytes 0.50 returns others on processors with AVX-512 where a width is no multiple of 64.
    """
    state = small.weight.quant_state
    found = _bitsandbytes().functional.dequantize_4bit(small.weight.data, state).to(torch.float32)
    weight = layer.weight.data.to(torch.float32)
    rest = -weight.numel() % state.blocksize

    def blocks(values: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(values.flatten(), (0, rest)).reshape(-1, state.blocksize).abs()

    scale = blocks(weight).amax(1)
    bound = NF4_GAP / 2 * scale + SCALE_GAP * scale.max()
    if not bool((blocks(found.reshape(weight.shape) - weight).amax(1) <= bound).all()):
        return False
    seeded = torch.Generator().manual_seed(0)
    inputs = torch.randn(PROBES, layer.in_features, generator=seeded)  # [PROBES, in]
    expected = nn.functional.linear(inputs, found.reshape(weight.shape), layer.bias)
    given = torch.cat([small(inputs[:-1]), small(inputs[-1:])])  # of one row: a kernel of its own
    return bool((given - expected).norm() <= 1e-3 * expected.norm() + 1e-6)


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes
    except ImportError as error:
        raise ValueError(
            "adapter.quantize=nf4 needs bitsandbytes, which is not installed: "
            "pip install -e '.[qlora]', or leave adapter.quantize empty."
        ) from error
    return bitsandbytes


def num_weights(parameter: torch.Tensor) -> int:
    """How many weights a parameter stands for; two of 4 bits lie in one byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(torch.Size(state.shape).numel())


def load(model: Any, weights: Mapping[str, torch.Tensor]) -> None:
    """An adapted model holds the weights that an adapted model of the same settings had."""
    rest = dict(weights)
    for name, module in model.named_modules():
        prefix = f"{name}.weight"
        if type(module).__name__ == "Linear4bit" and f"{prefix}.absmax" in rest:
            stats = {key: rest.pop(key) for key in weights if key.startswith(f"{prefix}.")}
            module.weight = type(module.weight).from_prequantized(
                rest[prefix], stats, requires_grad=False, device="cpu", module=module
            )
    model.load_state_dict(rest)


def merged_weights(model: Any, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of the model without adapters: `weights` with each adapter added to its layer."""
    if not is_adapted(model):
        return dict(weights)
    plain = {}
    for name, weight in weights.items():
        layer, adapted, what = name.partition(".base_layer.")
        if ".lora_" in name or what.startswith("weight."):  # an adapter, the scales of 4 bits
            continue
        if adapted and what == "weight":
            weight = _sum(layer, weights, model.peft_config[NAME])
        plain[f"{layer}.{what}" if adapted else name] = weight
    return plain


def _sum(layer: str, weights: Mapping[str, torch.Tensor], settings: Any) -> torch.Tensor:
    """What the layer multiplies by: W + s B A, with DoRA each row at its learned length."""
    prefix = f"{layer}.base_layer.weight"
    weight = weights[prefix]
    stats = {key: each for key, each in weights.items() if key.startswith(f"{prefix}.")}
    if stats:
        functional = _bitsandbytes().functional
        state = functional.QuantState.from_dict(stats, device=weight.device)
        weight = functional.dequantize_4bit(weight, state)
    down, up = (weights[f"{layer}.lora_{each}.{NAME}.weight"] for each in "AB")
    total = weight + up @ down * (settings.lora_alpha / settings.r)
    if settings.use_dora:
        length = weights[f"{layer}.lora_magnitude_vector.{NAME}.weight"]
        total = total * (length / total.norm(dim=1))[:, None]
    return total
