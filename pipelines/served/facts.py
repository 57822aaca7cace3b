"""What came of it: the outcome of each answer, the counts of a run, the table of facts."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.engine import tables
from pipelines.served.answers import Line
from pipelines.served.endpoint import NotTaken, Reply
from pipelines.served.prompts import Prompt, Ratings, ratings_of

ABOUT = "smolvlm_pipelines.judged"
"""In the metadata of the facts: what they are of."""
Rows = Iterable[tuple[str, Ratings | None]]
"""(id, what its answer amounts to; null: there is none), in the order of the index."""


@dataclass
class Judged:
    """What is known, what was asked now, and what is missing; counts are of questions."""

    samples: int = 0
    """Kept by the mixture, or rated before."""
    skipped: int = 0
    """Of them without an answer to rate, or without an image where the prompt needs one."""
    rated: int = 0
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
        return {**asdict(self), "bad": dict(self.bad)}

    def __str__(self) -> str:
        """A few lines."""
        lines = [f"{self.samples:,} samples, {self.skipped:,} of them not asked about"]
        lines.append(f"{self.rated:,} rated, {self.bad.total():,} without ratings")
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


def outcome(line: Line, prompt: Prompt, turns: int) -> Ratings:
    """What a line amounts to."""
    got = line.outcome
    if isinstance(got, NotTaken):
        return Ratings(verdict="not_taken", detail=f"{got.status}: {got.message}")
    assert isinstance(got, Reply)
    if got.refusal or got.finish == "content_filter":
        return Ratings(verdict="refused", detail=(got.refusal or got.finish)[:200])
    if got.finish == "length":
        return Ratings(verdict="too_long", detail=f"cut at {got.output_tokens} tokens")
    return ratings_of(got.text, prompt, turns=turns)


def write_facts(rows: Rows, prompt: Prompt, output: str, *, about: Mapping[str, Any]) -> None:
    """The table of facts is in `output`: a line per sample that has an answer.

    | column          | what it is                                                            |
    |-----------------|-----------------------------------------------------------------------|
    | id              | the sample                                                            |
    | verdict         | why it has no ratings; null: it has                                   |
    | SCORE           | the least of its turns (as FineVision's `*_min`); null without        |
    | SCORE_mean      | the mean of its turns                                                 |
    | turns           | per turn: its reason and scores                                       |
    | reason          | of the first turn; of a bad answer, what was found                    |
    """
    names = list(prompt.scores)
    turn = pa.struct([("reason", pa.string()), *((name, pa.int32()) for name in names)])
    lines = []
    for sample, ratings in rows:
        if ratings is None:
            continue
        line: dict[str, Any] = {"id": sample, "verdict": ratings.verdict or None}
        for name in names if ratings.turns else ():
            values = [t[name] for t in ratings.turns]
            line |= {name: min(values), f"{name}_mean": sum(values) / len(values)}
        line["reason"] = ratings.reasons[0] if ratings.reasons else ratings.detail
        each = zip(ratings.turns, ratings.reasons, strict=True)
        line["turns"] = [{**scores, "reason": reason} for scores, reason in each]
        lines.append(line)
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("verdict", pa.string()),
            *((name, pa.int32()) for name in names),
            *((f"{name}_mean", pa.float64()) for name in names),
            ("reason", pa.string()),
            ("turns", pa.list_(turn)),
        ],
        metadata={ABOUT: json.dumps(about)},
    )
    with tables.atomic_file(output) as file:
        pq.write_table(pa.Table.from_pylist(lines, schema=schema), file)
