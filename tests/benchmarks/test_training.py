"""The benchmark of training: its side of ours runs, and theirs are given the same samples."""

import json
from pathlib import Path

import numpy as np
import torch

from benchmarks import training
from tests.trainer.shards import toy
from trainer.data.integrity import sha256_of
from trainer.data.shards import Rows, open_mixture


def test_ours_is_timed_by_its_own_log_and_theirs_trains_the_same_samples(
    tmp_path: Path,
) -> None:
    data = str(toy(tmp_path / "toy"))
    options = training.DEFAULTS | {"data": data, "steps": "2"}
    config = training.config_of("tiny", data, options)
    torch.set_num_threads(1)
    found = training.ours(config, tmp_path)
    assert len(found["losses"]) == 2
    assert found["seconds"] > 0
    assert found["cpu"] > 0
    steps = training.batches(config)
    samples = [row for step in steps for row in step]
    assert found["tokens"] == sum(len(row.input_ids) for row in samples)
    assert found["learned"] == sum(int(row.loss_mask[1:].sum()) for row in samples)
    assert all(len(row.seq_lengths) == 1 for row in samples)
    cut = list(training.cut(samples, 2))
    assert [row.sample_ids for piece in cut for row in piece] == [r.sample_ids for r in samples]
    batch = training.padded(cut[0], 0)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == batch["labels"].shape
    assert int((batch["labels"] >= 0).sum()) == sum(int(r.loss_mask[1:].sum()) for r in cut[0])


def test_a_row_is_the_samples_that_it_is_cut_into(tmp_path: Path) -> None:
    row = Rows(open_mixture(str(toy(tmp_path / "toy"))), "train")[0]
    alone = training.samples_of(row)
    assert np.array_equal(np.concatenate([each.input_ids for each in alone]), row.input_ids)
    assert [image for each in alone for image in each.images] == row.images
    assert [name for each in alone for name in each.sample_ids] == row.sample_ids


def test_rows_of_text_are_a_mixture_of_the_samples_without_images(tmp_path: Path) -> None:
    data = toy(tmp_path / "toy")
    recipe = json.loads((data / "recipe.json").read_text())
    name = "shards/train-00000.arrow"
    recipe["files"] = {name: {"sha256": sha256_of(data / name)}}
    (data / "recipe.json").write_text(json.dumps(recipe))
    texts = Rows(open_mixture(training.text_only(str(data), tmp_path / "text", 2)), "train")
    assert 1 <= len(texts) <= 2
    assert all("/text/" in name for name in texts[0].sample_ids)  # reading compares the hash
    assert texts[0].images == []
