"""Numbers that annotations give of samples: for the report and stats.json.

fact -> a histogram over the samples read, of all and of each component, and of each component the
samples with the lowest and the highest numbers
"""

import heapq
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl

from pipelines.engine import tables
from pipelines.reading.joining import NUMBER
from pipelines.survey import Piece

BINS = 20
"""Of a histogram, about."""
TAIL = 4
"""Samples of a component that are named at each end of a fact."""
SAMPLED = 2_000
"""Numbers of a part, evenly apart, from which edges and medians are taken."""
OUTER = 0.005
"""Share of the numbers at either end that one open bin holds, so that a few do not squash all."""


def fact_counts(pieces: Sequence[Piece]) -> dict[str, Any]:
    """{"facts": fact -> its histogram and ends}; nothing where no component has annotations."""
    facts = [fact for p in pieces if p.facts is not None for fact, _ in p.facts.fields]
    counted = {fact: counts_of(pieces, fact) for fact in dict.fromkeys(facts)}
    found = {fact: about for fact, about in counted.items() if about}
    return {"facts": found} if facts else {}


def counts_of(pieces: Sequence[Piece], fact: str) -> dict[str, Any]:
    """The histogram and the tails of one fact; nothing where no sample has it.

    A part is in memory at a time: first for edges and tails, then to be counted.
    """
    some: dict[str, list[np.ndarray]] = {}
    ends: dict[str, dict[str, list[tuple[float, str]]]] = {"lowest": {}, "highest": {}}
    for name, frame in numbers_of(pieces, fact):
        values = frame["value"].to_numpy()
        some.setdefault(name, []).append(values[:: max(1, len(values) // SAMPLED)])
        for end, of, tail in (
            ("lowest", heapq.nsmallest, frame.bottom_k(TAIL, by=["value", "id"])),
            ("highest", heapq.nlargest, frame.top_k(TAIL, by=["value", "id"])),
        ):
            mine = ends[end].setdefault(name, [])
            ends[end][name] = of(TAIL, [*mine, *tail.select("value", "id").iter_rows()])
    if not some:
        return {}
    edges = edges_of(np.concatenate([each for values in some.values() for each in values]))
    counts = {name: np.zeros(len(edges) - 1, np.int64) for name in some}
    for name, frame in numbers_of(pieces, fact):
        inside = np.clip(frame["value"].to_numpy(), edges[0], edges[-1])
        counts[name] += np.histogram(inside, bins=edges)[0]
    return {
        "edges": edges,
        "counts": sum(counts.values(), np.zeros(len(edges) - 1, np.int64)).tolist(),
        "components": {name: count.tolist() for name, count in counts.items()},
        "median": {name: float(np.median(np.concatenate(each))) for name, each in some.items()},
        **{
            end: {
                name: [{"id": sample, "value": value} for value, sample in tail]
                for name, tail in of.items()
            }
            for end, of in ends.items()
        },
    }


def numbers_of(pieces: Sequence[Piece], fact: str) -> Iterator[tuple[str, pl.DataFrame]]:
    """(component, id and value of the samples that have the fact) of each part with any."""
    column = f"{fact}{NUMBER}"
    for p in pieces:
        if p.facts is None or fact not in dict(p.facts.fields):
            continue
        frame = pl.DataFrame(tables.read(p.verdicts, columns=["id", column]))
        frame = frame.rename({column: "value"}).filter(pl.col("value").is_finite())
        if len(frame):
            yield p.component, frame


def edges_of(values: np.ndarray) -> list[float]:
    """Edges of about BINS bins at round numbers between the outermost; whole numbers that are few
    have a bin each. What lies beyond is counted in the first and last bin.
    """
    low, high = (float(np.quantile(values, q)) for q in (OUTER, 1 - OUTER))
    whole = bool((values == np.round(values)).all())
    if whole and high - low <= BINS:
        return [float(edge) for edge in range(round(low), round(high) + 2)]
    size = max(abs(low), abs(high))
    if high - low <= 1e-9 * size:
        low, high = low - max(0.5, size / 1e6), high + max(0.5, size / 1e6)
    step = 10.0 ** np.floor(np.log10((high - low) / BINS))
    step *= next(k for k in (1, 2, 2.5, 5, 10) if (high - low) / (k * step) <= BINS)
    first, last = np.floor(low / step), np.ceil(high / step)
    return [float(f"{number * step:.12g}") for number in np.arange(first, last + 1)]
