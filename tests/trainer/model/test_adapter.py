"""Adapters on weights of 4 bits, and an optimizer with moments of 8."""

import copy
import re
from typing import Any

import pytest
import torch

from tests.trainer.conftest import SMALL, Settings
from tests.trainer.model.test_smolvlm import SAMPLES, batch_of
from tokenization.vocab import load_tokenizer
from trainer import optim
from trainer.config import Adapter
from trainer.config_file import load
from trainer.model import adapter
from trainer.model.initial import initial_model
from trainer.model.smolvlm import Objective, count_parameters, random_model, use_attention
from trainer.monitoring.watch import training_bytes

GAP = 0.3038
"""Widest gap of NF4's 16 values in -1..1 (arXiv 2305.14314, appendix E), in units of the largest
weight of a block of 64. A weight moves by at most half of it."""


def model_of() -> Any:
    model = random_model(load("tiny", SMALL).model, load_tokenizer("builtin"), seed=3)
    use_attention(model, "loop")
    return model


def loss_of(model: Any) -> torch.Tensor:
    objective = Objective(model, logits_chunk=4096, neftune=0.0)
    total, _ = objective(batch_of(SAMPLES))
    return total


def test_frozen_weights_take_half_a_byte_and_are_near_what_they_were() -> None:
    plain, small = model_of(), model_of()
    kept = adapter.quantize(small, adapter.LINEAR)
    seen = 0
    for name, layer in small.named_modules():
        if type(layer).__name__ == "Linear4bit":
            assert re.fullmatch(adapter.LINEAR, name)
            weight = plain.get_submodule(name).weight.detach()
            assert layer.weight.nbytes == weight.numel() / 2
            assert adapter.num_weights(layer.weight) == weight.numel()
            found = layer(torch.eye(layer.in_features)).detach() - (
                0 if layer.bias is None else layer.bias
            )
            scale = weight.flatten().reshape(-1, 64).abs().amax(1, keepdim=True)
            moved = (found.T - weight).flatten().reshape(-1, 64).abs() / scale
            assert 0 < moved.max() < GAP / 2 + 0.02  # scales are themselves rounded to 8 bits
            seen += 1
    matching = sum(bool(re.fullmatch(adapter.LINEAR, n)) for n, _ in plain.named_modules())
    assert seen == matching - len(kept)
    assert count_parameters(small) == count_parameters(plain)


@pytest.mark.parametrize("width", [64, 96, 100, 172])
def test_a_layer_of_any_width_is_faithful_or_stays_as_it_is(width: int) -> None:
    """SigLIP-SO400M's 4,304 is no multiple of 64 either: some processors' kernels fail there."""
    torch.manual_seed(3)
    plain = torch.nn.Sequential(torch.nn.Linear(width, 48), torch.nn.Linear(48, width, bias=False))
    small = copy.deepcopy(plain)
    kept = adapter.quantize(small, r"\d")
    inputs = torch.randn(5, width)
    for name, layer in plain.named_children():
        found = small.get_submodule(name)
        assert (type(found).__name__ == "Linear4bit") != (name in kept)
        error = (found(inputs) - layer(inputs)).norm() / layer(inputs).norm()
        assert error < 0.15
        inputs = layer(inputs).detach()


