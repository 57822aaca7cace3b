"""Which option the answer of a multiple choice question means, in a benchmark's file.

| an answer in the file     | means                                                                |
|---------------------------|----------------------------------------------------------------------|
| `B`, `b`, `(B)`, `B.`     | the option of that letter                                            |
| the text of one option    | that option                                                          |
| a whole number            | the option counted from 0 or from 1, the same way in the whole file: |
|                           | a 0 in it tells, or the number of options; else it has to be said    |
| anything else             | nothing: refused, since it would score every answer wrong            |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.evaluation.metrics import tidy_text

COUNTS = {"0": 0, "1": 1}
"""What `choices_from` may say besides auto."""


@dataclass(frozen=True)
class Asked:
    """The answers that a row of the file gives, and its options by letter."""

    where: str
    gold: Sequence[str]
    options: Mapping[str, str]


def right_options(rows: Sequence[Asked], *, choices_from: str, file: str) -> list[list[str]]:
    """The answers of every row: as they are written where they are an option's letter or text, else
    the letter of the option that they mean; those of rows without options as they are.

    Raises:
        ValueError: an answer that is none of its options, or may be two of them.
    """
    if choices_from not in ("auto", *COUNTS):
        raise ValueError(f"choices_from={choices_from}: expected auto, 0 or 1.")
    counted = [
        (row, each)
        for row in rows
        for each in row.gold
        if row.options and digits(each) is not None
        and (choices_from != "auto" or not named(each, row.options))
    ]  # fmt: skip
    first = _first(counted, choices_from=choices_from, file=file) if counted else 0
    return [
        [_right(each, row, first, choices_from, bool(counted)) for each in row.gold]
        if row.options
        else list(row.gold)
        for row in rows
    ]


def _right(answer: str, row: Asked, first: int, choices_from: str, counts: bool) -> str:
    """The answer as it is scored; ValueError where it is no option, or two."""
    by_name = "" if choices_from != "auto" and digits(answer) is not None else named(
        answer, row.options
    )  # fmt: skip
    by_count = at(digits(answer), row.options, first) if counts else ""
    if by_name and by_count and by_name != by_count:
        raise ValueError(
            f"{row.where}: answer '{answer}' is option {by_name} by its text and {by_count} "
            f"counted from {first}, as other rows are.\nway out: choices_from={first}, or letters."
        )
    found = by_name or by_count
    if not found:
        shown = "empty" if not answer.strip() else f"'{answer[:60]}'"
        raise ValueError(
            f"{row.where}: answer: no option is meant by it, so every answer would score 0.\n"
            f"found: {shown}\nexpected: a letter of {', '.join(row.options)}, the text of one of "
            "them, or its number."
        )
    return answer if answer.strip() in (found, row.options[found].strip()) else found


def _first(counted: Sequence[tuple[Asked, str]], *, choices_from: str, file: str) -> int:
    """0 or 1, whichever the numbers of the file are counted from; ValueError where none tells."""
    if choices_from != "auto":
        return COUNTS[choices_from]
    zero = next((row for row, each in counted if digits(each) == 0), None)
    last = next((row for row, each in counted if digits(each) == len(row.options)), None)
    if zero and last:
        raise ValueError(
            f"{file}: its answers are numbers that count neither from 0 nor from 1.\nfound: 0 in "
            f"'{zero.where}', and the number of options in '{last.where}'\n"
            "way out: letters in the column answer."
        )
    if not zero and not last:
        row, answer = counted[0]
        raise ValueError(
            f"{file}: its answers are numbers, and none of them tells whether they count from 0 or "
            f"from 1.\nfound: '{answer}' for {len(row.options)} options in '{row.where}'\n"
            "way out: choices_from=0 or choices_from=1 (of evaluate, or of a file under `select` "
            "or `benchmarks`), or letters in the column answer."
        )
    return 0 if zero else 1


def named(answer: str, options: Mapping[str, str]) -> str:
    """The letter of the option that the answer names: by its capital letter, else by its very text
    (`a` among articles), else by its letter as `(b)`, else by a text like it; "" for none or
    several.
    """
    exact = [letter for letter, text in options.items() if text.strip() == answer.strip()]
    if answer.strip() in options:
        return answer.strip()
    if len(exact) == 1:
        return exact[0]
    bare = answer.strip().strip("().:").strip().upper()
    if bare in options:
        return bare
    alike = [letter for letter, text in options.items() if tidy_text(text) == tidy_text(answer)]
    found = exact or (alike if tidy_text(answer) else [])
    return found[0] if len(found) == 1 else ""


def digits(answer: str) -> int | None:
    """The whole number that it is, also as 2.0, which is how a column with gaps is often saved."""
    bare = answer.strip().removesuffix(".0")
    return int(bare) if bare.isascii() and bare.isdigit() and len(bare) < 6 else None


def at(number: int | None, options: Mapping[str, str], first: int) -> str:
    """The letter of the option of that number, counted from `first`; "" where there is none."""
    place = -1 if number is None else number - first
    return list(options)[place] if 0 <= place < len(options) else ""
