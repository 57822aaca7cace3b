"""Packed rows -> micro-batches.

```
position (one integer) --order--> row of a shard --crops--> tensors
```

A micro-batch is *one* sequence: its rows are laid end to end, without padding. Shapes:
T tokens, C crops, S px a side, L learned tokens.
"""

import collections
import concurrent.futures
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch

from tokenization.images import crop_pixels as crops
from trainer.config import Config
from trainer.data.order import row_at, share_out
from trainer.data.shards import Row, Rows, open_mixtures, predicted_mask

FETCHERS = 4
"""Shards that are read from URLs at a time."""


@dataclass(frozen=True)
class Batch:
    """A micro-batch, ready for the model."""

    input_ids: torch.Tensor  # [1, T] int64
    position_ids: torch.Tensor  # [1, T] int64, from 0 at every sample
    pixels: torch.Tensor  # [C, S, S, 3] uint8
    predictors: torch.Tensor  # [L] int64: token i + 1 is learned from i
    targets: torch.Tensor  # [L] int64
    owners: torch.Tensor  # [L] int64: number of the sample in this batch
    seq_lengths: list[int]
    sample_ids: list[str]
    rows: list[str] = field(default_factory=list)  # "mixture/row", for reports
    sample_images: list[int] = field(default_factory=list)  # images per sample

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on `device`."""
        moved = {
            f.name: getattr(self, f.name).to(device, non_blocking=True)
            for f in fields(self)
            if isinstance(getattr(self, f.name), torch.Tensor)
        }
        return replace(self, **moved)


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
    expected = int((input_ids == image_token).sum())
    if expected != filled * tokens:
        raise ValueError(
            f"rows {[f'{row.mixture}/{row.number}' for row in packed]} "
            f"(samples {packed[0].sample_ids[:3]}...): {expected} image tokens, but "
            f"{filled} crops x {tokens} tokens. The shards break their contract."
        )
    sample_images = images_per_sample(
        input_ids == image_token,
        seq_lengths,
        [grid for row in packed for grid in row.grids],
        tokens_per_crop=tokens,
    )
    return Batch(
        input_ids=torch.from_numpy(input_ids)[None],
        position_ids=torch.from_numpy(positions)[None],
        pixels=torch.from_numpy(pixels),
        predictors=torch.from_numpy(targets - 1),
        targets=torch.from_numpy(input_ids[targets]),
        owners=torch.from_numpy(owners[targets]),
        seq_lengths=seq_lengths.tolist(),
        sample_ids=[name for row in packed for name in row.sample_ids],
        rows=[f"{row.mixture}/{row.number}" for row in packed],
        sample_images=sample_images.tolist(),
    )


def prefetch_distance(splits: Sequence[Rows], config: Config) -> int:
    """Positions ahead of the step at which shards at URLs are asked for; 0: not before the step.

    Half a window of `shuffle_shards`, where the cache has room for the next one too.

    Raises:
        ValueError: the cache cannot hold the shards whose rows are shuffled with each other.
    """
    remote = [rows for rows in splits if rows.mixture.remote is not None]
    if not remote:
        return 0
    most = max(len(rows.shards) for rows in remote)
    window = min(config.shuffle_shards or most, most)

    def held(windows: int) -> int:
        sizes = [sorted(rows.shard_bytes)[-windows * window :] for rows in remote]
        return sum(map(sum, sizes))

    if config.cache_bytes and held(1) > config.cache_bytes:
        raise ValueError(
            f"cache_bytes is {config.cache_bytes:,}, but the shards whose rows are shuffled with "
            f"each other ({window} of each mixture) have {held(1):,} bytes. Set cache_bytes to "
            f"that, or shuffle_shards below {window} to shuffle fewer at a time."
        )
    if config.cache_bytes and held(2) > config.cache_bytes:
        return 0
    rows_of_window = min(sum(rows.shard_rows[:window]) for rows in remote)
    return max(config.batch_rows, rows_of_window // 2)


class Loader:
    """Steps and their micro-batches for one rank, made ahead by threads, at most `prefetch`.

    Pillow lets go of the interpreter while it decodes and resizes, so threads suffice and no pixel
    is copied between processes.
    """

    def __init__(
        self,
        config: Config,
        *,
        image_token: int,
        rank: int = 0,
        ranks: int = 1,
        cost: Callable[[np.ndarray, int, int], float],
    ) -> None:
        self.splits = [Rows(mixture, "train") for mixture in open_mixtures(config)]
        self.weights = list(config.data.values())
        self.config, self.image_token, self.cost = config, image_token, cost
        self.rank, self.ranks = rank, ranks
        self.ahead = prefetch_distance(self.splits, config)
        self.fetcher = concurrent.futures.ThreadPoolExecutor(FETCHERS, "shards")
        self.coming: dict[tuple[int, int], concurrent.futures.Future[Path]] = {}
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

    def plan(self, position: int) -> tuple[Step, list[list[tuple[int, int]]]]:
        """The step at a position and this rank's rows per micro-batch; reads no image."""
        chosen = self._rows(position)
        self._fetch(position, chosen)
        measured = [self.splits[m].lengths(number) for m, number in chosen]
        costs = [self.cost(*each) for each in measured]
        mine = share_out(costs, self.ranks)[self.rank]
        size = self.config.micro_rows
        groups = [[chosen[i] for i in mine[at : at + size]] for at in range(0, len(mine), size)]
        step = Step(
            position=position,
            num_learned=sum(each[2] for each in measured),
            num_batches=len(groups),
            rows=[f"{self.splits[m].mixture.name}/{number}" for m, number in chosen],
        )
        return step, groups

    def _rows(self, position: int) -> list[tuple[int, int]]:
        shards = [rows.shard_rows for rows in self.splits]
        seed, window = self.config.seed, self.config.shuffle_shards
        return [
            row_at(p, shards, self.weights, seed, window=window)
            for p in range(position, position + self.config.batch_rows)
        ]

    def _fetch(self, position: int, chosen: Sequence[tuple[int, int]]) -> None:
        """The shards of these rows are here; those of rows further on are on their way."""
        if all(rows.mixture.remote is None for rows in self.splits):
            return
        now = self._shards(chosen)
        later = self._shards(self._rows(position + self.ahead)) if self.ahead else set()
        for shard in [*now, *(later - now)]:
            if shard not in self.coming:
                self.coming[shard] = self.fetcher.submit(self.splits[shard[0]].fetch, shard[1])
        for shard in [s for s, future in self.coming.items() if s in now or future.done()]:
            self.coming.pop(shard).result()

    def _shards(self, chosen: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
        return {(m, self.splits[m].shard_of(number)) for m, number in chosen}

    def make(self, group: Sequence[tuple[int, int]]) -> Batch:
        """One micro-batch."""
        rows = [self.splits[m][number] for m, number in group]
        return collate(rows, image_token=self.image_token)

    def steps(self, position: int, count: int) -> Iterator[tuple[Step, Iterator[Batch]]]:
        """`count` steps from a position on; each step's micro-batches must be consumed in order."""
        planned: collections.deque[Step] = collections.deque()
        pending: collections.deque[concurrent.futures.Future[Batch]] = collections.deque()
        source = self._tasks(position, count, planned)
        pool = concurrent.futures.ThreadPoolExecutor(self.config.workers, "crops")
        lock = threading.Lock()

        def fill() -> None:
            with lock:
                while len(pending) < self.config.prefetch:
                    group = next(source, None)
                    if group is None:
                        return
                    pending.append(pool.submit(self.make, group))

        def batches(step: Step) -> Iterator[Batch]:
            for _ in range(step.num_batches):
                fill()
                batch = pending.popleft().result()
                fill()
                yield batch

        try:
            for _ in range(count):
                fill()
                step = planned.popleft()
                yield step, batches(step)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _tasks(
        self, position: int, count: int, planned: collections.deque[Step]
    ) -> Iterator[list[tuple[int, int]]]:
        for number in range(count):
            step, groups = self.plan(position + number * self.config.batch_rows)
            planned.append(step)
            yield from groups
