"""Near duplicates by tasks: the answer of one process, whatever was there before."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

import filters
from pipelines import near
from pipelines.engine import tables
from pipelines.engine.runner import ray_connection
from pipelines.near import compare_by_tasks, compare_in_memory
from tests.filters.rows import image_record, sample, table

RULES = {
    "near_duplicate_sample": {"mode": "mark"},
    "near_duplicate_images": {"mode": "mark", "within": "subset"},
    "near_duplicate_text": {},
}
WORDS = "what does this chart say about people who took the train every day in nineteen ninety"
HASH = 0x0F0F_3C3C_5A5A_9999


@dataclass(frozen=True)
class Judged:
    """What of a Piece is read here."""

    verdicts: str


def row(n: int) -> dict:
    """Few texts that differ in a word or many, few images that differ in a bit or many."""
    words = WORDS.split() * 3
    words[n % 11] = f"w{n % 5}"
    word = HASH ^ (1 << (n % 7)) ^ ((n % 3) << 40)
    images = [] if n % 4 == 0 else [image_record(dhash=word)] * (n % 4)
    text = " ".join(words) if n % 13 else "?"
    return sample(text, "yes" if n % 13 else "!", images=images) | {"id": f"s/{n % 2}/{n:03}"}


@pytest.fixture
def judged(tmp_path: Path) -> tuple[list[Judged], pl.DataFrame]:
    """Verdicts of three parts in files, and their index."""
    pieces, frames = [], []
    for number, rows in enumerate((range(40), range(40, 41), range(41, 90))):
        verdicts = filters.judge(table(*map(row, rows)), rules=RULES)
        path = f"{tmp_path}/work/verdicts/abc/{number:05d}.arrow"
        tables.write(verdicts, path)
        pieces.append(Judged(path))
        frames.append(
            pl.DataFrame(verdicts.drop_columns(["text_signature", "dhashes"])).with_columns(
                piece=number, row=pl.int_range(pl.len()), component=pl.lit("a"), priority=0
            )
        )
    return pieces, pl.concat(frames)


def taken(index: pl.DataFrame, run: filters.Run) -> pl.DataFrame:
    return filters.mixture_rules(index, settings=RULES, run=run)


def test_tasks_give_what_one_process_gives_and_files_that_are_there_are_not_made_again(
    judged, tmp_path, monkeypatch
):
    pieces, index = judged
    expected = taken(index, compare_in_memory(pieces))
    assert set(expected["rule"]) == set(RULES)
    monkeypatch.setattr(near, "ROW_BANDS", 4 * len(index))
    work, reports = f"{tmp_path}/work", []
    assert taken(index, compare_by_tasks(pieces, work=work, slots=0, reports=reports)).equals(
        expected
    )
    assert {report.stage for report in reports} == {"pairs"}
    files = sorted(Path(work, "pairs").rglob("*.arrow"))
    before = {path: path.read_bytes() for path in files}
    bands = [path for path in files if path.stem.isdigit()]
    assert len(bands) == len(reports) > 9

    # As a build that was killed leaves it: some bands are there, some rounds are not.
    last = {folder: max(folder.glob("round-*")) for folder in Path(work, "pairs").iterdir()}
    gone = [*bands[::3], *(round_ / "order.arrow" for round_ in last.values())]
    for path in gone:
        path.unlink()
    again: list = []
    assert taken(index, compare_by_tasks(pieces, work=work, slots=0, reports=again)).equals(
        expected
    )
    assert len(again) == len(bands[::3])
    assert {path: path.read_bytes() for path in files} == before


def test_other_rows_or_other_settings_are_other_files(judged, tmp_path):
    pieces, index = judged
    made = set()
    for some in (index, index.filter(pl.col("row") != 3)):
        for similarity in (0.8, 0.7):
            rules = {"near_duplicate_text": {"similarity": similarity}}
            run = compare_by_tasks(pieces, work=f"{tmp_path}/work", slots=0, reports=[])
            expected = filters.mixture_rules(some, settings=rules, run=compare_in_memory(pieces))
            assert filters.mixture_rules(some, settings=rules, run=run).equals(expected)
            made.add(len(list(Path(tmp_path, "work", "pairs").iterdir())))
    assert made == {1, 2, 3, 4}


@pytest.mark.slow
def test_tasks_on_ray_give_the_same(judged, tmp_path):
    pieces, index = judged
    with ray_connection("local", workers=2) as slots:
        run = compare_by_tasks(pieces, work=f"{tmp_path}/work", slots=slots, reports=[])
        assert taken(index, run).equals(taken(index, compare_in_memory(pieces)))
