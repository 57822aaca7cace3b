r"""A served model is asked about the samples of a finished mixture: who is asked, what is left.

    index, samples in `work` --questions--> content known? --no--> engine --> answers.jsonl
                                                 \--yes------------------------/

It is of commands over a finished mixture and no stage of `build`: an answer is of a network and of
money, and a build is of its mixture alone.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipelines import recipe as recipes
from pipelines.engine import tables
from pipelines.report.finished import Finished, open_finished
from pipelines.report.show import known_component
from pipelines.served.answers import Answers, Line, known_answers, opened_answers
from pipelines.served.budget import Budget
from pipelines.served.counts import Asked, Rows, outcome_of_line
from pipelines.served.endpoint import NotTaken, Reply, Unanswered
from pipelines.served.engines import Engine
from pipelines.served.prompts import Prompt
from pipelines.served.questions import (
    IMAGE_TOKENS,
    Question,
    Settings,
    body,
    expected_tokens,
    question_of,
)
from tokenization.terminal import log

GIVE_UP = 8
"""Requests in a row, all their tries failed, after which the endpoint is taken for dead."""
EVERY = 500
"""Answers between two lines of progress."""
COLUMNS = ["id", "messages", "images"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much is asked, and at what price."""

    concurrency: int = 8
    max_requests: int = 0
    """In all runs with this prompt, model and settings; 0: no limit."""
    max_tokens: int = 0
    image_tokens: int = IMAGE_TOKENS
    """Of an image, expected before the server states any."""
    input_price: float = 0.0
    """For a million tokens."""
    output_price: float = 0.0
    again: bool = False
    """What got a bad verdict is asked again."""


@dataclass(frozen=True, kw_only=True)
class Where:
    """Which samples are asked about, and where they and their answers lie."""

    component: str = ""
    """Of this one alone."""
    work: str = "out/work"
    answers: str = ""
    """The folder in which answers are kept; empty: in `work`."""
    output: str = ""
    """The table; empty: a name in the command's own folder."""

    @property
    def home(self) -> Path:
        """Where the answers of all prompts lie; raises ValueError where that is no disk."""
        home = self.answers or tables.join(self.work, "answers")
        if tables.is_remote(home):
            raise ValueError(
                f"work={self.work}: answers are appended one by one, which a store cannot. Name a "
                "folder on a disk with answers=DIR."
            )
        return Path(home)


@contextmanager
def everything_asked(
    folder: str, *, command: str, prompt: Prompt, engine: Engine, settings: Settings,
    options: Options, where: Where, as_read: bool = False, plan: bool = False,
) -> Iterator[tuple["Run", Answers, Asked]]:  # fmt: skip
    """(the run, all answers, the counts): every question has its answer on the disk, or is counted
    as missing; with `plan`, only what would be asked is known. `as_read`: about the texts as they
    came from the source, whatever the mixture has rewritten.

    Raises:
        ValueError: what would meet every request; `work` without the samples.
        FileNotFoundError: no finished mixture in `folder`.
    """
    mixture = open_finished(folder)
    if where.component:
        known_component(mixture, where.component)
    home = where.home / recipes.fingerprint(command, prompt.digest, engine.model, settings)
    run = Run(
        mixture=mixture, prompt=prompt, settings=settings, options=options, where=where,
        as_read=as_read,
    )  # fmt: skip
    if plan:
        known = known_answers(home)
        yield run, known, run.planned(known, run.questions(known))
        return
    about = {"prompt": asdict(prompt), "model": engine.model, "settings": asdict(settings)}
    with opened_answers(home, about) as known:
        run.ask_all(known, run.questions(known), engine)
        yield run, known, run.summary(known)


