"""Scores of samples equal what `transformers` says to each sample alone."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import trainer
from tests.trainer.shards import ENCODING, KINDS, document, pack, sample, write
from tokenization.images import crop_pixels
from tokenization.vocab import load_tokenizer, vocab
from trainer.__main__ import main
from trainer.data.shards import Row, Rows, open_mixture
from trainer.evaluation.answer import open_checkpoint
from trainer.evaluation.score import score
from trainer.evaluation.visual_gain import exchange, without_images
from trainer.model.smolvlm import normalize_pixels


@pytest.fixture(scope="module")
def marks():
    return vocab(load_tokenizer("builtin"), ENCODING)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    samples = [sample(number, KINDS[number % len(KINDS)]) for number in range(30)]
    folder = tmp_path_factory.mktemp("scored") / "toy"
    twice = {each["id"]: 2 for each in samples[:3]}  # a copy is one line
    return write(folder, pack(samples), val=pack(samples[:3]), copies=twice)


def rows_of(folder: Path, split: str = "train") -> list[Row]:
    rows = Rows(open_mixture(str(folder)), split)
    return [rows[number] for number in range(len(rows))]


def single(row: Row, number: int, images: list[bytes]) -> Row:
    """Sample `number` of the row alone."""
    ends = np.cumsum([0, *row.seq_lengths])
    own = slice(ends[number], ends[number + 1])
    return dataclasses.replace(
        row, input_ids=row.input_ids[own], loss_mask=row.loss_mask[own],
        seq_lengths=row.seq_lengths[number : number + 1], images=images,
        sample_ids=[row.sample_ids[number]],
    )  # fmt: skip


def scores_of(checkpoint: Path, folder: Path) -> pl.DataFrame:
    output = folder.with_suffix(".parquet")
    return pl.read_parquet(score(str(checkpoint), data=str(folder), output=str(output)))


def loss_alone(model, row: Row) -> float:
    """By `transformers`, without packing, through its own loss."""
    ids = torch.tensor(row.input_ids.astype(np.int64))[None]
    labels = torch.where(torch.tensor(row.loss_mask)[None], ids, -100)
    pixels = {}
    if row.images:
        crops = [
            torch.from_numpy(crop_pixels(image, *grid, encoding=row.encoding))
            for image, grid in zip(row.images, row.grids, strict=True)
        ]
        pixels = {"pixel_values": normalize_pixels(torch.cat(crops), torch.float32)}
    with torch.no_grad():
        return model(input_ids=ids, labels=labels, **pixels).loss.item()


def test_scores_equal_the_losses_of_transformers_sample_by_sample(
    checkpoint: Path, scored: Path, marks, tmp_path: Path
) -> None:
    file = score(str(checkpoint), data=str(scored), output=str(tmp_path / "s.parquet"))
    table = pl.read_parquet(file)
    assert table["id"].to_list() == sorted({i for row in rows_of(scored) for i in row.sample_ids})
    found = {line["id"]: line for line in table.iter_rows(named=True)}
    model, _, _, _ = open_checkpoint(str(checkpoint), device="cpu")
    for row in rows_of(scored):
        left, grids = list(row.images), list(row.grids)
        ends = np.cumsum([0, *row.seq_lengths])
        for number, name in enumerate(row.sample_ids):
            crops = (row.input_ids[ends[number] : ends[number + 1]] == marks.image).sum() // 16
            own, of = [], []
            while crops:
                rows, cols = grids.pop(0)
                own.append(left.pop(0))
                of.append((rows, cols))
                crops -= rows * cols + 1
            alone = dataclasses.replace(single(row, number, own), grids=of)
            line = found[name]
            assert line["loss"] == pytest.approx(loss_alone(model, alone), abs=2e-5), name
            assert line["learned"] == alone.loss_mask.sum()
            assert line["answer_loss"] == pytest.approx([line["loss"]], abs=1e-6)
            if not own:
                assert line["visual_gain"] is line["image_match"] is None
                continue
            bare, _ = without_images(alone, fake=marks.fake)
            assert not np.isin(bare.input_ids, [marks.image, marks.fake]).any()
            gain = loss_alone(model, bare) - line["loss"]
            assert line["visual_gain"] == pytest.approx(gain, abs=4e-5)


def test_all_passes_are_compared_on_the_tokens_that_each_predicts(
    checkpoint: Path, marks, tmp_path: Path
) -> None:
    """Without its image nothing predicts the first text of a document that begins with it."""
    documents = [*document("a", [" A red square."]), *document("b", [" A blue circle, or two."])]
    folder = write(tmp_path / "toy", pack([*documents, sample(0, "text")]), shards=1)
    table = scores_of(checkpoint, folder)
    model, _, _, _ = open_checkpoint(str(checkpoint), device="cpu")
    (row,) = rows_of(folder)
    for number, name in enumerate(row.sample_ids[:2]):
        alone = single(row, number, [row.images[number]])
        alone = dataclasses.replace(alone, grids=[row.grids[number]])
        bare, kept = without_images(alone, fake=marks.fake)
        alone.loss_mask[kept[0]] = False
        (line,) = table.filter(pl.col("id") == name).iter_rows(named=True)
        own, without = loss_alone(model, alone), loss_alone(model, bare)
        assert line["learned"] == alone.loss_mask.sum() == len(bare.input_ids) - 1
        assert line["loss"] == pytest.approx(own, abs=2e-5)
        assert line["loss_without_images"] == pytest.approx(without, abs=2e-5)
        assert line["visual_gain"] == pytest.approx(without - own, abs=4e-5)
        swapped = dataclasses.replace(alone, images=[row.images[1 - number]])
        assert line["loss_other_images"] == pytest.approx(loss_alone(model, swapped), abs=2e-5)


def test_a_sample_of_images_alone_and_one_that_learns_nothing_else_have_no_numbers(
    checkpoint: Path, tmp_path: Path
) -> None:
    first = sample(0, "image")
    lone = [document(name, [""])[0] for name in "ab"]  # nothing is left of it without its image
    one = document("c", [" x"])[0]
    keys = ("input_ids", "loss_mask")
    one |= {key: one[key][: one["loss_mask"].index(True) + 1] for key in keys}
    for number, samples in enumerate(([*lone], [first, *lone, one])):
        folder = write(tmp_path / f"toy{number}", pack(samples), shards=1)
        for line in scores_of(checkpoint, folder).iter_rows(named=True):
            if line["id"] != first["id"]:
                assert line["learned"] == 0
                assert line["answer_loss"] == []
                assert line["loss"] is line["visual_gain"] is line["image_match"] is None
            else:
                assert line["visual_gain"] is not None


def test_pieces_of_a_document_add_up_and_copies_do_not(
    checkpoint: Path, marks, tmp_path: Path
) -> None:
    pieces = document("cut", [" A red square and", " a circle below it", " and nothing else."])
    other = document("other", [" Blue."])[0]
    rows = [*pack([*pieces[:1], other]), *pack(pieces[1:2]), *pack(pieces[2:])]
    rows += [*pack([*pieces[2:], sample(0, "image")]), *pack(pieces[:1]), *pack(pieces[1:2])]
    folder = write(tmp_path / "toy", rows, copies={pieces[0]["id"]: 2})
    table = scores_of(checkpoint, folder)
    (line,) = table.filter(pl.col("id") == pieces[0]["id"]).iter_rows(named=True)
    model, _, _, _ = open_checkpoint(str(checkpoint), device="cpu")
    sums = np.zeros(3)  # learned, loss, without images
    for row in rows_of(folder)[:3]:
        alone = dataclasses.replace(single(row, 0, row.images[:1]), grids=row.grids[:1])
        bare, kept = without_images(alone, fake=marks.fake)
        alone.loss_mask[kept[0]] = False
        learned = alone.loss_mask.sum()
        sums += learned, loss_alone(model, alone) * learned, loss_alone(model, bare) * learned
    assert line["learned"] == sums[0]
    assert line["loss"] == pytest.approx(sums[1] / sums[0], abs=2e-5)
    assert line["loss_without_images"] == pytest.approx(sums[2] / sums[0], abs=2e-5)
    assert line["visual_gain"] == pytest.approx((sums[2] - sums[1]) / sums[0], abs=4e-5)
    assert line["answer_loss"] == [line["loss"]]
    assert line["answer_visual_gain"] == [line["visual_gain"]]


def test_a_tokenizer_of_her_own_folder_is_not_looked_for(checkpoint: Path, tmp_path: Path) -> None:
    """A recipe tells no path of hers: the mixture and the checkpoint hold the tokenizer."""
    folder = write(tmp_path / "toy", pack([sample(0, "image"), sample(1, "text")]))
    recipe = json.loads((folder / "recipe.json").read_text())
    recipe["mixture"]["encoding"]["tokenizer"] = "private:0123456789abcdef"
    (folder / "recipe.json").write_text(json.dumps(recipe))
    file = score(str(checkpoint), data=str(folder), output=str(tmp_path / "s.parquet"))
    assert len(pl.read_parquet(file)) == 2


def test_another_samples_images_are_what_image_match_compares_with(
    checkpoint: Path, tmp_path: Path
) -> None:
    """Two samples of one grid: each is scored with the other's image."""
    first, *others = (sample(number, "image") for number in range(0, 60, 5))
    both = [first, next(s for s in others if s["grids"] == first["grids"])]
    rows = pack(both)
    folder = write(tmp_path / "toy", rows, shards=1)
    file = score(str(checkpoint), data=str(folder), output=str(tmp_path / "s.parquet"))
    table = pl.read_parquet(file)
    model, _, _, _ = open_checkpoint(str(checkpoint), device="cpu")
    (row,) = rows_of(folder)
    for number, line in enumerate(table.iter_rows(named=True)):
        swapped = single(row, number, [row.images[1 - number]])
        swapped = dataclasses.replace(swapped, grids=[row.grids[number]])
        match = loss_alone(model, swapped) - line["loss"]
        assert line["image_match"] == pytest.approx(match, abs=4e-5)
        assert abs(match) > 1e-6


