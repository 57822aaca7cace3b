"""What of an index the card tells, counted some lines at a time.

lines (INDEX) --counted--> Counts: sums per component, subset, modality, split, rule; tags; reasons;
                           histograms
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

AMOUNTS = ("copies", "num_tokens", "num_learned", "num_crops")
READ = (
    *("id", "component", "subset", "modality", "split", "rule", *AMOUNTS),
    *("tags", "fired", "detail", "duration"),
)
"""Columns of INDEX that are read."""
KEYS = ("component", "subset", "modality", "split", "rule")
EXAMPLES = 3
"""Ids of each reason."""
LEAST_TOKENS = 16
EDGES: dict[str, tuple[float, ...]] = {
    "tokens": (0.0, *(float(LEAST_TOKENS * 2**k) for k in range(29))),
    "learned_share": tuple(k / 20 for k in range(21)),
    "crops": (0, 1, 2, 4, 8, 13, 17, 24, 32, 64, 128, 256),
    "seconds": (0, 2, 5, 10, 20, 30, 60, 120, 180, 600, 3600),
}
"""Of histograms."""
MERGED = 1 << 16
"""Lines of sums that wait to be summed up."""


@dataclass
class Sums:
    """Sums per key, added to some lines at a time."""

    by: tuple[str, ...]
    waiting: list[pl.DataFrame] = field(default_factory=list)

    def add(self, some: pl.DataFrame) -> None:
        """Partial sums of other lines; `most` is a maximum."""
        self.waiting.append(some)
        if len(self.waiting) > 1 and sum(map(len, self.waiting)) > MERGED:
            self.waiting = [self.table()]

    def table(self) -> pl.DataFrame:
        """A line per key."""
        whole = pl.concat(self.waiting)
        sums = [n for n in whole.columns if n not in self.by and n != "most"]
        most = [pl.col("most").max()] if "most" in whole.columns else []
        return whole.group_by(self.by).agg(pl.col(sums).sum(), *most)


@dataclass
class Counts:
    """Of the lines that were counted."""

    lines: Sums = field(default_factory=lambda: Sums(KEYS))
    """Amounts of all copies, `read`, `distinct` (lines that are used), `most` copies of one."""
    tags: Sums = field(default_factory=lambda: Sums(("tags",)))
    """Amounts of the train split."""
    details: Sums = field(default_factory=lambda: Sums(("rule", "detail")))
    fired: Counter[str] = field(default_factory=Counter)
    """Rule -> lines that it took or fired on."""
    removed_ids: dict[str, list[str]] = field(default_factory=dict)
    fired_ids: dict[str, list[str]] = field(default_factory=dict)
    """The first ids that a rule took; on which it only fired."""
    videos: int = 0
    seconds: float = 0.0
    """Copies with a video in the train split, and how long they last."""
    histograms: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    """Name in EDGES -> component -> counts of samples that are used in the train split."""
    longest: int = 0
    """Tokens of a sample that is used in the train split."""


def amounts() -> dict[str, pl.Expr]:
    """Tokens, learned tokens, samples, crops of the copies of lines; how many are used."""
    copies = pl.col("copies").cast(pl.Int64)
    return {
        "tokens": (copies * pl.col("num_tokens")).sum(),
        "learned_tokens": (copies * pl.col("num_learned")).sum(),
        "samples": copies.sum(),
        "crops": (copies * pl.col("num_crops")).sum(),
        "distinct": (copies > 0).sum().cast(pl.Int64),
    }


def counted(lines: Iterable[pl.DataFrame]) -> Counts:
    """What is told of all lines. Reads: READ."""
    counts = Counts(histograms={name: {} for name in EDGES})
    for some in lines:
        count_lines(some, counts)
        used = some.filter((pl.col("copies") > 0) & (pl.col("split") == "train"))
        count_used(used, counts)
        count_reasons(some, counts)
    return counts


def count_lines(some: pl.DataFrame, counts: Counts) -> None:
    """Amounts per KEYS."""
    most = pl.col("copies").max().cast(pl.Int64)
    sums = some.group_by(KEYS).agg(read=pl.len().cast(pl.Int64), **amounts(), most=most)
    counts.lines.add(sums.with_columns(pl.col(KEYS).cast(pl.String)))


def count_used(used: pl.DataFrame, counts: Counts) -> None:
    """Tags, videos and histograms of lines that are used in the train split."""
    tagged = used.select(*AMOUNTS, "tags").explode("tags", empty_as_null=True).drop_nulls("tags")
    counts.tags.add(
        tagged.group_by("tags").agg(**amounts()).with_columns(pl.col("tags").cast(pl.String))
    )
    copies = pl.col("copies").cast(pl.Int64)
    of_videos = used.filter(pl.col("duration") > 0)
    number, seconds = of_videos.select(
        copies.sum(), (copies * pl.col("duration").cast(pl.Float64)).sum().alias("seconds")
    ).row(0)
    counts.videos, counts.seconds = counts.videos + number, counts.seconds + seconds
    counts.longest = max(counts.longest, int(used["num_tokens"].max() or 0))  # type: ignore[arg-type]
    for (component,), mine in used.group_by("component"):
        learned = mine.select(pl.col("num_learned") / pl.col("num_tokens"))["num_learned"]
        for name, values in (
            ("tokens", mine["num_tokens"]),
            ("learned_share", learned),
            ("crops", mine["num_crops"]),
            ("seconds", mine["duration"].drop_nulls()),
        ):
            if len(values):
                of, found = counts.histograms[name], histogram(values, EDGES[name])
                of[str(component)] = of.get(str(component), 0) + found


def histogram(values: pl.Series, edges: Sequence[float]) -> np.ndarray:
    """Counts between edges; the last bin takes everything above."""
    numbers = values.to_numpy().astype(np.float64)
    return np.histogram(np.minimum(numbers, edges[-1]), bins=edges)[0]


def count_reasons(some: pl.DataFrame, counts: Counts) -> None:
    """Which rules took lines or fired on them, the first ids of each, and what was found."""
    if some["rule"].null_count() == len(some) and not some["fired"].list.len().sum():
        return
    names = some.select(pl.col("rule").cast(pl.String), "fired", "id", "detail").with_row_index(
        "at"
    )
    removed = names.drop_nulls("rule").select("at", "rule", "id")
    some_fired = names.filter(pl.col("fired").list.len() > 0)
    fired = some_fired.select("at", "id", own="rule", rule="fired").explode(
        "rule", empty_as_null=True
    )
    fired = (
        fired.drop_nulls("rule")
        .with_columns(pl.col("rule").cast(pl.String))
        .unique(["at", "rule"], maintain_order=True)
    )
    also = fired.filter(pl.col("own").ne_missing(pl.col("rule")))
    for lines, ids in ((removed, counts.removed_ids), (also, counts.fired_ids)):
        first = lines.group_by("rule").agg(pl.len(), pl.col("id").head(EXAMPLES))
        for rule, number, found in first.iter_rows():
            counts.fired[rule] += number
            ids[rule] = [*ids.get(rule, []), *found][:EXAMPLES]
    told = names.select("rule", pl.col("detail").cast(pl.String)).drop_nulls()
    counts.details.add(told.group_by("rule", "detail").agg(samples=pl.len().cast(pl.Int64)))
