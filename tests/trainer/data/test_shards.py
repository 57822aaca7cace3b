"""Shards are read as they were written, whatever their row batches, and misfits are refused."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.conftest import Settings
from tests.trainer.shards import ENCODING, pack, sample, write
from trainer.data.shards import Rows, open_mixture, predicted_mask, refuse_mismatch


def test_learned_tokens_are_counted_without_first_tokens() -> None:
    mask = np.array([True, True, False, True, True, True])
    assert predicted_mask(mask, np.array([3, 1, 2])).tolist() == [
        False,
        True,
        False,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"crop_size": 32},
            r"model.vision.image_size of config 'tiny' is 64, encoding.crop_size .* 32",
        ),
        (
            {"tokens_per_crop": 64},
            r"model.tokens_per_crop .* is 16, encoding.tokens_per_crop .* is 64",
        ),
        (
            {"seq_len": 9000},
            r"max_position_embeddings of config 'tiny' is 4096, .*seq_len .* is 9000",
        ),
    ],
)
def test_shards_for_another_model_are_refused(
    settings: Settings, change: dict[str, int], message: str
) -> None:
    config = settings()
    found = open_mixture(next(iter(config.data)))
    other = dataclasses.replace(found, encoding=dataclasses.replace(found.encoding, **change))
    refuse_mismatch(config, found, vocabulary=49280)
    with pytest.raises(ValueError, match=message):
        refuse_mismatch(config, other, vocabulary=49280)


def test_a_larger_vocabulary_is_refused(settings: Settings) -> None:
    config = settings()
    found = open_mixture(next(iter(config.data)))
    with pytest.raises(ValueError, match=r"vocab_size of config 'tiny' is 49280, .* has 49281 ids"):
        refuse_mismatch(config, found, vocabulary=49281)


def test_what_is_no_mixture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        open_mixture(str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match=r"no recipe\.json"):
        open_mixture(str(tmp_path))
    (tmp_path / "recipe.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(ValueError, match="'mixture' is missing"):
        open_mixture(str(tmp_path))
    encoding = {"crop_sise": 3}
    recipe = {"name": "x", "fingerprint": "y", "mixture": {"encoding": encoding}}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(ValueError, match=r"'crop_sise', unknown here\. Did you mean 'crop_size'"):
        open_mixture(str(tmp_path))
    recipe["mixture"] = {"encoding": dataclasses.asdict(ENCODING)}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(FileNotFoundError, match=r"no train-\*\.arrow"):
        Rows(open_mixture(str(tmp_path)), "train")


def test_empty_shards_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "empty", [])
    with pytest.raises(ValueError, match="hold no row"):
        Rows(open_mixture(str(folder)), "train")


def test_a_remote_mixture_is_read_like_a_local_one(tmp_path: Path, mixture: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for file in mixture.rglob("*"):
        if file.is_file():
            memory.pipe_file(f"/remote-toy/{file.relative_to(mixture)}", file.read_bytes())
    remote = open_mixture("memory://remote-toy")
    assert remote.fingerprint == open_mixture(str(mixture)).fingerprint
    ours, theirs = Rows(remote, "train"), Rows(open_mixture(str(mixture)), "train")
    assert [row.sample_ids for row in ours] == [row.sample_ids for row in theirs]


def test_row_batches_of_any_size_are_found(tmp_path: Path) -> None:
    rows = pack([sample(i, "text") for i in range(100)])
    folder = write(tmp_path / "texts", rows, shards=3)
    opened = Rows(open_mixture(str(folder)), "train")
    assert [opened[i].sample_ids for i in range(len(opened))] == [row["sample_ids"] for row in rows]
