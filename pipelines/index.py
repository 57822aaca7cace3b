"""The index: verdicts and token counts of every part, joined; one line per sample ever read.

verdicts + counts --index_of--> rule of the sample, its encoding, the whole mixture
--picked----> split, copies
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa

import filters
from mixtures import pick as picking
from mixtures.config import Mixture, rules_of
from pipelines.engine import tables
from pipelines.near import Searching, compare_in_memory
from pipelines.survey import Piece, licences_of

HASHES = ("text_hash", "bytes_hash", "pixels_hash")
"""What equal rows are compared by: known until the rules on the whole mixture have been applied."""
JUDGED = (
    *("id", "modality", "duration", "num_bytes", "tags", "rule", "fired", "detail", "weight"),
    *HASHES,
)
COUNTED = ("num_tokens", "num_learned", "num_crops")
ENCODED = ("problem", "splittable")
"""What is read of VERDICTS; of TOKENS; and of TOKENS for the reason alone."""
PARTS = 64
"""Parts whose lines are made at a time: what does not depend on rows costs little then."""


def picked_index(
    pieces: Sequence[Piece], mixture: Mixture, *, searching: Searching = compare_in_memory
) -> pl.DataFrame:
    """The index with the reason, split and number of copies of every sample read."""
    index = index_of(pieces, mixture, searching=searching)
    return picking.pick(index, mixture, rows=whole_rows(pieces), licences=licences_of(mixture))


def whole_rows(pieces: Sequence[Piece]) -> dict[tuple[str, str], int]:
    """(component, subset) -> rows of the subset, where only some of its parts are read."""
    rows: dict[tuple[str, str], float] = {}
    for p in pieces:
        if p.part.share < 1:
            key = (p.component, p.part.subset)
            rows[key] = rows.get(key, 0.0) + tables.num_rows(p.verdicts) / p.part.share
    return {key: round(count) for key, count in rows.items()}


def index_of(
    pieces: Sequence[Piece], mixture: Mixture, *, searching: Searching = compare_in_memory
) -> pl.DataFrame:
    """One line per sample read, with the first reason it must go, before anything is picked.

    The order of reasons: the defect or rule of the sample itself, then what prevents its encoding,
    `too_long`, then the rules on the whole mixture. What near rows are compared by (112 bytes a
    sample, 8 an image) is not read here, but by `searching`, where they are compared.

    Lines are narrow, since the index of all samples is in memory: names are categories, nothing is
    kept that nobody reads again, and no file stays mapped.
    """
    columns: dict[str, list[pl.Series]] = {}
    for first in range(0, len(pieces), PARTS):
        some = pieces[first : first + PARTS]
        for column in index_lines(some, mixture, first=first):
            columns.setdefault(column.name, []).append(column)
    # One by one, so that no more than one column is in memory twice.
    index = pl.DataFrame([pl.concat(columns.pop(name), rechunk=True) for name in list(columns)])
    refuse_repeats(index)
    taken = filters.mixture_rules(
        index.with_columns(priority=priorities(mixture)),
        settings=mixture.filters,
        components={name: c.filters for name, c in mixture.components.items()},
        run=searching(pieces),
    )
    values = [name for name in index.columns if name.endswith(filters.VALUE)]
    return with_mixture_rules(index.drop(*HASHES, *values), taken)


def index_lines(pieces: Sequence[Piece], mixture: Mixture, *, first: int) -> pl.DataFrame:
    """The lines of some parts, with the reasons that each sample alone decides; `first` is the
    `piece` of the first of them.
    """
    values = values_of(mixture)
    judged = [with_values(p, values) for p in pieces]
    counted = [tables.read(p.tokens, columns=["id", *COUNTED, *ENCODED]) for p in pieces]
    for p, one, other in zip(pieces, judged, counted, strict=True):
        if not one["id"].equals(other["id"]):
            raise AssertionError(f"{p.verdicts} and {p.tokens} hold other rows")
    verdicts = pl.DataFrame(tables.compact(pa.concat_tables(judged)))
    tokens = pl.DataFrame(tables.compact(pa.concat_tables(counted).drop(["id"])))
    of_piece = pl.DataFrame(
        {
            "piece": pl.Series(range(first, first + len(pieces)), dtype=pl.Int32),
            "source": [p.part.source for p in pieces],
            "component": [p.component for p in pieces],
            "subset": [p.part.subset for p in pieces],
            "part": [p.part.name for p in pieces],
            "own": pl.Series(
                [mixture.components[p.component].tags for p in pieces], dtype=pl.List(pl.String)
            ),
            "seq_len": [p.encoding.seq_len for p in pieces],
            "max_crops": [p.encoding.max_crops for p in pieces],
        }
    )
    sizes = [len(table) for table in judged]
    about = picking.categorical(of_piece)[np.repeat(np.arange(len(pieces)), sizes)]
    row = np.concatenate([np.arange(size, dtype=np.int32) for size in sizes])
    too_long = filters.RULES["too_long"].function()
    dropped, fired = by_tokens(pieces)
    reason = pl.coalesce("rule", "problem", pl.when(too_long).then(pl.lit("too_long")), *dropped)
    lines = (
        verdicts.hstack(tokens)
        .hstack(about)
        .with_columns(
            rule=reason,
            tags=pl.concat_list(pl.col("tags").fill_null([]), "own"),
            fired=pl.concat_list(pl.col("fired").fill_null([]), *fired).list.drop_nulls(),
            row=pl.Series(row),
        )
    )
    unread = [*ENCODED, "own", "seq_len", "max_crops", *([] if mixture.weight_by else ["weight"])]
    return picking.categorical(lines.drop(unread))


def values_of(mixture: Mixture) -> list[str]:
    """The columns of facts of which rules of any component take quantiles."""
    rules = [rules_of(mixture, name) for name in mixture.components]
    facts = dict.fromkeys(fact for one in rules for fact in filters.quantile_facts(one))
    return [f"{fact}{filters.VALUE}" for fact in facts]


def with_values(piece: Piece, values: Sequence[str]) -> pa.Table:
    """JUDGED of a part and `values`, null where none of its rules asks for one."""
    own = [f"{fact}{filters.VALUE}" for fact in filters.quantile_facts(dict(piece.rules))]
    table = tables.read(piece.verdicts, columns=[*JUDGED, *own])
    for name in values:
        if name not in own:
            table = table.append_column(name, pa.nulls(len(table), pa.float64()))
    return table.select([*JUDGED, *values])


def by_tokens(pieces: Sequence[Piece]) -> tuple[list[pl.Expr], list[pl.Expr]]:
    """(the name of the rule that takes a line, else null; of every one that fires) per component
    and rule on token counts that the mixture states.
    """
    dropped: list[pl.Expr] = []
    fired: list[pl.Expr] = []
    for component, rules in {p.component: p.rules for p in pieces}.items():
        for name, given in rules:
            rule = filters.RULES[name]
            if rule.scope != "index" or name == "too_long":
                continue
            mode, settings = filters.settings_of(name, given)
            takes = (pl.col("component") == component) & rule.function(**settings)
            fires = pl.when(takes).then(pl.lit(name))
            fired.append(fires)
            dropped += [fires] if mode == "drop" else []
    return dropped, fired


def priorities(mixture: Mixture) -> pl.Expr:
    """Of two duplicates the one of the smaller number stays: by `priority`, then as in the file."""
    names = sorted(mixture.components, key=lambda name: -mixture.components[name].priority)
    order = {name: i for i, name in enumerate(names)}
    return pl.col("component").replace_strict(order, return_dtype=pl.Int16)


def with_mixture_rules(index: pl.DataFrame, taken: pl.DataFrame) -> pl.DataFrame:
    """The index with what the rules on the whole mixture took (`mode` drop) or marked."""
    dropped = pl.col("rule").filter(mode="drop").first()
    of_sample = (
        taken.group_by("id")
        .agg(later=dropped, also=pl.col("rule"))
        .with_columns(
            pl.col("later").cast(pl.Categorical), pl.col("also").cast(pl.List(pl.Categorical))
        )
    )
    return (
        index.join(of_sample, on="id", how="left", maintain_order="left")
        .with_columns(
            rule=pl.coalesce("rule", "later"),
            fired=pl.concat_list("fired", pl.col("also").fill_null([])),
        )
        .drop("later", "also")
    )


def refuse_repeats(index: pl.DataFrame) -> None:
    """Raises ValueError where two components read the same sample: it would be counted twice."""
    some = index.select("id", "component").filter(filters.perhaps_repeated(index.select("id")))
    twice = some.filter(pl.col("id").is_duplicated())
    if len(twice):
        first = twice["id"][0]
        names = twice.filter(pl.col("id") == first)["component"].to_list()
        raise ValueError(
            f"components {', '.join(dict.fromkeys(names))} read the same samples ({first} and "
            f"{twice['id'].n_unique() - 1:,} more). A subset belongs to one component: name other "
            "subsets in one of them."
        )
