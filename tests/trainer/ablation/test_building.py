"""The process that builds mixtures stays, says what it refuses, and comes again when it died."""

import os
import signal
from pathlib import Path

import pytest

from tests.trainer.search.searching import write_mixture
from trainer.ablation import building


def test_one_process_builds_refuses_and_comes_again(tmp_path: Path, monkeypatch) -> None:
    words = {"mixture": str(write_mixture(tmp_path)), "output": "made", "work": str(tmp_path / "w"),
             "tokens": "1000", "workers": "0", "quiet": "true"}  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ends.py").write_text("import os\nos._exit(9)\n")
    building.pipelines("build", words)
    assert (tmp_path / "made" / "recipe.json").is_file()
    process, _ = building._builder()
    with pytest.raises(ValueError, match=r"(?s)^(?!.*Traceback).*unknown key"):
        building.pipelines("build", words | {"tokns": "5"})
    assert building._builder()[0] is process
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    building.pipelines("build", words)  # by another, which finds it built
    again, _ = building._builder()
    assert again.pid != process.pid
    monkeypatch.setenv("ANOTHER", "environment")
    building.pipelines("build", words)
    last, _ = building._builder()
    assert last.pid != again.pid
    assert again.poll() is not None
    with pytest.raises(RuntimeError, match="the process that builds ended"):
        building.pipelines("build", words | {"plugins": f"[{tmp_path}/ends.py]", "output": "not"})
    building._end(building._builder()[0])
