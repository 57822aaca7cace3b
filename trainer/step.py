"""Forward and backward of one optimizer step: the gradient of the global batch's mean loss.

```
micro-batches --objective--> losses (kept on the device) --backward--> gradients
                                 |
                                 +-- at the end, at once --> StepResult
```
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from trainer import parallel
from trainer.config import Config
from trainer.data.batches import Batch, Step, copied
from trainer.model.smolvlm import flops, passes
from trainer.parallel import World


@dataclass(frozen=True)
class SampleLosses:
    """The losses of a micro-batch's samples, without its pixels."""

    rows: list[str]
    sample_ids: list[str]
    sample_images: list[int]
    sample_learned: list[int]
    losses: torch.Tensor
    """[samples], sums over each one's learned tokens; on the device until somebody asks."""

    @classmethod
    def of(cls, batch: Batch, losses: torch.Tensor) -> "SampleLosses":
        """The losses of this batch's samples."""
        return cls(batch.rows, batch.sample_ids, batch.sample_images, batch.sample_learned, losses)


@dataclass(frozen=True)
class StepResult:
    """What a step's passes leave besides the gradients."""

    loss: float
    """Mean per learned token of the global batch."""
    tokens: int
    """Of the global batch."""
    num_learned: int
    """Of the global batch."""
    samples: list[SampleLosses]
    """Of this rank, like what follows."""
    crops: int
    flops: float
    waited: float
    """s, for data."""
    seconds: float


def refuse_blindness(
    objective: nn.Module, config: Config, world: World, *, image_token: int
) -> None:
    """The loss of the tokens of an image changes with its pixels, or ValueError: all ranks call.

    transformers 5.0 to 5.17 take the encoded images of this trainer without a word and leave them
    out: the same loss whatever is seen, and no gradient in the encoder.
    """
    count, size = config.model.tokens_per_crop, config.model.vision.image_size
    ids = torch.full((1, count + 1), image_token)
    ids[0, -1] = 0
    shades = torch.arange(size * size * 3).reshape(1, size, size, 3) // 7 % 256
    pixels = shades.to(torch.uint8)
    losses = []
    training = objective.training
    objective.eval()
    for seen in (pixels, 255 - pixels):
        batch = Batch(
            input_ids=ids,
            position_ids=torch.arange(count + 1)[None],
            pixels=seen,
            image_places=torch.arange(count),
            ends=torch.tensor([0, count + 1], dtype=torch.int32),
            predictors=torch.arange(count),
            targets=torch.zeros(count, dtype=torch.int64),
            owners=torch.zeros(count, dtype=torch.int64),
            seq_lengths=[count + 1],
            sample_ids=["check"],
        )
        with torch.no_grad(), parallel.precision(world, config):
            losses.append(objective(batch.to(world.device))[0].item())
    objective.train(training)
    if losses[0] == losses[1]:
        import transformers

        raise ValueError(
            f"transformers {transformers.__version__}: the loss is {losses[0]} for one image and "
            "for its negative, so nothing would be learned from images.\nexpected: transformers "
            "5.18 or later\nway out: pip install --upgrade transformers."
        )


def timed(batches: Iterator[Batch], waits: list[float]) -> Iterator[Batch]:
    """The batches; how long each was waited for (s) is added to `waits`."""
    while True:
        began = time.perf_counter()
        batch = next(batches, None)
        waits.append(time.perf_counter() - began)
        if batch is None:
            return
        yield batch


def forward_backward(
    objective: nn.Module,
    plan: Step,
    batches: Iterator[Batch],
    config: Config,
    world: World,
    *,
    sigterm: Sequence[int],
) -> StepResult | None:
    """The parameters hold the gradient of the global batch's mean loss. All ranks call this.

    None where SIGTERM has come to one of the ranks: the step is given up, its gradients are waste.
    """
    began = time.perf_counter()
    work = passes(config.optim.freeze, adapted=config.adapter.rank > 0)
    losses: list[torch.Tensor] = []
    samples: list[SampleLosses] = []
    tokens = crops = 0
    operations = 0.0
    waits: list[float] = []
    arriving = copied(timed(batches, waits), world.device)
    for number in range(plan.num_batches):
        last = number == plan.num_batches - 1
        if parallel.leaving(world, bool(sigterm), last=last):
            return None
        batch = next(arriving)
        with parallel.defer_gradient_exchange(objective, world, config, last=last):
            with parallel.precision(world, config):
                loss, per_sample = objective(batch)
            # Ranks average their gradients; the loss is a sum over all, hence `ranks`.
            (loss * (world.ranks / max(1, plan.num_learned))).backward()
        losses.append(loss.detach().double())
        tokens += batch.input_ids.numel()
        crops += len(batch.pixels)
        operations += flops(config.model, **batch.sizes, passes=work)
        samples.append(SampleLosses.of(batch, per_sample))
    total, all_tokens = parallel.sums(world, [torch.stack(losses).sum().item(), float(tokens)])
    return StepResult(
        loss=total / max(1, plan.num_learned),
        tokens=round(all_tokens),
        num_learned=plan.num_learned,
        samples=samples,
        crops=crops,
        flops=operations,
        waited=sum(waits),
        seconds=time.perf_counter() - began,
    )
