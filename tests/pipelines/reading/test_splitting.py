"""Which rows are a part: every row in one, and none put off because of where its media lie."""

import pytest

from pipelines.reading import annotations, splitting
from pipelines.reading.ingest import ingest
from pipelines.reading.parts import list_parts
from tests.pipelines.sources.making import png, tar, write

ROWS = 120


@pytest.fixture
def folder(tmp_path):
    """Annotations of which a third name no image, beside two archives that are read in order."""
    records = [
        {
            "id": str(n),
            "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": f"A {n}"}],
            **({"image": f"p/{n}.png"} if n % 3 else {}),
        }
        for n in range(ROWS)
    ]
    write(tmp_path / "made.json", records)
    for number in range(2):
        members = [
            (f"p/{n}.png", png(8, 8, seed=n)) for n in range(ROWS) if n % 3 and n % 2 == number
        ]
        tar(tmp_path / f"{number}.tar.gz", members[:-1] if number else members, "w:gz")
    return tmp_path


def test_rows_without_media_behind_the_probe_are_in_a_part(tmp_path, monkeypatch):
    """Of large annotations the probe sees none of them."""
    monkeypatch.setattr(annotations, "SCANNED", 1000)
    monkeypatch.setattr(annotations, "PROBE", 2000)
    turns = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
    records = [
        {"id": str(n), "conversations": turns, **({"image": f"p/{n}.png"} if n < 80 else {})}
        for n in range(ROWS)
    ]
    write(tmp_path / "made.json", records)
    tar(tmp_path / "0.tar.gz", [(f"p/{n}.png", png(8, 8, seed=n)) for n in range(80)], "w:gz")
    rows = [row for part in list_parts(source="llava", data=str(tmp_path))
            for row in ingest(part).to_pylist()]  # fmt: skip
    assert len({row["id"] for row in rows}) == len(rows) == ROWS
    assert {row["defect"] for row in rows} == {None}


@pytest.mark.parametrize("scanned", [annotations.SCANNED, 1000])
def test_rows_without_media_are_read_in_their_turn(folder, monkeypatch, scanned):
    monkeypatch.setattr(annotations, "SCANNED", scanned)
    monkeypatch.setattr(splitting, "FEWEST", 8)
    parts = list_parts(source="llava", data=str(folder))
    kinds = {part.inputs["kind"] for part in parts}
    assert kinds == {"archive", "bare", "loose"}
    rows = {part.number: ingest(part).to_pylist() for part in parts}
    ids = [row["id"] for found in rows.values() for row in found]
    assert len(ids) == len(set(ids)) == ROWS
    bare = [part for part in parts if part.inputs["kind"] == "bare"]
    assert all(not row["images"] for part in bare for row in rows[part.number])
    assert sum(len(rows[part.number]) for part in bare) == ROWS // 3
    told = sum(part.about_rows for part in parts)
    assert told == pytest.approx(ROWS, rel=0.05)
    (last,) = [part for part in parts if part.inputs["kind"] == "loose"]
    assert [row["defect"] for row in rows[last.number]] == ["missing_media"]
    assert last.turn == len(parts) - 1
    # whichever part comes first for one seed, for another it is a bare one
    firsts = [
        min(list_parts(source="llava", data=str(folder), seed=seed), key=lambda part: part.turn)
        for seed in range(12)
    ]
    assert {part.inputs["kind"] for part in firsts} == {"archive", "bare"}
