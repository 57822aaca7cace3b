"""A stand-in for the flash kernel of `torch.nn.attention.varlen`, on the CPU.

PyTorch's own operator, its checks, its autograd and its fake kernel run; only what CUDA computes is
computed here. As the kernel does, it takes one 16-bit type for queries, keys and values.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch


def _weights(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(queries, keys, values, scores) of one sample [H, T, D], [H, T, T] in float32."""
    groups = query.shape[1] // key.shape[1]
    q, k, v = (each.float().transpose(0, 1) for each in (query, key, value))
    k, v = k.repeat_interleave(groups, 0), v.repeat_interleave(groups, 0)
    later = torch.ones(q.shape[1], q.shape[1], dtype=torch.bool).triu(1)
    return q, k, v, (q @ k.mT * scale).masked_fill(later, -torch.inf)


def _forward(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, ends: torch.Tensor,
    ends_k: torch.Tensor, longest: int, longest_k: int, is_causal: bool = False,
    scale: float | None = None, window_size: list[int] | None = None, enable_gqa: bool = False,
    seqused_k: torch.Tensor | None = None, block_table: torch.Tensor | None = None,
    num_splits: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    kinds = {query.dtype, key.dtype, value.dtype}
    if len(kinds) != 1 or not kinds <= {torch.bfloat16, torch.float16}:
        raise RuntimeError(f"FlashAttention only supports one of fp16 and bf16, found {kinds}")
    assert is_causal
    assert scale is not None
    assert ends.dtype == torch.int32
    sizes = [b - a for a, b in pairwise(ends.tolist())]
    assert (sum(sizes), max(sizes)) == (len(query), longest)
    made, sums = [], []
    for a, b in pairwise(ends.tolist()):
        _, _, v, scores = _weights(query[a:b], key[a:b], value[a:b], scale)
        made.append((scores.softmax(-1) @ v).transpose(0, 1))
        sums.append(scores.logsumexp(-1))
    random = torch.zeros(2, dtype=torch.uint64)
    return torch.cat(made).to(query.dtype), torch.cat(sums, 1), random


def _backward(
    gradient: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    out: torch.Tensor, sums: torch.Tensor, ends: torch.Tensor, ends_k: torch.Tensor, longest: int,
    longest_k: int, is_causal: bool, random: torch.Tensor, scale: float | None = None,
    window_size: list[int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    assert scale is not None
    heads = key.shape[1]
    gradients: tuple[list[torch.Tensor], ...] = ([], [], [])
    for a, b in pairwise(ends.tolist()):
        q, k, v, scores = _weights(query[a:b], key[a:b], value[a:b], scale)
        given = gradient[a:b].float().transpose(0, 1)
        weights = scores.softmax(-1)
        wanted = given @ v.mT
        inner = weights * (wanted - (wanted * weights).sum(-1, keepdim=True)) * scale
        for found, of in zip(gradients, (inner @ k, inner.mT @ q, weights.mT @ given), strict=True):
            found.append(of.transpose(0, 1))
    whole = [torch.cat(found) for found in gradients]
    of_keys = [each.unflatten(1, (heads, -1)).sum(2) for each in whole[1:]]
    return (whole[0].to(query.dtype), of_keys[0].to(query.dtype), of_keys[1].to(query.dtype))


@contextmanager
def on_cpu() -> Iterator[None]:
    """`varlen_attn` runs on the CPU inside."""
    from torch.nn.attention import varlen  # which PyTorch 2.6 has not

    kernels = ((varlen._varlen_attn, _forward), (varlen._varlen_attn_backward, _backward))
    for operator, kernel in kernels:
        operator.register_kernel("cpu")(kernel)
    try:
        yield
    finally:
        for operator, _ in kernels:
            operator.set_kernel_enabled("cpu", False).__enter__()
