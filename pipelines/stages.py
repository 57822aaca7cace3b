"""The four stages that do a build's heavy work: ingest, judge, encode, pack (and cost).

| stage  | from                         | to       | one task                         |
|--------|------------------------------|----------|----------------------------------|
| ingest | rows of a repository         | SAMPLE   | a part: some row groups or files |
| judge  | SAMPLE                       | VERDICTS | the same part                    |
| encode | SAMPLE                       | TOKENS   | the same part                    |
| pack   | picked rows of many parts    | PACKED   | a shard                          |
| cost   | the first rows of a part     | COSTS    | the first part of a component    |

Each but the last, which measures, is a pure function on tables, made of what lives in `sources`,
`filters`, `tokenization`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow as pa

import filters
from filters.facts import VERDICTS
from pipelines.engine import tables
from pipelines.engine.tasks import STAGES, AgainError, Needs, Stage, stage
from pipelines.reading.archive_order import SeveralFit
from pipelines.reading.ingest import ingest_batches, knowing
from pipelines.reading.joining import MISSING, FactFiles, joined, number_columns
from pipelines.reading.keys import KEYED
from pipelines.reading.parts import Part
from pipelines.reading.revising import VERSION as REVISING
from pipelines.reading.revising import Revisions
from pipelines.reading.revising import revise as revise_samples
from pipelines.report import digests
from pipelines.report.row_facts import FACTS_READ, FACTS_SCHEMA, row_facts
from pipelines.revised import REVISED, revised
from tokenization import encode as tokens
from tokenization import pack as packing
from tokenization.schema import (
    PACKED_WRITTEN,
    PAIRED_TOKENS,
    PAIRED_WRITTEN,
    SAMPLE,
    TOKENS,
    Encoding,
)

__all__ = ["COST", "STAGES", "encode", "ingest", "judge", "pack"]
COSTS = pa.schema([("rule", pa.string()), ("seconds", pa.float64())])
COST_ROWS = (16, 1024)
"""Samples that rules are timed on: the few, and where those took little, the many."""
COST_SECONDS = 10.0
"""CPU seconds that the many may take."""


@stage(writes=SAMPLE, version=4, rows_per_batch=16, needs=Needs(memory=1 << 30, max_calls=64))
def ingest(part: Part) -> Iterator[pa.Table]:
    """Every row of the part is a sample, whole or with its defect; an archive's are many."""
    try:
        for batch in ingest_batches(part):
            yield pa.Table.from_batches([batch])
    except SeveralFit as found:
        raise AgainError(part=knowing(part, found)) from None


@stage(writes=VERDICTS, version=2, rows_per_batch=1 << 16)  # read whole
def judge(
    samples: pa.Table,
    rules: list[tuple[str, dict]],
    weight_by: str,
    facts: FactFiles | None = None,
    revision: pa.Table | None = None,
) -> pa.Table:
    """Every sample, as its `revision` (REVISED) leaves it, has a verdict: the first rule that
    rejects it, and all that fire; of annotated ones their numbers and what is missing stand beside
    it.
    """
    samples = revised(samples, revision)
    if facts is None:
        return filters.judge(samples, rules=dict(rules), weight_by=weight_by)
    samples, missing = joined(samples, facts)
    made = filters.judge(samples, rules=dict(rules), weight_by=weight_by)
    if not facts.fields:
        return made
    for field, (fact, _) in zip(number_columns(facts), facts.fields, strict=True):
        made = made.append_column(field, samples[fact])
    return made.append_column(MISSING, missing)


def stage_of(
    name: str, part: Part, rules: list[tuple[str, dict]], facts: FactFiles | None = None
) -> Stage:
    """Ingest, judge or encode, writing the columns that annotations, quantiles of facts and pairs
    ask for.
    """
    plain = STAGES[name]
    if name == "ingest":
        return replace(plain, writes=KEYED) if part.key else plain
    if name == "encode":
        return replace(plain, writes=PAIRED_TOKENS) if part.about.pairs else plain
    written = filters.verdict_columns(dict(rules))
    if facts is not None and facts.fields:
        written = pa.schema([*written, *number_columns(facts), MISSING])
    return plain if written is VERDICTS else replace(plain, writes=written)


