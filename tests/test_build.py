"""The whole build: what stands in a finished mixture, again, after a kill, with any workers."""

import glob
import json
import random
import signal
import time
from pathlib import Path

import polars as pl
import pytest

from pipelines.__main__ import main
from pipelines.engine import tables
from tests.building import build, digests, words


def stages_run(mix: Path) -> set[str]:
    return set(json.loads((mix / "stats.json").read_text())["timings"]["stages"])


def index_of(mix: Path) -> pl.DataFrame:
    return pl.DataFrame(tables.read(mix / "index.arrow"))


def test_every_sample_read_is_one_line_with_its_verdict(mix):
    index = index_of(mix)
    assert len(index) == 150
    assert index["id"].is_unique().all()
    reasons = dict(index.filter(component="images")["rule"].value_counts().iter_rows())
    assert reasons.pop("keep") == 15
    assert reasons.pop(None) == 90 - 15 - 3
    assert reasons == {"undecodable_image": 1, "empty_answer": 1, "duplicate_sample": 1}
    rejected = index.filter(pl.col("rule").is_not_null())
    assert (rejected["copies"] == 0).all()


def test_shards_hold_what_the_index_says(mix):
    index = index_of(mix)
    seen: dict[str, int] = {}
    where: dict[tuple[str, str], set[int]] = {}
    for name in tables.listing(mix / "shards"):
        split, number = name.removesuffix(".arrow").split("-")
        for ids in tables.read(mix / "shards" / name)["sample_ids"].to_pylist():
            for i in ids:
                seen[i] = seen.get(i, 0) + 1
                where.setdefault((split, i), set()).add(int(number))
    used = index.filter(pl.col("copies") > 0)
    assert seen == dict(used.select("id", "copies").iter_rows())
    for line in used.iter_rows(named=True):
        assert sorted(where[line["split"], line["id"]]) == line["shard"]


def test_ratios_lie_within_one_sample_of_the_target(mix):
    train = index_of(mix).filter(split="train")
    tokens = train.select(
        "component", pl.col("num_tokens"), total=pl.col("num_tokens") * pl.col("copies")
    )
    whole = tokens["total"].sum()
    for name, ratio in (("images", 0.7), ("text", 0.3)):
        mine = tokens.filter(component=name)
        assert abs(mine["total"].sum() - ratio * whole) <= tokens["num_tokens"].max()


def test_a_literal_image_token_stays_text(mix):
    from tokenization.vocab import load_tokenizer

    tokenizer = load_tokenizer(str(mix / "tokenizer"))
    marker = "cauldron/ai2d/000013"
    for name in tables.listing(mix / "shards"):
        for row in tables.read(mix / "shards" / name).to_pylist():
            if marker in row["sample_ids"]:
                at = row["sample_ids"].index(marker)
                start = sum(row["seq_lengths"][:at])
                ids = row["input_ids"][start : start + row["seq_lengths"][at]]
                text = tokenizer.decode([i for i in ids if i < 49152 or i == 49279])
                assert "What does <image> mean in HTML?" in text
                return
    assert index_of(mix).filter(id=marker)["split"].item() == "val"


def test_again_does_nothing_and_says_so(mix, world, capsys):
    written = lambda: {p: p.stat().st_mtime_ns for p in mix.rglob("*")}
    before = written()
    build(world, mix.parent, f"output={mix}")
    assert "nothing to do" in capsys.readouterr().out
    assert written() == before


def test_a_changed_ratio_redoes_only_pick_and_pack(world, tmp_path):
    mix = build(world, tmp_path)
    words = ["components.images.ratio=0.6", "components.text.ratio=0.4"]
    build(world, tmp_path, "overwrite=true", *words)
    assert stages_run(mix) == {"pack", "facts"}
    build(world, tmp_path, "overwrite=true", "encoding.system_prompts=none")
    assert stages_run(mix) == {"encode", "pack", "facts"}
    build(world, tmp_path, "overwrite=true", "filters.small_image.min_side=50")
    assert stages_run(mix) == {"judge", "cost", "pack", "facts"}
    assert index_of(mix).filter(rule="small_image").height == 30


