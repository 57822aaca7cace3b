"""Every number of a finished mixture, from its index, FACTS of its shards and its recipe.

Shares are of the `train` split unless a key says `val`. A ratio is asked for in one measure
(`mixture.measure`) and reported in all three: tokens, learned_tokens, samples.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from pipelines.report.evenness import asked_along, imbalance, schedules_in, windows

Shares = dict[str, dict[str, float]]  # value -> measure -> share
MEASURES = ("tokens", "learned_tokens", "samples")

CROPS = (0, 1, 2, 4, 8, 13, 17, 24, 32, 64, 128, 256)
SECONDS = (0, 2, 5, 10, 20, 30, 60, 120, 180, 600, 3600)
TWENTIETHS = tuple(k / 20 for k in range(21))
"""Edges of histograms."""

PREFIX_POINTS = 50
"""Places along the train rows at which the balance so far is taken."""
AMOUNTS = ("copies", "num_tokens", "num_learned", "num_crops")
ACCOUNTED = ("component", "subset", "split", "rule", *AMOUNTS)
USED = (*ACCOUNTED, "modality", "tags", "duration")
"""The columns of the index that are read; not the ids, which would be copied with every filter."""
DETAILS = 5
"""Details of a rule, at most, with the samples of each: the most frequent."""


def stats(index: pl.DataFrame, packed: pl.DataFrame, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Every number of the card as one JSON-able dict: stats.json but for its `timings`.

    Reads: `index` (INDEX, one line per sample read), `packed` (FACTS of all shards in order),
    `recipe` (recipe.json). Sums over shards and over the index are of the same samples.
    """
    mixture = recipe["mixture"]
    encoding = mixture["encoding"]
    val, more = pl.col("split") == "val", pl.col("copies") > 0
    used = index.select(USED).filter(more & ~val)
    totals = _amounts(used)
    accounted = index.select(ACCOUNTED)
    components = {
        name: _component(name, settings, accounted, totals, mixture["measure"])
        for name, settings in mixture["components"].items()
    }
    amounts = _amounts_along(packed, mixture)
    return {
        "name": recipe["name"],
        "fingerprint": recipe["fingerprint"],
        "description": mixture.get("description") or "",
        "measure": mixture["measure"],
        "tokens_asked": mixture["tokens"],
        "read": len(index),
        "kept": index["rule"].null_count(),
        "train": totals,
        "val": _amounts(accounted.filter(more & val)),
        "components": components,
        "modalities": _shares(used, "modality", totals),
        "facets": _facets(_with_categories(used, mixture), totals),
        "rejected": _rejected(index),
        "packing": {
            split: _packing(packed.filter(pl.col("split") == split), encoding)
            for split in ("train", "val")
        },
        "videos": _videos(used),
        "grids": _grids(packed),
        "prefix": _prefix(amounts, mixture),
        **({"schedule": _along(amounts, mixture)} if schedules_in(mixture) else {}),
        "windows": windows(packed, mixture),
        "histograms": _histograms(used, packed, mixture, seq_len=encoding["seq_len"]),
        "held_out": _held_out(accounted, mixture),
        "sources": {
            name: {**source, "own_files": bool(mixture["components"][name].get("data"))}
            for name, source in recipe["sources"].items()
        },
    }


def _amounts(rows: pl.DataFrame) -> dict[str, int]:
    """Tokens, learned tokens, samples, crops of the copies of these index lines."""
    copies = pl.col("copies").cast(pl.Int64)
    return rows.select(
        tokens=(copies * pl.col("num_tokens")).sum(),
        learned_tokens=(copies * pl.col("num_learned")).sum(),
        samples=copies.sum(),
        crops=(copies * pl.col("num_crops")).sum(),
        distinct=pl.len().cast(pl.Int64),
    ).row(0, named=True)


