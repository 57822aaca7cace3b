"""Prompt files: what a judge is told, which scores it gives, and what its text amounts to.

    FILE.yaml --load_prompt--> Prompt --schema--> JSON schema, sent along as `response_format`
    a model's text, Prompt --ratings_of--> Ratings: scores per turn, or why there are none

A server may ignore the schema, so what comes back is checked here. A text that gives no ratings is
a verdict with a name (BAD), never an exception.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mixtures.annotated import NAME
from pipelines import recipe as recipes

BUNDLED = Path(__file__).parent
VERSION = 1
"""Bumped when the same prompt and sample would make another request."""
KEYS = {
    "name": str,
    "version": int,
    "instructions": str,
    "scores": dict,
    "per": str,
    "images": str,
    "reason_chars": int,
    "output_tokens": int,
}
"""Of a prompt file."""
REQUIRED = ("name", "version", "instructions", "scores")
PER = ("turn", "sample")
IMAGES = ("required", "optional")
OWN = ("id", "verdict", "reason", "turns")
"""Columns of the table that no score may be called."""
BAD = {
    "no_json": "the text holds no JSON object",
    "not_as_asked": "a field is missing, of another type, or there are not as many turns",
    "out_of_range": "a score lies outside its bounds",
    "refused": "the model or its server refused to answer",
    "too_long": "the answer was cut at its limit of tokens, or is larger than any answer",
    "not_taken": "the server did not take the request (400, 413, 422: too many images, say)",
}
"""Verdicts on an answer that gives no ratings."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt file."""

    name: str
    version: int
    instructions: str
    scores: Mapping[str, tuple[int, int]]
    """Score -> its least and its greatest value, whole numbers."""
    per: str = "turn"
    """turn: every answer of a conversation is rated; sample: the whole of it, once."""
    images: str = "required"
    """required: samples without an image are not asked about."""
    reason_chars: int = 300
    """Of a reason, at most."""
    output_tokens: int = 160
    """Allowed for each rated turn."""

    @property
    def digest(self) -> str:
        """Of everything in it."""
        return recipes.fingerprint(VERSION, self)


@dataclass(frozen=True, kw_only=True)
class Ratings:
    """What a text amounts to: a dict of scores per rated turn, or a verdict."""

    turns: tuple[Mapping[str, int], ...] = ()
    reasons: tuple[str, ...] = ()
    verdict: str = ""
    """Of BAD; empty: there are ratings."""
    detail: str = field(default="", compare=False)


def load_prompt(word: str) -> Prompt:
    """The bundled prompt of that name, or that of a file.

    Raises:
        ValueError: a mistake in it. FileNotFoundError: there is none.
    """
    path = Path(word).expanduser()
    if not word.endswith((".yaml", ".yml")):
        path = BUNDLED / f"{word}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in BUNDLED.glob("*.yaml")))
        raise FileNotFoundError(f"prompt={word}: no such prompt. Bundled: {known}; or FILE.yaml.")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as YAML ({error}).") from error
    return prompt_of(found, where=str(path))


def prompt_of(found: object, *, where: str) -> Prompt:
    """The prompt that a file's content is; raises ValueError."""
    if not isinstance(found, dict):
        raise ValueError(f"{where}: holds {type(found).__name__}, expected `key: value` pairs.")
    for key in found:
        if key not in KEYS:
            raise ValueError(f"{where}: unknown key {key!r}. Known: {', '.join(KEYS)}.")
    for key in REQUIRED:
        if not found.get(key):
            raise ValueError(f"{where}: {key} is missing.")
    for key, value in found.items():
        if type(value) is not KEYS[key]:
            raise ValueError(f"{where}: {key} is {value!r}; expected {KEYS[key].__name__}.")
        if isinstance(value, int) and value < 1:
            raise ValueError(f"{where}: {key} is {value}; expected 1 or more.")
    for key, among in (("per", PER), ("images", IMAGES)):
        if found.get(key, among[0]) not in among:
            raise ValueError(f"{where}: {key} is {found[key]!r}; expected {' or '.join(among)}.")
    scores = {name: bounds_of(name, b, where=where) for name, b in found["scores"].items()}
    return Prompt(**{**found, "scores": scores})


def bounds_of(name: object, bounds: object, *, where: str) -> tuple[int, int]:
    """(least, greatest) of a score."""
    if not isinstance(name, str) or not NAME.match(name) or name in OWN:
        raise ValueError(
            f"{where}: a score is called {name!r}; expected letters, digits and _, and none of "
            f"{', '.join(OWN)}."
        )
    keyed = isinstance(bounds, dict) and set(bounds) == {"min", "max"}
    least, most = (bounds["min"], bounds["max"]) if isinstance(bounds, dict) and keyed else (0, 0)
    if type(least) is not int or type(most) is not int or least >= most:
        raise ValueError(
            f"{where}: scores.{name} is {bounds!r}; expected {{min: 1, max: 5}}, whole numbers."
        )
    return least, most


# ------------------------------------------------------------------ what is asked for


def schema(prompt: Prompt, *, turns: int) -> dict[str, Any]:
    """The JSON schema of an answer about so many turns."""
    reason = {"type": "string", "maxLength": prompt.reason_chars}
    scores = {
        name: {"type": "integer", "minimum": least, "maximum": most}
        for name, (least, most) in prompt.scores.items()
    }
    rated = closed({"reason": reason, **scores})
    if prompt.per == "sample":
        return rated
    return closed(
        {"turns": {"type": "array", "items": rated, "minItems": turns, "maxItems": turns}}
    )


def closed(properties: Mapping[str, Any]) -> dict[str, Any]:
    """An object of these fields, all of them and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


# ------------------------------------------------------------------ what came


def ratings_of(text: str, prompt: Prompt, *, turns: int) -> Ratings:
    """What the text amounts to; the verdict is that of the first fault in it."""
    found = json_in(text)
    if found is None:
        return Ratings(verdict="no_json", detail=text[:200])
    rated = [found] if prompt.per == "sample" else found.get("turns")
    if not isinstance(rated, list) or len(rated) != (1 if prompt.per == "sample" else turns):
        had = f"{len(rated)} turns" if isinstance(rated, list) else "no list `turns`"
        return Ratings(verdict="not_as_asked", detail=f"{had}, expected {turns}")
    made, reasons = [], []
    for number, turn in enumerate(rated, 1):
        if not isinstance(turn, dict) or not isinstance(turn.get("reason"), str):
            return Ratings(verdict="not_as_asked", detail=f"turn {number} gives no reason")
        for name, (least, most) in prompt.scores.items():
            value = turn.get(name)
            if isinstance(value, float) and value.is_integer():
                value = int(value)  # 4.0, as JSON has one kind of number
            if type(value) is not int:
                return Ratings(verdict="not_as_asked", detail=f"turn {number}: {name} is {value!r}")
            if not least <= value <= most:
                return Ratings(verdict="out_of_range", detail=f"turn {number}: {name} is {value}")
        made.append({name: int(turn[name]) for name in prompt.scores})
        reasons.append(turn["reason"][: prompt.reason_chars])
    return Ratings(turns=tuple(made), reasons=tuple(reasons))


def json_in(text: str) -> dict[str, Any] | None:
    """The first whole JSON object of the text, after what a model thought aloud; null: none."""
    said = text.rpartition("</think>")[2]
    decoder, start = json.JSONDecoder(), said.find("{")
    while start >= 0:
        try:
            found, _ = decoder.raw_decode(said, start)
        except (json.JSONDecodeError, RecursionError):
            start = said.find("{", start + 1)
            continue
        return found if isinstance(found, dict) and found else None
    return None
