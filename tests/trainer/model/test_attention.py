"""How samples are kept apart on CUDA, as far as a CPU can tell: PyTorch's own operator, with a
stand-in for its kernel (`tests/trainer/flash.py`)."""

from collections.abc import Iterator

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.trainer import flash
from tests.trainer.model.test_smolvlm import SAMPLES, batch_of, objective
from tests.trainer.shards import sample
from trainer import parallel
from trainer.model import attention
from trainer.model.smolvlm import Objective, checkpoint_activations

pytestmark = pytest.mark.skipif(not attention.has_varlen(), reason="needs PyTorch 2.12")

BF16 = 0.03
"""Largest share of their norm by which hidden states and gradients of bfloat16 may be off."""


@pytest.fixture
def _flash() -> Iterator[None]:
    with flash.on_cpu():
        yield


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The distance as a share of the norm."""
    return float((ours.float() - theirs.float()).norm() / theirs.float().norm().clamp_min(1e-12))


def stepped(made: Objective, samples: list[dict] = SAMPLES) -> dict[str, torch.Tensor]:
    """Loss per sample and gradients of one step under autocast."""
    made.train()
    with torch.autocast("cpu", torch.bfloat16):
        loss, per_sample = made(batch_of(samples))
    loss.backward()
    return {"loss": per_sample} | {n: p.grad for n, p in made.named_parameters()}  # type: ignore


@pytest.mark.usefixtures("_flash")
@pytest.mark.parametrize("again", [False, True])
def test_under_autocast_the_kernel_gets_one_16_bit_type(again: bool) -> None:
    made = objective("varlen", dtype=torch.float32)
    if again:
        checkpoint_activations(made.model, "both")
    ours, theirs = stepped(made), stepped(objective("loop", dtype=torch.float32))
    for name in theirs:
        if not name.endswith("k_proj.bias"):  # softmax is blind to it: rounding alone
            assert apart(ours[name], theirs[name]) < BF16, name
    leaking = stepped(objective("varlen", dtype=torch.float32), SAMPLES[::-1])
    assert apart(leaking["loss"], theirs["loss"]) > 3 * BF16  # the comparison can tell


@pytest.mark.usefixtures("_flash")
def test_float32_is_what_the_kernel_refuses() -> None:
    with pytest.raises(RuntimeError, match="only supports one of fp16 and bf16"):
        objective("varlen", dtype=torch.float32)(batch_of(SAMPLES))


def test_what_a_kernel_or_a_pytorch_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert attention.choose_attention("auto", cuda, "bfloat16") == "varlen"
    assert attention.choose_attention("auto", cuda, "float32") == "loop"
    assert attention.choose_attention("auto", cpu, "bfloat16") == "loop"
    assert attention.choose_attention("flex", cuda, "float32") == "flex"
    with pytest.raises(ValueError, match=r"attention=varlen: .* found dtype=float32\. Use dtype="):
        attention.choose_attention("varlen", cuda, "float32")
    for means in ("flex", "varlen"):
        with pytest.raises(ValueError, match=rf"attention={means} trains on CUDA only, found cpu"):
            attention.choose_attention(means, cpu, "bfloat16")

    def of_2_10(query: object, key: object, value: object, *, is_causal: bool = False) -> None: ...

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", of_2_10)
    assert attention.choose_attention("auto", cuda, "bfloat16") == "flex"
    with pytest.raises(ValueError, match=r"needs PyTorch 2.12, found PyTorch"):
        attention.choose_attention("varlen", cuda, "bfloat16")


class Waits(TorchDispatchMode):
    """Operators that make the host wait for the device, as they are called."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "is_nonzero")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func.overloadpacket.__name__
        if name in self.NAMES or name.startswith("unique"):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("_flash")
@pytest.mark.parametrize("samples", [SAMPLES, [SAMPLES[1], SAMPLES[4]]], ids=["images", "text"])
@pytest.mark.parametrize("neftune", [0.0, 5.0])
def test_no_number_is_asked_of_the_device_in_a_micro_batch(
    samples: list[dict], neftune: float
) -> None:
    made = objective("varlen", dtype=torch.float32, neftune=neftune, logits_chunk=7)
    checkpoint_activations(made.model, "both")
    made.train()
    batch = batch_of(samples)
    with Waits() as waits:
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = made(batch)
        loss.backward()
    assert waits.found == []
    with Waits() as waits:
        loss.item()
    assert waits.found == ["_local_scalar_dense"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without")  # as the plain one is
def test_layers_with_flex_are_compiled_whole_and_at_most_twice() -> None:
    """On the CPU without gradients, which flex has on CUDA alone."""
    from torch._dynamo.utils import counters

    plain, compiled = (objective("flex", dtype=torch.float32) for _ in range(2))
    counters.clear()
    for layer in compiled.model.model.text_model.layers:
        layer.compile(dynamic=True, fullgraph=True, backend="eager")
    graphs = []
    for number in range(5):
        kinds = ("image", "text", "images", "text", "image", "text")[: 2 + number]
        batch = batch_of([sample(10 * number + i, kind) for i, kind in enumerate(kinds)])
        with torch.no_grad():
            torch.testing.assert_close(compiled.hidden(batch), plain.hidden(batch))
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[1] == graphs[-1] <= 2 * len(compiled.model.model.text_model.layers)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # PyTorch asks for it itself
@pytest.mark.usefixtures("_flash")
def test_layers_are_compiled_whole_and_once_for_all_batches() -> None:
    """`fullgraph`: an attention outside the graph would raise; one graph: no batch is new to it."""
    from torch._dynamo.utils import counters

    plain = objective("varlen", dtype=torch.float32)
    compiled = objective("varlen", dtype=torch.float32)
    counters.clear()
    for layer in compiled.model.model.text_model.layers:
        layer.compile(dynamic=True, fullgraph=True, backend="aot_eager")
    graphs = []
    for number in range(4):
        kinds = ("image", "text", "images", "text", "image")[: 2 + number]
        batch = batch_of([sample(10 * number + i, kind) for i, kind in enumerate(kinds)])
        for each in (plain, compiled):
            with torch.autocast("cpu", torch.bfloat16):
                each(batch)[0].backward()
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[-1] > 0
    for (name, p), q in zip(plain.named_parameters(), compiled.parameters(), strict=True):
        if not name.endswith("k_proj.bias"):  # softmax is blind to it: rounding alone
            assert apart(q.grad, p.grad) < BF16, name  # type: ignore[arg-type]
    assert parallel.layers(compiled)
