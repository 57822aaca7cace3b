"""Every mixture that ships: loadable, ratios of 1, known sources, and what its comments promise."""

import dataclasses
import re
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mixtures.config import Mixture
from mixtures.mixture_file import load
from mixtures.plan import RECORDED, by_modality, demand, recorded_supply, totals
from mixtures.reading import FOLDER, bundled_mixtures, variants_of
from pipelines.sources import SOURCES as SOURCES_OF_CODE
from tokenization.schema import Encoding

SOURCES = {
    *("cauldron", "docmatix", "mathwriting", "finevision", "llava", "llava_onevision"),
    *("llava_video", "m4_instruct", "mammoth_vl", "video_star", "vista_400k", "sharegpt4video"),
    *("llava_cot", "vript", "moviechat", "finevideo", "smoltalk", "magpie", "messages"),
    *("documents", "webdataset", "imagefolder"),
    "dcvlm",  # beyond it: DataComp-VLM's pool
    # beyond it: the text corpora of SmolLM2's stages
    *("fineweb_edu", "dclm", "finemath", "open_web_math", "smollm_corpus", "dolma_books"),
    *("the_stack", "starcoderdata", "stack_edu", "codeparrot_clean"),
}
"""ARCHITECTURE.md, section 5.7."""

PUBLISHED = {
    "smolvlm2_2b2": (
        {"image": 34.31, "video": 33.08, "text": 20.26, "multi_image": 12.35},
        3_353_818,
    ),
    "smolvlm2_256m": (
        {"image": 33.83, "video": 33.12, "text": 21.49, "multi_image": 11.56},
        3_027_020,
    ),
}
"""Shares of samples, %, and samples: RECIPE.md, section 2.5 and its appendices."""

VIDEO_FRAMES = {
    f"components.video_{name}.frames"
    for name in (
        *("finevideo", "moviechat", "2_3_m", "1_2_m"),
        *("vista", "sharegpt4video", "star", "vript"),
    )
}
ABLATIONS = {
    "cot_0": {"components", "limits"},
    "cot_0_02": {"components", "limits"},
    "cot_0_5": {"components", "limits"},
    "text_0": {"components"},
    "text_28": {"components"},
    "smoltalk": {"components.text"},
    "string_positions": {"encoding.position_tokens"},
    "no_system_prompts": {"encoding.system_prompts"},
    "no_intro_outro": {"encoding.media_intro_outro"},
    "unmasked_prompts": {"encoding.learn"},
    "no_splitting": {"encoding.split_images"},
    "shuffle_2": {"encoding.tokens_per_crop"},
    "shuffle_3": {"encoding.tokens_per_crop", "encoding.crop_size"},
    "videos_shorter": {"components"},
    "videos_longer": {"components"},
    "context_2k": {"tokens", "encoding.seq_len", *VIDEO_FRAMES},
    "context_4k": {"tokens", "encoding.seq_len", *VIDEO_FRAMES},
    "context_16k": {"encoding.seq_len"},
}


@cache
def named(name: str) -> Mixture:
    return load(name, encoding=Encoding)


@pytest.mark.parametrize("name", bundled_mixtures())
def test_a_shipped_mixture_loads_and_its_ratios_sum_to_one(name):
    mixture = named(name)
    assert mixture.name == Path(name).name
    assert mixture.description
    assert sum(c.ratio for c in mixture.components.values()) == pytest.approx(1, abs=1e-6)
    assert {c.source for c in mixture.components.values()} <= SOURCES
    used = [(c.source, c.data, s) for c in mixture.components.values() for s in c.subsets or [""]]
    assert len(used) == len(set(used)), "a subset belongs to one component"


