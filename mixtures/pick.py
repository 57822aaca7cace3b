"""The index, and which of its samples the mixture uses, how often, and where.

    INDEX with `rule` from the filters
      --pick-->  rule (keep, max_samples, grade, limit_*), split, copies
      --deal-->  one row per copy: split, shard, order, index_row     (deal.py)

A sample's turn is its hash: subsets are drawn in the order of the hash of the id, so that more
epochs, another `keep` or more data change as little as they can. So a pick is a few thresholds on
the hash per stratum (draws.py), whatever the size of the index: `pick_samples` is of one in files,
`pick` of one in memory.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pyarrow as pa

from mixtures.allocate import allocate, shortage_notes
from mixtures.columns import Column, stretches
from mixtures.config import Mixture
from mixtures.copies import Use, unit_of, uses
from mixtures.deal import Dealt, deal, deal_samples, with_shards
from mixtures.draws import SORTED_ROWS, Cut, Drawn, Draws, draws_of, in_val
from mixtures.limits import kept_fractions
from mixtures.samples import Samples, component_places, ranks, samples_of
from mixtures.supply import CHOSEN, Fractions, Rows, parts_read, supply_of, why_gone

__all__ = [
    "INDEX",
    "Dealt",
    "apply_caps",
    "as_tables",
    "categorical",
    "component_places",
    "deal",
    "deal_samples",
    "in_val",
    "pick",
    "pick_samples",
    "shortage_notes",
    "unit_of",
    "why_gone",
    "with_shards",
]

VERSION = 1
"""Of what is picked and how it is dealt: bumped where the same index would give other shards."""
INDEX = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("component", pa.string()),
        ("subset", pa.string()),
        ("modality", pa.string()),  # text | image | multi_image | video
        ("split", pa.string()),  # train | val: by the hash of the id, picked or not
        ("rule", pa.string()),  # why it is out; null: it is in, used or not
        ("num_tokens", pa.int32()),
        ("num_learned", pa.int32()),
        ("num_crops", pa.int32()),
        ("copies", pa.int32()),  # times used in the shards
        ("shard", pa.list_(pa.int32())),  # where, of its split, ascending
        ("part", pa.string()),
        ("row", pa.int32()),  # within the part
        ("fired", pa.list_(pa.string())),  # every rule that fires, marked ones too
        ("tags", pa.list_(pa.string())),
        ("duration", pa.float32()),  # s, of a video
        ("num_bytes", pa.int64()),  # encoded media and text
        ("detail", pa.string()),  # of `rule`: what was found and expected, or overlaps; or null
    ]
)
"""One line per sample ever read. `rule` not null implies `copies` 0."""


NAMES = ("source", "component", "subset", "modality", "split", "rule", "part", "detail")
LISTS_OF_NAMES = ("fired", "tags")
"""Columns of INDEX that repeat few values."""


def categorical(index: pl.DataFrame) -> pl.DataFrame:
    """The index (or some columns of it) with names as categories: 4 bytes instead of 16 and more.

    Comparisons, joins among such frames, sorting and groups are as of strings.
    """
    one = pl.col([name for name in NAMES if name in index.columns])
    many = pl.col([name for name in LISTS_OF_NAMES if name in index.columns])
    return index.with_columns(one.cast(pl.Categorical), many.cast(pl.List(pl.Categorical)))


def as_tables(index: pl.DataFrame, *, rows: int = 1 << 16) -> Iterator[pa.Table]:
    """The index in the columns and types of INDEX, so many rows at a time; raises where a column
    is missing.
    """
    for some in index.select(INDEX.names).iter_slices(rows):
        wide = some.with_columns(
            pl.col(NAMES).cast(pl.String), pl.col(LISTS_OF_NAMES).cast(pl.List(pl.String))
        )
        yield wide.to_arrow().cast(INDEX)


Gone = Callable[["Picked"], Mapping[str, str]]
"""What the caps took -> component -> a sentence on why its rows are gone."""


@dataclass(frozen=True, kw_only=True)
class Picked:
    """What becomes of every sample."""

    reason: Column
    """uint8: 0 where nothing was taken, else the place in `reasons`."""
    reasons: list[str]
    """None, then rules by which the mixture itself leaves samples out."""
    copies: Column
    """int32: how often it is used."""
    budgets: pl.DataFrame
    """Supply and budget per stratum (see allocate)."""


def pick_samples(
    samples: Samples,
    mixture: Mixture,
    *,
    rows: Rows | None = None,
    read: Fractions | None = None,
    gone: Gone = lambda picked: {},
    at_once: int = SORTED_ROWS,
) -> Picked:
    """Which of the samples are used, and how often; raises ValueError on a shortage.

    `rows`, `read` as in `pick`; `gone` is asked on a shortage. `at_once`: samples in memory.
    """
    draws, table = capped(samples, mixture, rows=rows, read=read, at_once=at_once)
    table = allocate(
        table, mixture, gone=lambda: gone(applied(samples, draws, {}, mixture, at_once=at_once))
    )
    used = uses(draws, samples.subsets, table, mixture)
    return replace(applied(samples, draws, used, mixture, at_once=at_once), budgets=table)


def capped(
    samples: Samples, mixture: Mixture, *, rows: Rows | None, read: Fractions | None, at_once: int
) -> tuple[Draws, pl.DataFrame]:
    """(What caps and limits leave, in the order of the draw; the supply that it is)."""
    draws = draws_of(samples, mixture, rows=rows or {}, at_once=at_once)
    parts = parts_read(samples, draws, mixture, rows=rows or {}, read=read or {})
    table = supply_of(samples, draws, mixture, parts)
    if not mixture.limits:
        return draws, table
    fraction = kept_fractions(table, mixture)
    here = table.select("component", "subset", "limited", pl.col("units") * pl.col("there"))
    code = {subset: i for i, subset in enumerate(samples.subsets)}
    strata, cuts = dict(draws.strata), {}
    for (component, subset, limited, units), part in zip(here.iter_rows(), fraction, strict=True):
        stratum = code.get((component, subset), -1), limited
        if part >= 1 or stratum not in strata:
            continue
        train, val = strata[stratum]
        fitting = train.fitting(part * units * (1 + 1e-12))
        if (cut := train.at(fitting)) is not None:
            bits = [name for i, name in enumerate(mixture.limits) if limited & (1 << i)]
            least = min(bits, key=lambda name: mixture.limits[name].max_ratio)
            cuts[stratum] = f"limit_{least}", cut
            strata[stratum] = (
                Drawn(train.column, length=fitting),
                Drawn(val.column, length=val.before(cut)),
            )
    draws = replace(draws, strata=strata, cuts=cuts)
    return draws, supply_of(samples, draws, mixture, parts)


def applied(
    samples: Samples,
    draws: Draws,
    used: Mapping[tuple[int, int, bool], Use],
    mixture: Mixture,
    *,
    at_once: int,
) -> Picked:
    """What caps, limits and budgets make of every sample."""
    reasons = ["", *CHOSEN, *(f"limit_{name}" for name in mixture.limits)]
    picked = Picked(
        reason=samples.new(np.uint8),
        reasons=reasons,
        copies=samples.new(np.int32),
        budgets=pl.DataFrame(),
    )
    strata: dict[int, list[tuple[int, bool, Use]]] = {}
    for (subset, limited, side), use in used.items():
        strata.setdefault(subset, []).append((limited, side, use))
    cuts: dict[int, list[tuple[int, str, Cut]]] = {}
    for (subset, limited), (rule, cut) in draws.cuts.items():
        cuts.setdefault(subset, []).append((limited, rule, cut))
    for start, stop in stretches(len(samples), rows=at_once):
        key, live, limits = samples.read(("key", "live", "limited"), start, stop)
        rank, row, val = ranks(samples, start, stop), np.arange(start, stop), in_val(key, mixture)
        reason, copies = np.zeros(stop - start, np.uint8), np.zeros(stop - start, np.int32)
        for subset, here in samples.runs(start, stop):
            at = rank[here], key[here], row[here]
            for rule, cut in draws.caps.get(subset, ()):
                reason[here][live[here] & ~cut.before(*at)] = reasons.index(rule)
            for limited, rule, cut in cuts.get(subset, []):
                left = live[here] & (reason[here] == 0) & (limits[here] == limited)
                reason[here][left & ~cut.before(*at)] = reasons.index(rule)
            left = live[here] & (reason[here] == 0)
            for limited, side, use in strata.get(subset, []):
                mine = left & (limits[here] == limited) & (val[here] == side)
                more = (row[here] == use.beside) | use.all
                if use.until is not None:
                    more |= use.until.before(*at)
                copies[here][mine] = use.epochs + more[mine]
        picked.reason.append(reason)
        picked.copies.append(copies)
    return picked


def pick(
    index: pl.DataFrame,
    mixture: Mixture,
    *,
    rows: Rows | None = None,
    read: Fractions | None = None,
    licences: Mapping[str, str] | None = None,
    causes: Mapping[str, str] | None = None,
    at_once: int = SORTED_ROWS,
) -> pl.DataFrame:
    """The index with `rule`, `split` and `copies` set, rows in the same order.

    Reads: id, component, subset, modality, rule, num_tokens, num_learned, tags, duration (and
    `weight`, float, where `weight_by` is set). Writes: rule, split, copies. `rows`: (component,
    subset) -> rows of the subset where only some of its parts were read (`keep` counts from it).
    `read`: the same -> the fraction of what it could give that was read, where that is not all:
    shares follow what subsets could give, and nothing is repeated where more could be read.
    `licences`: component -> licence, for limits on one. Raises ValueError on a shortage, which says
    why rows are gone; `causes`: component -> what is known beforehand of its missing media.
    """
    samples, order = _known_samples(index, mixture, licences)

    def gone(found: Picked) -> Mapping[str, str]:
        return why_gone(
            [_with(index, samples, found, order, mixture)], mixture, causes=causes or {}
        )

    picked = pick_samples(samples, mixture, rows=rows, read=read, gone=gone, at_once=at_once)
    return _with(index, samples, picked, order, mixture)


def apply_caps(
    index: pl.DataFrame,
    mixture: Mixture,
    *,
    rows: Rows | None = None,
    read: Fractions | None = None,
    licences: Mapping[str, str] | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(The index with `split`, and in `rule` what keep, max_samples, grades and limits take; the
    supply that is left). Reads and raises as `pick`, but no shortage; `copies` are 0.
    """
    samples, order = _known_samples(index, mixture, licences)
    draws, supply = capped(samples, mixture, rows=rows, read=read, at_once=SORTED_ROWS)
    left = applied(samples, draws, {}, mixture, at_once=SORTED_ROWS)
    return _with(index, samples, left, order, mixture), supply


