"""What a mixture will take before anything runs: supply, demand, size, time and training cost.

    recorded.csv or an index --supply--> demand per component --totals--> rows, bytes, hours, FLOPs

Supply comes from an index (measured) or, for what was never read, from `recorded.csv`: rows that
somebody published, and tokens that follow from arithmetic over images, frames and `encoding`.
Column `basis` says which: measured, recorded (rows published, tokens estimated), unverified
(rows from a card that could not be re-read), estimated. Every function is pure and returns a table;
the caller prints.
"""

import fnmatch
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mixtures.allocate import epochs_of, shares
from mixtures.config import Component, Mixture, Subset, encoding_of, is_weighted, reads_all
from mixtures.limits import kept_fractions, limit_masks

RECORDED = Path(__file__).parent / "recorded.csv"
"""source, subset (a name or glob), modality, rows, images (a row), seconds (a video, estimate),
text_tokens, learned_tokens (a row, without media; estimates), basis, origin (of the rows)."""

STILL_ASPECT = 3 / 4
"""Short over long side of the image that token estimates assume."""
STILL_BYTES, FRAME_BYTES = 200_000, 35_000
"""Estimates: FineVision is 5 TB for 17.3 M images, the Cauldron's AI2D 437 MB for 2,445; a 512 px
JPEG frame is a sixth of that."""
FRAME_TEXT = 11
"""Tokens around a frame: its timestamp and the marks before and after the image."""
TEXT_BYTES = 4.2
"""Bytes of text a token."""
FILL = 0.99
"""Of a packed row, what packing reaches."""
USED = ("samples", "tokens", "learned", "crops", "bytes")
READ = ("samples", "crops", "bytes")
"""Counts of what is read; in a recorded supply `all_samples`, ... are those before limits."""
PEAK_FLOPS = {"A100": 312e12, "H100": 989e12, "L4": 121e12}
"""Dense bf16, FLOP/s: NVIDIA's data sheets (H100: SXM)."""


def still_crops(encoding: Any) -> int:
    """Crops of an image of STILL_ASPECT as transformers' processor cuts it, and the whole."""
    if not encoding.split_images:
        return 1
    long_side, crop = encoding.longest_edge, encoding.crop_size
    if long_side <= crop:
        return 1
    return math.ceil(long_side / crop) * math.ceil(STILL_ASPECT * long_side / crop) + 1


def recorded_supply(
    mixture: Mixture, *, recorded: Path = RECORDED, licences: Mapping[str, str] | None = None
) -> pl.DataFrame:
    """Supply per component, subset and modality from recorded sizes (columns as in allocate.py),
    with modality, seconds (mean of a video), basis and origin. Sets without a record are left out.

    `keep`, `max_samples`, `grades` and what `limits` can see of a whole set are applied; filters
    are not known beforehand. `licences`: component -> licence, for limits on one.
    """
    sizes = pl.read_csv(recorded)
    lines = []
    for name, component in mixture.components.items():
        if component.data is not None:
            continue
        encoding = encoding_of(mixture, name)
        for row in sizes.filter(source=component.source).iter_rows(named=True):
            hits = [s for s in component.subsets if fnmatch.fnmatchcase(s, row["subset"])]
            if component.subsets and not hits:
                continue
            subset = component.subsets[hits[0]] if hits else Subset()
            rows = _kept(row["rows"], subset, mixture) * (1 - mixture.val_fraction)
            tokens, crops, size = _of_a_sample(row, component, encoding)
            one = {"tokens": tokens, "samples": 1.0, "learned_tokens": row["learned_tokens"]}
            lines.append(
                {
                    "component": name,
                    "subset": hits[0] if len(hits) == 1 else row["subset"],
                    "modality": row["modality"],
                    "samples": rows,
                    "units": rows * one[mixture.measure],
                    "tokens": rows * tokens,
                    "learned": rows * row["learned_tokens"],
                    "crops": rows * crops,
                    "bytes": rows * size,
                    "seconds": row["seconds"],
                    "duration": row["seconds"] if row["modality"] == "video" else None,
                    "tags": component.tags,
                    "basis": row["basis"],
                    "origin": row["origin"],
                }
            )
    counts = ("samples", "units", "tokens", "learned", "crops", "bytes")
    text = ("component", "subset", "modality", "basis", "origin")
    schema: dict[str, Any] = {
        **dict.fromkeys(text, pl.String),
        **dict.fromkeys((*counts, "seconds", "duration"), pl.Float64),
        "tags": pl.List(pl.String),
    }
    frame = pl.DataFrame(lines, schema=schema)
    frame = frame.with_columns(limited=limit_masks(frame, mixture, licences=licences or {}))
    stay = pl.Series(kept_fractions(frame, mixture))
    whole = {f"all_{c}": pl.col(c) for c in READ}
    return frame.with_columns(pl.col(counts) * stay, **whole).drop("duration", "tags")


