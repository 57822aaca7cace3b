"""Mixtures that runs train on: `python -m pipelines` in a process of its own, one for all of them.

The trainer imports nothing of the pipelines, and starting Python and importing them costs more than
a small build: the process stays until this one ends, and builds what it is asked for line by line.
A mixture is kept in a folder named by all that determines it, so that a changed file, or one that
it is based on, is another folder.
"""

import atexit
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO

import yaml

SERVER = """
import json, os, sys, traceback
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what is printed is no answer
from pipelines.__main__ import main
for line in sys.stdin:
    asked = json.loads(line)
    try:
        os.chdir(asked["folder"])
        status = main(asked["words"])
    except Exception:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    print(status, file=answers, flush=True)
"""
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
    process, said = _builder()
    if process.poll() is not None or _built_in() != dict(os.environ):
        _end(process)  # it died in the meantime, or would build in what was the environment before
        process, said = _builder()
    assert process.stdin is not None
    assert process.stdout is not None
    before = said.seek(0, os.SEEK_END)
    asked = {"folder": str(Path.cwd()), "words": [command, *(f"{k}={v}" for k, v in words.items())]}
    try:
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        status = process.stdout.readline().strip()
    except BaseException as error:  # what it answers now would be taken for the next
        _end(process)
        if not isinstance(error, BrokenPipeError):
            raise
        status = ""
    if status == "0":
        return
    said.seek(before)
    told = said.read().decode(errors="replace").strip()[-3000:]
    if not status:  # it is gone
        _end(process)
        told = f"{told}\nthe process that builds ended ({process.returncode})".strip()
    raise (ValueError if status == str(MISTAKE) else RuntimeError)(told)


@cache
def _built_in() -> dict[str, str]:
    """The environment of the process that builds."""
    return dict(os.environ)


@cache
def _builder() -> tuple[subprocess.Popen[str], IO[bytes]]:
    """The process that builds, and the file of what it says."""
    said = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
    _built_in.cache_clear()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True, env=_built_in(),
    )  # fmt: skip
    atexit.register(_end, process)
    return process, said


def _end(process: subprocess.Popen[str]) -> None:
    """The process is gone; the next that is asked for is another."""
    _builder.cache_clear()
    process.terminate()
    for stream in (process.stdin, process.stdout):
        if stream and not stream.closed:
            with suppress(BrokenPipeError):
                stream.close()
    process.wait()


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
