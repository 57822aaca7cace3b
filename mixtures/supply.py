"""What of an index could be used, per stratum, and in a sentence why what is gone is gone.

Samples, what caps and limits leave of them --supply_of--> the table that `allocate` shares out
"""

from collections.abc import Iterable, Mapping

import polars as pl

from mixtures.allocate import caps_of
from mixtures.config import Mixture
from mixtures.draws import Draws
from mixtures.samples import Samples

Fractions = Mapping[tuple[str, str], float]
"""(component, subset) -> the fraction of what it could give that was read, where not all."""
Rows = Mapping[tuple[str, str], int]
"""(component, subset) -> rows of the subset, where only some of its parts were read."""
SUPPLY = {
    "component": pl.String,
    "subset": pl.String,
    "limited": pl.UInt32,
    "samples": pl.Int64,
    "units": pl.Float64,
    **dict.fromkeys(("tokens", "learned", "crops", "bytes", "val_samples"), pl.Int64),
    "val_units": pl.Float64,
}
DETAILS = 3
"""Details shown of a reason that left nothing."""
CHOSEN = ("keep", "max_samples", "grade")
"""Rules by which a mixture itself leaves rows out."""


def supply_of(samples: Samples, draws: Draws, mixture: Mixture, parts: Fractions) -> pl.DataFrame:
    """What caps and limits leave, per stratum, in the order of the mixture (columns: see allocate),
    where not all was read as estimated from what was; and `there`, the fraction that was read.

    Every component has a line, and every subset of a weighted one, even where nothing is left.
    """
    lines = []
    for (code, limited), (train, val) in draws.strata.items():
        if len(train) or len(val):
            component, subset = samples.subsets[code]
            counts = [train.sums[name] for name in ("tokens", "learned", "crops", "bytes")]
            sides = (len(val), val.total)
            lines.append((component, subset, limited, len(train), train.total, *counts, *sides))
    return whole_supply(pl.DataFrame(lines, schema=SUPPLY, orient="row"), mixture, parts)


def whole_supply(table: pl.DataFrame, mixture: Mixture, parts: Fractions) -> pl.DataFrame:
    """What could be used, given SUPPLY of what was read; `parts`: the fraction that is of it."""
    there = pl.Series([parts.get(key, 1.0) for key in table.select("component", "subset").rows()])
    counts = pl.col("samples", "tokens", "learned", "crops", "bytes", "val_samples")
    if parts:
        whole = pl.col("units", "val_units") / there
        table = table.with_columns((counts / there).round().cast(pl.Int64), whole)
    table = table.with_columns(there=there.cast(pl.Float64))
    found = set(table.select("component", "subset").iter_rows())
    absent = []
    for name, component in mixture.components.items():
        weighted = any(s.weight is not None for s in component.subsets.values())
        for subset in component.subsets if weighted else ():
            if (name, subset) not in found:
                absent.append((name, subset))
        if name not in {c for c, _ in found} and not weighted:
            absent.append((name, ""))
    gone = pl.DataFrame(absent, schema={"component": pl.String, "subset": pl.String}, orient="row")
    order = {name: position for position, name in enumerate(mixture.components)}
    return (
        pl.concat([table, gone], how="diagonal")
        .with_columns(pl.exclude("component", "subset").fill_null(0))
        .sort(pl.col("component").replace_strict(order, return_dtype=pl.Int32), "subset", "limited")
    )


def parts_read(
    samples: Samples, draws: Draws, mixture: Mixture, *, rows: Rows, read: Fractions
) -> dict[tuple[str, str], float]:
    """(component, subset) -> the fraction that was read of what it could give under its caps, where
    that is not all.
    """
    found = {}
    sizes = zip(samples.subsets, samples.rows_of_subsets(), draws.live, strict=True)
    for key, count, live in sizes:
        if key in read and live:
            caps = caps_of(mixture, *key, rows=rows.get(key, int(count)))
            most = min([live / read[key], *(float(most) for _, most in caps)])
            found[key] = float(live / most)
    return {key: min(1.0, part) for key, part in found.items() if part < 1}


def why_gone(
    lines: Iterable[pl.DataFrame], mixture: Mixture, *, causes: Mapping[str, str]
) -> dict[str, str]:
    """Component -> a sentence on why its rows are gone, where at least half of those are that the
    mixture did not leave out itself: how many were read, the reasons, with how many each, and the
    first three details of each. Reads: component, rule, detail of the index, some lines at a time.

    `causes`: component -> what is known of media that are missing, in place of details, or of
    files without rows.
    """
    counts: dict[str, dict[str | None, int]] = {}
    details: dict[tuple[str, str | None], dict[str, None]] = {}
    for some in lines:
        first = pl.col("detail").drop_nulls().unique(maintain_order=True).head(DETAILS)
        named = some.select(pl.col("component", "rule", "detail").cast(pl.String))
        grouped = named.group_by("component", "rule", maintain_order=True).agg(pl.len(), first)
        for component, rule, count, told in grouped.iter_rows():
            of = counts.setdefault(component, {})
            of[rule] = of.get(rule, 0) + count
            details.setdefault((component, rule), {}).update(dict.fromkeys(told))
    out = {}
    for name in mixture.components:
        of = counts.get(name, {})
        read, left = sum(of.values()), of.get(None, 0)
        rejected = {rule: count for rule, count in of.items() if rule and not by_choice(rule)}
        if not read:
            cause = causes.get(name, "")
            out[name] = f"{name}: no row was read{f' ({cause})' if cause else ''}."
        elif not left or 2 * sum(rejected.values()) >= read:
            gone = rejected if left else {rule: n for rule, n in of.items() if rule}
            number = f"{sum(gone.values()):,} of {read:,}" if left else f"all {read:,}"
            cause = causes.get(name, "")
            why = ", ".join(
                reason_in_words(rule, gone[rule], list(details[name, rule])[:DETAILS], cause=cause)
                for rule in sorted(gone, key=lambda rule: (-gone[rule], rule))
            )
            out[name] = f"{name}: {number} rows read were rejected: {why}."
    return out


def by_choice(rule: str) -> bool:
    """Whether the mixture itself leaves rows out by this rule."""
    return rule in CHOSEN or rule.startswith("limit_")


def reason_in_words(rule: str, count: int, details: list[str], *, cause: str) -> str:
    """`missing_media 12 (details)`; `cause`: what is known of missing media, in place of those."""
    told = [cause] if cause and rule == "missing_media" else details
    return f"{rule} {count:,}" + (f" ({'; '.join(told)})" if told else "")