def _kept(rows: int, subset: Subset, mixture: Mixture) -> int:
    """Rows that keep, max_samples and the grade's cap leave."""
    caps = [round(rows * subset.keep)]
    if subset.max_samples is not None:
        caps.append(subset.max_samples)
    if subset.grade is not None and subset.grade in mixture.grades:
        caps.append(mixture.grades[subset.grade])
    return min(caps)


def _of_a_sample(
    row: dict[str, Any], component: Component, encoding: Any
) -> tuple[float, float, float]:
    """Estimated tokens, crops and bytes of one sample of a recorded set."""
    text = row["text_tokens"]
    if row["modality"] == "video":
        frames = max(
            1, min(round(row["seconds"] * component.frames.fps), component.frames.max_frames)
        )
        tokens = text + frames * (encoding.tokens_per_crop + FRAME_TEXT)
        return tokens, frames, frames * FRAME_BYTES + text * TEXT_BYTES
    crops = row["images"] * still_crops(encoding)
    marks = 3 * row["images"] + 2 * crops  # a mark or two and a line's end per crop
    tokens = text + crops * encoding.tokens_per_crop + marks
    if component.learn == "all" or row["images"] == 0:
        tokens = text
    return tokens, crops, row["images"] * STILL_BYTES + text * TEXT_BYTES


def planned_use(supply: pl.DataFrame, mixture: Mixture) -> pl.DataFrame:
    """A line per stratum that has something: `supply` with share, ratio, max_epochs, needs (units
    that the ratios ask of it) and used_samples, used_tokens, ... .

    `tokens: max` asks for the most that keeps every ratio. No shortage is raised: see `demand`.
    """
    there = supply.filter(pl.col("units") > 0)
    components = there["component"].to_list()
    most = [
        epochs_of(mixture.components[name], subset)
        for name, subset in zip(components, there["subset"], strict=True)
    ]
    share = shares(there, mixture, units=there["units"].to_numpy().astype(np.float64))
    frame = there.with_columns(
        share=pl.Series(share, dtype=pl.Float64),
        ratio=pl.Series([mixture.components[name].ratio for name in components], dtype=pl.Float64),
        max_epochs=pl.Series(most, dtype=pl.Float64),
    ).filter(pl.col("share") > 0)
    part = pl.col("ratio") * pl.col("share")
    budget = frame.select((pl.col("units") * pl.col("max_epochs") / part).min()).item() or 0.0
    if isinstance(mixture.tokens, int):
        per_unit = frame.select((part * pl.col("tokens") / pl.col("units")).sum() / part.sum())
        budget = mixture.tokens / per_unit.item() if frame.height else 0.0
    return frame.with_columns(needs=part * budget).with_columns(
        (pl.col(c) * pl.col("needs") / pl.col("units")).alias(f"used_{c}") for c in USED
    )


def what_is_read(supply: pl.DataFrame, mixture: Mixture) -> pl.DataFrame:
    """`supply` with samples, crops and bytes of what a build reads of each stratum: as much as
    covers its needs once, of subsets without weights the same fraction (`mixtures/enough.py`), and
    with it what `limits` take. What filters take, and that parts are read whole, comes on top.
    """
    alone = [is_weighted(mixture.components[name]) for name in supply["component"]]
    whole = [reads_all(mixture, name) for name in supply["component"]]
    queued = supply.with_columns(
        queue=pl.when(pl.Series(alone, dtype=pl.Boolean)).then("subset"),
        whole=pl.Series(whole, dtype=pl.Boolean),
    )
    fractions = (
        planned_use(queued, mixture)
        .group_by("component", "queue")
        .agg(fraction=(pl.col("needs").sum() / pl.col("units").sum()).clip(upper_bound=1.0))
    )
    fraction = pl.when("whole").then(1.0).otherwise(pl.col("fraction").fill_null(0.0))
    return queued.join(
        fractions,
        on=["component", "queue"],
        how="left",
        nulls_equal=True,
        maintain_order="left",
    ).with_columns((before_limits(supply, c) * fraction).alias(c) for c in READ)


def before_limits(supply: pl.DataFrame, count: str) -> pl.Expr:
    """One of READ as it is before `limits` take of it, where that is recorded."""
    return pl.coalesce(f"all_{count}", count) if f"all_{count}" in supply.columns else pl.col(count)


