"""Ids and images beside their peers: `python -m benchmarks.tokenization [rows]`.

One process, one thread (RAYON_NUM_THREADS=1); samples per second of CPU time. The path of
`transformers` is its chat template, its SmolVLM image processor (the Pil one, which needs no
torchvision), its prompt functions and the tokenizer on the expanded string: what SmolVLMProcessor
does. Both paths must give the same ids, or nothing is printed.
"""

import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

os.environ["RAYON_NUM_THREADS"] = "1"

import numpy as np
import pyarrow as pa
from PIL import Image

from tokenization.encode import encode
from tokenization.images import crop_pixels, grid, open_image, stored_bytes
from tokenization.schema import SAMPLE, Encoding
from tokenization.vocab import load_tokenizer

BARE = Encoding(system_prompts="none", media_intro_outro=False)
WORDS = [
    *("the", "chart", "shows", "a", "house", "with", "left", "and", "right", "numbers", "of"),
    *("people", "between", "1990", "2024", "colour", "blue", "near", "total", "value", "because"),
]


def photo(rng: np.random.Generator, width: int, height: int) -> bytes:
    """A JPEG with the spectrum of a photograph: noise at all scales."""
    image = Image.new("RGB", (width, height))
    for cells in (4, 16, 64):
        noise = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        layer = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        image = Image.blend(image, layer, 0.5)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def rows_of(number: int, *, image_records: bool, seed: int = 0) -> list[dict]:
    """Rows of SAMPLE: three turns of text each; with a photograph before the first, or without."""
    rng = np.random.default_rng(seed)
    say = lambda: " ".join(rng.choice(WORDS, int(rng.integers(5, 60 if image_records else 250))))
    rows = []
    for n in range(number):
        messages = []
        for turn in range(3):
            opening = [{"type": "image", "text": None}] if image_records and not turn else []
            question = {"type": "text", "text": say()}
            messages.append({"role": "user", "content": [*opening, question]})
            messages.append({"role": "assistant", "content": [{"type": "text", "text": say()}]})
        images = []
        if image_records:
            width, height = (int(x) for x in rng.integers(300, 1300, 2))
            images = [{"bytes": photo(rng, width, height), "width": width, "height": height}]
        rows.append({"id": f"s/{n}", "messages": messages, "images": images})
    return rows


def by_transformers(rows: list[dict]) -> list[list[int]]:
    """input_ids as SmolVLMProcessor makes them, images decoded, resized and normalised."""
    from transformers import SmolVLMImageProcessorPil
    from transformers.models.smolvlm.processing_smolvlm import (
        DEFAULT_CHAT_TEMPLATE,
        get_image_prompt_string,
    )

    tokenizer = load_tokenizer("builtin")
    processor = SmolVLMImageProcessorPil(
        size={"longest_edge": BARE.longest_edge}, max_image_size={"longest_edge": BARE.crop_size}
    )
    made = []
    for row in rows:
        text = tokenizer.apply_chat_template(
            row["messages"], chat_template=DEFAULT_CHAT_TEMPLATE, tokenize=False
        )
        for image in row["images"]:
            out = processor(
                [[Image.open(io.BytesIO(image["bytes"]))]],
                return_row_col_info=True,
                return_tensors="np",
            )
            prompt = get_image_prompt_string(
                out["rows"][0][0], out["cols"][0][0], BARE.tokens_per_crop,
                "<fake_token_around_image>", "\0", "<global-img>",
            )  # fmt: skip
            text = text.replace("<image>", prompt, 1)
        made.append(tokenizer(text.replace("\0", "<image>"), add_special_tokens=False)["input_ids"])
    return made


