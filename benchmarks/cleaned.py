"""Whether training again on what `trainer score` leaves beats training on all.

    python -m benchmarks.cleaned [images=1000] [planted=0.2] [steps=220] [seeds=17,18]

Shapes with three questions each (examples/drawings.py), of `planted` of them the images changed
places. Per seed a model is trained on all of them and scores them; then others are trained anew,
from the same weights and for as many steps:

| arm    | what it is trained on                                                           |
|--------|---------------------------------------------------------------------------------|
| all    | all of it, wrong ones too                                                        |
| rule   | without the `planted` share of the highest loss (`beyond_quantile`)              |
| weight | as many tokens as `rule`, drawn by `weight_by: image_match` of those at least 0  |
| fewer  | as many tokens as `rule`, drawn evenly: what less data alone does                |
| clean  | all of the drawings, no image exchanged: what could be reached                   |

Each is asked about 100 drawings that none was trained on: exact matches in per cent, mean and
standard deviation over the seeds, and the difference to `all` with its 95 % interval (paired by
seed, Student's t).
"""

import json
import statistics
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import torch

import pipelines
import trainer
from benchmarks.visual_gain import EXAMPLES, plant
from trainer.ablation.comparison import compare_by_seed
from trainer.arguments import split_pairs
from trainer.evaluation import benchmark
from trainer.evaluation.answer import answers, open_checkpoint
from trainer.evaluation.score import score

OPTIONS = {"images": "1000", "planted": "0.2", "steps": "220", "seeds": "17,18,19,20,21"}
HELD_OUT = 100
"""Drawings that all are asked about."""
ENCODING = {
    "seq_len": 1024, "crop_size": 64, "longest_edge": 64, "tokens_per_crop": 16,
    "split_images": False, "system_prompts": "none", "media_intro_outro": False,
    "shuffle_turns": True,
}  # fmt: skip


def build(folder: Path, arm: str, data: Path, *, seed: int, **more: Any) -> Any:
    """FOLDER/ARM, a mixture of these conversations."""
    shapes = {"source": "messages", "data": str(data), "ratio": 1}
    page = {
        "name": arm, "tokens": "max", "val_fraction": 0, "seed": seed,
        "encoding": {**ENCODING, "tokenizer": str(folder / "tokenizer")},
        "components": {"shapes": shapes}, **more,
    }  # fmt: skip
    file = folder / f"{arm}.yaml"
    file.write_text(json.dumps(page))
    return pipelines.build(file, output=folder / arm, work=folder / "work", workers=0)


def train(folder: Path, arm: str, *, vocabulary: int, steps: int, seed: int) -> Path:
    """The last checkpoint of a run on FOLDER/ARM."""
    settings = {"steps": steps, "seed": seed, "page_samples": 0, "save_every": steps,
                "model.language.vocab_size": vocabulary}  # fmt: skip
    run = trainer.train(
        EXAMPLES / "drawings_model.yaml", data=folder / arm, output=folder / "runs" / arm,
        overrides=settings,
    )  # fmt: skip
    return run.checkpoint


def exact_match(checkpoint: Path, file: Path) -> float:
    """Per cent of the questions of a TSV that are answered right."""
    model, tokenizer, encoding, _ = open_checkpoint(str(checkpoint), device="cpu")
    cases = benchmark.read(file)
    said = answers(model, tokenizer, [case.question for case in cases], encoding=encoding,
                   max_new_tokens=6, batch_size=50)  # fmt: skip
    return 100 * statistics.fmean(benchmark.scores(cases, said, "exact"))


def arms_of(
    folder: Path, *, images: int, planted: float, steps: int, seed: int
) -> dict[str, float]:
    """Arm -> its exact match."""
    from demo import write_tokenizer
    from drawings import drawings, write_benchmark

    vocabulary = write_tokenizer(folder / "tokenizer")
    for name, share in (("dirty", planted), ("drawn", 0.0)):
        plant(folder / name, images=images, share=share, seed=seed)
    held_out = list(islice(drawings("shapes", seed=seed), images, images + HELD_OUT))
    write_benchmark(folder / "held_out.tsv", {"shapes": held_out})

    def points(arm: str) -> float:
        checkpoint = train(folder, arm, vocabulary=vocabulary, steps=steps, seed=seed)
        return exact_match(checkpoint, folder / "held_out.tsv")

    build(folder, "all", folder / "dirty", seed=seed)
    found = {"all": points("all")}
    run = next((folder / "runs" / "all").glob("step-*"))
    facts = {
        "files": str(score(str(run), data=str(folder / "all"))), "key": "__id__",
        "fields": {"answer_loss": "loss", "match": "image_match"},
    }  # fmt: skip
    worst = {"facts": {"answer_loss": {"highest": planted}}}
    kept = build(folder, "rule", folder / "dirty", seed=seed, annotations=facts,
                 filters={"beyond_quantile": worst})  # fmt: skip
    tokens = kept.stats["train"]["tokens"]
    build(folder, "weight", folder / "dirty", seed=seed, annotations=facts, weight_by="match",
          filters={"out_of_bounds": {"facts": {"match": {"min": 0}}}}, tokens=tokens,
          on_shortage="shrink")  # fmt: skip
    build(folder, "fewer", folder / "dirty", seed=seed, tokens=tokens)
    build(folder, "clean", folder / "drawn", seed=seed)
    return found | {arm: points(arm) for arm in ("rule", "weight", "fewer", "clean")}


def main(words: list[str]) -> None:
    """A line per seed, then the table."""
    sys.path.insert(0, str(EXAMPLES))
    torch.set_num_threads(1)
    options = OPTIONS | split_pairs(words)
    sizes = {"images": int(options["images"]), "steps": int(options["steps"])}
    found: dict[str, dict[int, float]] = {}
    for seed in map(int, options["seeds"].split(",")):
        with tempfile.TemporaryDirectory() as folder:
            for arm, points in arms_of(
                Path(folder), planted=float(options["planted"]), seed=seed, **sizes
            ).items():
                found.setdefault(arm, {})[seed] = points
        print(seed, {arm: round(by[seed], 1) for arm, by in found.items()}, flush=True)
    for arm, by in found.items():
        spread = statistics.stdev(by.values()) if len(by) > 1 else float("nan")
        line = f"{arm:<8}{statistics.fmean(by.values()):6.1f} +- {spread:4.1f}"
        if arm != "all":
            than = compare_by_seed(by, found["all"], lower_is_better=False)
            line += f"   {than.mean:+5.1f} ({than.low:+.1f} to {than.high:+.1f}) {than.verdict}"
        print(line)


if __name__ == "__main__":
    main(sys.argv[1:])
