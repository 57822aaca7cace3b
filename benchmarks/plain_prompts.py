"""What `plain_prompts` costs and gains: a small model per share, asked with and without our words.

    python -m benchmarks.plain_prompts [steps=300] [shares=0,0.3] [seed=17]

Each model learns to name the colour and the size of a rectangle from images and answers made here,
with system prompts and words around images but for the share; all else is the same. Then both are
asked for of images it has not seen, as trained and plain.
"""

import base64
import csv
import dataclasses
import io
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from tokenization.encode import encode
from tokenization.pack import pack
from tokenization.schema import PACKED_WRITTEN, SAMPLE, Encoding
from tokenization.vocab import load_tokenizer
from trainer.arguments import split_pairs
from trainer.config_file import load
from trainer.evaluation.evaluate import evaluate_command
from trainer.loop import train

ENCODING = Encoding(
    seq_len=512, max_crops=32, crop_size=64, longest_edge=64, tokens_per_crop=16, seed=3
)
COLOURS = {"red": (210, 40, 40), "green": (40, 170, 60), "blue": (40, 60, 210),
           "yellow": (230, 210, 40), "black": (20, 20, 20), "white": (250, 250, 250)}  # fmt: skip
SIZES = {"small": 10, "large": 40}
QUESTIONS = ("Which colour is the rectangle?", "Is the rectangle small or large?")


def drawn(number: int) -> tuple[bytes, list[str]]:
    """(a PNG of 64 px, the answers to both questions)."""
    rng = np.random.default_rng(number)
    colour, size = rng.choice(list(COLOURS)), rng.choice(list(SIZES))
    side = SIZES[size]
    image = Image.fromarray(rng.integers(100, 150, (64, 64, 3), dtype=np.uint8))
    x, y = rng.integers(0, 64 - side, 2)
    ImageDraw.Draw(image).rectangle((x, y, x + side, y + side), fill=COLOURS[colour])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue(), [str(colour), str(size)]


def mixture(folder: Path, share: float, count: int) -> Path:
    """A finished mixture of `count` samples."""
    encoding = dataclasses.replace(ENCODING, plain_prompts=share)
    rows = []
    for number in range(count):
        data, answers = drawn(number)
        which = number % 2
        content = [{"type": "image", "text": None}, {"type": "text", "text": QUESTIONS[which]}]
        answer = [{"type": "text", "text": answers[which]}]
        rows.append(
            {"id": f"drawn/rectangles/{number:06d}", "source": "drawn", "subset": "rectangles",
             "messages": [{"role": "user", "content": content},
                          {"role": "assistant", "content": answer}],
             "images": [{"bytes": data, "width": 64, "height": 64}], "tags": []}
        )  # fmt: skip
    samples = pa.Table.from_pylist(rows, schema=SAMPLE)
    tokens = encode(samples, encoding=encoding)
    pieces = tokens.append_column("images", samples["images"])
    packed = pack(pieces, encoding=encoding, seed=0)
    (folder / "shards").mkdir(parents=True)
    with pa.ipc.new_file(str(folder / "shards" / "train-00000.arrow"), PACKED_WRITTEN) as writer:
        writer.write_table(packed.cast(PACKED_WRITTEN), max_chunksize=3)
    recipe = {"name": folder.name, "fingerprint": folder.name, "sources": {},
              "mixture": {"encoding": dataclasses.asdict(encoding)}}  # fmt: skip
    (folder / "recipe.json").write_text(json.dumps(recipe))
    load_tokenizer("builtin").save_pretrained(str(folder / "tokenizer"))
    return folder


def bench(file: Path, count: int) -> Path:
    """Two questions about each of `count` images that no training sample shows."""
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t")
        writer.writerow(["index", "image", "question", "answer"])
        for number in range(count):
            data, answers = drawn(1_000_000 + number)
            for which, answer in enumerate(answers):
                shown = str(2 * number) if which else base64.b64encode(data).decode()
                writer.writerow([2 * number + which, shown, QUESTIONS[which], answer])
    return file


def main(steps: int, shares: list[float], seed: int) -> None:
    """Prints a line per model and kind of prompts, with its interval, and their difference."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asked = bench(folder / "rectangles.tsv", 100)
        for share in shares:
            data = mixture(folder / f"share-{share:g}", share, 4000)
            settings = {
                "data": str(data), "output": str(folder / f"run-{share:g}"), "steps": str(steps),
                "seed": str(seed),
                "batch_rows": "4", "micro_rows": "4", "evaluate_rows": "1", "page_samples": "0",
                "log_every": str(steps), "save_every": str(steps), "threads": "1", "device": "cpu",
            }  # fmt: skip
            checkpoint = train(load("tiny", settings))
            evaluate_command(
                [str(checkpoint), f"bench={asked}", "prompts=trained,plain", "max_new_tokens=4",
                 "threads=1", "device=cpu", "batch=50"]
            )  # fmt: skip


if __name__ == "__main__":
    options = {"steps": "300", "shares": "0,0.3", "seed": "17"} | split_pairs(sys.argv[1:])
    shares = [float(each) for each in options["shares"].split(",")]
    main(int(options["steps"]), shares, int(options["seed"]))
