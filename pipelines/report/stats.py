"""Every number of a finished mixture, from its index, FACTS of its shards and its recipe.

Shares are of the `train` split unless a key says `val`. A ratio is asked for in one measure
(`mixture.measure`) and reported in all three: tokens, learned_tokens, samples. The index is counted
some lines at a time (index_counts.py), the rows shard by shard (packed_counts.py).
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from mixtures.balance import Rows
from mixtures.columns import New, in_memory
from pipelines.report.evenness import asked_along, imbalance, schedules_in, windows
from pipelines.report.finished import Lines
from pipelines.report.index_counts import (
    EDGES,
    EXAMPLES,
    KEYS,
    LEAST_TOKENS,
    READ,
    Counts,
    counted,
)
from pipelines.report.packed_counts import Packed, Split, counted_rows

Shares = dict[str, dict[str, float]]  # value -> measure -> share
MEASURES = ("tokens", "learned_tokens", "samples")

GRIDS = 20
"""Crop grids that are told of: the commonest."""
PREFIX_POINTS = 50
"""Places along the train rows at which the balance so far is taken."""
SUMMED = ("tokens", "learned_tokens", "samples", "crops", "distinct")
NOTHING = pl.DataFrame(
    schema={**dict.fromkeys(KEYS, pl.String), **dict.fromkeys(("read", *SUMMED, "most"), pl.Int64)}
)
"""Sums over no line."""
DETAILS = 5
"""Details of a rule, at most, with the samples of each: the most frequent."""


def stats(
    lines: Lines, shards: Iterable[pl.DataFrame], recipe: Mapping[str, Any], *, new: New = in_memory
) -> dict[str, Any]:
    """Every number of the card as one JSON-able dict: stats.json but for its `timings`.

    Reads: `lines` (INDEX, one line per sample read), `shards` (FACTS of each in order), `recipe`
    (recipe.json). Sums over shards and over the index are of the same samples. `new`: where numbers
    of every row are put meanwhile.
    """
    mixture = recipe["mixture"]
    encoding = mixture["encoding"]
    counts = counted(lines(READ))
    table = counts.lines.table() if counts.lines.waiting else NOTHING
    train = table.filter(pl.col("split") == "train")
    totals = _amounts(train)
    components = {
        name: _component(name, settings, table, totals, mixture["measure"])
        for name, settings in mixture["components"].items()
    }
    packed = counted_rows(shards, mixture, new=new)
    amounts = _amounts_along(packed.order)
    return {
        "name": recipe["name"],
        "fingerprint": recipe["fingerprint"],
        "description": mixture.get("description") or "",
        "measure": mixture["measure"],
        "tokens_asked": mixture["tokens"],
        "read": _total(table["read"]),
        "kept": _total(table.filter(pl.col("rule").is_null())["read"]),
        "train": totals,
        "val": _amounts(table.filter(pl.col("split") == "val")),
        "components": components,
        "modalities": _shares(train, "modality", totals),
        "facets": _facets(_with_categories(counts, train, mixture), totals),
        "rejected": _rejected(counts, table),
        "packing": {
            split: _packing(rows, encoding, new=new) for split, rows in packed.splits.items()
        },
        "videos": {"samples": counts.videos, "mean_seconds": _ratio(counts.seconds, counts.videos)},
        "grids": _grids(packed),
        "prefix": _prefix(amounts, mixture),
        **({"schedule": _along(amounts, mixture)} if schedules_in(mixture) else {}),
        "windows": windows(packed, mixture),
        "histograms": _histograms(counts, packed.fill, mixture),
        "held_out": _held_out(table, mixture),
        "sources": {
            name: {**source, "own_files": bool(mixture["components"][name].get("data"))}
            for name, source in recipe["sources"].items()
        },
    }


def _amounts(table: pl.DataFrame) -> dict[str, int]:
    """Tokens, learned tokens, samples, crops of the copies of these lines; distinct samples."""
    return {name: _total(table[name]) for name in SUMMED}


def _total(counts: pl.Series) -> int:
    """The sum; Polars sums Int32 as Int32, which ends at two thousand million tokens."""
    return int(counts.cast(pl.Int64).sum())


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _account(table: pl.DataFrame) -> dict[str, Any]:
    """What became of these index lines: read, kept, rejected by rule, used, epochs, amounts."""
    kept = table.filter(pl.col("rule").is_null())
    kept_train = kept.filter(pl.col("split") == "train")
    amounts = _amounts(kept_train)
    train_kept = _total(kept_train["read"])
    rules = (
        table.drop_nulls("rule")
        .group_by("rule")
        .agg(pl.col("read").sum())
        .sort(["read", "rule"], descending=[True, False])
    )
    return {
        "read": _total(table["read"]),
        "kept": _total(kept["read"]),
        "rejected": dict(rules.iter_rows()),
        "used": _total(table["distinct"]),  # samples in any shard, each once
        "train_kept": train_kept,
        "epochs": _ratio(amounts["samples"], train_kept),
        "most_copies": int(kept_train["most"].max() or 0),  # type: ignore[arg-type]
        **amounts,
    }


def _component(
    name: str,
    settings: Mapping[str, Any],
    table: pl.DataFrame,
    totals: Mapping[str, int],
    measure: str,
) -> dict[str, Any]:
    """One component's account: asked, got in three measures, and the same per subset."""
    rows = table.filter(pl.col("component") == name)
    account = _account(rows)
    subsets = {subset: _account(lines) for (subset,), lines in rows.group_by("subset")}
    got = {measure: _ratio(account[measure], totals[measure]) for measure in MEASURES}
    return {
        "source": settings.get("source", ""),
        "asked": float(settings["ratio"]),
        "off": got[measure] - float(settings["ratio"]),
        "got": got,
        **account,
        "subsets": dict(sorted(subsets.items())),
    }


