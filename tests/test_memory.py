"""Workers that take more memory than the node has: Ray's monitor ends them, the build stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.building import digests, words

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[1]
HUNGRY = """
import sys
import pytest
from pipelines.__main__ import main
from tests import faulty
folder, times, num_bytes, *words = sys.argv[1:]
faulty.inject(
    pytest.MonkeyPatch(), faulty.hungry, folder, int(times), int(num_bytes), stages=["encode"]
)
sys.exit(main(words))
"""


def machine() -> dict[str, int]:
    """`MemTotal` and `MemAvailable` in bytes."""
    found = re.findall(r"(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return {name: int(kilobytes) * 1024 for name, kilobytes in found}


def build(world: Path, out: Path, *, times: int, retries: int) -> tuple[int, str]:
    """A build whose `encode` takes memory `times` times, where a twelfth of the machine's is
    what Ray lets all processes take beyond what they have now; (status, what was said).
    """
    has = machine()
    margin = has["MemTotal"] // 12
    share = (has["MemTotal"] - has["MemAvailable"] + margin) / has["MemTotal"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RAY_memory_usage_threshold": f"{share:.4f}",
        "RAY_memory_monitor_refresh_ms": "100",
        "RAY_task_oom_retries": str(retries),
    }
    arguments = [str(out), str(times), str(2 * margin), *words(world, out, "workers=2")]
    done = subprocess.run(
        [sys.executable, "-c", HUNGRY, *arguments],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("times", [1, 2])
def test_a_worker_that_takes_too_much_memory_is_replaced(world, mix, tmp_path, times):
    status, said = build(world, tmp_path, times=times, retries=8)
    assert status == 0, said
    assert len(list(tmp_path.glob("failure-*"))) == times
    assert "low on memory" in said
    assert digests(tmp_path / "mix") == digests(mix)


def test_a_part_that_never_fits_ends_the_build_and_is_named(world, tmp_path):
    status, said = build(world, tmp_path, times=10**6, retries=1)
    assert status == 1
    assert "OutOfMemoryError" in said
    assert re.search(r"stage encode, part \S+/00000", said)
    assert not (tmp_path / "mix" / "recipe.json").exists()
