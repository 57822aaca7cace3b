"""Benchmarks of sweeps and searches: what is refused of them, and what is trained on."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests.trainer.shards import pack, png, sample, write
from trainer.ablation.benchmarks import benchmark_score, cases_of, read_benchmarks, trained_on
from trainer.ablation.runs import plan_run, train_run
from trainer.data.shards import open_mixture
from trainer.loop import train

OPTIONS = "index\tquestion\tanswer\tA\tB\n1\tWhich?\t1\tred\tblue\n2\tWhich?\t1\tone\ttwo\n"


def tsv(folder: Path, text: str, name: str = "vqa") -> Path:
    file = folder / f"{name}.tsv"
    file.write_text(text)
    return file


def test_options_count_from_where_the_sweep_says(tmp_path: Path) -> None:
    """Answers that are all 1 may be the first option or the second."""
    file = str(tsv(tmp_path, OPTIONS))
    with pytest.raises(ValueError, match=r"(?s)where.vqa: .*choices_from=0 or choices_from=1"):
        read_benchmarks({"vqa": {"file": file, "metric": "multiple_choice"}}, where="where")
    for first, letter in ((0, "B"), (1, "A")):
        said = {"file": file, "metric": "multiple_choice", "choices_from": first}
        asked = read_benchmarks({"vqa": said}, where="where")["vqa"]
        assert [case.gold for case in cases_of(asked)] == [[letter], [letter]]


def test_a_score_is_asked_once_of_the_options_as_they_are_counted(settings, tmp_path: Path) -> None:
    run = plan_run(settings(steps=1), tmp_path / "runs")
    train_run(run, train)
    said = {"file": str(tsv(tmp_path, OPTIONS)), "metric": "multiple_choice", "choices_from": 0}
    asked = read_benchmarks({"vqa": said}, where="where")["vqa"]
    both = (asked, replace(asked, choices_from="1"))
    scores = [benchmark_score(run, each) for each in both]
    assert len(list(run.folder.glob("scored-*.json"))) == 2
    assert scores == [
        benchmark_score(run, each) for each in (asked, replace(asked, choices_from="1"))
    ]
    assert sum(scores) in (0, 1)  # an answer is the first option, the second, or none


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([1], "expected names and their files"),
        ({"vqa": "vqa.tsv"}, "expected {file: FILE.tsv"),
        ({"vqa": {"file": "FILE", "metrc": "exact"}}, "Did you mean 'metric'"),
        ({"vqa": {"file": "none.tsv"}}, "'none.tsv' is no file"),
        ({"vqa": {"file": "FILE", "metric": "exakt"}}, "Did you mean 'exact'"),
        ({"vqa": {"file": "FILE", "choices_from": 2}}, "expected auto, 0 or 1"),
        ({"vqa": {"file": "FILE", "metric": "yes_no"}}, "the metric yes_no is constant"),
        ({"vqa": {"file": "BLANK"}}, "the metric exact is constant"),
    ],
)
def test_a_mistake_is_one_message(said, message: str, tmp_path: Path) -> None:
    files = {
        "FILE": tsv(tmp_path, "index\tquestion\tanswer\n1\tWhich?\tred\n"),
        "BLANK": tsv(tmp_path, "index\tquestion\tanswer\n1\tWhich?\t\n", "blank"),
    }
    if isinstance(said, dict):
        for lines in said.values():
            if isinstance(lines, dict):
                lines["file"] = str(files.get(lines["file"], lines["file"]))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_benchmarks(said, where="where")


def test_what_is_trained_on_is_found_by_pixels_and_by_turns(tmp_path: Path) -> None:
    shown, text = sample(1, "image"), sample(2, "text")
    mixture = write(tmp_path / "m", pack([shown, text]), val=pack([sample(3, "image")]))
    data = shown["images"][0]["bytes"]

    again = io.BytesIO()
    Image.open(io.BytesIO(data)).save(again, "BMP")  # other bytes, the same pixels
    other = png((9, 9, 9), 30, 20, 5)
    held = sample(3, "image")["images"][0]["bytes"]
    rows = [
        ("same", data, "Anything?"), ("bmp", again.getvalue(), "What?"), ("other", other, "What?"),
        ("held", held, "What?"), ("turn", None, "what comes after 2"),
        ("near", None, "What comes after 2 and 3?"),
    ]  # fmt: skip
    lines = "".join(
        f"{name}\t{base64.b64encode(image).decode() if image else ''}\t{question}\tx\n"
        for name, image, question in rows
    )
    file = tsv(tmp_path, "index\timage\tquestion\tanswer\n" + lines)
    asked = read_benchmarks({"vqa": {"file": str(file)}}, where="where")["vqa"]
    assert trained_on(cases_of(asked), open_mixture(str(mixture))) == ["same", "bmp", "turn"]
