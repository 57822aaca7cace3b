"""Tasks run once, after what they need, here and on Ray."""

import os
import signal
import socket
import time
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.engine import tables, versions
from pipelines.engine.runner import ray_connection, require_listening, run, task_labels
from pipelines.engine.tasks import File, Needs, Stage, Task

NUMBERS = pa.schema([("n", pa.int64())])


def count(until: int) -> pa.Table:
    return pa.table({"n": range(until)}, schema=NUMBERS)


def double(numbers: pa.Table) -> pa.Table:
    return pa.table({"n": [2 * n for n in numbers["n"].to_pylist()]}, schema=NUMBERS)


def wrong(until: int) -> pa.Table:
    return pa.table({"m": range(until)})


def fail(until: int) -> pa.Table:
    raise KeyError(f"row {until}")


def die_once(marker: str) -> pa.Table:
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return count(3)


def after_failure(folder: str) -> pa.Table:
    """Runs until another task has failed, and a little longer."""
    (Path(folder) / "runs").touch()
    wait_for(Path(folder) / "failed")
    time.sleep(0.3)  # the driver learns of the failure meanwhile, and must wait for this one
    return count(1)


def fail_beside(folder: str) -> pa.Table:
    """Fails once the other task runs."""
    wait_for(Path(folder) / "runs")
    (Path(folder) / "failed").touch()
    raise KeyError("beside")


def wait_for(file: Path) -> None:
    until = time.monotonic() + 120
    while not file.exists() and time.monotonic() < until:
        time.sleep(0.01)


def alone(folder: str) -> pa.Table:
    """How many such tasks run at once, this one included."""
    mine = Path(folder) / str(os.getpid())
    mine.touch()
    time.sleep(0.2)
    found = len(list(Path(folder).iterdir()))
    mine.unlink()
    return count(found)


def stage_of(call) -> Stage:
    return Stage(name=call.__name__, call=call, writes=NUMBERS, version=1)


def tasks(folder: Path, parts: int) -> list[Task]:
    made = []
    for i in range(parts):
        first, second = str(folder / "count" / f"{i}"), str(folder / "double" / f"{i}")
        settings = {"numbers": File(first)}
        made += [
            Task(stage=stage_of(count), part=f"p{i}", settings={"until": i}, out=first),
            Task(
                stage=stage_of(double), part=f"p{i}", settings=settings, out=second, after=(first,)
            ),
        ]
    return made


@pytest.fixture(scope="module")
def slots():
    with ray_connection("local", workers=2) as found:
        yield found


@pytest.fixture(params=["in this process", "on ray"])
def somewhere(request):
    return 0 if request.param == "in this process" else request.getfixturevalue("slots")


def test_tasks_run_after_the_files_they_need_and_once(tmp_path, somewhere):
    reports = run(tasks(tmp_path, 5), slots=somewhere)
    assert [r.rows for r in reports if r.stage == "double"] == [0, 1, 2, 3, 4]
    assert tables.read(tmp_path / "double" / "4")["n"].to_pylist() == [0, 2, 4, 6]
    assert run(tasks(tmp_path, 5), slots=somewhere) == []
    (tmp_path / "double" / "3").unlink()
    assert [(r.stage, r.part) for r in run(tasks(tmp_path, 5), slots=somewhere)] == [
        ("double", "p3")
    ]


def test_an_error_names_stage_and_part_and_keeps_what_was_finished(tmp_path, somewhere):
    bad = Task(stage=stage_of(fail), part="bad", settings={"until": 7}, out=str(tmp_path / "bad"))
    with pytest.raises(KeyError, match="row 7") as caught:
        run([*tasks(tmp_path, 1), bad], slots=somewhere)
    assert "stage fail, part bad" in caught.value.__notes__
    assert (tmp_path / "double" / "0").exists() or somewhere
    assert not [p for p in tmp_path.rglob("*") if p.name.endswith(".tmp")]
    assert not (tmp_path / "bad").exists()


def test_another_schema_than_declared_is_refused(tmp_path, somewhere):
    bad = Task(stage=stage_of(wrong), part="p", settings={"until": 7}, out=str(tmp_path / "x"))
    with pytest.raises(ValueError, match=r"stage wrong wrote columns \['m'\], declared \['n'\]"):
        run([bad], slots=somewhere)


def test_a_killed_worker_is_replaced(tmp_path, slots):
    marker = {"marker": str(tmp_path / "marker")}
    task = Task(stage=stage_of(die_once), part="p", settings=marker, out=str(tmp_path / "x"))
    assert [r.rows for r in run([task], slots=slots)] == [3]
    assert tables.num_rows(tmp_path / "x") == 3


def test_running_tasks_end_before_the_error_is_raised(tmp_path, slots):
    both = {"folder": str(tmp_path)}
    long, bad = (
        Task(stage=stage_of(call), part="p", settings=both, out=str(tmp_path / call.__name__))
        for call in (after_failure, fail_beside)
    )
    with pytest.raises(KeyError, match="beside"):
        run([long, bad], slots=slots)
    assert (tmp_path / "after_failure").exists()


def test_memory_that_no_node_has_is_lowered_and_gpus_that_none_has_are_an_error(tmp_path, slots):
    def task(**needs) -> Task:
        asked, out = Needs(**needs), str(tmp_path / "x")
        return Task(stage=stage_of(count), part="p", settings={"until": 2}, out=out, needs=asked)

    with pytest.raises(ValueError, match=r"stage count asks for 8 GPUs .* largest node has 0"):
        run([task(num_gpus=8)], slots=slots)
    assert [r.rows for r in run([task(memory=1 << 60, max_calls=1)], slots=slots)] == [2]


def test_fewer_workers_than_the_cluster_has_are_no_more_at_once(tmp_path, slots):
    (tmp_path / "now").mkdir()
    settings = {"folder": str(tmp_path / "now")}
    todo = [
        Task(stage=stage_of(alone), part=str(i), settings=settings, out=str(tmp_path / f"{i}"))
        for i in range(3)
    ]
    assert [r.rows for r in run(todo, slots=1)] == [1, 1, 1]


def test_a_node_of_other_versions_is_refused_by_name(tmp_path, slots, monkeypatch):
    here = versions.packages()
    monkeypatch.setattr(versions, "packages", lambda: {**here, "pillow": "1.0"})
    task = tasks(tmp_path, 1)[0]
    with pytest.raises(versions.OtherVersionsError) as caught:
        run([task], slots=slots)
    assert f"pillow {here['pillow']} here, 1.0 at the driver" in str(caught.value)
    assert "the same on every machine" in str(caught.value)
    # A user's mistake: the command line says it without a traceback.
    assert not any(note.startswith("stage ") for note in getattr(caught.value, "__notes__", ()))
    assert not Path(task.out).exists()


def test_an_address_where_nothing_listens_is_found_out_at_once():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConnectionError):
            require_listening(address)
        taken.listen()
        require_listening(address)
    require_listening("auto")


def test_the_dashboard_says_which_of_how_many(tmp_path):
    parts = ["cauldron/ai2d/00000", "cauldron/ai2d/00001", "text/all/00000", "train-00007", "p1"]
    stage = stage_of(count)
    todo = [Task(stage=stage, part=part, settings={}, out=str(tmp_path)) for part in parts]
    assert task_labels(todo) == [
        "count cauldron/ai2d 0/2", "count cauldron/ai2d 1/2", "count text/all 0/1",
        "count train-00007", "count p1",
    ]  # fmt: skip
