"""A small edition of the quickstart's data, made once a session by the script itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))


def make(folder: Path, *, hash_seed: int) -> None:
    """Makes every repository at a fiftieth of its size in a fresh interpreter."""
    call = f"quickstart.make(Path({str(folder)!r}), share=0.02)"
    code = f"import quickstart; from pathlib import Path; {call}"
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(EXAMPLES)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart") / "data"
    make(folder, hash_seed=1)
    return folder
