"""Shards -> micro-batches.

```
position (one integer) --order--> row of a shard --crops--> tensors
```

The row at a position is a pure function of (seed, position), so the same global order is trained
on 1, 2 or 4 ranks, and a run goes on from its position after any change of their number. A step
takes the positions [p, p + batch_rows); the ranks share these rows out by modelled cost.

A micro-batch is *one* sequence: its rows are laid end to end, without padding. Shapes:
T tokens, C crops, S px a side, L learned tokens.
"""

import collections
import concurrent.futures
import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from tokenization.images import pixels as crops
from tokenization.schema import Encoding

from .config import Config, did_you_mean

MIX_BLOCK = 1000
"""Positions in which a list of mixtures holds its weights exactly (to one row)."""


@dataclass(frozen=True)
class Mixture:
    """A finished mixture on disk."""

    folder: Path
    name: str
    fingerprint: str
    encoding: Encoding
    recipe: dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One packed row, still encoded."""

    mixture: str
    number: int
    encoding: Encoding
    input_ids: np.ndarray  # [T] int32
    loss_mask: np.ndarray  # [T] bool
    seq_lengths: np.ndarray  # [samples] int32
    images: list[bytes]
    grids: list[tuple[int, int]]
    sample_ids: list[str]

    @property
    def num_crops(self) -> int:
        """Crops of all images, global views included."""
        return sum(rows * cols + 1 for rows, cols in self.grids)


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
    sample_images: list[int] = field(default_factory=list)  # pictures per sample

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


def local(folder: str) -> Path:
    """A local folder that holds `folder`; an fsspec URL is copied, once per content."""
    if "://" not in folder:
        return Path(folder)
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(folder)
    if not filesystem.exists(f"{path}/recipe.json"):
        raise FileNotFoundError(
            f"data={folder}: no recipe.json there, so it is no finished mixture."
        )
    recipe = filesystem.cat_file(f"{path}/recipe.json")
    cache = Path(tempfile.gettempdir()) / f"mixture-{hashlib.sha256(recipe).hexdigest()[:32]}"
    for source in filesystem.find(path):
        name = source.rpartition(path.strip("/") + "/")[2]
        target = cache / name
        if name.split("/")[0] in ("recipe.json", "index.arrow", "shards", "tokenizer") and (
            not target.exists()
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            arriving = target.with_name(f".{target.name}.{os.getpid()}.arriving")
            filesystem.get_file(source, str(arriving))
            arriving.replace(target)
    return cache


def open_mixture(folder: str) -> Mixture:
    """The mixture in `folder`; ValueError or FileNotFoundError where it is none."""
    path = local(folder)
    file = path / "recipe.json"
    if not path.is_dir():
        raise FileNotFoundError(
            f"data={folder}: no such folder. Build it: python -m pipelines build."
        )
    if not file.is_file():
        raise FileNotFoundError(
            f"data={folder}: no recipe.json in it, so it is no finished mixture. "
            "Expected the output folder of `python -m pipelines build`."
        )
    recipe = json.loads(file.read_text())
    try:
        written = recipe["mixture"]["encoding"]
        name, fingerprint = recipe["name"], recipe["fingerprint"]
    except KeyError as error:
        raise ValueError(
            f"{file}: the key {error} is missing, so it is no mixture's recipe."
        ) from error
    known = [f.name for f in fields(Encoding)]
    for key in written:
        if key not in known:
            raise ValueError(
                f"{file}: mixture.encoding holds '{key}', unknown here. {did_you_mean(key, known)} "
                "Was it built by another version? Build it again."
            )
    return Mixture(path, name, fingerprint, Encoding(**written), recipe)


def refuse_mismatch(config: Config, mixture: Mixture, *, vocabulary: int) -> None:
    """Raises ValueError, naming both sides, where these shards are not made for this model."""
    model, encoding = config.model, mixture.encoding
    compared = (
        ("pixels per crop side", "model.vision.image_size", model.vision.image_size,
         "encoding.crop_size", encoding.crop_size),
        ("tokens per crop", "model.tokens_per_crop (image_size, patch_size, scale_factor)",
         model.tokens_per_crop, "encoding.tokens_per_crop", encoding.tokens_per_crop),
    )  # fmt: skip
    for what, ours, our_value, theirs, their_value in compared:
        if our_value != their_value:
            raise ValueError(
                f"{what}: {ours} of config '{config.name}' is {our_value}, {theirs} of the "
                f"shards in {mixture.folder} is {their_value}. Build the mixture with "
                f"{theirs}={our_value}, or train a model made for {their_value}."
            )
    if vocabulary > model.language.vocab_size:
        raise ValueError(
            f"vocabulary: model.language.vocab_size of config '{config.name}' is "
            f"{model.language.vocab_size}, the tokenizer in {mixture.folder} has {vocabulary} ids. "
            f"Set model.language.vocab_size={vocabulary} or build with the model's tokenizer."
        )
    if encoding.seq_len > model.language.max_position_embeddings:
        raise ValueError(
            f"context: model.language.max_position_embeddings of config '{config.name}' is "
            f"{model.language.max_position_embeddings}, encoding.seq_len of the shards in "
            f"{mixture.folder} is {encoding.seq_len}. Build with a smaller seq_len, or raise the "
            "context (and model.language.rope_theta with it)."
        )


class Rows:
    """The rows of one split of a mixture, memory-mapped: opening costs no reading of data."""

    def __init__(self, mixture: Mixture, split: str) -> None:
        self.mixture = mixture
        self.files = sorted((mixture.folder / "shards").glob(f"{split}-*.arrow"))
        if not self.files and split == "train":
            raise FileNotFoundError(
                f"{mixture.folder / 'shards'}: no {split}-*.arrow in it. Was the build "
                "interrupted? Run it again: it goes on where it stopped."
            )
        self._batches: list[tuple[int, int]] = []  # file, batch
        starts = [0]
        for number in range(len(self.files)):
            reader = self._reader(number)
            for batch in range(reader.num_record_batches):
                self._batches.append((number, batch))
                starts.append(starts[-1] + reader.get_batch(batch).num_rows)
        self._starts = np.array(starts, dtype=np.int64)
        if split == "train" and len(self) == 0:
            raise ValueError(f"{mixture.folder / 'shards'}: the {split} shards hold no row.")

    def __len__(self) -> int:
        return int(self._starts[-1])

    @lru_cache(maxsize=4096)  # noqa: B019 - a reader is a file mapping, held as long as the rows
    def _reader(self, number: int) -> pa.ipc.RecordBatchFileReader:
        return pa.ipc.open_file(pa.memory_map(str(self.files[number])))

    def _find(self, number: int) -> tuple[pa.RecordBatch, int]:
        which = int(np.searchsorted(self._starts, number, side="right")) - 1
        file, batch = self._batches[which]
        return self._reader(file).get_batch(batch), number - int(self._starts[which])

    def lengths(self, number: int) -> tuple[np.ndarray, int, int]:
        """(seq_lengths, crops, learned tokens) of a row, no picture touched."""
        batch, i = self._find(number)
        seq_lengths = batch.column("seq_lengths")[i].values.to_numpy()
        mask = batch.column("loss_mask")[i].values.to_numpy(zero_copy_only=False)
        grids = batch.column("grids")[i].as_py()
        return (
            seq_lengths,
            sum(g["rows"] * g["cols"] + 1 for g in grids),
            int(learned(mask, seq_lengths).sum()),
        )

    def __getitem__(self, number: int) -> Row:
        batch, i = self._find(number)
        return Row(
            mixture=self.mixture.name,
            number=number,
            encoding=self.mixture.encoding,
            input_ids=batch.column("input_ids")[i].values.to_numpy(),
            loss_mask=batch.column("loss_mask")[i].values.to_numpy(zero_copy_only=False),
            seq_lengths=batch.column("seq_lengths")[i].values.to_numpy(),
            images=[image["bytes"].as_py() for image in batch.column("images")[i]],
            grids=[(g["rows"], g["cols"]) for g in batch.column("grids")[i].as_py()],
            sample_ids=batch.column("sample_ids")[i].as_py(),
        )


def learned(loss_mask: np.ndarray, seq_lengths: np.ndarray) -> np.ndarray:
    """The mask without each sample's first token, which nothing predicts."""
    mask = loss_mask.copy()
    mask[np.cumsum(seq_lengths[:-1])] = False
    mask[:1] = False
    return mask


