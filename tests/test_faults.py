"""Faults injected for real, then bytes compared with an undisturbed build (the `mix` fixture)."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import tables
from tests.test_build import digests

WHOLE = 60


def command(world: Path, out: Path, *words: str) -> list[str]:
    place = [f"mixture={world}", f"output={out}/mix", f"work={out}/work", *words]
    return [sys.executable, "-m", "pipelines", "build", *place]


def start(world: Path, out: Path, *words: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        command(world, out, *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **options,
    )


def made(out: Path) -> int:
    return len([p for p in out.rglob("*.arrow") if not p.name.startswith(".")])


def wait_for(out: Path, files: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + WHOLE
    while made(out) < files and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


def workers_of(process: subprocess.Popen) -> list[int]:
    """Ray worker processes below a driver."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
            session = os.getsid(int(path.parent.name))
        except (OSError, ProcessLookupError):
            continue
        if words.startswith(b"ray::") and session == process.pid:
            found.append(int(path.parent.name))
    return found


def test_two_builds_of_one_mixture_at_once_are_both_right(world, mix, tmp_path):
    both = [start(world, tmp_path, "workers=0") for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert digests(tmp_path / "mix") == digests(mix)
    assert any("nothing to do" in text or "waiting for it to end" in text for text in said)


def test_ctrl_c_stops_quickly_and_resumes(world, mix, tmp_path):
    process = start(world, tmp_path, "workers=0")
    wait_for(tmp_path, 3, process)
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[0]
    assert time.monotonic() - asked < 20
    assert process.returncode == 130, said
    assert "the same command goes on from there" in said
    again = start(world, tmp_path, "workers=0")
    assert again.wait(timeout=120) == 0
    assert digests(tmp_path / "mix") == digests(mix)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_driver_killed_at_random_moments_on_ray(world, mix, tmp_path, seed):
    rng = random.Random(seed)
    for _ in range(2):
        process = start(world, tmp_path, "workers=2")
        wait_for(tmp_path, made(tmp_path) + rng.randint(1, 8), process)
        time.sleep(rng.random() * 0.2)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    again = start(world, tmp_path, "workers=2")
    said = again.communicate(timeout=180)[0]
    assert again.returncode == 0, said
    assert digests(tmp_path / "mix") == digests(mix)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_workers_killed_while_they_work(world, mix, tmp_path, seed):
    rng = random.Random(seed)
    process = start(world, tmp_path, "workers=2")
    kills = 0
    deadline = time.monotonic() + WHOLE
    while process.poll() is None and kills < 3 and time.monotonic() < deadline:
        wait_for(tmp_path, made(tmp_path) + 1, process)
        busy = workers_of(process)
        if busy:
            try:
                os.kill(rng.choice(busy), signal.SIGKILL)
                kills += 1
            except ProcessLookupError:
                continue
    said = process.communicate(timeout=180)[0]
    assert process.returncode == 0, said
    assert kills
    assert digests(tmp_path / "mix") == digests(mix)


def test_a_full_disk_is_said_and_the_build_goes_on_later(world, mix, tmp_path):
    # A limit on file size stands in for a full disk: the write fails in the middle, for real.
    import resource

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    process = start(world, tmp_path, "workers=0", preexec_fn=limited)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 1, said
    assert "nothing was left under that name" in said
    assert "stage ingest, part" in said
    assert not [p for p in tmp_path.rglob("*") if p.name.endswith(".tmp")]
    again = start(world, tmp_path, "workers=0")
    assert again.wait(timeout=120) == 0
    assert digests(tmp_path / "mix") == digests(mix)


def test_a_clock_that_runs_backwards_changes_nothing(world, mix, tmp_path):
    process = start(world, tmp_path, "workers=0")
    wait_for(tmp_path, 5, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for path in tmp_path.rglob("*.arrow"):
        os.utime(path, (2_000_000_000, 2_000_000_000))  # from the future
    again = start(world, tmp_path, "workers=0")
    assert again.wait(timeout=120) == 0
    assert digests(tmp_path / "mix") == digests(mix)


@pytest.fixture
def bucket(monkeypatch):
    """An S3 server on loopback and the environment that points to it; yields the bucket's URL."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for key, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(key, value)
    import fsspec

    fsspec.filesystem("s3").mkdir("mixes")
    yield "s3://mixes"
    server.stop()


@pytest.mark.filterwarnings("ignore")
def test_a_mixture_on_an_object_store_is_the_same(world, mix, tmp_path, bucket):
    words = [f"output={bucket}/mix", f"work={bucket}/work", "workers=0"]
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "build", f"mixture={world}", *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in tables.listing(mix / "shards"):
        there = tables.read_bytes(f"{bucket}/mix/shards/{name}")
        assert there == (mix / "shards" / name).read_bytes()
    assert tables.read_bytes(f"{bucket}/mix/index.arrow") == (mix / "index.arrow").read_bytes()
    assert not tables.exists(f"{bucket}/mix/.building.json")
    again = subprocess.run(
        [sys.executable, "-m", "pipelines", "build", f"mixture={world}", *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "nothing to do" in again.stdout
