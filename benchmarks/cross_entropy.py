"""The head and its cross entropy: ours beside all logits at once, PyTorch's and Liger's.

    python -m benchmarks.cross_entropy [models=256m,500m,2b2] [tokens=8192] [chunk=4096]
    python -m benchmarks.cross_entropy device=cpu models=tiny tokens=512 chunk=128

Forward and backward from hidden states to their gradient and the head's, in bfloat16 (float32 on a
CPU), over as many learned tokens as a micro-batch of long answers has:

| side  | what                                                                                  |
|-------|---------------------------------------------------------------------------------------|
| ours  | chunks of `chunk` tokens, logits computed again going back (`smolvlm.chunked_losses`) |
| whole | `cross_entropy` on all logits in float32                                              |
| torch | `linear_cross_entropy` of PyTorch 2.13 and later, chunked as it chooses               |
| liger | `LigerFusedLinearCrossEntropyLoss`: gradients in the forward pass; needs Triton       |

Ours gives every token its loss, by which samples and components are told apart; Liger's and
PyTorch's chunks give the sum. The error of a gradient is its largest difference from that of the
same numbers in float64, beside the largest gradient. Time is the median of `repeats`.
"""

import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from trainer.arguments import split_pairs
from trainer.config_file import load
from trainer.model.smolvlm import chunked_losses

DEFAULTS = {
    "models": "256m,500m,2b2", "tokens": "8192", "chunk": "4096", "repeats": "10", "device": "cuda",
}  # fmt: skip
SIDES = {
    "ours": "ours, chunked", "whole": "all logits at once", "torch": "PyTorch, chunked",
    "liger": "Liger, fused",
}  # fmt: skip
Loss = Callable[[nn.Linear, torch.Tensor, torch.Tensor], torch.Tensor]
"""Head, hidden states [N, E], targets [N] -> the sum of the losses."""


class Unavailable(Exception):
    """This side cannot run here; says why."""


def whole(head: nn.Linear, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """All logits exist at once, in float32 at least."""
    logits = head(hidden)
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return functional.cross_entropy(wide, targets, reduction="sum")


def loss_of(side: str, *, chunk: int, device: torch.device) -> Loss:
    """The side's function, or Unavailable."""
    if side == "ours":
        return lambda head, hidden, targets: chunked_losses(
            head, hidden, targets, chunk=chunk
        ).sum()
    if side == "whole":
        return whole
    if side == "torch":
        fused: Any = getattr(functional, "linear_cross_entropy", None)
        if fused is None:
            raise Unavailable(f"PyTorch {torch.__version__} has no linear_cross_entropy")
        options: Any = torch.nn.LinearCrossEntropyOptions  # type: ignore[attr-defined]
        return lambda head, hidden, targets: fused(
            hidden, head.weight, targets, reduction="sum", options=options()
        )
    if device.type != "cuda":
        raise Unavailable("Liger's kernels need a GPU (Triton)")
    try:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss
    except ImportError as error:
        raise Unavailable(f"pip install liger-kernel ({error})") from error
    liger: Any = LigerFusedLinearCrossEntropyLoss(reduction="sum")
    return lambda head, hidden, targets: liger(head.weight, hidden, targets)


def problem(
    model: str, *, tokens: int, device: torch.device
) -> tuple[nn.Linear, torch.Tensor, torch.Tensor]:
    """Head, hidden states and targets of the model's sizes, in what it is trained in."""
    language = load("tiny" if model == "tiny" else f"smolvlm_{model}", {}).model.language
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.manual_seed(0)
    head = nn.Linear(language.hidden_size, language.vocab_size, bias=False)
    nn.init.normal_(head.weight, std=0.02)
    hidden = torch.randn(tokens, language.hidden_size)
    targets = torch.randint(language.vocab_size, (tokens,))
    return head.to(device, dtype), hidden.to(device, dtype), targets.to(device)


def gradients(
    loss: Loss, head: nn.Linear, hidden: torch.Tensor, targets: torch.Tensor
) -> tuple[float, torch.Tensor, torch.Tensor]:
    """(loss, gradient of the hidden states, of the head's weight) of the mean over the tokens."""
    head.weight.grad, leaf = None, hidden.detach().requires_grad_()
    total = loss(head, leaf, targets) / len(targets)
    total.backward()
    assert leaf.grad is not None
    assert head.weight.grad is not None
    return total.item(), leaf.grad, head.weight.grad


def error_of(found: torch.Tensor, exact: torch.Tensor) -> float:
    """The largest difference, as a share of the largest exact value."""
    return float((found.double() - exact).abs().max() / exact.abs().max())


def measured(loss: Loss, given: tuple[Any, ...], *, repeats: int) -> tuple[float, float]:
    """(ms, GB that are allocated at the peak beside what was there; nan on a CPU)."""
    cuda = given[1].is_cuda
    gradients(loss, *given)  # kernels are compiled, memory is fetched
    seconds, peak = [], float("nan")
    for _ in range(repeats):
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        start = time.perf_counter()
        gradients(loss, *given)
        if cuda:
            torch.cuda.synchronize()
            peak = (torch.cuda.max_memory_allocated() - before) / 1e9
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds), peak


def table(model: str, options: dict[str, str]) -> None:
    """All sides of one model's head."""
    device = torch.device(options["device"])
    given = problem(model, tokens=int(options["tokens"]), device=device)
    head, hidden, targets = given
    exact = nn.Linear(head.in_features, head.out_features, bias=False, dtype=torch.float64)
    exact.to(device).load_state_dict({"weight": head.weight.double()})
    _, *right = gradients(
        loss_of("ours", chunk=1024, device=device), exact.to(device), hidden.double(), targets
    )
    print(f"\n{model}: {len(targets):,} learned tokens of {head.in_features:,} numbers, "
          f"{head.out_features:,} words, {str(hidden.dtype).removeprefix('torch.')}\n\n"
          "| | ms | GB | loss | error of the gradients: hidden states, head |\n|" + "---|" * 5,
          flush=True)  # fmt: skip
    for side, words in SIDES.items():
        try:
            loss = loss_of(side, chunk=int(options["chunk"]), device=device)
        except Unavailable as why:
            print(f"| {words} | not run: {why} |" + " |" * 3, flush=True)
            continue
        mean, *found = gradients(loss, *given)
        errors = [error_of(a, b) for a, b in zip(found, right, strict=True)]
        del found
        ms, peak = measured(loss, given, repeats=int(options["repeats"]))
        memory = "" if math.isnan(peak) else f"{peak:.2f}"
        print(f"| {words} | {ms:.1f} | {memory} | {mean:.5f} | {errors[0]:.1e}, "
              f"{errors[1]:.1e} |", flush=True)  # fmt: skip


def main(arguments: list[str]) -> None:
    options = DEFAULTS | split_pairs(arguments)
    if options["device"] == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            "error: this PyTorch finds no CUDA device. Its form for a CPU: "
            "python -m benchmarks.cross_entropy device=cpu models=tiny tokens=512 chunk=128"
        )
    for model in options["models"].split(","):
        table(model, options)


if __name__ == "__main__":
    main(sys.argv[1:])