def pictures_per_sample(
    is_image: np.ndarray,
    seq_lengths: np.ndarray,
    grids: Sequence[tuple[int, int]],
    *,
    tokens_per_crop: int,
) -> np.ndarray:
    """How many pictures each sample holds: those that end within the image tokens to its end."""
    owners = np.repeat(np.arange(len(seq_lengths)), seq_lengths)
    ends = np.cumsum([rows * cols + 1 for rows, cols in grids]) * tokens_per_crop
    upto = np.cumsum(np.bincount(owners[is_image], minlength=len(seq_lengths)))
    return np.diff(np.searchsorted(ends, upto, side="right"), prepend=0)


def _mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele, Lea, Flood 2014): 64 well-mixed bits, the same on every machine."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _hashed(seed: int, *words: int) -> np.uint64:
    state = np.array([seed % 2**64], dtype=np.uint64)
    for word in words:
        state = _mix(state ^ np.uint64(word % 2**64))
    return _mix(state)[0]


@lru_cache(maxsize=8)
def order(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of range(num_rows): every row once per epoch, each epoch in another order."""
    key = _hashed(seed, epoch)
    return np.argsort(_mix(np.arange(num_rows, dtype=np.uint64) ^ key), kind="stable")


def shares(weights: Sequence[float], block: int) -> list[int]:
    """Whole numbers that sum to `block` in proportion to `weights` (largest remainders)."""
    exact = [weight / sum(weights) * block for weight in weights]
    whole = [int(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: (whole[i] - exact[i], i))
    for i in by_remainder[: block - sum(whole)]:
        whole[i] += 1
    return whole


def row_at(
    position: int, sizes: Sequence[int], weights: Sequence[float], seed: int
) -> tuple[int, int]:
    """(mixture, row) at a position of the endless global order."""
    mixture, inside = 0, position
    if len(sizes) > 1:
        counts = shares(weights, MIX_BLOCK)
        block, slot = divmod(position, MIX_BLOCK)
        owners = np.repeat(np.arange(len(counts)), counts)[order(MIX_BLOCK, seed + 1, block)]
        mixture = int(owners[slot])
        inside = block * counts[mixture] + int((owners[:slot] == mixture).sum())
    epoch, place = divmod(inside, sizes[mixture])
    return mixture, int(order(sizes[mixture], seed + 2 + mixture, epoch)[place])


def share_out(costs: Sequence[float], ranks: int) -> list[list[int]]:
    """Indices per rank: equally many (to one), the dearest first to the rank with least to do.

    Ranks wait for the slowest at every step, so the step costs the largest sum.
    """
    limit = -(-len(costs) // ranks)
    sums, groups = [0.0] * ranks, [[] for _ in range(ranks)]  # type: ignore[var-annotated]
    for i in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        free = [r for r in range(ranks) if len(groups[r]) < limit]
        rank = min(free, key=lambda r: (sums[r], r))
        groups[rank].append(i)
        sums[rank] += costs[i]
    return [sorted(group) for group in groups]


def collate(packed: Sequence[Row], *, image_token: int) -> Batch:
    """The rows end to end as one micro-batch. Pictures are decoded and cut here."""
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
    mask = np.concatenate([learned(row.loss_mask, row.seq_lengths) for row in packed])
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
    sample_images = pictures_per_sample(
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


class Loader:
    """Steps and their micro-batches for one rank, made ahead by threads, at most `prefetch`.

    Pillow lets go of the interpreter while it decodes and resizes, so threads suffice and no pixel
    is copied between processes.
    """

    def __init__(
        self,
        mixtures: Mapping[str, float],
        config: Config,
        *,
        image_token: int,
        rank: int = 0,
        ranks: int = 1,
        cost: Callable[[np.ndarray, int, int], float],
    ) -> None:
        self.splits = [Rows(open_mixture(folder), "train") for folder in mixtures]
        self.weights = list(mixtures.values())
        self.config, self.image_token, self.cost = config, image_token, cost
        self.rank, self.ranks = rank, ranks
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
        """The step at a position and this rank's rows per micro-batch; reads no picture."""
        sizes = [len(rows) for rows in self.splits]
        chosen = [
            row_at(p, sizes, self.weights, self.config.seed)
            for p in range(position, position + self.config.batch_rows)
        ]
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
