"""Held-out samples are judged whole, also those that were cut into pieces."""

from pathlib import Path

import pytest

from tests.trainer.shards import document, pack, sample, write
from trainer.ablation import mixtures
from trainer.ablation.judging import sample_scores
from trainer.data.shards import open_mixture
from trainer.loop import train


def test_pieces_of_one_sample_are_judged_as_the_sum_of_them(settings, tmp_path: Path) -> None:
    """A document that was cut has one id in several rows."""
    pieces = document("cut", [" A red square and", " a circle", " below it all."])
    rows = [row for piece in pieces for row in pack([piece, sample(0, "text")])]
    folders = [
        write(tmp_path / name, pack([sample(1, "text")]), val=val)
        for name, val in (("two", rows[:2]), ("three", rows))
    ]
    config = settings(steps=1)
    folder = train(config)
    judges = [open_mixture(str(each)) for each in folders]
    found = [sample_scores(config, folder, each) for each in judges]
    name, text = pieces[0]["id"], sample(0, "text")["id"]
    learned = [sum(piece["loss_mask"]) - (not piece["images"]) for piece in pieces]
    for number, (judge, scores) in enumerate(zip(judges, found, strict=True), start=2):
        counted = mixtures.learned_tokens(judge, "val")
        assert counted[name] == scores[name].tokens == sum(learned[:number])
        assert counted[text] == scores[text].tokens
    assert found[1][text].loss == pytest.approx(found[0][text].loss * 3 / 2, rel=1e-4)
    last = found[1][name].loss - found[0][name].loss
    assert 5 < last / learned[2] < 15  # about ln 49,280 a token
