"""Bounds of supply, what a proposal is written as, and what names a mixture's folder."""

from pathlib import Path

import pytest
import yaml

from mixtures.mixture_file import load
from tokenization.schema import Encoding
from trainer.ablation.building import mixture_key
from trainer.search.mixing import most_units, proposal_yaml, supplies

SUBSETS = {"x": 100.0, "y": 300.0}


@pytest.mark.parametrize(
    ("settings", "epochs", "most"),
    [
        ({}, 2, 800),
        ({"x": {"max_epochs": 1}}, 2, 400),  # all subsets are used equally often
        ({"x": {"weight": 1}, "y": {"weight": 1}}, 2, 400),
        ({"x": {"weight": 1}}, 2, 400),  # the other counts 1
        ({"x": {"weight": 0}, "y": {"weight": 2}}, 2, 600),
        ({"x": {"weight": 1, "max_epochs": 4}, "y": {"weight": 1}}, 2, 800),
    ],
)
def test_no_subset_is_asked_beyond_its_epochs(settings, epochs, most) -> None:
    assert most_units({"subsets": settings, "max_epochs": epochs}, SUBSETS) == pytest.approx(most)


def test_supply_is_of_what_is_kept_and_trained_on() -> None:
    account = {
        "tokens": 100, "samples": 10,
        "subsets": {"x": {"tokens": 100, "samples": 10, "kept": 20, "train_kept": 18},
                    "y": {"tokens": 0, "samples": 0, "kept": 10, "train_kept": 10}},
    }  # fmt: skip
    reading = {"subsets": {"x": {"supply": 200}}}
    assert supplies(account, reading, "tokens") == {"x": 1800, "y": 100}


BASE = """
components:
  a: {source: messages, data: a.jsonl, ratio: 0.7}
  b: {source: messages, data: b.jsonl, ratio: 0.3}
"""


@pytest.mark.parametrize("own", ["tokens: 5000\nbase: base.yaml\nseed: 3\n", BASE])
def test_a_proposal_is_the_mixture_with_other_ratios(own, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(BASE)
    Path("mine.yaml").write_text(own)
    words = ("tokens=10", "val_fraction=0.3", "components.a.max_epochs=4", "encoding.seq_len=4096")
    text = proposal_yaml("mine.yaml", words, {"a": 0.25, "b": 0.75}, why="It is better.\nMuch.")
    assert text.startswith("# It is better.\n# Much.\n")
    Path("elsewhere").mkdir()
    Path("elsewhere/proposal.yaml").write_text(text)
    found, before = (
        load(file, encoding=Encoding) for file in ("elsewhere/proposal.yaml", "mine.yaml")
    )
    assert {name: each.ratio for name, each in found.components.items()} == {"a": 0.25, "b": 0.75}
    assert found.components["a"].max_epochs == 4
    assert found.components["b"].max_epochs == 1
    assert found.encoding.seq_len == 4096
    assert (found.tokens, found.seed, found.val_fraction) == (
        before.tokens, before.seed, before.val_fraction
    )  # fmt: skip


def test_a_proposal_on_a_bundled_mixture_names_it() -> None:
    assert (
        yaml.safe_load(proposal_yaml("quickstart", (), {"a": 1.0}, why=""))["base"] == "quickstart"
    )


def test_a_changed_file_or_base_is_another_mixture(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(BASE)
    Path("mine.yaml").write_text("base: base.yaml\n")
    first = mixture_key("mine.yaml", {})
    assert mixture_key("mine.yaml", {}) == first
    assert mixture_key("mine.yaml", {"seed": "3"}) != first
    Path("base.yaml").write_text(BASE.replace("0.7", "0.6"))
    assert mixture_key("mine.yaml", {}) != first
