"""Duplicates: rules that need the verdicts of every part, applied once all are judged.

What is compared, and what is not:

| rule                  | two samples are duplicates if                                 |
|-----------------------|---------------------------------------------------------------|
| duplicate_sample      | same images in the same order *and* same text                 |
| duplicate_text        | same text, whatever the images                                |
| duplicate_images      | same images in the same order, whatever is asked about them   |
| near_duplicate_sample | images within the radius, one by one, *and* similar text   |
| near_duplicate_text   | similar text, whatever the images                          |
| near_duplicate_images | images within the radius, one by one, whatever is asked    |

So two questions about one image are not duplicates, and one question about two images is not,
unless a rule of `images` or `text` asks for it. "Text" is that of all turns but the system's; its
similarity is the Jaccard index of its runs of 5 words, as MinHash estimates it (standard error 0.03
at 0.8). Two samples have near images if they have equally many and the first is within `radius`
bits (of 64) of the first, the second of the second, and so on; a video's images are its frames.

Every sample that goes is near one that stays, which its `detail` names; no two that stay are near
(texts: as far as their bands meet, at least 95 % of pairs). Chains do not collapse: where b is near
a and c near b, but c not near a, only b goes. The order of the rows does not matter: the component
of the lowest `priority` number is preferred, then the smallest id (along a chain a later one may
stay, if the one between is near both). A sample that another rule rejects neither stays nor takes
others along.

Bands of near rows are independent, so that `run` may spread them over tasks: search.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import polars as pl

from filters.duplicates import near
from filters.duplicates.search import Run, Search, comparison_of_frame
from filters.rules import RULES, check_nearness, rule, settings_of

Within = Literal["subset", "component", "mixture"]
Same = Literal["bytes", "pixels"]

SCOPES: dict[str, list[str]] = {
    "subset": ["component", "subset"],
    "component": ["component"],
    "mixture": [],
}
_COMPARED = {
    *("id", "subset", "component", "priority", "piece", "row"),
    *("text_hash", "bytes_hash", "pixels_hash"),
    *("text_signature", "dhashes", "embedding_signature"),
}
"""What rules on the whole mixture read; the other columns are not carried along."""


def _subset(verdicts: pl.DataFrame) -> pl.DataFrame:
    """The verdicts with `subset`, the first two parts of an id, where they don't have it."""
    if "subset" in verdicts.columns:
        return verdicts
    parts = pl.col("id").str.splitn("/", 3).struct
    return verdicts.with_columns(subset=parts.field("field_0") + "/" + parts.field("field_1"))


def perhaps_repeated(frame: pl.DataFrame) -> pl.Series:
    """Bool per row: false where no other row is equal to it (of those true, a few may be unique).

    Takes 24 bytes a row, where grouping takes a hundred: rows are few that are worth grouping.
    """
    hashes = frame.hash_rows(seed=0).to_numpy()
    ordered = np.sort(hashes)
    return pl.Series(np.isin(hashes, ordered[1:][ordered[1:] == ordered[:-1]]))


def _later_of_equals(verdicts: pl.DataFrame, keys: list[str], within: str) -> pl.DataFrame:
    """`id` and `detail` of every sample but the first of each group of equal, non-null keys."""
    groups = [*SCOPES[within], *keys]
    verdicts = _subset(verdicts)
    some = verdicts.filter(perhaps_repeated(verdicts.select(groups)))
    candidates = some.filter(pl.all_horizontal(pl.col(keys).is_not_null()))
    ordered = candidates.sort("priority", "id").with_columns(
        first=pl.col("id").first().over(groups)
    )
    later = ordered.filter(pl.col("id") != pl.col("first"))
    return later.select("id", detail=pl.lit("of ") + pl.col("first"))


