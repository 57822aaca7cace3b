"""Answers that were paid for, kept in a folder by prompt and model: one line of JSON each.

    FOLDER/<fingerprint of prompt, model and settings>/answers.jsonl   appended, synced by line
                                                       about.json      what the fingerprint is of

A line holds what the model said as it said it; what that amounts to is made of it when it is read.
Answers are found by the content that was asked about, so a sample that lies in two mixtures is
asked about once. A line that a kill cut off is no answer: it is taken away before the next one.
"""

import fcntl
import io
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.engine import tables
from pipelines.served.endpoint import NotTaken, Reply, Unanswered

FILE = "answers.jsonl"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the file."""

    content: str
    """Of the question: its digest."""
    id: str
    """The sample it was first asked about."""
    outcome: Reply | NotTaken | Unanswered
    sent: int
    """Requests that it took."""
    estimate: int = 0
    """Tokens that were expected to go in."""
    used: int = 0
    """Tokens that count against a budget: those stated, else the estimate."""


@dataclass
class Answers:
    """Those of one prompt and model; appended to by threads."""

    file: BinaryIO
    known: dict[str, Line] = field(default_factory=dict)
    """Content -> its answer, or the refusal to take it."""
    samples: set[str] = field(default_factory=set)
    """Ids that were ever asked about."""
    requests: int = 0
    """Sent, in all runs."""
    tokens: int = 0
    answered: int = 0
    """Replies, of any worth."""
    put: int = 0
    """Tokens that went in, where the server states them, and below how many were expected."""
    expected: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def scale(self) -> float:
        """Tokens that went in for each that was expected, of what was answered so far."""
        with self.lock:
            return self.put / self.expected if self.expected else 1.0

    def add(self, line: Line) -> None:
        """The line lies on the disk."""
        kind = type(line.outcome).__name__
        record = {**asdict(line), "outcome": {"kind": kind, **asdict(line.outcome)}}
        text = json.dumps(record, ensure_ascii=True, separators=(",", ":")) + "\n"
        with self.lock:
            self.file.write(text.encode())
            self.file.flush()
            os.fsync(self.file.fileno())
            self._count(line)

    def _count(self, line: Line) -> None:
        self.requests += line.sent
        self.tokens += line.used
        self.samples.add(line.id)
        if isinstance(line.outcome, Reply):
            self.answered += 1
            if line.outcome.input_tokens and line.estimate:
                self.put += line.outcome.input_tokens
                self.expected += line.estimate
        if not isinstance(line.outcome, Unanswered):
            self.known[line.content] = line


@contextmanager
def opened_answers(folder: Path, about: Mapping[str, Any]) -> Iterator[Answers]:
    """The folder's answers, to be added to by this process alone.

    Raises:
        ValueError: another one is asking, or the file is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "about.json").exists():
        tables.write_json(folder / "about.json", dict(about))
    with (folder / FILE).open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"{folder}: another command is asking for these answers. Wait for it, so that none "
                "is paid for twice."
            ) from error
        found = Answers(file)
        file.truncate(read_lines(found, where=str(folder / FILE)))
        yield found


def known_answers(folder: Path) -> Answers:
    """The folder's answers, to be looked at."""
    path = folder / FILE
    found = Answers(io.BytesIO(path.read_bytes() if path.exists() else b""))
    read_lines(found, where=str(path))
    return found


def read_lines(answers: Answers, *, where: str) -> int:
    """The answers know the lines of their file; returns how many bytes those are."""
    answers.file.seek(0)
    whole = 0
    for number, line in enumerate(answers.file, 1):
        if not line.endswith(b"\n"):
            break  # cut off by a kill
        whole += len(line)
        answers._count(read_line(line, where=f"{where}:{number}"))
    return whole


def read_line(line: bytes, *, where: str) -> Line:
    """The line; raises ValueError where it is none of ours."""
    kinds = {kind.__name__: kind for kind in (Reply, NotTaken, Unanswered)}
    try:
        record = json.loads(line)
        outcome = record.pop("outcome")
        return Line(**record, outcome=kinds[outcome.pop("kind")](**outcome))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{where}: no answer of ours ({error}). Take the line away: it is asked for again."
        ) from error
