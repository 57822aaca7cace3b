"""What came of asking: the outcome of each answer, and the counts of a run."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from pipelines.served.answers import Line
from pipelines.served.endpoint import NotTaken, Reply
from pipelines.served.prompts import Prompt
from pipelines.served.replies import Outcome, outcome_of, plain

Rows = Iterable[tuple[str, Outcome | None]]
"""(id, what its answer amounts to; null: there is none), in the order of the index."""

LEFT = {"rated": "without ratings", "rewritten": "left as they are, for a bad answer"}


@dataclass
class Asked:
    """What is known, what was asked now, and what is missing; counts are of questions."""

    samples: int = 0
    """Kept by the mixture, or asked about before."""
    skipped: int = 0
    """Of them without an answer, or without an image where the prompt needs one; of pairs, where
    it rewrites."""
    does: str = "rated"
    """What a good answer does to a sample: rated, rewritten."""
    good: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    missing: int = 0
    stopped: str = ""
    """The budget that was reached, or `endpoint`."""
    why: str = ""
    """Of the last request that got no answer."""
    requests: int = 0
    """In all runs, as the tokens."""
    tokens: int = 0
    cost: float = 0.0
    """Of all answers that state their tokens."""
    needed: dict[str, float] = field(default_factory=dict)
    """Of a plan: requests, tokens in, tokens out at most, cost at most."""
    output: str = ""

    def data(self) -> dict[str, Any]:
        """The same for JSON."""
        found = {**asdict(self), "bad": dict(self.bad)}
        return {found["does"] if k == "good" else k: v for k, v in found.items() if k != "does"}

    def __str__(self) -> str:
        """A few lines."""
        lines = [f"{self.samples:,} samples, {self.skipped:,} of them not asked about"]
        lines.append(f"{self.good:,} {self.does}, {self.bad.total():,} {LEFT[self.does]}")
        lines += [f"  {reason:<13}{count:,}" for reason, count in sorted(self.bad.items())]
        spent = f"spent in all: {self.requests:,} requests, {self.tokens:,} tokens"
        lines.append(spent + (f", {self.cost:,.2f}" if self.cost else ""))
        if self.needed:
            n = self.needed
            lines.append(
                f"still to ask: {n['requests']:,.0f} requests, about {n['input_tokens']:,.0f} "
                f"tokens in and at most {n['output_tokens']:,.0f} out"
                + (f", at most {n['cost']:,.2f}" if n["cost"] else "")
            )
        elif self.missing:
            reason = {
                "endpoint": f"the endpoint does not answer ({self.why})",
                "": f"no answer came ({self.why})",
            }.get(self.stopped, f"{self.stopped} is reached")
            lines.append(
                f"INCOMPLETE: {self.missing:,} have no answer: {reason}. The same command goes on"
                + (f" with a larger {self.stopped}." if self.stopped.startswith("max") else ".")
            )
        return "\n".join([*lines, *([self.output] if self.output else [])])


def outcome_of_line(line: Line, prompt: Prompt, turns: int) -> Outcome:
    """What a line amounts to."""
    got = line.outcome
    if isinstance(got, NotTaken):
        return Outcome(verdict="not_taken", detail=f"{got.status}: {got.message}")
    assert isinstance(got, Reply)
    if got.refusal or got.finish == "content_filter":
        return Outcome(verdict="refused", detail=plain((got.refusal or got.finish)[:200]))
    if got.finish == "length":
        return Outcome(verdict="too_long", detail=f"cut at {got.output_tokens} tokens")
    return outcome_of(got.text, prompt, turns=turns)