@pytest.mark.parametrize("name", [n for n in bundled_mixtures() if n != "quickstart"])
def test_a_shipped_mixture_can_be_planned_from_recorded_sizes(name):
    mixture = named(name)
    table = demand(recorded_supply(mixture), mixture)
    assert not table["short"].any()
    assert set(table["basis"].str.split(", ").explode()) <= {"recorded", "unverified", "estimated"}
    whole = totals(table, mixture)
    if isinstance(mixture.tokens, int):
        assert whole["tokens"] == pytest.approx(mixture.tokens, rel=1e-6)
    assert whole["rows"] * mixture.encoding.seq_len >= whole["tokens"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_plan_reproduces_the_published_shares(name):
    shares, samples = PUBLISHED[name]
    mixture = named(name)
    table = by_modality(recorded_supply(mixture), mixture)
    for modality, share in table.select("modality", "share_of_samples").iter_rows():
        assert 100 * share == pytest.approx(shares[modality], abs=0.05)
    train = samples * (1 - mixture.val_fraction)
    assert table["samples"].sum() == pytest.approx(train, rel=0.002)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_set_is_used_once(name):
    mixture = named(name)
    table = demand(recorded_supply(mixture), mixture)
    once = table.filter(pl.col("component") != "mammoth_mixed")
    assert once["epochs"].min() > 0.997
    assert once["epochs"].max() <= 1


def test_the_flagship_keeps_the_shares_it_states():
    mixture = named("sft_v2")
    supply = recorded_supply(mixture)
    share = dict(by_modality(supply, mixture).select("modality", "share_of_samples").iter_rows())
    assert share["text"] == pytest.approx(0.14, abs=1e-6)
    assert share["video"] == pytest.approx(0.33, abs=1e-6)
    assert share["multi_image"] <= 0.124 + 1e-6
    assert mixture.components["reasoning"].ratio == mixture.limits["cot"].max_ratio == 0.0005
    images = share["image"] - 0.0005
    for category, part in (("Documents", 0.41), ("Captioning", 0.14)):
        mine = [c.ratio for c in mixture.components.values() if c.category == category]
        assert sum(mine) / images == pytest.approx(part, abs=1e-4)
    assert mean_minutes(mixture) == pytest.approx(3.5, abs=0.1)


@pytest.mark.parametrize("name", [n for n in bundled_mixtures() if n.endswith("_open")])
def test_a_variant_names_what_it_stands_in_for_and_reads_what_is_public(name):
    variant = named(name)
    published = named(variant.variant_of)
    assert name in variants_of(variant.variant_of)
    for component in variant.components.values():
        about = SOURCES_OF_CODE[component.source]
        assert not about.gating
        assert not set(about.elsewhere) & {"", *component.subsets}
    text = (FOLDER / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    assert set(differences(dataclasses.asdict(published), dataclasses.asdict(variant)))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_public_variant_keeps_the_shares_of_modalities(name):
    variant = named(f"{name}_open")
    shares, _ = PUBLISHED[name]
    table = by_modality(recorded_supply(variant), variant)
    for modality, share in table.select("modality", "share_of_samples").iter_rows():
        assert 100 * share == pytest.approx(shares[modality], abs=0.05)
    used = demand(recorded_supply(variant), variant)
    assert used.filter(pl.col("component") != "mammoth_mixed")["epochs"].min() > 0.99


def test_the_flagship_without_gates_says_its_mean_length():
    variant = named("sft_v2_open")
    share = by_modality(recorded_supply(variant), variant)
    assert dict(share.select("modality", "share_of_samples").iter_rows())["video"] == pytest.approx(
        0.33, abs=1e-6
    )
    assert mean_minutes(variant) == pytest.approx(2.3, abs=0.05)
    assert "2.3" in variant.description


def test_text_mixtures_read_no_more_than_they_need():
    for name in ("context_extension", "smollm2_stage1", "smollm2_stage4"):
        mixture = named(name)
        supply = recorded_supply(mixture)
        read = supply["tokens"].sum()
        assert isinstance(mixture.tokens, int)
        bound = 100 if name == "context_extension" else 20
        assert mixture.tokens < read < bound * mixture.tokens


def mean_minutes(mixture: Mixture) -> float:
    table = demand(recorded_supply(mixture), mixture).filter(
        pl.col("component").str.starts_with("video")
    )
    used = pl.col("used_samples")
    return float(table.select((pl.col("seconds") * used).sum() / used.sum()).item()) / 60


def test_video_ablations_have_the_lengths_they_state():
    for name in ("videos_shorter", "videos_longer"):
        comment = (FOLDER / "ablations" / f"{name}.yaml").read_text().splitlines()[0]
        stated = float(re.findall(r"[\d.]+", comment)[0])
        assert mean_minutes(named(f"ablations/{name}")) == pytest.approx(stated, abs=0.1)


def test_every_ablation_is_listed_here():
    assert {p.stem for p in (FOLDER / "ablations").glob("*.yaml")} == set(ABLATIONS)


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_differs_from_the_flagship_in_what_it_states_only(name):
    base = dataclasses.asdict(named("sft_v2"))
    other = dataclasses.asdict(named(f"ablations/{name}"))
    changed = {key for key in differences(base, other) if key != "name"}
    for key in changed:
        assert any(key == stated or key.startswith(f"{stated}.") for stated in ABLATIONS[name])
    assert changed
    if "components" in ABLATIONS[name]:  # there, ratios alone
        assert all(key.endswith("ratio") or key.count(".") == 1 for key in changed)


def differences(a: Any, b: Any, prefix: str = "") -> set[str]:
    """Dotted keys whose values differ; a component or subset that only one side has is one key."""
    if not (isinstance(a, dict) and isinstance(b, dict)):
        return set() if a == b else {prefix.removesuffix(".")}
    found = {f"{prefix}{key}" for key in set(a) ^ set(b)}
    for key in set(a) & set(b):
        found |= differences(a[key], b[key], f"{prefix}{key}.")
    return found


def test_text_ablations_keep_the_proportions_of_all_else():
    base = named("sft_v2").components
    for name, text in (("text_0", 0.0), ("text_28", 0.28)):
        other = named(f"ablations/{name}").components
        scale = (1 - text - 0.0005) / (0.86 - 0.0005)
        for component, settings in other.items():
            if component == "text":
                assert settings.ratio == text
            elif component != "reasoning":
                assert settings.ratio == pytest.approx(base[component].ratio * scale, abs=2e-6)
        assert other["reasoning"].ratio == 0.0005


def test_recorded_sizes_are_complete_and_have_an_origin():
    sizes = pl.read_csv(RECORDED)
    assert not sizes.select("source", "subset", "modality").is_duplicated().any()
    assert sizes["origin"].str.starts_with("https://").all()
    assert (sizes["rows"] > 0).all()
    assert set(sizes["source"]) <= SOURCES
    assert (sizes["learned_tokens"] <= sizes["text_tokens"]).all()
    assert sizes.filter(modality="video")["seconds"].min() > 0
    assert sizes.filter(pl.col("modality").is_in(["image", "multi_image"]))["images"].min() >= 1
