"""What Python programs call gives what the commands print; the commands give it as JSON."""

import inspect
import json
import subprocess
import sys

import polars as pl
import pytest
from PIL import Image

import pipelines
from pipelines.__main__ import PROGRAM, main
from pipelines.finished_mixture import FinishedMixture
from pipelines.report import notebook


@pytest.fixture(scope="module")
def opened(mix) -> FinishedMixture:
    return pipelines.open(mix, work=str(mix.parent / "work"))


def test_importing_it_is_light_and_every_name_is_there_and_typed():
    code = "import sys, pipelines; pipelines.__version__; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"polars", "pyarrow", "numpy", "ray", "torch"} & set(eval(done.stdout))
    assert set(pipelines.__all__) <= set(dir(pipelines))
    for name in pipelines.__all__:
        found = getattr(pipelines, name)
        if inspect.isfunction(found):
            assert found.__doc__
            signature = inspect.signature(found)
            assert signature.return_annotation is not inspect.Parameter.empty
            for given in signature.parameters.values():
                assert given.annotation is not inspect.Parameter.empty, f"{name}({given})"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pipelines.nothing


def test_a_mixture_is_loaded_with_overrides_as_on_the_command_line(world):
    first = pipelines.load(world, {"seed": 5, "components.text.ratio": 0.2,
                                   "components.images.ratio": 0.8})  # fmt: skip
    second = pipelines.load(
        str(world), ["seed=5", "components.text.ratio=0.2", "components.images.ratio=0.8"]
    )
    assert first == second
    assert first.mixture.seed == 5
    assert "ratio: 0.2" in first.to_yaml()
    assert "ratio: 0.2" in first._repr_html_()
    with pytest.raises(ValueError, match="loaded already"):
        pipelines.plan(first, overrides={"seed": 6})
    with pytest.raises(ValueError, match="Did you mean 'seed'"):
        pipelines.load(world, {"sed": 5})


