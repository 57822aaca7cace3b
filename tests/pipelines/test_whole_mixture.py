"""What rules on the whole mixture look at does not keep the index in memory."""

import polars as pl

from pipelines.whole_mixture import copied


def test_lines_taken_of_a_mapped_file_hold_nothing_else_of_it(tmp_path):
    ids = [f"cauldron/ai2d/{n:09d}" for n in range(50_000)]
    pl.DataFrame({"id": ids, "value": [0.5] * len(ids)}).write_ipc(tmp_path / "lines.arrow")
    taken = pl.read_ipc(tmp_path / "lines.arrow")[[7, 49_999]]
    found = copied(taken)
    assert found.equals(taken)
    assert found.schema == taken.schema
    newest = pl.CompatLevel.newest()
    held = [s["id"].to_arrow(compat_level=newest).get_total_buffer_size() for s in (found, taken)]
    assert held[0] < 500 < held[1]
