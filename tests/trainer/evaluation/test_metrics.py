"""Answers are scored by the reference formulas."""

import pytest

from trainer.evaluation import metrics

NO: dict[str, str] = {}


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
