"""Benchmarks are read in VLMEvalKit's layout; what was said is scored and kept."""

from pathlib import Path

import pytest

from tests.trainer.evaluation.conftest import base64_png, write_tsv
from tests.trainer.shards import COLOURS, png
from trainer.evaluation.benchmark import (
    default_metric,
    image_clusters,
    read,
    read_points,
    scores,
    shuffled,
    summary,
    write_answers,
)


def test_the_layout_is_read(bench: Path) -> None:
    cases = read(bench)
    assert [len(case.question.images) for case in cases] == [1, 1, 1, 2]
    assert cases[1].question.images == cases[0].question.images
    assert cases[1].gold == ["red", "dark red"]
    assert default_metric(cases) == "exact"
    assert len(read(bench, limit=2)) == 2


def test_options_and_hints_are_part_of_the_question(tmp_path: Path) -> None:
    row = {"index": "1", "image": base64_png("red", 1), "question": "Which?", "hint": "Look.",
           "A": "red", "B": "blue", "C": "", "answer": "A"}  # fmt: skip
    (case,) = read(write_tsv(tmp_path / "x.tsv", [row]))
    assert case.options == {"A": "red", "B": "blue"}
    assert case.question.text.startswith("Hint: Look.\nQuestion: Which?\nOptions:\nA. red\nB. blue")
    assert default_metric([case]) == "multiple_choice"
    row |= {"A": "", "B": "", "answer": "Yes"}
    assert default_metric(read(write_tsv(tmp_path / "x.tsv", [row]))) == "yes_no"


def test_questions_without_options_among_those_with_some_are_scored_too(tmp_path: Path) -> None:
    rows = [
        {"index": "1", "question": "Which?", "A": "red", "B": "blue", "answer": "B"},
        {"index": "2", "question": "How many?", "A": "", "B": "", "answer": "['4', 'four']"},
    ]
    cases = read(write_tsv(tmp_path / "x.tsv", rows))
    assert default_metric(cases) == "mixed"
    assert scores(cases, ["blue", "Four."], "mixed") == [1, 1]
    assert scores(cases, ["red", "B"], "mixed") == [0, 0]
    assert scores(cases, ["B", "4"], "multiple_choice") == [1, 0]  # nothing to choose from


def test_questions_about_videos_say_where_they_are_asked(tmp_path: Path) -> None:
    row = {"index": "1", "video": "a", "question": "Who?", "answer": "A"}
    message = r"(?s)about videos.* evaluate CHECKPOINT vlmevalkit=Films"
    with pytest.raises(ValueError, match=message):
        read(write_tsv(tmp_path / "Films.tsv", [row]))


def test_images_beside_the_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(COLOURS["red"], 40, 30, 1))
    row = {"index": "1", "image_path": "a.png", "question": "Colour?", "answer": "red"}
    (case,) = read(write_tsv(tmp_path / "x.tsv", [row]))
    assert case.question.images == [(tmp_path / "a.png").read_bytes()]
    write_tsv(tmp_path / "x.tsv", [row | {"image_path": "b.png"}])
    with pytest.raises(FileNotFoundError, match=r"index 1: image_path: .*b\.png does not exist"):
        read(tmp_path / "x.tsv")


def test_shuffled_images_are_never_the_own_ones(bench: Path) -> None:
    cases = read(bench)
    others = shuffled(cases, seed=0)
    for own, other in zip(cases, others, strict=True):
        assert own.question.text == other.question.text
        assert own.question.images != other.question.images
    with pytest.raises(ValueError, match="at least two different images"):
        shuffled(cases[:2], seed=0)


def test_scores_are_summed_by_category(bench: Path) -> None:
    cases = read(bench)
    points = scores(cases, ["red", "dark red", "red", "blue"], "exact")
    assert points == [1, 1, 0, 1]
    found = summary(cases, points, "exact")
    assert found["score"] == 0.75
    assert found["categories"] == {"one": 1.0, "two": 0.5}
    with pytest.raises(ValueError, match=r"metric=exakt: no such metric\. Did you mean 'exact'"):
        scores(cases, [], "exakt")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"index": "1", "question": "?"}, "no column 'answer'"),
        ({"index": "1", "image": "x" * 80, "question": "?", "answer": "a"}, "index 1: image"),
    ],
)
def test_bad_benchmarks_are_refused(tmp_path: Path, row: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(write_tsv(tmp_path / "bad.tsv", [row]))


def test_questions_that_share_an_image_are_one_cluster(tmp_path: Path) -> None:
    rows = [
        {"index": n, "image": image, "question": "?", "answer": "a", "category": category}
        for n, image, category in (
            ("1", base64_png("red", 1), "x"), ("2", "1", "x"), ("3", base64_png("blue", 2), "y"),
            ("4", "", "y"), ("5", "", "y"),
        )
    ]  # fmt: skip
    cases = read(write_tsv(tmp_path / "x.tsv", rows))
    a, b, c, d, e = image_clusters(cases)
    assert a == b
    assert len({a, c, d, e}) == 4
    found = summary(cases, [1, 1, 0, 1, 0], "exact")
    assert found["clusters"] == 4
    low, high = found["interval"]
    assert 0 < low < found["score"] == 0.6 < high < 1
    assert found["category_intervals"]["x"] == [0, 1]  # one image says nothing of others
    assert found["category_intervals"]["y"][1] < 1


def test_points_are_read_again_for_the_same_questions_only(bench: Path, tmp_path: Path) -> None:
    cases = read(bench)
    file = tmp_path / "step-000001" / "colours.tsv"
    assert read_points(file, cases) is None
    write_answers(file, cases, ["red", "a\tb", 'say "x"\n', ""], [1, 0.25, 0, 1])
    assert read_points(file, cases) == [1, 0.25, 0, 1]
    assert read_points(file, cases[:3]) is None
    assert read_points(file, cases[::-1]) is None
