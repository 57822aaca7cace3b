"""Packed rows -> micro-batches.

```
position (one integer) --order--> row of a shard --crops--> tensors
```

A micro-batch is *one* sequence: its rows are laid end to end, without padding. Shapes:
T tokens, C crops, S px a side, L learned tokens.
"""

import collections
import itertools
import math
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch

from tokenization.images import crop_pixels as crops
from trainer.config import Config
from trainer.data.order import Order, shards_of_a_run, share_out
from trainer.data.shards import SIZES, Row, Rows, open_mixtures, predicted_mask

FETCHERS = 4
"""Shards that are read from URLs at a time."""


@dataclass(frozen=True)
class Batch:
    """A micro-batch, ready for the model."""

    input_ids: torch.Tensor  # [1, T] int64
    position_ids: torch.Tensor  # [1, T] int64, from 0 at every sample
    pixels: torch.Tensor  # [C, S, S, 3] uint8
    image_places: torch.Tensor  # [C x tokens per crop] int64: where the image tokens stand
    ends: torch.Tensor  # [samples + 1] int32: where each sample ends, from 0
    predictors: torch.Tensor  # [L] int64: token i + 1 is learned from i
    targets: torch.Tensor  # [L] int64
    owners: torch.Tensor  # [L] int64: number of the sample in this batch
    seq_lengths: list[int]
    sample_ids: list[str]
    rows: list[str] = field(default_factory=list)  # "mixture/row", for reports
    sample_images: list[int] = field(default_factory=list)  # images per sample
    sample_learned: list[int] = field(default_factory=list)  # learned tokens per sample

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on `device`."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> "Batch":
        """The same batch in memory from which CUDA copies beside other work."""
        return self._with(torch.Tensor.pin_memory)

    def _with(self, move: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        moved: dict[str, Any] = {
            name: move(value)
            for name, value in vars(self).items()
            if isinstance(value, torch.Tensor)
        }
        return replace(self, **moved)

    @property
    def sizes(self) -> dict[str, int]:
        """What it costs, by the names of `shards.SIZES`."""
        return {
            "tokens": self.input_ids.numel(),
            "pairs": sum(length**2 for length in self.seq_lengths),
            "crops": len(self.pixels),
            "learned": len(self.targets),
        }


@dataclass(frozen=True)
class Step:
    """What one optimizer step trains on, on this rank."""

    position: int
    num_learned: int
    """Learned tokens of the whole global batch: the loss's denominator."""
    num_batches: int
    rows: list[str]


def images_per_sample(
    is_image: np.ndarray,
    seq_lengths: np.ndarray,
    grids: Sequence[tuple[int, int]],
    *,
    tokens_per_crop: int,
) -> np.ndarray:
    """How many images each sample holds: those that end within the image tokens to its end."""
    owners = np.repeat(np.arange(len(seq_lengths)), seq_lengths)
    ends = np.cumsum([rows * cols + 1 for rows, cols in grids]) * tokens_per_crop
    upto = np.cumsum(np.bincount(owners[is_image], minlength=len(seq_lengths)))
    return np.diff(np.searchsorted(ends, upto, side="right"), prepend=0)


def collate(packed: Sequence[Row], *, image_token: int) -> Batch:
    """The rows end to end as one micro-batch. Images are decoded and cut here."""
    size, tokens = packed[0].encoding.crop_size, packed[0].encoding.tokens_per_crop
    pixels = np.empty((sum(row.num_crops for row in packed), size, size, 3), dtype=np.uint8)
    filled = 0
    for row in packed:
        for image, grid in zip(row.images, row.grids, strict=True):
            piece = crops(image, *grid, encoding=row.encoding)
            pixels[filled : filled + len(piece)] = piece
            filled += len(piece)
    input_ids = np.concatenate([row.input_ids for row in packed]).astype(np.int64)
    seq_lengths = np.concatenate([row.seq_lengths for row in packed])
    mask = np.concatenate([predicted_mask(row.loss_mask, row.seq_lengths) for row in packed])
    targets = np.flatnonzero(mask)
    owners = np.repeat(np.arange(len(seq_lengths)), seq_lengths)
    positions = np.arange(len(input_ids)) - np.repeat(
        np.cumsum(seq_lengths) - seq_lengths, seq_lengths
    )
    is_image = input_ids == image_token
    expected = int(is_image.sum())
    if expected != filled * tokens:
        raise ValueError(
            f"rows {[f'{row.mixture}/{row.number}' for row in packed]} "
            f"(samples {packed[0].sample_ids[:3]}...): {expected} image tokens, but "
            f"{filled} crops x {tokens} tokens. The shards break their contract."
        )
    sample_images = images_per_sample(
        is_image,
        seq_lengths,
        [grid for row in packed for grid in row.grids],
        tokens_per_crop=tokens,
    )
    return Batch(
        input_ids=torch.from_numpy(input_ids)[None],
        position_ids=torch.from_numpy(positions)[None],
        pixels=torch.from_numpy(pixels),
        image_places=torch.from_numpy(np.flatnonzero(is_image)),
        ends=torch.from_numpy(np.cumsum([0, *seq_lengths], dtype=np.int32)),
        predictors=torch.from_numpy(targets - 1),
        targets=torch.from_numpy(input_ids[targets]),
        owners=torch.from_numpy(owners[targets]),
        seq_lengths=seq_lengths.tolist(),
        sample_ids=[name for row in packed for name in row.sample_ids],
        rows=[f"{row.mixture}/{row.number}" for row in packed],
        sample_images=sample_images.tolist(),
        sample_learned=np.bincount(owners[targets], minlength=len(seq_lengths)).tolist(),
    )


def prefetch_distance(splits: Sequence[Rows], config: Config) -> int:
    """Positions ahead of the step at which shards at URLs are asked for; 0: not before the step.

    Half of the rows whose shards are at hand (`shuffle_shards`; where rows keep their order, the
    shards that a run of `shuffle_rows` lies in), where the cache has room for as many again.

    Raises:
        ValueError: the cache cannot hold the shards whose rows are shuffled with each other.
    """
    remote = [rows for rows in splits if rows.mixture.remote is not None]
    if not remote:
        return 0
    at_once = [
        shards_of_a_run(rows.shard_rows, config.shuffle_rows)
        if rows.mixture.on_schedule
        else min(config.shuffle_shards or len(rows.shards), len(rows.shards))
        for rows in remote
    ]

    def held(windows: int) -> int:
        sizes = [
            sorted(rows.shard_bytes)[-windows * count :]
            for rows, count in zip(remote, at_once, strict=True)
        ]
        return sum(map(sum, sizes))

    if config.cache_bytes and held(1) > config.cache_bytes:
        counts = ", ".join(
            f"{count} of {rows.mixture.name}" for rows, count in zip(remote, at_once, strict=True)
        )
        raise ValueError(
            f"cache_bytes is {config.cache_bytes:,}, but the shards whose rows are shuffled with "
            f"each other ({counts}) have {held(1):,} bytes.\nway out: set cache_bytes to that, or "
            "shuffle fewer at a time: shuffle_shards below that number, or, where ratios follow a "
            "schedule, fewer shuffle_rows."
        )
    if config.cache_bytes and held(2) > config.cache_bytes:
        return 0
    rows_at_hand = [sum(rows.shard_rows[:n]) for rows, n in zip(remote, at_once, strict=True)]
    return max(config.batch_rows, min(rows_at_hand) // 2)


def cores() -> int:
    """Cores that this process may use, its share where several ranks run on this machine."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, own // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


Task = TypeVar("Task")
Made = TypeVar("Made")


def made_ahead(
    tasks: Iterable[Task], make: Callable[[Task], Made], *, workers: int, ahead: int
) -> Iterator[Made]:
    """`make` of each task in order, by threads; at most `ahead` are made and not yet taken.

    One more thread reads `tasks`, so that planning does not hold up who takes what is made. Pillow
    lets go of the interpreter while it decodes and resizes, so threads suffice and no pixel is
    copied between processes.
    """
    pool = ThreadPoolExecutor(workers, "crops")
    room, leaving = threading.Semaphore(ahead), threading.Event()
    line: queue.SimpleQueue[Future[Made] | None] = queue.SimpleQueue()

    def feed() -> None:
        try:
            for task in tasks:
                room.acquire()
                if leaving.is_set():
                    return
                line.put(pool.submit(make, task))
            line.put(None)
        except BaseException as error:  # raised again where the batch is asked for
            failed: Future[Made] = Future()
            failed.set_exception(error)
            line.put(failed)

    feeder = threading.Thread(target=feed, name="plan", daemon=True)
    feeder.start()
    try:
        while (future := line.get()) is not None:
            made = future.result()
            room.release()
            yield made
    finally:
        leaving.set()
        room.release()
        feeder.join()
        pool.shutdown(wait=True, cancel_futures=True)


def copied(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches on `device`: on CUDA by a stream beside the one that computes.

    Nothing waits for a copy but the device. The next but one batch waits until this one has been
    computed, so that no more than two lie in the device's memory.
    """
    if device.type != "cuda":
        yield from (batch.to(device) for batch in batches)
        return
    beside, computed = torch.cuda.Stream(device), collections.deque[torch.cuda.Event]()
    for batch in batches:
        if len(computed) == 2:
            computed.popleft().synchronize()
        now = torch.cuda.current_stream(device)
        with torch.cuda.stream(beside):
            moved = batch.to(device)
        now.wait_stream(beside)
        for tensor in vars(moved).values():
            if isinstance(tensor, torch.Tensor):
                tensor.record_stream(now)
        yield moved
        del moved
        done = torch.cuda.Event()
        done.record(now)
        computed.append(done)


class Loader:
    """Steps and their micro-batches for one rank, made ahead by threads, at most `prefetch`."""

    def __init__(
        self,
        config: Config,
        *,
        image_token: int,
        rank: int = 0,
        ranks: int = 1,
        cost: Callable[..., np.ndarray],
        pin: bool = False,
    ) -> None:
        """`cost` takes an array each of `shards.SIZES`; `pin`: batches come in pinned memory."""
        self.splits = [Rows(mixture, "train") for mixture in open_mixtures(config)]
        self.weights = list(config.data.values())
        self.order = Order(
            [rows.shard_rows for rows in self.splits], self.weights, config.seed,
            window=config.shuffle_shards, rows_mixed=config.shuffle_rows,
            on_schedule=[rows.mixture.on_schedule for rows in self.splits],
        )  # fmt: skip
        self.config, self.image_token, self.cost, self.pin = config, image_token, cost, pin
        self.rank, self.ranks = rank, ranks
        self.ahead = prefetch_distance(self.splits, config)
        self.fetcher = ThreadPoolExecutor(FETCHERS, "shards")
        self.coming: dict[tuple[int, int], Future[Path]] = {}
        if config.batch_rows % ranks:
            raise ValueError(
                f"batch_rows is {config.batch_rows}, not a multiple of the {ranks} ranks. "
                f"Set batch_rows={-(-config.batch_rows // ranks) * ranks}."
            )

    @property
    def rows_per_epoch(self) -> int:
        """Rows until the mixture that is used up first has been seen once."""
        total = sum(self.weights)
        return round(
            min(len(r) * total / w for r, w in zip(self.splits, self.weights, strict=True))
        )

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole run: `steps`, or what `epochs` take."""
        rows = self.config.epochs * self.rows_per_epoch
        return self.config.steps or max(1, math.ceil(rows / self.config.batch_rows))

    def epochs(self) -> list[float]:
        """How often the whole run sees the rows of each mixture."""
        rows = self.num_steps * self.config.batch_rows
        total = sum(self.weights)
        return [
            rows * weight / total / len(split)
            for split, weight in zip(self.splits, self.weights, strict=True)
        ]

    def step_flops(self, position: int) -> float:
        """Modelled operations of the global batch at a position."""
        sizes = self._sizes(self.order.rows(position, self.config.batch_rows))
        return float(np.sum(self.cost(**dict(zip(SIZES, sizes.T, strict=True)))))

    def _sizes(self, chosen: Sequence[tuple[int, int]]) -> np.ndarray:
        return np.stack([self.splits[m].sizes(number) for m, number in chosen])

    def plan(self, position: int) -> tuple[Step, list[list[tuple[int, int]]]]:
        """The step at a position and this rank's rows per micro-batch; reads no image."""
        chosen = self.order.rows(position, self.config.batch_rows)
        self._fetch(position, chosen)
        sizes = self._sizes(chosen)
        costs = self.cost(**dict(zip(SIZES, sizes.T, strict=True)))
        mine = share_out(
            costs.tolist(), sizes[:, 0].tolist(), self.ranks, micro_rows=self.config.micro_rows
        )[self.rank]
        groups = [[chosen[i] for i in group] for group in mine]
        step = Step(
            position=position,
            num_learned=int(sizes[:, SIZES.index("learned")].sum()),
            num_batches=len(groups),
            rows=[f"{self.splits[m].mixture.name}/{number}" for m, number in chosen],
        )
        return step, groups

    def _fetch(self, position: int, chosen: Sequence[tuple[int, int]]) -> None:
        """The shards of these rows are here; those of rows further on are on their way."""
        if all(rows.mixture.remote is None for rows in self.splits):
            return
        now = self._shards(chosen)
        later = set()
        if self.ahead:
            later = self._shards(self.order.rows(position + self.ahead, self.config.batch_rows))
        for shard in [*now, *(later - now)]:
            if shard not in self.coming:
                self.coming[shard] = self.fetcher.submit(self.splits[shard[0]].fetch, shard[1])
        for shard in [s for s, future in self.coming.items() if s in now or future.done()]:
            self.coming.pop(shard).result()

    def _shards(self, chosen: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
        return {(m, self.splits[m].shard_of(number)) for m, number in chosen}

    def make(self, group: Sequence[tuple[int, int]]) -> Batch:
        """One micro-batch."""
        batch = collate(
            [self.splits[m][number] for m, number in group], image_token=self.image_token
        )
        return batch.pinned() if self.pin else batch

    def steps(self, position: int, count: int) -> Iterator[tuple[Step, Iterator[Batch]]]:
        """`count` steps from a position on; each step's micro-batches must be consumed in order."""
        line: Iterator[Step | Batch] = made_ahead(
            self._tasks(position, count),
            lambda task: task if isinstance(task, Step) else self.make(task),
            **threads(self.config),
        )
        for step in line:
            assert isinstance(step, Step)
            yield step, itertools.islice(cast(Iterator[Batch], line), step.num_batches)

    def _tasks(self, position: int, count: int) -> Iterator[Step | list[tuple[int, int]]]:
        for number in range(count):
            step, groups = self.plan(position + number * self.config.batch_rows)
            yield step
            yield from groups


def threads(config: Config) -> dict[str, int]:
    """How many threads make batches, and how many batches may lie ready."""
    workers = config.workers or cores()
    return {"workers": workers, "ahead": config.prefetch or workers + 2}
