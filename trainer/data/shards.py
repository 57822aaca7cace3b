"""A finished mixture, opened: its recipe, and its packed rows by number, one memory map a shard.

One at a URL (`s3://`, `gs://`, `hf://`) is read through this machine's cache (cache.py): a shard
comes when one of its rows is asked for, or ahead of that where the loader expects it.
"""

import json
import re
import threading
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tokenization.schema import Encoding
from trainer.arguments import did_you_mean
from trainer.config import Config
from trainer.data import cache as caching
from trainer.data import integrity
from trainer.data.cache import Remote

NAME = r"[^\W_][^/\\:*?\"<>|\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f]{0,119}"
"""Of a mixture: runs are called so, and folders."""
OPEN = 96
"""Shards mapped at a time: a shell may allow 256 files."""
REOPENED = 5
"""Times that a shard may go between its arrival and its opening, under a bound that is too small
for all that share it."""
SIZES = ("tokens", "pairs", "crops", "learned")
"""What rows cost to train on; `pairs` is the sum of the samples' squared lengths."""


@dataclass(frozen=True)
class Mixture:
    """A finished mixture."""

    folder: Path
    """Here, or its place in the cache."""
    name: str
    fingerprint: str
    encoding: Encoding
    recipe: dict[str, Any]
    remote: Remote | None = None

    @property
    def on_schedule(self) -> bool:
        """A component's ratio is a schedule over the rows, so that their order is kept."""
        components = self.recipe["mixture"].get("components", {})
        return any(settings.get("schedule") for settings in components.values())


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


def open_mixture(folder: str, *, cache: str = "", cache_bytes: int = 0) -> Mixture:
    """The mixture in `folder` or at that URL; ValueError or FileNotFoundError where it is none."""
    remote = None
    if "://" in folder:
        remote = caching.cached_mixture(folder, cache=cache, max_bytes=cache_bytes)
    path = remote.folder if remote else Path(folder)
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
    if not re.fullmatch(NAME, str(name)):
        raise ValueError(f"{file}: name is {name!r}; expected a name without separators in it.")
    return Mixture(path, name, fingerprint, Encoding(**written), recipe, remote)


def open_mixtures(config: Config) -> list[Mixture]:
    """The mixtures of `config.data`, in order; ValueError where it names none."""
    if not config.data:
        raise ValueError(
            "data is not set. Expected data=DIR, a finished mixture, e.g. out/quickstart."
        )
    return [
        open_mixture(folder, cache=config.cache, cache_bytes=config.cache_bytes)
        for folder in config.data
    ]


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
                f"shards in {mixture.folder} is {their_value}.\nway out: build the mixture with "
                f"{theirs}={our_value}, or train a model made for {their_value}."
            )
    if vocabulary > model.language.vocab_size:
        raise ValueError(
            f"vocabulary: model.language.vocab_size of config '{config.name}' is "
            f"{model.language.vocab_size}, the tokenizer in {mixture.folder} has {vocabulary} "
            "ids.\n"
            f"way out: set model.language.vocab_size={vocabulary} or build with the model's "
            "tokenizer."
        )
    if encoding.seq_len > model.language.max_position_embeddings:
        raise ValueError(
            f"context: model.language.max_position_embeddings of config '{config.name}' is "
            f"{model.language.max_position_embeddings}, encoding.seq_len of the shards in "
            f"{mixture.folder} is {encoding.seq_len}.\nway out: build with a smaller seq_len, or "
            "raise the context (and model.language.rope_theta with it)."
        )


