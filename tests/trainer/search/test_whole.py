"""A search from its words to its files: cut anywhere it goes on, and what fails ends nothing."""

from pathlib import Path

import pytest

from tests.trainer.search.searching import build_here, result, search, write_mixture
from trainer.search import bench, mixing


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "pipelines", build_here)


def test_x(tmp_path: Path) -> None:
    mixture = write_mixture(tmp_path)
    assert search(mixture, tmp_path / "whole") == 0
    print(result(tmp_path / "whole"))