def _known_samples(
    index: pl.DataFrame, mixture: Mixture, licences: Mapping[str, str] | None
) -> tuple[Samples, np.ndarray]:
    refuse_unknown(index["component"].unique(), mixture)
    return samples_of(index, mixture, licences=licences)


def refuse_unknown(components: Iterable[str], mixture: Mixture) -> None:
    """Raises ValueError where an index holds a component that the mixture has not."""
    unknown = set(components) - set(mixture.components)
    if unknown:
        raise ValueError(f"{mixture.name}: the index holds components {sorted(unknown)} not of it.")


def _with(
    index: pl.DataFrame, samples: Samples, picked: Picked, order: np.ndarray, mixture: Mixture
) -> pl.DataFrame:
    """The index with what was picked of it; `order`: the row of each sample."""
    back = np.argsort(order)
    key, reason, copies = samples.columns["key"], picked.reason, picked.copies
    return with_picks(
        index, key[back], reason[back], copies[back], reasons=picked.reasons, mixture=mixture
    )


def with_picks(
    lines: pl.DataFrame,
    key: np.ndarray,
    reason: np.ndarray,
    copies: np.ndarray,
    *,
    reasons: list[str],
    mixture: Mixture,
) -> pl.DataFrame:
    """The lines of an index with what was picked of them."""
    side = pl.when(pl.Series(in_val(key, mixture))).then(pl.lit("val")).otherwise(pl.lit("train"))
    names = pl.Series([None, *reasons[1:]], dtype=pl.String)
    if lines["rule"].dtype != pl.String:
        names = names.cast(pl.Categorical)
    return lines.with_columns(
        split=side.cast(pl.Categorical),
        copies=pl.Series(copies),
        rule=pl.coalesce("rule", names.gather(reason)),
    )
