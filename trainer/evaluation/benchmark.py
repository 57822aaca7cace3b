"""A checkpoint is judged on benchmarks in VLMEvalKit's TSV layout.

Columns: index, image (base64; a list of them; or the index of the row that holds it) or image_path,
question, answer (text, or a Python list of texts; of options also their letters or numbers, see
choices.py), A, B, C, ... (options), hint, category.

    TSV --read--> cases --answers--> texts --scores--> points --summary--> means, intervals
"""

import ast
import base64
import csv
import dataclasses
import random
import string
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenization.images import open_image
from trainer.arguments import did_you_mean
from trainer.evaluation.answer import Question
from trainer.evaluation.choices import Asked, right_options
from trainer.evaluation.confidence import Interval, Scores, clusters_of, mean_interval
from trainer.evaluation.metrics import METRICS

REFERENCE = 64
"""Characters: a shorter `image` names the row that holds the image, as in VLMEvalKit."""

COLUMNS = ("index", "question", "answer", "prediction", "score")
"""Of a file that holds what was said to each question of a benchmark."""


@dataclass(frozen=True)
class Case:
    """One question of a benchmark."""

    index: str
    question: Question
    gold: list[str]
    options: dict[str, str]
    category: str
    restated: bool = False
    """Whether `gold` has a letter where the file has a number, which VLMEvalKit does not read."""
    written: str = ""
    """The question alone, without hint and options."""


def _list(text: str) -> list[str]:
    """The texts of a Python list literal, or the text itself."""
    if text.startswith("[") and text.endswith("]"):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return [text]
        return [str(each) for each in value] if isinstance(value, list) else [text]
    return [text]


def read(file: Path, *, limit: int = 0, choices_from: str = "auto") -> list[Case]:
    """The questions of a TSV, the first `limit` (0: all); options that are answers by their number
    are counted from `choices_from`. ValueError names a bad row or column.
    """
    if not file.is_file():
        raise FileNotFoundError(f"bench={file}: no such file. Expected VLMEvalKit's TSV.")
    csv.field_size_limit(sys.maxsize)
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    if not rows:
        raise ValueError(f"bench={file}: no rows in it.")
    for column in ("index", "question", "answer"):
        if column not in rows[0]:
            raise ValueError(
                f"bench={file}: no column '{column}'. Found: {', '.join(rows[0])}. "
                "Expected VLMEvalKit's layout: index, image, question, answer, [A, B, ...]."
            )
    if not {"image", "image_path"} & set(rows[0]) and {"video", "video_path"} & set(rows[0]):
        raise ValueError(
            f"bench={file}: its questions are about videos, which are not answered here.\n"
            "way out: for "
            f"VLMEvalKit: python -m trainer evaluate CHECKPOINT vlmevalkit={file.stem}"
        )
    by_index = {row["index"]: row for row in rows}
    letters = [letter for letter in string.ascii_uppercase if letter in rows[0]]
    options_of = [{letter: row[letter] for letter in letters if row[letter]} for row in rows]
    asked = [
        Asked(f"bench={file}, index {row['index']}", _list(_cell(row, "answer", file)), options)
        for row, options in zip(rows, options_of, strict=True)
    ]
    gold = right_options(asked, choices_from=choices_from, file=f"bench={file}")
    cases = []
    for row, options, given, right in list(zip(rows, options_of, asked, gold, strict=True))[
        : limit or None
    ]:
        text = written = _cell(row, "question", file).strip()
        if row.get("hint"):
            text = f"Hint: {row['hint'].strip()}\nQuestion: {text}"
        if options:
            text += "\nOptions:\n" + "\n".join(f"{k}. {v}" for k, v in options.items())
            text += "\nAnswer with the letter of the right option."
        cases.append(
            Case(
                row["index"],
                Question(text=text, images=_images(row, by_index, file)),
                right,
                options,
                row.get("category") or "",
                restated=right != given.gold,
                written=written,
            )
        )
    return cases


def _cell(row: Mapping[str, str | None], column: str, file: Path) -> str:
    """The text in a column; ValueError for a row that ends before it."""
    text = row[column]
    if text is None:
        raise ValueError(
            f"bench={file}, index {row['index']}: the row ends before the column '{column}'."
        )
    return text


