"""An answer of a benchmark is an option, however it is written, or the file is refused."""

from pathlib import Path

import pytest

from tests.trainer.evaluation.conftest import write_tsv
from trainer.evaluation.benchmark import read, scores
from trainer.evaluation.choices import Asked, right_options

FOUR = {"A": "a cat", "B": "a dog", "C": "Rome", "D": "7"}


def right(*answers: str, choices_from: str = "auto", options: dict[str, str] = FOUR) -> list[str]:
    rows = [Asked(f"index {n}", [answer], options) for n, answer in enumerate(answers)]
    return [one for (one,) in right_options(rows, choices_from=choices_from, file="f.tsv")]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["B", "b", "(B)", "b.", "B)"], ["B", "B", "B", "B", "B"]),
        (["a dog", " a dog ", "A dog.", "rome"], ["a dog", " a dog ", "B", "C"]),
        (["7"], ["7"]),  # the text of an option
        (["0", "3", "1"], ["A", "D", "B"]),
        (["1", "4", "2"], ["A", "D", "B"]),
        (["1.0", "4.0", "C"], ["A", "D", "C"]),
        (["0", "a dog"], ["A", "a dog"]),
    ],
)
def test_letters_texts_and_numbers_from_0_or_1(answers: list[str], expected: list[str]) -> None:
    assert right(*answers) == expected


def test_an_answer_that_is_the_very_text_of_an_option_is_that_option() -> None:
    """Though it is another one's letter, in lower case."""
    articles = {"A": "an", "B": "the", "C": "some", "D": "a"}
    assert right("a", "A", "(a)", "the", options=articles) == ["a", "A", "A", "the"]
    assert right("b", options={"A": "b", "B": "a"}) == ["b"]


def test_what_the_user_says_is_how_numbers_count() -> None:
    assert right("1", "2", choices_from="0") == ["B", "C"]
    assert right("1", "2", choices_from="1") == ["A", "B"]
    digits = {"A": "2", "B": "3", "C": "1"}
    assert right("1", "2", options=digits) == ["1", "2"]
    assert right("1", "2", options=digits, choices_from="1") == ["A", "B"]


@pytest.mark.parametrize(
    ("answers", "choices_from", "message"),
    [
        (["1", "2"], "auto", r"f\.tsv: .*none of them tells.*\n.*'1' for 4 options in 'index 0'"),
        (["0", "4"], "auto", "count neither from 0 nor from 1"),
        (["4"], "0", "index 0: answer: no option is meant"),
        (["0"], "1", "index 0: answer: no option is meant"),
        (["0", "5"], "auto", "index 1: answer: no option is meant"),
        (["E"], "auto", r"index 0: answer: no option.*\nfound: 'E'\nexpected: a letter of A"),
        (["A", ""], "auto", r"index 1: .*\nfound: empty"),
        (["a bird"], "auto", "found: 'a bird'"),
        (["B"], "2", "choices_from=2: expected auto, 0 or 1"),
    ],
)  # fmt: skip
def test_what_would_score_every_answer_wrong_is_refused(
    answers: list[str], choices_from: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        right(*answers, choices_from=choices_from)


def test_a_text_that_other_rows_count_is_refused() -> None:
    rows = [
        Asked("index 0", ["0"], {"A": "x", "B": "y"}),
        Asked("index 1", ["1"], {"A": "1", "B": "2"}),
    ]
    with pytest.raises(
        ValueError, match=r"index 1: answer '1' is option A by its text and B count"
    ):
        right_options(rows, choices_from="auto", file="f.tsv")
    assert right_options(rows, choices_from="0", file="f.tsv") == [["A"], ["B"]]


def test_a_file_that_counts_from_1_is_scored_right(tmp_path: Path) -> None:
    rows = [
        {"index": str(n), "question": "?", "answer": str(n), "A": "red", "B": "blue", "C": "green"}
        for n in (1, 2, 3)
    ]
    cases = read(write_tsv(tmp_path / "x.tsv", rows))
    assert scores(cases, ["A", "blue", "(C)"], "multiple_choice") == [1, 1, 1]
    assert scores(cases, ["B", "C", "A"], "multiple_choice") == [0, 0, 0]
    assert all(case.restated for case in cases)
    first = read(tmp_path / "x.tsv", limit=1)  # the whole file tells, whatever is asked of it
    assert [case.gold for case in first] == [["A"]]


def test_a_row_that_ends_early_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("index\tquestion\tanswer\n1\tWhat?\tred\n2\tWhat?\n")
    with pytest.raises(ValueError, match="index 2: the row ends before the column 'answer'"):
        read(tmp_path / "x.tsv")