@stage(writes=TOKENS, version=1)
def encode(
    samples: pa.Table,
    encoding: Encoding,
    rewriting: list[tuple[str, dict]],
    *,
    pairs: bool = False,
    revision: pa.Table | None = None,
) -> pa.Table:
    """Every sample, as its `revision` and rules that rewrite leave it, has its ids, loss mask and
    crop grids, or the problem that prevents them; of `pairs` the rejected answer, too.
    """
    rewritten = filters.rewrite(revised(samples, revision), rules=dict(rewriting))
    return tokens.encode(rewritten, encoding=encoding, pairs=pairs)


@stage(writes=PACKED_WRITTEN, version=3, rows_per_batch=16)
def pack(
    picks: pa.Table,
    parts: Sequence[tuple[str, str]],
    encoding: Encoding,
    seed: int,
    *,
    in_order: bool = False,
    pairs: bool = False,
) -> pa.Table:
    """The picked copies, packed into rows, which follow the deal `in_order` of a schedule.

    Reads: `picks` with columns part (index into `parts`) and row, in deal order; the samples and
    tokens files of `parts`, only the rows picked. Writes: PACKED, of a mixture with `pairs` PAIRED.
    """
    part = picks.column("part").to_numpy()
    row = picks.column("row").to_numpy()
    gathered, place = [], np.empty(len(picks), np.int64)
    start = 0
    for number in np.unique(part):
        here = np.flatnonzero(part == number)
        rows, inverse = np.unique(row[here], return_inverse=True)
        samples_path, tokens_path = parts[number]
        ids = take_tokens(tokens_path, rows, pairs=pairs)
        media = tables.take_rows(samples_path, rows, columns=["images"])
        gathered.append(ids.append_column("images", media.column("images")))
        place[here] = start + inverse
        start += len(rows)
    pieces = pa.concat_tables(gathered).combine_chunks().take(pa.array(place))
    return packing.pack(pieces, encoding=encoding, seed=seed, in_order=in_order)


def take_tokens(path: str, rows: np.ndarray, *, pairs: bool) -> pa.Table:
    """Rows of TOKENS; with `pairs` of PAIRED_TOKENS, of which other components have null."""
    held = pairs and "rejected" in tables.open_file(path).schema.names
    found = tables.take_rows(path, rows, columns=(PAIRED_TOKENS if held else TOKENS).names)
    absent = pa.nulls(len(found), pa.string())
    return found.append_column("rejected", absent) if pairs and not held else found


def packing_stage(*, pairs: bool) -> Stage:
    """Pack, of a mixture with or without a source of pairs."""
    return replace(STAGES["pack"], writes=PAIRED_WRITTEN) if pairs else STAGES["pack"]


def cost(samples: str, rules: list[tuple[str, dict]], facts: FactFiles | None = None) -> pa.Table:
    """CPU seconds that each rule adds to judging one sample, measured on the first of the file."""
    found: dict[str, float] = {}
    for count in COST_ROWS:
        if sum(found.values()) * count < COST_SECONDS:
            some = tables.head(samples, count)
            some = some if facts is None else joined(some, facts)[0]
            found = filters.seconds_per_sample(some, rules=dict(rules))
    return pa.table({"rule": list(found), "seconds": list(found.values())}, schema=COSTS)


def revise(samples: str, revisions: Revisions) -> pa.Table:
    """REVISED of the samples in a file: the texts and ratings that came later."""
    return revise_samples(tables.read(samples, columns=["id", "messages"]), revisions)


REVISE = Stage(name="revise", call=revise, writes=REVISED, version=REVISING)
"""Not among STAGES: only of mixtures with `rewrites` or ratings; it enters their inputs."""
COST = Stage(name="cost", call=cost, writes=COSTS, version=1)
"""Not among STAGES: what it writes determines nothing."""


def facts(shard: str, samples: pa.Table, tokens_per_crop: int, seed: int) -> pa.Table:
    """FACTS of a shard: what the card needs to know of its rows."""
    found, name = tables.read(shard, columns=FACTS_READ), shard.rpartition("/")[2]
    made = row_facts(found, shard=name, samples=samples, tokens_per_crop=tokens_per_crop, seed=seed)
    for _ in tables.batches(shard, tables.open_file(shard)):
        pass  # each is as it was packed, or DamagedError says so: what is hashed now is right
    digest = digests.file_digest(shard)
    return made.with_columns(pl.lit(value).alias(name) for name, value in digest.items()).to_arrow()


FACTS = Stage(name="facts", call=facts, writes=FACTS_SCHEMA, version=3)
"""Not among STAGES: what it writes is of the shards, and determines none."""
