"""One process, DDP or FSDP2 under `torchrun` or Ray Train, on gloo (CPU) or nccl (CUDA)."""

import contextlib
import inspect
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, nn

from trainer.config import Config

GATHERED_SHARE = 1 / 8
"""Of a device's memory, up to which all weights stay gathered (2.2B in bfloat16: 4.5 GB)."""
LAYERS = ("SmolVLMEncoderLayer", "LlamaDecoderLayer")


@dataclass(frozen=True)
class World:
    """Who we are among how many, and what we run on."""

    rank: int
    ranks: int
    device: torch.device
    kind: str
    """one | ddp | fsdp"""
    control: Any = None
    """Group of the ranks on the CPU (gloo): what they agree on costs the device nothing."""
    writers: Any = None
    """The same once more, for the threads that write checkpoints beside the training."""

    @property
    def first(self) -> bool:
        """This process writes files and prints."""
        return self.rank == 0


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Torch computes in so many threads of the CPU inside (0: as it does), as before outside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def uses_cuda(device: str) -> bool:
    """Whether `device` (auto, cpu, cuda) is a GPU here.

    Raises:
        ValueError: it is another word, or a GPU that is not there.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device={device}: expected auto, cpu or cuda.")
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise ValueError("device=cuda: this PyTorch finds no CUDA device. Use device=cpu.")
    return device != "cpu" and there


@contextlib.contextmanager
def processes(config: Config) -> Iterator[World]:
    """The processes that torchrun or Ray started, or this one alone; a group begun here is left,
    and torch computes in `config.threads` inside.
    """
    with torch_threads(config.threads):
        yield from _processes(config)


def _processes(config: Config) -> Iterator[World]:
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = uses_cuda(config.device)
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
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
        control, writers = (distributed.new_group(backend="gloo") for _ in range(2))
        kind = "fsdp" if config.parallel == "fsdp" else "ddp"
        yield World(rank, ranks, device, kind, control, writers)
    finally:
        if not joined:
            distributed.destroy_process_group()


def wrap(objective: nn.Module, world: World, config: Config) -> nn.Module:
    """The objective as the training loop calls it."""
    if config.compile:
        _compile_layers(objective)
    if world.kind == "ddp":
        from torch.nn.parallel import DistributedDataParallel

        # Buffers are constants, equal on all ranks; PyTorch 2.13 renamed what says so.
        known = inspect.signature(DistributedDataParallel).parameters
        constant: dict[str, Any] = {"forward_sync_buffers" if "forward_sync_buffers" in known
                    else "broadcast_buffers": False}  # fmt: skip
        return DistributedDataParallel(
            objective,
            device_ids=[world.device.index] if world.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            **constant,
        )
    if world.kind == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        mesh = init_device_mesh(world.device.type, (world.ranks,))
        bf16 = config.dtype == "bfloat16"
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if bf16 else None, reduce_dtype=torch.float32
        )
        again = not stays_gathered(objective, world, config)
        blocks: list[Any] = layers(objective)
        for layer in blocks:
            fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=again)
        fully_shard(objective, mesh=mesh, mp_policy=policy)
        for layer, following in itertools.pairwise(blocks):
            layer.set_modules_to_forward_prefetch([following])
    return objective


def fill(objective: nn.Module, whole: nn.Module | None, world: World) -> None:
    """The shards of an objective that was wrapped on the meta device lie on this rank's device, and
    hold the weights and buffers of `whole`, which the first process has. All ranks call this.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    objective.to_empty(device=world.device)
    weights = whole.state_dict() if whole is not None else {}
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(objective, weights, options=options)
    # No state_dict holds the rotary frequencies and the like, which to_empty left at random.
    buffers = dict(whole.named_buffers()) if whole is not None else {}
    for name, buffer in objective.named_buffers():
        if buffers:
            buffer.copy_(buffers[name])
        distributed.broadcast(buffer, 0)