@rule(scope="mixture", version=2, needs=lambda *, same, **_: ("text_hash", f"{same}_hash"))
def duplicate_sample(
    verdicts: pl.DataFrame, *, within: Within = "mixture", same: Same = "pixels"
) -> pl.DataFrame:
    """Another sample has the same text and the same images.

    `same`: images are compared by their encoded `bytes`, or by their `pixels`, where a JPEG is its
    coded data: without its EXIF it is the same, saved as a PNG it is near and not the same.
    """
    images = f"{same}_hash"
    # A sample without images, or without words, is equal to its like on that side.
    filled = verdicts.with_columns(pl.col("text_hash", images).fill_null(0)).filter(
        (pl.col("text_hash") != 0) | (pl.col(images) != 0)
    )
    return _later_of_equals(filled, ["text_hash", images], within)


@rule(scope="mixture", needs=lambda **_: ("text_hash",))
def duplicate_text(verdicts: pl.DataFrame, *, within: Within = "mixture") -> pl.DataFrame:
    """Another sample has the same text, whatever the images."""
    return _later_of_equals(verdicts, ["text_hash"], within)


@rule(scope="mixture", version=2, needs=lambda *, same, **_: (f"{same}_hash",))
def duplicate_images(
    verdicts: pl.DataFrame, *, within: Within = "mixture", same: Same = "pixels"
) -> pl.DataFrame:
    """Another sample has the same images in the same order, whatever is asked about them."""
    return _later_of_equals(verdicts, [f"{same}_hash"], within)


def _near(verdicts: pl.DataFrame, search: Search, *, within: Within, run: Run) -> pl.DataFrame:
    """`id` and `detail` of every row in whose place a near one of the same scope stays."""
    scope = pl.struct(SCOPES[within]).rank("dense") if SCOPES[within] else pl.lit(0)
    ids = verdicts.select("priority", "id", row=pl.int_range(pl.len()))
    ordered = ids.sort("priority", "id").select("id", "row").with_row_index("rank")
    ranks = ordered.sort("row").select(pl.col("rank").cast(pl.Int32))
    rows = _subset(verdicts).with_columns(scope.cast(pl.UInt32).alias("scope"), ranks.to_series())
    place = near.representatives(len(rows), run(rows, search))
    gone = np.flatnonzero(place != np.arange(len(place)))
    first = ordered["id"]
    return pl.DataFrame({"id": first[gone], "detail": "of " + first[place[gone]]})


@rule(scope="mixture", version=2, check=check_nearness, needs=lambda **_: ("text_signature",))
def near_duplicate_text(
    verdicts: pl.DataFrame,
    *,
    within: Within = "mixture",
    similarity: float = 0.8,
    run: Run = comparison_of_frame,
) -> pl.DataFrame:
    """Another sample has nearly the same text, whatever the images.

    `similarity`: the least Jaccard index of runs of 5 words.
    """
    # 0.8: Lee et al., https://arxiv.org/abs/2107.06499, section 4.2.
    search = Search(kind="text", count=len(verdicts), similarity=similarity)
    return _near(verdicts, search, within=within, run=run)


@rule(scope="mixture", version=3, check=check_nearness, needs=lambda **_: ("dhashes",))
def near_duplicate_images(
    verdicts: pl.DataFrame,
    *,
    within: Within = "mixture",
    radius: int = 4,
    run: Run = comparison_of_frame,
) -> pl.DataFrame:
    """Another sample has nearly the same images in the same order, whatever is asked about them.

    `radius`: bits of 64 in which two difference hashes may differ. An image whose hash says
    nothing, a plain colour or a flag in bands, is near none but the very same.
    """
    # 4: what recompressed and resized copies stay within; measured by benchmarks/duplicates.py.
    # Charts and tables of one template are as near, so prefer near_duplicate_sample for them.
    search = Search(kind="images", count=len(verdicts), radius=radius)
    return _near(verdicts, search, within=within, run=run)


@rule(
    scope="mixture",
    version=3,
    check=check_nearness,
    needs=lambda **_: ("text_signature", "dhashes"),
)
def near_duplicate_sample(
    verdicts: pl.DataFrame, *, within: Within = "mixture", similarity: float = 0.8, radius: int = 4,
    run: Run = comparison_of_frame,
) -> pl.DataFrame:  # fmt: skip
    """Another sample has nearly the same images and nearly the same text.

    `similarity` and `radius` as in near_duplicate_text and near_duplicate_images.
    """
    search = Search(kind="sample", count=len(verdicts), similarity=similarity, radius=radius)
    return _near(verdicts, search, within=within, run=run)


