"""A checkpoint is judged on benchmarks in VLMEvalKit's TSV layout.

Columns: index, image (base64; a list of them; or the index of the row that holds it) or image_path,
question, answer (text, or a Python list of texts), A, B, C, ... (options), hint, category.

`python -m trainer evaluate CHECKPOINT bench=FILE.tsv [metric=...]` writes, beside the checkpoint,
evaluations/<bench>.json (scores) and .tsv (one line per question). `images=shuffled` gives every
question another one's image: what the questions alone give away.
"""

import ast
import base64
import csv
import dataclasses
import json
import random
import string
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenization.images import open_image
from trainer import checkpoint
from trainer.checkpoint import State
from trainer.config import Config, did_you_mean, split_pairs
from trainer.evaluation.answer import Question, answers, asking_encoding, open_checkpoint
from trainer.evaluation.metrics import METRICS
from trainer.model.smolvlm import Objective
from trainer.parallel import World, gather

REFERENCE = 64
"""Characters: a shorter `image` names the row that holds the image, as in VLMEvalKit."""


@dataclass(frozen=True)
class Case:
    """One question of a benchmark."""

    index: str
    question: Question
    gold: list[str]
    options: dict[str, str]
    category: str


def _list(text: str) -> list[str]:
    """The texts of a Python list literal, or the text itself."""
    if text.startswith("[") and text.endswith("]"):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return [text]
        return [str(each) for each in value] if isinstance(value, list) else [text]
    return [text]


def read(file: Path, *, limit: int = 0) -> list[Case]:
    """The questions of a TSV, the first `limit` (0: all). ValueError names a bad row or column."""
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
    by_index = {row["index"]: row for row in rows}
    letters = [letter for letter in string.ascii_uppercase if letter in rows[0]]
    cases = []
    for row in rows[:limit] if limit else rows:
        options = {letter: row[letter] for letter in letters if row[letter]}
        text = row["question"].strip()
        if row.get("hint"):
            text = f"Hint: {row['hint'].strip()}\nQuestion: {text}"
        if options:
            text += "\nOptions:\n" + "\n".join(f"{k}. {v}" for k, v in options.items())
            text += "\nAnswer with the letter of the right option."
        cases.append(
            Case(
                row["index"],
                Question(text=text, images=_images(row, by_index, file)),
                _list(row["answer"]),
                options,
                row.get("category") or "",
            )
        )
    return cases


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


def summary(cases: Sequence[Case], points: Sequence[float], metric: str) -> dict[str, Any]:
    """The mean, and the mean per category."""
    groups: dict[str, list[float]] = {}
    for case, point in zip(cases, points, strict=True):
        if case.category:
            groups.setdefault(case.category, []).append(point)
    return {
        "metric": metric,
        "score": sum(points) / len(points),
        "questions": len(points),
        "categories": {name: sum(each) / len(each) for name, each in sorted(groups.items())},
    }


def vlmevalkit(folder: Path, benchmark: str) -> dict[str, Any]:
    """What `python run.py --config FILE` of VLMEvalKit needs to run this checkpoint.

    https://github.com/open-compass/VLMEvalKit, docs/en/ConfigSystem.md.
    """
    name = f"{folder.resolve().parent.name}-{folder.resolve().name}"
    return {
        "model": {name: {"class": "SmolVLM2", "model_path": str(folder.resolve())}},
        "data": {benchmark: {"class": "ImageVQADataset", "dataset": benchmark}},
    }


USAGE = """\
python -m trainer evaluate CHECKPOINT bench=FILE.tsv [key=value ...]

Ask a checkpoint the questions of a benchmark and score what it says. CHECKPOINT is a checkpoint's
folder, or a run's: then its newest one.

  bench=FILE.tsv     VLMEvalKit's layout: index, image, question, answer, options A, B, ...
  metric=auto        exact, multiple_choice, anls, relaxed, yes_no; auto: options make it
                     multiple_choice, answers of yes and no yes_no, anything else exact
  images=own       shuffled: every question gets another one's image; what is then still
                     right, the questions alone gave away
  limit=0            only the first N questions; 0: all
  batch=16           questions at one time
  max_new_tokens=32  of an answer
  device=auto        auto, cpu or cuda
  threads=0          of torch on CPUs; 0: its own choice
  output=DIR         (default: CHECKPOINT/evaluations)

Writes there FILE.json (the score, and one per category), FILE.tsv (every question, its answer,
what the model said, its score) and FILE.vlmevalkit.json (for `run.py --config` of VLMEvalKit).
"""