def _images(row: Mapping[str, str], by_index: Mapping[str, Any], file: Path) -> list[bytes]:
    where = f"bench={file}, index {row['index']}"
    if row.get("image"):
        found = []
        for each in _list(row["image"]):
            if len(each) <= REFERENCE and each in by_index:
                each = by_index[each]["image"]
            data = base64.b64decode(each)
            try:
                open_image(data)
            except ValueError as error:
                raise ValueError(f"{where}: image: {error}") from error
            found.append(data)
        return found
    if row.get("image_path"):
        paths = [file.parent / each for each in _list(row["image_path"])]
        for path in paths:
            if not path.is_file():
                raise FileNotFoundError(f"{where}: image_path: {path} does not exist.")
        return [path.read_bytes() for path in paths]
    return []


def default_metric(cases: Sequence[Case]) -> str:
    """What suits these questions: options, yes or no, or an exact answer."""
    if all(case.options for case in cases):
        return "multiple_choice"
    if any(case.options for case in cases):
        return "mixed"
    if all({each.lower() for each in case.gold} <= {"yes", "no"} for case in cases):
        return "yes_no"
    return "exact"


def shuffled(cases: Sequence[Case], *, seed: int) -> list[Case]:
    """The same questions, every one with the images of another that shows something else."""
    distinct = list(dict.fromkeys(tuple(case.question.images) for case in cases))
    if len(distinct) < 2:
        raise ValueError("images=shuffled needs a benchmark of at least two different images.")
    turned = distinct[:]
    random.Random(seed).shuffle(turned)
    # Around the shuffled circle every image gets its neighbour's: never its own.
    other = dict(zip(turned, turned[1:] + turned[:1], strict=True))
    return [
        dataclasses.replace(
            case,
            question=dataclasses.replace(
                case.question, images=list(other[tuple(case.question.images)])
            ),
        )
        for case in cases
    ]


def scores(cases: Sequence[Case], said: Sequence[str], metric: str) -> list[float]:
    """The score of every answer."""
    if metric not in METRICS:
        hint = did_you_mean(metric, list(METRICS))
        raise ValueError(f"metric={metric}: no such metric. {hint}")
    score = METRICS[metric]
    return [score(a, case.gold, case.options) for case, a in zip(cases, said, strict=True)]


def image_clusters(cases: Sequence[Case]) -> list[int]:
    """A number per question, one for all that share an image."""
    return clusters_of([case.question.images for case in cases])


def summary(cases: Sequence[Case], points: Sequence[float], metric: str) -> dict[str, Any]:
    """The mean and its interval, and both per category."""
    clusters = image_clusters(cases)
    groups: dict[str, list[int]] = {}
    for number, case in enumerate(cases):
        if case.category:
            groups.setdefault(case.category, []).append(number)

    def mean(numbers: Sequence[int]) -> Interval:
        chosen = Scores(
            points=[points[n] for n in numbers], clusters=[clusters[n] for n in numbers]
        )
        return mean_interval([chosen])

    overall = mean(range(len(cases)))
    categories = {name: mean(numbers) for name, numbers in sorted(groups.items())}
    return {
        "metric": metric,
        "score": overall.value,
        "interval": [overall.low, overall.high],
        "questions": len(points),
        "clusters": len(set(clusters)),
        "categories": {name: each.value for name, each in categories.items()},
        "category_intervals": {name: [each.low, each.high] for name, each in categories.items()},
    }


def write_answers(
    file: Path, cases: Sequence[Case], said: Sequence[str], points: Sequence[float]
) -> None:
    """One line per question, in their order."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t")
        writer.writerow(COLUMNS)
        for case, answer, point in zip(cases, said, points, strict=True):
            writer.writerow([case.index, case.question.text, case.gold, answer, point])


def read_points(file: Path, cases: Sequence[Case]) -> list[float] | None:
    """The scores in a file of `write_answers`; None where it is of other questions, or absent."""
    if not file.is_file():
        return None
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    asked = [(row["index"], row["question"], row["answer"]) for row in rows]
    if asked != [(case.index, case.question.text, str(case.gold)) for case in cases]:
        return None
    return [float(row["score"]) for row in rows]
