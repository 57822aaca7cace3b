"""Which answers make a pair: every verdict, and no pair of a wrong answer before a right one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.align.rejection import Answered, Rule, distinct, outcome_of
from trainer.evaluation.metrics import METRICS, options_in, score_of

EXACT = Rule(right=1.0)


def said(*answers: tuple[str, float | None], finished: bool = True) -> list[Answered]:
    return [Answered(text=text, finished=finished, score=score) for text, score in answers]


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        (said(("a", 1.0), ("b", 0.0)), None),
        (said(("a", 1.0), ("a", 1.0)), "all_right"),
        (said(("b", 0.0), ("c", 0.9)), "all_wrong"),
        (said(("a", None), ("b", None)), "no_answer"),
        (said((" ", 1.0), ("", 0.0)), "no_answer"),
        (said(("a", 1.0), finished=False), "no_answer"),
        (said(("a", 1.0)) + said(("b", 0.0), finished=False), "all_right"),
    ],
)
def test_verdicts(answers: list[Answered], verdict: str | None) -> None:
    assert outcome_of(answers, "a", EXACT).verdict == verdict


def test_the_best_right_answer_stands_before_the_worst_wrong_one() -> None:
    answers = said(("fair", 0.8), ("bad", 0.1), ("best", 1.0), ("poor", 0.4), ("bad", 0.1))
    found = outcome_of(answers, "gold", Rule(right=0.8, pairs=9))
    assert [(b.text, w.text) for b, w in found.pairs] == [("best", "bad"), ("fair", "poor")]
    assert found.pass_rate == pytest.approx(2 / 5)
    assert found.score == pytest.approx((0.8 + 0.1 + 1.0 + 0.4 + 0.1) / 5)
    one = outcome_of(answers, "gold", Rule(right=0.8))
    assert [(b.text, w.text) for b, w in one.pairs] == [("best", "bad")]


def test_the_gold_answer_is_preferred_where_that_is_said_even_if_all_are_wrong() -> None:
    rule = Rule(right=1.0, chosen="gold", pairs=2)
    found = outcome_of(said(("b", 0.0), ("c", 0.0), ("d", 0.0)), "gold", rule)
    assert [(b.text, w.text, b.score) for b, w in found.pairs] == [
        ("gold", "b", None), ("gold", "c", None),
    ]  # fmt: skip
    assert outcome_of(said(("a", 1.0)), "a", rule).verdict == "all_right"


@given(
    st.lists(
        st.builds(
            Answered,
            text=st.sampled_from(["", " ", "a", "b", "c", "d"]),
            finished=st.booleans(),
            score=st.sampled_from([None, 0.0, 0.5, 1.0]),
        ),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from([0.5, 1.0]),
    st.integers(1, 4),
)
def test_pairs_hold_of_any_answers(answers: list[Answered], right: float, pairs: int) -> None:
    found = outcome_of(answers, "gold", Rule(right=right, pairs=pairs))
    assert (found.verdict is None) == bool(found.pairs)
    assert len(found.pairs) <= pairs
    for better, worse in found.pairs:
        assert better.score >= right > worse.score
        assert better.text.strip() != worse.text.strip() != ""
        assert better.finished
        assert worse.finished
    texts = [each.text for each in distinct(answers)]
    assert len(set(texts)) == len(texts)


def test_options_are_read_from_the_lines_of_a_question() -> None:
    asked = "Which animal is it?\nA. a cat\nB. a dog\n(C) a cow\nAnswer with the letter."
    assert options_in(asked) == {"A": "a cat", "B": "a dog", "C": "a cow"}
    assert options_in("A. alone") == options_in("A dog, or B. a cat?") == {}
    for gold in ("B", "a dog", "B. a dog", "(B)"):
        assert score_of("multiple_choice", "The answer is B", gold, question=asked) == 1.0
        assert score_of("mixed", "a cat", gold, question=asked) == 0.0
    assert score_of("mixed", "red.", "Red", question="Which colour?") == 1.0
    for metric in METRICS:
        assert score_of(metric, "yes", "yes", question="Is it?") in (0.0, 1.0)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("gold", ["Yes", "No"])
def test_the_gold_answer_is_right_by_every_metric_also_where_options_stand(metric, gold) -> None:
    asked = "Is it a cat?\nA. No\nB. Yes"
    assert score_of(metric, gold, gold, question=asked) == 1.0
    assert score_of(metric, "Yes" if gold == "No" else "No", gold, question=asked) == 0.0
