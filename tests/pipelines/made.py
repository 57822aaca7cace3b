"""A small finished mixture whose every number can be counted by hand, and one that is generated."""

import io
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from PIL import Image

from mixtures import draw
from pipelines.report import row_facts as of_rows
from pipelines.report.finished import Lines
from tokenization.schema import PACKED

NAMES = ("images", "words")
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
    "detail": pl.String,
}


def png(width: int, height: int, seed: int = 0) -> bytes:
    """An image that is not one colour."""
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
        "detail": None,
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


def facts(
    table: pa.Table, index: pl.DataFrame, *, shard: str, components: tuple[str, ...] = NAMES
) -> pl.DataFrame:
    """FACTS of a shard of samples that the index has lines of, by the production code."""
    place = {name: number for number, name in enumerate(components)}
    dealt = index.select(
        pl.Series("key", draw.sample_keys(index["id"], seed=0)),
        pl.col("component").replace_strict(place, return_dtype=pl.Int16),
        "num_crops",
        seconds="duration",
    )
    samples = dealt.to_arrow().cast(of_rows.DEALT)
    return of_rows.row_facts(table, shard=shard, samples=samples, tokens_per_crop=64, seed=0)


def lines_in(index: pl.DataFrame) -> Lines:
    """The lines of an index in memory, two at a time."""
    return lambda columns: index.select(columns).iter_slices(2)


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
    encoding = {
        "tokenizer": "builtin",
        "seq_len": 100,
        "max_crops": 8,
        "tokens_per_crop": 64,
        "crop_size": 512,
    }
    return {
        "name": "by_hand",
        "fingerprint": "0123456789abcdef",
        "mixture": {
            "description": "Counted by hand.",
            "tokens": 160,
            "measure": "tokens",
            "encoding": encoding,
            "components": {
                "images": {"source": "cauldron", "ratio": 0.75},
                "words": {"source": "smoltalk", "ratio": 0.25},
            },
            **more,
        },
        "sources": {
            "images": {
                "source": "cauldron",
                "hub": "HuggingFaceM4/the_cauldron",
                "revision": "abc123",
                "licence": "CC-BY-4.0",
                "gating": "",
                "terms": [],
                "citation": "What matters when building vision-language models?",
            },
            "words": {
                "source": "smoltalk",
                "hub": "HuggingFaceTB/smoltalk",
                "revision": "def456",
                "licence": "Apache-2.0",
                "gating": "",
                "terms": [],
                "citation": "",
            },
        },
        "packages": {"polars": "2.1.0"},
    }


HOSTILE = (
    "</pre><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "\x1b]0;owned\x07\x1b[2J {{ 7*7 }} ${7*7} \u202egnp.exe <image> javascript:alert(1) '\"`"
)


