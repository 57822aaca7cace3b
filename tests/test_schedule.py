"""A mixture whose ratios follow a schedule, from its file to the rows that the trainer takes."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mixtures.mixture_file import to_yaml
from pipelines import check
from pipelines.__main__ import main
from pipelines.check import _schedule, folder_faults
from pipelines.report.finished import open_finished
from pipelines.report.page import report
from tests.building import build, digests
from tests.pipelines.sources.making import write_lines
from tests.trainer.data.test_cache import loader
from trainer.config_file import load

MIXTURE = """
tokens: 24000
val_fraction: 0.05
shard_bytes: 60000
encoding: {tokenizer: builtin, seq_len: 256, crop_size: 128, tokens_per_crop: 4, max_crops: 16,
           longest_edge: 128}
components:
  early: {source: messages, data: early.jsonl, ratio: {0: 0.8, 0.5: 0.8, 0.5: 0.2, 1: 0}}
  late: {source: messages, data: late.jsonl, ratio: rest}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("schedule")
    for name in ("early", "late"):
        rows = []
        for n in range(500):
            words = f"{name} {n}, and {'so on and ' * (n % 7)}then"
            asked = {"role": "user", "content": f"Say {words} again: {n * 7}?"}
            rows.append(
                {"messages": [asked, {"role": "assistant", "content": f"{words} {n * 7}."}]}
            )
        write_lines(folder / f"{name}.jsonl", rows)
    (folder / "mine.yaml").write_text(MIXTURE)
    return folder


@pytest.fixture(scope="module")
def mix(made: Path) -> Path:
    return build(made / "mine.yaml", made)


def test_rows_follow_the_schedule_and_the_card_says_so(mix):
    stats = json.loads((mix / "stats.json").read_text())
    assert stats["packing"]["train"]["shards"] > 2
    along = stats["schedule"]
    asked, got, at = (np.array(v) for v in (along["asked"]["early"], along["got"]["early"],
                                            along["at"]))  # fmt: skip
    assert got[at < 0.45].mean() == pytest.approx(0.8, abs=0.03)
    assert got[at > 0.55].mean() == pytest.approx(0.1, abs=0.03)
    assert asked[-1] < 0.02
    assert stats["components"]["early"]["asked"] == pytest.approx(0.45)
    assert stats["prefix"]["worst"] < 0.05
    assert stats["packing"]["train"]["fill"] > 0.85
    card = (mix / "README.md").read_text()
    assert "Ratios follow a schedule over the run" in card
    assert "| early | 80.00 %, " in card
    assert "Ratios along the run" in report(open_finished(str(mix)))


def test_the_same_file_gives_the_same_bytes(made, mix):
    build(made / "mine.yaml", made, f"output={made}/again", f"work={made}/again_work")
    assert digests(made / "again") == digests(mix)


def test_check_reads_the_schedule_in_the_rows(mix, monkeypatch):
    assert list(folder_faults(str(mix), rows=2)) == []
    other = open_finished(str(mix))
    components = other.recipe["mixture"]["components"]
    components["early"]["schedule"], components["late"]["schedule"] = (
        [[0.0, 0.0], [1.0, 0.9]],
        [[0.0, 1.0], [1.0, 0.1]],
    )
    faults = list(_schedule(other))
    assert len(faults) == 2
    assert "component early: " in faults[0]
    assert "its schedule asks for" in faults[0]
    monkeypatch.setattr(check, "ROWS", 3)  # the same, three rows at a time
    assert list(_schedule(other)) == faults


def test_the_trainer_keeps_the_order_within_runs_of_rows(mix, made, tmp_path):
    config = load("tiny", {"data": str(mix), "output": str(tmp_path), "batch_rows": "4"})
    taken = loader(config)
    rows = len(taken.splits[0])
    order = [row for _, row in taken.order.rows(0, rows)]
    assert sorted(order) == list(range(rows))
    assert np.abs(np.array(order) - np.arange(rows)).max() <= rows // 100 + 1
    of = dict(open_finished(str(mix)).index.select("id", "component").rows())
    tokens = np.array(
        [
            [
                sum(n for n, i in zip(row.seq_lengths, row.sample_ids, strict=True) if of[i] == c)
                for c in ("early", "late")
            ]
            for row in (taken.splits[0][number] for number in order)
        ]
    )
    half = np.searchsorted(np.cumsum(tokens.sum(1)), tokens.sum() / 2)
    first, last = tokens[:half].sum(0), tokens[half:].sum(0)
    assert first[0] / first.sum() == pytest.approx(0.8, abs=0.03)
    assert last[0] / last.sum() == pytest.approx(0.1, abs=0.03)


def test_plan_and_diff_know_the_schedule(made, mix, capsys):
    assert main(["plan", str(made / "mine.yaml"), f"work={made}/work", "workers=0"]) == 0
    told = capsys.readouterr().out
    assert "early follows a schedule over the run, its ratio is the mean: 80 % at 0" in told
    other = made / "flat"
    build(made / "mine.yaml", made, f"output={other}", "components.early.ratio=0.45",
                  "components.late.ratio=0.55")  # fmt: skip
    assert "schedule" not in json.loads((other / "stats.json").read_text())
    capsys.readouterr()
    assert main(["diff", str(mix), str(other)]) == 0
    told = capsys.readouterr().out
    assert "mixture.components.early.schedule: was [[0.0, 0.8], " in told
    ids = [sorted(open_finished(str(m)).index.filter(pl.col("copies") > 0)["id"]) for m in
           (mix, other)]  # fmt: skip
    assert ids[0] == ids[1]  # of the same mean: the same samples in another order


def test_the_resolved_mixture_is_read_back(mix, made):
    from mixtures.mixture_file import load as load_mixture
    from tokenization.schema import Encoding

    there = load_mixture(str(mix / "mixture.yaml"), encoding=Encoding)
    stated = load_mixture(str(made / "mine.yaml"), encoding=Encoding)
    assert to_yaml(there) == to_yaml(stated)