def stays_gathered(objective: nn.Module, world: World, config: Config) -> bool:
    """FSDP's ranks keep all weights from a step's first forward pass to its last backward pass."""
    if config.reshard != "auto":
        return config.reshard == "never"
    if world.device.type != "cuda":
        return True
    size = 2 if config.dtype == "bfloat16" else 4
    weights = sum(parameter.numel() for parameter in objective.parameters()) * size
    total = torch.cuda.get_device_properties(world.device).total_memory
    return weights <= GATHERED_SHARE * total


def layers(objective: nn.Module) -> list[nn.Module]:
    """The encoder's and the decoder's blocks; `fully_shard` puts FSDP before a class's name."""
    return [
        module
        for module in objective.modules()
        if type(module).__name__.removeprefix("FSDP") in LAYERS
    ]


def _compile_layers(objective: nn.Module) -> None:
    for layer in layers(objective):
        layer.compile(dynamic=True)


def precision(world: World, config: Config) -> contextlib.AbstractContextManager[Any]:
    """Multiplications in bfloat16 where asked for; FSDP casts by itself."""
    if config.dtype == "bfloat16" and world.kind != "fsdp":
        return torch.autocast(world.device.type, torch.bfloat16)
    return contextlib.nullcontext()


def defer_gradient_exchange(wrapped: Any, world: World, config: Config, *, last: bool) -> Any:
    """Gradients are exchanged after the last micro-batch of a step only."""
    if world.kind == "ddp" and not last:
        return wrapped.no_sync()
    if world.kind == "fsdp":
        wrapped.set_requires_gradient_sync(last)
        wrapped.set_is_last_backward(last)
        wrapped.set_reshard_after_backward(last or not stays_gathered(wrapped, world, config))
    return contextlib.nullcontext()


@contextlib.contextmanager
def inference(objective: Any, world: World, config: Config) -> Iterator[None]:
    """Every rank can generate alone inside: it holds all weights, in the run's precision.

    What is compiled for training runs as it is written: each length of a text that grows would be
    compiled anew. All ranks come here, and those without work too.
    """
    with precision(world, config), torch.compiler.set_stance("force_eager"):
        if world.kind != "fsdp":
            yield
            return
        from torch.distributed.fsdp import FSDPModule

        objective._get_fsdp_state()._lazy_init()  # else the first layer to run would be the root
        blocks: list[Any] = layers(objective)
        for layer in blocks:
            layer.set_reshard_after_forward(False, recurse=False)
        parts: list[Any] = [part for part in objective.modules() if isinstance(part, FSDPModule)]
        for part in parts:
            part.unshard()
        try:
            yield
        finally:
            for part in parts:
                part.reshard()
                # The order of forward passes is that in which the next backward pass gathers ahead;
                # ranks that did not generate would gather something else.
                for group in part._get_fsdp_state()._fsdp_param_groups:
                    group._post_forward_indices.clear()
                    group.comm_ctx.post_forward_order.clear()
            for layer in blocks:
                again = not stays_gathered(objective, world, config)
                layer.set_reshard_after_forward(again, recurse=False)


def leaving(world: World, asked: bool, *, last: bool) -> bool:
    """Some rank was asked to leave, and all ranks leave at a place where none waits for another.

    Before the `last` micro-batch of a step all ranks agree, once; one that was asked goes there at
    once, past its other micro-batches. FSDP's ranks compute each micro-batch together, so they
    agree before each.
    """
    if world.kind == "one" or (world.kind == "ddp" and not (asked or last)):
        return asked
    (votes,) = sums(world, [float(asked)])
    return votes > 0


def sums(world: World, values: list[float]) -> list[float]:
    """The sum of every value over the ranks."""
    if world.kind == "one":
        return values
    tensor = torch.tensor(values, dtype=torch.float64)
    distributed.all_reduce(tensor, group=world.control)
    return tensor.tolist()


def gather(world: World, value: Any) -> list[Any]:
    """What every rank passed, in rank order."""
    if world.kind == "one":
        return [value]
    values: list[Any] = [None] * world.ranks
    distributed.all_gather_object(values, value, group=world.control)
    return values


def barrier(world: World, group: Any = None) -> None:
    """All ranks have come here afterwards; a thread beside the training names its own `group`."""
    if world.kind != "one":
        distributed.barrier(group=group or world.control)
