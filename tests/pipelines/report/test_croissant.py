"""croissant.json passes the validator of its makers."""

import json

import mlcroissant
import pytest

from pipelines.report.croissant import COLUMNS, croissant, link_of
from tests.pipelines.made import recipe
from tests.pipelines.report.test_stats import counted


@pytest.mark.parametrize("format", ["arrow", "parquet"])
@pytest.mark.filterwarnings("ignore")
def test_the_validator_of_croissant_finds_no_error(format):
    url = "https://huggingface.co/datasets/org/by_hand"
    made = croissant(counted(), recipe(), repo="org/by_hand", url=url, format=format)
    read = mlcroissant.Dataset(jsonld=json.loads(json.dumps(made)))
    assert not read.metadata.ctx.issues.errors
    assert read.metadata.name == "by_hand"
    assert [record.id for record in read.metadata.record_sets] == ["train", "val"]
    assert {field.name for field in read.metadata.record_sets[0].fields} == {
        f"train/{column}" for column in COLUMNS
    }


def test_every_source_stands_with_its_licence_and_citation():
    made = croissant(counted(), recipe(), repo="org/by_hand", url="https://x", format="arrow")
    images, words = made["isBasedOn"]
    assert images["license"] == "https://spdx.org/licenses/CC-BY-4.0.html"
    assert images["version"] == "abc123"
    assert images["citation"].startswith("What matters")
    assert words["name"] == "words"
    assert made["license"] == [
        "https://spdx.org/licenses/Apache-2.0.html",
        "https://spdx.org/licenses/CC-BY-4.0.html",
    ]


def test_a_licence_that_is_no_spdx_name_stays_as_it_is():
    assert link_of("unknown; research use") == "unknown; research use"
    assert link_of("yours") == "yours"
