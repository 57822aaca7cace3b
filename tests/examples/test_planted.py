"""The rules of mixtures/quickstart.yaml take the planted rows, each for its reason, no others."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path

import polars as pl
import pytest

import filters
from mixtures.config import rules_of
from mixtures.mixture_file import load
from pipelines.reading.ingest import ingest
from pipelines.reading.parts import list_parts
from tokenization.schema import Encoding

EXPECTED = {
    ("documents", "undecodable_image"): 1,
    ("documents", "uniform_image"): 1,
    ("charts", "undecodable_image"): 1,
    ("charts", "empty_answer"): 1,
    ("natural_images", "small_image"): 1,
    ("natural_images", "duplicate_sample"): 1,
    ("multi_image", "missing_media"): 1,
    ("multi_image", "placeholder_mismatch"): 1,  # more places than images
    ("video", "truncated_video"): 3,  # an MP4 without its end; each video stands in three records
    ("video", "missing_media"): 3,
    ("video", "too_short"): 3,
    ("text", "empty_answer"): 1,
    ("text", "duplicate_sample"): 1,
    ("reasoning", "missing_section"): 1,
}


@pytest.fixture(scope="module")
def verdicts(data: Path) -> pl.DataFrame:
    """Of every sample of the quickstart's components, as the build would judge them."""
    mixture = load("quickstart", encoding=Encoding)
    judged = []
    for component, settings in mixture.components.items():
        assert settings.data is not None
        parts = list_parts(
            source=settings.source,
            component=component,
            subsets=settings.subsets,
            data=str(data / Path(settings.data).relative_to("examples/data")),
            frames={**asdict(settings.frames), "size": mixture.encoding.crop_size},
            placeholders=settings.placeholders,
        )
        rules = rules_of(mixture, component)
        filters.validate(rules, where=component)
        for part in parts:
            table = filters.judge(ingest(part), rules=rules)
            judged.append(
                pl.DataFrame(table).with_columns(component=pl.lit(component), priority=pl.lit(0))
            )
    whole = pl.concat(judged)
    taken = filters.mixture_rules(whole, settings=mixture.filters)
    late = dict(taken.filter(pl.col("mode") == "drop").select("id", "rule").iter_rows())
    late_rule = pl.col("id").replace_strict(late, default=None, return_dtype=pl.String)
    return whole.with_columns(rule=pl.coalesce("rule", late_rule))


def test_every_planted_row_is_taken_for_its_reason_and_no_other_row(verdicts):
    rejected = verdicts.filter(pl.col("rule").is_not_null())
    found = Counter(rejected.select("component", "rule").iter_rows())
    assert found == EXPECTED


def test_a_literal_tag_in_a_question_is_counted_and_kept(verdicts):
    marked = verdicts.filter(pl.col("fired").list.contains("leaked_special_token"))
    assert marked["id"].to_list() == ["cauldron/clevr/000005"]
    assert marked["rule"].to_list() == [None]


def test_rotated_and_transparent_images_are_good(verdicts):
    names = ["cauldron/localized_narratives/000006", "cauldron/localized_narratives/000011"]
    good = verdicts.filter(pl.col("id").is_in(names))
    assert len(good) == 2
    assert good["rule"].null_count() == 2


def test_every_modality_is_there(verdicts):
    assert set(verdicts["modality"]) == {"text", "image", "multi_image", "video"}


def test_data_paths_are_what_the_script_makes():
    import quickstart

    mixture = load("quickstart", encoding=Encoding)
    made = {f"examples/data/{name}" for name in quickstart.REPOSITORIES}
    assert {component.data for component in mixture.components.values()} == made
