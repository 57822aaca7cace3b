"""What resembles a target set is found by classifiers that have not seen it."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch

from tests.trainer.shards import pack, sample
from tests.trainer.shards import write as write_shards
from trainer.__main__ import main
from trainer.data.batches import collate
from trainer.data.shards import Rows, open_mixture
from trainer.evaluation.answer import open_checkpoint
from trainer.evaluation.likeness import MOST, fit, fitted_on, hashes_of, means_per_sample, odds_of
from trainer.evaluation.score import score, write
from trainer.model.smolvlm import Objective


def test_the_odds_are_the_ratio_of_the_densities() -> None:
    """Of two normal distributions, one unit apart: x - 1/2, whatever the sizes of the sets."""
    draw = np.random.default_rng(0)
    found = fit(draw.normal(0, 1, (40_000, 1)), draw.normal(1, 1, (5_000, 1)))
    at = np.array([[-1.0], [0.5], [2.0]])
    assert found(at) == pytest.approx(at[:, 0] - 0.5, abs=0.06)


def test_a_constant_feature_says_nothing() -> None:
    draw = np.random.default_rng(1)
    ours, theirs = draw.normal(0, 1, (400, 2)), draw.normal(1, 1, (300, 2))
    ours[:, 1] = theirs[:, 1] = 1e6
    found = fit(ours, theirs)
    assert np.isfinite(found(ours)).all()
    assert found.slope[1] == pytest.approx(0, abs=1e-6)


def test_each_sample_is_judged_by_the_half_that_it_is_not_in(tmp_path: Path) -> None:
    ids = [f"a/b/{n}" for n in range(40)]
    flat = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(40), pa.float32()), 1)
    table = pa.table({"id": ids, "tokens": pa.array([3] * 40, pa.int32()), "embedding": flat})
    write(tmp_path / "s.parquet", table, {})
    none = [fit(np.zeros((2, 1)), np.zeros((2, 1)))._replace(slope=np.array([0.0, n]))
            for n in (10.0, 11.0)]  # fmt: skip
    found = dict(zip(*odds_of([tmp_path / "s.parquet"], none), strict=True))
    half = dict(zip(ids, (hashes_of(ids) & np.uint64(1)).tolist(), strict=True))
    assert set(half.values()) == {0, 1}
    assert all(found[name] == 11 - half[name] for name in ids)


def test_a_shard_without_rows_is_passed_over(tmp_path: Path) -> None:
    files = []
    for number, count in enumerate((4, 0, 4)):
        width = 3 if count else 1
        flat = pa.array(np.arange(count * width), pa.float32())
        columns = {
            "id": pa.array([f"a/b/{number}-{n}" for n in range(count)], pa.string()),
            "tokens": pa.array([2] * count, pa.int32()),
            "embedding": pa.FixedSizeListArray.from_arrays(flat, width),
        }
        files.append(tmp_path / f"{number}.parquet")
        write(files[-1], pa.table(columns), {})
    shapes = [fitted_on(files, half).shape for half in (0, 1)]
    assert sum(count for count, _ in shapes) == 8
    assert {width for _, width in shapes} == {3}


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(A mixture of text and of images; a target set of text alone.)"""
    folder = tmp_path_factory.mktemp("alike")
    ours = [sample(number, ("text", "image")[number % 2]) for number in range(60)]
    theirs = [sample(number, "text") for number in range(100, 140)]
    return finished(folder / "mine", ours), finished(folder / "goal", theirs)


def finished(folder: Path, samples: list[dict]) -> Path:
    """A finished mixture of these samples, and an index of them."""
    write_shards(folder, pack(samples), name=folder.name)
    ids = [each["id"] for each in samples]
    kinds = [name.split("/")[1] for name in ids]
    table = pa.table({"id": ids, "source": kinds, "subset": kinds, "component": kinds,
                      "copies": [1] * len(ids)})  # fmt: skip
    with pa.ipc.new_file(str(folder / "index.arrow"), table.schema) as writer:
        writer.write_table(table)
    return folder


def test_samples_of_the_targets_kind_weigh_more(
    checkpoint: Path, mixtures, tmp_path: Path, capsys
) -> None:
    mine, goal = mixtures
    file = tmp_path / "alike.parquet"
    words = [
        "score",
        str(checkpoint),
        f"data={mine}",
        f"like={goal}",
        "threads=1",
        f"output={file}",
    ]
    assert main(words) == 0
    assert "AUROC" in capsys.readouterr().out
    found = pl.read_parquet(file)
    assert found["id"].to_list() == sorted({i for r in rows_of(mine) for i in r.sample_ids})
    kind = pl.col("id").str.contains("/text/")
    text, images = (found.filter(k)["likeness_weight"].mean() for k in (kind, ~kind))
    assert text > 4 * images
    assert found["likeness_weight"].max() <= MOST
    before = file.read_bytes()
    assert main([*words, "--json"]) == 0
    said = capsys.readouterr()
    assert "nothing to do" in said.err
    told = json.loads(said.out)
    assert told["scores"] == str(file)
    assert 0.5 < told["auroc"] <= 1
    assert told["samples"] == len(found) > told["effective_samples"] > 0
    file.unlink()
    assert main(words) == 0
    assert file.read_bytes() == before


def rows_of(folder: Path) -> list:
    rows = Rows(open_mixture(str(folder)), "train")
    return [rows[number] for number in range(len(rows))]


def test_an_embedding_is_the_mean_of_the_samples_own_states(checkpoint: Path, mixtures) -> None:
    """Beside `transformers`, one sample at a time."""
    model, tokenizer, _, _ = open_checkpoint(str(checkpoint), device="cpu")
    row = next(row for row in rows_of(mixtures[1]) if len(row.seq_lengths) > 1)
    batch = collate([row], image_token=tokenizer.convert_tokens_to_ids("<image>"))
    objective = Objective(model, logits_chunk=64, neftune=0.0).eval()
    found = means_per_sample(objective, batch, torch.device("cpu"))
    ends = np.cumsum([0, *row.seq_lengths])
    for number, embedding in enumerate(found):
        ids = torch.tensor(row.input_ids[ends[number] : ends[number + 1]].astype(np.int64))[None]
        with torch.no_grad():
            states = model.model(input_ids=ids).last_hidden_state[0]
        assert embedding == pytest.approx(states.mean(0).numpy(), abs=2e-5)


def test_a_target_set_that_is_trained_on_is_refused(checkpoint: Path, mixtures, tmp_path) -> None:
    mine, _ = mixtures
    same = finished(tmp_path / "same", [sample(0, "text"), sample(500, "text")])
    with pytest.raises(ValueError, match=r"like: 1 samples of .*\n.*not trained on"):
        score(str(checkpoint), data=str(mine), like=str(same))
