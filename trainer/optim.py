"""AdamW with a learning rate per tower, and the schedules."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from trainer.config import Optim
from trainer.model.smolvlm import TOWERS, tower


def freeze(model: nn.Module, towers: Iterable[str]) -> None:
    """The parameters of these towers need no gradient afterwards."""
    frozen = set(towers)
    for name, parameter in model.named_parameters():
        if tower(name) in frozen:
            parameter.requires_grad_(False)


def optimizer(model: nn.Module, settings: Optim) -> torch.optim.Optimizer:
    """One group per tower and decay; biases, norms and other vectors do not decay."""
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((tower(name), parameter.ndim >= 2), []).append(parameter)
    if not groups:
        raise ValueError(f"optim.freeze: {settings.freeze}: nothing is left to train.")
    named = [
        {
            "params": groups[which, decays],
            "tower": which,
            "peak": getattr(settings.lr, which),
            "lr": 0.0,
            "weight_decay": settings.weight_decay if decays else 0.0,
        }
        for which in TOWERS
        for decays in (True, False)
        if (which, decays) in groups
    ]
    kind: Any = torch.optim.AdamW
    on_cuda = all(parameter.is_cuda for each in groups.values() for parameter in each)
    extra = {"fused": True} if on_cuda else {}
    if settings.name == "adamw_8bit":
        try:
            from bitsandbytes.optim import AdamW8bit

            kind, extra = AdamW8bit, {}
        except ImportError as error:
            raise ValueError(
                "optim.name=adamw_8bit needs bitsandbytes, which is not installed: "
                "pip install -e '.[qlora]', or use optim.name=adamw."
            ) from error
    made: torch.optim.Optimizer = kind(named, betas=settings.betas, eps=settings.eps, **extra)
    return made


def warmup_steps(settings: Optim, steps: int) -> int:
    """Whole steps of warm-up."""
    return round(settings.warmup if settings.warmup >= 1 else settings.warmup * steps)


def schedule_factor(step: int, *, steps: int, settings: Optim) -> float:
    """The share of the peak rate at step 0, 1, ... of `steps`. Warm-up starts above 0."""
    warm = warmup_steps(settings, steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    if settings.schedule == "constant":
        return 1.0
    low = settings.final
    if settings.schedule == "wsd":
        falling = max(1, round(settings.decay * steps))
        progress = max(0.0, (step - (steps - falling)) / falling)
        return 1.0 - (1.0 - low) * progress
    progress = (step - warm) / max(1, steps - warm)
    if settings.schedule == "linear":
        return 1.0 - (1.0 - low) * progress
    return low + (1.0 - low) * 0.5 * (1.0 + math.cos(math.pi * progress))


def set_rates(optimizer: torch.optim.Optimizer, share: float) -> dict[str, float]:
    """Every group learns at `share` of its peak afterwards; the rates per tower."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
    return {group["tower"]: group["lr"] for group in optimizer.param_groups}


def clip_gradients(optimizer: torch.optim.Optimizer, most: float) -> float:
    """The norm of all gradients, which afterwards is at most `most` (0: as it was)."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, most or math.inf)
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
