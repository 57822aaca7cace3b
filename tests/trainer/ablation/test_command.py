"""A sweep from its file to its table and page: complete, resumable, and honest about failures."""

import json
import re
from pathlib import Path

import pytest

from tests.html_page import Page
from tests.trainer.conftest import SMALL
from tests.trainer.search.searching import build_here, write_mixture
from tests.trainer.shards import pack, sample, write
from trainer import loop
from trainer.__main__ import main
from trainer.ablation import mixtures, results
from trainer.config import Config
from trainer.data.shards import open_mixture

PLACES = ("data", "output", "seed")


def sweep_file(folder: Path, arms: str, *, mixture: Path, more: str = "", **train: object) -> Path:
    settings = {**SMALL, "steps": 2, "optim.lr": 1e-3, **train}
    lines = "\n".join(f"  {key}: {value}" for key, value in settings.items())
    file = folder / "rates.yaml"
    file.write_text(
        f"description: Which <rate>?\nmixture: {mixture}\nconfig: tiny\nseeds: 2\n{more}\n"
        f"train:\n{lines}\narms:\n{arms}"
    )
    return file


ARMS = """
  low: {}
  high: {train: {optim.lr: 1e-2}}
  broken: {train: {optim.lr: 2}}
"""


def without_cost(file: Path) -> dict:
    found = json.loads(file.read_text())
    for arm in found["arms"]:
        del arm["cost"]["cpu_seconds"], arm["cost"]["device_seconds"]
    return found


@pytest.mark.timeout(900)  # eight trainings on a busy machine
def test_a_sweep_is_killed_goes_on_and_ends_the_same(
    mixture: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, begun = loop.train, [0]

    def train(config: Config) -> Path:
        begun[0] += 1
        if begun[0] == 3 and "/killed/" in config.output:
            raise KeyboardInterrupt
        if config.optim.lr.vision > 1:
            raise FloatingPointError("the loss is nan")
        return real(config)

    monkeypatch.setattr(loop, "train", train)
    file = sweep_file(tmp_path, ARMS, mixture=mixture)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(["sweep", str(file), f"output={whole}"]) == 1  # an arm failed
    shown = capsys.readouterr()
    assert re.search(r"^low +2 .* baseline", shown.out, re.M)
    assert re.search(r"^high +2 .* (better|worse|not shown) ", shown.out, re.M)
    assert re.search(r"^broken +0 .*\(2 failed\)", shown.out, re.M)
    assert re.search(r"broken, seed 2: failed: FloatingPointError: the loss", shown.out)
    found = json.loads((whole / "table.json").read_text())
    low, high, broken = found["arms"]
    line = high["metrics"]["all"]
    by = [line["by_seed"][seed] - low["metrics"]["all"]["by_seed"][seed] for seed in ("1", "2")]
    assert line["difference"]["mean"] == pytest.approx(sum(by) / 2)
    assert line["difference"]["low"] < line["difference"]["mean"] < line["difference"]["high"]
    assert set(low["metrics"]) == {"all", "component/images", "component/words"}
    assert low["cost"]["runs"] == 2
    assert low["cost"]["tokens"] == high["cost"]["tokens"] > 0
    assert list(broken["failed"]) == ["1", "2"]
    text = (whole / "sweep.html").read_text()
    assert "Which &lt;rate&gt;?" in text
    assert "<script" not in text
    assert text.count("<svg") == 2  # differences, and curves
    Page(text)

    begun[0] = 0
    assert main(["sweep", str(file), f"output={killed}"]) == 130
    assert main(["sweep", str(file), f"output={killed}"]) == 1
    assert without_cost(killed / "table.json") == without_cost(whole / "table.json")

    # Without the broken arm nothing is left to train; the runs of another sweep serve as well.
    begun[0] = 0
    less = sweep_file(tmp_path, ARMS.replace("  broken", "#"), mixture=mixture)
    capsys.readouterr()
    words = ["sweep", str(less), f"output={tmp_path / 'other'}", f"runs={whole / 'runs'}"]
    assert main([*words, "json=true"]) == 0
    assert json.loads(capsys.readouterr().out)["arms"][0] == low
    assert begun[0] == 0


def test_what_is_wrong_is_said_before_the_first_run(
    mixture: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = [sample(9000 + i, "text") for i in range(4)]
    leaky = write(tmp_path / "leaky", pack([*held, sample(1, "text")]), val=pack(held), name="a")
    blind = write(tmp_path / "blind", pack([sample(i, "text") for i in range(9)]), name="b")
    other = write(tmp_path / "other", pack([sample(1, "text")] * 5), val=pack(held), name="c")

    def refused(config: Config) -> Path:
        raise AssertionError(config.output)

    monkeypatch.setattr(loop, "train", refused)
    two = "  a: {}\n  b: {train: {optim.lr: 2e-3}}\n"
    for arms, settings, message in (
        (two, {"mixture": leaky}, "arm 'a' trains on 4 of the 4 held-out samples"),
        (two, {"mixture": blind}, "no held-out samples, so no arm can be judged"),
        (f"  a: {{}}\n  b: {{mixture: {leaky}}}\n", {"mixture": other}, "arm 'b' trains on 4"),
        (two, {"mixture": other, "more": "metric: word"}, "Did you mean 'words'?"),
        (two, {"mixture": other, "more": f"held_out: {blind}"}, "no held-out samples"),
        ("  a: {}\n  b: {train: {micro_rows: 1}}\n", {"mixture": other}, "are the same runs"),
        ("  a: {}\n  b: {train: {model.language.vocab_size: 100}}\n", {"mixture": other},
         "arm 'b': vocabulary: model.language.vocab_size"),
        (f"  a: {{}}\n  b: {{build: {{tokens: 5}}, mixture: {other}}}\n", {"mixture": other},
         "is a finished mixture, and build changes tokens"),
    ):  # fmt: skip
        file = sweep_file(tmp_path, arms, **settings)  # type: ignore[arg-type]
        assert main(["sweep", str(file), f"output={tmp_path / 'out'}"]) == 2, message
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "runs").exists()
    file = sweep_file(tmp_path, two, mixture=other)
    for words, message in (
        ([], "expected a number"),
        (["rank=2"], "Did you mean 'ranks'?"),
        (["gpus=1"], "set ray=auto as well"),
        (["gpus=x", "ray=local"], "gpus=x: expected"),
        (["ranks=2", "ray=local"], "ranks= trains each run on this machine"),
    ):
        if words:
            assert main(["sweep", str(file), *words]) == 2
            assert message in capsys.readouterr().err


@pytest.mark.timeout(900)  # two builds on a busy machine
def test_a_shortage_of_any_arm_is_said_before_the_first_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixtures, "pipelines", build_here)
    build = "build: {tokens: 1000, val_fraction: 0.1}"
    arms = "  a: {}\n  more: {build: {tokens: 10_000_000}}\n"
    file = sweep_file(tmp_path, arms, mixture=write_mixture(tmp_path), more=build)
    assert main(["sweep", str(file), f"output={tmp_path / 'out'}"]) == 2
    said = capsys.readouterr().err
    assert "arm 'more': its mixture cannot be built" in said
    assert said.count("cannot be built") == 1
    assert not (tmp_path / "out" / "runs").exists()


