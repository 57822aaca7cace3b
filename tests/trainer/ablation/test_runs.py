"""A run's identity, that it is trained once, and what it loses on held-out samples."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from tests.trainer.conftest import Settings
from tests.trainer.shards import pack, sample, write
from trainer import checkpoint
from trainer.ablation import runs
from trainer.ablation.runs import SampleScore, held_out_losses, judge_run, plan_run, train_run
from trainer.config import Config
from trainer.data.shards import open_mixture
from trainer.loop import train


def test_a_run_is_what_is_trained_not_where_or_how_fast(
    settings: Settings, mixture: Path, tmp_path: Path
) -> None:
    first = plan_run(settings(), tmp_path)
    for same in (
        {"workers": 1, "micro_rows": 4, "output": tmp_path / "other", "log_every": 5},
        {"evaluate_every": 2, "save_every": 3, "device": "auto", "name": "another"},
    ):
        assert plan_run(settings(**same), tmp_path).fingerprint == first.fingerprint
    moved = tmp_path / "moved"
    moved.symlink_to(mixture)
    assert plan_run(settings(data=moved), tmp_path).fingerprint == first.fingerprint
    other = write(tmp_path / "texts", pack([sample(1, "text")] * 9), name="texts")
    changes = (
        {"seed": 18}, {"steps": 11}, {"optim__lr__vision": 1e-3}, {"dtype": "bfloat16"},
        {"data": other}, {"data": f"{{{mixture}: 1, {other}: 1}}"}, {"stop_at": 3},
        {"patience": 2}, {"init": "ORG/NAME@main"},
    )  # fmt: skip
    found = {plan_run(settings(**change), tmp_path).fingerprint for change in changes}
    assert len(found | {first.fingerprint}) == len(changes) + 1
    assert first.folder == tmp_path / first.fingerprint


def test_every_field_of_the_settings_is_identity_or_place() -> None:
    """A new field has to be one or the other: it is identity unless it may change."""
    names = {field.name for field in dataclasses.fields(Config)}
    assert set(runs.ENDS) <= set(runs.MAY_CHANGE) <= names


def test_a_finished_run_is_not_trained_again_and_a_killed_one_goes_on(
    settings: Settings, tmp_path: Path
) -> None:
    run = plan_run(settings(steps=3, save_every=1), tmp_path)
    calls = []

    def killed(config: Config) -> Path:
        calls.append("killed")
        train(dataclasses.replace(config, stop_at=2))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(run, killed)
    assert runs.finished(run) is None
    last = train_run(run, train)
    assert last.name == "step-000003"
    written = json.loads((run.folder / "run.json").read_text())
    assert written["fingerprint"] == run.fingerprint
    assert written["identity"] == run.identity
    assert runs.cost_of(run).cpu_seconds > 0
    assert runs.cost_of(run).tokens > runs.cost_of(run).learned_tokens > 0
    assert train_run(run, killed) == last
    assert calls == ["killed"]
    judge = open_mixture(next(iter(run.config.data)))
    scores = judge_run(run, judge)
    again = plan_run(settings(steps=3, save_every=1), tmp_path / "whole")
    train_run(again, train)
    assert judge_run(again, judge) == scores
    # The log's own held-out losses are of all val rows here: the same, but for rounding.
    (held,) = [
        json.loads(line)["held_out"]
        for line in (run.folder / "log.jsonl").read_text().splitlines()
        if "held_out" in line
    ][-1:]
    ours = held_out_losses(scores)
    assert set(ours) == {name for name in held if not name.startswith("modality/")}
    for name, value in ours.items():
        assert value == pytest.approx(held[name], rel=1e-5)


def test_a_run_that_failed_before_its_first_checkpoint_is_begun_again(
    settings: Settings, tmp_path: Path
) -> None:
    run = plan_run(settings(steps=1), tmp_path)

    def failing(config: Config) -> Path:
        Path(config.output).mkdir(parents=True)
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        train_run(run, failing)
    spent = json.loads((run.folder / "cpu_seconds.json").read_text())
    assert train_run(run, train).name == "step-000001"
    assert runs.cost_of(run).cpu_seconds > spent
    for name in ("run.json", "judged-0a.json", "scored-0a.json"):
        assert checkpoint.OF_A_RUN.fullmatch(name)
    assert not checkpoint.OF_A_RUN.fullmatch("table.json")


def test_losses_are_of_the_samples_that_are_chosen() -> None:
    scores = {
        "a": SampleScore("x", 6.0, 2), "b": SampleScore("x", 2.0, 2), "c": SampleScore("y", 9.0, 3),
    }  # fmt: skip
    assert held_out_losses(scores) == {
        "all": 17 / 7, "component/x": 2.0, "component/y": 3.0
    }  # fmt: skip
    assert held_out_losses(scores, ["b"]) == {"all": 1.0, "component/x": 1.0}


def test_what_is_not_finite_is_null_in_json(tmp_path: Path) -> None:
    values = {"by_seed": {"1": math.nan, "2": 1.5}, "interval": (-math.inf, math.inf)}
    runs.write_json(tmp_path / "table.json", values)
    assert json.loads((tmp_path / "table.json").read_text()) == {
        "by_seed": {"1": None, "2": 1.5}, "interval": [None, None]
    }  # fmt: skip