@pytest.mark.parametrize(
    "fault",
    [lambda w: w.flip(0), lambda w: w * 0, lambda w: w + 0.5 * w.abs().max(), lambda w: w / 0],
)
def test_a_layer_whose_4_bits_are_wrong_stays_as_it_is_and_is_named_once(
    fault: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import bitsandbytes

    true = bitsandbytes.functional.dequantize_4bit
    wrong = lambda data, state, **more: (
        fault(true(data, state, **more)) if state.shape[1] == 100 else true(data, state, **more)
    )
    monkeypatch.setattr(bitsandbytes.functional, "dequantize_4bit", wrong)
    model = torch.nn.Sequential(torch.nn.Linear(128, 100), torch.nn.Linear(100, 128))
    before = model[1].weight.clone()
    assert adapter.quantize(model, r"\d") == ["1"]
    assert torch.equal(model[1].weight, before)
    told = capsys.readouterr().err
    assert told.count("1 layers stay in full precision") == 1
    assert told.rstrip().endswith(": 1")


@pytest.mark.parametrize(("dora", "quantize"), [(True, "nf4"), (False, "nf4"), (True, "")])
def test_what_is_saved_computes_what_was_trained(dora: bool, quantize: str) -> None:
    """Adapters that do something: the merged model has the same loss."""
    settings = Adapter(rank=4, dora=dora, quantize=quantize)  # type: ignore[arg-type]
    model = adapter.adapt(model_of(), settings)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert all(
        ".lora_" in name or any(re.fullmatch(names, name) for names in adapter.BESIDE.values())
        for name in trained
    )
    for part in ("embed_tokens", "patch_embedding", "input_layernorm", "layer_norm1", "connector"):
        assert any(part in name for name in trained)
    before = loss_of(model)
    before.backward()
    for name, parameter in trained.items():
        if ".lora_A" not in name:  # B begins at 0, so A has no gradient yet
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in trained.values():
            parameter += 0.05 * torch.randn_like(parameter)
    moved = loss_of(model).item()
    assert abs(moved - before.item()) > 0.1
    plain = model_of()
    plain.load_state_dict(adapter.merged_weights(model, model.state_dict()))
    assert loss_of(plain).item() == pytest.approx(moved, rel=1e-4)
    assert loss_of(model).item() == moved  # and the model that goes on training is as it was


def test_moments_of_8_bits_learn_and_are_a_quarter() -> None:
    sizes, losses = [], []
    for name in ("adamw", "adamw_8bit"):
        config = load("tiny", {**SMALL, "optim.name": name})
        model = model_of()
        optimizer = optim.optimizer(model, config.optim)
        optim.set_rates(optimizer, 1.0)
        first = loss_of(model).item()
        for _ in range(3):
            loss_of(model).backward()
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss_of(model).item())
        moments = [v for state in optimizer.state.values() for v in state.values()]
        sizes.append(sum(v.nbytes for v in moments if torch.is_tensor(v) and v.numel() > 256))
        assert losses[-1] < 0.95 * first
    assert sizes[1] < 0.3 * sizes[0]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_an_adapter_on_what_is_no_linear_layer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"text_model\.norm, a LlamaRMSNorm: expected"):
        adapter.adapt(model_of(), Adapter(rank=4, targets=r".*\.norm"))


def test_a_frozen_tower_has_no_adapter_that_learns(settings: Settings) -> None:
    config = settings(adapter__rank=4, optim__freeze="[vision, connector]")
    model = initial_model(config, load_tokenizer("builtin"), resume=None)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert {name.split(".")[-2] for name in trained} >= {"embed_tokens", "input_layernorm"}
    assert all(".text_model." in name or name.startswith("lm_head.") for name in trained)
    alone = settings(adapter__rank=4, adapter__beside="[]", optim__freeze="[vision, connector]")
    model = initial_model(alone, load_tokenizer("builtin"), resume=None)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert all(".text_model." in name and ".lora_" in name for name in trained)
    with pytest.raises(ValueError, match=r"adapter\.beside: unknown 'norm'. Did you mean 'norms'"):
        settings(adapter__beside="[norm]")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter__quantize": "nf4"}, r"cannot be trained: set adapter\.rank"),
        ({"adapter__quantize": "int3", "adapter__rank": 4}, "int3"),
        ({"adapter__quantize": "nf4", "adapter__rank": 4, "parallel": "fsdp"}, "use parallel=ddp"),
        ({"optim__name": "adamw_8bit", "parallel": "fsdp"}, "optim.name=adamw"),
    ],
)
def test_what_does_not_go_together_is_refused(
    settings: Settings, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=f"(?i){message}"):
        settings(**changes)


def test_the_memory_that_is_announced_follows_the_settings(settings: Settings) -> None:
    def bytes_of(**changes: object) -> tuple[int, int]:
        config = settings(**changes)
        model = adapter.adapt(model_of(), config.adapter) if config.adapter.rank else model_of()
        return training_bytes(config, model), sum(
            p.numel() for p in model.parameters() if p.requires_grad
        )

    full, every = bytes_of()
    assert full == 16 * every
    assert bytes_of(optim__name="adamw_8bit") == (10 * every, every)
    (lora, trained), (qlora, _) = (
        bytes_of(adapter__rank=4, adapter__beside="[]", adapter__quantize=quantize)
        for quantize in ("", "nf4")
    )
    small = model_of()
    adapter.quantize(small, adapter.LINEAR)
    towers = sum(
        adapter.num_weights(layer.weight)
        for layer in small.modules()
        if type(layer).__name__ == "Linear4bit"
    )
    adapters = trained - count_parameters(model_of())["connector"]
    assert lora == 4 * (every + adapters) + 12 * trained
    assert lora - qlora == 3.5 * towers  # 4 bits instead of 32; the blocks' scales are not counted
