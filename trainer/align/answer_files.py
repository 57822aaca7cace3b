"""What is made of sampled answers: ANSWERS, PAIRS, CANDIDATES, and the mixtures of these."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tokenization.decode import PLAIN, Decoded, seconds_of
from tokenization.terminal import say
from trainer.align import data
from trainer.align.rejection import VERDICTS, Answered, Outcome, Rule, outcome_of
from trainer.align.sampled import chunks, key
from trainer.data.shards import Mixture, Rows
from trainer.evaluation.metrics import options_in, score_of

ROWS = 64
"""Of a row group: images are heavy."""
HELD_OUT = 0.05
"""Of the mixtures that are written; align measures on it."""
_MESSAGES = pa.list_(data.MESSAGE)
_IMAGES = [
    ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
    ("image_seconds", pa.list_(pa.float32())),  # of a video's frame; null: a still
]
PAIRS = pa.schema(
    [
        ("id", pa.string()),  # of the sample that was asked about
        ("prompt", _MESSAGES),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        *_IMAGES,
        ("chosen_score", pa.float64()),  # null: the gold answer
        ("rejected_score", pa.float64()),
    ]
)
CANDIDATES = pa.schema([("id", pa.string()), ("messages", _MESSAGES), *_IMAGES])
ANSWERS = pa.schema(
    [
        ("id", pa.string()),
        ("verdict", pa.string()),  # why it makes no pair (rejection.py); null: it does
        ("pass_rate", pa.float64()),  # share of its answers that are right
        ("score", pa.float64()),  # the mean of its answers
        ("gold", pa.string()),
        (
            "answers",
            pa.list_(pa.struct([("text", pa.string()), ("finished", pa.bool_()),
                                ("score", pa.float64())])),
        ),
    ]
)  # fmt: skip


def durations(mixture: Mixture) -> dict[str, float]:
    """Of each sample with a video in the shards, its length in seconds, 0 where it is not known."""
    found: dict[str, float] = {}
    with pa.ipc.open_file(pa.memory_map(str(mixture.folder / "index.arrow"))) as reader:
        if "modality" not in reader.schema.names:
            return found
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number).select(["id", "modality", "duration"])
            for line in pa.Table.from_batches([batch]).to_pylist():
                if line["modality"] == "video":
                    found[line["id"]] = line["duration"] or 0.0
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """A question that was met, its line of SAMPLED, and when its images stand in a video."""

    one: Decoded
    line: Mapping[str, Any]
    seconds: list[float | None]

    def media(self) -> dict[str, Any]:
        """Its images, as rows have them."""
        images = [{"bytes": image, "path": None} for image in self.one.images]
        return {"images": images, "image_seconds": self.seconds}

    def prompt(self) -> list[dict[str, Any]]:
        """The messages before its last answer."""
        return [data.message(role, parts) for role, parts in self.one.conversation[:-1]]


def found_of(
    splits: Sequence[Rows], tools: Any, folder: Path, *, video: Mapping[str, float]
) -> Iterator[Found]:
    """Every sequence that has a line in the files of SAMPLED, in the order of the shards."""
    for rows in splits:
        for number in range(len(rows.shards)):
            for name, sequences in chunks(rows, number, tools):
                file = folder / f"{name}.parquet"
                if not file.is_file():  # beyond the limit
                    return
                lines = {
                    (line["id"], line["key"]): line for line in pq.read_table(file).to_pylist()
                }
                for one in sequences:
                    line = lines.pop((one.id, key(one)), None)
                    if line is not None:
                        seconds = seconds_of(
                            one.conversation, one.grids, video.get(one.id) or None,
                            video=one.id in video,
                        )  # fmt: skip
                        yield Found(one=one, line=line, seconds=seconds)


def candidates(line: Mapping[str, Any]) -> list[str]:
    """The answers of a line that a judge is asked about, each text once, in their order."""
    return list(dict.fromkeys(
        each["text"] for each in line["answers"] if each["finished"] and each["text"].strip()
    ))  # fmt: skip


def write_candidates(found: Iterator[Found], mixture: Mixture, output: Path, hashed: str) -> None:
    """A row of CANDIDATES per answer, and the mixture of them."""
    name, count = f"candidates-{hashed}.parquet", 0
    with Writer(output / name, CANDIDATES) as writer:
        for each in found:
            for text in candidates(each.line):
                said = [*each.prompt(), data.message("assistant", [text])]
                writer.add({"id": each.one.id, "messages": said, **each.media()})
                count += 1
    write_mixture(mixture, output / "candidates.yaml", source="messages", rows=name,
                  val_fraction=0.0)  # fmt: skip
    say(f"{count:,} different answers, not scored: build {output}/candidates.yaml, `judge` it, and "
        "say this command again with ratings=FILE")  # fmt: skip


class Writer:
    """A Parquet file of rows, some at a time; whole when the block ends well, else not there."""

    def __init__(self, file: Path, schema: pa.Schema) -> None:
        """Writes beside `file` until it is closed."""
        self.file, self.schema = file, schema
        self.arriving = file.with_suffix(".arriving")
        self.waiting: list[dict[str, Any]] = []
        self.count = 0

    def __enter__(self) -> "Writer":
        self.sink = pq.ParquetWriter(self.arriving, self.schema)
        return self

    def add(self, row: dict[str, Any]) -> None:
        """One more row."""
        self.waiting.append(row)
        self.count += 1
        if len(self.waiting) == ROWS:
            self._write()

    def _write(self) -> None:
        if self.waiting:
            self.sink.write_table(pa.Table.from_pylist(self.waiting, schema=self.schema))
        self.waiting = []

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if kind is None:
            self._write()
        self.sink.close()
        if kind is None and self.count:
            self.arriving.rename(self.file)
        else:
            self.arriving.unlink()
            if kind is None:
                self.file.unlink(missing_ok=True)  # of an earlier rule


def write_mixture(
    mixture: Mixture, file: Path, *, source: str, rows: str, val_fraction: float
) -> None:
    """The YAML of a mixture of the rows, in the encoding of the mixture they were asked of."""
    encoding = dataclasses.asdict(mixture.encoding) | PLAIN
    if str(encoding["tokenizer"]).startswith("private:"):  # of a folder that only its maker knows
        encoding["tokenizer"] = str((mixture.folder / "tokenizer").resolve())
    written = {
        "description": f"Answers of a checkpoint to questions of {mixture.name}.",
        "tokens": "max",
        "val_fraction": val_fraction,
        "encoding": encoding,
        "components": {
            "answers": {
                "source": source, "data": f"./{rows}", "ratio": 1.0, "placeholders": "literal",
            }
        },
    }  # fmt: skip
    file.write_text(yaml.safe_dump(written, sort_keys=False, allow_unicode=True, width=100))


def ratings_of(file: str, column: str) -> dict[int, float | None]:
    """Row of CANDIDATES -> its rating, null where it has none; ids of samples end in their row.

    Raises:
        ValueError: no such column, or one that holds no numbers.
        FileNotFoundError: no such file.
    """
    if not Path(file).is_file():
        raise FileNotFoundError(f"answers: ratings={file}: no such file. `judge` writes it.")
    names = [field.name for field in pq.read_schema(file)
             if pa.types.is_integer(field.type) or pa.types.is_floating(field.type)]  # fmt: skip
    if column not in names:
        raise ValueError(f"answers: rating={column}: {file} has {', '.join(names)}.")
    table = pq.read_table(file, columns=["id", column]).to_pydict()
    return {
        int(name.rpartition("/")[2]): None if value is None else float(value)
        for name, value in zip(table["id"], table[column], strict=True)
    }


def scored(
    line: Mapping[str, Any], *, metric: str, ratings: Mapping[int, float | None], first: int
) -> list[Answered]:
    """A line's answers with their scores: of the metric, or where there is none, of its ratings,
    those of CANDIDATES from row `first` on.
    """
    by_text = {text: ratings.get(row) for row, text in enumerate(candidates(line), first)}
    return [
        Answered(
            text=each["text"],
            finished=each["finished"],
            score=score_of(metric, each["text"], line["gold"], question=line["question"])
            if metric
            else by_text.get(each["text"]),
        )
        for each in line["answers"]
    ]


def outcome(
    line: Mapping[str, Any], answers: Sequence[Answered], *, metric: str, rule: Rule
) -> Outcome:
    """What became of a line of SAMPLED."""
    optionless = metric == "multiple_choice" and not options_in(line["question"] or "")
    if line["gold"] is None or optionless:
        return Outcome(verdict="no_gold")
    return outcome_of(answers, line["gold"], rule)


def write_pairs(
    found: Iterator[Found],
    mixture: Mixture,
    output: Path,
    names: Mapping[str, str],
    *,
    metric: str,
    rule: Rule,
    ratings: Mapping[int, float | None],
) -> dict[str, Any]:
    """ANSWERS, PAIRS and the mixture of these are in `output`; returns the counts by component."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    rates: dict[str, list[float]] = defaultdict(list)
    lines: dict[str, dict[str, Any]] = {}
    row = 0
    with Writer(output / "pairs.parquet", PAIRS) as writer:
        for each in found:
            answers = scored(each.line, metric=metric, ratings=ratings, first=row)
            row += len(candidates(each.line))
            what = outcome(each.line, answers, metric=metric, rule=rule)
            prefix = each.one.id.rpartition("/")[0]
            about = counts[names.get(prefix, prefix)]
            about.update(questions=1, pairs=len(what.pairs))
            about.update([what.verdict] if what.verdict else [])
            if what.pass_rate is not None:
                rates[names.get(prefix, prefix)].append(what.pass_rate)
            add(lines, each, answers, what)
            for better, worse in what.pairs:
                writer.add({
                    "id": each.one.id, "prompt": each.prompt(), "chosen": better.text,
                    "rejected": worse.text, "chosen_score": better.score,
                    "rejected_score": worse.score, **each.media(),
                })  # fmt: skip
        if metric == "" and ratings and max(ratings) >= row:
            raise ValueError(
                f"answers: ratings has row {max(ratings)}, and there are {row} candidates: it is "
                "of others.\nway out: judge the mixture of candidates.yaml in this folder."
            )
    table = pa.Table.from_pylist(list(lines.values()), schema=ANSWERS)
    arriving = output / "answers.arriving"
    pq.write_table(table, arriving)
    arriving.rename(output / "answers.parquet")
    if writer.count:
        write_mixture(mixture, output / "pairs.yaml", source="preferences", rows="pairs.parquet",
                      val_fraction=HELD_OUT)  # fmt: skip
    else:
        (output / "pairs.yaml").unlink(missing_ok=True)
    return {
        "components": {
            name: {
                **{key: about[key] for key in ("questions", "pairs", *VERDICTS)},
                "pass_rate": sum(rates[name]) / len(rates[name]) if rates[name] else None,
            }
            for name, about in sorted(counts.items())
        }
    }


def add(
    lines: dict[str, dict[str, Any]], found: Found, answers: Sequence[Answered], what: Outcome
) -> None:
    """The line of ANSWERS of a sample; of one that was split, of all its parts together."""
    said = [dataclasses.asdict(each) for each in answers]
    line = {
        "id": found.one.id, "verdict": what.verdict, "pass_rate": what.pass_rate,
        "score": what.score, "gold": found.line["gold"], "answers": said,
    }  # fmt: skip
    before = lines.get(found.one.id)
    if before is not None:
        had, have = len(before["answers"]), len(said)
        for name in ("pass_rate", "score"):
            values = [(before[name], had), (line[name], have)]
            known = [(value, times) for value, times in values if value is not None and times]
            total = sum(times for _, times in known)
            line[name] = sum(v * times for v, times in known) / total if total else None
        line["answers"] = before["answers"] + said
        line["verdict"] = before["verdict"] and line["verdict"]
    lines[found.one.id] = line
