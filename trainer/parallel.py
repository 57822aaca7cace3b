"""One process, DDP or FSDP2 under `torchrun` or Ray Train, on gloo (CPU) or nccl (CUDA)."""

import contextlib
import inspect
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, nn

from trainer.config import Config


@dataclass(frozen=True)
class World:
    """Who we are among how many, and what we run on."""

    rank: int
    ranks: int
    device: torch.device
    kind: str
    """one | ddp | fsdp"""

    @property
    def first(self) -> bool:
        """This process writes files and prints."""
        return self.rank == 0


@contextlib.contextmanager
def world(config: Config) -> Iterator[World]:
    """The processes that torchrun or Ray started, or this one alone; a group begun here is left."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    if config.device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device={config.device}: expected auto, cpu or cuda.")
    if cuda and not torch.cuda.is_available():
        raise ValueError("device=cuda: this PyTorch finds no CUDA device. Use device=cpu.")
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if config.threads:
        torch.set_num_threads(config.threads)
    if ranks == 1 and config.parallel != "fsdp":
        yield World(0, 1, device, "one")
        return
    if "MASTER_ADDR" not in os.environ:
        raise ValueError(
            "parallel=fsdp needs torchrun: torchrun --nproc-per-node=N -m trainer config=... "
            "data=..."
        )
    joined = distributed.is_initialized()  # Ray Train has done so, and leaves the group itself
    if not joined:
        distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield World(rank, ranks, device, "fsdp" if config.parallel == "fsdp" else "ddp")
    finally:
        if not joined:
            distributed.destroy_process_group()


def wrap(objective: nn.Module, here: World, config: Config) -> nn.Module:
    """The objective as the training loop calls it."""
    if config.compile:
        _compile_layers(objective)
    if here.kind == "ddp":
        from torch.nn.parallel import DistributedDataParallel

        # Buffers are constants, equal on all ranks; PyTorch 2.13 renamed what says so.
        known = inspect.signature(DistributedDataParallel).parameters
        constant: dict[str, Any] = {"forward_sync_buffers" if "forward_sync_buffers" in known
                    else "broadcast_buffers": False}  # fmt: skip
        return DistributedDataParallel(
            objective,
            device_ids=[here.device.index] if here.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            **constant,
        )
    if here.kind == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        mesh = init_device_mesh(here.device.type, (here.ranks,))
        bf16 = config.dtype == "bfloat16"
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if bf16 else None, reduce_dtype=torch.float32
        )
        for layer in layers(objective):
            fully_shard(layer, mesh=mesh, mp_policy=policy)
        fully_shard(objective, mesh=mesh, mp_policy=policy)
    return objective


def layers(objective: nn.Module) -> list[nn.Module]:
    """The encoder's and the decoder's blocks."""
    return [
        module
        for module in objective.modules()
        if type(module).__name__ in ("SmolVLMEncoderLayer", "LlamaDecoderLayer")
    ]


def _compile_layers(objective: nn.Module) -> None:
    for layer in layers(objective):
        layer.compile(dynamic=True)


def precision(here: World, config: Config) -> contextlib.AbstractContextManager[Any]:
    """Multiplications in bfloat16 where asked for; FSDP casts by itself."""
    if config.dtype == "bfloat16" and here.kind != "fsdp":
        return torch.autocast(here.device.type, torch.bfloat16)
    return contextlib.nullcontext()


def defer_gradient_exchange(wrapped: nn.Module, here: World, *, last: bool) -> Any:
    """Gradients are exchanged after the last micro-batch of a step only (DDP)."""
    if here.kind == "ddp" and not last:
        return wrapped.no_sync()  # type: ignore[operator]
    return contextlib.nullcontext()


def gather(here: World, value: Any) -> list[Any]:
    """What every rank passed, in rank order."""
    if here.kind == "one":
        return [value]
    values: list[Any] = [None] * here.ranks
    distributed.all_gather_object(values, value)
    return values


def barrier(here: World) -> None:
    """All ranks have come here afterwards."""
    if here.kind != "one":
        distributed.barrier()
