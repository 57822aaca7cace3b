"""Duplicates: rules that need the verdicts of every part, applied once all are judged.

What is compared, and what is not:

| rule             | two samples are duplicates if                                 |
|------------------|---------------------------------------------------------------|
| duplicate_sample | same pictures in the same order *and* same text               |
| duplicate_text   | same text, whatever the pictures                              |
| duplicate_images | same pictures in the same order, whatever is asked about them |

So two questions about one picture are not duplicates, and one question about two pictures is not,
unless `duplicate_images` or `duplicate_text` asks for it. "Text" is that of all turns but the
system's; "pictures" of a video are its frames.

Which one stays does not depend on the order of the rows: the component of the lowest `priority`
number, then the smallest id. A sample that another rule rejects neither stays nor takes others
along.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import polars as pl

from filters.rules import RULES, rule, settings_of

Within = Literal["subset", "component", "mixture"]
Same = Literal["bytes", "pixels"]

_SCOPES: dict[str, list[str]] = {
    "subset": ["component", "subset"],
    "component": ["component"],
    "mixture": [],
}


def _subset(verdicts: pl.DataFrame) -> pl.DataFrame:
    """The verdicts with `subset`, the first two parts of an id, where they don't have it."""
    if "subset" in verdicts.columns:
        return verdicts
    parts = pl.col("id").str.splitn("/", 3).struct
    return verdicts.with_columns(subset=parts.field("field_0") + "/" + parts.field("field_1"))


def _later_of_equals(verdicts: pl.DataFrame, keys: list[str], within: str) -> pl.DataFrame:
    """`id` and `detail` of every sample but the first of each group of equal, non-null keys."""
    groups = [*_SCOPES[within], *keys]
    candidates = _subset(verdicts).filter(pl.all_horizontal(pl.col(keys).is_not_null()))
    ordered = candidates.sort("priority", "id").with_columns(
        first=pl.col("id").first().over(groups)
    )
    later = ordered.filter(pl.col("id") != pl.col("first"))
    return later.select("id", detail=pl.lit("of ") + pl.col("first"))


@rule(scope="mixture", needs=lambda *, same, **_: ("text_hash", f"{same}_hash"))
def duplicate_sample(
    verdicts: pl.DataFrame, *, within: Within = "mixture", same: Same = "pixels"
) -> pl.DataFrame:
    """Another sample has the same text and the same pictures.

    `same`: pictures are compared by their encoded `bytes`, or by their `pixels`.
    """
    pictures = f"{same}_hash"
    # A sample without pictures, or without words, is equal to its like on that side.
    filled = verdicts.with_columns(pl.col("text_hash", pictures).fill_null(0)).filter(
        (pl.col("text_hash") != 0) | (pl.col(pictures) != 0)
    )
    return _later_of_equals(filled, ["text_hash", pictures], within)


@rule(scope="mixture", needs=lambda **_: ("text_hash",))
def duplicate_text(verdicts: pl.DataFrame, *, within: Within = "mixture") -> pl.DataFrame:
    """Another sample has the same text, whatever the pictures."""
    return _later_of_equals(verdicts, ["text_hash"], within)


@rule(scope="mixture", needs=lambda *, same, **_: (f"{same}_hash",))
def duplicate_images(
    verdicts: pl.DataFrame, *, within: Within = "mixture", same: Same = "pixels"
) -> pl.DataFrame:
    """Another sample has the same pictures in the same order, whatever is asked about them."""
    return _later_of_equals(verdicts, [f"{same}_hash"], within)


def mixture_rules(
    verdicts: pl.DataFrame, *, settings: Mapping[str, Mapping[str, Any] | None]
) -> pl.DataFrame:
    """`id`, `rule`, `mode` (drop or mark) and `detail` of every sample a mixture-level rule takes.

    Reads: VERDICTS of all parts with two more columns, `component` (string) and `priority` (int,
    the lowest stays). `settings` may hold per-sample rules too, which are passed over. Rules apply
    in their order to what is left by `rule` and by the rules before, so each sample is dropped at
    most once; marked samples stay in play.
    """
    left = verdicts.filter(pl.col("rule").is_null())
    taken = [
        pl.DataFrame(
            schema={"id": pl.String, "rule": pl.String, "mode": pl.String, "detail": pl.String}
        )
    ]
    for name, given in settings.items():
        if RULES[name].scope != "mixture":
            continue
        mode, own = settings_of(name, given)
        function: Callable[..., pl.DataFrame] = RULES[name].function
        gone = function(left, **own)
        taken.append(gone.select("id", rule=pl.lit(name), mode=pl.lit(mode), detail="detail"))
        if mode == "drop":
            left = left.join(gone, on="id", how="anti")
    return pl.concat(taken)