def _shares(table: pl.DataFrame, column: str, totals: Mapping[str, int]) -> Shares:
    """Per value of a column, its share of the train split in each measure; of what is used."""
    shares = {}
    for (value,), rows in (
        table.filter(pl.col("distinct") > 0).sort(column).group_by(column, maintain_order=True)
    ):
        amounts = _amounts(rows)
        shares[str(value)] = {m: _ratio(amounts[m], totals[m]) for m in MEASURES}
    return dict(sorted(shares.items(), key=lambda item: -item[1]["tokens"]))


def _with_categories(
    counts: Counts, train: pl.DataFrame, mixture: Mapping[str, Any]
) -> pl.DataFrame:
    """Amounts per tag, and per "category:..." that the mixture gives a subset."""
    found = [counts.tags.table().select("tags", *SUMMED)] if counts.tags.waiting else []
    for name, settings in mixture["components"].items():
        mine = train.filter((pl.col("component") == name) & (pl.col("distinct") > 0))
        for (subset,), rows in mine.group_by("subset"):
            if category := _category(settings, str(subset)):
                tag = pl.lit(f"category:{category}").alias("tags")
                found.append(rows.select(tag, pl.col(SUMMED)))
    return pl.concat(found) if found else NOTHING.select(pl.lit("").alias("tags"), *SUMMED)


def _category(settings: Mapping[str, Any], subset: str) -> str:
    """The kind of task that the mixture states for a subset, else for its component."""
    own = (settings.get("subsets") or {}).get(subset) or {}
    return own.get("category") or settings.get("category") or ""


def _facets(tags: pl.DataFrame, totals: Mapping[str, int]) -> dict[str, Shares]:
    """Shares by tag: "category:chart" counts under the facet `category`, "cot" under `tag`."""
    parts = pl.col("tags").str.split_exact(":", 1)
    tags = tags.with_columns(
        facet=pl.when(pl.col("tags").str.contains(":", literal=True))
        .then(parts.struct.field("field_0"))
        .otherwise(pl.lit("tag")),
        value=pl.coalesce(parts.struct.field("field_1"), pl.col("tags")),
    )
    return {
        str(facet): _shares(rows, "value", totals)
        for (facet,), rows in sorted(tags.group_by("facet"), key=lambda item: str(item[0][0]))
    }


