"""What `trainer score` finds: wrong images, planted among right ones; and how fast it is.

    python -m benchmarks.visual_gain [images=1200] [planted=0.2] [steps=500] [seed=17]

Shapes are drawn, each with three questions that only its image answers (examples/drawings.py). Of
`planted` of them the images change places among each other. A model is trained on all of it, wrong
ones too, and scores it. AUROC: how often a planted sample ranks below a clean one. Then a plain
`transformers` loop computes the same three losses, samples of like length padded to batches of 16.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import polars as pl
import torch

import pipelines
import trainer
from tokenization.images import crop_pixels
from trainer.arguments import split_pairs
from trainer.data.shards import Row, Rows, open_mixture
from trainer.evaluation.answer import open_checkpoint
from trainer.evaluation.score import score
from trainer.evaluation.visual_gain import without_images
from trainer.model.smolvlm import normalize_pixels

EXAMPLES = Path(__file__).parents[1] / "examples"
OPTIONS = {"images": "1200", "planted": "0.2", "steps": "500", "seed": "17"}
BATCH = 16
LIMIT = 320
"""Samples that the plain loop is timed on."""


def auroc(scores: np.ndarray, planted: np.ndarray) -> float:
    """How often a planted sample's score lies below a clean one's; ties count half."""
    from scipy.stats import mannwhitneyu

    found = mannwhitneyu(scores[~planted], scores[planted])
    return float(found.statistic / ((~planted).sum() * planted.sum()))


def plant(folder: Path, *, images: int, share: float, seed: int) -> np.ndarray:
    """[images] True where a sample's image is another one's; the conversations lie in `folder`."""
    sys.path.insert(0, str(EXAMPLES))
    from drawings import drawings, write_conversations

    made = drawings("shapes", seed=seed)
    write_conversations(folder, [next(made) for _ in range(images)])
    chosen = sorted(Random(seed).sample(range(images), round(share * images)))
    files = [folder / f"images/{number:05d}.png" for number in chosen]
    contents = [file.read_bytes() for file in files]
    for file, other in zip(files, contents[1:] + contents[:1], strict=True):
        file.write_bytes(other)
    planted = np.zeros(images, bool)
    planted[chosen] = True
    return planted


def built(folder: Path, data: Path, *, seed: int) -> Path:
    """The mixture of all of these conversations."""
    mixture = folder / "planted.yaml"
    encoding = {
        "tokenizer": "builtin", "seq_len": 1024, "crop_size": 64, "longest_edge": 64,
        "tokens_per_crop": 16, "split_images": False, "system_prompts": "none",
        "media_intro_outro": False,
    }  # fmt: skip
    page = {
        "name": "planted", "tokens": "max", "val_fraction": 0.02, "seed": seed,
        "encoding": encoding,
        "components": {"shapes": {"source": "messages", "data": str(data), "ratio": 1}},
    }  # fmt: skip
    mixture.write_text(json.dumps(page))
    out = folder / "mixture"
    pipelines.build(mixture, output=out, work=folder / "work", workers=0)
    return out


def padded_losses(model: Any, rows: list[Row], *, pad: int) -> None:
    """One pass of a plain loop over samples that were cut from their rows."""
    for at in range(0, len(rows), BATCH):
        batch = rows[at : at + BATCH]
        longest = max(len(row.input_ids) for row in batch)
        ids = torch.full((len(batch), longest), pad)
        labels = torch.full((len(batch), longest), -100)
        for number, row in enumerate(batch):
            length = len(row.input_ids)
            ids[number, :length] = torch.tensor(row.input_ids.astype(np.int64))
            labels[number, :length] = torch.where(
                torch.tensor(row.loss_mask), ids[number, :length], -100
            )
        mask = torch.arange(longest) < torch.tensor([len(row.input_ids) for row in batch])[:, None]
        crops = [
            torch.from_numpy(crop_pixels(image, *grid, encoding=row.encoding))
            for row in batch
            for image, grid in zip(row.images, row.grids, strict=True)
        ]
        pixels = {}
        if crops:  # one crop a sample
            pixels["pixel_values"] = normalize_pixels(torch.cat(crops), torch.float32)[0][:, None]
        with torch.no_grad():
            model(input_ids=ids, attention_mask=mask.long(), labels=labels, **pixels)


def samples_of(mixture: Path, *, limit: int) -> list[Row]:
    """Samples of one image each, cut from their rows, shortest first."""
    rows, found = Rows(open_mixture(str(mixture)), "train"), []
    for number in range(len(rows)):
        row = rows[number]
        ends = np.cumsum([0, *row.seq_lengths])
        for sample, name in enumerate(row.sample_ids):
            own = slice(ends[sample], ends[sample + 1])
            found.append(
                Row(row.mixture, number, row.encoding, row.input_ids[own], row.loss_mask[own],
                    row.seq_lengths[sample : sample + 1], [row.images[sample]],
                    [row.grids[sample]], [name])
            )  # fmt: skip
        if len(found) >= limit:
            break
    return sorted(found[:limit], key=lambda row: len(row.input_ids))


def main(words: list[str]) -> None:
    """Trains, scores, times, prints."""
    options = OPTIONS | split_pairs(words)
    seed = int(options["seed"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        planted = plant(
            folder / "shapes", images=int(options["images"]), share=float(options["planted"]),
            seed=seed,
        )  # fmt: skip
        mixture = built(folder, folder / "shapes", seed=seed)
        run = trainer.train(
            EXAMPLES / "drawings_model.yaml", data=mixture, output=folder / "run",
            overrides={"steps": int(options["steps"]), "seed": seed, "page_samples": 0,
                       "model.language.vocab_size": 49_280},
        )  # fmt: skip
        torch.set_num_threads(1)
        began = time.process_time()
        file = score(str(run.checkpoint), data=str(mixture))
        ours = time.process_time() - began
        table = pl.read_parquet(file)
        number = table["id"].str.split("/").list.last().cast(int).to_numpy()
        print(f"{len(table)} samples, {planted[number].mean():.0%} with another one's image, "
              f"{options['steps']} steps on all of them")  # fmt: skip
        for column in ("visual_gain", "image_match", "loss"):
            values = table[column].to_numpy().astype(float)
            values = -values if column == "loss" else values
            known = np.isfinite(values)  # an image match needs another sample of the grid
            area = auroc(values[known], planted[number][known])
            print(f"  AUROC of {column:<12} {area:.3f}")
        _print_speeds(run.checkpoint, mixture, samples=len(table), ours=ours)


def _print_speeds(checkpoint: Path, mixture: Path, *, samples: int, ours: float) -> None:
    model, tokenizer, _, _ = open_checkpoint(str(checkpoint), device="cpu")
    fake = tokenizer.convert_tokens_to_ids("<fake_token_around_image>")
    rows = samples_of(mixture, limit=LIMIT)
    bare = [without_images(row, fake=fake)[0] for row in rows]
    others = [
        Row(*(vars(row) | {"images": rows[number - 1].images}).values())
        for number, row in enumerate(rows)
    ]
    began = time.process_time()
    for variant in (rows, bare, others):
        padded_losses(model, variant, pad=tokenizer.pad_token_id)
    theirs = time.process_time() - began
    ours_rate, their_rate = samples / ours, len(rows) / theirs
    print(f"  samples a CPU s: ours {ours_rate:.1f}, padded loop {their_rate:.1f}, "
          f"ratio {ours_rate / their_rate:.2f}")  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
