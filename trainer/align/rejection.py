"""Which of a checkpoint's own answers to a question make a pair: rejection sampling, pure.

answers to one question, each scored --pairs_of--> (better, worse), ... or a verdict

| verdict    | why a question makes no pair                                                    |
|------------|---------------------------------------------------------------------------------|
| no_gold    | nothing to score by: no answer of text ends its conversation, or no options     |
|            | stand in a question that is scored by them                                      |
| no_answer  | none of its answers has an end, a word in it, and a score                       |
| all_right  | nothing to reject                                                               |
| all_wrong  | nothing to prefer                                                               |
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

VERDICTS = ("no_gold", "no_answer", "all_right", "all_wrong")


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One of the answers to a question."""

    text: str
    finished: bool
    """False: it was cut. It is neither preferred nor rejected: its end would be taught."""
    score: float | None = None
    """Null: nobody scored it."""

    @property
    def counts(self) -> bool:
        """Whether it can be one of a pair."""
        return self.finished and bool(self.text.strip()) and self.score is not None


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a right answer is, and which pairs are made."""

    right: float
    """The least score of a right answer."""
    chosen: str = "sampled"
    """sampled: what is preferred is an answer of the checkpoint. gold: the mixture's."""
    pairs: int = 1
    """Of a question, at most."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a question."""

    verdict: str | None
    """Null: it makes pairs."""
    pairs: list[tuple[Answered, Answered]] = field(default_factory=list)
    """(better, worse)"""
    pass_rate: float | None = None
    """Share of its answers that are right; cut ones and empty ones are not."""
    score: float | None = None
    """The mean of those that are scored."""


def distinct(answers: Sequence[Answered]) -> list[Answered]:
    """Those that count, each text once, in their order."""
    return list({each.text: each for each in reversed(answers) if each.counts}.values())[::-1]


def outcome_of(answers: Sequence[Answered], gold: str, rule: Rule) -> Outcome:
    """The pairs of a question's answers: the best right ones before the worst wrong ones."""
    scores = [each.score for each in answers if each.score is not None]
    right = [each for each in answers if each.counts and (each.score or 0.0) >= rule.right]
    measured: dict[str, Any] = {
        "pass_rate": len(right) / len(answers) if scores else None,
        "score": sum(scores) / len(scores) if scores else None,
    }
    counted = distinct(answers)
    better = [each for each in counted if (each.score or 0.0) >= rule.right]
    worse = [each for each in counted if (each.score or 0.0) < rule.right]
    if not counted:
        return Outcome(verdict="no_answer", **measured)
    if not worse:
        return Outcome(verdict="all_right", **measured)
    if rule.chosen == "gold":
        better = [Answered(text=gold, finished=True)] * len(worse)
    if not better:
        return Outcome(verdict="all_wrong", **measured)
    better = sorted(better, key=lambda each: -(each.score or 0.0))
    worse = sorted(worse, key=lambda each: each.score or 0.0)
    return Outcome(verdict=None, pairs=list(zip(better, worse, strict=False))[: rule.pairs],
                   **measured)  # fmt: skip
