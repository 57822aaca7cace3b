"""This trainer against `transformers.Trainer` and TRL's `SFTTrainer`, step by step on one data.

    python -m benchmarks.training [data=out/quickstart] [configs=smolvlm_256m,tiny] [steps=2]

All train the same model from the same random weights with the same rates and precision, in the same
global batches, so their losses agree step by step (shown), and the time to the same loss is the
time for the same steps. Ours is `trainer.loop.train`: packed rows, cut and decoded by its two
threads. Theirs is the usual way: one sample is one row, micro-batches of `batch` are padded to
their longest, two loader processes decode and cut with our (fast) code. TRL packs text alone: it
refuses to pack images ("Packing is not supported for vision datasets", trl 1.16), so packed TRL
is measured on the mixture's samples without images, where ours trains rows of the same samples.

A real-size configuration keeps its towers' sizes and takes the mixture's crops, which are smaller.
Each side runs in a process of its own, so that its peak memory is its own. Needs `.[bench]`.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from tokenization.fit import pack_rows
from tokenization.schema import PACKED
from trainer import loop
from trainer.arguments import split_pairs
from trainer.config import Config
from trainer.config_file import load
from trainer.data.batches import Loader, collate
from trainer.data.shards import Row, Rows, open_mixture
from trainer.model import initial
from trainer.model.smolvlm import flops, normalize_pixels, random_model
from trainer.monitoring.reporter import Reporter
from trainer.monitoring.watch import peak_memory
from trainer.parallel import World

DEFAULTS = {
    "data": "out/quickstart", "configs": "smolvlm_256m,tiny", "steps": "2", "batch": "4",
    "only": "",
}  # fmt: skip
SIDES = {
    "ours": "ours, packed", "padded": "transformers.Trainer, padded", "trl": "TRL, padded",
    "ours_text": "text: ours, packed", "trl_text": "text: TRL, packed (bfd)",
}  # fmt: skip
SIZES = {
    "tiny": {"batch_rows": "2", "micro_rows": "2"},
    "smolvlm_256m": {
        "batch_rows": "1", "micro_rows": "1", "dtype": "float32", "gradient_checkpointing": "none",
        "model.vision.pretrained": "", "model.language.pretrained": "", "threads": "1",
    },
}  # fmt: skip
RATES = {"tiny": "5e-3"}
"""Of all towers, constant; 1e-4 for a config not named."""
IMAGE = 49190
"""The id of <image> in the bundled tokenizer."""


def config_of(name: str, data: str, options: dict[str, str]) -> Config:
    """The config's towers with the mixture's crops, trained by plain AdamW at one constant rate."""
    encoding = open_mixture(data).encoding
    rate = RATES.get(name, "1e-4")
    pairs = {
        "data": data, "steps": options["steps"], "optim.schedule": "constant", "optim.warmup": "0",
        "optim.weight_decay": "0", "optim.lr.vision": rate, "optim.lr.connector": rate,
        "optim.lr.language": rate, "device": "cpu", "log_every": "1", "page_samples": "0",
        "evaluate_rows": "0",
    }  # fmt: skip
    # scale_factor^2 patches of the crop become one token.
    if name != "tiny":
        pairs |= {
            "model.vision.image_size": str(encoding.crop_size), "model.scale_factor": "2",
            "model.vision.patch_size":
                str(round(encoding.crop_size / (2 * encoding.tokens_per_crop**0.5))),
        }  # fmt: skip
    return load(name, pairs | SIZES.get(name, {}))


def samples_of(row: Row) -> list[Row]:
    """The samples of a packed row, each as a row of its own."""
    alone, image = [], 0
    ends = np.cumsum(row.seq_lengths)
    for start, end, name in zip(ends - row.seq_lengths, ends, row.sample_ids, strict=True):
        ids = row.input_ids[start:end]
        crops = int((ids == IMAGE).sum()) // row.encoding.tokens_per_crop
        last = image
        while crops > 0:
            rows, cols = row.grids[last]
            crops -= rows * cols + 1
            last += 1
        alone.append(
            replace(
                row, input_ids=ids, loss_mask=row.loss_mask[start:end],
                seq_lengths=np.array([end - start], dtype=np.int32),
                images=row.images[image:last], grids=row.grids[image:last], sample_ids=[name],
            )
        )  # fmt: skip
        image = last
    return alone


def batches(config: Config) -> list[list[Row]]:
    """The samples of every step, in the order in which ours trains them."""
    loader = Loader(
        config, image_token=IMAGE,
        cost=partial(flops, config.model),
    )  # fmt: skip
    made = []
    for step in range(config.steps):
        _, groups = loader.plan(step * config.batch_rows)
        rows = [loader.splits[m][number] for group in groups for m, number in group]
        made.append([sample for row in rows for sample in samples_of(row)])
    return made


def text_only(data: str, output: Path, rows: int) -> str:
    """A mixture of `rows` rows that hold the samples without images of this one."""
    mixture = open_mixture(data)
    source = Rows(mixture, "train")
    texts: list[Row] = []
    for number in range(len(source)):
        texts += [each for each in samples_of(source[number]) if not each.images]
    lengths = np.array([len(each.input_ids) for each in texts])
    packed = pack_rows(
        lengths, np.zeros_like(lengths), seed=0, seq_len=mixture.encoding.seq_len, max_crops=1
    )
    cells = [
        {
            "input_ids": np.concatenate([texts[i].input_ids for i in row]),
            "loss_mask": np.concatenate([texts[i].loss_mask for i in row]),
            "seq_lengths": lengths[row].tolist(), "images": [], "grids": [],
            "sample_ids": [texts[i].sample_ids[0] for i in row],
        }
        for row in packed[:rows]
    ]  # fmt: skip
    (output / "shards").mkdir(parents=True)
    for name in ("index.arrow", "tokenizer"):
        (output / name).symlink_to((mixture.folder / name).absolute())
    # Its shards are others than those that `files` holds the hashes of.
    recipe = {key: value for key, value in mixture.recipe.items() if key != "files"}
    (output / "recipe.json").write_text(json.dumps(recipe))
    with pa.ipc.new_file(str(output / "shards" / "train-00000.arrow"), PACKED) as writer:
        writer.write_table(pa.Table.from_pylist(cells, schema=PACKED))
    return str(output)


def ours(config: Config, folder: Path) -> dict[str, Any]:
    """The real loop over packed rows, timed by its own log."""
    spent, steps, trained = [0.0], Loader.steps, Reporter.trained

    def begun(self: Loader, position: int, count: int) -> Iterator[Any]:
        for step in steps(self, position, count):
            spent[0] -= time.process_time()
            yield step

    def ended(self: Reporter, *arguments: Any, **named: Any) -> None:
        spent[0] += time.process_time()
        trained(self, *arguments, **named)

    Loader.steps, Reporter.trained = begun, ended  # type: ignore[method-assign]
    run = loop.train(replace(config, output=str(folder / "run"))).parent
    logged = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    lines = [line for line in logged if "loss" in line]
    done, seconds, waits = 0, [], []
    for line in lines:
        seconds.append((line["tokens"] - done) / line["tokens_per_second"])
        waits.append(line["data_wait"] * seconds[-1])
        done = line["tokens"]
    return {
        "seconds": sum(seconds), "wait": sum(waits), "later_wait": sum(waits[1:]),
        "later_seconds": sum(seconds[1:]), "losses": [line["loss"] for line in lines],
        "tokens": done, "learned": lines[-1]["learned_tokens"], "padding": 0.0, "cpu": sum(spent),
    }  # fmt: skip


def padded(samples: list[Row], pad_token: int, *, width: int = 0) -> dict[str, torch.Tensor]:
    """A micro-batch as `transformers` takes it, as wide as its longest or `width`."""
    alone = [collate([row], image_token=IMAGE) for row in samples]
    width = width or max(batch.input_ids.shape[1] for batch in alone)
    most = max(len(batch.pixels) for batch in alone)
    ids = torch.full((len(alone), width), pad_token)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    size = samples[0].encoding.crop_size
    pixels = torch.zeros(len(alone), most, 3, size, size)
    for i, batch in enumerate(alone):
        length = batch.input_ids.shape[1]
        ids[i, :length] = batch.input_ids[0]
        mask[i, :length] = 1
        labels[i, batch.predictors + 1] = batch.targets
        if len(batch.pixels):
            pixels[i, : len(batch.pixels)] = normalize_pixels(batch.pixels, torch.float32)[0]
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return inputs | ({"pixel_values": pixels} if most else {})


def cut(samples: list[Row], pieces: int) -> Iterator[list[Row]]:
    """The samples in `pieces` runs of nearly equal length."""
    bounds = np.linspace(0, len(samples), pieces + 1).round().astype(int)
    return (samples[a:b] for a, b in itertools.pairwise(bounds))


def theirs(config: Config, folder: Path, *, trl: bool, packed: bool, batch: int) -> dict[str, Any]:
    """`transformers.Trainer`, or TRL's on top of it, over the same steps."""
    # Longer than a screen: a peer's whole set-up, to be compared with its documentation.
    from datasets import Dataset
    from transformers import Trainer, TrainerCallback, TrainingArguments

    tokenizer = initial.tokenizer_of([open_mixture(folder_) for folder_ in config.data])
    steps = batches(config)
    # Every step is cut into equally many micro-batches, of at most `batch` samples on average.
    pieces = 1 if packed else -(-max(map(len, steps)) // batch)
    micro = [piece for step in steps for piece in cut(step, pieces)]
    data = Dataset.from_dict({"number": list(range(len(micro)))})
    collator: Any = lambda chosen: padded(micro[chosen[0]["number"]], tokenizer.pad_token_id)
    settings: dict[str, Any] = {
        "output_dir": str(folder / "theirs"), "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": pieces, "num_train_epochs": 1, "max_steps": len(steps),
        "learning_rate": config.optim.lr.language, "lr_scheduler_type": "constant",
        "use_cpu": True, "max_grad_norm": config.optim.clip, "weight_decay": 0.0,
        "report_to": [], "save_strategy": "no", "remove_unused_columns": False, "bf16": False,
        "disable_tqdm": True, "logging_steps": 1, "dataloader_pin_memory": False,
        "gradient_checkpointing": False, "dataloader_num_workers": 2, "train_sampling_strategy":
        "sequential",
    }  # fmt: skip
    extra: dict[str, Any] = {}
    kind: Any = Trainer
    arguments: Any = TrainingArguments
    if trl:
        from trl import SFTConfig, SFTTrainer

        kind, arguments = SFTTrainer, SFTConfig
        extra = {"processing_class": tokenizer}
        settings |= {"max_length": config.model.language.max_position_embeddings}
        if not packed:
            settings["dataset_kwargs"] = {"skip_prepare_dataset": True}
    if packed:
        cells = [
            {"input_ids": row.input_ids.tolist(),
             "labels": np.where(row.loss_mask, row.input_ids, -100).tolist()}
            for step in steps for row in step
        ]  # fmt: skip
        data, collator = Dataset.from_list(cells), None
        rows_length = open_mixture(next(iter(config.data))).encoding.seq_len
        settings |= {
            "packing": True, "max_length": rows_length, "remove_unused_columns": True,
            "per_device_train_batch_size": config.micro_rows, "max_steps": -1,
            "gradient_accumulation_steps": config.batch_rows // config.micro_rows,
        }  # fmt: skip

    class Clock(TrainerCallback):
        waits: list[float] = []  # noqa: RUF012 - one clock
        ends: list[float] = []  # noqa: RUF012

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.started, self.cpu = time.perf_counter(), time.process_time()
            self.ends.append(self.started)

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.waits.append(time.perf_counter() - self.ends[-1])

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.perf_counter())
            self.last_cpu = time.process_time()

    model = random_model(config.model, tokenizer, seed=config.seed)
    model.set_attn_implementation("sdpa")
    clock = Clock()
    trainer = kind(
        model=model, args=arguments(**settings), train_dataset=data, callbacks=[clock], **extra,
        **({"data_collator": collator} if collator else {}),
    )  # fmt: skip
    trainer.train()
    samples = [row for step in steps for row in step]
    cells_ = sum(len(piece) * max(len(row.input_ids) for row in piece) for piece in micro)
    tokens = sum(len(row.input_ids) for row in samples)
    return {
        "seconds": clock.ends[-1] - clock.started, "wait": sum(clock.waits),
        "later_wait": sum(clock.waits[1:]), "later_seconds": clock.ends[-1] - clock.ends[1],
        "losses": [line["loss"] for line in trainer.state.log_history if "loss" in line],
        "tokens": tokens, "learned": sum(int(row.loss_mask[1:].sum()) for row in samples),
        "padding": 0.0 if packed else 1 - tokens / cells_,
        "cpu": clock.last_cpu - clock.cpu + sum(os.times()[2:4]),  # the last: of the loaders
    }  # fmt: skip