def test_a_metric_that_is_the_same_in_every_run_is_named(tmp_path: Path) -> None:
    arms = [
        {"name": name, "metrics": {"vqa": {"by_seed": {"1": 0.5, "2": 0.5}}}, "failed": {}}
        for name in ("low", "high")
    ]
    found = {"metric": "vqa", "arms": arms, "runs": [{}] * 4, "held_out_left_out": 0}
    assert results._notes(found)[0].startswith("vqa is constant: 0.5000 in every run")
    arms[1]["metrics"]["vqa"]["by_seed"]["2"] = 0.25
    assert "constant" not in " ".join(results._notes(found))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore")  # of Ray
def test_runs_end_the_same_as_tasks_of_ray_and_on_ranks(mixture: Path, tmp_path: Path) -> None:
    arms = "  low: {}\n  high: {train: {optim.lr: 1e-2}}\n  lost: {train: {init: ./nowhere}}\n"
    file = sweep_file(tmp_path, arms, mixture=mixture)
    found = {}
    for name, how in (("here", []), ("ray", ["ray=local"]), ("ranks", ["ranks=2"])):
        out = tmp_path / name
        assert main(["sweep", str(file), f"output={out}", *how]) == 1  # an arm failed
        found[name] = without_cost(out / "table.json")
        *_, lost = found[name]["arms"]
        assert list(lost["failed"]) == ["1", "2"]
        assert all("nowhere" in why for why in lost.pop("failed").values())
        devices = json.loads(next((out / "runs").glob("*/run.json")).read_text())["cost"]["devices"]
        assert devices == (2 if name == "ranks" else 1)
    assert found["ray"] == found["here"]
    for ours, theirs in zip(found["ranks"]["arms"], found["here"]["arms"], strict=True):
        assert ours["cost"]["tokens"] == theirs["cost"]["tokens"]
        for metric, line in theirs["metrics"].items():
            assert ours["metrics"][metric]["mean"] == pytest.approx(line["mean"], rel=1e-3)


def test_samples_are_counted_as_the_trainer_counts_them(mixture: Path) -> None:
    from trainer.data.shards import Rows

    for split in ("train", "val"):
        found = mixtures.learned_tokens(open_mixture(str(mixture)), split)
        rows = Rows(open_mixture(str(mixture)), split)
        names = {name for n in range(len(rows)) for name in rows[n].sample_ids}
        assert set(found) == names
        total = sum(int(rows.sizes(n)[3]) for n in range(len(rows)))
        if split == "val":  # each once
            assert sum(found.values()) == total
