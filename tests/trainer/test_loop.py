"""What a user sees of training: a falling loss, a log, and one message for a mistake."""

import json
import math
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest
import torch
import yaml

from tests.trainer.conftest import SMALL, Settings
from tests.trainer.shards import toy, write
from trainer import optim
from trainer.__main__ import main
from trainer.config import MAY_CHANGE, Config, Optim
from trainer.config_file import CONFIGS, find_config, load, to_yaml
from trainer.evaluation.evaluate import OPTIONS
from trainer.evaluation.metrics import METRICS
from trainer.loop import train
from trainer.model import smolvlm as model
from trainer.monitoring import reporter


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_the_loss_falls_and_is_logged_per_component(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = {f"optim__lr__{tower}": 1e-2 for tower in ("vision", "connector", "language")}
    run = train(settings(steps=30, **rates)).parent
    logged = [line for line in lines(run) if "loss" in line]
    assert [line["step"] for line in logged] == list(range(1, 31))
    assert logged[0]["loss"] == pytest.approx(math.log(49280), rel=0.05)  # all ids alike
    assert logged[-1]["loss"] < 0.7 * logged[0]["loss"]
    names = set().union(*(line["losses"] for line in logged))
    assert {name for name in names if name.startswith("component/")} == {
        "component/images",
        "component/words",
    }
    assert {name for name in names if name.startswith("modality/")} == {
        "modality/image",
        "modality/images",
        "modality/text",
    }
    for line in logged:
        assert 0 <= line["data_wait"] <= 1
        assert line["tokens_per_second"] > line["learned_tokens_per_second"] > 0
    (held,) = [line["held_out"] for line in lines(run) if "held_out" in line]
    assert held["all"] < logged[0]["loss"]
    shown = capsys.readouterr().out
    for part in (
        "parameters (vision",
        "step 30/30  loss",
        " s left\n",
        "  done\n",
        "learned/s",
        "data wait",
        "held out: all",
    ):
        assert part in shown


def test_the_same_seed_is_the_same_run_whatever_the_workers_and_micro_batches(
    settings: Settings, tmp_path: Path
) -> None:
    curves = []
    for number, changes in enumerate(({}, {"workers": 1, "prefetch": 1}, {"micro_rows": 4})):
        run = train(settings(steps=3, output=tmp_path / f"{number}", **changes)).parent
        curves.append([line["loss"] for line in lines(run) if "loss" in line])
    assert curves[0] == curves[1]
    assert curves[2] == pytest.approx(curves[0], rel=1e-5)


def test_several_mixtures_are_trained_by_weight(
    settings: Settings, mixture: Path, tmp_path: Path
) -> None:
    from tests.trainer.shards import pack, sample

    texts = pack([sample(i, "text") for i in range(60)])
    other = write(tmp_path / "texts", texts, name="texts")
    folder = train(settings(steps=2, data=f"{{{mixture}: 3, {other}: 1}}"))
    state = json.loads((folder / "trainer" / "state.json").read_text())
    assert [(m["name"], m["weight"]) for m in state["mixtures"]] == [("toy", 3.0), ("texts", 1.0)]


def test_a_loss_that_is_not_finite_names_the_samples(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = model._token_losses

    def poisoned(
        head: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        losses = plain(head, hidden, targets)
        return torch.where(torch.arange(len(losses)) == 0, torch.nan, losses)

    monkeypatch.setattr(model, "_token_losses", poisoned)
    with pytest.raises(
        FloatingPointError,
        match=r"step 2: the loss is nan.* Rows toy/\d+.*samples toy/.*3 steps in",
    ):
        train(settings(max_skipped=2))
    run = Path(settings.pairs["output"])
    assert not list(run.glob("step-*"))
    written = json.loads((run / "skipped" / "step-000001-rank-0.json").read_text())
    assert written["loss"] == "nan"
    assert any(math.isnan(loss) for batch in written["batches"]
               for loss in batch["loss_per_sample"].values())  # fmt: skip


def test_names_of_a_mixture_move_no_cursor(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A recipe's, and those of components, which stand in the index alone."""
    folder = toy(tmp_path / "hostile", count=20)
    recipe = json.loads((folder / "recipe.json").read_text())
    recipe |= {"name": "toy\u061ca", "fingerprint": "\x1b[2J\u202e"}
    (folder / "recipe.json").write_text(json.dumps(recipe))
    index = pa.table({"id": [f"toy/{kind}/000000" for kind in ("image", "images", "text")],
                      "source": ["toy"] * 3, "subset": ["image", "images", "text"],
                      "component": ["images\x1b[1A", "images\x1b[1A", "words\r"]})  # fmt: skip
    with pa.ipc.new_file(str(folder / "index.arrow"), index.schema) as writer:
        writer.write_table(index)
    train(settings(steps=1, data=folder))
    told = capsys.readouterr().out
    for name in ("toy\\u061ca (\\u001b[2J\\u202e)", "images\\u001b[1A", "words\\u000d"):
        assert name in told
    assert not any(mark in told for mark in "\x1b\r\u202e\u061c")


def test_a_spike_is_written_down(settings: Settings) -> None:
    run = train(settings(steps=3, max_loss_spike=0.5)).parent
    (first, *_) = sorted((run / "spikes").glob("*.json"))
    spike = json.loads(first.read_text())
    assert spike["batches"][0]["rows"][0].startswith("toy/")
    assert set(spike["batches"][0]["loss_per_sample"]) <= {
        name for batch in spike["batches"] for name in batch["loss_per_sample"]
    }
    assert spike["loss"] > 0.5 * spike["running_mean"]


def test_tensorboard_has_the_numbers(settings: Settings) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(settings(steps=3, stop_at=2, tensorboard=True))
    run = train(settings(steps=3, tensorboard=True)).parent
    assert len(list((run / "tensorboard").iterdir())) == 1  # after two starts
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    logged = [line["loss"] for line in lines(run) if "loss" in line]
    assert [e.value for e in events.Scalars("loss")] == pytest.approx(logged)
    assert "losses/component/images" in events.Tags()["scalars"]


@pytest.mark.slow
def test_trackio_has_the_numbers_also_after_a_resume(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    train(settings(steps=3, stop_at=1, track="trackio"))
    run = train(settings(steps=3, track="trackio")).parent
    (file,) = (tmp_path / "trackio").glob("*.db")
    read = "select run_name, step, metrics from metrics order by step"
    with closing(sqlite3.connect(file)) as tables:
        rows = [(name, step, json.loads(told)) for name, step, told in tables.execute(read)]
    identity = (run / "run_id").read_text().strip()
    assert {name for name, _, _ in rows} == {f"{run.name}-{identity[:8]}"}
    assert len(identity) == 32
    logged = [(line["step"], line["loss"]) for line in lines(run) if "loss" in line]
    assert [(step, told["loss"]) for _, step, told in rows if "loss" in told] == logged
    assert "losses/component/images" in rows[0][2]
    assert "held_out/all" in rows[-1][2]


@pytest.mark.slow
def test_wandb_has_the_numbers(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = train(settings(steps=2, track="wandb")).parent
    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    told = file.read_bytes()  # records of JSON texts, not compressed
    losses = [line["loss"] for line in lines(run) if "loss" in line]
    assert losses
    assert all(json.dumps(loss).encode() in told for loss in losses)
    assert b"held_out/all" in told


# -- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("tiny", "smolvlm_256m", "smolvlm_500m", "smolvlm_2b2"),
        *("pairing_so400m_135m", "pairing_so400m_360m", "pairing_b16_1b7"),
    ],
)
def test_configs_load_and_survive_being_written(name: str, tmp_path: Path) -> None:
    config = load(name, {"data": "out/a b: c"})
    assert config.data == {"out/a b: c": 1.0}
    (tmp_path / "again.yaml").write_text(to_yaml(config))
    assert load(str(tmp_path / "again.yaml"), {}) == config
    assert yaml.safe_load(find_config(name).read_text())["model"]["scale_factor"] in (2, 3, 4)


def test_an_empty_value_is_an_empty_name() -> None:
    """`model.vision.pretrained=` is how random weights are asked for."""
    config = load("smolvlm_256m", {"model.vision.pretrained": "", "init": ""})
    assert config.model.vision.pretrained == config.init == ""
    assert config.model.vision.hidden_size == 768
    with pytest.raises(ValueError, match="steps=: Value ''"):
        load("tiny", {"steps": ""})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["config=tny", "data=x"], "config=tny: no such config. Did you mean 'tiny'?"),
        (["config=tiny.yaml", "data=x"], "config=tiny.yaml: no such file"),
        (["data=x"], "config is not set"),
        (["config=tiny"], "data is not set"),
        (["config=tiny", "data=nowhere"], "data=nowhere: no such folder"),
        (["config=tiny", "data=x", "optim.lr.vison=1"], "Did you mean: 'vision'?"),
        (
            ["config=tiny", "data=x", "batch_rows=many"],
            "'many' of type 'str' could not be converted",
        ),
        (["config=tiny", "data=x", "batch_rows=0"], "batch_rows is 0, expected at least 1"),
        (["config=tiny", "data=x", "keep_last=-1"], "keep_last is -1, expected 0 or more"),
        (["config=tiny", "data=x", "optim.lr=nan"], "optim.lr.vision is nan, expected 0 or more"),
        (["config=tiny", "data=x", "optim={lr: -1}"], "optim.lr.vision is -1, expected 0 or more"),
        (["config=tiny", "data=x", "optim.betas=[0.9,2]"], "optim.betas is 2, expected 0 to 1"),
        (["config=tiny", "data=x", "model.vision.patch_size=0"], "patch_size is 0, expected at"),
        (["config=tiny", "data=x", "steps=0", "epochs=0"], "nothing to train"),
        (["config=tiny", "data=x", "attention=flash"], "expected one of"),
        (["config=tiny", "data=x", "model.scale_factor=3"], "does not divide the 8 patches"),
        (["config=tiny", "data=x", "optim.freeze=[visoin]"], "Did you mean 'vision'?"),
        (["config=tiny", "data"], "'data': expected key=value"),
        (["config=tiny", "data=x", "device=tpu"], "expected auto, cpu or cuda"),
    ],
)
def test_mistakes_are_one_message_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_shards_for_another_model_are_refused_before_training(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [f"{k}={v}" for k, v in settings.pairs.items()]
    assert main(["config=tiny", *pairs, "model.vision.image_size=128"]) == 2
    error = capsys.readouterr().err
    assert "model.vision.image_size of config 'tiny' is 128" in error
    assert "encoding.crop_size of the shards" in error
    assert not list(Path(settings.pairs["output"]).glob("*"))


def test_a_bug_is_not_taken_for_a_mistake(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        json.loads("{")

    monkeypatch.setattr(reporter, "describe_run", broken)
    pairs = [f"{k}={v}" for k, v in settings.pairs.items()]
    with pytest.raises(json.JSONDecodeError):
        main(["config=tiny", *pairs])


def test_help_names_every_config_and_real_fields_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 100
    for config in CONFIGS.glob("*.yaml"):
        assert config.stem in shown
    for key, value in re.findall(r"^  ([a-z_.]+)=([0-9.]+|auto)(?=,? )", shown, re.MULTILINE):
        standing: object = Config()
        for name in key.split("."):
            standing = getattr(standing, name)
        assert str(standing) == value, f"{key} is {standing} by default, the help says {value}"
    assert main(["config=tiny", "--help"]) == 0
    assert capsys.readouterr().out == shown


def test_help_of_evaluate_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--help"]) == 0
    shown = capsys.readouterr().out
    named = dict(re.findall(r"^  ([a-z_]+)=(\S+)", shown, re.MULTILINE))
    assert {key: named[key] for key in OPTIONS if OPTIONS[key]} == {
        key: default for key, default in OPTIONS.items() if default
    }
    assert set(named) == set(OPTIONS)
    for metric in METRICS:
        assert metric in shown


def test_every_field_that_may_change_exists() -> None:
    assert set(MAY_CHANGE) <= set(Config.__dataclass_fields__)


# -- schedules ------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "wsd"])
def test_schedules_start_warm_peak_and_end(schedule: str) -> None:
    settings = Optim(schedule=schedule, warmup=0.1, final=0.1, decay=0.25)  # type: ignore[arg-type]
    rates = [optim.schedule_factor(step, steps=100, settings=settings) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[10] == 1.0
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    end = optim.schedule_factor(100, steps=100, settings=settings)
    assert end == pytest.approx(1.0 if schedule == "constant" else 0.1)
    if schedule == "wsd":
        assert rates[75] == 1.0 > rates[76]
    if schedule == "cosine":
        assert optim.schedule_factor(55, steps=100, settings=settings) == pytest.approx(0.55)
    if schedule == "linear":
        assert optim.schedule_factor(55, steps=100, settings=settings) == pytest.approx(0.55)


def test_warmup_is_a_share_or_a_number_of_steps() -> None:
    assert optim.warmup_steps(Optim(warmup=0.03), 1000) == 30
    assert optim.warmup_steps(Optim(warmup=25), 1000) == 25
    assert optim.schedule_factor(0, steps=10, settings=Optim(warmup=0)) == 1.0


def test_small_is_small() -> None:
    assert load("tiny", SMALL).model.language.num_hidden_layers == 2
