"""Mixtures that runs train on: `python -m pipelines` in a process of its own.

The trainer imports nothing of the pipelines. A mixture is kept in a folder named by all that
determines it, so that a changed file, or one that it is based on, is another folder.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

MISTAKE = 2
"""Exit status of a build that was asked for what cannot be."""


def mixture_key(mixture: str, words: Mapping[str, str]) -> str:
    """12 hex of the file's content, that of the file it is based on, and the words on top."""
    text = json.dumps([*_contents(mixture), dict(words)])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def pipelines(command: str, words: Mapping[str, str]) -> None:
    """`python -m pipelines COMMAND words` has succeeded.

    Raises ValueError, with what it says, where it refuses; RuntimeError where it fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", command, *(f"{k}={v}" for k, v in words.items())],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-3000:]
        raise (ValueError if done.returncode == MISTAKE else RuntimeError)(said)


def _contents(mixture: str) -> list[str]:
    """Of the file and its base, which has none itself; the name of one that is no file."""
    file = Path(mixture)
    if not file.is_file():
        return [mixture]
    text = file.read_text()
    try:
        written = yaml.safe_load(text)
    except yaml.YAMLError:  # which the build says better
        return [text]
    base = written.get("base") if isinstance(written, dict) else None
    if not base:
        return [text]
    under = Path(str(base))
    return [text, under.read_text() if under.is_file() else str(base)]
