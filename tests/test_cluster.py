"""A real Ray cluster of two nodes on this machine: joined, nodes lost, jobs submitted."""

import json
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from pipelines.engine import tables
from tests.building import digests
from tests.test_faults import made
from tests.test_stores import assert_same

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # of Ray's own test cluster
]


def build(world: Path, out: Path, address: str) -> subprocess.Popen:
    place = [f"mixture={world}", f"output={out}/mix", f"work={out}/work", f"ray={address}"]
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines", "build", *place],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def cluster():
    from ray.cluster_utils import Cluster

    found = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20},
    )
    found.add_node(num_cpus=1, object_store_memory=100 << 20)
    yield found
    found.shutdown()


def test_two_nodes_give_the_same_bytes(world, mix, tmp_path, cluster):
    process = build(world, tmp_path, cluster.address)
    said = process.communicate(timeout=240)[0]
    assert process.returncode == 0, said
    assert digests(tmp_path / "mix") == digests(mix)
    tasks = json.loads((tmp_path / "mix" / "stats.json").read_text())["timings"]["tasks"]
    assert len({task["node"] for task in tasks}) == 2


def test_a_node_is_lost_and_another_comes_while_it_builds(world, mix, tmp_path, cluster):
    process = build(world, tmp_path, cluster.address)
    deadline = time.monotonic() + 120
    while made(tmp_path) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()[0]
    worker = next(node for node in cluster.list_all_nodes() if not node.is_head())
    cluster.remove_node(worker, allow_graceful=False)
    cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
    said = process.communicate(timeout=240)[0]
    assert process.returncode == 0, said
    assert digests(tmp_path / "mix") == digests(mix)


@pytest.mark.parametrize("shift", ["+3d", "-3d"])
def test_a_node_whose_clock_is_days_off_changes_nothing(world, mix, tmp_path, monkeypatch, shift):
    import libfaketime
    from ray.cluster_utils import Cluster

    found = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20}
    )
    try:
        with monkeypatch.context() as patch:  # of the node's processes, and of their children
            folder = Path(libfaketime.__file__).parent / "vendor" / "libfaketime" / "src"
            patch.setenv("LD_PRELOAD", str(folder / "libfaketime.so.1"))
            patch.setenv("FAKETIME", shift)
            patch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            now = [sys.executable, "-c", "import time; print(time.time())"]
            away = float(subprocess.check_output(now)) - time.time()
            found.add_node(num_cpus=1, object_store_memory=100 << 20)
        process = build(world, tmp_path, found.address)
        said = process.communicate(timeout=240)[0]
    finally:
        found.shutdown()
    assert process.returncode == 0, said
    assert digests(tmp_path / "mix") == digests(mix)
    stats = json.loads((tmp_path / "mix" / "stats.json").read_text())
    assert len({task["node"] for task in stats["timings"]["tasks"]}) == 2
    assert all(0 <= task["seconds"] < 240 for task in stats["timings"]["tasks"])
    assert round(away / 86_400) == int(shift[:-1])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_job_on_two_nodes_goes_on_while_nobody_looks(world, mix, tmp_path, monkeypatch):
    """Submitted, left alone, its log followed later; what it makes lies in a bucket."""
    # Longer than a screen: one story of a cluster that is dear to start.
    import fsspec
    from moto.server import ThreadedMotoServer

    ray = str(Path(sys.executable).with_name("ray"))
    port, dashboard = free_port(), free_port()
    short = tempfile.mkdtemp(prefix="ray-")  # the path of a socket has 107 bytes at most
    store = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    store.start()
    host, store_port = store.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{store_port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        # Ray asks for a token by default; `ray get-auth-token --generate` makes one.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    fsspec.filesystem("s3").mkdir("overnight")
    common = ["--num-cpus=1", "--disable-usage-stats", "--block", "--object-store-memory=100000000"]
    nodes = [
        [*common, "--head", f"--port={port}", "--dashboard-host=127.0.0.1",
         f"--dashboard-port={dashboard}", f"--temp-dir={short}"],
        [*common, f"--address=127.0.0.1:{port}"],
    ]  # fmt: skip
    place = [f"mixture={world}", "output=s3://overnight/mix", "work=s3://overnight/work"]
    build = [sys.executable, "-m", "pipelines", "build", *place, f"ray=127.0.0.1:{port}"]
    there = ["--address", f"http://127.0.0.1:{dashboard}"]
    cluster = []

    def job(*words: str) -> subprocess.CompletedProcess[str]:
        """`ray job ...`, once the job server answers."""
        deadline = time.monotonic() + 90
        while True:
            done = subprocess.run(
                [ray, "job", *words],
                cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False,
            )  # fmt: skip
            said = done.stdout + done.stderr
            if "Failed to connect" not in said or time.monotonic() > deadline:
                assert done.returncode == 0, said
                return done
            time.sleep(2)

    try:
        for words in nodes:
            cluster.append(
                subprocess.Popen(
                    [ray, "start", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            )
            job("list", *there)
        job("submit", *there, "--no-wait", "--submission-id", "overnight", "--", *build)
        followed = job("logs", *there, "--follow", "overnight")
        assert "asked and got" in followed.stdout  # its table
        assert "succeeded" in job("status", *there, "overnight").stdout
        assert_same(mix, "s3://overnight")
        stats = tables.read_json("s3://overnight/mix/stats.json")
        assert len({task["node"] for task in stats["timings"]["tasks"]}) == 2
    finally:
        for process in reversed(cluster):
            process.terminate()
            process.wait(timeout=60)
        store.stop()
        shutil.rmtree(short, ignore_errors=True)
