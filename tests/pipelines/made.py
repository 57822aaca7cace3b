"""A small finished mixture whose every number can be counted by hand, and one that is generated."""

import io
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from PIL import Image

from tokenization.schema import PACKED

INDEX: dict[str, Any] = {
    "id": pl.String,
    "source": pl.String,
    "component": pl.String,
    "subset": pl.String,
    "modality": pl.String,
    "split": pl.String,
    "rule": pl.String,
    "num_tokens": pl.Int32,
    "num_learned": pl.Int32,
    "num_crops": pl.Int32,
    "copies": pl.Int32,
    "shard": pl.List(pl.Int32),
    "part": pl.String,
    "row": pl.Int64,
    "fired": pl.List(pl.String),
    "tags": pl.List(pl.String),
    "duration": pl.Float32,
    "num_bytes": pl.Int64,
}


def png(width: int, height: int, seed: int = 0) -> bytes:
    """A picture that is not one colour."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def line(name: str, component: str, tokens: int, learned: int, **more: Any) -> dict[str, Any]:
    """A line of the index, kept and used once in the train split unless `more` says otherwise."""
    return {
        "id": name,
        "source": name.split("/")[0],
        "component": component,
        "subset": name.split("/")[1],
        "modality": "image" if more.get("num_crops") else "text",
        "split": "train",
        "rule": None,
        "num_tokens": tokens,
        "num_learned": learned,
        "num_crops": 0,
        "copies": 1,
        "shard": [0],
        "part": "/".join(name.split("/")[:2]) + "/00000",
        "row": int(name.split("/")[2]),
        "fired": [],
        "tags": [],
        "duration": None,
        "num_bytes": 10,
        **more,
    }


def index(lines: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(lines, schema=INDEX)


def packed(rows: list[list[tuple[str, int, int, list[tuple[int, int]]]]]) -> pa.Table:
    """PACKED rows; each sample is (id, tokens, learned, grids), its last tokens learned."""
    table = []
    for samples in rows:
        grids = [grid for *_, cells in samples for grid in cells]
        table.append(
            {
                "input_ids": [7] * sum(n for _, n, _, _ in samples),
                "loss_mask": [k >= n - m for _, n, m, _ in samples for k in range(n)],
                "seq_lengths": [n for _, n, _, _ in samples],
                "images": [{"bytes": png(8, 8), "path": None} for _ in grids],
                "grids": [{"rows": r, "cols": c} for r, c in grids],
                "sample_ids": [name for name, *_ in samples],
            }
        )
    return pa.Table.from_pylist(table, schema=PACKED).replace_schema_metadata(features())


def features() -> dict[bytes, bytes]:
    """What `datasets` itself writes into the schema of such a table."""
    import datasets

    number = datasets.Value("int32")
    columns = {
        "input_ids": datasets.List(number),
        "loss_mask": datasets.List(datasets.Value("bool")),
        "seq_lengths": datasets.List(number),
        "images": datasets.List(datasets.Image()),
        "grids": datasets.List({"rows": datasets.Value("int8"), "cols": datasets.Value("int8")}),
        "sample_ids": datasets.List(datasets.Value("string")),
    }
    return datasets.Features(columns).arrow_schema.metadata


def recipe(**more: Any) -> dict[str, Any]:
    """recipe.json of the mixture counted by hand."""
    encoding = {"tokenizer": "builtin", "seq_len": 100, "max_crops": 8, "crop_size": 512}
    return {
        "name": "by_hand",
        "fingerprint": "0123456789abcdef",
        "mixture": {
            "description": "Counted by hand.",
            "tokens": 160,
            "measure": "tokens",
            "encoding": encoding,
            "components": {
                "pictures": {"source": "cauldron", "ratio": 0.75},
                "words": {"source": "smoltalk", "ratio": 0.25},
            },
            **more,
        },
        "sources": {
            "pictures": {
                "source": "cauldron",
                "hub": "HuggingFaceM4/the_cauldron",
                "revision": "abc123",
                "licence": "CC-BY-4.0",
                "gating": "",
                "citation": "What matters when building vision-language models?",
            },
            "words": {
                "source": "smoltalk",
                "hub": "HuggingFaceTB/smoltalk",
                "revision": "def456",
                "licence": "Apache-2.0",
                "gating": "",
                "citation": "",
            },
        },
        "packages": {"polars": "2.1.0"},
    }
