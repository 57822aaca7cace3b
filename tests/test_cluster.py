"""A real Ray cluster of two nodes on this machine: joined, nodes lost, jobs submitted."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.test_build import digests
from tests.test_faults import made

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # of Ray's own test cluster
]


def build(world: Path, out: Path, address: str) -> subprocess.Popen:
    words = [f"mixture={world}", f"output={out}/mix", f"work={out}/work", f"ray={address}"]
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines", "build", *words],
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_job_is_submitted_followed_and_leaves_its_result(world, mix, tmp_path):
    ray = str(Path(sys.executable).with_name("ray"))
    port, dashboard = free_port(), free_port()
    short = tempfile.mkdtemp(prefix="ray-")  # the path of a socket has 107 bytes at most
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    # Ray asks for a token by default; `ray get-auth-token --generate` makes one on a real cluster.
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    head = [
        ray, "start", "--head", f"--port={port}", "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard}", "--num-cpus=2", f"--temp-dir={short}",
        "--disable-usage-stats", "--block", "--object-store-memory=100000000",
    ]  # fmt: skip
    cluster = subprocess.Popen(
        head, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    root = Path(__file__).parents[1]
    place = [f"mixture={world}", f"output={tmp_path}/mix", f"work={tmp_path}/work"]
    submit = [
        ray, "job", "submit", "--address", f"http://127.0.0.1:{dashboard}", "--",
        sys.executable, "-m", "pipelines", "build", *place, f"ray=127.0.0.1:{port}",
    ]  # fmt: skip
    try:
        deadline = time.monotonic() + 90
        while True:
            done = subprocess.run(
                submit, env=environment, cwd=root, capture_output=True, text=True, check=False
            )
            if done.returncode == 0 or time.monotonic() > deadline:
                break
            if "Failed to connect" not in done.stderr + done.stdout:
                break
            time.sleep(2)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "asked and got" in done.stdout  # the job's log was followed to its table
        assert "succeeded" in done.stdout
        assert digests(tmp_path / "mix") == digests(mix)
    finally:
        cluster.terminate()
        cluster.wait(timeout=60)
        shutil.rmtree(short, ignore_errors=True)
