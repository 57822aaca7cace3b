"""Near duplicates as tasks: what is compared in one file, and a task for a few bands of it.

    verdicts of every part --candidates_of--> rows.arrow --pairs, a task per bands--> PAIRS
    ranks still open       ----------------> order.arrow --^   round after round        |
             ^---------------------- filters.near.thinned -----------------------------/

Files lie in `work/pairs/FINGERPRINT/`, named by what is compared and how, so that a build that was
cut short goes on with the bands that are missing, with any number of workers. The build itself
holds no signature: ranks, and the pairs that were found.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from hashlib import sha256
from itertools import count

import numpy as np
import polars as pl
import pyarrow as pa

import filters
from pipelines import recipe
from pipelines.engine import tables
from pipelines.engine.runner import run
from pipelines.engine.tasks import File, Needs, Stage, Task
from pipelines.engine.timings import Report
from pipelines.survey import Piece

ROWS = 1 << 16
"""Rows of a record batch: what a band reads at a time."""
ROW_BANDS = 8_000_000
"""Rows x bands of a task: a few seconds of work, far more than a task costs."""
ORDER = pa.schema([("rank", pa.int32())])

Searching = Callable[[Sequence[Piece]], filters.Run]
"""Pieces -> where their near rows are compared."""


def near_pairs_of_bands(
    rows: pa.Table, order: pa.Table, settled: int, search: filters.Search, bands: list[int]
) -> Iterator[pa.Table]:
    """The near pairs of some bands; see filters/duplicates/search.py."""
    ranks = order["rank"].to_numpy()
    for band in bands:
        found = filters.pairs_of_band(rows, order=ranks, settled=settled, search=search, band=band)
        yield pa.table([found[:, 0], found[:, 1]], schema=filters.PAIRS)


PAIRS = Stage(
    name="pairs", call=near_pairs_of_bands, writes=filters.PAIRS, version=1, rows_per_batch=ROWS
)


def candidates_of(
    frame: pl.DataFrame, search: filters.Search, pieces: Sequence[Piece]
) -> Iterator[pa.Table]:
    """CANDIDATES of the rows of `frame` (piece, row, rank, scope), a part at a time."""
    for (number,), of_piece in frame.group_by(["piece"], maintain_order=True):
        columns = tables.read(pieces[int(number)].verdicts, columns=search.columns)
        ranks = of_piece.select("rank", "scope", "row")
        compared = pl.DataFrame(columns)[ranks["row"]]
        yield filters.candidates(ranks.hstack(compared), search)


def compare_in_memory(pieces: Sequence[Piece]) -> filters.Run:
    """Near rows are compared in this process, what is compared held in its memory."""

    def opened(frame: pl.DataFrame, search: filters.Search) -> filters.Compare:
        parts = [search.schema.empty_table(), *candidates_of(frame, search, pieces)]
        return filters.comparison_of_candidates(pa.concat_tables(parts), search)

    return opened


def compare_by_tasks(
    pieces: Sequence[Piece], *, work: str, slots: int, reports: list[Report]
) -> filters.Run:
    """Near rows are compared by tasks, `slots` at a time, by way of files in `work`.

    `reports` is added to: what each task took.
    """

    def opened(frame: pl.DataFrame, search: filters.Search) -> filters.Compare:
        folder = tables.join(work, "pairs", identity(frame, search, pieces))
        rows = tables.join(folder, "rows.arrow")
        if not tables.exists(rows):
            parts = candidates_of(frame, search, pieces)
            tables.write_pieces(parts, search.schema, rows, rows_per_batch=ROWS)
        each = max(1, ROW_BANDS // max(len(frame), 1))
        bands = [
            list(range(first, min(first + each, search.num_bands)))
            for first in range(0, search.num_bands, each)
        ]
        rounds = count(1)

        def compare(ranks: np.ndarray, settled: int) -> np.ndarray:
            name = f"round-{next(rounds)}"
            order = tables.join(folder, name, "order.arrow")
            if not tables.exists(order):
                tables.write(pa.table([ranks], schema=ORDER), order, rows_per_batch=ROWS)
            tasks = [
                Task(
                    stage=PAIRS,
                    part=f"{search.kind}/{name}/{some[0]:03d}",
                    settings={
                        "rows": File(rows),
                        "order": File(order),
                        "settled": settled,
                        "search": search,
                        "bands": some,
                    },
                    out=tables.join(folder, name, f"{some[0]:03d}.arrow"),
                    needs=Needs(memory=(512 << 20) + 48 * len(frame)),
                )
                for some in bands
            ]
            reports.extend(run(tasks, slots=slots))
            found = pa.concat_tables([tables.read(task.out) for task in tasks])
            return np.stack([found[name].to_numpy() for name in found.column_names], axis=1)

        return compare

    return opened


def identity(frame: pl.DataFrame, search: filters.Search, pieces: Sequence[Piece]) -> str:
    """16 hex digits over the rows that are compared, their files, and how they are compared."""
    digest = sha256()
    for name in ("piece", "row", "rank", "scope"):
        digest.update(frame[name].cast(pl.Int32).to_numpy().tobytes())
    files = ["/".join(p.verdicts.split("/")[-2:]) for p in pieces]
    return recipe.fingerprint(PAIRS.identity, asdict(search), files, digest.hexdigest())
