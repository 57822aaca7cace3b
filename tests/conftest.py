"""One small mixture, built once, that many tests look at."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """The YAML of a small mixture, its repositories beside it."""
    from tests.repositories import small_world

    return small_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def mix(world, tmp_path_factory) -> Path:
    """That mixture, finished; its cache is `mix/../work`. Not to be written to."""
    from pipelines.__main__ import main

    out = tmp_path_factory.mktemp("plain")
    place = [f"output={out}/mix", f"work={out}/work", "workers=0"]
    assert main(["build", f"mixture={world}", *place]) == 0
    return out / "mix"
