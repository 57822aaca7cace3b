"""One small mixture, built once, that many tests look at, and processes that start quickly."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.processes import Nursery

BUILD = (
    "import pipelines.main_path, transformers.tokenization_utils_tokenizers, matplotlib.figure; "
    "from tokenization.vocab import plain_tokenizer; plain_tokenizer('builtin')"
)
"""What a process that builds imports and loads first."""
HUB = (
    "import time; wait = time.sleep; time.sleep = lambda seconds: wait(seconds / 20); "
    "import sys, pipelines.main_path, pipelines.probing, pipelines.push, matplotlib.figure, "
    "aiohttp, dill, httpx, jinja2, multiprocess, pandas, pyarrow.dataset, pyarrow.parquet; "
    "assert not {'huggingface_hub', 'datasets', 'transformers'} & set(sys.modules)"
)
"""What a process that speaks with a hub imports first: not its client, which reads HF_ENDPOINT,
HF_TOKEN and HF_HOME as it is imported. What waits between two tries waits a twentieth of it."""

# How long an example takes says something of the machine only, which may be busy with other work.
settings.register_profile(
    "shared machine", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared machine")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """The YAML of a small mixture, its repositories beside it."""
    from tests.laid_out import small_world

    return small_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def mix(world, tmp_path_factory) -> Path:
    """That mixture, finished; its cache is `mix/../work`. Not to be written to."""
    from tests.building import build

    return build(world, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="session")
def python() -> Iterator[Nursery]:
    """Runs `python ARGUMENTS` in a process of its own that has imported what a build needs."""
    with Nursery(BUILD) as nursery:
        yield nursery


@pytest.fixture(scope="session")
def hub_python() -> Iterator[Nursery]:
    """The same for a process that imports the hub's client under an environment of its own."""
    offline = {"HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"}
    environment = {name: value for name, value in os.environ.items() if name not in offline}
    with Nursery(HUB, environment | {"PYTHONWARNINGS": "ignore"}) as nursery:
        yield nursery