def one_side(side: str, name: str, options: dict[str, str]) -> dict[str, Any]:
    """What one process finds."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = options["data"]
        if side.endswith("text"):
            rows = int(SIZES.get(name, {}).get("batch_rows", "1")) * int(options["steps"])
            data = text_only(data, folder / "text", rows)
        config = config_of(name, data, options)
        torch.set_num_threads(config.threads)
        if side.startswith("ours"):
            found = ours(config, folder)
        else:
            found = theirs(config, folder, trl=side.startswith("trl"), packed=side == "trl_text",
                           batch=int(options["batch"]))  # fmt: skip
    memory = peak_memory(World(0, 1, torch.device("cpu"), "one"))
    return found | {"memory": memory}


def table(name: str, options: dict[str, str]) -> None:
    """All sides of one configuration."""
    config = config_of(name, options["data"], options)
    steps = batches(config)
    print(f"\n{name}: {sum(map(len, steps))} samples in {len(steps)} steps of "
          f"{config.batch_rows} packed rows; {config.threads} thread(s) of PyTorch\n"
          "\n| | seconds | CPU s | tokens/s | learned/s | padding | "
          "data wait, after step 1 | peak GB | loss |\n|" + "---|" * 9, flush=True)  # fmt: skip
    runs = {}
    for side, words in SIDES.items():
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.training"]
        pairs = [f"{key}={value}" for key, value in (options | {"configs": name}).items()]
        done = subprocess.run(
            [*command, *pairs, f"only={side}"], capture_output=True, text=True, check=False,
            cwd=Path(__file__).parent.parent,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{name}, {side}:\n{done.stdout}{done.stderr}")
        run = runs[side] = json.loads(done.stdout.strip().splitlines()[-1])
        later = run["later_wait"] / run["later_seconds"] if run["later_seconds"] else 0.0
        print(f"| {words} | {run['seconds']:.1f} | {run['cpu']:.1f} | "
              f"{run['tokens'] / run['seconds']:,.0f} | {run['learned'] / run['seconds']:,.1f} | "
              f"{run['padding']:.0%} | {run['wait'] / run['seconds']:.1%}, {later:.1%} | "
              f"{run['memory']:.2f} | {run['losses'][-1]:.4f} |", flush=True)  # fmt: skip
    speed = {side: run["learned"] / run["seconds"] for side, run in runs.items()}
    work = {side: run["learned"] / run["cpu"] for side, run in runs.items()}
    apart = max(
        abs(a - b) for side in ("padded", "trl")
        for a, b in zip(runs["ours"]["losses"], runs[side]["losses"], strict=True)
    )  # fmt: skip
    for what, of in (("s", speed), ("CPU s", work)):
        print(f"\nLearned tokens a {what}: {of['ours'] / of['padded']:.2f} times "
              f"transformers.Trainer padded, {of['ours'] / of['trl']:.2f} times TRL padded, "
              f"{of['ours_text'] / of['trl_text']:.2f} times TRL packed on text.")  # fmt: skip
    print("\nThe losses of ours and both padded runs differ by at most "
          f"{apart:.1e} at any step: the same loss takes the same steps,\n"
          "and the ratios are those of the time to it.")  # fmt: skip


def main(arguments: list[str]) -> None:
    options = DEFAULTS | split_pairs(arguments)
    if options["only"]:
        print(json.dumps(one_side(options["only"], options["configs"], options)))
        return
    for name in options["configs"].split(","):
        table(name, options)


if __name__ == "__main__":
    main(sys.argv[1:])
