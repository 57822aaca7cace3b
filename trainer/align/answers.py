"""`python -m trainer answers CHECKPOINT data=DIR`: pairs from a checkpoint's own answers.

```
shards --sampled.py--> OUTPUT/sampled/*.parquet       n answers to every question
       --scored by a metric, or by ratings of a judge, rejection.py-->
OUTPUT/answers.parquet   ANSWERS: a line per sample, what became of it; an annotation
OUTPUT/pairs.parquet     PAIRS: rows as `source: preferences` takes them
OUTPUT/pairs.yaml        the mixture of them, to be built
OUTPUT/answers.json      what was asked, and how many samples have which verdict
```

With metric=none nothing is scored: candidates-HASH.parquet and candidates.yaml are a mixture of one
conversation per answer, for `pipelines judge`, whose file is then `ratings=`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenization.command_line import Answer
from trainer.align import data
from trainer.align.answer_files import (
    durations,
    found_of,
    ratings_of,
    write_candidates,
    write_pairs,
)
from trainer.align.rejection import VERDICTS, Rule
from trainer.align.sampled import Sampling, sample
from trainer.arguments import did_you_mean, local_path, split_pairs
from trainer.checkpoint import ARRIVING
from trainer.data import integrity
from trainer.data.shards import Rows, open_mixture
from trainer.evaluation import held_out
from trainer.evaluation.answer import open_checkpoint
from trainer.evaluation.metrics import METRICS
from trainer.evaluation.score import SPLITS, refuse_other_encoding
from trainer.parallel import torch_threads

OPTIONS = {
    "data": "", "output": "", "split": "train", "component": "", "limit": "0", "generations": "8",
    "temperature": "1.0", "seed": "17", "max_new_tokens": "64", "metric": "exact", "right": "",
    "chosen": "sampled", "pairs": "1", "ratings": "", "rating": "", "batch": "16",
    "device": "auto", "threads": "0", "cache": "", "cache_bytes": "0",
}  # fmt: skip
WHOLE = ("limit", "seed", "generations", "max_new_tokens", "pairs", "batch", "threads",
         "cache_bytes")  # fmt: skip
"""Options that are whole numbers."""
MARK = "answers.json"


def answers_command(arguments: Sequence[str]) -> Answer:
    """`answers CHECKPOINT ...`: the folder, and how many samples have which verdict."""
    if not arguments or "=" in arguments[0]:
        raise ValueError("answers: expected a checkpoint: python -m trainer answers RUN data=DIR")
    folder = answers(arguments[0], **split_pairs(arguments[1:]))
    made = json.loads((folder / MARK).read_text())
    lines = summary(made) if "scored" in made else []
    return Answer("\n".join([*lines, f"answers {folder}"]), {"answers": str(folder), **made})


def answers(checkpoint: str, **options: str) -> Path:
    """The folder with the answers, what became of each sample, and the pairs.

    Raises:
        ValueError: a mistake in the options; the mixture is not made for this checkpoint; the
            folder holds answers that were drawn otherwise.
    """
    asked = checked(options)
    mixture = open_mixture(
        asked["data"], cache=asked["cache"], cache_bytes=int(asked["cache_bytes"])
    )
    rule, names = rule_of(asked), held_out.components(mixture)
    wanted = [name for name in asked["component"].split(",") if name]
    for name in wanted:
        if name not in names.values():
            hint = did_you_mean(name, sorted(set(names.values())))
            raise ValueError(f"answers: component={name}: {hint}")
    sampling = Sampling(
        generations=int(asked["generations"]), temperature=float(asked["temperature"]),
        seed=int(asked["seed"]), max_new_tokens=int(asked["max_new_tokens"]),
        component=asked["component"], limit=int(asked["limit"]),
    )  # fmt: skip
    tools = data.tools_of(mixture)
    splits = [Rows(mixture, name) for name in SPLITS[asked["split"]]]
    with torch_threads(int(asked["threads"])):
        model, tokenizer, encoding, folder = open_checkpoint(checkpoint, device=asked["device"])
        refuse_other_encoding(mixture, encoding, tokenizer, where=folder)
        output = Path(asked["output"] or folder / "answers" / mixture.name)
        weights = [integrity.sha256_of(path) for path in sorted(folder.glob("*.safetensors"))]
        drawn = {
            "mixture": mixture.fingerprint, "weights": " ".join(weights), "split": asked["split"],
            **dataclasses.asdict(sampling),
        }  # fmt: skip
        claim(output, drawn)
        known: dict[str, bool] = {}
        for rows in splits:
            sample(
                model, tokenizer, rows, tools, sampling, wanted=wanted, names=names, known=known,
                batch=int(asked["batch"]), folder=output / "sampled",
            )  # fmt: skip
    hashed = hashlib.sha256(json.dumps(drawn).encode()).hexdigest()[:8]
    found = found_of(splits, tools, output / "sampled", video=durations(mixture))
    if asked["metric"] == "none" and not asked["ratings"]:
        write_candidates(found, mixture, output, hashed)
        write_mark(output / MARK, {"drawn": drawn})
        return output
    ratings = ratings_of(asked["ratings"], asked["rating"]) if asked["ratings"] else None
    made = write_pairs(
        found, mixture, output, names,
        metric="" if asked["ratings"] else asked["metric"], rule=rule, ratings=ratings or {},
    )  # fmt: skip
    scored = {name: asked[name] for name in ("metric", "right", "chosen", "pairs", "ratings")}
    made |= {"scored": scored}
    write_mark(output / MARK, made | {"drawn": drawn})
    return output


def checked(options: Mapping[str, str]) -> dict[str, str]:
    """All options; raises ValueError for a mistake in them."""
    for name in options:
        if name not in OPTIONS:
            raise ValueError(f"answers: unknown key '{name}'. {did_you_mean(name, list(OPTIONS))}")
    asked = OPTIONS | dict(options)
    if not asked["data"]:
        raise ValueError("answers: data is not set. Expected data=DIR, a finished mixture.")
    if asked["output"]:
        local_path(asked["output"], "answers: output")
    for name, known in (
        ("split", list(SPLITS)), ("metric", [*METRICS, "none"]), ("chosen", ["sampled", "gold"]),
    ):  # fmt: skip
        if asked[name] not in known:
            raise ValueError(f"answers: {name}={asked[name]}: {did_you_mean(asked[name], known)}")
    for name in WHOLE:
        least = 1 if name in ("generations", "max_new_tokens", "pairs", "batch") else 0
        if not asked[name].isdigit() or int(asked[name]) < least:
            raise ValueError(
                f"answers: {name}={asked[name]}: expected a whole number, {least} or more."
            )
    if not is_number(asked["temperature"]) or float(asked["temperature"]) <= 0:
        raise ValueError(
            f"answers: temperature={asked['temperature']}: expected a number above 0; 1 draws what "
            "the model gives."
        )
    if asked["right"] and not is_number(asked["right"]):
        raise ValueError(f"answers: right={asked['right']}: expected a number.")
    return asked


def is_number(text: str) -> bool:
    """Whether it is a finite number."""
    try:
        return abs(float(text)) < float("inf")
    except ValueError:
        return False


def rule_of(asked: Mapping[str, str]) -> Rule:
    """What is right, and which pairs are made."""
    if asked["ratings"] and not (asked["right"] and asked["rating"]):
        raise ValueError(
            "answers: ratings needs rating=COLUMN and right=N, the least rating of a good answer; "
            "e.g. ratings=out/judged/candidates-finevision.parquet rating=relevance right=4."
        )
    right = float(asked["right"] or 1.0)
    return Rule(right=right, chosen=asked["chosen"], pairs=int(asked["pairs"]))


def claim(output: Path, drawn: Mapping[str, Any]) -> None:
    """The folder is empty, or holds answers drawn alike; else ValueError says what differs."""
    file = output / MARK
    if file.is_file():
        before = json.loads(file.read_text())["drawn"]
        differs = [
            f"  {name}: {before.get(name)} -> {value}"
            for name, value in drawn.items()
            if before.get(name) != value
        ]
        if differs:
            raise ValueError(
                f"output={output} holds answers that were drawn otherwise:\n"
                + "\n".join(differs)
                + "\nway out: name another output=, or use these settings again."
            )
    elif output.is_dir() and any(not file.name.startswith(ARRIVING) for file in output.iterdir()):
        raise ValueError(
            f"output={output} is not empty and holds no answers. Nothing was written. Name another "
            "with output=DIR."
        )
    output.mkdir(parents=True, exist_ok=True)
    if not file.is_file():
        write_mark(file, {"drawn": drawn})
    (output / "sampled").mkdir(exist_ok=True)


def write_mark(file: Path, about: Mapping[str, Any]) -> None:
    """The file says that of the folder, whole or not at all."""
    arriving = file.with_name(f"{ARRIVING}{file.name}")
    arriving.write_text(json.dumps(about, indent=2) + "\n")
    arriving.replace(file)


def summary(made: Mapping[str, Any]) -> list[str]:
    """A line per component: what became of its questions."""
    lines = []
    for name, about in made["components"].items():
        counts = ", ".join(f"{about[key]:,} {key}" for key in VERDICTS if about.get(key))
        rate = about["pass_rate"]
        lines.append(
            f"{name}: {about['questions']:,} questions, {about['pairs']:,} pairs"
            + (f"; {counts}" if counts else "")
            + (f"; {100 * rate:.1f} % of the answers are right" if rate is not None else "")
        )
    if not sum(about["pairs"] for about in made["components"].values()):
        lines.append("no pair: nothing to build. More generations, a higher temperature, or "
                     "chosen=gold where all are wrong")  # fmt: skip
    return lines
