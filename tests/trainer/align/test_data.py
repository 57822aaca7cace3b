"""Rows for TRL are those of the shards: ids, images, as often and in their order."""

import pyarrow as pa
import pytest
import torch

from tests.trainer.align.pairs import pairs, rejected_of
from tests.trainer.shards import ENCODING, KINDS, sample
from tokenization.vocab import load_tokenizer
from trainer.align import data
from trainer.align.with_trl import collator, said
from trainer.data.shards import open_mixture


def read(file):
    with pa.memory_map(str(file)) as source:
        return pa.ipc.open_stream(source).read_all().to_pylist()


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    return open_mixture(str(pairs(tmp_path_factory.mktemp("pairs") / "p", 10, held=3, unpaired=2)))


def test_pairs_are_the_ids_of_the_shards(mixture, tmp_path):
    file = tmp_path / "train.arrow"
    assert data.write(mixture, "train", file, method="dpo") == 8
    rows = {row["id"]: row for row in read(file)}
    tokenizer = load_tokenizer("builtin")
    for number in range(2, 10):
        whole = sample(number, KINDS[number % len(KINDS)])
        row = rows[whole["id"]]
        ids = [*row["prompt_ids"], *row["chosen_ids"]]
        assert ids == whole["input_ids"][: len(ids)]
        assert tokenizer.decode(whole["input_ids"][len(ids) :]) == "\n"
        learned = [i for i, m in zip(whole["input_ids"], whole["loss_mask"], strict=True) if m]
        assert row["chosen_ids"] == learned
        text = f" {rejected_of(whole)}<end_of_utterance>"
        assert tokenizer.decode(row["rejected_ids"]) == text
        assert len(row["encoded"]) == len(row["grids"]) == len(whole["images"])
    assert data.write(mixture, "train", file, method="dpo") == 8  # kept


def test_no_more_are_held_out_than_asked(mixture, tmp_path):
    assert data.write(mixture, "val", tmp_path / "two.arrow", method="dpo", most=2) == 2
    assert len(read(tmp_path / "two.arrow")) == 2
    assert data.write(mixture, "val", tmp_path / "all.arrow", method="dpo", most=9) == 3


def test_questions_are_those_about_images_with_their_answers_as_gold(mixture, tmp_path):
    assert data.write(mixture, "train", tmp_path / "q.arrow", method="grpo") == 6
    for row in read(tmp_path / "q.arrow"):
        assert row["prompt"][-1]["role"] == "user"
        assert row["gold"].strip()
        places = [p for m in row["prompt"] for p in m["content"] if p["type"] == "image"]
        assert len(places) == len(row["images"]) > 0


def test_a_batch_has_both_answers_of_each_pair(mixture, tmp_path):
    data.write(mixture, "train", tmp_path / "b.arrow", method="dpo")
    rows = read(tmp_path / "b.arrow")[:4]
    rows = [{**row, "ref_chosen_logps": -1.0, "ref_rejected_logps": -2.0} for row in rows]
    batch = collator(ENCODING, pad=2)(rows)
    for n, row in enumerate(rows):
        for place, kind in ((n, "chosen_ids"), (n + len(rows), "rejected_ids")):
            answered = batch["completion_mask"][place].bool()
            assert batch["input_ids"][place][answered].tolist() == row[kind]
            kept = batch["attention_mask"][place].bool()
            assert batch["input_ids"][place][kept].tolist() == [*row["prompt_ids"], *row[kind]]
    chosen, rejected = batch["pixel_values"].chunk(2)
    assert torch.equal(chosen, rejected)
    assert batch["ref_rejected_logps"].tolist() == [-2.0] * 4


def test_what_a_completion_says():
    assert said([{"role": "assistant", "content": " red"}]) == " red"
    assert said([{"role": "assistant", "content": [{"type": "text", "text": "red"}]}]) == "red"
