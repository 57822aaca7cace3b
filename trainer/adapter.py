"""Low-rank adapters through `peft`: trained beside frozen weights, saved merged into them."""

import copy
from typing import Any

import torch

from .config import Adapter

LINEAR = (
    r".*\.(vision_model|text_model)\..*\."
    r"(q_proj|k_proj|v_proj|o_proj|out_proj|fc1|fc2|gate_proj|up_proj|down_proj)"
)
"""Every linear layer of both towers."""


def is_adapted(model: Any) -> bool:
    """The model carries adapters."""
    return hasattr(model, "peft_config")


def adapt(model: Any, settings: Adapter) -> Any:
    """The model with adapters on its linear layers, everything else frozen but the connector."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ValueError(
            "adapter.rank above 0 needs peft, which is not installed: pip install -e '.[lora]'."
        ) from error
    settings_peft = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_dora=settings.dora,
        target_modules=LINEAR if settings.targets == "all-linear" else settings.targets,
    )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    adapted = inject_adapter_in_model(settings_peft, model)
    for name, parameter in adapted.named_parameters():
        if ".connector." in name:
            parameter.requires_grad_(True)
    return adapted


def merged(model: Any, weights: dict[str, torch.Tensor]) -> tuple[Any, dict[str, torch.Tensor]]:
    """A model without adapters and its weights; the adapters are multiplied in."""
    if not is_adapted(model):
        return model, weights
    from peft.tuners.lora import LoraLayer

    plain = copy.deepcopy(model)
    plain.load_state_dict(weights)
    for name, module in list(plain.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            parent = plain.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], module.get_base_layer())
    del plain.peft_config
    plain._hf_peft_config_loaded = False
    return plain, plain.state_dict()
