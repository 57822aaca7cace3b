"""Indexes and mixtures of any size, for tests: rows as the build would hand them to `pick`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from mixtures.config import Component, Limit, Mixture, Subset
from tokenization.schema import Encoding

LENGTHS = {
    "text": (300, 0.9),
    "image": (950, 0.4),
    "multi_image": (2500, 0.5),
    "video": (4500, 0.2),
}
"""Median tokens and the spread of their logarithm."""


def index_of(
    sizes: Mapping[tuple[str, str], int],
    *,
    modality: Mapping[str, str] | None = None,
    tags: Mapping[str, list[str]] | None = None,
    part_rows: int = 500,
    seed: int = 0,
) -> pl.DataFrame:
    """An index with `sizes[component, subset]` samples each; modality and tags per component."""
    random = np.random.default_rng(seed)
    frames = []
    for (component, subset), count in sizes.items():
        kind = (modality or {}).get(component, "image")
        median, spread = LENGTHS[kind]
        tokens = np.maximum(8, median * np.exp(spread * random.standard_normal(count))).astype(int)
        row = np.arange(count)
        crops = {"text": 0, "image": 13, "multi_image": 26, "video": 64}[kind]
        frames.append(
            pl.DataFrame(
                {
                    "id": [f"{component}/{subset}/{i:06d}" for i in row],
                    "source": f"source_of_{component}",
                    "component": component,
                    "subset": subset,
                    "modality": kind,
                    "split": "train",
                    "rule": pl.Series([None] * count, dtype=pl.String),
                    "num_tokens": tokens,
                    "num_learned": tokens // random.integers(3, 12, count),
                    "num_crops": crops,
                    "copies": 0,
                    "shard": pl.Series([[]] * count, dtype=pl.List(pl.Int32)),
                    "part": [f"{component}/{subset}/{i // part_rows:05d}" for i in row],
                    "row": row % part_rows,
                    "fired": pl.Series([[]] * count, dtype=pl.List(pl.String)),
                    "tags": pl.Series(
                        [(tags or {}).get(component, [])] * count, dtype=pl.List(pl.String)
                    ),
                    "duration": pl.Series(
                        random.uniform(5, 200, count) if kind == "video" else [None] * count,
                        dtype=pl.Float32,
                    ),
                    "num_bytes": tokens * 20,
                    "detail": pl.Series([None] * count, dtype=pl.String),
                },
                schema_overrides={
                    "num_tokens": pl.Int32,
                    "num_learned": pl.Int32,
                    "num_crops": pl.Int32,
                    "copies": pl.Int32,
                    "row": pl.Int32,
                    "num_bytes": pl.Int64,
                },
            )
        )
    return pl.concat(frames)


def mixture_of(
    ratios: Mapping[str, float],
    *,
    subsets: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
    limits: Mapping[str, Mapping[str, Any]] | None = None,
    max_epochs: float | Mapping[str, float] = 4.0,
    **settings: Any,
) -> Mixture:
    """A mixture of components with these ratios; `settings` are fields of Mixture."""
    components = {
        name: Component(
            source=f"source_of_{name}",
            ratio=ratio,
            subsets={s: Subset(**c) for s, c in (subsets or {}).get(name, {}).items()},
            max_epochs=max_epochs if isinstance(max_epochs, (int, float)) else max_epochs[name],
        )
        for name, ratio in ratios.items()
    }
    return Mixture(
        name="made",
        encoding=Encoding(),
        components=components,
        limits={name: Limit(**limit) for name, limit in (limits or {}).items()},
        **settings,
    )
