"""Multiple choice: the choices of a row and the one that its answer means.

| choices in a row                         | labels                               |
|------------------------------------------|--------------------------------------|
| a list, or a text that holds one         | A, B, ..., Z, AA, AB, ...            |
| {text: [..], label: [..]}, lists of both | those of the row                     |
| {A: .., B: ..}                           | the names                            |
| several columns, null where there is none| the columns' own where one letter    |

An answer is a label (`B`, `(b)`, `B.`), the text of a choice, or a whole number counted from 0. One
that means different choices by these is the Defect `ambiguous_answer` until the mixture says
`answer_is`. Whether numbers count from 0 the first rows have to show (reading/schema.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from pipelines.sources import cells
from pipelines.sources.sample import Defect

LABELS, TEXTS = ("label", "labels", "key", "id"), ("text", "texts", "choice", "choices")
"""What the two lists of a row's choices are called."""
ANSWER_IS = ("auto", "index", "number", "letter", "text")
"""How an answer names its choice; `index` counts from 0, `number` from 1."""


@dataclass(frozen=True)
class Choice:
    """One of a row's choices."""

    label: str
    text: str


def choices_of(value: Any, name: str) -> list[Choice]:
    """The choices in a cell; raises Defect."""
    value = cells.literal(value, name)
    if isinstance(value, Mapping):
        texts, labels = of_keys(value, TEXTS), of_keys(value, LABELS)
        if isinstance(texts, list):
            return labelled(texts, labels, name)
        value = {key: text for key, text in value.items() if text not in (None, "")}
        return labelled(list(value.values()), list(value), name)
    if not isinstance(value, list):
        raise cells.unfit(value, name, "a list of choices")
    if value and all(isinstance(each, Mapping) for each in value):
        texts = [of_keys(each, TEXTS) for each in value]
        labels = [of_keys(each, LABELS) for each in value]
        return labelled(texts, None if None in labels else labels, name)
    return labelled(value, None, name)


def of_keys(value: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """What stands under the first of the keys that is there."""
    return next((value[key] for key in keys if value.get(key) is not None), None)


def of_columns(values: Mapping[str, Any]) -> list[Choice]:
    """The choices of columns of one choice each; null and empty ones are none."""
    there = {name: value for name, value in values.items() if value not in (None, "")}
    names = [name.rpartition(".")[2] for name in there]
    own = all(len(name) == 1 and name.isalpha() for name in names)
    return labelled(list(there.values()), names if own else None, "choices")


def labelled(texts: Sequence[Any], labels: Any, name: str) -> list[Choice]:
    """The choices under their labels, or under letters."""
    if len(texts) < 2:
        raise Defect("wrong_schema", f"{name} has {len(texts)} choices, expected 2 or more")
    if labels is None:
        labels = [letters(n) for n in range(len(texts))]
    elif not isinstance(labels, list) or len(labels) != len(texts):
        raise Defect("wrong_schema", f"{name} has labels for some of its choices")
    return [
        Choice(cells.written(label, f"{name} label"), cells.written(text, f"{name}[{n}]").strip())
        for n, (label, text) in enumerate(zip(labels, texts, strict=True))
    ]


def letters(place: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    high, low = divmod(place, len(ascii_uppercase))
    return (letters(high - 1) if high else "") + ascii_uppercase[low]


def block_of(choices: Sequence[Choice]) -> str:
    """The choices, one to a line."""
    return "\n".join(f"{choice.label}. {choice.text}" for choice in choices)


def chosen(value: Any, choices: Sequence[Choice], *, answer_is: str, name: str) -> list[int]:
    """The places of the choices that the answer means, more than one where it is a list."""
    if isinstance(value, list):
        if not value:
            raise Defect("missing_answer", f"{name} is an empty list")
        return [
            place_of(each, choices, answer_is=answer_is, name=f"{name}[{n}]")
            for n, each in enumerate(value)
        ]
    return [place_of(value, choices, answer_is=answer_is, name=name)]


def place_of(value: Any, choices: Sequence[Choice], *, answer_is: str, name: str) -> int:
    """The place of the one choice that the answer means; raises Defect."""
    if value is None or value == "":
        raise Defect("missing_answer", f"{name} is null")
    said = cells.written(value, name).strip()
    found = {"text": by_text(said, choices), "letter": by_label(said, choices)}
    found |= {"index": by_count(said, choices, 0), "number": by_count(said, choices, 1)}
    if answer_is == "auto" and all(choice.label.isdigit() for choice in choices):
        found["index"] = []  # the row's own labels are digits: those are meant
    if answer_is != "auto":
        places = found[answer_is]
    else:
        found.pop("number")
        places = sorted({place for one in found.values() for place in one})
        ways = [way for way, one in found.items() if one]
        if len(places) > 1 and len(ways) > 1:
            raise Defect(
                "ambiguous_answer",
                f"{name} is one choice by {ways[0]}, another by {ways[1]}; "
                f"say columns: answer_is: {' or '.join(ways)}",
            )
    if len(places) > 1:
        raise Defect("ambiguous_answer", f"{name} is the text of {len(places)} choices")
    if not places:
        number = said.isdigit() and int(said[:9]) == len(choices)
        way = "; where they count from 1 say columns: answer_is: number" if number else ""
        asked = "index, letter or text" if answer_is == "auto" else answer_is
        raise Defect(
            "wrong_schema", f"{name} is none of the {len(choices)} choices by {asked}{way}"
        )
    return places[0]


def number_of(value: Any, choices: Sequence[Choice]) -> int | None:
    """The whole number that the answer is, where it is neither label nor text of a choice."""
    said = cells.written(value, "answer").strip()
    digits = said.removesuffix(".0")
    if by_text(said, choices) or by_label(said, choices):
        return None
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 6 else None


def by_text(said: str, choices: Sequence[Choice]) -> list[int]:
    """The places of the choices of this text; in other letters' size where none is exactly it."""
    exact = [n for n, choice in enumerate(choices) if choice.text == said]
    return exact or [n for n, c in enumerate(choices) if c.text.casefold() == said.casefold()]


def by_label(said: str, choices: Sequence[Choice]) -> list[int]:
    """The place of the choice of this label, which may be in brackets or end in a dot."""
    bare = said.strip("()[].: ").casefold()
    return [n for n, choice in enumerate(choices) if choice.label.casefold() == bare]


def by_count(said: str, choices: Sequence[Choice], first: int) -> list[int]:
    """The place that the digits count, from `first`."""
    digits = said.removesuffix(".0")  # a column of whole numbers with nulls, as pandas writes it
    if not (digits.isascii() and digits.isdigit() and len(digits) < 6):
        return []
    place = int(digits) - first
    return [place] if 0 <= place < len(choices) else []
