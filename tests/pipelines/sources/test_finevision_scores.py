"""FineVision's ratings are facts: the example of docs/sources.md, built on made rows."""

import json
import re
from pathlib import Path

import polars as pl
import pytest

from tests.building import build
from tests.pipelines.sources.making import cell, coarse_jpeg, qa, write, write_parquet

PAGE = Path(__file__).parents[3] / "docs" / "sources.md"
RATED = ("relevance", "image_correspondence", "visual_dependency", "formatting")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The finished mixture of the page's lines, over 40 rows of two turns."""
    folder = tmp_path_factory.mktemp("finevision")
    rows = []
    for n in range(40):
        texts = qa(
            (f"What is in image {n}?", "A pattern."), (f"And its number, {n}?", f"It is {n}.")
        )
        ratings = {f"{name}_ratings": [1 + n % 5, 5] for name in RATED}
        rows.append({"images": [cell(coarse_jpeg(n))], "texts": texts, **ratings})
    write_parquet(folder / "rows" / "train-0.parquet", rows)
    section = PAGE.read_text().partition("### FineVision's ratings")[2]
    (stated,) = re.findall(r"```yaml\n(.*?)```", section.partition("\n### ")[0], re.DOTALL)
    rest = """
tokens: 700
val_fraction: 0
encoding: {seq_len: 512, crop_size: 64, longest_edge: 64, tokens_per_crop: 4}
components: {rated: {source: finevision, data: ./rows, ratio: 1}}
"""
    write(folder / "mix.yaml", stated + rest)
    return build(folder / "mix.yaml", folder / "out")


def test_bounds_and_quantiles_of_ratings_are_those_of_the_page(made):
    stats = json.loads((made / "stats.json").read_text())["rejected"]
    assert stats["out_of_bounds"]["samples"] == 8  # a turn of 1; a mean of 3 and more stays
    assert stats["beyond_quantile"]["samples"] == 0
    assert stats["beyond_quantile"]["fired"] == 8  # 8 of the 32 left are the lowest quarter
    assert "annotations" not in json.loads((made / "stats.json").read_text())


def test_the_weight_is_the_mean_of_the_turns(made):
    found = [pl.read_ipc(path) for path in (made.parent / "work" / "verdicts").rglob("0*.arrow")]
    weights = pl.concat(found).sort("id")["weight"]
    assert weights.to_list() == [(1 + n % 5 + 5) / 2 for n in range(40)]
