"""A process that is killed at any write of a save leaves a run that goes on."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.conftest import Settings
from tests.trainer.test_checkpoint import same
from trainer import checkpoint
from trainer.config import Config
from trainer.loop import train

WRITES = {"os.rename", "os.symlink", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}
"""Audit events (sys.addaudithook) that change the disk, besides `open` for writing."""


def is_write(event: str, arguments: tuple[Any, ...], run: str) -> bool:
    if not arguments or not str(arguments[0]).startswith(run):
        return False
    if event == "open":
        return bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
    return event in WRITES


def killed_at(write: int, config: Config) -> bool:
    """In a child process: train, and die before the `write`-th write to the run. True: it died."""
    child = os.fork()
    if child == 0:
        left, run = [write], str(config.output)

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if is_write(event, arguments, run):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), 9)

        sys.addaudithook(hook)
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
        try:
            train(config)
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def kill_at_every(writes: range, settings: Settings, tmp_path: Path) -> int:
    """How many writes were reached; after each kill the run is whole and goes on to the end."""
    changes = {"save_every": 1, "evaluate_every": 1, "keep_last": 1, "page_samples": 1}
    through = train(settings(steps=3, output=tmp_path / "through", **changes))
    before = settings(steps=3, stop_at=2, output=tmp_path / "before", **changes)
    train(before)
    for number in writes:
        run = tmp_path / f"killed-{number}"
        shutil.copytree(before.output, run, symlinks=True)
        config = settings(steps=3, output=run, **changes)
        if not killed_at(number, config):
            return number
        for folder in checkpoint.checkpoint_folders(run):
            assert checkpoint.read_state(folder).step in (2, 3)
            assert checkpoint.load_weights(folder)
        same(through, train(config))
        assert not list(run.glob(f"{checkpoint.ARRIVING}*"))
        assert (run / "best").resolve().is_dir()
        assert (run / "run.html").is_file()
        shutil.rmtree(run)
    return writes.stop


@pytest.mark.slow
def test_a_kill_at_every_write_of_a_save(settings: Settings, tmp_path: Path) -> None:
    assert kill_at_every(range(1, 200), settings, tmp_path) > 20


def test_leftovers_of_every_kind_go(settings: Settings) -> None:
    config = settings(steps=1, page_samples=1)
    run = Path(config.output)
    run.mkdir()
    (run / f"{checkpoint.ARRIVING}run.html").write_text("half")
    (run / f"{checkpoint.ARRIVING}best").symlink_to("step-000009")
    (run / f"{checkpoint.ARRIVING}step-000003" / "trainer").mkdir(parents=True)
    (run / f"{checkpoint.ARRIVING}removed-step-000001").mkdir()
    (run / f"{checkpoint.ARRIVING}state.json").write_text("{")
    assert train(config).name == "step-000001"
    assert not list(run.glob(f"{checkpoint.ARRIVING}*"))
