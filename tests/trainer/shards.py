"""Small finished mixtures to train on, written by the contract (ARCHITECTURE 5.2, 5.3)."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from tokenization.images import grid
from tokenization.schema import PACKED, Encoding
from tokenization.vocab import image_ids, load_tokenizer, vocab

ENCODING = Encoding(seq_len=512, max_crops=24, crop_size=64, longest_edge=128, tokens_per_crop=16)
COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (30, 40, 210), "white": (240,) * 3}


def png(colour: tuple[int, ...], width: int, height: int, seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 15, (height, width, 3))
    pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def sample(number: int, kind: str, encoding: Encoding = ENCODING) -> dict:
    """A sample as ids: `image`, `images` (two) or `text`."""
    tokenizer = load_tokenizer("builtin")
    marks = vocab(tokenizer, encoding)
    ids = lambda text: tokenizer.encode(text, add_special_tokens=False)
    rng = np.random.default_rng(number)
    names = [
        str(rng.choice(list(COLOURS))) for _ in range({"image": 1, "images": 2, "text": 0}[kind])
    ]
    images, grids = [], []
    prompt = [marks.begin, *ids("User:")]
    for i, name in enumerate(names):
        width, height = (int(side) for side in rng.integers(20, 90, 2))
        images.append({"bytes": png(COLOURS[name], width, height, number + i), "path": None})
        rows, cols = grid(width, height, encoding=encoding, video=kind == "images")
        grids.append({"rows": rows, "cols": cols})
        prompt += image_ids(marks, rows, cols).tolist()
    if names:
        question, answer = "Which colour is it?", " " + " and ".join(names)
    else:
        question, answer = f"What comes after {number % 20}?", f" {number % 20 + 1}"
    prompt += [*ids(f"{' ' if not names else ''}{question}"), marks.end, *ids("\nAssistant:")]
    learned = [*ids(answer), marks.end]
    tail = ids("\n")
    return {
        "id": f"toy/{kind}/{number:06d}",
        "input_ids": [*prompt, *learned, *tail],
        "loss_mask": [False] * len(prompt) + [True] * len(learned) + [False] * len(tail),
        "images": images,
        "grids": grids,
    }


def document(
    name: str, pieces: list[str], encoding: Encoding = ENCODING, *, image: bool = True
) -> list[dict]:
    """The pieces of one document, all of whose text is learned; the first begins with an image."""
    tokenizer = load_tokenizer("builtin")
    marks = vocab(tokenizer, encoding)
    made = []
    for number, text in enumerate(pieces):
        shown = image and not number
        ids = tokenizer.encode(text, add_special_tokens=False)
        size = grid(40, 30, encoding=encoding, video=False)
        before = image_ids(marks, *size).tolist() if shown else []
        data = png(COLOURS["red"], 40, 30, sum(name.encode()))
        made.append(
            {
                "id": f"toy/documents/{name}",
                "input_ids": [*before, *ids],
                "loss_mask": [False] * len(before) + [True] * len(ids),
                "images": [{"bytes": data, "path": None}] * shown,
                "grids": [{"rows": size[0], "cols": size[1]}] * shown,
            }
        )
    return made


def pack(samples: list[dict], encoding: Encoding = ENCODING) -> list[dict]:
    """Rows of PACKED, filled in order."""
    rows: list[dict] = []
    for each in samples:
        crops = sum(g["rows"] * g["cols"] + 1 for g in each["grids"])
        row = rows[-1] if rows else None
        if (
            row is None
            or len(row["input_ids"]) + len(each["input_ids"]) > encoding.seq_len
            or row["crops"] + crops > encoding.max_crops
        ):
            row = {key: [] for key in (*PACKED.names,)} | {"crops": 0}
            rows.append(row)
        row["crops"] += crops
        row["seq_lengths"].append(len(each["input_ids"]))
        row["sample_ids"].append(each["id"])
        for key in ("input_ids", "loss_mask", "images", "grids"):
            row[key] += each[key]
    return [{key: row[key] for key in PACKED.names} for row in rows]


def write(
    folder: Path,
    rows: list[dict],
    *,
    val: list[dict] | None = None,
    encoding: Encoding = ENCODING,
    name: str = "toy",
    shards: int = 2,
    copies: dict[str, int] | None = None,
) -> Path:
    """A finished mixture in `folder`, its rows dealt to `shards` files. `copies`: of samples that
    are in it more than once.
    """
    (folder / "shards").mkdir(parents=True)
    cuts = np.array_split(np.arange(len(rows)), shards)
    parts = {f"train-{i:05d}": [rows[j] for j in cut] for i, cut in enumerate(cuts)}
    parts |= {"val-00000": val} if val else {}
    for part, content in parts.items():
        table = pa.Table.from_pylist(content, schema=PACKED)
        with pa.ipc.new_file(str(folder / "shards" / f"{part}.arrow"), PACKED) as writer:
            writer.write_table(table, max_chunksize=3)
    recipe = {
        "name": name,
        "fingerprint": f"{name}-0123456789abcdef",
        "mixture": {"encoding": dataclasses.asdict(encoding)},
        "sources": {"images": {"source": "toy", "licence": "CC0-1.0"}},
    }
    (folder / "recipe.json").write_text(json.dumps(recipe))
    index = [
        (f"toy/{kind}/000000", "toy", kind, "words" if kind == "text" else "images")
        for kind in ("image", "images", "text")
    ]
    lines = [(*line, 1) for line in index]
    lines += [(name, "toy", name.split("/")[1], "more", n) for name, n in (copies or {}).items()]
    names = ("id", "source", "subset", "component", "copies")
    table = pa.table(dict(zip(names, map(list, zip(*lines, strict=True)), strict=True)))
    with pa.ipc.new_file(str(folder / "index.arrow"), table.schema) as writer:
        writer.write_table(table)
    load_tokenizer(encoding.tokenizer).save_pretrained(str(folder / "tokenizer"))
    return folder


KINDS = ("image", "text", "image", "images", "text")


def toy(folder: Path, count: int = 60, **settings: object) -> Path:
    """A mixture of `count` samples of all kinds, with val rows."""
    samples = [sample(i, KINDS[i % len(KINDS)]) for i in range(count)]
    held = [sample(10_000 + i, KINDS[i % len(KINDS)]) for i in range(10)]
    return write(folder, pack(samples), val=pack(held), **settings)  # type: ignore[arg-type]