OPTIONS = {"bench": "", "metric": "auto", "images": "own", "limit": "0", "batch": "16",
           "max_new_tokens": "32", "device": "auto", "output": "", "threads": "0"}  # fmt: skip


def evaluate_command(arguments: Sequence[str]) -> int:
    """`evaluate CHECKPOINT bench=FILE.tsv ...`; the exit status."""
    if {"-h", "--help", "help"} & set(arguments):
        print(USAGE, end="")
        return 0
    if not arguments or "=" in arguments[0]:
        raise ValueError(
            "evaluate: expected a checkpoint: python -m trainer evaluate RUN bench=F.tsv"
        )
    pairs = split_pairs(arguments[1:])
    for key in pairs:
        if key not in OPTIONS:
            raise ValueError(f"evaluate: unknown key '{key}'. {did_you_mean(key, list(OPTIONS))}")
    options = OPTIONS | pairs
    for key in ("limit", "batch", "max_new_tokens", "threads"):
        if not options[key].isdigit():
            raise ValueError(f"evaluate: {key}={options[key]}: expected a whole number.")
    if options["images"] not in ("own", "shuffled"):
        raise ValueError(f"evaluate: images={options['images']}: expected own or shuffled.")
    if not options["bench"]:
        raise ValueError(
            "evaluate: bench is not set. Expected bench=FILE.tsv (VLMEvalKit's layout)."
        )
    if int(options["threads"]):
        import torch

        torch.set_num_threads(int(options["threads"]))
    file = Path(options["bench"])
    name = file.stem + ("" if options["images"] == "own" else "-shuffled")
    if options["output"] and (Path(options["output"]) / f"{name}.tsv").resolve() == file.resolve():
        raise ValueError(f"evaluate: output={options['output']} would overwrite {file}.")
    cases = read(file, limit=int(options["limit"]))
    if options["images"] == "shuffled":
        cases = shuffled(cases, seed=0)
    metric = default_metric(cases) if options["metric"] == "auto" else options["metric"]
    scores(cases[:0], [], metric)  # an unknown metric is refused before the model is loaded
    model, tokenizer, encoding, folder = open_checkpoint(arguments[0], device=options["device"])
    said = answers(
        model, tokenizer, [case.question for case in cases], encoding=encoding,
        max_new_tokens=int(options["max_new_tokens"]), batch_size=int(options["batch"]),
    )  # fmt: skip
    points = scores(cases, said, metric)
    result = summary(cases, points, metric) | {"images": options["images"]}
    out = Path(options["output"]) if options["output"] else folder / "evaluations"
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    (out / f"{name}.vlmevalkit.json").write_text(
        json.dumps(vlmevalkit(folder, file.stem), indent=2) + "\n"
    )
    with (out / f"{name}.tsv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t")
        writer.writerow(["index", "question", "answer", "prediction", "score"])
        for case, answer, point in zip(cases, said, points, strict=True):
            writer.writerow([case.index, case.question.text, case.gold, answer, point])
    print(f"{file.stem}: {metric} {result['score']:.4f} over {len(cases)} questions, "
          f"images {options['images']}; {out / name}.json")  # fmt: skip
    return 0


def selection_scores(
    objective: Objective, tokenizer: Any, config: Config, state: State, here: World
) -> dict[str, float]:
    """Scores of the benchmarks of `select`, and `selected`: their weighted mean."""
    if here.kind == "fsdp":
        raise ValueError("select: generation needs the whole model on a rank: parallel=ddp.")
    encoding = asking_encoding(checkpoint.encoding_of(state))
    found: dict[str, float] = {}
    total = 0.0
    for name, benchmark in config.select.items():
        cases = read(Path(benchmark.file))
        mine = cases[here.rank :: here.ranks]
        said = answers(
            objective.model, tokenizer, [case.question for case in mine], encoding=encoding,
            max_new_tokens=32, batch_size=16,
        )  # fmt: skip
        points = gather(here, scores(mine, said, benchmark.metric))
        found[f"benchmark/{name}"] = sum(map(sum, points)) / len(cases)
        total += benchmark.weight * found[f"benchmark/{name}"]
    found["selected"] = total / sum(benchmark.weight for benchmark in config.select.values())
    return found