def test_a_stopped_command_goes_on_and_ends_with_the_same_bytes(
    checkpoint: Path, scored: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    from trainer.evaluation import score as module

    whole = score(str(checkpoint), data=str(scored), output=str(tmp_path / "whole.parquet"))
    seen, true = [], module.write

    def stopping(path, *rest):
        true(path, *rest)
        seen.append(path.name)
        if len(seen) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "write", stopping)
    words = {"data": str(scored), "output": str(tmp_path / "parts.parquet")}
    with pytest.raises(KeyboardInterrupt):
        score(str(checkpoint), **words)
    assert not (tmp_path / "parts.parquet").exists()
    again = score(str(checkpoint), **words)
    assert seen == ["train-00000.parquet", "train-00001.parquet", "val-00000.parquet", again.name]
    assert again.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "parts.parquet.parts").exists()
    capsys.readouterr()
    score(str(checkpoint), **words)
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected a checkpoint"),
        (["{run}"], "data is not set"),
        (["{run}", "data={data}", "splitt=val"], "Did you mean 'split'?"),
        (["{run}", "data={data}", "split=test"], "split=test: expected one of"),
        (["{run}", "data={run}"], "no recipe.json"),
    ],
)
def test_mistakes_are_one_message(checkpoint, scored, words, message, capsys) -> None:
    words = [word.format(run=checkpoint, data=scored) for word in words]
    assert main(["score", *words]) == 2
    assert message in capsys.readouterr().err