def test_plan_and_probe_are_what_the_commands_print(world, mix, capsys):
    place = {"output": mix, "work": mix.parent / "work"}
    words = [str(world), *(f"{key}={path}" for key, path in place.items())]
    plan = pipelines.plan(world, **place)
    assert main(["plan", *words]) == 0
    assert capsys.readouterr().out == f"{plan}\n"
    assert main(["plan", *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads(json.dumps(plan.data()))
    assert told["can_be_finished"] == "yes"
    assert told["components"][0]["component"] == "images"
    assert plan.components["basis"].to_list() == ["measured", "measured"]
    probed = pipelines.probe(world, work=place["work"])
    assert main(["probe", *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["can_be_built"] is probed.can_be_built is True
    assert [f["subset"] for f in told["findings"]] == [f.subset for f in probed.findings]


def test_a_build_gives_the_mixture_that_open_gives(world, mix, opened, capsys):
    made = pipelines.build(world, output=mix, work=mix.parent / "work", workers=0)
    assert "nothing to do" in capsys.readouterr().out
    assert made.recipe == opened.recipe
    assert made.index.equals(opened.index)
    words = ["build", str(world), f"output={mix}", f"work={mix.parent}/work", "--workers", "0"]
    assert main([*words, "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == json.loads(json.dumps(made.data()))
    assert "nothing to do" in said.err
    assert main([*words, "quiet=true"]) == 0
    assert capsys.readouterr() == (f"{made}\n", "")


def test_rows_samples_and_datasets_are_those_of_the_shards(opened):
    packing = opened.stats["packing"]["train"]
    rows = opened.rows("train", columns=["sample_ids", "seq_lengths"])
    assert rows.num_rows == packing["rows"] == len(opened.dataset())
    assert sum(map(len, rows["sample_ids"].to_pylist())) == opened.stats["train"]["samples"]
    samples = list(opened.samples())
    assert [s.id for s in samples] == [i for row in rows["sample_ids"].to_pylist() for i in row]
    assert [s.num_tokens for s in samples] == [
        n for row in rows["seq_lengths"].to_pylist() for n in row
    ]
    lines = {line["id"]: line for line in opened.index.filter(pl.col("copies") > 0).to_dicts()}
    for sample in samples:
        assert (sample.component, sample.subset) == (
            lines[sample.id]["component"], lines[sample.id]["subset"],
        )  # fmt: skip
        assert sample.text.count("<image>") >= len(sample.images)
        assert all(isinstance(image, Image.Image) for image in sample.images)
        assert sample.learned
        assert all(text in sample.text for text in sample.learned)
    grids = opened.rows("train")["grids"].to_pylist()
    assert sum(len(s.images) for s in samples) == sum(map(len, grids)) > 0
    text = [s.id for s in opened.samples(component="text")]
    assert text == [s.id for s in samples if s.component == "text"]
    assert opened.dataset()[0]["sample_ids"] == rows["sample_ids"].to_pylist()[0]


def test_what_is_not_there_is_named(opened, tmp_path):
    with pytest.raises(ValueError, match=r"no rows in split 'test'\. Expected: train"):
        next(opened.samples("test"))
    with pytest.raises(ValueError, match="Did you mean 'images'"):
        next(opened.samples(component="image"))
    with pytest.raises(FileNotFoundError, match=r"no recipe\.json"):
        pipelines.open(tmp_path)


def test_check_diff_and_show_are_those_of_the_commands(opened, mix, capsys):
    assert opened.check(rows=1) == []
    assert main(["check", "--json", str(mix), "--rows", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["faults"] == []
    assert not opened.diff(opened)
    assert main(["diff", str(mix), str(mix), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"] == []
    assert main(["show", str(mix), "--row", "1"]) == 0
    assert capsys.readouterr().out == opened.show(row=1) + "\n"


def test_a_difference_is_numbers_too(world, mix, opened, tmp_path, capsys):
    capsys.readouterr()
    other = pipelines.build(world, overrides={"components.text.ratio": 0.1,
                            "components.images.ratio": 0.9}, output=tmp_path / "other",
                            work=mix.parent / "work", workers=0)  # fmt: skip
    found = opened.diff(other)
    assert found
    assert found.components["text"]["asked"] == [0.3, 0.1]
    assert any("ratio" in line for line in found.recipe)
    assert found.packing["train"]["rows"][0] == opened.stats["packing"]["train"]["rows"]
    assert main(["diff", str(mix), str(tmp_path / "other"), "json=true"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["components"]["text"]["asked"] == [0.3, 0.1]


def test_a_build_that_trains_says_json_alone_on_stdout(world, mix, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["build", str(world), f"output={mix}", f"work={mix.parent}/work", "workers=0"]
    assert main([*words, "train=none", "--json"]) == 2  # the trainer's own status
    said = capfd.readouterr()
    assert json.loads(said.out)["output"] == str(mix)
    assert "no such config" in said.err


def test_levels_tell_more_or_less(world, mix, tmp_path, capsys):
    words = ["build", str(world), f"output={tmp_path}/x", f"work={mix.parent}/work", "workers=0"]
    assert main([*words, "log_level=debug", "components.text.ratio=0.2",
                 "components.images.ratio=0.8"]) == 0  # fmt: skip
    assert "pack train-00000: " in capsys.readouterr().out


def test_sources_are_a_table(capsys):
    listed = pipelines.list_sources()
    assert main(["sources", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == listed["name"].to_list()
    assert main(["sources", "cauldron", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["repository"] == "HuggingFaceM4/the_cauldron"
    assert "the_cauldron" in str(pipelines.describe_source("cauldron"))


def test_a_notebook_shows_tables_and_plots_and_runs_nothing(opened):
    shown = opened._repr_html_()
    for name in opened.stats["components"]:
        assert f"<td>{name}</td>" in shown
    assert shown.count("<svg") >= 5
    assert "<script" not in shown
    assert notebook.table(["<b>"], [["<script>"]]).count("&lt;") == 2


def test_the_six_commands_have_json():
    assert {name for name, command in PROGRAM.commands.items() if command.json} >= {
        "build", "plan", "probe", "sources", "diff", "check",
    }  # fmt: skip