def test_another_recipe_is_refused_with_the_field_that_changed(mix, world, capsys):
    before = digests(mix)
    assert main(words(world, mix.parent, f"output={mix}", "seed=4")) == 2
    said = capsys.readouterr().err
    assert "mixture.seed: was 3, now 4" in said
    assert "overwrite=true" in said
    assert "Traceback" not in said
    assert digests(mix) == before


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_one_and_two_workers_and_none_give_the_same_bytes(mix, world, tmp_path, python, workers):
    done = python.run("-m", "pipelines", *words(world, tmp_path, f"workers={workers}"))
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "mix") == digests(mix)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_build_resumes_to_the_same_bytes(mix, world, tmp_path, python, seed):
    rng = random.Random(seed)
    kills = 0
    for _ in range(3):
        process = python.start("-m", "pipelines", *words(world, tmp_path))
        wanted = rng.randint(1, 9)  # files to wait for: the kill comes somewhere in the build
        while process.poll() is None:
            made = glob.glob("**/*.arrow", root_dir=tmp_path, recursive=True)  # noqa: PTH207 (a folder may go)
            if len(made) >= wanted * (kills + 1):
                process.send_signal(signal.SIGKILL)
                kills += process.wait() == -signal.SIGKILL
                break
            time.sleep(0.005)
    assert kills
    assert python.run("-m", "pipelines", *words(world, tmp_path)).returncode == 0
    assert digests(tmp_path / "mix") == digests(mix)
    assert not list((tmp_path / "work").glob(".driver.*"))


def test_stats_say_what_every_part_took_and_what_a_rule_costs(mix):
    timings = json.loads((mix / "stats.json").read_text())["timings"]
    index = index_of(mix)
    for stage in ("ingest", "judge", "encode"):
        mine = [task for task in timings["tasks"] if task["stage"] == stage]
        assert sorted(task["part"] for task in mine) == sorted(index["part"].unique())
        rows = dict(index.group_by("part").len().iter_rows())
        assert {task["part"]: task["rows"] for task in mine} == rows
    sizes = [task["bytes"] for task in timings["tasks"] if task["stage"] == "pack"]
    assert sorted(sizes) == sorted(p.stat().st_size for p in (mix / "shards").iterdir())
    assert all(task["seconds"] > 0 < task["peak_bytes"] for task in timings["tasks"])
    assert timings["seconds"] >= sum(stage["seconds"] for stage in timings["stages"].values())
    assert set(timings["rules"]) == {"images", "text"}
    for costs in timings["rules"].values():
        assert set(costs) == {"empty_answer", "duplicate_sample"}
        assert all(0 <= seconds < timings["seconds"] for seconds in costs.values())


def test_load_dataset_reads_the_folder(mix):
    from datasets import load_dataset

    data = load_dataset(str(mix), cache_dir=str(mix.parent / "cache"))
    rows = {
        split: sum(
            tables.num_rows(mix / "shards" / name)
            for name in tables.listing(mix / "shards")
            if name.startswith(split)
        )
        for split in ("train", "val")
    }
    assert {split: part.num_rows for split, part in data.items()} == rows
    row = next(row for row in data["train"] if row["images"])
    assert row["images"][0].size[1] in (64, 96)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("components.text.source=smoltolk", "Did you mean 'smoltalk'"),
        ("filters.smal_image.min_side=3", "Did you mean 'small_image'"),
        ("filters.small_image.min_sied=3", "Did you mean 'min_side'"),
        ("components.text.ratoi=0.3", "Did you mean 'ratio'"),
        ("components.text.ratio=0.4", "ratios sum to 1.1"),
        ("components.text.data=nowhere/at/all", "nowhere/at/all"),
        ("components.text.subsets=[everyday]", "everyday-conversations"),
        ("tokens=1_000_000_000", "lower tokens to"),
        ("components.images.source=smoltalk", "messages"),
        ("seed=many", "seed"),
    ],
)
def test_a_mistake_is_one_message_and_exit_status_2(world, mix, tmp_path, capsys, change, expected):
    assert main(words(world, tmp_path, f"work={mix}/../work", change)) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert "Traceback" not in said
    assert any(line.startswith("pipelines build: ") for line in said.splitlines())


def test_an_unwritable_output_is_said_so(world, tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")
    assert main(words(world, tmp_path / "file", f"work={tmp_path}/w")) == 2
    said = capsys.readouterr().err
    assert "file/mix" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["biuld"], "Did you mean 'build'"),
        (["build"], "mixture=NAME"),
        (["build", "mixture=nothing"], "nothing"),
        (["build", "mixture=quickstart", "workers=two"], "workers=two"),
        (["build", "quickstart", "loud"], "loud"),
    ],
)
def test_a_wrong_word_on_the_command_line_is_explained(capsys, words, expected):
    assert main(words) == 2
    assert expected in capsys.readouterr().err
