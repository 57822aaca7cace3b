"""Two trainings that differ in one setting of the mixture, judged on the same held-out rows.

    python -m benchmarks.ablation [a=encoding.learn=completions] [b=encoding.learn=all] [seeds=2]

Both mixtures are the quickstart at a smaller size; both models are `tiny` from the same random
weights, with the same rates, for the same number of rows. Both are judged on the val rows of `a`,
with its loss mask: per component, mean loss per learned token in natural logs. No sample of these
rows is trained on in either arm (checked). A difference counts only where it is larger than what
another seed changes: both are printed.

The default pair is the paper's completions-only finding (SmolVLM, arXiv 2504.05299, section 3).
"""

import resource
import statistics
import sys
from pathlib import Path

import numpy as np
import torch

from trainer import checkpoint
from trainer.arguments import split_pairs
from trainer.config_file import load
from trainer.data.shards import Mixture, Rows, open_mixture
from trainer.evaluation.held_out import components, held_out
from trainer.loop import train
from trainer.model import initial
from trainer.model.smolvlm import Objective, random_model, use_attention
from trainer.parallel import World

DEFAULTS = {
    "a": "encoding.learn=completions", "b": "encoding.learn=all", "tokens": "100000",
    "val_fraction": "0.1", "epochs": "2", "seeds": "2", "output": "out/ablation",
}  # fmt: skip


def built(folder: Path, setting: str, options: dict[str, str]) -> Mixture:
    """The quickstart with one setting changed, finished."""
    from pipelines.__main__ import main as pipelines

    sizes = [f"{key}={options[key]}" for key in ("tokens", "val_fraction")]
    status = pipelines(
        ["build", "mixture=quickstart", setting, *sizes, f"output={folder}", "workers=0"]
    )
    if status:
        raise SystemExit(status)
    return open_mixture(str(folder))


def samples(mixture: Mixture, split: str) -> list[str]:
    """Ids in packed order."""
    rows = Rows(mixture, split)
    return [name for i in range(len(rows)) for name in rows[i].sample_ids]


def learned(mixture: Mixture) -> dict[str, int]:
    """Learned tokens of the val rows by component."""
    rows, names = Rows(mixture, "val"), components(mixture)
    counts: dict[str, int] = {}
    for row in (rows[i] for i in range(len(rows))):
        cuts = np.split(row.loss_mask, np.cumsum(row.seq_lengths)[:-1])
        for name, mask in zip(row.sample_ids, cuts, strict=True):
            for key in (f"component/{names[name.rpartition('/')[0]]}", "all"):
                counts[key] = counts.get(key, 0) + int(mask.sum())
    return counts


def losses(arm: Mixture, judge: Mixture, seed: int, options: dict[str, str]) -> dict[str, float]:
    """Held-out losses on the val rows of `judge` after training on `arm`."""
    config = load("tiny", {
        "data": str(arm.folder), "output": f"{arm.folder}-run-{seed}", "epochs": options["epochs"],
        "seed": str(seed), "batch_rows": "1", "micro_rows": "1", "evaluate_rows": "1",
        "page_samples": "0", "log_every": "25", "device": "cpu",
    })  # fmt: skip
    folder = train(config)
    tokenizer = initial.tokenizer_of([judge])
    model = random_model(config.model, tokenizer, seed=0)
    initial.load_into(model, checkpoint.load_weights(folder), str(folder))
    use_attention(model, "loop")
    objective = Objective(model, logits_chunk=config.logits_chunk, neftune=0.0)
    everything = load("tiny", {"data": str(judge.folder), "evaluate_rows": "100000"})
    return held_out(
        objective, [Rows(judge, "val")], components(judge), everything,
        world=World(0, 1, torch.device("cpu"), "one"),
        image_token=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip


def main(arguments: list[str]) -> None:
    options = DEFAULTS | split_pairs(arguments)
    out = Path(options["output"])
    arms = [built(out / arm, options[arm], options) for arm in ("a", "b")]
    held = set(samples(arms[0], "val"))
    leaked = [held & set(samples(arm, "train")) for arm in arms]
    if any(leaked):
        raise ValueError(f"{options}: {sum(map(len, leaked))} val samples of a are trained on.")
    rows = [Rows(arm, "train") for arm in arms]
    same = len(rows[0]) == len(rows[1]) and all(
        np.array_equal(rows[0][i].input_ids, rows[1][i].input_ids) for i in range(len(rows[0]))
    )
    found = [
        [losses(arm, arms[0], 17 + i, options) for i in range(int(options["seeds"]))]
        for arm in arms
    ]
    counts = learned(arms[0])
    trained = [sum(int(each[i].loss_mask.sum()) for i in range(len(each))) for each in rows]
    cpu = resource.getrusage(resource.RUSAGE_SELF)
    print(f"a: {options['a']}, {trained[0]:,} learned tokens an epoch; b: {options['b']}, "
          f"{trained[1]:,}; {options['epochs']} epochs of {len(rows[0])} and {len(rows[1])} rows "
          f"({'the same tokens in the same order' if same else 'other rows'}); judged on "
          f"{len(held)} held-out samples; {options['seeds']} seeds; "
          f"{cpu.ru_utime + cpu.ru_stime:.0f} CPU seconds")  # fmt: skip
    print("| component | learned tokens | a | b | b - a | largest change by seed |")
    print("|---|---|---|---|---|---|")
    for name in sorted(counts, key=lambda each: (each != "all", each)):
        values = [[run[name] for run in runs] for runs in found]
        means = [statistics.fmean(each) for each in values]
        spread = max(max(each) - min(each) for each in values)
        print(f"| {name.removeprefix('component/')} | {counts[name]:,} | {means[0]:.3f} | "
              f"{means[1]:.3f} | {means[1] - means[0]:+.3f} | {spread:.3f} |")  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
