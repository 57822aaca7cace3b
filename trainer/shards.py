"""A finished mixture, opened: its recipe, and its packed rows by number, one memory map a shard."""

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tokenization.schema import Encoding

from .config import Config, did_you_mean


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