def _total(counts: pl.Series) -> int:
    """The sum; Polars sums Int32 as Int32, which ends at two thousand million tokens."""
    return int(counts.cast(pl.Int64).sum())


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _account(rows: pl.DataFrame) -> dict[str, Any]:
    """What became of these index lines: read, kept, rejected by rule, used, epochs, amounts."""
    kept = rows.filter(pl.col("rule").is_null())
    kept_train = kept.filter(pl.col("split") == "train")
    amounts = _amounts(kept_train.filter(pl.col("copies") > 0))
    rules = (
        rows.drop_nulls("rule")
        .group_by("rule")
        .len()
        .sort(["len", "rule"], descending=[True, False])
    )
    return {
        "read": len(rows),
        "kept": len(kept),
        "rejected": dict(rules.iter_rows()),
        "used": int((rows["copies"] > 0).sum()),  # samples in any shard, each once
        "train_kept": len(kept_train),
        "epochs": _ratio(amounts["samples"], len(kept_train)),
        "most_copies": int(kept_train["copies"].max() or 0),  # type: ignore[arg-type]
        **amounts,
    }


def _component(
    name: str,
    settings: Mapping[str, Any],
    index: pl.DataFrame,
    totals: Mapping[str, int],
    measure: str,
) -> dict[str, Any]:
    """One component's account: asked, got in three measures, and the same per subset."""
    rows = index.filter(pl.col("component") == name)
    account = _account(rows)
    subsets = {
        subset: _account(lines) for (subset,), lines in rows.group_by("subset", maintain_order=True)
    }
    got = {measure: _ratio(account[measure], totals[measure]) for measure in MEASURES}
    return {
        "source": settings.get("source", ""),
        "asked": float(settings["ratio"]),
        "off": got[measure] - float(settings["ratio"]),
        "got": got,
        **account,
        "subsets": dict(sorted(subsets.items())),
    }


def _shares(
    used: pl.DataFrame, column: str, totals: Mapping[str, int]
) -> dict[str, dict[str, float]]:
    """Per value of a column, its share of the train split in each measure."""
    shares = {}
    for (value,), rows in used.group_by(column):
        amounts = _amounts(rows)
        shares[str(value)] = {m: _ratio(amounts[m], totals[m]) for m in MEASURES}
    return dict(sorted(shares.items(), key=lambda item: -item[1]["tokens"]))


def _with_categories(used: pl.DataFrame, mixture: Mapping[str, Any]) -> pl.DataFrame:
    """The lines with a tag "category:..." more, where the mixture gives their subset a category."""
    stated = [
        (name, subset, f"category:{category}")
        for name, settings in mixture["components"].items()
        for subset in used.filter(pl.col("component") == name)["subset"].unique()
        if (category := _category(settings, subset))
    ]
    if not stated:
        return used
    columns = {name: used.schema[name] for name in ("component", "subset")}
    named = pl.DataFrame(stated, schema={**columns, "stated": pl.String}, orient="row")
    joined = used.join(named, on=["component", "subset"], how="left", maintain_order="left")
    more = pl.concat_list(pl.col("stated")).list.drop_nulls()
    return joined.with_columns(tags=pl.concat_list(pl.col("tags").fill_null([]), more))


def _category(settings: Mapping[str, Any], subset: str) -> str:
    """The kind of task that the mixture states for a subset, else for its component."""
    own = (settings.get("subsets") or {}).get(subset) or {}
    return own.get("category") or settings.get("category") or ""


def _facets(used: pl.DataFrame, totals: Mapping[str, int]) -> dict[str, Shares]:
    """Shares by tag: "category:chart" counts under the facet `category`, "cot" under `tag`."""
    tags = used.select(*AMOUNTS, "tags").explode("tags", empty_as_null=True).drop_nulls("tags")
    tags = tags.with_columns(pl.col("tags").cast(pl.String))
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


