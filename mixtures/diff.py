"""Two finished mixtures side by side: settings, shares, reasons, samples.

Reads the `recipe.json` (a mapping) and the index (INDEX columns) of each. Pure: the caller loads
and prints.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl


@dataclass(frozen=True, kw_only=True)
class Diff:
    """What differs between mixture a and mixture b."""

    settings: pl.DataFrame
    """key (dotted), a, b (as text; null: not there). Only what differs; the resolved mixture,
    sources and package versions."""
    components: pl.DataFrame
    """component, and of each side: asked_a (its ratio), samples_a (copies), tokens_a,
    learned_a (shares of the train split, 0..1); the same for b."""
    rules: pl.DataFrame
    """component, rule, a, b: samples out for that reason. Only where the counts differ."""
    samples: pl.DataFrame
    """component, both, only_a, only_b: distinct samples used (train or val)."""
    moved: pl.DataFrame
    """id, a, b: what became of samples both read and only one used: a rule, `used`, `unused`."""


def diff(
    recipe_a: Mapping[str, Any],
    index_a: pl.DataFrame,
    recipe_b: Mapping[str, Any],
    index_b: pl.DataFrame,
) -> Diff:
    """Everything that differs between two finished mixtures."""
    return Diff(
        settings=_settings(recipe_a, recipe_b),
        components=_components(recipe_a, index_a, recipe_b, index_b),
        rules=_rules(index_a, index_b),
        samples=_samples(index_a, index_b),
        moved=_moved(index_a, index_b),
    )


def flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Dotted key -> value as text; an empty mapping or list is a value."""
    if isinstance(value, Mapping) and value:
        out: dict[str, str] = {}
        for key, inner in value.items():
            out |= flat(inner, f"{prefix}.{key}" if prefix else str(key))
        return out
    return {prefix: str(value)}


def _settings(recipe_a: Mapping[str, Any], recipe_b: Mapping[str, Any]) -> pl.DataFrame:
    a, b = (
        flat({key: recipe.get(key, {}) for key in ("mixture", "sources", "packages")})
        for recipe in (recipe_a, recipe_b)
    )
    keys = [key for key in {**a, **b} if a.get(key) != b.get(key)]
    schema = {"key": pl.String, "a": pl.String, "b": pl.String}
    return pl.DataFrame([(k, a.get(k), b.get(k)) for k in keys], schema=schema, orient="row")


def _shares(index: pl.DataFrame, side: str) -> pl.DataFrame:
    """Per component: its shares of the train split's copies, tokens and learned tokens."""
    copies = pl.col("copies")
    sums = (
        index.filter(pl.col("copies") > 0, split="train")
        .group_by("component")
        .agg(
            copies.sum().alias(f"samples_{side}"),
            (copies * pl.col("num_tokens").cast(pl.Int64)).sum().alias(f"tokens_{side}"),
            (copies * pl.col("num_learned").cast(pl.Int64)).sum().alias(f"learned_{side}"),
        )
    )
    return sums.with_columns(
        pl.col(name) / pl.col(name).sum() for name in sums.columns if name != "component"
    )


def _components(
    recipe_a: Mapping[str, Any],
    index_a: pl.DataFrame,
    recipe_b: Mapping[str, Any],
    index_b: pl.DataFrame,
) -> pl.DataFrame:
    asked = [
        {name: float(c["ratio"]) for name, c in recipe["mixture"]["components"].items()}
        for recipe in (recipe_a, recipe_b)
    ]
    names = list({**asked[0], **asked[1]})
    table = pl.DataFrame(
        {
            "component": names,
            "asked_a": [asked[0].get(name, 0.0) for name in names],
            "asked_b": [asked[1].get(name, 0.0) for name in names],
        },
        schema={"component": pl.String, "asked_a": pl.Float64, "asked_b": pl.Float64},
    )
    for index, side in ((index_a, "a"), (index_b, "b")):
        table = table.join(_shares(index, side), on="component", how="left", maintain_order="left")
    what = ("asked", "samples", "tokens", "learned")
    return table.with_columns(pl.exclude("component").fill_null(0.0)).select(
        "component", *(f"{name}_{side}" for name in what for side in ("a", "b"))
    )


def _rules(index_a: pl.DataFrame, index_b: pl.DataFrame) -> pl.DataFrame:
    counts = [
        index.filter(pl.col("rule").is_not_null())
        .group_by("component", "rule")
        .agg(pl.len().cast(pl.Int64).alias(side))
        for index, side in ((index_a, "a"), (index_b, "b"))
    ]
    return (
        counts[0]
        .join(counts[1], on=["component", "rule"], how="full", coalesce=True)
        .with_columns(pl.col("a", "b").fill_null(0))
        .filter(pl.col("a") != pl.col("b"))
        .sort("component", "rule")
    )


def _samples(index_a: pl.DataFrame, index_b: pl.DataFrame) -> pl.DataFrame:
    used = [
        index.filter(pl.col("copies") > 0).select("id", "component", pl.lit(1).alias(side))
        for index, side in ((index_a, "a"), (index_b, "b"))
    ]
    a, b = pl.col("a").is_not_null(), pl.col("b").is_not_null()
    return (
        used[0]
        .join(used[1], on=["id", "component"], how="full", coalesce=True)
        .group_by("component")
        .agg(
            both=(a & b).sum().cast(pl.Int64),
            only_a=(a & ~b).sum().cast(pl.Int64),
            only_b=(b & ~a).sum().cast(pl.Int64),
        )
        .sort("component")
    )


def _moved(index_a: pl.DataFrame, index_b: pl.DataFrame) -> pl.DataFrame:
    became = (
        pl.when(pl.col("rule").is_not_null())
        .then("rule")
        .otherwise(pl.when(pl.col("copies") > 0).then(pl.lit("used")).otherwise(pl.lit("unused")))
    )
    sides = [
        index.select("id", became.alias(side)) for index, side in ((index_a, "a"), (index_b, "b"))
    ]
    return (
        sides[0]
        .join(sides[1], on="id", how="inner", maintain_order="left")
        .filter((pl.col("a") == "used") != (pl.col("b") == "used"))
    )