def demand(supply: pl.DataFrame, mixture: Mixture) -> pl.DataFrame:
    """A line per component of the mixture: what it can give and what its ratio asks.

    Columns: component, ratio, samples and units (of one epoch), gives (units at most, with its
    max_epochs), needs (units), epochs (needed), spare (gives / needs), binds (first to run out),
    short, used_samples, used_tokens, used_learned, used_crops, used_bytes, seconds (mean of its
    videos), basis. A component without supply is short, its basis `not recorded`.
    """
    lines = planned_use(supply, mixture)
    if "basis" not in lines.columns:
        lines = lines.with_columns(basis=pl.lit("measured"))
    if "seconds" not in lines.columns:
        lines = lines.with_columns(seconds=pl.lit(None, pl.Float64))
    used = [f"used_{c}" for c in USED]
    video = pl.col("seconds") > 0
    parts = lines.group_by("component", maintain_order=True).agg(
        pl.col("samples", "units", "needs", *used).sum(),
        gives=(pl.col("units") * pl.col("max_epochs") / pl.col("share")).min(),
        seconds=(pl.col("seconds") * pl.col("used_samples")).filter(video).sum()
        / pl.col("used_samples").filter(video).sum().replace(0.0, None),
        basis=pl.col("basis").unique().sort().str.join(", "),
    )
    ratios = [c.ratio for c in mixture.components.values()]
    spare = pl.col("gives") / pl.col("needs")
    return (
        pl.DataFrame({"component": list(mixture.components), "ratio": ratios})
        .join(parts, on="component", how="left", maintain_order="left")
        .with_columns(
            pl.col("basis").fill_null("not recorded"),
            pl.col("samples", "units", "needs", "gives", *used).fill_null(0.0),
        )
        .with_columns(
            epochs=pl.when(pl.col("units") > 0).then(pl.col("needs") / pl.col("units")),
            spare=pl.when(pl.col("needs") > 0).then(spare),
        )
        .with_columns(
            binds=(pl.col("spare") <= pl.col("spare").min() * (1 + 1e-9)).fill_null(value=False),
            short=pl.col("spare").fill_null(0.0) < 1 - 1e-6,
        )
        .select(
            *("component", "ratio", "samples", "units", "gives", "needs", "epochs", "spare"),
            *("binds", "short", *used, "seconds", "basis"),
        )
    )


def by_modality(supply: pl.DataFrame, mixture: Mixture) -> pl.DataFrame:
    """Per modality of what is used: samples, tokens, and its shares of both.

    Reads: a supply with `modality`, as `recorded_supply` makes it.
    """
    used = planned_use(supply, mixture).group_by("modality", maintain_order=True)
    table = used.agg(samples=pl.col("used_samples").sum(), tokens=pl.col("used_tokens").sum())
    return table.with_columns(
        share_of_samples=pl.col("samples") / pl.col("samples").sum(),
        share_of_tokens=pl.col("tokens") / pl.col("tokens").sum(),
    ).sort("modality")


def videos(supply: pl.DataFrame, mixture: Mixture) -> tuple[float, float]:
    """(samples with a video in the train split, mean seconds of one), as far as they are known."""
    used = planned_use(supply, mixture).filter(pl.col("seconds") > 0)
    count = float(used["used_samples"].sum())
    seconds = float((used["seconds"] * used["used_samples"]).sum())
    return count, seconds / count if count else 0.0


def totals(table: pl.DataFrame, mixture: Mixture) -> dict[str, float]:
    """The whole train split: samples, tokens, learned tokens, crops, bytes, rows, shards, fill.

    `table`: of `demand`. Rows are bounded by tokens and, if `max_crops` is tight, by crops.
    """
    used = {c: float(table[f"used_{c}"].sum()) for c in USED}
    encoding = mixture.encoding
    by_tokens = used["tokens"] / encoding.seq_len / FILL
    by_crops = used["crops"] / encoding.max_crops / FILL
    rows = math.ceil(max(by_tokens, by_crops))
    return {
        **used,
        "rows": rows,
        "fill": used["tokens"] / (rows * encoding.seq_len) if rows else 0.0,
        "shards": math.ceil((used["bytes"] + 5 * used["tokens"]) / mixture.shard_bytes),
    }


@dataclass(frozen=True, kw_only=True)
class BuildSpeed:
    """Throughput of the build on one core as benchmarks/README.md has it (ingest; growth: judge
    and encode, 100,000 samples of some 50 words); packing is assumed.
    """

    stills_per_second: float = 211.0
    """Images read, decoded and hashed by ingest."""
    frames_per_second: float = 46.0
    """Video frames chosen, decoded and kept by ingest."""
    samples_per_second: float = 1400.0
    """Samples judged and encoded."""
    bytes_per_second: float = 150e6
    """Bytes gathered, packed and written."""


