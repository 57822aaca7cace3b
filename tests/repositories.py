"""Small repositories in the hub's layouts, for tests of the whole build."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

FEATURES = {
    "images": {"feature": {"_type": "Image"}, "_type": "List"},
    "texts": [
        {
            "user": {"dtype": "string", "_type": "Value"},
            "assistant": {"dtype": "string", "_type": "Value"},
            "source": {"dtype": "string", "_type": "Value"},
        }
    ],
}


def image_record(seed: int, width: int = 96, height: int = 64) -> bytes:
    """A JPEG of a coarse random pattern."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).resize((width, height)).save(out, "JPEG", quality=90)
    return out.getvalue()


def cauldron(root: Path, subset: str, rows: list[dict]) -> None:
    """`<subset>/train-00000-of-00001-<hash>.parquet` with images and texts."""
    folder = root / subset
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "images": pa.array(
                [[{"bytes": b, "path": None} for b in row["images"]] for row in rows],
                pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ),
            "texts": [
                [{"user": u, "assistant": a, "source": subset} for u, a in row["texts"]]
                for row in rows
            ],
        }
    )
    meta = {"huggingface": json.dumps({"info": {"features": FEATURES}})}
    name = "train-00000-of-00001-0123456789abcdef.parquet"
    pq.write_table(table.replace_schema_metadata(meta), folder / name, row_group_size=20)


def smoltalk(root: Path, subset: str, talks: list[list[tuple[str, str]]]) -> None:
    """`data/<subset>/train-00000-of-00001.parquet` with messages."""
    folder = root / "data" / subset
    folder.mkdir(parents=True, exist_ok=True)
    messages = [[{"content": text, "role": role} for role, text in talk] for talk in talks]
    table = pa.table({"messages": messages, "source": [subset] * len(talks)})
    pq.write_table(table, folder / "train-00000-of-00001.parquet")


def small_world(root: Path) -> Path:
    """Two repositories with 150 samples, of which a few are bad; returns a mixture's YAML."""
    rows = [
        {
            "images": [image_record(i, 64 + i % 5 * 24, 64)],
            "texts": [(f"What is number {i}?", f"It is {i}."), ("Is it red?", "no")],
        }
        for i in range(60)
    ]
    rows[7]["images"] = [rows[7]["images"][0][:300]]  # cut short
    rows[9]["texts"] = [("Say nothing.", "")]
    rows[11] = rows[10]
    rows[13]["texts"] = [("What does <image> mean in HTML?", "Nothing.")]
    cauldron(root / "HuggingFaceM4" / "the_cauldron", "ai2d", rows)
    tall = [
        {
            "images": [image_record(500 + i, 48, 96)] * (1 + i % 2),
            "texts": [("Read it.", f"word {i}")],
        }
        for i in range(30)
    ]
    cauldron(root / "HuggingFaceM4" / "the_cauldron", "iam", tall)
    talks = [
        [("user", f"Count to {i}."), ("assistant", " ".join(map(str, range(i % 40 + 1))))]
        for i in range(60)
    ]
    smoltalk(root / "HuggingFaceTB" / "smoltalk", "everyday-conversations", talks)
    path = root / "small.yaml"
    path.write_text(
        f"""
description: A small world.
tokens: max
val_fraction: 0.05
seed: 3
shard_bytes: 60_000
encoding: {{seq_len: 512, max_crops: 40, crop_size: 32, longest_edge: 64, tokens_per_crop: 4}}
filters:
  empty_answer: {{}}
  duplicate_sample: {{}}
components:
  images:
    source: cauldron
    data: {root}/HuggingFaceM4/the_cauldron
    subsets: {{ai2d: {{}}, iam: {{keep: 0.5}}}}
    placeholders: literal
    ratio: 0.7
  text:
    source: smoltalk
    data: {root}/HuggingFaceTB/smoltalk
    subsets: [everyday-conversations]
    ratio: 0.3
"""
    )
    return path
