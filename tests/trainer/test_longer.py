"""A run may end early, go on for longer, and its last checkpoints be averaged."""

import json
from pathlib import Path

import pytest
import torch

from tests.trainer.conftest import Settings
from tests.trainer.test_checkpoint import held_out, losses, worsening
from trainer import checkpoint
from trainer.__main__ import main
from trainer.data import integrity
from trainer.loop import train
from trainer.monitoring.devices import estimate, peak_tflops


def test_a_run_that_gets_no_better_ends_and_goes_on_with_more_patience(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    config = worsening(settings, patience=2)
    last = train(config)
    held = held_out(last.parent)
    best = min(held, key=lambda step: held[step])
    assert checkpoint.read_state(last).step == best + 2 < 6
    assert train(config) == last
    assert "nothing to do" in capsys.readouterr().out
    assert train(worsening(settings, patience=0)).name == "step-000006"


def test_a_finished_run_goes_on_for_longer(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"optim__schedule": "constant", "optim__warmup": 0}
    train(settings(steps=2, output=tmp_path / "longer", **changes))
    last = train(settings(steps=4, output=tmp_path / "longer", **changes))
    through = train(settings(steps=4, output=tmp_path / "through", **changes))
    assert last.name == "step-000004"
    assert losses(tmp_path / "longer") == losses(tmp_path / "through")
    ours, theirs = checkpoint.load_weights(last), checkpoint.load_weights(through)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert "steps    2 -> 4: the rate goes from" in capsys.readouterr().out


def test_the_last_checkpoints_are_averaged(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(settings(steps=3, save_every=1, keep_last=0, save_dtype="bfloat16")).parent
    (run / "step-000003" / "scores").mkdir()  # laid beside it later: no part of it
    (run / "step-000003" / "scores" / "mine.parquet").write_text("of other weights")
    (run / "step-000003" / "mine.gguf").write_text("of other weights")
    capsys.readouterr()
    assert main(["average", str(run), "last=2", "--json"]) == 0
    folder = run / "average-000002-000003"
    told = json.loads(capsys.readouterr().out)
    assert told["checkpoint"] == str(folder)
    assert (told["step"], told["metrics"]) == (3, {})
    parts = [checkpoint.load_weights(run / f"step-00000{k}") for k in (2, 3)]
    mean = checkpoint.load_weights(folder)
    for name, weight in mean.items():
        expected = ((parts[0][name] + parts[1][name]) / 2).to(torch.bfloat16)
        assert torch.allclose(weight.float(), expected.float(), atol=1e-2), name
    assert checkpoint.read_state(folder).metrics == {}
    assert "the mean of those after 2, 3 steps" in (folder / "README.md").read_text()
    names = {str(p.relative_to(folder)) for p in folder.rglob("*")}
    theirs = {str(p.relative_to(run)) for p in (run / "step-000003").rglob("*")}
    beside = {"scores", "scores/mine.parquet", "mine.gguf"}
    gone = {"trainer/optimizer.pt", "trainer/weights.pt"}
    whole = {name.removeprefix("step-000003/") for name in theirs}
    assert names == whole - beside - gone
    assert integrity.damage(folder) == ""
    assert train(settings(steps=1, init=folder, output=tmp_path / "next")).is_dir()
    assert checkpoint.newest(run) == run / "step-000003"
    assert main(["average", str(run), "last=9"]) == 2
    assert "holds 3 checkpoints, last=9" in capsys.readouterr().err
    assert main(["average", str(run), "last=2", "output=s3://bucket/mean"]) == 2
    assert "output=s3://bucket/mean: expected a folder" in capsys.readouterr().err
    words = [f"{key}={value}" for key, value in settings.pairs.items() if key != "output"]
    assert main(["tiny", *words, "output=s3://bucket/run"]) == 2
    assert "output=s3://bucket/run: expected a folder" in capsys.readouterr().err


def test_rounded_checkpoints_resume_without_rounding(settings: Settings, tmp_path: Path) -> None:
    through = train(settings(steps=3, output=tmp_path / "through"))
    changes = {"save_dtype": "bfloat16", "output": tmp_path / "halves"}
    train(settings(steps=3, stop_at=1, **changes))
    rest = train(settings(steps=3, **changes))
    ours, theirs = checkpoint.load_weights(rest), checkpoint.load_weights(through)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    small, large = ((f / "model.safetensors").stat().st_size for f in (rest, through))
    assert small < 0.52 * large
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in rest.rglob("*") if file.is_file())


def test_hours_and_cost_follow_from_the_devices_name() -> None:
    assert peak_tflops("NVIDIA H100 80GB HBM3") == 989
    assert peak_tflops("NVIDIA H100 PCIe") == 756
    assert peak_tflops("cpu") == 0
    line = estimate(989e12 * 0.4 * 8 * 3600, device="NVIDIA H100", count=8, tflops=989, price=2.5)
    assert "about 1.0 hours on 8 x NVIDIA H100 at 40% of 989 TFLOPS: 8.00 device-hours" in line
    assert line.endswith("cost 20.00")
    assert "hours unknown" in estimate(1e15, device="cpu", count=1, tflops=0, price=0)
