r"""`judge DIR prompt=... endpoint=...`: a served model rates the samples of a finished mixture.

    index, samples in `work` --questions--> content known? --no--> endpoint --> answers.jsonl
                                                 \--yes--------------------------/
    answers.jsonl --facts--> FILE.parquet (id, scores, verdict, reason), read by `annotations`

It is a command over a finished mixture and no stage of `build`: an answer is of a network and of
money, and a build is of its mixture alone. The mixture names the file of facts, whose content then
is part of its identity; nothing is read or encoded again for it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
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
from pipelines.served.endpoint import Endpoint, NotTaken, Pace, Reply, Unanswered, ask
from pipelines.served.facts import Judged, Rows, outcome, write_facts
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


def judge(
    folder: str,
    *,
    prompt: Prompt,
    endpoint: Endpoint,
    settings: Settings | None = None,
    options: Options | None = None,
    component: str = "",
    work: str = "out/work",
    answers: str = "",
    output: str = "",
    plan: bool = False,
) -> Judged:
    """Every kept sample of the mixture has a line of facts in `output`, or is counted as missing;
    with `plan`, only what would be asked is known.

    `answers`: the folder in which they are kept (default: in `work`).

    Raises:
        ValueError: what would meet every request; `work` without the samples.
        FileNotFoundError: no finished mixture in `folder`.
    """
    settings, options = settings or Settings(), options or Options()
    mixture = open_finished(folder)
    if component:
        known_component(mixture, component)
    where = answers or tables.join(work, "answers")
    if tables.is_remote(where):
        raise ValueError(
            f"work={work}: answers are appended one by one, which a store cannot. Name a folder on "
            "a disk with answers=DIR."
        )
    about = {"prompt": asdict(prompt), "model": endpoint.model, "settings": asdict(settings)}
    home = Path(where) / recipes.fingerprint("judge", prompt.digest, endpoint.model, settings)
    run = Run(mixture=mixture, prompt=prompt, settings=settings, options=options)
    if plan:
        known = known_answers(home)
        return run.planned(known, run.questions(work, component, known))
    output = output or f"out/judged/{mixture.recipe['name']}-{prompt.name}.parquet"
    with opened_answers(home, about) as known:
        run.ask_all(known, run.questions(work, component, known), endpoint)
        found = run.summary(known)
        found.output = output
        write_facts(run.rows(known), prompt, output, about=about)
    return found


@dataclass
class Run:
    """One command: its settings, and what it has met so far."""

    mixture: Finished
    prompt: Prompt
    settings: Settings
    options: Options
    met: list[tuple[str, str, int]] = field(default_factory=list)
    """(id, content, turns) of every question, in the order of the index."""
    skipped: int = 0
    asked: int = 0
    silent: int = 0
    """Requests in a row without an answer."""
    stopped: str = ""
    why: str = ""

    # -------------------------------------------------------------- what is asked about

    def questions(self, work: str, component: str, answers: Answers) -> Iterator[Question]:
        """The questions about every sample that is kept, or was asked about before it was rejected:
        a rule on its ratings would let it in again if they were gone.
        """
        columns = ["id", "component", "subset", "part", "row", "rule"]
        before = pl.Series(sorted(answers.samples), dtype=pl.String)
        for lines in self.mixture.lines(columns):
            ids = lines["id"].cast(pl.String)
            wanted = lines.filter(lines["rule"].is_null() | ids.is_in(before.implode()))
            if component:
                wanted = wanted.filter(pl.col("component").cast(pl.String) == component)
            for group in wanted.partition_by("component", "part", maintain_order=True):
                for sample in samples_of(self.mixture, group, work=work):
                    question = question_of(sample, self.prompt, self.settings)
                    if question is None:
                        self.skipped += 1
                    else:
                        self.met.append((question.id, question.content, question.turns))
                        yield question

    def is_known(self, question: Question, answers: Answers) -> bool:
        """Whether nothing is to be asked about it."""
        line = answers.known.get(question.content)
        if line is None:
            return False
        return not (self.options.again and outcome(line, self.prompt, question.turns).verdict)

    def expected(self, question: Question, answers: Answers) -> tuple[int, int]:
        """(tokens in, tokens out at most): by what the server stated of others, where it did."""
        if answers.expected:
            put, out = expected_tokens(question, self.prompt)
            return round(put * answers.scale), out
        return expected_tokens(question, self.prompt, image_tokens=self.options.image_tokens)

    def planned(self, answers: Answers, questions: Iterable[Question]) -> Judged:
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

    def ask_all(self, answers: Answers, questions: Iterable[Question], endpoint: Endpoint) -> None:
        """Every question has its answer on the disk, or the reason for the rest is known.

        Few questions are in memory; equal ones that are under way wait for the first.
        """
        budget = Budget(
            max_requests=self.options.max_requests, max_tokens=self.options.max_tokens,
            requests=answers.requests, tokens=answers.tokens,
        )  # fmt: skip
        pace = Pace(per_minute=endpoint.per_minute)
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
                    running.add(
                        pool.submit(self.ask_one, question, answers, endpoint, pace, budget)
                    )
                    if len(running) < 2 * self.options.concurrency:
                        continue
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    self.settle(done, answers, refused, endpoint)
                    self.stopped = self.stopped or budget.reached
                    if self.stopped == "endpoint":
                        pace.stopped.set()
                while running:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    self.settle(done, answers, refused, endpoint)
            except BaseException:
                pace.stopped.set()  # what is under way is paid for: it is waited for, and kept
                pool.shutdown(cancel_futures=True)
                raise
        self.stopped = self.stopped or budget.reached
        if refused:
            raise ValueError(none_taken(endpoint, refused))

    def ask_one(
        self, question: Question, answers: Answers, endpoint: Endpoint, pace: Pace, budget: Budget
    ) -> Line | None:
        """What became of one question; an answer lies on the disk. Null: a budget is reached."""
        if self.stopped:
            return None
        reserved, used = sum(self.expected(question, answers)), 0
        if not budget.reserve(reserved):
            return None
        try:
            request = body(question, self.prompt, self.settings, model=endpoint.model)
            got, sent = ask(endpoint, request, pace=pace, permitted=budget.request)
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
        endpoint: Endpoint,
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
                raise ValueError(none_taken(endpoint, refused))

    # -------------------------------------------------------------- what came of it

    def rows(self, answers: Answers) -> Rows:
        """What became of every question."""
        for sample, content, turns in self.met:
            line = answers.known.get(content)
            yield sample, None if line is None else outcome(line, self.prompt, turns)

    def summary(self, answers: Answers) -> Judged:
        """The counts."""
        found = Judged(
            samples=len(self.met) + self.skipped, skipped=self.skipped, asked=self.asked,
            stopped=self.stopped, why=self.why, requests=answers.requests, tokens=answers.tokens,
        )  # fmt: skip
        for _, ratings in self.rows(answers):
            if ratings is None:
                found.missing += 1
            elif ratings.verdict:
                found.bad[ratings.verdict] += 1
            else:
                found.rated += 1
        replies = [line.outcome for line in answers.known.values()]
        found.cost = sum(
            self.price(r.input_tokens, r.output_tokens) for r in replies if isinstance(r, Reply)
        )
        return found


def none_taken(endpoint: Endpoint, refused: list[Line]) -> str:
    """The message where a server took none of the first requests."""
    first = refused[0].outcome
    assert isinstance(first, NotTaken)
    return (
        f"{endpoint.url}: the first {len(refused)} requests were refused, none was answered\n"
        f"found: status {first.status}: {first.message}\n"
        "way out: structured=false where it knows no response_format, a smaller max_images= or "
        "max_edge= where images are too many or too large"
    )


def samples_of(mixture: Finished, lines: pl.DataFrame, *, work: str) -> Iterator[dict[str, Any]]:
    """The samples (COLUMNS) of lines of one part, out of `work`, some at a time.

    Raises:
        ValueError: they are no longer there.
    """
    component, subset, part = (str(lines[name][0]) for name in ("component", "subset", "part"))
    path = mixture.samples_file(component, subset, part, work=work)
    if not tables.exists(path):
        raise ValueError(
            f"work={work}: the samples of {part} are not there ({path}).\nway out: say work=DIR "
            "where the build kept them, or build the mixture again: it reads them anew"
        )
    for some in lines.iter_slices(tables.ROWS_PER_BATCH):
        rows = np.sort(some["row"].to_numpy().astype(np.int64))
        found = tables.take_rows(path, rows, columns=COLUMNS)
        for number in range(len(found)):
            yield found.slice(number, 1).to_pylist()[0]