class Rows:
    """The rows of one split of a mixture, memory-mapped: opening costs no reading of data."""

    def __init__(self, mixture: Mixture, split: str) -> None:
        self.mixture = mixture
        self._open: dict[int, pa.ipc.RecordBatchFileReader] = {}
        self._lock = threading.Lock()
        self._comparing = threading.Lock()
        self._compared: set[int] = set()
        names = mixture.remote.sizes if mixture.remote else _names(mixture.folder / "shards")
        self.shards = sorted(n for n in names if n.startswith(f"{split}-") and n.endswith(".arrow"))
        if not self.shards and split == "train":
            raise FileNotFoundError(
                f"{mixture.folder / 'shards'}: no {split}-*.arrow in it. Was the build "
                "interrupted? Run it again: it goes on where it stopped."
            )
        counts = self._batch_rows()
        self.shard_rows = tuple(sum(batches) for batches in counts)
        """Rows of each shard, in order."""
        self._batches = [
            (n, batch) for n, found in enumerate(counts) for batch in range(len(found))
        ]
        self._starts = np.cumsum([0, *(rows for found in counts for rows in found)])
        self._first_batch = np.cumsum([0, *(len(found) for found in counts)])
        self._sizes: dict[int, np.ndarray] = {}
        if split == "train" and len(self) == 0:
            raise ValueError(f"{mixture.folder / 'shards'}: the {split} shards hold no row.")

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _batch_rows(self) -> list[list[int]]:
        if self.mixture.remote:
            return caching.batch_rows(self.mixture.remote, self.shards)
        readers = [self._reader(number) for number in range(len(self.shards))]
        return [[r.get_batch(n).num_rows for n in range(r.num_record_batches)] for r in readers]

    def fetch(self, shard: int) -> Path:
        """The shard's file is here; returns its path."""
        if self.mixture.remote:
            return caching.fetch(self.mixture.remote, self.shards[shard])
        return self.mixture.folder / "shards" / self.shards[shard]

    @property
    def shard_bytes(self) -> list[int]:
        """Bytes of each shard."""
        if self.mixture.remote:
            return [self.mixture.remote.sizes[name] for name in self.shards]
        return [self.fetch(n).stat().st_size for n in range(len(self.shards))]

    def shard_of(self, number: int) -> int:
        """The shard that holds a row."""
        return self._batches[self._batch_of(number)][0]

    def _reader(self, shard: int) -> pa.ipc.RecordBatchFileReader:
        found = self._open.get(shard)
        for _ in range(REOPENED):
            if found is not None:
                return found
            try:
                found = pa.ipc.open_file(pa.memory_map(str(self.fetch(shard))))
            except FileNotFoundError:
                if self.mixture.remote is None:
                    raise
        if found is None:
            raise FileNotFoundError(
                f"{self.fetch(shard)}: it went {REOPENED} times before it could be opened. "
                "Too many runs share this cache: raise cache_bytes, or name another with cache=."
            )
        with self._lock:
            while len(self._open) >= OPEN:  # a map holds a file open
                del self._open[next(iter(self._open))]
        with self._lock:  # what has gone from the cache is let go, or its disk space stays taken
            if self.mixture.remote:
                folder = self.mixture.folder / "shards"
                gone = [n for n in self._open if not (folder / self.shards[n]).exists()]
                for n in gone:
                    del self._open[n]
            self._open[shard] = found
        return found

    def _batch_of(self, number: int) -> int:
        return int(np.searchsorted(self._starts, number, side="right")) - 1

    def _find(self, number: int) -> tuple[pa.RecordBatch, int]:
        which = self._batch_of(number)
        shard, batch = self._batches[which]
        return self._reader(shard).get_batch(batch), number - int(self._starts[which])

    def sizes(self, number: int) -> np.ndarray:
        """(tokens, pairs, crops, learned tokens) of a row, no image touched: see `SIZES`.

        Those of a shard's rows are counted together and kept: 32 bytes a row.
        """
        which = self._batch_of(number)
        shard, _ = self._batches[which]
        first = int(self._starts[self._first_batch[shard]])
        if shard not in self._sizes:
            reader = self._reader(shard)
            batches = [reader.get_batch(n) for n in range(reader.num_record_batches)]
            self._sizes[shard] = np.concatenate([sizes_of(batch) for batch in batches])
        return self._sizes[shard][number - first]

    def compare(self, shard: int) -> None:
        """The shard is the one that the recipe names; once for each is enough."""
        with self._comparing:
            if shard not in self._compared:
                mixture, name = self.mixture, self.shards[shard]
                integrity.refuse_other_shard(self.fetch(shard), name, mixture.recipe)
                self._compared.add(shard)

    def __getitem__(self, number: int) -> Row:
        self.compare(self.shard_of(number))
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


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*.arrow")]


def sizes_of(batch: pa.RecordBatch) -> np.ndarray:
    """[rows, len(SIZES)] int64 of packed rows."""
    lengths, mask, grids = (batch.column(name) for name in ("seq_lengths", "loss_mask", "grids"))
    samples = lengths.flatten().to_numpy().astype(np.int64)
    learns = mask.flatten().to_numpy(zero_copy_only=False)
    cut = grids.flatten()
    rows, cols = (cut.field(side).to_numpy().astype(np.int64) for side in ("rows", "cols"))
    return np.stack(
        [
            _sums(samples, lengths),
            _sums(samples**2, lengths),
            _sums(rows * cols + 1, grids),
            _sums(predicted_mask(learns, samples), mask),
        ],
        axis=1,
    )


def _sums(values: np.ndarray, column: pa.ListArray) -> np.ndarray:
    """Of each row's values, which lie in `values` one row after the other; 0 where it has none."""
    ends = column.offsets.to_numpy()
    before = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
    return np.diff(before[ends - ends[0]])


def predicted_mask(loss_mask: np.ndarray, seq_lengths: np.ndarray) -> np.ndarray:
    """The mask without each sample's first token, which nothing predicts."""
    mask = loss_mask.copy()
    mask[np.cumsum(seq_lengths[:-1])] = False
    mask[:1] = False
    return mask