def test_other_crops_than_the_checkpoints_are_refused(checkpoint, tmp_path, capsys) -> None:
    small = dataclasses.replace(ENCODING, crop_size=32, longest_edge=64, tokens_per_crop=4)
    folder = write(
        tmp_path / "toy", pack([sample(0, "image", small)], small), encoding=small, shards=1
    )
    assert main(["score", str(checkpoint), f"data={folder}"]) == 2
    assert "crop_size: 32" in capsys.readouterr().err


@given(st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=3), max_size=6))
def test_images_are_exchanged_within_their_grid_and_never_with_their_like(samples) -> None:
    """Rows of one sample each; every third is a copy or a piece of the first."""
    rows, owners = [], []
    for number, images in enumerate(samples):
        grids = [(1, 1) if image < "c" else (0, 0) for image in images]
        rows.append(
            Row("m", 0, ENCODING, np.empty(0), np.empty(0), np.empty(0),
                [image.encode() for image in images], grids, [str(number if number % 3 else 0)])
        )  # fmt: skip
        owners.append([0] * len(images))
    found = exchange(rows, owners)
    for row, places in zip(rows, found, strict=True):
        for image, place in enumerate(places):
            others = [
                other.images[k]
                for other in rows
                for k in range(len(other.images))
                if other.sample_ids != row.sample_ids and other.grids[k] == row.grids[image]
            ]
            if place is not None:
                assert rows[place[0]].sample_ids != row.sample_ids
                assert rows[place[0]].grids[place[1]] == row.grids[image]
                assert rows[place[0]].images[place[1]] != row.images[image]
            elif len(set(row.images)) == 1:
                assert all(other == row.images[image] for other in others)


