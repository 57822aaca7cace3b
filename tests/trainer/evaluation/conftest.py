"""Benchmarks of a few questions, and a checkpoint to ask."""

import base64
import csv
from pathlib import Path

import pytest

from tests.trainer.conftest import Settings
from tests.trainer.shards import COLOURS, png
from trainer.loop import train


def base64_png(name: str, seed: int) -> str:
    return base64.b64encode(png(COLOURS[name], 40, 30, seed)).decode()


def write_tsv(file: Path, rows: list[dict[str, str]]) -> Path:
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return file


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    red, blue = base64_png("red", 1), base64_png("blue", 2)
    rows = [
        {"index": "1", "image": red, "question": "Colour?", "answer": "red"},
        {"index": "2", "image": "1", "question": "Which?", "answer": "['red', 'dark red']"},
        {"index": "3", "image": blue, "question": "Colour?", "answer": "blue"},
        {"index": "4", "image": str([blue, red]), "question": "Both?", "answer": "blue"},
    ]
    rows = [row | {"category": "one" if row["index"] < "3" else "two"} for row in rows]
    return write_tsv(tmp_path / "colours.tsv", rows)


@pytest.fixture(scope="session")
def checkpoint(mixture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two steps; tests write beside it, so each takes a bench of its own name."""
    run = tmp_path_factory.mktemp("answers") / "run"
    return train(Settings(mixture, run)(steps=2))