def _details(index: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Rule -> what it found, in the words of `detail`, -> on how many samples that it removed."""
    told = index.select("rule", "detail").drop_nulls().group_by("rule", "detail").len()
    most = told.sort("len", "rule", "detail", descending=[True, False, False])
    found: dict[str, dict[str, int]] = {}
    for rule, detail, count in most.iter_rows():
        of_rule = found.setdefault(rule, {})
        if len(of_rule) < DETAILS:
            of_rule[detail] = count
    return found


def _rejected(index: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Per rule: samples it removed (first to fire), samples it fired on, up to three ids, and what
    was found on how many.

    A rule that only marks removed none; its examples are samples that it fired on.
    """
    rules = index.select("rule", "fired").with_row_index("line")
    removed = rules.drop_nulls("rule").select("line", "rule")
    some = rules.filter(pl.col("fired").list.len() > 0)
    fired = some.select("line", rule="fired").explode("rule", empty_as_null=True)
    both = pl.concat([removed, fired.drop_nulls("rule")]).unique(maintain_order=True)
    counts = dict(removed.group_by("rule").len().iter_rows())
    details = _details(index)
    grouped = both.group_by("rule").agg(pl.len(), pl.col("line").head(3))
    found = {
        rule: {
            "samples": counts.get(rule, 0),
            "fired": number,
            "examples": [index["id"][line] for line in lines],
            **({"details": details[rule]} if rule in details else {}),
        }
        for rule, number, lines in grouped.iter_rows()
    }
    return dict(sorted(found.items(), key=lambda item: (-item[1]["samples"], item[0])))


def _packing(rows: pl.DataFrame, encoding: Mapping[str, Any]) -> dict[str, Any]:
    """Rows, fill and the fill that both limits allow, crops and samples per row, of one split."""
    from tokenization.pack import fill_bound

    if rows.is_empty():
        return {"rows": 0, "shards": 0, "tokens": 0, "learned_tokens": 0, "fill": 0.0}
    tokens = _total(rows["num_tokens"])
    bound = fill_bound(
        rows["sample_tokens"].list.explode().to_numpy(),
        rows["sample_crops"].list.explode().to_numpy(),
        seq_len=encoding["seq_len"],
        max_crops=encoding["max_crops"],
    )
    return {
        "rows": len(rows),
        "shards": rows["shard"].n_unique(),
        "tokens": tokens,
        "learned_tokens": _total(rows["num_learned"]),
        "learned_share": _ratio(_total(rows["num_learned"]), tokens),
        "images": _total(rows["num_images"]),
        "crops": _total(rows["num_crops"]),
        "pieces": _total(rows["num_samples"]),
        "fill": tokens / (len(rows) * encoding["seq_len"]),
        "fill_bound": float(bound),
        "imbalance": imbalance(rows),
        "seq_len": encoding["seq_len"],
        "max_crops": encoding["max_crops"],
        "crops_per_row": _spread(rows["num_crops"]),
        "samples_per_row": _spread(rows["num_samples"]),
    }


def _spread(values: pl.Series) -> dict[str, float]:
    """Mean, median, 95th percentile and maximum."""
    return {
        "mean": float(values.mean()),  # type: ignore[arg-type]
        "median": float(values.median()),  # type: ignore[arg-type]
        "p95": float(values.quantile(0.95) or 0),
        "max": float(values.max()),  # type: ignore[arg-type]
    }


def _videos(used: pl.DataFrame) -> dict[str, float]:
    """Copies with a video in the train split, and how long one lasts on average, in seconds."""
    copies = pl.col("copies").cast(pl.Int64)
    of_videos = used.filter(pl.col("duration") > 0)
    count, seconds = of_videos.select(
        copies.sum(), (copies * pl.col("duration").cast(pl.Float64)).sum().alias("seconds")
    ).row(0)
    return {"samples": count, "mean_seconds": _ratio(seconds, count)}


def _grids(packed: pl.DataFrame) -> dict[str, int]:
    """Images by crop grid, the commonest twenty: how resolutions reach the model."""
    grids = packed.select(pl.col("grids").explode(empty_as_null=True)).drop_nulls()
    counts = grids.group_by("grids").len().sort(["len", "grids"], descending=[True, False])
    return dict(counts.head(20).iter_rows())


def _amounts_along(packed: pl.DataFrame, mixture: Mapping[str, Any]) -> np.ndarray:
    """[points, components] amounts, in the unit of `measure`, of each of PREFIX_POINTS stretches of
    the train rows; no point where there are no rows.
    """
    rows = packed.filter(pl.col("split") == "train").select(
        "components", tokens="sample_tokens", learned_tokens="sample_learned"
    )
    names = list(mixture["components"])
    points = min(PREFIX_POINTS, len(rows))
    amounts = np.zeros((points, len(names)))
    if not points:
        return amounts
    point = (pl.int_range(pl.len()) * points // pl.len()).cast(pl.Int16)
    pieces = rows.with_columns(point=point).explode(rows.columns, empty_as_null=True)
    weight = (
        pl.len()
        if mixture["measure"] == "samples"
        else pl.col(mixture["measure"]).cast(pl.Int64).sum()
    )
    sums = pieces.group_by("point", "components").agg(weight.cast(pl.Float64).alias("weight"))
    for point, component, value in sums.iter_rows():
        amounts[point, component] += value
    return amounts


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


def _held_out(index: pl.DataFrame, mixture: Mapping[str, Any]) -> dict[str, Any]:
    """What val holds beside train: per component its share of val in each measure and its samples;
    `empty` names the "component/subset" that train has samples of and val none, all of them.
    """
    used = index.filter(pl.col("copies") > 0)
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
    used: pl.DataFrame, packed: pl.DataFrame, mixture: Mapping[str, Any], *, seq_len: int
) -> dict[str, dict[str, Any]]:
    """Counts in fixed bins: tokens, learned share, crops, seconds of each sample used, of all and
    of each component; row fill.
    """
    names = list(mixture["components"])
    rows = used.select(
        "component",
        "num_crops",
        "duration",
        tokens="num_tokens",
        learned=pl.col("num_learned") / pl.col("num_tokens"),
    )
    doubling = doubling_edges(rows["tokens"].max(), start=16)
    return {
        "tokens": histogram(rows, "tokens", doubling, names=names),
        "learned_share": histogram(rows, "learned", TWENTIETHS, names=names),
        "crops": histogram(rows, "num_crops", CROPS, names=names),
        "seconds": histogram(rows.drop_nulls("duration"), "duration", SECONDS, names=names),
        "fill": histogram(packed.select(fill=pl.col("num_tokens") / seq_len), "fill", TWENTIETHS),
    }


def doubling_edges(most: Any, *, start: int) -> list[float]:
    """0, `start`, twice as much, ... up to beyond `most`."""
    top = max(int(most or 0), start) + 1
    return [0.0] + [float(start * 2**k) for k in range(int(np.ceil(np.log2(top / start))) + 1)]


def histogram(
    rows: pl.DataFrame, column: str, edges: Sequence[float], *, names: Sequence[str] = ()
) -> dict[str, Any]:
    """`counts` of the values between `edges`, the last bin takes everything above; `components`:
    the same of each of `names` that has any, by the column `component`.
    """
    found: dict[str, Any] = {"edges": [float(edge) for edge in edges]}
    found["counts"] = _counts(rows[column], edges)
    if names:
        parts = {str(name): part[column] for (name,), part in rows.group_by("component")}
        found["components"] = {n: _counts(parts[n], edges) for n in names if n in parts}
    return found


def _counts(values: pl.Series, edges: Sequence[float]) -> list[int]:
    numbers = values.to_numpy().astype(np.float64)
    counts, _ = np.histogram(np.minimum(numbers, edges[-1]), bins=np.asarray(edges, np.float64))
    return counts.tolist()