def test_no_line_is_lost_between_parts_and_the_file(checkpoint, scored, tmp_path) -> None:
    file = score(str(checkpoint), data=str(scored), split="val", output=str(tmp_path / "v.parquet"))
    assert pq.read_table(file)["id"].to_pylist() == sorted(
        {name for row in rows_of(scored, "val") for name in row.sample_ids}
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, "split=test: expected one of train, val, all"),
        ({"threads": "many"}, "threads=many: expected a whole number"),
        ({"cache_bytes": -1}, "cache_bytes=-1: expected a whole number"),
        ({"device": "gpu"}, "device=gpu: expected auto, cpu or cuda"),
        ({"output": "s3://bucket/s.parquet"}, "output=s3://bucket/s.parquet: expected"),
        ({"split": "val"}, "has no rows of it"),
    ],
)
def test_mistakes_of_python_are_those_of_the_command(
    checkpoint, tmp_path, capsys, options, message
) -> None:
    folder = write(tmp_path / "toy", pack([sample(0, "text")]), shards=1)
    with pytest.raises(ValueError, match=re.escape(message)):
        trainer.score(checkpoint, folder, **options)
    words = [f"{key}={value}" for key, value in options.items()]
    assert main(["score", str(checkpoint), f"data={folder}", *words]) == 2
    assert message in capsys.readouterr().err
    assert not (checkpoint / "scores").exists()


def test_the_command_says_what_every_component_is_worth(checkpoint, tmp_path, capsys) -> None:
    folder = write(tmp_path / "toy", pack([sample(0, "text"), sample(1, "image")]), shards=1)
    file = tmp_path / "s.parquet"
    words = ["score", str(checkpoint), str(folder), f"output={file}"]
    for _ in range(2):  # made, then there already
        assert main([*words, "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["scores"] == str(file)
        assert sum(line["samples"] for line in said["components"]) == 2
        kept = pl.read_parquet(file)
        (gain,) = kept["visual_gain"].drop_nulls().to_list()
        assert gain in [line["visual_gain"] for line in said["components"]]
    assert main([*words, "--quiet"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"scores {file}"


def test_every_split_has_a_file_of_its_own_and_torch_its_threads(
    checkpoint, tmp_path, monkeypatch
) -> None:
    folder = write(
        tmp_path / "toy", pack([sample(0, "text")]), val=pack([sample(1, "text")]), shards=1
    )
    run = tmp_path / "run"
    shutil.copytree(checkpoint, run / checkpoint.name)
    seen = []
    from trainer.evaluation import score as module

    counting = lambda *rest, **words: seen.append(torch.get_num_threads()) or true(*rest, **words)
    true = module.answer_losses
    monkeypatch.setattr(module, "answer_losses", counting)
    found = {
        split: trainer.score(run, folder, split=split, threads=2)
        for split in ("train", "val", "all")
    }
    assert [path.name for path in found.values()] == ["toy-train.parquet", "toy-val.parquet",
                                                      "toy.parquet"]  # fmt: skip
    ids = {split: pl.read_parquet(path)["id"].to_list() for split, path in found.items()}
    assert ids["all"] == ids["train"] + ids["val"] == [sample(n, "text")["id"] for n in range(2)]
    assert set(seen) == {2}
    assert torch.get_num_threads() == 1


def test_a_mixture_at_a_url_is_scored_within_the_bound_of_its_cache(
    checkpoint, scored, tmp_path
) -> None:
    sizes = [path.stat().st_size for path in (scored / "shards").iterdir()]
    there = {"data": f"file://{scored}", "cache": str(tmp_path / "cache")}
    file = score(
        str(checkpoint), output=str(tmp_path / "far.parquet"), cache_bytes=str(max(sizes)), **there
    )
    near = score(str(checkpoint), data=str(scored), output=str(tmp_path / "near.parquet"))
    assert file.read_bytes() == near.read_bytes()
    left = [path.stat().st_size for path in (tmp_path / "cache").glob("*/shards/*.arrow")]
    assert 0 < sum(left) <= max(sizes) < sum(sizes)
