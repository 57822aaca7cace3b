"""Faults injected for real, then bytes compared with an undisturbed build (the `mix` fixture).

Those of object stores are in test_stores.py, of memory in test_memory.py, of nodes in
test_cluster.py; what is slow here starts many processes, each a few seconds.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from pipelines.__main__ import main
from pipelines.engine import tables
from pipelines.engine.runner import ray_connection
from tests import faulty
from tests.building import build, digests
from tests.building import words as build_words
from tests.pipelines.sources.making import encoded_video, write_lines
from tests.processes import Child

LATE = 90_000_000
"""us."""
WHOLE = 120
"""s, after which a process hangs; no test waits for it to pass."""


def start(world: Path, out: Path, *words: str, prefix: tuple[str, ...] = (), **options):
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", "pipelines", *build_words(world, out, *words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **options,
    )


def resumed(world: Path, out: Path) -> dict[str, str]:
    """What stands there after the same build again, in this process."""
    return digests(build(world, out))


def made(out: Path) -> int:
    return len([p for p in out.rglob("*.arrow") if not p.name.startswith(".")])


def drafts(out: Path) -> list[Path]:
    return [p for p in out.rglob("*") if p.name.endswith(".tmp")]


def wait_for(out: Path, files: int, process: subprocess.Popen | Child) -> None:
    deadline = time.monotonic() + WHOLE
    while made(out) < files and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


@pytest.fixture(scope="module")
def ray2():
    """Ray with two workers, in which builds of this process run."""
    with ray_connection("local", workers=2) as slots:
        yield slots


def test_two_builds_of_one_mixture_at_once_are_both_right(world, mix, tmp_path, python):
    both = [python.start("-m", "pipelines", *build_words(world, tmp_path)) for _ in range(2)]
    ended = [process.wait() for process in both]
    said = [process.told() for process in both]
    assert ended == [0, 0], said
    assert digests(tmp_path / "mix") == digests(mix)
    assert any("nothing to do" in text or "waiting for it to end" in text for text in said)


def test_ctrl_c_stops_before_the_end_and_resumes(world, mix, tmp_path, python):
    process = python.start("-m", "pipelines", *build_words(world, tmp_path))
    wait_for(tmp_path, 3, process)
    process.send_signal(signal.SIGINT)
    ended, said = process.wait(), process.told()
    assert ended == 130, said
    assert not (tmp_path / "mix" / "recipe.json").exists()  # it did not go on to the end
    assert "the same command goes on from there" in said
    assert resumed(world, tmp_path) == digests(mix)


@pytest.mark.slow
def test_ctrl_c_on_ray_stops_before_the_end_and_resumes(world, mix, tmp_path):
    process = start(world, tmp_path, "workers=2")
    wait_for(tmp_path, 2, process)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=WHOLE)[0]
    assert process.returncode == 130, said
    assert not (tmp_path / "mix" / "recipe.json").exists()
    assert resumed(world, tmp_path) == digests(mix)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_driver_killed_at_random_moments_on_ray(world, mix, tmp_path, seed):
    rng = random.Random(seed)
    for _ in range(2):
        process = start(world, tmp_path, "workers=2")
        wait_for(tmp_path, made(tmp_path) + rng.randint(1, 6), process)
        time.sleep(rng.random() * 0.2)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert resumed(world, tmp_path) == digests(mix)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_workers_killed_while_they_work(world, mix, tmp_path, monkeypatch, ray2, seed):
    stages = ["ingest", "judge", "encode", "pack"]
    # As often as one task may be tried again: all may hit the same one.
    faulty.inject(monkeypatch, faulty.dying, str(tmp_path), 3, seed, stages=stages)
    assert main(build_words(world, tmp_path, "workers=2")) == 0
    assert len(list(tmp_path.glob("failure-*"))) == 3
    assert digests(tmp_path / "mix") == digests(mix)


@pytest.mark.slow
def test_a_decoder_that_hangs_costs_one_sample_its_verdict(tmp_path, monkeypatch, ray2):
    """Of eight clips one hangs; the other seven are the samples that they are without it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for n in range(8):
        encoded_video(tmp_path / "clips" / f"{n}.mp4", seconds=1 + n / 10)
    turns = [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "A clip."}]
    lines = [{"id": str(n), "video": f"{n}.mp4", "conversations": turns} for n in range(8)]
    write_lines(tmp_path / "rows.jsonl", lines)
    (tmp_path / "hangs").write_bytes((tmp_path / "clips" / "5.mp4").read_bytes())
    mixture = tmp_path / "clips.yaml"
    mixture.write_text(
        f"tokens: max\nval_fraction: 0\ncomponents: {{clips: {{source: llava, ratio: 1, "
        f"data: {tmp_path}/rows.jsonl, media: {tmp_path}/clips, frames: {{max_frames: 2}}}}}}\n"
    )
    indexes, samples = [], []
    for name in ("whole", "hung"):
        assert main(build_words(mixture, tmp_path / name, "workers=2")) == 0
        index = pl.DataFrame(tables.read(tmp_path / name / "mix" / "index.arrow"))
        indexes.append(index.select("id", "rule", "num_tokens"))
        [file] = (tmp_path / name / "work" / "samples").rglob("*.arrow")
        samples.append(tables.read(file).to_pylist())
        fault = faulty.with_a_hanging_decoder
        faulty.inject(monkeypatch, fault, str(tmp_path), 1, stages=["ingest"])
    whole, hung = indexes
    assert whole["rule"].null_count() == 8
    assert hung["rule"].to_list() == [None] * 5 + ["video_timeout"] + [None] * 2
    assert [s for s in samples[1] if s["defect"] is None] == samples[0][:5] + samples[0][6:]


