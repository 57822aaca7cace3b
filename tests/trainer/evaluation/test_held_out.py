"""Held-out losses are what training's loss would be, by the weights of the mixtures."""

from pathlib import Path

import pyarrow as pa
import pytest
import torch

from tests.trainer.conftest import Settings
from tests.trainer.shards import pack, sample, toy, write
from tokenization.vocab import load_tokenizer
from trainer.config import Config
from trainer.data.shards import Rows, open_mixture, open_mixtures
from trainer.evaluation.held_out import components, held_out, row_counts
from trainer.model.smolvlm import Objective, random_model, use_attention
from trainer.parallel import World

ONE = World(0, 1, torch.device("cpu"), "one")


def judged(config: Config) -> dict[str, float]:
    mixtures = open_mixtures(config)
    model = random_model(config.model, load_tokenizer("builtin"), seed=3)
    use_attention(model, "loop")
    objective = Objective(model, logits_chunk=4096, neftune=0.0)
    names = {k: v for mixture in mixtures for k, v in components(mixture).items()}
    splits = [Rows(mixture, "val") for mixture in mixtures]
    return held_out(objective, splits, names, config, image_token=49190, world=ONE)


def mixture_of(folder: Path, kind: str, rows: int) -> Path:
    """Every packed row holds one sample, so that rows are easily counted."""
    held = [row for i in range(rows) for row in pack([sample(i, kind)])]
    return write(folder, pack([sample(99, kind)]), val=held, name=kind, shards=1)


def test_mixtures_count_by_their_weights_however_many_rows_they_hold(
    settings: Settings, tmp_path: Path
) -> None:
    texts, images = (mixture_of(tmp_path / kind, kind, 8) for kind in ("text", "image"))
    few = mixture_of(tmp_path / "few", "text", 8)
    alone = [judged(settings(data=data)) for data in (texts, images)]
    assert alone[0]["all"] != pytest.approx(alone[1]["all"], rel=1e-4)
    learned = {"text": 3 * 2.0, "image": 1 * 2.0}  # rows by weight, times two learned tokens each
    expected = sum(
        learned[kind] * one["all"] for kind, one in zip(learned, alone, strict=True)
    ) / sum(learned.values())
    both = judged(settings(data=f"{{{texts}: 3, {images}: 1}}", evaluate_rows=8))
    assert both["modality/text"] == pytest.approx(alone[0]["all"], rel=0.05)
    assert both["all"] == pytest.approx(expected, rel=0.05)
    same = judged(settings(data=f"{{{few}: 3, {images}: 1}}", evaluate_rows=200))
    assert same["all"] == pytest.approx(expected, rel=0.05)  # 8 and 8 rows, counted 3 to 1


def test_rows_are_shared_out_by_weight(settings: Settings) -> None:
    config = settings(evaluate_rows=8)
    assert row_counts([100, 100], [3, 1], config) == [6, 2]
    assert row_counts([4, 100], [3, 1], config) == [4, 2]
    assert row_counts([100, 100], [1000, 1], config) == [8, 1]
    assert row_counts([0, 5], [1, 1], config) == [0, 4]


def test_components_of_one_source_and_subset_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    """Ids of a later component's own files are `source/subset~HASH/row` (pipelines/ids.py)."""
    index = pa.table({
        "id": ["messages/default/000000", "messages/default/000001", "messages/default~1a/000000"],
        "source": ["messages"] * 3, "subset": ["default"] * 3, "component": ["a", "a", "b"],
    })  # fmt: skip
    mixture = open_mixture(str(toy(tmp_path / "m", count=6)))
    with pa.ipc.new_file(str(mixture.folder / "index.arrow"), index.schema) as writer:
        writer.write_table(index)
    assert components(mixture) == {"messages/default": "a", "messages/default~1a": "b"}