def _details(counts: Counts) -> dict[str, dict[str, int]]:
    """Rule -> what it found, in the words of `detail`, -> on how many samples that it removed."""
    if not counts.details.waiting:
        return {}
    most = counts.details.table().sort("samples", "rule", "detail", descending=[True, False, False])
    found: dict[str, dict[str, int]] = {}
    for rule, detail, count in most.select("rule", "detail", "samples").iter_rows():
        of_rule = found.setdefault(rule, {})
        if len(of_rule) < DETAILS:
            of_rule[detail] = count
    return found


def _rejected(counts: Counts, table: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Per rule: samples it removed (first to fire), samples it fired on, up to three ids, and what
    was found on how many.

    A rule that only marks removed none; its examples are samples that it fired on.
    """
    removed = dict(table.drop_nulls("rule").group_by("rule").agg(pl.col("read").sum()).iter_rows())
    details = _details(counts)
    found = {}
    for rule, number in counts.fired.items():
        ids = [*counts.removed_ids.get(rule, []), *counts.fired_ids.get(rule, [])]
        found[rule] = {
            "samples": removed.get(rule, 0),
            "fired": number,
            "examples": ids[:EXAMPLES],
            **({"details": details[rule]} if rule in details else {}),
        }
    return dict(sorted(found.items(), key=lambda item: (-item[1]["samples"], item[0])))


def _packing(split: Split, encoding: Mapping[str, Any], *, new: New) -> dict[str, Any]:
    """Rows, fill and the fill that both limits allow, crops and samples per row, of one split."""
    from tokenization.pack import fill_bound

    if not split.rows:
        return {"rows": 0, "shards": 0, "tokens": 0, "learned_tokens": 0, "fill": 0.0}
    tokens, learned = split.sums["num_tokens"], split.sums["num_learned"]
    sizes = split.sizes.table()
    bound = fill_bound(
        *(sizes[name].cast(pl.Int64).to_numpy() for name in ("tokens", "crops")),
        counts=sizes["samples"].to_numpy(),
        seq_len=encoding["seq_len"],
        max_crops=encoding["max_crops"],
    )
    return {
        "rows": split.rows,
        "shards": split.shards,
        "tokens": tokens,
        "learned_tokens": learned,
        "learned_share": _ratio(learned, tokens),
        "images": split.sums["num_images"],
        "crops": split.sums["num_crops"],
        "pieces": split.sums["num_samples"],
        "fill": tokens / (split.rows * encoding["seq_len"]),
        "fill_bound": bound,
        "imbalance": imbalance(split.flops, new=new),
        "seq_len": encoding["seq_len"],
        "max_crops": encoding["max_crops"],
        "crops_per_row": spread(split.crops_per_row),
        "samples_per_row": spread(split.samples_per_row),
    }


def spread(counts: np.ndarray) -> dict[str, float]:
    """Mean, median, 95th percentile (the nearest number) and maximum of numbers that occur so often
    each.
    """
    through = np.cumsum(counts)
    number = int(through[-1])

    def at(place: int) -> float:
        return float(np.searchsorted(through, place, side="right"))

    return {
        "mean": int(counts @ np.arange(len(counts))) / number,
        "median": (at((number - 1) // 2) + at(number // 2)) / 2,
        "p95": at(int((number - 1) * 0.95 + 0.5)),
        "max": at(number - 1),
    }


def _grids(packed: Packed) -> dict[str, int]:
    """Images by crop grid, the commonest: how resolutions reach the model."""
    falling = sorted(packed.grids.items(), key=lambda item: (-item[1], item[0]))
    return dict(falling[:GRIDS])


def _amounts_along(rows: Rows) -> np.ndarray:
    """[points, components] amounts, in the unit of `measure`, of each of PREFIX_POINTS stretches of
    the train rows; no point where there are no rows.
    """
    points = min(PREFIX_POINTS, len(rows))
    ends = [-(-k * len(rows) // points) for k in range(points + 1)] if points else [0]
    amounts = [rows.units_of(a, b).sum(axis=0) for a, b in pairwise(ends)]
    return np.array(amounts).reshape(points, len(rows.names))


def _prefix(amounts: np.ndarray, mixture: Mapping[str, Any]) -> dict[str, Any]:
    """Each component's share of everything up to each of the points in the train rows.

    `worst` is the largest distance at any place past the first tenth from the final share, or from
    what schedules ask until there.
    """
    points = len(amounts)
    if not points:
        return {"at": [], "components": {}, "worst": 0.0}
    running = np.cumsum(amounts, axis=0)
    through = running.sum(axis=1, keepdims=True)
    shares = running / np.maximum(through, 1)
    asked = shares[-1]
    if schedules_in(mixture):
        part = through[:, 0] / max(through[-1, 0], 1)
        asked = np.stack(list(asked_along(mixture, part).values()), axis=1)
        asked = (asked / np.maximum(part[:, None], 1e-12))[points // 10 :]
    return {
        "at": [(point + 1) / points for point in range(points)],
        "components": {
            name: shares[:, k].round(6).tolist() for k, name in enumerate(mixture["components"])
        },
        "worst": float(np.abs(shares[points // 10 :] - asked).max()),
    }


def _along(amounts: np.ndarray, mixture: Mapping[str, Any]) -> dict[str, Any]:
    """Where ratios follow a schedule: `at` of the run (the middle of each stretch), the shares that
    were asked and got there, per component.
    """
    through = np.concatenate([[0.0], np.cumsum(amounts.sum(axis=1))])
    through /= max(through[-1], 1.0)
    length = np.maximum(np.diff(through), 1e-12)
    got = amounts / np.maximum(amounts.sum(axis=1, keepdims=True), 1)
    asked = {n: np.diff(part) / length for n, part in asked_along(mixture, through).items()}
    return {
        "at": ((through[1:] + through[:-1]) / 2).round(6).tolist(),
        "asked": {name: values.round(6).tolist() for name, values in asked.items()},
        "got": {name: got[:, k].round(6).tolist() for k, name in enumerate(mixture["components"])},
    }


def _held_out(table: pl.DataFrame, mixture: Mapping[str, Any]) -> dict[str, Any]:
    """What val holds beside train: per component its share of val in each measure and its samples;
    `empty` names the "component/subset" that train has samples of and val none, all of them.
    """
    used = table.filter(pl.col("distinct") > 0)
    val = used.filter(pl.col("split") == "val")
    totals = _amounts(val)
    components = {}
    for name in mixture["components"]:
        amounts = _amounts(val.filter(pl.col("component") == name))
        shares = {m: _ratio(amounts[m], totals[m]) for m in MEASURES}
        components[name] = {"share": shares, "samples": amounts["samples"]}
    strata = used.group_by("component", "subset").agg(held=(pl.col("split") == "val").any())
    empty = strata.filter(~pl.col("held")).select("component", "subset").rows()
    return {
        "components": components,
        "empty": sorted(f"{component}/{subset}" for component, subset in empty),
    }


def _histograms(
    counts: Counts, fill: np.ndarray, mixture: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Counts in fixed bins: tokens, learned share, crops, seconds of each sample used, of all and
    of each component; row fill.
    """
    top = max(counts.longest, LEAST_TOKENS) + 1
    bins = int(np.ceil(np.log2(top / LEAST_TOKENS))) + 1
    names = list(mixture["components"])
    return {
        name: _bins(
            edges[: bins + 1] if name == "tokens" else edges, counts.histograms[name], names
        )
        for name, edges in EDGES.items()
    } | {"fill": {"edges": [*EDGES["learned_share"]], "counts": fill.tolist()}}


def _bins(
    edges: Sequence[float], counts: Mapping[str, np.ndarray], names: Sequence[str]
) -> dict[str, Any]:
    """`counts` between `edges` of all, and `components`: of each of `names` that has any."""
    bins = len(edges) - 1
    whole = sum(counts.values(), np.zeros(bins, np.int64) if not counts else 0)
    return {
        "edges": [float(edge) for edge in edges],
        "counts": np.asarray(whole)[:bins].tolist(),
        "components": {n: counts[n][:bins].tolist() for n in names if n in counts},
    }