def build_hours(
    read: pl.DataFrame,
    expected: dict[str, float],
    mixture: Mixture,
    *,
    cores: int,
    speed: BuildSpeed,
) -> dict[str, float]:
    """Hours of each stage on `cores` cores when nothing is cached, and their sum.

    `read`: as `what_is_read` has it; its images and frames are decoded once, whatever is used.
    """
    crops = dict(read.group_by(pl.col("modality") == "video").agg(pl.col("crops").sum()).rows())
    stills, frames = crops.get(False, 0.0) / still_crops(mixture.encoding), crops.get(True, 0.0)
    hours = {
        "ingest": stills / speed.stills_per_second + frames / speed.frames_per_second,
        "judge and encode": float(read["samples"].sum()) / speed.samples_per_second,
        "pack": (expected["bytes"] + 5 * expected["tokens"]) / speed.bytes_per_second,
    }
    hours = {stage: seconds / 3600 / cores for stage, seconds in hours.items()}
    return {**hours, "all": sum(hours.values())}


@dataclass(frozen=True, kw_only=True)
class Model:
    """What training FLOPs depend on."""

    text_parameters: float
    text_layers: int
    text_hidden: int
    vision_parameters: float
    vision_layers: int
    vision_hidden: int
    patches: int
    """Patches of one crop: what the vision tower attends over."""
    crop_size: int
    """px: what its crops are, and what a mixture's must be to train it."""
    tokens_per_crop: int


MODELS = {
    # Backbones: SmolLM2-135M/360M/1.7B and SigLIP-B/16-512, SO400M/14-384, as in the checkpoints'
    # config.json (https://huggingface.co/collections/HuggingFaceTB/smolvlm2).
    "256M": Model(
        text_parameters=135e6, text_layers=30, text_hidden=576,
        vision_parameters=93e6, vision_layers=12, vision_hidden=768, patches=1024,
        crop_size=512, tokens_per_crop=64,
    ),
    "500M": Model(
        text_parameters=360e6, text_layers=32, text_hidden=960,
        vision_parameters=93e6, vision_layers=12, vision_hidden=768, patches=1024,
        crop_size=512, tokens_per_crop=64,
    ),
    "2.2B": Model(
        text_parameters=1.7e9, text_layers=24, text_hidden=2048,
        vision_parameters=428e6, vision_layers=27, vision_hidden=1152, patches=729,
        crop_size=384, tokens_per_crop=81,
    ),
}  # fmt: skip


def training_flops(tokens: float, crops: float, *, model: Model, mean_length: float) -> float:
    """Forward and backward FLOPs of one pass: 6 x parameters a token and 12 x layers x hidden x
    length for attention (Chowdhery et al. 2022, appendix B, https://arxiv.org/abs/2204.02311).

    `mean_length`: tokens that a token of the language model attends over, on average (samples of a
    packed row are isolated). The vision tower sees `patches` tokens a crop.
    """
    text = 6 * model.text_parameters + 12 * model.text_layers * model.text_hidden * mean_length
    vision = (
        6 * model.vision_parameters + 12 * model.vision_layers * model.vision_hidden * model.patches
    )
    return tokens * text + crops * model.patches * vision


def gpu_hours(flops: float, *, gpu: str, mfu: float) -> float:
    """Hours of one GPU at that model FLOPs utilisation (0..1)."""
    if gpu not in PEAK_FLOPS:
        raise ValueError(f"gpu {gpu!r} is not known; expected one of {', '.join(PEAK_FLOPS)}.")
    if not 0 < mfu <= 1:
        raise ValueError(f"mfu is {mfu}; expected above 0, at most 1.")
    return flops / (PEAK_FLOPS[gpu] * mfu) / 3600


def training_cost(
    expected: dict[str, float], *, gpu: str = "H100", mfu: float = 0.3
) -> pl.DataFrame:
    """A line per model: FLOPs of one pass over the train split, and hours of one GPU."""
    mean_length = expected["tokens"] / max(expected["samples"], 1)
    lines = []
    for name, model in MODELS.items():
        flops = training_flops(
            expected["tokens"], expected["crops"], model=model, mean_length=mean_length
        )
        lines.append(
            {"model": name, "flops": flops, "gpu_hours": gpu_hours(flops, gpu=gpu, mfu=mfu)}
        )
    return pl.DataFrame(lines).with_columns(gpu=pl.lit(gpu), mfu=pl.lit(mfu))
