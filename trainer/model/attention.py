"""Causal attention inside each sample of a packed sequence, never across: four means, one result.

| name   | how                                              | where                       |
|--------|--------------------------------------------------|-----------------------------|
| loop   | scaled dot product per sample                    | anywhere; fastest on CPU    |
| sdpa   | transformers' block mask from the positions      | anywhere; T x T memory      |
| flex   | compiled block-sparse mask                       | CUDA; forward only on CPU   |
| varlen | flash attention with cumulative lengths          | CUDA, 16-bit types          |

No `attention_mask` and `use_cache=False` is the rule for all: otherwise `transformers` lets samples
see each other (measured: logits off by 0.5). Under autocast the rotary embeddings leave queries and
keys in float32 beside 16-bit values: all three go to the kernels in the type of the values.

`torch.compile` takes a layer with `varlen` (one operator, sizes as symbols) or `flex` (the mask is
made outside, once a batch) whole and at most twice for all batches. `loop` stays out of it: one
kernel a sample makes one graph for each number of samples. Of eight batches of 2 to 9 samples each
compiled two small layers anew (5 s each on a CPU, before any code was made), then PyTorch's
recompile_limit of 8 is used up.
Shapes: H heads, K key heads, T tokens, D head size.
"""

import inspect
from collections.abc import Callable
from functools import cache
from itertools import accumulate
from typing import Any

import torch
from torch.nn import functional
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

NAMES = ("loop", "sdpa", "flex", "varlen")


def register() -> None:
    """`transformers` knows our functions afterwards, as `packed_loop` and so on."""
    from transformers import AttentionInterface

    for name, function in (("loop", _loop), ("flex", _flex), ("varlen", _varlen)):
        AttentionInterface.register(f"packed_{name}", function)


def implementation(name: str) -> str:
    """The `attn_implementation` of `transformers` for one of NAMES."""
    return "sdpa" if name == "sdpa" else f"packed_{name}"


def has_varlen() -> bool:
    """This PyTorch's `varlen_attn` is causal by a window and groups key heads (2.12 and later)."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    return {"window_size", "enable_gqa"} <= set(inspect.signature(varlen_attn).parameters)


def choose_attention(name: str, device: torch.device, dtype: str) -> str:
    """`auto` resolved; ValueError where a means does not run on this device in this `dtype`."""
    flash = dtype == "bfloat16" and has_varlen()
    if name == "auto":
        if device.type != "cuda" or dtype != "bfloat16":
            return "loop"
        return "varlen" if flash else "flex"
    if name in ("flex", "varlen") and device.type != "cuda":
        raise ValueError(
            f"attention={name} trains on CUDA only, found {device.type}. Use attention=loop."
        )
    if name == "varlen" and not flash:
        found = f"dtype={dtype}" if dtype != "bfloat16" else f"PyTorch {torch.__version__}"
        raise ValueError(
            f"attention=varlen: its kernel takes 16-bit numbers and needs PyTorch 2.12, found "
            f"{found}. Use dtype=bfloat16, a newer PyTorch, or attention=flex."
        )
    return name


def arguments(implementation: str, seq_lengths: list[int], ends: torch.Tensor) -> dict[str, Any]:
    """What the layers pass on to the attention; `ends` [samples + 1] int32 lies on the device."""
    if implementation == "sdpa":
        return {}
    if implementation == "packed_flex":
        return {"block_mask": block_mask(ends, sum(seq_lengths))}
    if implementation == "packed_varlen":
        return {"ends": ends, "longest": max(seq_lengths)}
    return {"seq_lengths": torch.tensor(seq_lengths)}  # on the CPU: read without waiting


def ends_of(seq_lengths: list[int]) -> torch.Tensor:
    """[samples + 1] int32: where each sample ends, from 0."""
    return torch.tensor([0, *accumulate(seq_lengths)], dtype=torch.int32)


def _one_type(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return query.to(value.dtype), key.to(value.dtype), value


@torch.compiler.disable
def _loop(
    module: torch.nn.Module,
    query: torch.Tensor,  # [1, H, T, D]
    key: torch.Tensor,  # [1, K, T, D]
    value: torch.Tensor,  # [1, K, T, D]
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    seq_lengths: torch.Tensor,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    assert attention_mask is None
    query, key, value = _one_type(query, key, value)
    lengths = seq_lengths.tolist()
    pieces = [
        functional.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=True
        )
        for q, k, v in zip(
            query.split(lengths, 2),
            key.split(lengths, 2),
            value.split(lengths, 2),
            strict=True,
        )
    ]
    return torch.cat(pieces, dim=2).transpose(1, 2), None


def _flex(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    block_mask: Any,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    assert attention_mask is None
    query, key, value = _one_type(query, key, value)
    alone = query.is_cuda and not torch.compiler.is_compiling()  # else its layer is compiled
    kernel: Any = _compiled_flex() if alone else flex_attention
    output = kernel(query, key, value, block_mask=block_mask, scale=scaling, enable_gqa=True)
    return output.transpose(1, 2), None


def block_mask(ends: torch.Tensor, total: int) -> Any:
    """Which tokens of a batch see which, by blocks; made once for all layers, without waiting."""
    places = torch.arange(total, device=ends.device, dtype=ends.dtype)
    sample = torch.bucketize(places, ends[1:], right=True)  # [T]

    def same_and_before(
        batch: torch.Tensor, head: torch.Tensor, q: torch.Tensor, k: torch.Tensor
    ) -> torch.Tensor:
        return (sample[q] == sample[k]) & (q >= k)

    return create_block_mask(same_and_before, None, None, total, total, device=str(ends.device))


@cache
def _compiled_flex() -> Callable[..., Any]:
    return torch.compile(flex_attention, dynamic=True)


def _varlen(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    ends: torch.Tensor,
    longest: int,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    from torch.nn.attention.varlen import varlen_attn

    assert attention_mask is None
    query, key, value = _one_type(query, key, value)
    output: Any = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        ends,
        ends,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0),  # causal
        enable_gqa=True,
    )
    return output[None], None  # [1, T, H, D]