LIMITED = """
import resource, runpy, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
runpy.run_module("pipelines", run_name="__main__", alter_sys=True)
"""


def test_a_file_that_may_not_grow_is_said_and_the_build_goes_on_later(world, mix, tmp_path, python):
    process = python.start("-c", LIMITED, *build_words(world, tmp_path))
    ended, said = process.wait(), process.told()
    assert ended == 1, said
    assert "nothing was left under that name" in said
    assert "stage ingest, part" in said
    assert not drafts(tmp_path)
    assert resumed(world, tmp_path) == digests(mix)


FULL = 'mount -t tmpfs -o size="$1" tmpfs "$2"; shift 2; "$@"; s=$?; cp -a "$0" "$0-kept"; exit $s'


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [150, 350, 550, 650])
def test_a_full_disk_is_said_and_the_build_goes_on_later(world, mix, tmp_path, kilobytes):
    """A file system of its own (in a name space of its own: no rights are needed) runs full: in
    ingest, in encode, in pack.
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    prefix = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", FULL, str(disk))
    process = start(world, disk, "workers=0", prefix=(*prefix, f"{kilobytes}k", str(disk)))
    said = process.communicate(timeout=120)[0]
    assert process.returncode in (1, 2), said
    assert "No space left on device" in said
    kept = tmp_path / "disk-kept"
    assert not drafts(kept)
    for path in kept.rglob("*.arrow"):
        assert tables.read(path).num_rows > 0
    disk.rmdir()
    kept.rename(disk)
    assert resumed(world, disk) == digests(mix)


def test_a_clock_that_runs_backwards_changes_nothing(world, mix, tmp_path, python):
    process = python.start("-m", "pipelines", *build_words(world, tmp_path))
    wait_for(tmp_path, 5, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for path in tmp_path.rglob("*.arrow"):
        os.utime(path, (2_000_000_000, 2_000_000_000))  # from the future
    assert resumed(world, tmp_path) == digests(mix)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        # What Ray waits for comes later than its limits of 30 s: a busy machine.
        {"RAY_testing_asio_delay_us": f"NodeInfoGcsService.grpc_server.RegisterNode={LATE}:{LATE}"},
        {"RAY_gcs_storage": "none"},  # its first process ends as it starts
    ],
    ids=["late", "ended"],
)  # fmt: skip
def test_ray_that_does_not_come_up_is_one_message(world, tmp_path, fault):
    process = start(world, tmp_path, "workers=1", env=os.environ | fault)
    said = process.communicate(timeout=WHOLE)[0]
    assert process.returncode == 2, said
    assert said.count("pipelines build: Ray did not come up on this machine (") == 1
    assert "workers=0 builds in this process" in " ".join(said.split())
    assert "Traceback" not in said
