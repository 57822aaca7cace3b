"""The words of `align`: what they mean, and what is said of a mistake."""

import dataclasses

import pytest

from trainer.align.run import begin, claim
from trainer.align.settings import changed, load, to_yaml

GIVEN = {"data": "out/pairs", "init": "out/runs/sft"}


def test_a_config_is_one_of_three_or_a_file(tmp_path):
    assert load(GIVEN).losses == {"sigmoid": 1.0}
    mixed = load({**GIVEN, "config": "mpo", "loss.sft": "0.5"})
    assert mixed.losses == {"sigmoid": 0.8, "bco_pair": 0.2, "sft": 0.5}
    assert mixed.name == "mpo"
    assert load({**GIVEN, "config": "grpo"}).method == "grpo"
    (tmp_path / "mine.yaml").write_text("beta: 0.2\ntrl: {label_smoothing: 0.1}\n")
    mine = load({**GIVEN, "config": str(tmp_path / "mine.yaml")})
    assert (mine.beta, mine.trl, mine.name) == (0.2, {"label_smoothing": 0.1}, "mine")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"config": "dp0"}, "no such config. Did you mean 'dpo'"),
        ({"bta": "1"}, "bta"),
        ({"loss.sigmoidd": "1"}, "unknown loss 'sigmoidd'. Did you mean 'sigmoid'"),
        ({"freeze": "[vison]"}, "Did you mean 'vision'"),
        ({"freeze": "[vision,connector,language]"}, "nothing would be trained"),
        ({"batch": "0"}, "batch is 0; expected 1 or more"),
        ({"config": "grpo", "generations": "1"}, "expected 2 or more"),
        ({"trl.learning_rate": "1"}, "say it as lr"),
        ({"init": ""}, "init is not set"),
        ({"data": ""}, "data is not set"),
        ({"lr": "${HOME}"}, "Nothing is interpolated"),
    ],
)
def test_a_mistake_is_named(words, told):
    with pytest.raises(ValueError, match=told.replace("$", r"\$")):
        load(GIVEN | words)


def test_other_settings_are_refused_and_places_are_not(tmp_path):
    settings = load(GIVEN)
    again = dataclasses.replace(settings, micro=1, threads=2)
    assert changed(to_yaml(settings), again) == []
    other = dataclasses.replace(settings, beta=0.5)
    assert changed(to_yaml(settings), other) == ["beta: 0.1 -> 0.5"]
    begun = {"data": "a", "init": "b"}
    begin(tmp_path, settings, begun)
    assert claim(tmp_path, settings, begun) is None
    with pytest.raises(ValueError, match=r"other settings:\n  beta: 0.1 -> 0.5"):
        claim(tmp_path, other, begun)
    with pytest.raises(ValueError, match=r"other settings:\n  data: its content changed"):
        claim(tmp_path, settings, begun | {"data": "built again"})
    (tmp_path / "align.yaml").unlink()
    (tmp_path / "begun.json").unlink()
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ValueError, match="holds no alignment"):
        claim(tmp_path, settings, begun)
