"""Checkpoints are written beside the training, and hold what was when they were begun."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.conftest import Settings
from tests.trainer.test_checkpoint import losses, same
from trainer import checkpoint, saving
from trainer.loop import train


def before_writing(monkeypatch: pytest.MonkeyPatch, do: Callable[[Path], None]) -> None:
    """What is done by the thread that writes a checkpoint, before its optimizer."""
    write = saving.save_optimizer

    def then(folder: Path, state: dict[str, Any], world: Any) -> None:
        do(folder)
        write(folder, state, world)

    monkeypatch.setattr(saving, "save_optimizer", then)


def test_training_goes_on_while_a_checkpoint_of_its_own_step_is_written(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"steps": 6, "save_every": 2, "keep_last": 0}
    waiting = train(settings(output=tmp_path / "waiting", async_save=False, **changes))
    run = tmp_path / "beside"
    came, tick = [], threading.Event()

    def after_the_next_step(folder: Path) -> None:
        step = int(folder.parent.name.rpartition("-")[2])
        for _ in range(6000):
            if step == 6 or step + 1 in losses(run):
                came.append(step)
                return
            tick.wait(0.01)

    before_writing(monkeypatch, after_the_next_step)
    beside = train(settings(output=run, **changes))
    assert came == [2, 4, 6]
    for ours, theirs in zip(
        checkpoint.checkpoint_folders(run),
        checkpoint.checkpoint_folders(waiting.parent),
        strict=True,
    ):
        same(ours, theirs)
    assert beside.name == "step-000006"


@pytest.mark.parametrize("beside", [True, False])
def test_an_error_of_the_writing_ends_the_run_and_says_from_where_it_goes_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    first = train(settings(stop_at=2))
    run = first.parent

    def full(folder: Path) -> None:
        raise OSError("No space left on device")

    before_writing(monkeypatch, full)
    with pytest.raises(OSError, match="No space left") as error:
        train(settings(save_every=2, async_save=beside))
    said = "step-000004 was not written. The same command goes on from "
    assert f"{run}/{said}{first}." in "".join(error.value.__notes__)
    # Beside the training one more step may have been taken, never as many as to the next save.
    assert max(losses(run)) in ((4, 5) if beside else (4,))
    assert [folder.name for folder in checkpoint.checkpoint_folders(run)] == ["step-000002"]
    monkeypatch.undo()
    assert train(settings(stop_at=4)).name == "step-000004"
    assert not list(run.glob(f"{checkpoint.ARRIVING}*"))


def test_an_error_of_both_is_told_of_both(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.monitoring.reporter import Reporter

    began, broke = threading.Event(), threading.Event()

    def full(folder: Path) -> None:
        began.set()
        assert broke.wait(60)
        raise OSError("No space left on device")

    def burst(*_: object, **__: object) -> None:
        if began.wait(60):
            broke.set()
        raise RuntimeError("the page broke")

    before_writing(monkeypatch, full)
    monkeypatch.setattr(Reporter, "saved", burst)
    with pytest.raises(RuntimeError, match="the page broke") as error:
        train(settings(save_every=2))
    (note,) = error.value.__notes__
    assert note.startswith("Beside this: OSError('No space left on device')")
    assert "step-000002 was not written. The same command goes on from the beginning." in note


def test_a_snapshot_shares_nothing_but_what_is_tied(settings: Settings) -> None:
    from tokenization.vocab import load_tokenizer
    from trainer import optim
    from trainer.model.initial import initial_objective
    from trainer.parallel import World

    config = settings(model__tie_word_embeddings=True)
    world = World(0, 1, torch.device("cpu"), "one")
    objective, _ = initial_objective(config, load_tokenizer("builtin"), world, resume=None)
    optimizer = optim.optimizer(objective, config.optim)
    for parameter in objective.parameters():
        parameter.grad = torch.ones_like(parameter)
    optim.set_rates(optimizer, 1.0)
    optimizer.step()
    weights = saving.copied_weights(objective, world)
    state = saving.copied_optimizer(objective, optimizer, world)
    assert weights[saving.HEAD] is weights[saving.EMBEDDINGS]
    name = "model.connector.modality_projection.proj.weight"
    before = weights[name].clone(), state["state"][f"model.{name}"]["exp_avg"].clone()
    optimizer.step()
    assert torch.equal(weights[name], before[0])
    assert torch.equal(state["state"][f"model.{name}"]["exp_avg"], before[1])
    assert not torch.equal(objective.model.state_dict()[name], before[0])
