"""The card states what was built, in Markdown that the hub reads."""

import pytest
import yaml

from pipelines.engine import tables
from pipelines.report.card import card, header, licences, markdown_cell, stats, terminal_table
from tests.pipelines.made import facts, index, line, lines_in, packed, recipe
from tests.pipelines.report.test_stats import LINES, TRAIN, VAL, counted


def front(text: str) -> dict:
    opening, fields, _ = text.split("---\n", 2)
    assert opening == ""
    return yaml.safe_load(fields)


def test_the_header_names_each_split_and_its_shards():
    fields = front(card(counted(), recipe()))
    assert fields["configs"][0]["data_files"] == [
        {"split": "train", "path": "shards/train-*.arrow"},
        {"split": "val", "path": "shards/val-*.arrow"},
    ]
    assert fields["license"] == ["apache-2.0", "cc-by-4.0"]
    assert fields["size_categories"] == ["n<1K"]


def test_a_split_without_rows_is_not_named():
    found = counted()
    found["packing"]["val"] = {"rows": 0}
    assert "val" not in header(found)


def test_subsets_of_which_val_has_nothing_are_named():
    found = counted()
    assert "Val has no sample of 1 of the subsets that train has: images/ai2d." in card(
        found, recipe()
    )
    found["held_out"]["empty"] = []
    assert "Val has no sample" not in card(found, recipe())


def test_own_files_are_not_said_to_be_the_repository_whose_layout_they_have():
    found = counted()
    assert front(card(found, recipe()))["source_datasets"] == [
        "HuggingFaceM4/the_cauldron",
        "HuggingFaceTB/smoltalk",
    ]
    found["sources"]["images"]["own_files"] = True
    text = card(found, recipe())
    assert front(text)["source_datasets"] == ["HuggingFaceTB/smoltalk"]
    assert "| own files in the layout of [HuggingFaceM4/the\\_cauldron](" in text
    assert "abc123" not in text


def test_a_licence_the_hub_has_no_name_for_is_other():
    assert licences({"a": {"licence": "LicenseRef-own"}, "b": {"licence": "MIT"}}) == [
        "mit",
        "other",
    ]
    assert licences({"a": {"licence": None}}) == ["unknown"]


def test_the_card_tells_every_number_a_reader_needs():
    text = card(counted(), recipe())
    assert (
        "| images | cauldron | 75.00 % | 75.00 % | 40.00 % | 75.00 % | 3 | 1.50 | 2 | 2 |" in text
    )
    assert "| `small_image` | 1 | 1 |" in text
    assert "CC-BY-4.0" in text
    assert "abc123" in text
    assert "0123456789abcdef" in text
    assert "* `images` is repeated: 1.50 epochs" in text


def test_tables_of_the_card_have_one_width_each():
    lines = card(counted(), recipe()).splitlines()
    found: list[list[str]] = [[]]
    for text in lines:
        if text.startswith("|"):
            found[-1].append(text)
        elif found[-1]:
            found.append([])
    assert len(found) >= 7
    for table in filter(None, found):
        assert len({row.replace("\\|", "").count("|") for row in table}) == 1, table


HOSTILE = "x|<script>alert(1)</script>\n# heading [a](javascript:b) `c`"


def test_hostile_text_stays_in_its_cell():
    assert "\n" not in markdown_cell(HOSTILE)
    assert "<" not in markdown_cell(HOSTILE)
    assert "|" not in markdown_cell(HOSTILE).replace("&#124;", "")
    lines = [line("cauldron/ai2d/0", "images", 60, 10, tags=[HOSTILE], subset=HOSTILE)]
    rows = packed([[("cauldron/ai2d/0", 60, 10, [])]])
    found = facts(rows, index(lines), shard="train-00000.arrow")
    text = card(stats(lines_in(index(lines)), [found], recipe()), recipe(description=HOSTILE))
    assert "<script>" not in text


def test_the_table_of_a_build_fits_100_columns_and_says_what_to_run_next():
    found = counted()
    found["components"]["a_component_with_a_very_long_name"] = {
        **found["components"]["images"],
        "rejected": {f"a_rule_of_long_name_{k}": 10**k for k in range(9)},
    }
    text = terminal_table(found, output="out/by hand")
    assert max(map(len, text.splitlines())) <= 100
    assert "trainer config=tiny data='out/by hand'" in text
    assert "keep 1, small_image 1" in text
    assert "80.00 % full" in text


@pytest.mark.parametrize("streaming", [False, True])
def test_load_dataset_reads_the_folder_by_the_card(tmp_path, streaming, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "by_hand"
    (folder / "shards").mkdir(parents=True)
    for name, rows in zip(("train-00000", "train-00001", "val-00000"), (*TRAIN, VAL), strict=True):
        tables.write(packed(rows), folder / "shards" / f"{name}.arrow")
    tables.write(index(LINES).to_arrow(), folder / "index.arrow")
    (folder / "README.md").write_text(card(counted(), recipe()))
    (folder / "stats.json").write_text("{}")
    loaded = datasets.load_dataset(str(folder), streaming=streaming)
    assert set(loaded) == {"train", "val"}
    rows = list(loaded["train"])
    assert [row["sample_ids"] for row in rows] == [
        ["cauldron/ai2d/0", "cauldron/ai2d/1"],
        ["smoltalk/all/0", "cauldron/ai2d/1"],
    ]
    assert rows[0]["images"][0].size == (8, 8)
    assert rows[0]["grids"] == [{"rows": 2, "cols": 2}, {"rows": 0, "cols": 0}]
    lines = datasets.load_dataset(str(folder), "index", split="train", streaming=streaming)
    assert [row["id"] for row in lines] == [row["id"] for row in LINES]
