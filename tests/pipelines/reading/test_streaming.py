"""A part of any size is written batch by batch, and the file is the same as of the whole table."""

from importlib import import_module

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.engine import tables
from pipelines.engine.tasks import Task, run_task
from pipelines.reading.parts import list_parts
from pipelines.stages import STAGES
from tests.pipelines.sources.making import png, write, write_lines

ingest = import_module("pipelines.reading.ingest")  # the package's name of it is the function


@settings(max_examples=40)
@given(st.lists(st.integers(0, 9), max_size=8), st.integers(1, 7))
def test_pieces_make_the_file_that_the_whole_table_makes(tmp_path_factory, counts, rows_per_batch):
    folder = tmp_path_factory.mktemp("pieces")
    schema = pa.schema([("name", pa.string()), ("data", pa.list_(pa.binary()))])
    rows = [{"name": str(n) if n % 3 else None, "data": [b"x" * n] * (n % 4)} for n in range(72)]
    whole = pa.Table.from_pylist(rows[: sum(counts)], schema=schema)
    starts = [sum(counts[:n]) for n in range(len(counts))]
    pieces = [whole.slice(start, count) for start, count in zip(starts, counts, strict=True)]
    tables.write(whole, folder / "whole", rows_per_batch=rows_per_batch)
    written = tables.write_pieces(pieces, schema, folder / "pieces", rows_per_batch=rows_per_batch)
    assert written == sum(counts)
    assert (folder / "pieces").read_bytes() == (folder / "whole").read_bytes()


def test_ingest_gives_its_file_in_pieces(tmp_path, monkeypatch):
    """As many as the bound on bytes asks for, and the file does not show it."""
    for n in range(20):
        write(tmp_path / f"{n}.png", png(40, 40, seed=n))
    lines = [{"file_name": f"{n}.png", "text": "It is."} for n in range(20)]
    write_lines(tmp_path / "metadata.jsonl", lines)
    (part,) = list_parts(source="imagefolder", data=str(tmp_path))
    made = []
    for bound in (ingest.BATCH_BYTES, 3 * len(png(40, 40))):
        monkeypatch.setattr(ingest, "BATCH_BYTES", bound)
        made.append(str(tmp_path / f"{bound}.arrow"))
        task = Task(stage=STAGES["ingest"], part=part.name, settings={"part": part}, out=made[-1])
        assert run_task(task).rows == 20
    assert len(list(STAGES["ingest"].call(part))) == 7
    whole, pieces = (tables.read_bytes(path) for path in made)
    assert whole == pieces


def test_a_stage_that_breaks_off_leaves_no_file(tmp_path, monkeypatch):
    write_lines(tmp_path / "metadata.jsonl", [{"file_name": "a.png", "text": "It is."}] * 3)
    (part,) = list_parts(source="imagefolder", data=str(tmp_path))
    monkeypatch.setattr(ingest, "BATCH_ROWS", 1)
    seen = []

    def breaks(*given, true=ingest.sample_line):
        seen.append(given)
        if len(seen) == 3:
            raise RuntimeError("a bug")
        return true(*given)

    monkeypatch.setattr(ingest, "sample_line", breaks)
    task = Task(
        stage=STAGES["ingest"], part="p", settings={"part": part}, out=str(tmp_path / "o" / "x")
    )
    with pytest.raises(RuntimeError, match="a bug"):
        run_task(task)
    assert list((tmp_path / "o").iterdir()) == []
