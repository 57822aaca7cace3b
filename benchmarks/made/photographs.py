"""A finished mixture of JPEG of about a megapixel with a question each, and of texts.

Two samples in three have an image; crops and tokens are those of the encoding that is asked for.
"""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from tokenization.fit import pack_rows
from tokenization.images import grid
from tokenization.schema import PACKED, Encoding
from tokenization.vocab import image_ids, load_tokenizer, vocab

PHOTOGRAPHS = ((1024, 768), (768, 1024), (1152, 864), (1000, 1000))
"""px, about a megapixel."""


def photograph(width: int, height: int, seed: int) -> bytes:
    """A JPEG with structure at every scale, which decodes as slowly as a photograph."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float32)
    for side in (4, 16, 64, 256):
        noise = rng.integers(0, 256, (side * height // width + 1, side, 3)).astype(np.uint8)
        layer = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        image += np.asarray(layer, np.float32) / 4
    buffer = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def samples(encoding: Encoding, count: int) -> list[dict[str, Any]]:
    """Rows of one sample: an image with a question, an image with a question, a text, ..."""
    rng = np.random.default_rng(0)
    marks = vocab(load_tokenizer(encoding.tokenizer), encoding)
    photographs = [photograph(*size, seed) for seed, size in enumerate(PHOTOGRAPHS * 4)]
    made = []
    for number in range(count):
        images, grids, prompt = [], [], rng.integers(100, 40_000, rng.integers(10, 60)).tolist()
        answer = rng.integers(100, 40_000, int(rng.lognormal(4, 0.8)) + 2).tolist()
        if number % 3 == 2:
            prompt += rng.integers(100, 40_000, int(rng.lognormal(5.5, 0.8)) + 2).tolist()
        else:
            which = number % len(photographs)
            rows, cols = grid(*PHOTOGRAPHS[which % 4], encoding=encoding, video=False)
            images = [{"bytes": photographs[which], "path": None}]
            grids = [{"rows": rows, "cols": cols}]
            prompt = [*image_ids(marks, rows, cols).tolist(), *prompt]
        ids = [marks.begin, *prompt, *answer][: encoding.seq_len]
        mask = [False] * (len(ids) - len(answer)) + [True] * len(answer)
        made.append(
            {
                "input_ids": ids, "loss_mask": mask, "seq_lengths": [len(ids)], "images": images,
                "grids": grids, "sample_ids": [f"made/photos/{number}"],
            }
        )  # fmt: skip
    return made


def mixture(folder: Path, encoding: Encoding, rows: int) -> Path:
    """A finished mixture of at least `rows` packed rows."""
    made = samples(encoding, 3 * max(6, rows * encoding.seq_len // 1700))
    tokens = [len(each["input_ids"]) for each in made]
    crops = [sum(g["rows"] * g["cols"] + 1 for g in each["grids"]) for each in made]
    packed = pack_rows(
        tokens, crops, seq_len=encoding.seq_len, max_crops=encoding.max_crops, seed=0
    )
    table = [
        {name: [value for i in row for value in made[i][name]] for name in PACKED.names}
        for row in packed
    ]
    (folder / "shards").mkdir(parents=True)
    with pa.ipc.new_file(str(folder / "shards" / "train-00000.arrow"), PACKED) as writer:
        writer.write_table(pa.Table.from_pylist(table, schema=PACKED), max_chunksize=8)
    recipe = {"name": "photographs", "fingerprint": "made by benchmarks.gpu", "sources": {},
              "mixture": {"encoding": dataclasses.asdict(encoding)}}  # fmt: skip
    (folder / "recipe.json").write_text(json.dumps(recipe))
    index = pa.table({"source": ["made"], "subset": ["photos"], "component": ["photographs"]})
    with pa.ipc.new_file(str(folder / "index.arrow"), index.schema) as writer:
        writer.write_table(index)
    load_tokenizer(encoding.tokenizer).save_pretrained(str(folder / "tokenizer"))
    return folder
