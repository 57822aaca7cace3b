"""A small mixture, built once, for all tests of the trainer."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.processes import Nursery
from tests.trainer.shards import toy
from trainer.config import Config
from trainer.config_file import load

SMALL = {
    "model.vision.hidden_size": "32",
    "model.vision.intermediate_size": "48",
    "model.vision.num_hidden_layers": "1",
    "model.language.hidden_size": "32",
    "model.language.intermediate_size": "64",
    "model.language.num_hidden_layers": "2",
    "model.language.num_attention_heads": "4",
    "model.language.num_key_value_heads": "2",
    "model.language.head_dim": "8",
    "batch_rows": "4",
    "micro_rows": "2",
    "steps": "10",
    "save_every": "1000",
    "log_every": "1",
    "page_samples": "0",
    "threads": "1",
    "device": "cpu",
}
"""The tiny config made smaller still, as `key=value` for `load`."""

TRAIN = (
    "import trainer.loop, transformers.models.smolvlm.modeling_smolvlm, "
    "transformers.tokenization_utils_tokenizers; "
    "from tokenization.vocab import plain_tokenizer; plain_tokenizer('builtin')"
)
"""What a process that trains imports and loads first."""


@pytest.fixture(scope="session")
def python() -> Iterator[Nursery]:
    """Runs `python ARGUMENTS` in a process of its own that has imported what training needs."""
    with Nursery(TRAIN) as nursery:
        yield nursery


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy(tmp_path_factory.mktemp("mixture") / "toy")


@pytest.fixture
def settings(mixture: Path, tmp_path: Path) -> "Settings":
    return Settings(mixture, tmp_path / "run")


class Settings:
    """Makes the configs of a test: SMALL on the toy mixture, with changes."""

    def __init__(self, mixture: Path, output: Path) -> None:
        self.pairs = {**SMALL, "data": str(mixture), "output": str(output)}

    def __call__(self, **changes: object) -> Config:
        pairs = self.pairs | {key.replace("__", "."): str(v) for key, v in changes.items()}
        return load("tiny", pairs)