def drawing(width: int, height: int, seed: int) -> bytes:
    """An image with shapes in it, as JPEG."""
    from PIL import ImageDraw

    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), tuple(rng.integers(120, 255, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(8):
        x, y = rng.integers(0, [width, height]).tolist()
        colour = tuple(rng.integers(0, 255, 3).tolist())
        draw.ellipse([x - width // 8, y - height // 8, x + width // 8, y + height // 8], colour)
    draw.text((10, 10), f"image {seed}", fill="black", font_size=max(12, height // 12))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return file.getvalue()


def conversation(
    name: str, question: str, answer: str, images: list[tuple[bytes, tuple[int, int], str]]
) -> dict[str, Any]:
    """A sample as ids: images (bytes, grid, text before), the question, the learned answer."""
    from tokenization.schema import Encoding
    from tokenization.vocab import encode_plain, image_ids, load_tokenizer, plain_tokenizer, vocab

    marks = vocab(load_tokenizer("builtin"), Encoding())
    plain = plain_tokenizer("builtin")
    ids = [marks.begin, *encode_plain(plain, ["User:"])[0]]
    for _, (rows, cols), before in images:
        ids += encode_plain(plain, [before])[0] if before else []
        ids += image_ids(marks, rows, cols).tolist()
    ids += encode_plain(plain, [question])[0] + [marks.end]
    ids += encode_plain(plain, ["\nAssistant:"])[0]
    learned = encode_plain(plain, [" " + answer])[0] + [marks.end]
    return {
        "id": name,
        "ids": ids + learned,
        "learned": len(learned),
        "images": [data for data, _, _ in images],
        "grids": [grid for _, grid, _ in images],
    }


def conversations() -> list[dict[str, Any]]:
    """Eight samples: stills of several cuts, two pages, a video, text, and a hostile row."""
    still = [
        conversation(
            f"cauldron/ai2d/{k}",
            f"What is shown in image {k}?",
            f"Ellipses, it says image {k}. Ça va: naïve façade.",
            [(drawing(640 + 100 * k, 480, k), grid, "")],
        )
        for k, grid in enumerate([(1, 2), (2, 3), (0, 0)])
    ]
    pages = conversation(
        "docmatix/images/0",
        "Which page has the total?",
        "The second.",
        [(drawing(400, 560, 10 + k), (2, 2), "") for k in range(2)],
    )
    frames = [(drawing(320, 240, 20 + k), (0, 0), f"\nFrame from 00:0{k * 2}:") for k in range(3)]
    video = conversation("llava_video/0_30_s/0", "What happens?", "Ellipses move.", frames)
    words = [
        conversation(
            f"smoltalk/all/{k}", f"Count to {k + 3}.", " ".join(map(str, range(k + 3))), []
        )
        for k in range(2)
    ]
    hostile = conversation(
        "cauldron/vqa/7", HOSTILE, HOSTILE, [(drawing(200, 200, 30), (1, 1), "")]
    )
    return [*still, pages, video, *words, hostile]


def finished(folder: Any, *, seq_len: int = 2048) -> Any:
    """A whole finished mixture on disk, of real images and ids; returns the folder."""
    # Longer than a screen: a list of what a finished mixture holds.
    from pathlib import Path

    from pipelines import recipe as recipes
    from pipelines.engine import tables
    from pipelines.report import card
    from tokenization.vocab import load_tokenizer

    folder = Path(folder)
    samples = conversations()
    rows = [samples[0:2] + samples[5:6], samples[2:4], samples[4:5] + samples[6:8]]
    components = {"cauldron": "images", "docmatix": "pages", "llava_video": "video"}
    tables_of, lines = {}, []
    for shard, (split, row) in enumerate(zip(("train", "train", "val"), rows, strict=True)):
        table = pa.Table.from_pylist(
            [
                {
                    "input_ids": [i for s in row for i in s["ids"]],
                    "loss_mask": [
                        k >= len(s["ids"]) - s["learned"] for s in row for k in range(len(s["ids"]))
                    ],
                    "seq_lengths": [len(s["ids"]) for s in row],
                    "images": [{"bytes": b, "path": None} for s in row for b in s["images"]],
                    "grids": [{"rows": r, "cols": c} for s in row for r, c in s["grids"]],
                    "sample_ids": [s["id"] for s in row],
                }
            ],
            schema=PACKED,
        ).replace_schema_metadata(features())
        number = 0 if split == "val" else shard
        name = f"{split}-{number:05d}.arrow"
        tables.write(table, folder / "shards" / name, rows_per_batch=16)
        tables_of[name] = table
        for s in row:
            source = s["id"].split("/")[0]
            crops = sum(r * c + 1 for r, c in s["grids"])
            modality = ["text", "image"][min(1, len(s["grids"]))]
            lines.append(
                line(
                    s["id"],
                    components.get(source, "words"),
                    len(s["ids"]),
                    s["learned"],
                    num_crops=crops,
                    split=split,
                    shard=[number],
                    modality={"llava_video": "video", "docmatix": "multi_image"}.get(
                        source, modality
                    ),
                    duration=6.0 if source == "llava_video" else None,
                )
            )
    bad = {"rule": "small_image", "fired": ["small_image", "blurred"], "copies": 0, "shard": []}
    lines.append(line("cauldron/vqa/8", "images", 400, 20, num_crops=5, **bad))
    broken = {"rule": "undecodable_image", "copies": 0, "shard": [], "modality": "image"}
    lines.append(line("cauldron/vqa/9", "images", 0, 0, **broken))
    ratios = {"images": 0.5, "pages": 0.3, "video": 0.1, "words": 0.1}
    encoding = {
        "tokenizer": "builtin",
        "seq_len": seq_len,
        "max_crops": 32,
        "crop_size": 512,
        "longest_edge": 2048,
        "tokens_per_crop": 64,
    }
    made = recipe(
        encoding=encoding,
        components={
            name: {"source": name, "ratio": ratio, "subsets": {}} for name, ratio in ratios.items()
        },
    )
    source = {"licence": "Apache-2.0", "gating": "", "citation": "", "revision": "main"}
    source |= {"hub": "org/name", "terms": []}
    made["sources"] = {name: {**source, "source": name} for name in ratios}
    made["inputs"] = {"images/vqa": {"source": "cauldron", "subset": "vqa"}}
    made["versions"] = {"ingest": 1}
    table = index(lines)
    found = [facts(t, table, shard=n, components=tuple(ratios)) for n, t in tables_of.items()]
    numbers = card.stats(lines_in(table), found, made)
    tables.write(table.to_arrow(), folder / "index.arrow")
    tables.write_json(folder / "stats.json", numbers)
    tables.write_json(folder / "recipe.json", made)
    tables.write_text(folder / "mixture.yaml", "description: Counted by hand.\n")
    tables.write_text(folder / "README.md", card.card(numbers, made))
    load_tokenizer("builtin").save_pretrained(folder / "tokenizer")
    read = recipes.fingerprint("ingest", 1, made["inputs"]["images/vqa"])
    tables.write(as_read(), work_of(folder) + f"/samples/{read}/00000.arrow")
    return folder


def work_of(folder: Any) -> str:
    """Where the samples of a mixture made by `finished` lie."""
    return f"{folder}-work"


def as_read() -> pa.Table:
    """Rows 0 to 9 of cauldron/vqa as SAMPLE; 8 is small and hostile, 9 did not decode."""
    from tokenization.schema import SAMPLE

    rows = []
    for k in range(10):
        whole = k != 9
        size = {"width": 20, "height": 16} if whole else {"width": None, "height": None}
        user = [
            {"type": "image", "text": None},
            {"type": "text", "text": f"What is {k}? {HOSTILE}"},
        ]
        answer = [{"type": "text", "text": f"It is {k}. {HOSTILE}"}]
        rows.append(
            {
                "id": f"cauldron/vqa/{k}",
                "source": "cauldron",
                "subset": "vqa",
                "messages": [
                    {"role": "user", "content": user},
                    {"role": "assistant", "content": answer},
                ],
                "images": [{"bytes": png(20, 16, k) if whole else None, **size}],
                "defect": None if whole else "undecodable_image",
            }
        )
    return pa.Table.from_pylist(rows, schema=SAMPLE)
