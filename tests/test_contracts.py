"""ARCHITECTURE, section 5, executable: files, columns and invariants of a finished mixture."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import yaml

from mixtures.pick import INDEX
from pipelines.__main__ import main
from pipelines.check import faults
from pipelines.engine import tables
from pipelines.report.finished import open_finished
from pipelines.report.page import report
from tests.building import build, digests
from tokenization.schema import PACKED
from tokenization.vocab import load_tokenizer


def shards(mix: Path) -> list[str]:
    return tables.listing(mix / "shards")


def test_a_finished_mixture_holds_these_files(mix, world, tmp_path):
    looked_at = build(world, tmp_path, f"work={mix}/../work", "report=true")
    names = {path.name for path in looked_at.iterdir() if not path.name.startswith(".")}
    assert names == {
        "README.md", "report.html", "recipe.json", "stats.json", "index.arrow", "mixture.yaml",
        "tokenizer", "shards",
    }  # fmt: skip
    assert "train-00000.arrow" in shards(looked_at)
    assert "val-00000.arrow" in shards(looked_at)
    assert looked_at.joinpath("report.html").read_text() == report(open_finished(str(mix)))
    with_report, without = digests(looked_at), digests(mix)
    told = {name for name in with_report if with_report[name] != without.get(name)}
    assert told == {"README.md", "report.html", "recipe.json"}
    assert "report.html" in (looked_at / "README.md").read_text()
    assert "report.html" not in (mix / "README.md").read_text()
    assert "report.html" not in without


def test_index_columns_begin_as_contracted(mix):
    names = ["id", "source", "component", "subset", "modality", "split", "rule", "num_tokens"]
    names += ["num_learned", "num_crops", "copies", "shard", "part", "row"]
    assert INDEX.names[: len(names)] == names
    assert tables.read(mix / "index.arrow").schema.equals(INDEX)


@pytest.mark.parametrize("split", ["train", "val"])
def test_packed_columns_and_their_arithmetic(mix, split):
    recipe = json.loads((mix / "recipe.json").read_text())
    encoding = recipe["mixture"]["encoding"]
    tokenizer = load_tokenizer(str(mix / "tokenizer"))
    image = tokenizer.convert_tokens_to_ids("<image>")
    never_learned = {image, tokenizer.pad_token_id, tokenizer.bos_token_id}
    never_learned |= set(range(49152, 49190))  # positions, global and fake image tokens
    for name in shards(mix):
        if not name.startswith(split):
            continue
        table = tables.read(mix / "shards" / name)
        assert table.schema.equals(PACKED)
        for row in table.to_pylist():
            ids, mask = np.array(row["input_ids"]), np.array(row["loss_mask"])
            assert len(ids) == len(mask) == sum(row["seq_lengths"]) <= encoding["seq_len"]
            assert len(row["seq_lengths"]) == len(row["sample_ids"])
            crops = sum(g["rows"] * g["cols"] + 1 for g in row["grids"])
            assert (ids == image).sum() == encoding["tokens_per_crop"] * crops
            assert len(row["images"]) == len(row["grids"])
            assert crops <= encoding["max_crops"]
            assert not never_learned & set(ids[mask].tolist())
            assert len(set(row["sample_ids"])) == len(row["sample_ids"])


def test_shards_are_memory_mappable_files(mix):
    with pa.memory_map(str(mix / "shards" / "train-00000.arrow")) as source:
        before = pa.total_allocated_bytes()
        table = pa.ipc.open_file(source).read_all()
        assert table.num_rows
        assert pa.total_allocated_bytes() - before < 100_000


def test_recipe_says_what_was_used(mix):
    recipe = json.loads((mix / "recipe.json").read_text())
    assert {"name", "fingerprint", "mixture", "sources", "packages"} <= set(recipe)
    assert recipe["sources"]["images"]["hub"] == "HuggingFaceM4/the_cauldron"
    resolved = yaml.safe_load((mix / "mixture.yaml").read_text())
    assert resolved["components"]["text"]["max_epochs"] == 1


def test_the_resolved_mixture_builds_the_same_mixture(mix, tmp_path):
    made = build(mix / "mixture.yaml", tmp_path, f"work={mix}/../work")
    again = json.loads((made / "recipe.json").read_text())
    assert again["fingerprint"] == json.loads((mix / "recipe.json").read_text())["fingerprint"]


def test_check_finds_no_fault_and_finds_planted_ones(mix, tmp_path, capsys):
    assert main(["check", str(mix), "rows=0"]) == 0
    assert "no fault" in capsys.readouterr().out
    bad = tmp_path / "bad"
    for path in mix.rglob("*"):
        if path.is_file():
            target = bad / path.relative_to(mix)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    index = pl.DataFrame(tables.read(bad / "index.arrow"))
    first = index.filter(pl.col("copies") > 0)["id"][0]
    wrong = index.with_columns(
        copies=pl.when(pl.col("id") == first).then(9).otherwise(pl.col("copies"))
    )
    tables.write(wrong.to_arrow().cast(INDEX), bad / "index.arrow")
    recipe = json.loads((bad / "recipe.json").read_text())
    recipe["mixture"]["seed"] = 99
    (bad / "recipe.json").write_text(json.dumps(recipe))
    shard = tables.read(bad / "shards" / "train-00000.arrow")
    masks = [[True] * len(mask) for mask in shard["loss_mask"].to_pylist()]
    column = shard.schema.get_field_index("loss_mask")
    shard = shard.set_column(column, "loss_mask", pa.array(masks, pa.list_(pa.bool_())))
    tables.write(shard, bad / "shards" / "train-00000.arrow")
    assert main(["check", str(bad), "rows=0"]) == 1
    found = list(faults(open_finished(str(bad)), rows=0))
    assert any("fingerprint" in fault for fault in found)
    assert any(first in fault and "9 copies" in fault for fault in found)
    assert any("train-00000.arrow" in fault for fault in found)


def test_clean_keeps_what_a_finished_mixture_references(world, tmp_path, capsys):
    build(world, tmp_path)
    build(world, tmp_path, f"output={tmp_path}/b", "encoding.media_intro_outro=false")
    assert main(["clean", f"work={tmp_path}/work"]) == 0
    assert "0 folders" in capsys.readouterr().out
    (tmp_path / "b" / "recipe.json").unlink()
    assert main(["clean", f"work={tmp_path}/work", "remove=true"]) == 0
    # The tokens of b's three subsets, and the counts of its shards.
    assert "4 folders removed" in capsys.readouterr().out
    build(world, tmp_path)
    assert "nothing to do" in capsys.readouterr().out


def test_a_build_without_a_report_leaves_none_of_another_mixture(world, mix, tmp_path):
    folder = build(world, tmp_path, f"work={mix}/../work", "report=true")
    assert (folder / "report.html").is_file()
    build(world, tmp_path, f"work={mix}/../work", "overwrite=true", "tokens=4000")
    assert not (folder / "report.html").exists()
    assert "report.html" not in (folder / "README.md").read_text()
    assert main(["check", str(folder)]) == 0
