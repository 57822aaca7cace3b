"""The sides of the benchmark of the loss agree, and what cannot run says why."""

import pytest
import torch
from torch import nn

from benchmarks import cross_entropy
from benchmarks.cross_entropy import Unavailable, error_of, gradients, loss_of

CPU = torch.device("cpu")


@pytest.mark.parametrize("side", ["ours", "whole", "torch"])
@pytest.mark.parametrize("tokens", [1, 40, 41])
def test_every_side_has_the_loss_and_gradients_of_the_definition(side: str, tokens: int) -> None:
    torch.manual_seed(1)
    head = nn.Linear(8, 50, bias=False)
    hidden, targets = torch.randn(tokens, 8), torch.randint(50, (tokens,))
    try:
        loss = loss_of(side, chunk=20, device=CPU)
    except Unavailable as why:
        pytest.skip(str(why))
    logits = hidden.double() @ head.weight.detach().double().T
    share = logits.softmax(1) - nn.functional.one_hot(targets, 50)
    exact = share @ head.weight.detach().double() / tokens, share.T @ hidden.double() / tokens
    mean, *found = gradients(loss, head, hidden, targets)
    assert mean == pytest.approx(
        float((logits.logsumexp(1) - logits[range(tokens), targets]).mean()), rel=1e-5
    )
    for ours, right in zip(found, exact, strict=True):
        assert error_of(ours, right) < 1e-5


def test_an_error_is_a_share_of_the_largest_value() -> None:
    exact = torch.tensor([1.0, -4.0], dtype=torch.float64)
    assert error_of(torch.tensor([1.0, -3.0]), exact) == 0.25


def test_its_form_for_a_cpu_prints_every_side(capsys: pytest.CaptureFixture[str]) -> None:
    cross_entropy.main(["device=cpu", "models=tiny", "tokens=32", "chunk=16", "repeats=1"])
    shown = capsys.readouterr().out
    rows = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
        for line in shown.splitlines()
        if line.startswith("| ")
    }
    assert set(cross_entropy.SIDES.values()) <= set(rows)
    assert rows["Liger, fused"][0] == "not run: Liger's kernels need a GPU (Triton)"
    assert rows["ours, chunked"][2] == rows["all logits at once"][2]  # the loss
    assert float(rows["ours, chunked"][0]) > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("side", list(cross_entropy.SIDES))
def test_on_a_gpu_every_side_is_as_exact_as_bfloat16(side: str) -> None:
    device = torch.device("cuda")
    given = cross_entropy.problem("tiny", tokens=256, device=device)
    try:
        loss = loss_of(side, chunk=100, device=device)
    except Unavailable as why:
        pytest.skip(str(why))
    head, hidden, targets = given
    wide = nn.Linear(head.in_features, head.out_features, bias=False, dtype=torch.float64)
    wide.load_state_dict({"weight": head.weight.double().cpu()})
    _, *right = gradients(cross_entropy.whole, wide.to(device), hidden.double(), targets)
    mean, *found = gradients(loss, *given)
    assert mean > 0
    assert all(error_of(a, b) < 0.03 for a, b in zip(found, right, strict=True))
