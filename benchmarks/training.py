"""Tokens per second of this trainer (packed) against `transformers.Trainer` (padded).

    python -m benchmarks.training data=out/quickstart config=tiny rows=24

Both train the same model, from the same random weights, with the same rates and precision, on the
same samples of the mixture, decoding and cutting their pictures on the way. Theirs is the usual
way: one sample is one row, a batch is padded to its longest. Needs `accelerate`.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainer import build, optim
from trainer.config import Config, load, split_pairs
from trainer.data import collate
from trainer.model import Objective, flops, normalise, random_model, use_attention
from trainer.shards import Row, Rows, open_mixture
from trainer.watch import peak_memory


def samples_of(row: Row) -> list[Row]:
    """The samples of a packed row, each as a row of its own."""
    image_token = 49190
    alone, start, image = [], 0, 0
    for length, name in zip(row.seq_lengths, row.sample_ids, strict=True):
        ids = row.input_ids[start : start + length]
        crops = int((ids == image_token).sum()) // row.encoding.tokens_per_crop
        end = image
        while crops > 0:
            rows, cols = row.grids[end]
            crops -= rows * cols + 1
            end += 1
        alone.append(
            Row(
                mixture=row.mixture, number=row.number, encoding=row.encoding, input_ids=ids,
                loss_mask=row.loss_mask[start : start + length],
                seq_lengths=np.array([length], dtype=np.int32), images=row.images[image:end],
                grids=row.grids[image:end], sample_ids=[name],
            )
        )  # fmt: skip
        start, image = start + int(length), end
    return alone


def packed(config: Config, tokenizer: Any, rows: list[Row], micro_rows: int) -> dict[str, float]:
    """Our step over all rows, `micro_rows` at a time."""
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    model = random_model(config.model, tokenizer, seed=0)
    use_attention(model, "loop")
    objective = Objective(model, logits_chunk=config.logits_chunk, neftune=0.0).train()
    optimizer = optim.optimizer(objective, config.optim)
    optim.set_rates(optimizer, 1.0)
    tokens = learned = 0
    seconds = waited = 0.0
    losses = []
    for start in range(0, len(rows), micro_rows):
        before = time.perf_counter()
        batch = collate(rows[start : start + micro_rows], image_token=image_token)
        waited += time.perf_counter() - before
        total, _ = objective(batch)
        (total / len(batch.targets)).backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), config.optim.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(total.item() / len(batch.targets))
        seconds += time.perf_counter() - before
        tokens += batch.input_ids.numel()
        learned += len(batch.targets)
    return {"seconds": seconds, "tokens": tokens, "learned": learned, "decoding": waited / seconds,
            "padding": 0.0, "last_loss": losses[-1]}  # fmt: skip


def padded(config: Config, tokenizer: Any, samples: list[Row], batch_size: int) -> dict[str, float]:
    """`transformers.Trainer` over the same samples, in the same order, padded."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    image_token = tokenizer.convert_tokens_to_ids("<image>")
    spent = {"decoding": 0.0, "cells": 0, "tokens": 0, "learned": 0}

    def pad(chosen: list[Row]) -> dict[str, torch.Tensor]:
        before = time.perf_counter()
        alone = [collate([row], image_token=image_token) for row in chosen]
        width = max(batch.input_ids.shape[1] for batch in alone)
        most = max(len(batch.pixels) for batch in alone)
        size = chosen[0].encoding.crop_size
        ids = torch.full((len(alone), width), tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        labels = torch.full_like(ids, -100)
        pixels = torch.zeros(len(alone), max(most, 1), 3, size, size)
        for i, batch in enumerate(alone):
            length = batch.input_ids.shape[1]
            ids[i, :length] = batch.input_ids[0]
            mask[i, :length] = 1
            labels[i, batch.predictors + 1] = batch.targets
            if len(batch.pixels):
                pixels[i, : len(batch.pixels)] = normalise(batch.pixels, torch.float32)[0]
            spent["tokens"] += length
            spent["learned"] += len(batch.targets)
        spent["cells"] += ids.numel()
        spent["decoding"] += time.perf_counter() - before
        inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        return inputs | ({"pixel_values": pixels} if most else {})

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.started = time.perf_counter()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.seconds = time.perf_counter() - self.started

    model = random_model(config.model, tokenizer, seed=0)
    model.set_attn_implementation("sdpa")
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=batch_size, num_train_epochs=1,
            learning_rate=config.optim.lr.language, lr_scheduler_type="constant", use_cpu=True,
            max_grad_norm=config.optim.clip, weight_decay=config.optim.weight_decay, report_to=[],
            save_strategy="no", remove_unused_columns=False, disable_tqdm=True, logging_steps=1,
            dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = Trainer(
            model=model, args=arguments, train_dataset=samples,  # type: ignore[arg-type]
            data_collator=pad, callbacks=[clock],
        )  # fmt: skip
        in_order = torch.utils.data.SequentialSampler(samples)  # type: ignore[arg-type]
        trainer._get_train_sampler = lambda *_: in_order
        trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return {
        "seconds": clock.seconds,
        "tokens": spent["tokens"],
        "learned": spent["learned"],
        "decoding": spent["decoding"] / clock.seconds,
        "padding": 1 - spent["tokens"] / spent["cells"],
        "last_loss": float(losses[-1]),
    }


def main(arguments: list[str]) -> None:
    options = {"data": "out/quickstart", "config": "tiny", "rows": "24", "threads": "1",
               "batch": "16", "only": ""} | split_pairs(arguments)  # fmt: skip
    torch.set_num_threads(int(options["threads"]))
    config = load(options["config"], {"data": options["data"]})
    mixture = open_mixture(options["data"])
    tokenizer = build.tokenizer_of([mixture])
    all_rows = Rows(mixture, "train")
    rows = [all_rows[i] for i in range(min(int(options["rows"]), len(all_rows)))]
    samples = [sample for row in rows for sample in samples_of(row)]
    micro = max(1, round(int(options["batch"]) * len(rows) / len(samples)))
    if options["only"]:  # one side in a fresh process, so that peak memory is its own
        run = (
            packed(config, tokenizer, rows, micro)
            if options["only"] == "packed"
            else padded(config, tokenizer, samples, int(options["batch"]))
        )
        from trainer.parallel import World

        memory = peak_memory(World(0, 1, torch.device("cpu"), "one"))
        print(json.dumps(run | {"memory": memory}))
        return
    import subprocess

    counts = [row.input_ids.size for row in rows]
    work = sum(
        flops(config.model, row.seq_lengths, row.num_crops, int(row.loss_mask.sum()))
        for row in rows
    )
    print(f"{len(samples)} samples in {len(rows)} packed rows, {sum(counts):,} tokens, "
          f"{work / 1e12:.2f} TFLOP modelled; {options['threads']} thread; a batch is "
          f"{options['batch']} samples padded or {micro} rows packed")  # fmt: skip
    print("| | seconds | tokens/s | learned/s | padding | decoding | peak GB | last loss |")
    print("|---|---|---|---|---|---|---|---|")
    speeds = []
    for side, name in (("packed", "ours, packed"), ("padded", "transformers.Trainer, padded")):
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.training", *arguments]
        done = subprocess.run(
            [*command, f"only={side}"], capture_output=True, text=True, check=True,
            cwd=Path(__file__).parent.parent,
        )  # fmt: skip
        run = json.loads(done.stdout.strip().splitlines()[-1])
        speeds.append(run["learned"] / run["seconds"])
        print(f"| {name} | {run['seconds']:.1f} | {run['tokens'] / run['seconds']:,.0f} | "
              f"{speeds[-1]:,.0f} | {run['padding']:.0%} | {run['decoding']:.0%} | "
              f"{run['memory']:.2f} | {run['last_loss']:.2f} |", flush=True)  # fmt: skip
    print(f"learned tokens per second: {speeds[0] / speeds[1]:.2f} times padded")


if __name__ == "__main__":
    main(sys.argv[1:])
