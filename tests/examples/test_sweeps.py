"""Every sweep that ships can be trained: its arms' mixtures and settings are whole and fit."""

from pathlib import Path

import pytest

from mixtures.config import Mixture
from mixtures.mixture_file import load
from tokenization.schema import Encoding
from trainer.ablation.sweep import MixtureSpec, read_sweep, run_config

SWEEPS = sorted((Path(__file__).parents[2] / "examples" / "sweeps").glob("*.yaml"))


def mixture_of(spec: MixtureSpec) -> Mixture:
    words = [f"{key}={value}" for key, value in spec.build.items()]
    return load(spec.mixture, words, encoding=Encoding)  # raises where it contradicts itself


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(file, id=file.stem, marks=[pytest.mark.slow] * (file.stem == "flagship"))
        for file in SWEEPS
    ],
)
def test_every_arm_is_a_mixture_and_settings_that_fit(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parents[2])
    sweep = read_sweep(file)
    assert sweep.description
    mixtures = {arm.name: mixture_of(arm.mixture) for arm in sweep.arms}
    for arm in sweep.arms:
        config, encoding = run_config(sweep, arm, seed=1, data="x"), mixtures[arm.name].encoding
        assert config.model.tokens_per_crop == encoding.tokens_per_crop
        assert config.model.vision.image_size == encoding.crop_size
        assert config.model.language.max_position_embeddings >= encoding.seq_len
        same = mixtures[arm.name] == mixtures[sweep.baseline.name]
        assert same == (arm is sweep.baseline)
        assert mixtures[arm.name].seed == mixtures[sweep.baseline.name].seed
        assert mixtures[arm.name].val_fraction == mixtures[sweep.baseline.name].val_fraction > 0
    assert len(sweep.seeds) >= 3


def test_the_papers_findings_are_all_there() -> None:
    assert {file.stem for file in SWEEPS} == {
        "positions", "prompts", "intro_outro", "system_prompts", "text_share", "cot_share",
        "video_length", "shuffle", "flagship",
    }  # fmt: skip
