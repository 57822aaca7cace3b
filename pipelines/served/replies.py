"""What is asked for, as a schema and in words; and what a model's text amounts to.

    Prompt, turns --schema--> JSON schema, sent along as `response_format`; --in_words--> a sentence
    a model's text, Prompt --outcome_of--> Outcome: scores or texts per turn, or why there are none

A server may ignore the schema, so what comes back is checked here. A text of which nothing can be
made is a verdict with a name (BAD), never an exception.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.served.prompts import Prompt

BAD = {
    "no_json": "the text holds no JSON object",
    "not_as_asked": "a field is missing, of another type, or there are not as many turns",
    "out_of_range": "a score lies outside its bounds",
    "refused": "the model or its server refused to answer",
    "too_long": "the answer was cut at its limit of tokens, or is larger than any answer",
    "not_taken": "the server did not take the request (400, 413, 422: too many images, say)",
}
"""Verdicts on an answer of which nothing can be made."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a text amounts to: of each turn a dict of scores or of texts, or a verdict."""

    turns: tuple[Mapping[str, Any], ...] = ()
    reasons: tuple[str, ...] = ()
    """Of scores, per turn."""
    verdict: str = ""
    """Of BAD; empty: there are turns."""
    detail: str = field(default="", compare=False)


# ------------------------------------------------------------------ what is asked for


def schema(prompt: Prompt, *, turns: int) -> dict[str, Any]:
    """The JSON schema of an answer about so many turns."""
    least, most = counts(prompt, turns=turns)
    if prompt.writes:
        texts = closed(
            {
                name: {"type": "string", "minLength": int(not may_be_empty(name, prompt))}
                for name in fields(prompt)
            }
        )
        return closed(
            {"turns": {"type": "array", "items": texts, "minItems": least, "maxItems": most}}
        )
    reason = {"type": "string", "maxLength": prompt.reason_chars}
    scores = {
        name: {"type": "integer", "minimum": least, "maximum": most}
        for name, (least, most) in prompt.scores.items()
    }
    rated = closed({"reason": reason, **scores})
    if once(prompt):
        return rated
    return closed({"turns": {"type": "array", "items": rated, "minItems": least, "maxItems": most}})


def in_words(prompt: Prompt, *, turns: int) -> str:
    """The same in a sentence."""
    least, most = counts(prompt, turns=turns)
    if prompt.writes:
        named = ", ".join(f"{name} (text)" for name in fields(prompt))
    else:
        named = ", ".join(
            f"{name} ({low} to {high})" for name, (low, high) in prompt.scores.items()
        )
        named = f"reason (text), {named}"
    number = str(most) if least == most else f"{least} to {most}"
    each = "one object" if once(prompt) else f'{{"turns": [{number} objects]}}'
    return f"Reply with JSON alone: {each}, each with the fields {named}."


def once(prompt: Prompt) -> bool:
    """Whether one object says it all."""
    return not prompt.writes and prompt.per == "sample"


def counts(prompt: Prompt, *, turns: int) -> tuple[int, int]:
    """(least, most) of the turns in the answer about so many."""
    if prompt.writes == "conversation":
        return 1, prompt.max_turns
    return (1, 1) if once(prompt) else (turns, turns)


def fields(prompt: Prompt) -> tuple[str, ...]:
    """The texts of a turn that is written."""
    return ("answer",) if prompt.writes == "answers" else ("question", "answer")


def closed(properties: Mapping[str, Any]) -> dict[str, Any]:
    """An object of these fields, all of them and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def may_be_empty(name: str, prompt: Prompt) -> bool:
    """Whether the text may be: there are turns without a question, which then stays."""
    return prompt.writes == "turns" and name == "question"


# ------------------------------------------------------------------ what came


def outcome_of(text: str, prompt: Prompt, *, turns: int) -> Outcome:
    """What the text amounts to; the verdict is that of the first fault in it."""
    found = json_in(text)
    if found is None:
        return Outcome(verdict="no_json", detail=plain(text[:200]))
    given = [found] if once(prompt) else found.get("turns")
    least, most = counts(prompt, turns=turns)
    if not isinstance(given, list) or not least <= len(given) <= most:
        had = f"{len(given)} turns" if isinstance(given, list) else "no list `turns`"
        expected = str(most) if least == most else f"{least} to {most}"
        return Outcome(verdict="not_as_asked", detail=f"{had}, expected {expected}")
    return written(given, prompt) if prompt.writes else ratings(given, prompt)


def written(given: list[Any], prompt: Prompt) -> Outcome:
    """The texts of the turns."""
    made = []
    for number, turn in enumerate(given, 1):
        for name in fields(prompt):
            text = turn.get(name) if isinstance(turn, dict) else None
            if not isinstance(text, str) or not (text.strip() or may_be_empty(name, prompt)):
                return Outcome(verdict="not_as_asked", detail=f"turn {number} has no {name}")
        made.append({name: plain(turn[name]).strip() for name in fields(prompt)})
    return Outcome(turns=tuple(made))


def ratings(rated: list[Any], prompt: Prompt) -> Outcome:
    """The scores of the turns."""
    made, reasons = [], []
    for number, turn in enumerate(rated, 1):
        if not isinstance(turn, dict) or not isinstance(turn.get("reason"), str):
            return Outcome(verdict="not_as_asked", detail=f"turn {number} gives no reason")
        for name, (least, most) in prompt.scores.items():
            value = turn.get(name)
            if isinstance(value, float) and value.is_integer():
                value = int(value)  # 4.0, as JSON has one kind of number
            if type(value) is not int:
                return Outcome(verdict="not_as_asked", detail=f"turn {number}: {name} is {value!r}")
            if not least <= value <= most:
                return Outcome(verdict="out_of_range", detail=f"turn {number}: {name} is {value}")
        made.append({name: int(turn[name]) for name in prompt.scores})
        reasons.append(plain(turn["reason"][: prompt.reason_chars]))
    return Outcome(turns=tuple(made), reasons=tuple(reasons))


def plain(text: str) -> str:
    """The text without halves of a character, which JSON can hold and no file."""
    return text.encode("utf-8", "replace").decode()


def json_in(text: str) -> dict[str, Any] | None:
    """The first whole JSON object of the text, after what a model thought aloud; null: none."""
    said = text.rpartition("</think>")[2]
    decoder, start = json.JSONDecoder(), said.find("{")
    while start >= 0:
        try:
            found, _ = decoder.raw_decode(said, start)
        except (ValueError, RecursionError):  # no JSON, or an integer of thousands of digits
            start = said.find("{", start + 1)
            continue
        return found if isinstance(found, dict) and found else None
    return None
