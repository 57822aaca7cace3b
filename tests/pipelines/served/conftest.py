"""A finished mixture to be judged, and a server to ask."""

import pytest

from pipelines.__main__ import main
from tests.building import build
from tests.chat_server import ChatServer
from tests.pipelines.sources.making import cell, coarse_jpeg, qa, write, write_parquet

SAMPLES = 14
"""With an image; the last of them has two answers. One more is text alone."""
MIXTURE = """
tokens: max
measure: samples
val_fraction: 0
on_shortage: shrink
encoding: {seq_len: 1024, crop_size: 64, longest_edge: 64, tokens_per_crop: 4}
components:
  made: {source: cauldron, data: ./rows/*.parquet, ratio: 1}
"""


@pytest.fixture(scope="session")
def to_judge(tmp_path_factory):
    """The folder of a mixture (mix.yaml), finished in out/mix with its cache in out/work."""
    folder = tmp_path_factory.mktemp("judged")
    rows = [
        {"images": [cell(coarse_jpeg(n))], "texts": qa((f"What shows sample {n}?", f"Cells {n}."))}
        for n in range(SAMPLES)
    ]
    rows[-1]["texts"] += qa(("And what else?", "Nothing else."))
    rows.append({"images": [], "texts": qa(("Is sample 99 without images?", "It is text."))})
    write_parquet(folder / "rows" / "a.parquet", rows, group=5)
    write(folder / "mix.yaml", MIXTURE)
    build(folder / "mix.yaml", folder / "out")
    return folder


@pytest.fixture
def server():
    with ChatServer() as made:
        yield made


@pytest.fixture
def ask(to_judge, server, tmp_path, monkeypatch):
    """Runs `judge` on the mixture with answers of the test's own; returns the exit status."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def ran(*more: str, folder=to_judge / "out" / "mix", command: str = "judge") -> int:
        return main(words(folder, server.url, tmp_path, *more, command=command))

    return ran


def words(folder, url, tmp_path, *more: str, command: str = "judge") -> list[str]:
    """The words of a command that tries again at once."""
    usual = {
        "prompt": "finevision",
        "endpoint": url,
        "model": "tiny",
        "work": f"{folder}/../work",
        "answers": f"{tmp_path}/answers",
        "output": f"{tmp_path}/facts.parquet",
        "pause": "0.01",
        "retries": "2",
        "concurrency": "4",
    }
    said = {word.partition("=")[0] for word in more}
    rest = (f"{k}={v}" for k, v in usual.items() if k not in said)
    return [command, str(folder), *rest, *more]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A model of two steps."""
    import torch

    from tests.trainer.conftest import Settings
    from tests.trainer.shards import toy
    from trainer.loop import train

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("judging")
    return train(Settings(toy(folder / "toy"), folder / "run")(steps=2))
