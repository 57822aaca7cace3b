"""Near duplicates among what the shards hold, whichever rules the mixture has.

    hashes of images of used samples (VERDICTS) --at most so many of a component--> compared
    --near_duplicate_images, as the rule has it--> which would go, and in whose place

Where a component has more samples than are compared, those are compared whose hash comes first, a
hash of the image: samples with the same one are compared together or not at all.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl

import filters
from mixtures import draw
from mixtures.columns import Column
from mixtures.config import Mixture
from mixtures.draws import in_val
from mixtures.samples import Samples
from pipelines.engine import tables
from pipelines.survey import Piece

RULE = "near_duplicate_images"
COMPARED = 200_000
"""Samples of all components, at most: about a CPU second (docs/rules.md)."""
PAIRS = 2
"""Of a component that are named, drawn by a hash of their ids."""
LINE: dict[str, Any] = {
    "id": pl.String,
    "component": pl.String,
    "val": pl.Boolean,
    "dhashes": pl.List(pl.UInt64),
}


def alike(
    samples: Samples,
    copies: Column,
    pieces: Sequence[Piece],
    mixture: Mixture,
    *,
    most: int = COMPARED,
) -> dict[str, Any]:
    """`components`: of each that has images in the shards, how many samples with images, how many
    were `compared`, and of these how many are `near` another that stays in their place, the hash of
    every image the `same`, in `other` components, in the other `split`; `pairs` of ids; the
    `radius`.
    """
    names = list(mixture.components)
    each = max(1, most // len(names))
    used = dict.fromkeys(names, 0)
    held = {name: [pl.DataFrame(schema=LINE | {"turn": pl.UInt64})] for name in names}

    def first_of(name: str) -> pl.DataFrame:
        return pl.concat(held[name]).sort("turn", "id").head(each)

    for number, piece in enumerate(pieces):
        begin, end = (int(at) for at in samples.starts[number : number + 2])
        for some in pictured(samples, copies, piece, begin, end, mixture):
            used[piece.component] += len(some)
            held[piece.component].append(some)
            if sum(map(len, held[piece.component])) > 2 * each:  # now and then, not once a part
                held[piece.component] = [first_of(piece.component)]
    chosen = {name: first_of(name) for name in names}
    compared = pl.concat(chosen.values()).drop("turn")
    radius = filters.settings_of(RULE, None)[1]["radius"]
    gone = near_of(compared, radius=radius)
    return {
        "radius": radius,
        "components": {
            name: {
                "samples": used[name],
                "compared": len(chosen[name]),
                **counts_of(gone.filter(pl.col("component") == name)),
            }
            for name in names
            if used[name]
        },
        "pairs": pairs_of(gone, names),
    }


def pictured(
    samples: Samples, copies: Column, piece: Piece, begin: int, end: int, mixture: Mixture
) -> Iterator[pl.DataFrame]:
    """LINE and `turn` of those samples of a part that have images and are used; none is read of a
    part without.
    """
    rows = np.flatnonzero((copies[begin:end] > 0) & (samples.columns["num_crops"][begin:end] > 0))
    if not len(rows):
        return
    read = pl.DataFrame(tables.read(piece.verdicts, columns=["id", "dhashes"]))[rows]
    keys = samples.columns["key"][begin:end][rows]
    lines = read.with_columns(
        component=pl.lit(piece.component), val=pl.Series(in_val(keys, mixture), dtype=pl.Boolean)
    ).filter(pl.col("dhashes").list.len() > 0)
    number = pl.col("dhashes").list.len()
    middle = lines.select(pl.col("dhashes").list.get(number // 2)).to_series().to_numpy()
    turn = pl.Series("turn", draw.rehash(middle, RULE), dtype=pl.UInt64)
    yield lines.select(*LINE).with_columns(turn)


def near_of(compared: pl.DataFrame, *, radius: int) -> pl.DataFrame:
    """A line of `compared` for each that goes by the rule, and of the one in its place the same
    columns, called `first_...`.
    """
    gone = pl.DataFrame(schema={"id": pl.String, "detail": pl.String})
    if len(compared):
        gone = filters.RULES[RULE].function(
            compared.with_columns(priority=pl.lit(0)), radius=radius
        )
    pairs = gone.select("id", first_id=pl.col("detail").str.strip_prefix("of "))
    first = compared.rename({name: f"first_{name}" for name in LINE})
    return pairs.join(compared, on="id").join(first, on="first_id")


def counts_of(gone: pl.DataFrame) -> dict[str, int]:
    """What is told of a component's samples that are near another."""
    differ = {"other": ("component", "first_component"), "split": ("val", "first_val")}
    return {
        "near": len(gone),
        "same": int((gone["dhashes"] == gone["first_dhashes"]).sum()),
        **{what: int((gone[a] != gone[b]).sum()) for what, (a, b) in differ.items()},
    }


def pairs_of(gone: pl.DataFrame, names: Sequence[str]) -> list[list[str]]:
    """[the one in whose place, the one that is near it] of some of each component."""
    turn = pl.Series(draw.rehash(draw.sample_keys(gone["id"], seed=0), RULE), dtype=pl.UInt64)
    drawn = gone.with_columns(turn=turn).sort("turn", "id")
    some = drawn.group_by("component", maintain_order=True).head(PAIRS)
    ordered = some.sort(pl.col("component").replace_strict(names, range(len(names))), "turn")
    return [list(pair) for pair in ordered.select("first_id", "id").iter_rows()]