def by_datasets_map(rows: list[dict]) -> list[list[int]]:
    """input_ids of text rows by `datasets.map` in batches: template, then the fast tokenizer."""
    import datasets

    datasets.disable_progress_bars()
    tokenizer = load_tokenizer("builtin")

    def batch(columns: dict) -> dict:
        texts = tokenizer.apply_chat_template(columns["messages"], tokenize=False)
        return {"input_ids": tokenizer(texts, add_special_tokens=False)["input_ids"]}

    table = datasets.Dataset.from_list([{"messages": row["messages"]} for row in rows])
    with tempfile.TemporaryDirectory() as folder:
        out = table.map(batch, batched=True, cache_file_name=f"{folder}/ids.arrow")
        return out.with_format("arrow")[:]["input_ids"].to_pylist()


def by_us(samples: pa.Table) -> pa.Table:
    return encode(samples, encoding=BARE)


def timed(function: Callable, argument: object) -> tuple[object, float]:
    """(result, seconds of CPU)."""
    begin = time.process_time()
    result = function(argument)
    return result, time.process_time() - begin


def compare(name: str, rows: list[dict], peers: dict[str, Callable]) -> None:
    """One Markdown table; every peer's ids are checked against ours."""
    samples = pa.Table.from_pylist(rows, schema=SAMPLE)
    by_us(samples.slice(0, 1))
    made, seconds = timed(by_us, samples)
    ids = made["input_ids"].to_pylist()
    print(f"\n**{name}, {len(rows):,} samples, {sum(map(len, ids)):,} tokens**\n")
    print("| path | samples/s | tokens/s | times ours is faster |\n|---|---|---|---|")
    rate = lambda s: f"{len(rows) / s:,.0f} | {sum(map(len, ids)) / s:,.0f}"
    print(f"| this project (ids, mask and grids) | {rate(seconds)} | 1 |")
    for peer, function in peers.items():
        theirs, taken = timed(function, rows)
        if theirs != ids:
            raise RuntimeError(f"{peer} made other ids")
        print(f"| {peer} | {rate(taken)} | {taken / seconds:.1f} |", flush=True)


def compare_images(rows: list[dict]) -> None:
    """What each `images` setting costs and changes."""
    print(f"\n**Images in the shards, {len(rows)} photographs of 300 to 1,300 px**\n")
    print("| images | KB/sample | ms/sample to crops | mean difference | largest |")
    print("|---|---|---|---|---|")
    settings = [("original", "jpeg", 95)]
    settings += [("recompress", "jpeg", 85), ("recompress", "webp", 85)]
    settings += [("fitted", "jpeg", 85), ("fitted", "jpeg", 95), ("fitted", "webp", 85)]
    exact = []
    for images, kind, quality in settings:
        encoding = replace(BARE, images=images, image_format=kind, image_quality=quality)
        size, seconds, mean, most = 0, 0.0, 0.0, 0
        for n, row in enumerate(rows):
            data = row["images"][0]["bytes"]
            cells = grid(*open_image(data).size, encoding=encoding, video=False)
            kept = stored_bytes(data, *cells, encoding=encoding)
            begin = time.process_time()
            crops = crop_pixels(kept, *cells, encoding=encoding)
            seconds += time.process_time() - begin
            if images == "original":
                exact.append(crops)
            difference = np.abs(crops.astype(np.int16) - exact[n])
            size += len(kept)
            mean += float(difference.mean())
            most = max(most, int(difference.max()))
        label = images if images == "original" else f"{images}, {kind} {quality}"
        print(
            f"| {label} | {size / len(rows) / 1000:.0f} | {seconds / len(rows) * 1000:.0f} | "
            f"{mean / len(rows):.2f} | {most} |",
            flush=True,
        )


def main(number: int) -> None:
    image_records = rows_of(max(number // 50, 20), image_records=True)
    compare("Image rows", image_records, {"transformers, as SmolVLMProcessor": by_transformers})
    text = rows_of(number, image_records=False)
    peers = {"datasets.map, batched": by_datasets_map, "transformers, row by row": by_transformers}
    compare("Text rows", text, peers)
    compare_images(image_records[:20])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
