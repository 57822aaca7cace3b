"""What only a GPU can tell: `python -m pytest tests/trainer/test_cuda.py` on a machine with one.

Everything is compared with the same in float32 on the CPU, within what bfloat16 allows.
"""

import json
from pathlib import Path

import pytest
import torch

from tests.trainer.conftest import Settings
from tests.trainer.model.test_smolvlm import SAMPLES, batch_of, objective
from trainer import parallel
from trainer.data.batches import Batch, copied
from trainer.loop import train
from trainer.model import attention
from trainer.model.smolvlm import Objective

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CUDA = torch.device("cuda")
BF16 = 0.03
"""Largest share of their norm by which hidden states and gradients in bfloat16 may be off. Measured
on a CPU under autocast: 0.005 and 0.009; of hidden states of samples that see each other: 0.65."""
MEANS = ["loop", "sdpa", "flex", *(["varlen"] if attention.has_varlen() else [])]


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The distance as a share of the norm."""
    ours, theirs = ours.detach().float().cpu(), theirs.detach().float().cpu()
    return float((ours - theirs).norm() / theirs.norm().clamp_min(1e-12))


def stepped(made: Objective, batch: Batch) -> dict[str, torch.Tensor]:
    """Hidden states, losses and gradients of one step."""
    made.train()
    device = next(made.parameters()).device
    batch = batch.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        with torch.no_grad():
            hidden = made.hidden(batch)
        loss, per_sample = made(batch)
    loss.backward()
    gradients = {name: p.grad.flatten() for name, p in made.named_parameters()}  # type: ignore
    return {
        "hidden": hidden,
        "loss": per_sample,
        "gradients": torch.cat(list(gradients.values())),
        "vision": torch.cat([g for name, g in gradients.items() if "vision" in name]),
    }


def wide(means: str) -> Objective:
    """With heads of 16, which all kernels take, and weights that bfloat16 can follow."""
    return objective(means, dtype=torch.float32, head_dim=16, spread=4)


@pytest.mark.parametrize("means", MEANS)
def test_every_means_in_bfloat16_is_float32_within_its_tolerance(means: str) -> None:
    batch = batch_of(SAMPLES)
    ours, theirs = stepped(wide(means).to(CUDA), batch), stepped(wide("loop"), batch)
    for name in theirs:
        assert apart(ours[name], theirs[name]) < BF16, name


@pytest.mark.parametrize("means", MEANS)
def test_a_sample_does_not_see_its_neighbour(means: str) -> None:
    made = wide(means).to(CUDA)
    tail = len(SAMPLES[4]["input_ids"])
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        first, second = (
            made.hidden(batch_of([SAMPLES[n], SAMPLES[4]]).to(CUDA))[-tail:] for n in (1, 0)
        )
    assert apart(first, second) < 1e-3


def test_a_micro_batch_does_not_wait_for_the_device() -> None:
    made = wide(attention.choose_attention("auto", CUDA, "bfloat16")).to(CUDA)
    (batch,) = copied([batch_of(SAMPLES).pinned()], CUDA)
    stepped(made, batch)  # compiles, allocates
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda", torch.bfloat16):
            loss, _ = made(batch)
        loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_batches_come_over_whole_and_in_order() -> None:
    made = [batch_of(SAMPLES[: n + 1]) for n in range(6)]
    arrived = list(copied([batch.pinned() for batch in made], CUDA))
    for ours, theirs in zip(made, arrived, strict=True):
        assert theirs.pixels.is_cuda
        assert torch.equal(ours.pixels, theirs.pixels.cpu())
        assert torch.equal(ours.input_ids, theirs.input_ids.cpu())


def test_the_first_steps_are_those_of_a_cpu(settings: Settings, tmp_path: Path) -> None:
    """The default path: varlen under autocast, fused AdamW, pinned batches on a side stream."""
    losses = {}
    for device, dtype in (("cpu", "float32"), ("cuda", "bfloat16"), ("cuda", "float32")):
        run = tmp_path / f"{device}-{dtype}"
        train(settings(output=run, device=device, dtype=dtype, steps=4,
                       model__language__head_dim=16))  # fmt: skip
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        losses[run.name] = [line["loss"] for line in lines if "loss" in line]
    assert losses["cuda-float32"] == pytest.approx(losses["cpu-float32"], rel=1e-3)
    assert losses["cuda-bfloat16"] == pytest.approx(losses["cpu-float32"], rel=BF16)


@pytest.mark.skipif(not attention.has_varlen(), reason="needs PyTorch 2.12")
def test_compiled_layers_are_the_layers() -> None:
    plain, compiled = wide("varlen").to(CUDA), wide("varlen").to(CUDA)
    for layer in parallel.layers(compiled):
        layer.compile(dynamic=True, fullgraph=True)
    for samples in (SAMPLES, SAMPLES[:3]):
        ours, theirs = (stepped(each, batch_of(samples)) for each in (compiled, plain))
        for name in theirs:
            assert apart(ours[name], theirs[name]) < BF16, name
