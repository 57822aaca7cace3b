"""How answers are scored: pure functions, each 0..1.

| metric          | for               | formula                                                  |
|-----------------|-------------------|----------------------------------------------------------|
| exact           | short answers     | equal after lower case, outer punctuation and spaces     |
| multiple_choice | options A, B, ... | the option that the answer states                        |
| anls            | documents         | Biten et al. 2019 (arXiv 1905.13648), threshold 0.5      |
| relaxed         | charts            | Masry et al. 2022 (arXiv 2203.10244): numbers within 5 % |
| yes_no          | yes or no         | the first of the two words in the answer                 |
| mixed           | some with options | multiple_choice where there are options, else exact      |
"""

import re
import string
from collections.abc import Callable, Mapping, Sequence

from rapidfuzz.distance import Levenshtein

OPTION = re.compile(r"^[ \t]*\(?([A-Z])[).:][ \t]+(\S.*?)[ \t]*$", re.MULTILINE)
"""A line that states an option: `A. a cat`, `(B) a dog`."""
OF_OPTIONS = ("multiple_choice", "mixed")
"""Metrics to which it matters which option an answer states."""


def tidy_text(text: str) -> str:
    """Lower case, single spaces, no punctuation around."""
    return " ".join(text.lower().split()).strip(string.punctuation + " ")


def exact(answer: str, gold: Sequence[str], options: Mapping[str, str]) -> float:
    """1 where the answer is one of the gold ones."""
    return float(tidy_text(answer) in {tidy_text(each) for each in gold})


def anls(answer: str, gold: Sequence[str], options: Mapping[str, str]) -> float:
    """Average normalised Levenshtein similarity: the best over the gold answers, 0 below 0.5."""
    best = 0.0
    said = " ".join(answer.lower().split())
    for each in gold:
        true = " ".join(each.lower().split())
        distance = Levenshtein.normalized_distance(said, true)
        best = max(best, 1 - distance if distance < 0.5 else 0.0)
    return best


def number(text: str) -> float | None:
    """The number that the text is, per cent as a fraction; or None."""
    stripped = text.strip().rstrip(".").replace(",", "")
    try:
        if stripped.endswith("%"):
            return float(stripped[:-1]) / 100
        return float(stripped)
    except ValueError:
        return None


def relaxed(answer: str, gold: Sequence[str], options: Mapping[str, str]) -> float:
    """1 where a number is within 5 % of a gold one, or a text equals it."""
    for each in gold:
        said, true = number(answer), number(each)
        if said is not None and true is not None and true != 0:
            if abs(said - true) / abs(true) <= 0.05:
                return 1.0
        elif tidy_text(answer) == tidy_text(each):
            return 1.0
    return 0.0


def yes_no(answer: str, gold: Sequence[str], options: Mapping[str, str]) -> float:
    """1 where the first yes or no of the answer is the gold one."""
    words = re.findall(r"\b(yes|no)\b", answer.lower())
    return float(bool(words) and words[0] in {tidy_text(each) for each in gold})


def chosen_letter(answer: str, options: Mapping[str, str]) -> str:
    """The letter of the option that an answer states, or "".

    A letter alone or marked ("B", "(B)", "B.", "the answer is B"), else the one option whose text
    the answer equals, else the one whose text it contains.
    """
    if not options:
        return ""
    letters = "".join(options)
    said = answer.strip()
    for pattern in (
        rf"^\(?([{letters}])(?:[).:,]|\s*$)",
        rf"(?:answer|option|choice)\s*(?:is|:)?\s*\(?([{letters}])\b",
        rf"\(([{letters}])\)",
    ):
        found = re.findall(pattern, said, flags=re.IGNORECASE if "answer" in pattern else 0)
        if found:
            return str(found[-1]).upper()
    equal = [letter for letter, text in options.items() if tidy_text(text) == tidy_text(said)]
    if len(equal) == 1:
        return equal[0]
    held = [
        letter
        for letter, text in options.items()
        if tidy_text(text) and re.search(rf"\b{re.escape(tidy_text(text))}\b", tidy_text(said))
    ]
    return held[0] if len(held) == 1 else ""


def multiple_choice(answer: str, gold: Sequence[str], options: Mapping[str, str]) -> float:
    """1 where the answer states the gold option (a letter, or its text)."""
    letter = chosen_letter(answer, options)
    true = {each.strip() for each in gold}
    return float(bool(letter) and (letter in true or options[letter].strip() in true))


def mixed(answer: str, gold: Sequence[str], options: Mapping[str, str]) -> float:
    """As `multiple_choice` where there are options, else as `exact`."""
    return multiple_choice(answer, gold, options) if options else exact(answer, gold, options)


METRICS: dict[str, Callable[[str, Sequence[str], Mapping[str, str]], float]] = {
    "exact": exact,
    "multiple_choice": multiple_choice,
    "anls": anls,
    "relaxed": relaxed,
    "yes_no": yes_no,
    "mixed": mixed,
}


def options_in(question: str) -> dict[str, str]:
    """The options that a question's text states line by line, from A on; the last such list."""
    found: dict[str, str] = {}
    for letter, text in OPTION.findall(question):
        if letter == "A":
            found = {}
        if letter == chr(ord("A") + len(found)):
            found[letter] = text
    return found if len(found) > 1 else {}


def score_of(metric: str, answer: str, gold: str, *, question: str) -> float:
    """How right an answer is. Where the metric is of options, which stand in the question, the gold
    answer may be one's letter, its text or both.
    """
    options = options_in(question) if metric in OF_OPTIONS else {}
    return METRICS[metric](answer, [chosen_letter(gold, options) or gold], options)
