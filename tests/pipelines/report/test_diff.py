"""What differs between two mixtures is named on both sides."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from mixtures import pick as picking
from pipelines.engine import tables
from pipelines.report import card
from pipelines.report.diff import diff
from pipelines.report.finished import open_finished
from tests.pipelines.made import facts, finished, lines_in


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return Path(finished(tmp_path_factory.mktemp("mixture") / "first"))


@pytest.fixture
def second(first, tmp_path):
    """The same mixture but for a ratio, a sample that is now rejected, and one that moved."""
    folder = Path(shutil.copytree(first, tmp_path / "second"))
    mixture = open_finished(str(first))
    index = mixture.index.with_columns(
        rule=pl.when(pl.col("id") == "smoltalk/all/0")
        .then(pl.lit("empty_answer"))
        .otherwise("rule"),
        copies=pl.when(pl.col("id") == "smoltalk/all/0").then(0).otherwise("copies"),
        split=pl.when(pl.col("id") == "smoltalk/all/1").then(pl.lit("train")).otherwise("split"),
    )
    recipe = mixture.recipe
    recipe["mixture"]["components"]["words"]["ratio"] = 0.2
    names = tuple(recipe["mixture"]["components"])
    found = [
        facts(tables.read(mixture.path(name)), index, shard=name, components=names)
        for name in [*mixture.shards["train"], *mixture.shards["val"]]
    ]
    index = index.cast({"copies": pl.Int32})
    stats = card.stats(lines_in(index), found[1:], recipe)
    written = picking.as_tables(index)
    tables.write_pieces(written, picking.INDEX, folder / "index.arrow", rows_per_batch=256)
    (folder / "stats.json").write_text(json.dumps(stats))
    (folder / "recipe.json").write_text(json.dumps(recipe))
    return folder


def test_equal_mixtures_have_no_difference(first):
    assert str(diff(str(first), str(first))).endswith("no difference")


def test_what_differs_is_named_on_both_sides(first, second):
    text = str(diff(str(first), str(second)))
    assert "mixture.components.words.ratio: was 0.1, now 0.2" in text
    assert "10.00 % > 20.00 %" in text
    assert f"{'empty_answer':<30}{0:>12} > 1" in text
    assert "train  rows" in text
    assert "only in the first: 1 (words 1)" in text
    assert "only in the second" not in text
    assert "in train of one and val of the other: 1" in text
    assert max(map(len, text.splitlines()[1:])) <= 100


def test_a_component_of_one_side_only_stands_against_a_dash(first, second):
    stats = json.loads((second / "stats.json").read_text())
    stats["components"]["more"] = stats["components"].pop("video")
    (second / "stats.json").write_text(json.dumps(stats))
    text = str(diff(str(first), str(second)))
    assert "10.00 % > -" in text
    assert "- > 10.00 %" in text


def test_a_folder_that_is_no_mixture_is_said(first, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no recipe\.json"):
        diff(str(first), str(tmp_path))
