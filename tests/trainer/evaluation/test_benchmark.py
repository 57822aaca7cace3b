"""Checkpoints are judged by the reference formulas, on VLMEvalKit's layout."""

import base64
import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.conftest import Settings
from tests.trainer.shards import COLOURS, png
from trainer.evaluation import metrics
from trainer.evaluation.answer import Question, answers, open_checkpoint
from trainer.evaluation.benchmark import (
    default_metric,
    evaluate_command,
    read,
    scores,
    shuffled,
    summary,
)
from trainer.loop import train

NO: dict[str, str] = {}


@given(st.text(max_size=12), st.text(max_size=12), st.text(max_size=12))
def test_edit_distance_is_a_distance(a: str, b: str, c: str) -> None:
    d = metrics.edit_distance
    assert d(a, a) == 0
    assert d(a, b) == d(b, a)
    assert d(a, c) <= d(a, b) + d(b, c)
    assert abs(len(a) - len(b)) <= d(a, b) <= max(len(a), len(b))


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("Hello World", ["hello world"], 1.0),
        ("kitten", ["sitting"], 1 - 3 / 7),  # three edits of seven letters: distance below 0.5
        ("abcd", ["abef"], 0.0),  # distance exactly 0.5 counts as wrong
        ("abcde", ["abfgh", "abcdx"], 1 - 1 / 5),  # the best of the gold answers
        ("", ["something"], 0.0),
    ],
)
def test_anls(answer: str, gold: list[str], expected: float) -> None:
    assert metrics.anls(answer, gold, NO) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("105", "100", 1.0),  # 5 % off is still right
        ("105.1", "100", 0.0),
        ("95", "100", 1.0),
        ("94.9", "100", 0.0),
        ("0.5", "50%", 1.0),  # per cent is a fraction
        ("1,000", "1000", 1.0),
        ("-3", "3", 0.0),
        ("Germany", "germany", 1.0),
        ("Germany", "France", 0.0),
        ("0", "0", 1.0),
        ("0.01", "0", 0.0),
        ("many", "3", 0.0),
    ],
)
def test_relaxed_accuracy(answer: str, gold: str, expected: float) -> None:
    assert metrics.relaxed(answer, [gold], NO) == expected


OPTIONS = {"A": "a cat", "B": "a dog", "C": "2", "D": "a big dog"}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"), ("B.", "B"), ("(B)", "B"), ("B) a dog", "B"), ("The answer is C.", "C"),
        ("answer: (D)", "D"), ("a dog", "B"), ("A cat.", "A"), ("2", "C"),
        ("A big surprise", ""), ("I do not know", ""), ("", ""),
        ("I think it is (A)", "A"), ("there is a cat here", "A"),
    ],
)  # fmt: skip
def test_the_option_that_an_answer_states(answer: str, letter: str) -> None:
    assert metrics.chosen_letter(answer, OPTIONS) == letter
    assert metrics.multiple_choice(answer, [letter or "B"], OPTIONS) == float(bool(letter))


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("Yes, it is.", "Yes", 1),
        ("No", "Yes", 0),
        ("Nothing", "No", 0),
        ("not yes but no", "No", 0),
    ],
)
def test_yes_and_no(answer: str, gold: str, expected: int) -> None:
    assert metrics.yes_no(answer, [gold], NO) == expected


def test_exact_match_forgives_case_and_punctuation_only() -> None:
    assert metrics.exact(" Red. ", ["red"], NO) == 1
    assert metrics.exact("dark red", ["red"], NO) == 0


def encoded(name: str, seed: int) -> str:
    return base64.b64encode(png(COLOURS[name], 40, 30, seed)).decode()


def write(file: Path, rows: list[dict[str, str]]) -> Path:
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return file


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    rows = [
        {"index": "1", "image": encoded("red", 1), "question": "Colour?", "answer": "red"},
        {"index": "2", "image": "1", "question": "Which?", "answer": "['red', 'dark red']"},
        {"index": "3", "image": encoded("blue", 2), "question": "Colour?", "answer": "blue"},
        {"index": "4", "image": str([encoded("blue", 2), encoded("red", 1)]), "question": "Both?",
         "answer": "blue"},
    ]  # fmt: skip
    rows = [row | {"category": "one" if row["index"] < "3" else "two"} for row in rows]
    return write(tmp_path / "colours.tsv", rows)


def test_the_layout_is_read(bench: Path) -> None:
    cases = read(bench)
    assert [len(case.question.images) for case in cases] == [1, 1, 1, 2]
    assert cases[1].question.images == cases[0].question.images
    assert cases[1].gold == ["red", "dark red"]
    assert default_metric(cases) == "exact"
    assert len(read(bench, limit=2)) == 2


