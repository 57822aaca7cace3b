"""Benchmarks that runs are asked: read and refused before the first run, scored once a run.

```
{name: {file: vqa.tsv, metric: exact}} --read_benchmarks--> {name: Benchmark}
Run, Benchmark --benchmark_score--> RUN/scored-KEY.json
```
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenization.images import image_size, open_image
from trainer.ablation.runs import Run, finished, write_json
from trainer.arguments import did_you_mean
from trainer.config import Benchmark
from trainer.data.shards import Mixture, Rows
from trainer.evaluation import benchmark
from trainer.evaluation.benchmark import Case
from trainer.evaluation.metrics import OPTION, tidy_text
from trainer.model.initial import tokenizer_of

VERSION = 2
"""Of a score that is kept."""
KEYS = [each.name for each in dataclasses.fields(Benchmark) if each.name != "weight"]
"""What is said of one; `target` weighs it, and a sweep compares each by itself."""


def read_benchmarks(value: Any, *, where: str) -> dict[str, Benchmark]:
    """What is stated, checked: files that can be read, metrics that there are, scores that vary."""
    if not isinstance(value or {}, dict):
        raise ValueError(f"{where}: found {value!r}, expected names and their files.")
    found = {}
    for name, lines in (value or {}).items():
        here = f"{where}.{name}"
        if not isinstance(lines, dict):
            raise ValueError(
                f"{here}: found {lines!r}, expected {{file: FILE.tsv, metric: exact}}."
            )
        for key in lines:
            if key not in KEYS:
                raise ValueError(f"{here}: unknown key '{key}'. {did_you_mean(str(key), KEYS)}")
        if not Path(str(lines.get("file", ""))).is_file():
            raise FileNotFoundError(f"{here}: file: {lines.get('file')!r} is no file.")
        asked = Benchmark(**{**lines, "choices_from": str(lines.get("choices_from", "auto"))})
        try:
            _refuse_constant(asked, cases_of(asked))
        except ValueError as error:
            raise ValueError(f"{here}: {error}") from error
        found[str(name)] = asked
    return found


def cases_of(asked: Benchmark) -> list[Case]:
    """The questions of its file."""
    return benchmark.read(Path(asked.file), choices_from=asked.choices_from)


def _refuse_constant(asked: Benchmark, cases: Sequence[Case]) -> None:
    """ValueError where no answer can be right, so that every model scores the same."""
    metric = asked.metric
    if metric == "auto":
        metric = benchmark.default_metric(cases)
    own = [next((each for each in case.gold if each.strip()), "") for case in cases]
    points = benchmark.scores(cases, own, metric)
    if not any(point for point, said in zip(points, own, strict=True) if said):
        raise ValueError(
            f"{asked.file}: the metric {metric} is constant: even the answers of the file itself "
            "score 0.\nway out: another metric, or a file with answers."
        )


def benchmark_score(run: Run, asked: Benchmark) -> float:
    """What the finished run scores; asked once."""
    counted = "" if asked.choices_from == "auto" else asked.choices_from
    said = f"{VERSION}{asked.metric}{counted}".encode()
    key = hashlib.sha256(Path(asked.file).read_bytes() + said).hexdigest()[:12]
    file = run.folder / f"scored-{key}.json"
    if not file.is_file():
        last = finished(run)
        assert last is not None
        write_json(file, checkpoint_score(run, last, asked))
    return float(json.loads(file.read_text()))


def checkpoint_score(run: Run, folder: Path, asked: Benchmark) -> float:
    """What a checkpoint scores, on the device of the run's settings."""
    from trainer.evaluation.evaluate import evaluated

    result, *_ = evaluated(
        [str(folder), f"bench={asked.file}", f"metric={asked.metric}",
         f"choices_from={asked.choices_from}", f"device={run.config.device}",
         f"threads={run.config.threads}", f"output={run.folder / 'evaluations'}"]
    )  # fmt: skip
    return float(result["score"])


def refuse_trained(benchmarks: Mapping[str, Benchmark], mixture: Mixture, *, who: str) -> None:
    """ValueError where the mixture trains on what a benchmark asks."""
    for name, asked in benchmarks.items():
        cases = cases_of(asked)
        if known := trained_on(cases, mixture):
            raise ValueError(
                f"{who}: of the {len(cases)} questions of the benchmark {name}, {len(known)} are "
                f"trained on in {mixture.folder} (index {known[0]} for one), so its score says "
                "nothing.\nway out: keep them out: python -m pipelines hashes "
                f"{name} data={asked.file}, and in the mixture filters: {{contaminated: "
                f"{{benchmarks: [hashes/{name}.parquet]}}}}."
            )


def trained_on(cases: Sequence[Case], mixture: Mixture) -> list[str]:
    """The index of every question one of whose images, or that itself where it has none, is in the
    train split: equal pixels, and the words of a user's turn, with the options or without. What is
    only near is for the rule `contaminated`.
    """
    images = {data for case in cases for data in case.question.images}
    texts = {text for case in cases if not case.question.images for text in _ways(case)}
    shown = _shown(images, mixture)
    asked = texts & set(_turns(mixture)) if texts else set()
    return [
        case.index
        for case in cases
        if any(data in shown for data in case.question.images)
        or (not case.question.images and asked & _ways(case))
    ]


def _ways(case: Case) -> set[str]:
    """The question as it may stand in a user's turn."""
    return {tidy_text(case.written), tidy_text(case.question.text)}


def _shown(images: set[bytes], mixture: Mixture) -> set[bytes]:
    """Those of the images that a train row shows; pixels are compared where sizes agree."""
    if not images:
        return set()
    pixels: dict[bytes, list[bytes]] = {}
    for data in images:
        pixels.setdefault(_pixels(data), []).append(data)
    sizes, found, seen = {image_size(data) for data in images}, set[bytes](), set[bytes]()
    rows = Rows(mixture, "train")
    for number in range(len(rows)):
        for data in rows[number].images:
            key = hashlib.sha256(data).digest()
            if key not in seen and image_size(data) in sizes:
                found.update(pixels.get(_pixels(data), ()))
            seen.add(key)
    return found


def _pixels(data: bytes) -> bytes:
    image = open_image(data)
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).digest()


def _turns(mixture: Mixture) -> Iterator[str]:
    """The words of every user's turn of the train split."""
    tokenizer = tokenizer_of([mixture])
    rows = Rows(mixture, "train")
    for number in range(len(rows)):
        row, start = rows[number], 0
        for length in row.seq_lengths.tolist():
            text = tokenizer.decode(row.input_ids[start : start + length].tolist())
            start += length
            for turn in text.split("<end_of_utterance>"):
                _, asks, words = turn.partition("User:")
                if asks:
                    yield tidy_text(words)
                    yield tidy_text(OPTION.split(words, maxsplit=1)[0])