def duplicates_of_embeddings(
    verdicts: pl.DataFrame, *, similarity: float, within: Within, run: Run
) -> pl.DataFrame:
    """`id` and `detail` of samples whose `embedding_signature` is near that of another."""
    search = Search(kind="embedding", count=len(verdicts), similarity=similarity)
    return _near(verdicts, search, within=within, run=run)


Rules = Mapping[str, Mapping[str, Any] | None]


@dataclass(frozen=True, kw_only=True)
class Application:
    """One use of a rule on the whole mixture."""

    rule: str
    mode: str
    """drop | mark"""
    values: Mapping[str, Any]
    """Its settings."""
    only: str
    """The component among whose samples alone it applies; empty: all."""
    apart: tuple[str, ...]
    """Components that it does not see."""

    @property
    def near(self) -> bool:
        """Whether it compares near rows, which `run` does."""
        return "run" in signature(RULES[self.rule].function).parameters

    @property
    def needs(self) -> tuple[str, ...]:
        """The columns of VERDICTS that it compares."""
        return RULES[self.rule].needs(**self.values)

    def sees(self, component: str) -> bool:
        """Whether it applies to samples of the component."""
        return component == self.only if self.only else component not in self.apart

    def call(self, verdicts: pl.DataFrame, run: Run) -> pl.DataFrame:
        """`id` and `detail` of those that it takes of the samples that it sees."""
        how = {"run": run} if self.near else {}
        found: pl.DataFrame = RULES[self.rule].function(verdicts, **self.values, **how)
        return found


def mixture_applications(
    settings: Rules, components: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
) -> list[Application]:
    """Rules on the whole mixture in the order in which they apply, each to what is left by the
    rules before; `settings` and `components` as in `mixture_rules`.
    """
    stated: list[tuple[str, tuple[str, ...], str, Any]] = [
        (component, (), name, {**(settings.get(name) or {}), **(given or {})})
        for component, rules in components.items()
        for name, given in rules.items()
        if given is not False
    ]
    for name, given in settings.items():
        apart = tuple(c for c, rules in components.items() if name in rules)
        stated.append(("", apart, name, given))
    found = []
    for only, apart, name, given in stated:
        if RULES[name].scope == "mixture":
            mode, values = settings_of(name, given)
            found.append(Application(rule=name, mode=mode, values=values, only=only, apart=apart))
    return found


def mixture_rules(
    verdicts: pl.DataFrame,
    *,
    settings: Rules,
    components: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    run: Run = comparison_of_frame,
) -> pl.DataFrame:
    """`id`, `rule`, `mode` (drop or mark) and `detail` of every sample a mixture-level rule takes.

    Reads: VERDICTS of all parts with two more columns, `component` (string) and `priority` (int,
    the lowest stays). `settings` may hold per-sample rules too, which are passed over. Rules apply
    in their order to what is left by `rule` and by the rules before, so each sample is dropped at
    most once; marked samples stay in play.

    `components` holds what single components say themselves. Settings, laid over the mixture's,
    apply among the component's own samples, first; False turns the mixture's rule off. In both
    cases the mixture's rule of that name does not see the component: its samples neither go by it
    nor take others along. `run` says where near rows are compared, with the same answer.
    """
    left = verdicts.filter(pl.col("rule").is_null()).select(
        name for name in verdicts.columns if name in _COMPARED or name.endswith(".value")
    )
    schema = {"id": pl.String, "rule": pl.String, "mode": pl.String, "detail": pl.String}
    taken = [pl.DataFrame(schema=schema)]
    for each in mixture_applications(settings, components):
        among = pl.col("component") == each.only if each.only else None
        if each.apart:
            among = ~pl.col("component").is_in(each.apart)
        gone = each.call(left if among is None else left.filter(among), run)
        taken.append(
            gone.select("id", rule=pl.lit(each.rule), mode=pl.lit(each.mode), detail="detail")
        )
        if each.mode == "drop":
            left = left.join(gone, on="id", how="anti", maintain_order="left")
    return pl.concat(taken)