def test_options_and_hints_are_part_of_the_question(tmp_path: Path) -> None:
    row = {"index": "1", "image": encoded("red", 1), "question": "Which?", "hint": "Look.",
           "A": "red", "B": "blue", "C": "", "answer": "A"}  # fmt: skip
    (case,) = read(write(tmp_path / "x.tsv", [row]))
    assert case.options == {"A": "red", "B": "blue"}
    assert case.question.text.startswith("Hint: Look.\nQuestion: Which?\nOptions:\nA. red\nB. blue")
    assert default_metric([case]) == "multiple_choice"
    row |= {"A": "", "B": "", "answer": "Yes"}
    assert default_metric(read(write(tmp_path / "x.tsv", [row]))) == "yes_no"


def test_images_beside_the_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(COLOURS["red"], 40, 30, 1))
    row = {"index": "1", "image_path": "a.png", "question": "Colour?", "answer": "red"}
    (case,) = read(write(tmp_path / "x.tsv", [row]))
    assert case.question.images == [(tmp_path / "a.png").read_bytes()]
    write(tmp_path / "x.tsv", [row | {"image_path": "b.png"}])
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
        read(write(tmp_path / "bad.tsv", [row]))


@pytest.fixture(scope="module")
def checkpoint(mixture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("answers") / "run"
    return train(Settings(mixture, run)(steps=2))


def test_answers_do_not_depend_on_the_batch(checkpoint: Path) -> None:
    model, tokenizer, encoding, _ = open_checkpoint(str(checkpoint))
    image_record = png(COLOURS["red"], 40, 30, 1)
    questions = [
        Question(text="Which colour is it?", images=[image_record]),
        Question(text="What comes after 3?"),
        Question(
            text="Which colours are these?", images=[image_record, png(COLOURS["blue"], 70, 30, 2)]
        ),
    ]
    settings = {"encoding": encoding, "max_new_tokens": 6}
    alone = [answers(model, tokenizer, [q], batch_size=1, **settings)[0] for q in questions]
    assert answers(model, tokenizer, questions, batch_size=3, **settings) == alone


def test_evaluate_writes_scores_beside_the_checkpoint(
    checkpoint: Path, bench: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for which in ("own", "shuffled"):
        arguments = [
            str(checkpoint),
            f"bench={bench}",
            f"images={which}",
            "max_new_tokens=4",
        ]
        assert evaluate_command(arguments) == 0
    out = checkpoint / "evaluations"
    result = json.loads((out / "colours.json").read_text())
    assert result["questions"] == 4
    assert result["metric"] == "exact"
    assert 0 <= result["score"] <= 1
    assert json.loads((out / "colours-shuffled.json").read_text())["images"] == "shuffled"
    with (out / "colours.tsv").open() as stream:
        lines = list(csv.DictReader(stream, delimiter="\t"))
    assert [line["index"] for line in lines] == ["1", "2", "3", "4"]
    ready = json.loads((out / "colours.vlmevalkit.json").read_text())
    (model,) = ready["model"].values()
    assert model == {"class": "SmolVLM2", "model_path": str(checkpoint.resolve())}
    assert "colours: exact" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench=x.tsv"], "expected a checkpoint"),
        (["run", "bench=x.tsv", "metrik=exact"], "unknown key 'metrik'. Did you mean 'metric'"),
        (["run", "bench=x.tsv", "limit=few"], "limit=few: expected a whole number"),
        (["run", "bench=x.tsv", "images=none"], "expected own or shuffled"),
        (["run"], "bench is not set"),
        (["run", "bench=here/x.tsv", "output=here"], "output=here would overwrite here/x.tsv"),
    ],
)
def test_mistakes_in_evaluate_are_told(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_command(arguments)


def test_the_best_checkpoint_follows_the_selected_benchmarks(
    settings: Settings, bench: Path, tmp_path: Path
) -> None:
    row = {"index": "1", "question": "2?", "answer": "Yes"}
    other = write(tmp_path / "other.tsv", [row])
    select = f"{{colours: {{file: {bench}, weight: 3}}, other: {{file: {other}, metric: yes_no}}}}"
    folder = train(settings(steps=2, select=select))
    lines = (folder.parent / "log.jsonl").read_text().splitlines()
    found = json.loads(lines[-1])["metrics"]
    expected = (3 * found["benchmark/colours"] + found["benchmark/other"]) / 4
    assert found["selected"] == pytest.approx(expected)
    assert (folder.parent / "best").resolve() == folder.resolve()
