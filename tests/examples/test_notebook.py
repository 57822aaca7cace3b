"""docs/notebook.ipynb runs as it stands, and its cells show what its texts say they do."""

import json
from pathlib import Path

import pytest

from tests.examples.notebooks import cell_value, run

FILE = Path(__file__).parents[2] / "docs" / "notebook.ipynb"


def test_the_notebook_runs_and_shows_tables_plots_and_answers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    image, plan, made, index, sample, dataset, faults, trained, answers = run(FILE)
    assert image.size == sample.size == (64, 64)
    assert plan.mixture == "shapes"
    assert "<pre>shapes:" in plan._repr_html_()
    assert "<td>shapes</td>" in made._repr_html_()
    assert made.recipe["mixture"]["seed"] == 7
    counts = dict(zip(index["rule"].to_list(), index["len"].to_list(), strict=True))
    assert counts["empty_answer"] == 1
    assert sum(counts.values()) == 80
    assert len(dataset) == made.stats["packing"]["train"]["rows"]
    assert faults == []
    losses = [line["mean_loss"] for line in trained.log if "mean_loss" in line]
    assert losses[-1] < losses[0]
    assert trained._repr_html_().count("<svg") == 5
    assert len(answers) == 1


def test_the_file_is_a_notebook_without_outputs():
    held = json.loads(FILE.read_text())
    assert (held["nbformat"], held["nbformat_minor"]) == (4, 5)
    cells = held["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        assert cell["cell_type"] == "markdown" or cell["outputs"] == []


def test_a_cell_that_fails_is_named(tmp_path):
    assert cell_value("x = 2\nx + 1", {}) == 3
    assert cell_value("x = 2", {}) is None
    cell = {"cell_type": "code", "id": "third", "source": ["1 / 0"]}
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": [cell]}))
    with pytest.raises(ZeroDivisionError) as caught:
        run(tmp_path / "n.ipynb")
    assert caught.value.__notes__ == ["n.ipynb, cell third:\n1 / 0"]
