"""Files appear whole, equal tables as equal bytes."""

import errno
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.engine import tables

SCHEMA = pa.schema(
    [
        ("n", pa.int32()),
        ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("w", pa.int32())]))),
    ]
)


def table(count: int) -> pa.Table:
    images = [[{"bytes": bytes([i % 251]) * (i % 7), "w": i}] * (i % 3) for i in range(count)]
    return pa.table({"n": range(count), "images": images}, schema=SCHEMA)


def test_a_file_reads_back_as_it_was_written(tmp_path):
    size = tables.write(table(1000), tmp_path / "a" / "x.arrow", rows_per_batch=64)
    assert size == (tmp_path / "a" / "x.arrow").stat().st_size
    assert tables.read(tmp_path / "a" / "x.arrow").equals(table(1000))
    assert tables.num_rows(tmp_path / "a" / "x.arrow") == 1000
    assert tables.read(tmp_path / "a" / "x.arrow", columns=["n"]).column_names == ["n"]


def test_equal_tables_give_equal_files_however_they_were_chunked(tmp_path):
    whole = table(500)
    odd = pa.concat_tables([whole.slice(0, 7), whole.slice(7, 300), whole.slice(307)])
    middle = pa.concat_tables([table(9), whole]).slice(9)
    for name, value in (("a", whole), ("b", odd), ("c", middle)):
        tables.write(value, tmp_path / name, rows_per_batch=64)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "c").read_bytes()


@settings(max_examples=40)
@given(rows=st.lists(st.integers(0, 299), max_size=50), batch=st.sampled_from([1, 7, 64, 1000]))
def test_take_equals_taking_from_the_whole(tmp_path_factory, rows, batch):
    path = tmp_path_factory.mktemp("take") / "x.arrow"
    tables.write(table(300), path, rows_per_batch=batch)
    rows = np.array(sorted(rows), np.int64)
    found = tables.take_rows(path, rows, columns=["images", "n"])
    assert found.combine_chunks().equals(
        table(300).take(pa.array(rows)).select(["images", "n"]).combine_chunks()
    )


def test_take_beyond_the_end_says_so(tmp_path):
    tables.write(table(10), tmp_path / "x")
    with pytest.raises(ValueError, match="row 10 asked for, found 10 rows"):
        tables.take_rows(tmp_path / "x", np.array([3, 10]), columns=["n"])


def test_conform_casts_width_and_refuses_other_columns():
    wide = pl.DataFrame({"n": [1, 2], "images": [[{"bytes": b"x", "w": 1}], []]}).to_arrow()
    assert tables.conform(wide, SCHEMA, writer="stage x").schema == SCHEMA
    with pytest.raises(ValueError, match=r"stage x wrote columns \['n'\]"):
        tables.conform(wide.select(["n"]), SCHEMA, writer="stage x")
    wrong = wide.set_column(0, "n", pa.array(["a", "b"]))
    with pytest.raises(ValueError, match="wrote column 'n' as string, declared int32"):
        tables.conform(wrong, SCHEMA, writer="stage x")


def half_written(path) -> None:
    with tables.atomic_file(path) as file:
        file.write(b"half")
        raise RuntimeError


def test_a_block_that_raises_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError):
        half_written(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_an_object_store_shows_a_file_when_the_block_ends(tmp_path):
    with pytest.raises(RuntimeError):
        half_written("memory://bucket/y")
    assert not tables.exists("memory://bucket/y")
    with tables.atomic_file("memory://bucket/y") as file:
        file.write(b"half")
        assert not tables.exists("memory://bucket/y")
    assert tables.read_bytes("memory://bucket/y") == b"half"
    tables.write(table(100), "memory://bucket/t", rows_per_batch=16)
    assert tables.read("memory://bucket/t").equals(table(100))
    assert tables.take_rows("memory://bucket/t", np.array([5, 99]), columns=["n"])[
        "n"
    ].to_pylist() == [
        5,
        99,
    ]
    assert tables.listing("memory://bucket") == ["t", "y"]
    tables.remove("memory://bucket/t")
    assert tables.listing("memory://bucket") == ["y"]


def test_sigkill_in_the_middle_of_a_write_leaves_no_file_of_that_name(tmp_path):
    code = f"""
        import os, signal
        from pipelines.engine import tables
        with tables.atomic_file({str(tmp_path / "x")!r}) as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "x").exists()


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    code = f"""
        import resource, signal, sys
        import pyarrow as pa
        from pipelines.engine import tables
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            tables.write(pa.table({{"x": ["a" * 1000] * 100}}), {str(tmp_path / "x")!r})
        except OSError as error:
            print(error.errno, error.__notes__)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True, text=True
    )
    assert str(errno.EFBIG) in done.stdout
    assert "nothing was left under that name" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_what_several_remove_at_once_is_gone_and_nobody_minds(tmp_path):
    for turn in range(5):
        folder = tmp_path / f"{turn}"
        folder.mkdir()
        for number in range(300):
            (folder / f"{number}").touch()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(tables.remove, [folder] * 4))
        assert not folder.exists()


def test_a_file_that_is_not_there_is_no_value(tmp_path):
    assert tables.json_if_there(tmp_path / "none.json") is None
    tables.write_json(tmp_path / "some.json", {"a": 1})
    assert tables.json_if_there(tmp_path / "some.json") == {"a": 1}
