"""Proof that a model trained here learns to look: `python examples/proof.py [output=out/proof]`.

easy-vqa (4,000 train images of 64 px, all questions of an image as turns of one sample) goes
through the whole pipeline, a small SmolVLM learns from random weights, and `evaluate` judges it on
easy-vqa's own test part: with every question's own image, and with images shuffled among the
questions. The second is what the questions alone give away. The proof holds where the first is at
least 10 points above it.
"""

import base64
import csv
import json
import subprocess
import sys
import time
from pathlib import Path

from quickstart_data.cauldron import package, row
from quickstart_data.files import hashed_name, write_parquet

MIXTURE = """\
description: easy-vqa, all questions of an image as the turns of one sample.
tokens: max
val_fraction: 0.01
seed: 17
encoding:
  tokenizer: builtin
  seq_len: 2048
  max_crops: 128
  crop_size: 64
  longest_edge: 64
  tokens_per_crop: 16
  split_images: false
  system_prompts: none
  media_intro_outro: false
  shuffle_turns: true
components:
  shapes: {{source: cauldron, data: {data}, subsets: [clevr], ratio: 1, max_epochs: 1}}
"""

TRAINING = {
    "model.vision.num_hidden_layers": "4",
    "model.language.num_hidden_layers": "4",
    # 1 / sqrt(hidden_size), near 0.12: with the 0.02 of wide models attention starts so flat at 64
    # that training can stay blind for all of its steps (seen: 680 steps at the blind loss).
    "model.initializer_range": "0.12",
    "optim.lr.vision": "1e-3",
    "optim.lr.connector": "1e-3",
    "optim.lr.language": "1e-3",
    # Steps, not tokens, are what it takes to begin to look: one row of about 11 images a step.
    "batch_rows": "1",
    "micro_rows": "1",
    "log_every": "40",
    "save_every": "400",
}
MARGIN = 0.10


def questions(part: str) -> list[tuple[Path, str, str]]:
    """(image, question, answer) of easy-vqa's train or test part."""
    folder = package("easy_vqa") / "data" / part
    asked = json.loads((folder / "questions.json").read_text())
    return [(folder / "images" / f"{image}.png", q, a) for q, a, image in asked]


def write_data(folder: Path) -> None:
    """The train part in The Cauldron's layout."""
    from datasets import Features, Image, List, Value

    turn = {"user": Value("string"), "assistant": Value("string"), "source": Value("string")}
    features = Features({"images": List(Image()), "texts": List(turn)})
    images: dict[Path, list[tuple[str, str]]] = {}
    for image_record, question, answer in questions("train"):
        images.setdefault(image_record, []).append((question.capitalize(), answer))
    rows = [row([path.read_bytes()], asked, "easy-vqa") for path, asked in sorted(images.items())]
    write_parquet(folder / "clevr" / hashed_name("train", of="easy-vqa"), rows, features)


def write_benchmark(file: Path) -> None:
    """The test part in VLMEvalKit's layout; each image once, other rows name its index."""
    first: dict[Path, int] = {}
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t")
        writer.writerow(["index", "image", "question", "answer", "category"])
        for index, (image_record, question, answer) in enumerate(questions("test")):
            seen = first.get(image_record)
            data = (
                base64.b64encode(image_record.read_bytes()).decode() if seen is None else str(seen)
            )
            first.setdefault(image_record, index)
            category = "yes or no" if answer in ("yes", "no") else "open"
            writer.writerow([index, data, question.capitalize(), answer, category])


def run(*arguments: str) -> None:
    """One command of this project; its output is shown."""
    print("$ python -m", " ".join(arguments), flush=True)
    subprocess.run([sys.executable, "-m", *arguments], check=True)


def main(arguments: list[str]) -> int:
    """0 where the proof holds."""
    pairs = dict(argument.split("=", 1) for argument in arguments)
    out = Path(pairs.pop("output", "out/proof"))
    limit = pairs.pop("limit", "0")
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    write_data(out / "data")
    (out / "easy_vqa.yaml").write_text(MIXTURE.format(data=json.dumps(str(out / "data"))))
    bench = out / "easy_vqa_test.tsv"
    write_benchmark(bench)
    run("pipelines", "build", f"mixture={out / 'easy_vqa.yaml'}", f"output={out / 'mixture'}",
        f"work={out / 'work'}", "workers=0")  # fmt: skip
    settings = {"epochs": "6"} | TRAINING | pairs
    run("trainer", "config=tiny", f"data={out / 'mixture'}", f"output={out / 'run'}",
        *(f"{key}={value}" for key, value in settings.items()))  # fmt: skip
    scores = {}
    for images in ("own", "shuffled"):
        run("trainer", "evaluate", str(out / "run"), f"bench={bench}", "metric=exact", "batch=64",
            "max_new_tokens=4", f"images={images}", f"limit={limit}", "threads=1",
            f"output={out / 'scores'}")  # fmt: skip
        name = bench.stem + ("" if images == "own" else "-shuffled")
        scores[images] = json.loads((out / "scores" / f"{name}.json").read_text())["score"]
    gain = scores["own"] - scores["shuffled"]
    print(
        f"own images {scores['own']:.1%}, shuffled images {scores['shuffled']:.1%}: "
        f"{100 * gain:+.1f} points from looking, in {(time.monotonic() - started) / 60:.0f} minutes"
    )
    return 0 if gain >= MARGIN else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