@dataclass
class Run:
    """One command: its settings, and what it has met so far."""

    mixture: Finished
    prompt: Prompt
    settings: Settings
    options: Options
    where: Where
    as_read: bool = False
    met: list[tuple[str, str, int]] = field(default_factory=list)
    """(id, content, turns) of every question, in the order of the index."""
    skipped: int = 0
    asked: int = 0
    silent: int = 0
    """Requests in a row without an answer."""
    stopped: str = ""
    why: str = ""

    # -------------------------------------------------------------- what is asked about

    def questions(self, answers: Answers) -> Iterator[Question]:
        """The questions about every sample that is kept, or was asked about before it was rejected:
        a rule on its ratings would let it in again if they were gone.
        """
        for sample in self.samples(answers, COLUMNS):
            question = question_of(sample, self.prompt, self.settings)
            if question is None:
                self.skipped += 1
            else:
                self.met.append((question.id, question.content, question.turns))
                yield question

    def samples(self, answers: Answers, read: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The samples that may be asked about, in the order of the index."""
        columns = ["id", "component", "subset", "part", "row", "rule"]
        component, work = self.where.component, self.where.work
        before = pl.Series(sorted(answers.samples), dtype=pl.String)
        for lines in self.mixture.lines(columns):
            ids = lines["id"].cast(pl.String)
            wanted = lines.filter(lines["rule"].is_null() | ids.is_in(before.implode()))
            if component:
                wanted = wanted.filter(pl.col("component").cast(pl.String) == component)
            for group in wanted.partition_by("component", "part", maintain_order=True):
                yield from samples_of(
                    self.mixture, group, work=work, columns=read, as_read=self.as_read
                )

    def is_known(self, question: Question, answers: Answers) -> bool:
        """Whether nothing is to be asked about it."""
        line = answers.known.get(question.content)
        if line is None:
            return False
        return not (
            self.options.again and outcome_of_line(line, self.prompt, question.turns).verdict
        )

    def expected(self, question: Question, answers: Answers) -> tuple[int, int]:
        """(tokens in, tokens out at most): by what the server stated of others, where it did."""
        if answers.expected:
            put, out = expected_tokens(question, self.prompt)
            return round(put * answers.scale), out
        return expected_tokens(question, self.prompt, image_tokens=self.options.image_tokens)

    def planned(self, answers: Answers, questions: Iterable[Question]) -> Asked:
        """What would be asked, and what it would cost."""
        needed: Counter[str] = Counter(requests=0, input_tokens=0, output_tokens=0)
        counted: set[str] = set()
        for question in questions:
            if question.content not in counted and not self.is_known(question, answers):
                counted.add(question.content)
                put, out = self.expected(question, answers)
                needed.update(requests=1, input_tokens=put, output_tokens=out)
        found = self.summary(answers)
        cost = self.price(needed["input_tokens"], needed["output_tokens"])
        found.needed = {**needed, "cost": cost}
        return found

    def price(self, put: int, out: int) -> float:
        """What so many tokens cost."""
        return (put * self.options.input_price + out * self.options.output_price) / 1e6

    # -------------------------------------------------------------- asking

    def ask_all(self, answers: Answers, questions: Iterable[Question], engine: Engine) -> None:
        """Every question has its answer on the disk, or the reason for the rest is known.

        Few questions are in memory; equal ones that are under way wait for the first.
        """
        budget = Budget(
            max_requests=self.options.max_requests, max_tokens=self.options.max_tokens,
            requests=answers.requests, tokens=answers.tokens,
        )  # fmt: skip
        refused: list[Line] = []
        begun: set[str] = set()
        running: set[Future[Line | None]] = set()
        with ThreadPoolExecutor(self.options.concurrency, thread_name_prefix="ask") as pool:
            try:
                for question in questions:
                    known = question.content in begun or self.is_known(question, answers)
                    if self.stopped or known:
                        continue  # the rest is met all the same: it has a line, or is missing
                    begun.add(question.content)
                    running.add(pool.submit(self.ask_one, question, answers, engine, budget))
                    if len(running) < 2 * self.options.concurrency:
                        continue
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    self.settle(done, answers, refused, engine)
                    self.stopped = self.stopped or budget.reached
                    if self.stopped == "endpoint":
                        engine.stop()
                while running:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    self.settle(done, answers, refused, engine)
            except BaseException:
                engine.stop()  # what is under way is paid for: it is waited for, and kept
                pool.shutdown(cancel_futures=True)
                raise
        self.stopped = self.stopped or budget.reached
        if refused:
            raise ValueError(none_taken(engine, refused))

    def ask_one(
        self, question: Question, answers: Answers, engine: Engine, budget: Budget
    ) -> Line | None:
        """What became of one question; an answer lies on the disk. Null: a budget is reached."""
        if self.stopped:
            return None
        reserved, used = sum(self.expected(question, answers)), 0
        if not budget.reserve(reserved):
            return None
        try:
            request = body(question, self.prompt, self.settings, model=engine.model)
            got, sent = engine.ask(request, budget.request)
            if isinstance(got, Reply):
                used = got.input_tokens + got.output_tokens or reserved
            line = Line(
                content=question.content, id=question.id, outcome=got, sent=sent,
                estimate=expected_tokens(question, self.prompt)[0], used=used,
            )  # fmt: skip
            if not isinstance(got, NotTaken) and sent:
                answers.add(line)
            return line
        finally:
            budget.settle(reserved, used=used)

    def settle(
        self, done: Iterable[Future[Line | None]], answers: Answers, refused: list[Line],
        engine: Engine,
    ) -> None:  # fmt: skip
        """What is done is counted; refusals are kept once something was answered, since until then
        they may be of the settings.
        """
        for future in done:
            line = future.result()
            if line is None:
                continue
            if isinstance(line.outcome, Unanswered):
                self.silent += bool(line.sent)
                self.why = line.outcome.why
                if self.silent >= GIVE_UP:
                    self.stopped = self.stopped or "endpoint"
                continue
            self.silent = 0
            self.asked += 1
            if self.asked % EVERY == 0:
                log(f"{self.asked:,} answers, {answers.requests:,} requests in all")
            if isinstance(line.outcome, NotTaken):
                refused.append(line)
            if refused and answers.answered:
                for late in refused:
                    answers.add(late)
                refused.clear()
            if len(refused) >= GIVE_UP:
                raise ValueError(none_taken(engine, refused))

    # -------------------------------------------------------------- what came of it

    def about(self, answers: Answers, engine: Engine) -> dict[str, Any]:
        """What a table made of the answers says of itself; nothing of it depends on how often a
        request was tried.
        """
        found = self.summary(answers)
        lines = [answers.known.get(content) for content in {c for _, c, _ in self.met}]
        replies = [one.outcome for one in lines if one and isinstance(one.outcome, Reply)]
        return {
            "prompt": recipes.to_json(self.prompt),
            "model": engine.model,
            "engine": engine.kind,
            "settings": recipes.to_json(self.settings),
            "rewritten": [] if self.as_read else rewritten_in(self.mixture.recipe),
            "asked": found.good + found.bad.total(),
            "good": found.good,
            "bad": dict(sorted(found.bad.items())),
            "missing": found.missing,
            "input_tokens": sum(reply.input_tokens for reply in replies),
            "output_tokens": sum(reply.output_tokens for reply in replies),
        }

    def rows(self, answers: Answers) -> Rows:
        """What became of every question."""
        for sample, content, turns in self.met:
            line = answers.known.get(content)
            yield sample, None if line is None else outcome_of_line(line, self.prompt, turns)

    def summary(self, answers: Answers) -> Asked:
        """The counts."""
        found = Asked(
            samples=len(self.met) + self.skipped, skipped=self.skipped, asked=self.asked,
            stopped=self.stopped, why=self.why, requests=answers.requests, tokens=answers.tokens,
        )  # fmt: skip
        for _, outcome in self.rows(answers):
            if outcome is None:
                found.missing += 1
            elif outcome.verdict:
                found.bad[outcome.verdict] += 1
            else:
                found.good += 1
        replies = [line.outcome for line in answers.known.values()]
        found.cost = sum(
            self.price(r.input_tokens, r.output_tokens) for r in replies if isinstance(r, Reply)
        )
        return found


def rewritten_in(recipe: Mapping[str, Any]) -> list[list[str]]:
    """The names of the rewritings of each component, in order; each list once."""
    of: dict[str, list[str]] = {name: [] for name in recipe["mixture"]["components"]}
    for one in recipe.get("models", ()):
        for component in one["components"] if one["command"] == "rewrite" else ():
            of[component].append(one["name"])
    return sorted({tuple(names): names for names in of.values()}.values())


def none_taken(engine: Engine, refused: list[Line]) -> str:
    """The message where a server took none of the first requests."""
    first = refused[0].outcome
    assert isinstance(first, NotTaken)
    return (
        f"{engine.where}: the first {len(refused)} requests were refused, none was answered\n"
        f"found: status {first.status}: {first.message}\n"
        "way out: structured=false where it knows no response_format, a smaller max_images= or "
        "max_edge= where images are too many or too large"
    )


def samples_of(
    mixture: Finished, lines: pl.DataFrame, *, work: str, columns: Sequence[str], as_read: bool
) -> Iterator[dict[str, Any]]:
    """The samples of lines of one part, out of `work`, some at a time; `as_read`, or as the mixture
    has rewritten them.

    Raises:
        ValueError: they are no longer there.
    """
    of_part = {name: str(lines[name][0]) for name in ("component", "subset", "part")}
    if path := mixture.missing_file(**of_part, work=work):
        raise ValueError(
            f"work={work}: the samples of {of_part['part']} are not there ({path}).\nway out: say "
            "work=DIR where the build kept them, or build the mixture again: it reads them anew"
        )
    for some in lines.iter_slices(tables.ROWS_PER_BATCH):
        rows = np.sort(some["row"].to_numpy().astype(np.int64))
        found = mixture.take_samples(
            **of_part, rows=rows, columns=columns, as_read=as_read, work=work
        )
        for number in range(len(found)):
            yield found.slice(number, 1).to_pylist()[0]
