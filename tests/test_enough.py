"""Parts are read until the budget is covered: which ones depends on data and mixture alone."""

import json
import random
import signal
import time
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import check
from pipelines.__main__ import main
from pipelines.report.finished import open_finished
from tests.building import digests

ROWS = 2000


@pytest.fixture(scope="module")
def talks(tmp_path_factory) -> Path:
    """Two subsets, one of them twice the other, of which some rows are rejected or come twice."""
    root = tmp_path_factory.mktemp("talks")
    for subset, count in (("everyday-conversations", ROWS), ("systemchats-30k", ROWS // 2)):
        rows = [
            [("user", f"{subset} {i - (i % 50 == 1)}"), ("assistant", "word " * (i % 30 + 5))]
            for i in range(count)
        ]
        for i in range(0, count, 9):
            rows[i] = [("user", f"Say nothing, {i}."), ("assistant", "")]
        talks = [[{"content": text, "role": role} for role, text in talk] for talk in rows]
        folder = root / "data" / subset
        folder.mkdir(parents=True)
        table = pa.table({"messages": talks, "source": [subset] * count})
        pq.write_table(table, folder / "train-00000-of-00001.parquet")
    return root


def built(talks: Path, out: Path, *more: str, work: str = "work") -> pl.DataFrame:
    """The index of a mixture of the talks."""
    assert main(said(talks, out, *more, work=work)) == 0
    return pl.read_ipc(out / "mix" / "index.arrow")


def said(talks: Path, out: Path, *more: str, work: str = "work") -> list[str]:
    """The words of that build."""
    file = talks / "talks.yaml"
    file.write_text(
        f"""
tokens: 30_000
val_fraction: 0.05
encoding: {{seq_len: 256}}
filters: {{empty_answer: {{}}, duplicate_sample: {{}}}}
components:
  text: {{source: smoltalk, data: {talks}, ratio: 1,
          subsets: [everyday-conversations, systemchats-30k]}}
"""
    )
    place = [f"output={out}/mix", f"work={out.parent}/{work}", "workers=0", "probe=false"]
    return ["build", f"mixture={file}", *place, "overwrite=true", *more]


def samples(folder: Path, work: str = "work") -> set[Path]:
    """The parts that lie in `work`."""
    return set((folder / work).glob("samples/*/*"))


def test_what_is_read_is_determined_and_little_more_than_what_is_used(talks, tmp_path):
    first = built(talks, tmp_path / "a")
    kept = first.filter(pl.col("rule").is_null())
    assert len(first) < 0.4 * 1.5 * ROWS
    assert kept["copies"].max() == 1
    assert len(kept) < 1.5 * (kept["copies"] > 0).sum()
    used = first.filter(pl.col("copies") > 0).group_by("subset").len().sort("subset")["len"]
    assert used[0] / used[1] == pytest.approx(2, rel=0.35)
    built(talks, tmp_path / "all", "read=all", work="other")  # all of it lies in this work now
    again = built(talks, tmp_path / "b", work="other")
    assert again.equals(first)
    for path in (tmp_path / "a" / "mix" / "shards").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / "mix" / "shards" / path.name).read_bytes()


def test_a_smaller_budget_reads_nothing_and_a_larger_one_what_is_missing(talks, tmp_path):
    some = built(talks, tmp_path / "a")
    before = samples(tmp_path)
    fewer = built(talks, tmp_path / "b", "tokens=10000")
    assert samples(tmp_path) == before
    assert set(fewer["part"]) <= set(some["part"])
    more = built(talks, tmp_path / "c", "tokens=45000")
    assert samples(tmp_path) > before
    assert set(more["part"]) >= set(some["part"])


SUBSETS = "components.text.subsets.{}.weight={}"


def test_another_weight_reads_only_what_it_needs_besides(talks, tmp_path):
    weights = [SUBSETS.format(s, 1) for s in ("everyday-conversations", "systemchats-30k")]
    equal = built(talks, tmp_path / "a", *weights)
    before = samples(tmp_path)
    heavy = built(talks, tmp_path / "b", weights[0], SUBSETS.format("systemchats-30k", 2))
    new = samples(tmp_path) - before
    read = {subset: set(group["part"]) for (subset,), group in equal.group_by("subset")}
    then = {subset: set(group["part"]) for (subset,), group in heavy.group_by("subset")}
    assert then["everyday-conversations"] < read["everyday-conversations"]
    assert then["systemchats-30k"] > read["systemchats-30k"]
    assert len(new) == len(then["systemchats-30k"] - read["systemchats-30k"])


def test_a_subset_left_out_reads_only_more_of_the_other(talks, tmp_path):
    both = built(talks, tmp_path / "a")
    before = samples(tmp_path)
    one = built(talks, tmp_path / "b", "components.text.subsets=[everyday-conversations]")
    mine = set(both.filter(subset="everyday-conversations")["part"])
    assert mine < set(one["part"])
    assert len(samples(tmp_path) - before) == len(set(one["part"]) - mine)


def test_kills_in_every_round_change_nothing(talks, tmp_path, python):
    whole = built(talks, tmp_path / "whole" / "a", "tokens=60000")
    rng, kills = random.Random(5), 0
    words = said(talks, tmp_path / "a", "tokens=60000")
    for _ in range(3):
        process = python.start("-m", "pipelines", *words)
        wanted = len(samples(tmp_path)) + rng.randint(1, 4)
        while process.poll() is None:
            if len(samples(tmp_path)) >= wanted:
                process.send_signal(signal.SIGKILL)
                kills += process.wait() == -signal.SIGKILL
                break
            time.sleep(0.002)
    assert kills
    assert built(talks, tmp_path / "a", "tokens=60000").equals(whole)
    assert digests(tmp_path / "a" / "mix") == digests(tmp_path / "whole" / "a" / "mix")


def test_what_was_not_read_is_told_by_every_command(talks, tmp_path, capsys):
    some = built(talks, tmp_path / "a")
    built(talks, tmp_path / "b", "tokens=45000")
    first, second = str(tmp_path / "a" / "mix"), str(tmp_path / "b" / "mix")
    capsys.readouterr()
    assert main(["show", first, "component=text"]) == 0
    shown = capsys.readouterr().out
    stats = json.loads((tmp_path / "a" / "mix" / "stats.json").read_text())
    told = stats["reading"]["text"]
    assert f"read {told['parts']} of {told['of']} parts" in shown
    unread = told["subsets"]["everyday-conversations"]["unread"]
    assert f"everyday-conversations: {unread[:20]}" in shown
    assert main(["diff", first, second]) in (0, 1)
    line = next(line for line in capsys.readouterr().out.splitlines() if " parts > " in line)
    assert f"{told['parts']} of {told['of']} parts > " in line
    assert "systemchats-30k" in line
    parts = set(some.filter(subset="everyday-conversations")["part"])
    number = next(n for n in range(16) if f"smoltalk/everyday-conversations/{n:05d}" not in parts)
    ids = [f"id=smoltalk/everyday-conversations/{number * ROWS // 16 + 3:06d}"]
    assert main(["show", first, *ids]) == 2
    assert "of text only some parts were read" in capsys.readouterr().err
    assert main(["check", first]) == 0
    assert list(check._index(open_finished(first))) == []
    found = open_finished(first)
    found.stats["reading"]["text"]["subsets"]["everyday-conversations"]["unread"] = "0-15"
    assert "was not read, but the index has samples" in next(check._index(found))


def test_clean_keeps_the_parts_that_a_changed_ratio_could_use(talks, tmp_path):
    built(talks, tmp_path / "a", "tokens=45000")
    before = samples(tmp_path)
    built(talks, tmp_path / "a", "tokens=10000")
    assert main(["clean", f"work={tmp_path}/work", "remove=true"]) == 0
    assert samples(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_read_the_same(talks, tmp_path, python, workers):
    built(talks, tmp_path / "none" / "a")
    words = [w for w in said(talks, tmp_path / "a") if not w.startswith("workers=")]
    done = python.run("-m", "pipelines", *words, f"workers={workers}")
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "a" / "mix") == digests(tmp_path / "none" / "a" / "mix")
