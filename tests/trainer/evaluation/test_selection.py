"""Benchmarks choose the best checkpoint, with intervals, compared question by question."""

import csv
import json
from pathlib import Path

import pytest

from tests.trainer.conftest import Settings
from tests.trainer.evaluation.conftest import write_tsv
from trainer import checkpoint
from trainer.config import Benchmark, Config
from trainer.evaluation.benchmark import read
from trainer.evaluation.selection import open_selection
from trainer.loop import train


def test_the_best_checkpoint_follows_the_selected_benchmarks(
    settings: Settings, bench: Path, tmp_path: Path
) -> None:
    rows = [{"index": str(n), "question": f"{n}?", "answer": "Yes"} for n in range(6)]
    other = write_tsv(tmp_path / "other.tsv", rows)
    select = f"{{colours: {{file: {bench}, weight: 3}}, other: {{file: {other}, metric: yes_no}}}}"
    folder = train(settings(steps=3, evaluate_every=1, select=select, keep_last=0))
    run = folder.parent
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    found = [line["metrics"] for line in lines if "metrics" in line]
    for metrics in found:
        expected = (3 * metrics["benchmark/colours"] + metrics["benchmark/other"]) / 4
        assert metrics["selected"] == pytest.approx(expected)
        for name in ("selected", "benchmark/colours", "benchmark/other"):
            assert metrics[f"{name}/low"] <= metrics[name] <= metrics[f"{name}/high"]
    # From the second on there is one before to be compared with.
    assert ["selected/p" in metrics for metrics in found] == [False, True, True]
    assert all(0 < metrics["selected/p"] <= 1 for metrics in found[1:])
    highest = max(metrics["selected"] for metrics in found)
    first = next(k for k, metrics in enumerate(found, 1) if metrics["selected"] == highest)
    assert checkpoint.read_state(folder).best == {"step": first, "value": highest}
    assert (run / "best").readlink() == Path(f"step-{first:06d}")
    with (run / "evaluations" / "step-000002" / "other.tsv").open(newline="") as stream:
        kept = list(csv.DictReader(stream, delimiter="\t"))
    assert [row["index"] for row in kept] == [case.index for case in read(other)]
    assert "selected/p" in (folder / "README.md").read_text()


def test_where_options_are_counted_from_can_be_said(tmp_path: Path) -> None:
    rows = [
        {"index": "1", "question": "?", "answer": "1", "A": "one", "B": "two", "C": "three"},
        {"index": "2", "question": "?", "answer": "2", "A": "one", "B": "two", "C": "three"},
    ]
    file = str(write_tsv(tmp_path / "choices.tsv", rows))
    asked = {"file": file, "metric": "multiple_choice"}
    with pytest.raises(ValueError, match=r"select\.mine: .*\n.*\n.*way out: choices_from=0 or"):
        open_selection(Config(select={"mine": Benchmark(**asked)}))
    for first, letters in (("0", ["B", "C"]), ("1", ["A", "B"])):
        config = Config(select={"mine": Benchmark(**asked, choices_from=first)})
        assert [case.gold[0] for case in open_selection(config)["mine"]] == letters
