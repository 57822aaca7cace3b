"""Parts are read until the budget is covered: which ones depends on data and mixture alone."""

from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.__main__ import main

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
    assert main(["build", f"mixture={file}", *place, "overwrite=true", *more]) == 0
    return pl.read_ipc(out / "mix" / "index.arrow")


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
    def samples() -> set[Path]:
        return set((tmp_path / "work").glob("samples/*/*"))

    some = built(talks, tmp_path / "a")
    before = samples()
    fewer = built(talks, tmp_path / "b", "tokens=10000")
    assert samples() == before
    assert set(fewer["part"]) <= set(some["part"])
    more = built(talks, tmp_path / "c", "tokens=45000")
    assert samples() > before
    assert set(more["part"]) >= set(some["part"])
