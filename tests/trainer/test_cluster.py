"""Tasks of a Ray cluster: what each ended with, and what no node can run."""

import logging
import os
from pathlib import Path

import pytest

from trainer import cluster
from trainer.cluster import run_tasks, shortage

NODES = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 4.0}]


@pytest.mark.parametrize(
    ("asked", "kind", "told"),
    [
        ({"gpus": 2}, "GPU", ""),
        ({"gpus": 0.5}, "GPU", ""),
        ({"gpus": 2.5}, "GPU", "gpus=2.5: no node has more than 2 GPUs"),
        ({"ranks": 2}, "GPU", ""),
        ({"ranks": 3}, "GPU", "ranks=3: the cluster has 2 GPUs"),
        ({"ranks": 12}, "CPU", ""),
        ({"ranks": 13}, "CPU", "ranks=13: the cluster has 12 CPUs"),
    ],
)
def test_what_no_node_has_is_named(asked, kind, told) -> None:
    assert shortage(NODES, asked, kind) == told
    assert shortage([], asked, kind) != ""


class Joined:
    """What is asked of Ray here."""

    def nodes(self) -> list[dict]:
        return [{"Alive": True, "Resources": NODES[0]}, {"Alive": False, "Resources": {"GPU": 8}}]


def test_a_cluster_may_grow_and_this_machine_does_not(caplog) -> None:
    caplog.set_level(logging.INFO)
    cluster._say_shortage(Joined(), "auto", {"gpus": 8}, "GPU")
    assert "gpus=8: no node has more than 2 GPUs: waiting until nodes with more join" in caplog.text
    with pytest.raises(ValueError, match=r"gpus=8: .* no other node comes"):
        cluster._say_shortage(Joined(), "local", {"gpus": 8}, "GPU")
    caplog.clear()
    cluster._say_shortage(Joined(), "auto", {"gpus": 2}, "GPU")
    assert not caplog.text


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore")  # of Ray
def test_every_task_ends_with_what_it_raised(tmp_path: Path, monkeypatch) -> None:

    def touch(name: str) -> None:  # sent by value: workers have no `tests`
        if name == "wrong":
            raise ValueError("wrong is no name")
        if name == "dead":
            os.kill(os.getpid(), 9)
        (tmp_path / f"{name}-{Path.cwd().name}").touch()

    (tmp_path / "place").mkdir()
    monkeypatch.chdir(tmp_path / "place")
    names = ["a", "wrong", "dead", "b"]
    ended = dict(run_tasks(touch, names, address="local", gpus=0))
    assert sorted(ended) == [0, 1, 2, 3]
    assert ended[0] is ended[3] is None
    assert isinstance(ended[1], ValueError)
    assert str(ended[1]) == "wrong is no name"
    assert "died" in str(ended[2])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-place", "b-place", "place"]
    with pytest.raises(ValueError, match="gpus=8: no node has more than"):
        list(run_tasks(touch, ["c"], address="local", gpus=8))
