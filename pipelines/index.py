"""The index: verdicts and token counts of every part, joined; one line per sample ever read.

verdicts + counts --index_of--> rule of the sample, its encoding, the whole mixture
--picked----> split, copies
"""

from collections.abc import Sequence

import polars as pl

import filters
from mixtures import pick as picking
from mixtures.config import Mixture
from pipelines import tables
from pipelines.near import Searching, in_memory
from pipelines.survey import Piece, licences_of

SIGNATURES = ("text_signature", "dhashes", "embedding_signature")
"""The wide columns of VERDICTS."""


def picked(
    pieces: Sequence[Piece], mixture: Mixture, *, searching: Searching = in_memory
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
    pieces: Sequence[Piece], mixture: Mixture, *, searching: Searching = in_memory
) -> pl.DataFrame:
    """One line per sample read, with the first reason it must go, before anything is picked.

    Reads: verdicts and the counts beside the ids. The order of reasons: the defect or rule of the
    sample itself, then what prevents its encoding, `too_long`, then the rules on the whole mixture.
    What near rows are compared by (112 bytes a sample, 8 a picture) is not read here, but by
    `searching`, where they are compared.
    """
    frames = []
    narrow = [name for name in filters.VERDICTS.names if name not in SIGNATURES]
    counts = ["id", "num_tokens", "num_learned", "num_crops", "problem", "splittable"]
    for number, p in enumerate(pieces):
        verdicts = pl.DataFrame(tables.read(p.verdicts, columns=narrow))
        tokens = pl.DataFrame(tables.read(p.tokens, columns=counts))
        if not verdicts["id"].equals(tokens["id"]):
            raise AssertionError(f"{p.verdicts} and {p.tokens} hold other rows")
        frames.append(
            verdicts.hstack(tokens.drop("id")).with_columns(
                source=pl.lit(p.part.source),
                component=pl.lit(p.component),
                subset=pl.lit(p.part.subset),
                part=pl.lit(p.part.name),
                piece=pl.lit(number, pl.Int32),
                row=pl.int_range(pl.len(), dtype=pl.Int32),
                tags=pl.concat_list(
                    pl.col("tags").fill_null([]),
                    pl.lit(mixture.components[p.component].tags, pl.List(pl.String)),
                ),
                seq_len=pl.lit(p.encoding.seq_len),
                max_crops=pl.lit(p.encoding.max_crops),
            )
        )
    index = pl.concat(frames)
    refuse_repeats(index)
    too_long = filters.RULES["too_long"].function()
    problem = pl.coalesce("rule", "problem", pl.when(too_long).then(pl.lit("too_long")))
    index = index.with_columns(rule=problem, priority=priorities(mixture))
    own = {name: c.filters for name, c in mixture.components.items()}
    taken = filters.mixture_rules(
        index, settings=mixture.filters, components=own, run=searching(pieces)
    )
    return with_taken(index, taken)


def priorities(mixture: Mixture) -> pl.Expr:
    """Of two duplicates the one of the smaller number stays: by `priority`, then as in the file."""
    names = sorted(mixture.components, key=lambda name: -mixture.components[name].priority)
    return pl.col("component").replace_strict({name: i for i, name in enumerate(names)})


def with_taken(index: pl.DataFrame, taken: pl.DataFrame) -> pl.DataFrame:
    """The index with what the rules on the whole mixture took (`mode` drop) or marked."""
    fired = taken.group_by("id", maintain_order=True).agg(also=pl.col("rule"))
    dropped = taken.filter(mode="drop").select("id", later="rule", why="detail")
    return (
        index.join(dropped, on="id", how="left", maintain_order="left")
        .join(fired, on="id", how="left", maintain_order="left")
        .with_columns(
            rule=pl.coalesce("rule", "later"),
            detail=pl.coalesce("detail", "why"),
            fired=pl.concat_list(pl.col("fired").fill_null([]), pl.col("also").fill_null([])),
        )
        .drop("later", "why", "also")
    )


def refuse_repeats(index: pl.DataFrame) -> None:
    """Raises ValueError where two components read the same sample: it would be counted twice."""
    twice = index.filter(pl.col("id").is_duplicated())
    if len(twice):
        first = twice["id"][0]
        names = twice.filter(pl.col("id") == first)["component"].to_list()
        raise ValueError(
            f"components {', '.join(dict.fromkeys(names))} read the same samples ({first} and "
            f"{twice['id'].n_unique() - 1:,} more). A subset belongs to one component: name other "
            "subsets in one of them."
        )
