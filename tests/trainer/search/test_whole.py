"""A search from its words to its files: cut anywhere it goes on, and what fails ends nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.trainer.search.searching import WORDS, build_here, result, search, write_mixture
from trainer import loop
from trainer.config import Config
from trainer.search import bench, mixing


def questions(first: int, last: int) -> str:
    """A TSV of what component a asks of, which has the numbers below 200."""
    rows = (f"{n}\tWhat follows a {n}?\t{n + 1}\n" for n in range(first, last))
    return "index\tquestion\tanswer\n" + "".join(rows)


@pytest.mark.timeout(1200)  # four trainings and five builds on a busy machine
def test_a_search_cut_at_runs_goes_on_and_a_run_that_fails_ends_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mixture, out, begun = write_mixture(tmp_path), tmp_path / "cut", []

    def train(config: Config) -> Path:
        begun.append(config.output)
        if len(begun) == 2:
            raise KeyboardInterrupt
        if len(begun) == 3:
            raise FloatingPointError("the loss is nan")
        return loop.train(config)

    monkeypatch.setattr(mixing, "pipelines", build_here)
    monkeypatch.setattr(bench, "train", train)
    assert search(mixture, out) == 130
    assert len(begun) == 2
    assert search(mixture, out) == 1  # the second run fails, the others are tried
    assert len(begun) == 5
    (failed,) = json.loads((out / "result.json").read_text())["failed"]
    assert (failed["run"], failed["why"]) == ("run 2", "FloatingPointError: the loss is nan")
    assert "run 2, seed 17 failed: FloatingPointError" in capsys.readouterr().out
    assert "the loss is nan" in (out / "page.html").read_text()
    assert search(mixture, out) == 0
    assert len(begun) == 6  # it alone
    whole = tmp_path / "whole"
    assert search(mixture, whole, trials=str(out / "trials"), hours="9", runs="4") == 0
    assert len(begun) == 6
    found, again = result(out), result(whole)
    assert again["budget"] == found["budget"] | {
        "runs": None, "hours": 9.0, "seconds": again["budget"]["seconds"]
    }  # fmt: skip
    assert again | {"budget": 0} == found | {"budget": 0}
    assert len(found["runs"]) == found["search_cost"]["runs"] == 4

    # All of a target that is asked for is known before a run: here that it is trained on.
    (tmp_path / "vqa.tsv").write_text(questions(0, 200))
    asked = json.dumps({"vqa": {"file": str(tmp_path / "vqa.tsv")}})
    place = {"trials": str(out / "trials"), "benchmarks": asked}
    assert search(mixture, whole, target="{a: 1, vqa: 1}", **place) == 2
    assert "of the 200 questions of the benchmark vqa" in capsys.readouterr().err
    assert search(mixture, whole, target="{a: 1, vqb: 1}", **place) == 2
    assert "the benchmark vqa has no weight" in capsys.readouterr().err
    place["benchmarks"] = asked.replace("vqa", "a", 1)
    assert search(mixture, whole, target="{a: 1}", **place) == 2
    assert "a is a component of the mixture and a benchmark" in capsys.readouterr().err
    assert search(mixture, whole, trials=place["trials"], **{"train.optim.lr": "0"}) == 2
    assert "optim.lr is 0, so the target is constant" in capsys.readouterr().err
    larger = {"verify.model.language.vocab_size": "100", "trials": place["trials"]}
    assert search(mixture, whole, **larger) == 2
    assert "vocabulary" in capsys.readouterr().err
    assert search(mixture, whole, trials=place["trials"], hours="1e-9") == 2
    assert "pays for" in capsys.readouterr().err
    assert len(begun) == 6


def _searching(mixture: Path, out: Path, **words: str) -> list[str]:
    given = WORDS | {"output": str(out)} | words
    return [sys.executable, "-m", "trainer", "search", str(mixture),
            *(f"{key}={value}" for key, value in given.items())]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_search_that_was_killed_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    """SIGKILL, of all its processes, while its third run is in the making."""
    mixture = write_mixture(tmp_path)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    words = {"method": "bayes", "seeds": "2", "runs": "5"}
    command = _searching(mixture, killed, **words)
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL) as process:
        while len(list((killed / "trials" / "runs").glob("*/run.json"))) < 2:
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "result.json").exists()
    assert subprocess.run(command, check=False).returncode == 0
    assert subprocess.run(_searching(mixture, whole, **words), check=False).returncode == 0
    assert result(killed) == result(whole)
    assert (killed / "proposal.yaml").read_text() == (whole / "proposal.yaml").read_text()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_schedule_for_a_benchmark_within_hours_is_verified_at_a_larger_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixing, "pipelines", build_here)
    mixture, out = write_mixture(tmp_path), tmp_path / "out"
    (tmp_path / "vqa.tsv").write_text(questions(1000, 1012))
    words = {
        "benchmarks": json.dumps({"vqa": {"file": str(tmp_path / "vqa.tsv"), "metric": "anls"}}),
        "target": "{a: 1, vqa: 1}", "stages": "2", "hours": "1", "runs": "4", "seeds": "1",
        "bounds": "{a: [0.1, 0.9]}", "verify_tokens": "1500",
        "verify.model.language.hidden_size": "64", "verify_runs": "1",
    }  # fmt: skip
    assert search(mixture, out, **words) == 0
    found = result(out)
    assert found["stages"] == 2
    assert all(len(shares) == 2 for shares in found["proposal"].values())
    assert set(found["effects"]) == {"a, stage 1", "b, stage 1", "a, stage 2", "b, stage 2"}
    assert set(found["verified"]) == {"proposal", "prior", "uniform", "supply", "its means"}
    assert found["budget"]["tried"] == 4
    larger = found["larger"]
    assert larger["parameters"] > found["parameters"]
    assert larger["tokens"] == 1500
    assert len(larger["points"]) == 6
    assert -1 <= larger["rank_correlation"] <= 1
    text = (out / "page.html").read_text()
    assert "At a larger size" in text
    assert "another hour, would have ended elsewhere" in text
    assert "1 - score of vqa" in text
    proposal = yaml.safe_load((out / "proposal.yaml").read_text())
    for name, shares in found["proposal"].items():
        assert proposal["components"][name]["ratio"] == mixing.stated(shares)
    before = (out / "result.json").read_bytes()
    assert search(mixture, out, **words) == 0
    assert (out / "result.json").read_bytes() == before
    made = tmp_path / "made"
    kitchen = mixing.Kitchen(mixture=str(out / "proposal.yaml"), trials=made,
                             work=str(tmp_path / "work"), overrides=("workers=0",))  # fmt: skip
    folder = kitchen.build(None, tokens=1000)
    components = json.loads((folder / "recipe.json").read_text())["mixture"]["components"]
    for name, shares in found["proposal"].items():
        points = components[name]["schedule"] or [[0, components[name]["ratio"]]]
        assert [share for _, share in points][::2] == [shares[0], shares[1]][: len(points[::2])]
