"""`python -m trainer evaluate CHECKPOINT bench=FILE.tsv`: a checkpoint is asked, scored, compared.

| written beside the checkpoint, evaluations/ | is                                              |
|---------------------------------------------|-------------------------------------------------|
| BENCH.json                                  | the score with its interval, also per category  |
| BENCH.tsv                                   | questions, answers, what the model said, scores |
| BENCH-against-OTHER.json                    | the paired comparison of two checkpoints        |
| BENCH.vlmevalkit.json, LMUData/BENCH.tsv    | for `run.py --config` of VLMEvalKit             |

`images=shuffled` gives every question another one's image: what the questions alone give away.
`prompts=plain` leaves out the words that training put around a conversation (system prompt, words
before and after images), as most programs do.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenization.command_line import Answer
from tokenization.inference import plain_encoding
from tokenization.terminal import log
from trainer.arguments import did_you_mean, local_path, split_pairs
from trainer.checkpoint import resolve_checkpoint
from trainer.evaluation import vlmevalkit
from trainer.evaluation.answer import answers, open_checkpoint
from trainer.evaluation.benchmark import (
    Case,
    default_metric,
    image_clusters,
    read,
    scores,
    shuffled,
    summary,
    write_answers,
)
from trainer.evaluation.confidence import Scores, compare
from trainer.parallel import torch_threads

OPTIONS = {"bench": "", "metric": "auto", "against": "", "prompts": "trained", "images": "own",
           "limit": "0", "batch": "16", "max_new_tokens": "32", "device": "auto", "output": "",
           "threads": "0", "vlmevalkit": "", "choices_from": "auto"}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """A score or a comparison: what its file holds, and how it is said."""

    data: dict[str, Any]
    line: str


@dataclass(frozen=True)
class Judged:
    """What one checkpoint scored with one kind of prompts."""

    label: str
    file: Path
    """Of its scores."""
    points: list[float]
    found: Found


def evaluate_command(arguments: Sequence[str]) -> Answer:
    """`evaluate CHECKPOINT bench=FILE.tsv ...`."""
    found = _found(arguments)
    return Answer("\n".join(each.line for each in found), [each.data for each in found])


def evaluated(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """The scores, one for each checkpoint and kind of prompts, then the comparisons: what the files
    hold.
    """
    return [each.data for each in _found(arguments)]


def _found(arguments: Sequence[str]) -> list[Found]:
    if not arguments or "=" in arguments[0]:
        raise ValueError(
            "evaluate: expected a checkpoint: python -m trainer evaluate RUN bench=F.tsv"
        )
    checkpoint, options = arguments[0], _options(arguments[1:])
    if options["vlmevalkit"]:
        return [_write_for_vlmevalkit(checkpoint, options)]
    with torch_threads(int(options["threads"])):
        return _scored(checkpoint, options)


def _scored(checkpoint: str, options: Mapping[str, str]) -> list[Found]:
    """The scores and comparisons of these checkpoints on a TSV."""
    file = Path(options["bench"])
    cases = read(file, limit=int(options["limit"]), choices_from=options["choices_from"])
    unanswered = sum(not any(each.strip() for each in case.gold) for case in cases)
    if unanswered:
        log(f"{file}: {unanswered} of {len(cases)} questions have no answer in it, so whatever is "
            "said to them is scored as wrong", level=logging.WARNING)  # fmt: skip
    if options["images"] == "shuffled":
        cases = shuffled(cases, seed=0)
    metric = default_metric(cases) if options["metric"] == "auto" else options["metric"]
    scores(cases[:0], [], metric)  # an unknown metric is refused before a model is loaded
    judged = _judge(checkpoint, cases, metric, options, output=options["output"])
    if options["images"] == "own":
        _write_own_for_vlmevalkit(checkpoint, file, cases, judged[0].file.parent)
    compared = [_compare(judged[0], other, cases) for other in judged[1:]]
    others: list[Judged] = []
    if options["against"]:
        others = _judge(options["against"], cases, metric, options, output="")
        compared += [_compare(own, other, cases) for own, other in zip(judged, others, strict=True)]
    return [*(each.found for each in (*judged, *others)), *compared]


def _options(arguments: Sequence[str]) -> dict[str, str]:
    """All options, checked; ValueError names a mistake."""
    pairs = split_pairs(arguments)
    for key in pairs:
        if key not in OPTIONS:
            raise ValueError(f"evaluate: unknown key '{key}'. {did_you_mean(key, list(OPTIONS))}")
    options = OPTIONS | pairs
    for key in ("limit", "batch", "max_new_tokens", "threads"):
        if not options[key].isdigit():
            raise ValueError(f"evaluate: {key}={options[key]}: expected a whole number.")
    if options["images"] not in ("own", "shuffled"):
        raise ValueError(f"evaluate: images={options['images']}: expected own or shuffled.")
    kinds = _kinds(options)
    if not set(kinds) <= {"trained", "plain"} or len(set(kinds)) < len(kinds):
        raise ValueError(
            f"evaluate: prompts={options['prompts']}: expected trained, plain or trained,plain."
        )
    if options["vlmevalkit"]:
        if options["output"]:
            local_path(options["output"], "evaluate: output")
        return options
    if not options["bench"]:
        raise ValueError(
            "evaluate: bench is not set. Expected bench=FILE.tsv (VLMEvalKit's layout)."
        )
    if options["output"]:
        bench = Path(options["bench"])
        for kind in kinds:
            written = (
                local_path(options["output"], "evaluate: output") / f"{_name(options, kind)}.tsv"
            )
            if written.resolve() == bench.resolve():
                raise ValueError(f"evaluate: output={options['output']} would overwrite {bench}.")
    return options


def _kinds(options: Mapping[str, str]) -> list[str]:
    """Of prompts: trained, plain, or both."""
    return options["prompts"].replace("|", ",").split(",")


def _name(options: Mapping[str, str], kind: str) -> str:
    """Of the files that are written: what was asked, and how."""
    plain = "-plain" if kind == "plain" else ""
    return Path(options["bench"]).stem + plain + ("-shuffled" if options["images"] != "own" else "")


def _judge(
    checkpoint: str,
    cases: Sequence[Case],
    metric: str,
    options: Mapping[str, str],
    *,
    output: str,
) -> list[Judged]:
    """One result per kind of prompts, written."""
    model, tokenizer, trained, folder = open_checkpoint(checkpoint, device=options["device"])
    out = Path(output) if output else folder / "evaluations"
    run = vlmevalkit.label_of(folder)
    judged = []
    for kind in _kinds(options):
        name = _name(options, kind)
        said = answers(
            model, tokenizer, [case.question for case in cases],
            encoding=plain_encoding(trained) if kind == "plain" else trained,
            max_new_tokens=int(options["max_new_tokens"]), batch_size=int(options["batch"]),
        )  # fmt: skip
        points = scores(cases, said, metric)
        label = f"{run}-{kind}"
        result: dict[str, Any] = {"bench": Path(options["bench"]).stem, "checkpoint": run}
        result |= summary(cases, points, metric) | {"prompts": kind, "images": options["images"]}
        write_answers(out / f"{name}.tsv", cases, said, points)
        file = out / f"{name}.json"
        file.write_text(json.dumps(result, indent=2) + "\n")
        low, high = result["interval"]
        line = (
            f"{result['bench']}: {metric} {result['score']:.4f} ({low:.4f} to "
            f"{high:.4f}) over {len(cases)} questions about {result['clusters']} images, prompts "
            f"{kind}, images {options['images']}; {file}"
        )
        judged.append(Judged(label, file, points, Found(result, line)))
    return judged


def _compare(first: Judged, second: Judged, cases: Sequence[Case]) -> Found:
    """Writes by how much the first is better, question by question."""
    clusters = image_clusters(cases)
    found = compare(
        [Scores(points=first.points, clusters=clusters)],
        [Scores(points=second.points, clusters=clusters)],
    )
    by = found.difference
    file = first.file.with_name(f"{first.file.stem}-against-{second.label}.json")
    told: dict[str, Any] = {"first": first.label, "second": second.label, "difference": by.value,
            "interval": [by.low, by.high], "p": found.p, "questions": len(cases)}  # fmt: skip
    file.write_text(json.dumps(told, indent=2) + "\n")
    line = (
        f"{first.label} less {second.label}: {by.value:+.4f} ({by.low:+.4f} to {by.high:+.4f}), "
        f"p {found.p:.3g}; {file}"
    )
    return Found(told, line)


def _write_own_for_vlmevalkit(
    checkpoint: str, bench: Path, cases: Sequence[Case], out: Path
) -> None:
    """Beside the scores: what VLMEvalKit needs to judge the checkpoint on the same TSV."""
    own = vlmevalkit.own_class(cases)
    try:
        entries = {bench.stem: vlmevalkit.entry(bench.stem, own_class=own)}
    except ValueError as error:
        log(f"no file for VLMEvalKit: {error}")
        return
    root, warning = vlmevalkit.place(bench, bench.stem, out)
    if entries[bench.stem].get("class") == "CustomVQADataset":
        warning += " It will answer, but has no score for VQA of one's own: give it --mode infer."
    if any(case.restated for case in cases):
        warning += f" VLMEvalKit takes letters alone as answers: {bench} has others."
    file = out / f"{bench.stem}.vlmevalkit.json"
    log(vlmevalkit.write(resolve_checkpoint(Path(checkpoint)), entries, file, root=root))
    if warning:
        log(warning.strip())


def _write_for_vlmevalkit(checkpoint: str, options: Mapping[str, str]) -> Found:
    """What VLMEvalKit needs to judge the checkpoint on benchmarks of its own."""
    folder = resolve_checkpoint(Path(checkpoint))
    entries = vlmevalkit.entries_of(options["vlmevalkit"])
    out = Path(options["output"]) if options["output"] else folder / "evaluations"
    name = options["vlmevalkit"].replace(",", "+").replace(" ", "")
    file = out / f"{name}.vlmevalkit.json"
    line = vlmevalkit.write(folder, entries, file, root=None)
    return Found({"vlmevalkit": str(file), "benchmarks": list(entries)}, line)
