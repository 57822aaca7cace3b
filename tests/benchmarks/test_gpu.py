"""The GPU benchmark's arithmetic, and its form for a CPU."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import gpu
from benchmarks.made import photographs
from tokenization.schema import Encoding
from trainer.data.batches import collate
from trainer.data.shards import Rows, open_mixture


def test_the_first_step_is_not_counted_and_mfu_is_of_the_peak() -> None:
    slow = gpu.Timed(seconds=100, waited=50, tokens=10, learned=1, flops=1e12)
    steps = [slow, *[gpu.Timed(2, 0.5, 1000, 100, 8e12)] * 3]
    found = gpu.rates(steps, peak=16e12)
    assert found["tokens"] == 500
    assert found["learned"] == 50
    assert found["wait"] == 0.25
    assert found["tflops"] == 4
    assert found["mfu"] == 0.25
    assert gpu.rates([slow], peak=1e12)["tokens"] == 0.1  # all there is


@given(st.lists(st.integers(1, 100), min_size=1, max_size=60))
def test_knapsacks_hold_every_sample_once_and_no_more_than_fits(lengths: list[int]) -> None:
    packs = gpu.knapsacks(lengths, 100)
    assert sorted(i for pack in packs for i in pack) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in pack) <= 100 for pack in packs)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(photographs, "PHOTOGRAPHS", ((96, 72), (72, 96), (100, 80), (90, 90)))
    encoding = Encoding(**{"max_crops": 128} | gpu.ENCODINGS["tiny"])  # type: ignore[arg-type]
    return gpu.mixture(tmp_path / "photographs", encoding, 4)


def test_what_it_trains_on_is_a_mixture_and_its_sides_run_on_a_cpu(made: Path) -> None:
    rows = Rows(open_mixture(str(made)), "train")
    assert len(rows) >= 4
    batch = collate([rows[0]], image_token=49190)  # raises where the contract is broken
    assert 0 < len(batch.targets) < batch.input_ids.numel()
    options = gpu.DEFAULTS | {"device": "cpu", "steps": "2", "batch_rows": "2", "data": str(made)}
    found = gpu.one_side("ours", "tiny", options)
    assert found["steps"] == 2
    assert found["tokens"] > found["learned"] > 0
    assert found["tflops"] > 0
    assert found["memory"] > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_command_compares_all_sides_on_a_cpu() -> None:
    words = ["device=cpu", "models=tiny", "steps=2", "batch_rows=2", "minutes=14"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu", *words],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for words_ in gpu.SIDES.values():
        assert f"| {words_} |" in done.stdout
    assert "| ours, chunked |" in done.stdout
    assert "| Liger, fused | not run:" in done.stdout
    assert "failed" not in done.stdout
    assert "out of time" not in done.stdout
    assert "times transformers.Trainer" in done.stdout
