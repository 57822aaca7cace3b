"""Runs over other components count as what they were trained on; others do not."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trainer.ablation.runs import Run, write_json
from trainer.config_file import load
from trainer.search.earlier import Earlier, as_points, earlier_runs
from trainer.search.methods import bayes, new_runs, regression
from trainer.search.mixing import asked_file
from trainer.search.space import space_of

WHOLE = {"a": 0.4, "b": 0.3, "noise": 0.3}
FREE: dict = {"bounds": {}, "groups": [], "fixed": {}, "most": {}}
IDENTITY = {"version": 1, "init": "", "settings": {"seed": 17}}


def recipe(fingerprint: str, names: str, **more) -> dict:
    components = {n: {"source": "messages", "ratio": 0.5, "max_epochs": 1.0} for n in names}
    return {
        "fingerprint": fingerprint,
        "mixture": {"name": "m", "tokens": 1000, "components": components} | more,
        "inputs": {f"{n}/default": {"files": n} for n in names},
        "sources": {n: {"version": 3} for n in names},
    }


def finished(work: Path, made: dict, ratios: dict, **identity) -> str:
    """A run over a mixture, as files; its fingerprint."""
    folder = work / "mixtures" / made["fingerprint"]
    folder.mkdir(parents=True)
    write_json(folder / "recipe.json", made)
    write_json(asked_file(folder), ratios)
    run = work / "runs" / f"run-{made['fingerprint']}"
    run.mkdir(parents=True)
    own = IDENTITY | {"mixtures": [[made["fingerprint"], 1.0]]} | identity
    write_json(run / "run.json", {"identity": own})
    return run.name


def known(work: Path, now: dict) -> dict[str, dict[str, float]]:
    prior = work / "prior"
    prior.mkdir(parents=True)
    write_json(prior / "recipe.json", now)
    config = load("tiny", {"data": "unbuilt", "seed": "17"})
    like = Run(config, IDENTITY | {"mixtures": [[now["fingerprint"], 1.0]]}, "like")
    found = earlier_runs(work, like, prior)
    assert all(Path(next(iter(run.config.data))).is_dir() for run, _ in found.values())
    return {name: ratios for name, (_, ratios) in found.items()}


def test_a_component_that_was_added_is_at_0_in_runs_before(tmp_path: Path) -> None:
    name = finished(tmp_path, recipe("f1", "ab"), {"a": 0.6, "b": 0.4})
    finished(tmp_path, recipe("f2", "abc"), {"a": 0.5, "b": 0.3, "c": 0.2})  # found by itself
    finished(tmp_path, recipe("f3", "ab"), {"a": 0.5, "b": 0.5, "c": 0.0})  # as well
    finished(tmp_path, recipe("f4", "ab", tokens=9), {"a": 0.6, "b": 0.4})
    finished(tmp_path, recipe("f5", "ab"), {"a": 0.6, "b": 0.4}, settings={"seed": 18})
    assert known(tmp_path, recipe("now", "abc")) == {name: {"a": 0.6, "b": 0.4}}


@pytest.mark.parametrize("change", ["settings", "inputs", "gone"])
def test_what_is_gone_or_changed_has_a_column_of_its_own(change: str, tmp_path: Path) -> None:
    name = finished(tmp_path, recipe("f1", "ab"), {"a": 0.6, "b": 0.4})
    now = copy.deepcopy(recipe("now", "a" if change == "gone" else "ab"))
    if change == "settings":
        now["mixture"]["components"]["b"]["max_epochs"] = 4.0
    elif change == "inputs":
        now["inputs"]["b/default"]["files"] = "others"
    assert known(tmp_path, now) == {name: {"a": 0.6, "b (was)": 0.4}}


def test_only_what_fits_the_space_becomes_a_point() -> None:
    space = space_of(
        {"a": 0.2, "b": 0.4, "c": 0.1, "d": 0.3}, bounds={}, most={}, groups=[["a", "b"]],
        fixed={"c": 0.1},
    )  # fmt: skip
    rows = [
        ({"a": 0.1, "b": 0.2, "c": 0.1, "x (was)": 0.6}, 2.0),
        ({"a": 0.2, "b": 0.1, "c": 0.1, "d": 0.6}, 3.0),  # another inside of the group
        ({"a": 0.2, "b": 0.4, "d": 0.4}, 4.0),  # c is not at its share
    ]
    found = as_points(space, rows, ["a", "b", "c", "d"])
    assert found.gone == ["x (was)"]
    assert found.points == pytest.approx(np.array([[0.3, 0.0, 0.6]]))
    assert found.losses.tolist() == [2.0]


@pytest.mark.parametrize("method", [regression, bayes])
def test_known_runs_leave_few_to_train_and_say_as_much(method) -> None:
    def loss(point: np.ndarray) -> float:  # of a, b, noise, what is gone
        return float(3 - 0.2 * np.log(point[0] + 0.02) - 0.1 * np.log(point[1] + 0.02))

    space = space_of(WHOLE, **FREE)
    random = np.random.default_rng(5)
    points = random.dirichlet(np.ones(4), 16)
    points[:, 1] = 0  # added since
    points /= points.sum(axis=1, keepdims=True)
    earlier = Earlier(points=points, losses=np.array([loss(p) for p in points]), gone=["x"])
    tried: list[np.ndarray] = []

    def evaluate(point: np.ndarray) -> float:
        tried.append(point)
        return loss(point)

    found = method(space, evaluate, runs=20, random=np.random.default_rng(1), earlier=earlier)
    assert len(tried) == new_runs(20, earlier) == 5
    assert found.best[2] < 0.12
    assert loss(found.best) < loss(space.prior)
    assert new_runs(20, Earlier.none(space)) == 20
    assert new_runs(4, replace(earlier, losses=np.ones(400))) == 2


def test_asked_ratios_lie_beside_the_mixture(tmp_path: Path) -> None:
    finished(tmp_path, recipe("f1", "ab"), {"a": 1.0, "b": 0.0})
    assert json.loads((tmp_path / "mixtures" / "f1-ratios.json").read_text())["b"] == 0
