"""Planted faults are planted, found, and timed beside a loop that computes the same."""

import numpy as np
import pytest

from benchmarks import visual_gain


def test_the_area_counts_pairs_in_the_right_order_and_half_of_ties() -> None:
    planted = np.array([True, True, False, False])
    assert visual_gain.auroc(np.array([0.0, 1.0, 2.0, 3.0]), planted) == 1
    assert visual_gain.auroc(np.array([2.0, 3.0, 0.0, 1.0]), planted) == 0
    assert visual_gain.auroc(np.array([0.0, 2.0, 1.0, 3.0]), planted) == 0.75
    assert visual_gain.auroc(np.ones(4), planted) == 0.5


def test_planted_images_are_those_of_other_samples(tmp_path) -> None:
    clean = tmp_path / "clean"
    visual_gain.plant(clean, images=10, share=0, seed=3)
    planted = visual_gain.plant(tmp_path / "planted", images=10, share=0.4, seed=3)
    assert planted.sum() == 4
    files = [
        [path.read_bytes() for path in sorted((folder / "images").iterdir())]
        for folder in (clean, tmp_path / "planted")
    ]
    assert [a != b for a, b in zip(*files, strict=True)] == planted.tolist()
    assert sorted(files[0]) == sorted(files[1])
    with pytest.raises(ValueError, match="expected key=value"):
        visual_gain.main(["images"])


@pytest.mark.slow
def test_all_samples_are_scored(capsys) -> None:
    visual_gain.main(["images=24", "steps=1", "planted=0.25"])
    said = capsys.readouterr().out
    assert "24 samples, 25% with another one's image, 1 steps on all of them" in said
    for column in ("visual_gain", "image_match", "loss"):
        (line,) = (line for line in said.splitlines() if f"AUROC of {column} " in line)
        assert 0 <= float(line.split()[-1]) <= 1
    assert float(said.rsplit("ratio ", 1)[1]) > 0
