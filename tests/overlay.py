"""Packages that the tests' environment leaves out, for child processes of slow tests alone."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
OPERATORS = """\
import torch

for name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")
"""
"""torchvision's wheels on PyPI are built for CUDA; these two operators, which only detectors use,
are all that its import misses beside a torch for CPUs."""


def overlay(folder: Path, *requirements: str) -> dict[str, str]:
    """The environment of a child process that has these packages too; nothing else changes."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    subprocess.run([*pip, *requirements], check=True)
    (folder / "sitecustomize.py").write_text(OPERATORS)
    path = os.pathsep.join([str(folder), str(ROOT)])
    return os.environ | {
        "PYTHONPATH": path,
        "OVERLAY": str(folder),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }


def torchvision() -> str:
    """The requirement that goes with the installed torch: 0.28.0 with 2.13.0."""
    major, minor, patch = version("torch").split("+")[0].split(".")
    assert major == "2"
    return f"torchvision==0.{int(minor) + 15}.{patch}"
