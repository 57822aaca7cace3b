"""The table of ratings that a mixture reads as annotations."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.engine import tables
from pipelines.reading.revising import with_about
from pipelines.served.counts import Rows
from pipelines.served.prompts import Prompt


def write_facts(rows: Rows, prompt: Prompt, output: str, *, about: Mapping[str, Any]) -> None:
    """The table of facts is in `output`: a line per sample that has an answer.

    | column          | what it is                                                            |
    |-----------------|-----------------------------------------------------------------------|
    | id              | the sample                                                            |
    | verdict         | why it has no ratings; null: it has                                   |
    | SCORE           | the least of its turns (as FineVision's `*_min`); null without        |
    | SCORE_mean      | the mean of its turns                                                 |
    | turns           | per turn: its reason and scores                                       |
    | reason          | of the first turn; of a bad answer, what was found                    |
    """
    names = list(prompt.scores)
    turn = pa.struct([("reason", pa.string()), *((name, pa.int32()) for name in names)])
    lines = []
    for sample, ratings in rows:
        if ratings is None:
            continue
        line: dict[str, Any] = {"id": sample, "verdict": ratings.verdict or None}
        for name in names if ratings.turns else ():
            values = [t[name] for t in ratings.turns]
            line |= {name: min(values), f"{name}_mean": sum(values) / len(values)}
        line["reason"] = ratings.reasons[0] if ratings.reasons else ratings.detail
        each = zip(ratings.turns, ratings.reasons, strict=True)
        line["turns"] = [{**scores, "reason": reason} for scores, reason in each]
        lines.append(line)
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("verdict", pa.string()),
            *((name, pa.int32()) for name in names),
            *((f"{name}_mean", pa.float64()) for name in names),
            ("reason", pa.string()),
            ("turns", pa.list_(turn)),
        ],
    )
    with tables.atomic_file(output) as file:
        pq.write_table(pa.Table.from_pylist(lines, schema=with_about(schema, about)), file)
