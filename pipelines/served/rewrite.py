r"""`rewrite DIR prompt=... endpoint=...`: a served model writes other texts for the samples of a
finished mixture.

    samples --run.py--> answers.jsonl --rewritten--> FILE.parquet (id, turns, original, verdict)

The mixture names the file in `rewrites`, whose content then is part of its identity; what is read
stays as it was read, and what comes of both passes the rules again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.engine import tables
from pipelines.reading.revising import with_about
from pipelines.report.finished import Finished, open_finished
from pipelines.revised import REWRITES, texts_of
from pipelines.served.answers import Answers
from pipelines.served.counts import Asked
from pipelines.served.engines import Engine
from pipelines.served.prompts import Prompt
from pipelines.served.questions import Settings
from pipelines.served.run import Options, Run, Where, everything_asked


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Under what the model's outputs may be used; its maker says so."""

    licence: str = ""
    """Empty: not stated."""
    terms: Sequence[str] = ()


def rewrite(
    folder: str, *, prompt: Prompt, engine: Engine, settings: Settings, options: Options,
    where: Where, outputs: Outputs, as_read: bool = True, plan: bool = False,
) -> Asked:  # fmt: skip
    """Every kept sample of the mixture has a line in `where.output`, with what it is now and what
    it was, or is counted as missing; with `plan`, only what would be asked is known. `as_read`: of
    the texts as they came, whatever the mixture has rewritten. Raises what `everything_asked` does.
    """
    if not as_read:
        refuse_twice(open_finished(folder), called(prompt))
    with everything_asked(
        folder, command="rewrite", prompt=prompt, engine=engine, settings=settings,
        options=options, where=where, as_read=as_read, plan=plan,
    ) as (run, answers, found):  # fmt: skip
        found.does = "rewritten"
        if not plan:
            name = run.mixture.recipe["name"]
            found.output = where.output or f"out/rewritten/{name}-{called(prompt)}.parquet"
            about = run.about(answers, engine)
            about |= {"licence": outputs.licence, "terms": list(outputs.terms)}
            with (
                tables.atomic_file(found.output) as file,
                pq.ParquetWriter(file, with_about(REWRITES, about)) as writer,
            ):
                for lines in rewritten(run, answers):
                    writer.write_table(lines.cast(writer.schema))
    return found


def refuse_twice(mixture: Finished, name: str) -> None:
    """Raises ValueError where the texts of the mixture were made by this very prompt."""
    done = [one["name"] for one in mixture.recipe.get("models", ()) if one["command"] == "rewrite"]
    if name in done:
        raise ValueError(
            f"texts=mixture: {mixture.folder} has rewritten them by the prompt {name} already\n"
            "way out: leave texts= out, which asks about the texts as they were read, or take "
            "another prompt"
        )


def called(prompt: Prompt) -> str:
    """The prompt and its language."""
    return f"{prompt.name}-{prompt.language.lower()}" if prompt.language else prompt.name


def rewritten(run: Run, answers: Answers) -> Iterator[pa.Table]:
    """The lines of REWRITES, some at a time. The samples are read again, without their images."""
    rows = dict(run.rows(answers))
    lines: list[dict[str, Any]] = []
    for sample in run.samples(answers, ["id", "messages"]):
        outcome = rows.get(sample["id"])
        if outcome is None:
            continue
        line = {"id": sample["id"], "verdict": outcome.verdict or None, "detail": outcome.detail}
        if outcome.turns:
            line["turns"] = [{"question": None, **turn} for turn in outcome.turns]
            line["original"] = texts_of(sample["messages"])
            line["whole"] = run.prompt.writes == "conversation"
        lines.append(line)
        if len(lines) == tables.ROWS_PER_BATCH:
            yield pa.Table.from_pylist(lines, schema=REWRITES)
            lines = []
    yield pa.Table.from_pylist(lines, schema=REWRITES)
