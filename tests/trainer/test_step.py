"""A step: images reach its loss, SIGTERM is looked at inside it, what is not finite is skipped."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.conftest import Settings
from tests.trainer.test_checkpoint import same
from trainer import checkpoint, loop
from trainer.data.batches import Loader
from trainer.loop import Preempted, train
from trainer.model.smolvlm import Objective


def test_sigterm_ends_a_step_between_its_micro_batches(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of the step are done again by the next start, bit for bit."""
    through = train(settings(steps=3, micro_rows=1, output=tmp_path / "through"))
    steps, made = Loader.steps, []

    def interrupted(self: Loader, position: int, count: int) -> Any:
        for plan, batches in steps(self, position, count):

            def counted(plan: Any = plan, batches: Any = batches) -> Any:
                for batch in batches:
                    made.append(plan.position)
                    if len(made) == 6:  # the second of the four of the second step
                        os.kill(os.getpid(), signal.SIGTERM)
                    yield batch

            yield plan, counted()

    monkeypatch.setattr(Loader, "steps", interrupted)
    stopped = settings(steps=3, micro_rows=1, output=tmp_path / "stopped")
    with pytest.raises(Preempted, match=r"saved .*step-000001"):
        train(stopped)
    assert made == [0, 0, 0, 0, 4, 4]  # two of the step's micro-batches were left undone
    monkeypatch.undo()
    assert checkpoint.read_state(Path(stopped.output) / "step-000001").position == 4
    same(through, train(stopped))


@pytest.mark.parametrize("broken", [2, 3])
def test_a_step_that_is_not_finite_is_skipped_and_written_down(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    """Weights stay, the data go on: resuming does not meet the same rows."""
    clip, norms = loop.optim.clip_gradients, []

    def clipped(optimizer: torch.optim.Optimizer, most: float) -> float:
        norms.append(clip(optimizer, most))
        return float("inf") if 2 <= len(norms) < 2 + broken else norms[-1]

    monkeypatch.setattr(loop.optim, "clip_gradients", clipped)
    config = settings(steps=6, save_every=1, keep_last=0, max_skipped=2)
    run = Path(config.output)
    if broken > 2:
        with pytest.raises(FloatingPointError, match=r"step 3: .*norm inf.*3 steps in a row"):
            train(config)
        return
    last = train(config)
    states = [checkpoint.read_state(folder) for folder in checkpoint.checkpoint_folders(run)]
    assert [state.skipped_in_a_row for state in states] == [0, 1, 2, 0, 0, 0]
    assert [state.position for state in states] == [4, 8, 12, 16, 20, 24]
    assert states[-1].skipped == 2
    weights = [checkpoint.load_weights(folder) for folder in checkpoint.checkpoint_folders(run)]
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[2][name])
    assert any(not torch.equal(weights[2][name], weights[3][name]) for name in weights[2])
    written = json.loads((run / "skipped" / "step-000001-rank-0.json").read_text())
    assert written["gradient_norm"] == "inf"
    assert written["batches"][0]["rows"][0].startswith("toy/")
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "skipped" in line] == [2, 3]
    assert [line["step"] for line in lines if "loss" in line] == [1, 4, 5, 6]
    assert last.name == "step-000006"


def test_a_run_that_images_do_not_reach_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with transformers 5.0 to 5.17, which drop the encoded images without a word."""
    hidden = Objective.hidden

    def blind(self: Objective, batch: Any) -> torch.Tensor:
        return hidden(self, batch.__class__(**vars(batch) | {"pixels": batch.pixels * 0 + 7}))

    monkeypatch.setattr(Objective, "hidden", blind)
    with pytest.raises(ValueError, match=r"(?s)for one image and for its negative.*5\.18 or later"):
        train(settings(steps=1))
