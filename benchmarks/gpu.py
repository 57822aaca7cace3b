"""This trainer beside others on one GPU: tokens/s, MFU, data wait, peak memory, in nine minutes.

    python -m benchmarks.gpu [models=256m,500m,2b2] [minutes=9] [steps=6] [batch=4] [compile=false]
    python -m benchmarks.gpu device=cpu models=tiny steps=2

Nothing is downloaded: weights are random, and a mixture is made of JPEG of about a megapixel with
a question each (two in three samples) and of texts, with the crops and tokens of the model's size.
All train the same samples in bfloat16 with their layers' activations checkpointed:

| side      | what                                                                              |
|-----------|-----------------------------------------------------------------------------------|
| ours      | packed rows, as `python -m trainer` trains them                                   |
| padded    | `transformers.Trainer`, `group_by_length`, one loader process a core, pinned      |
| trl       | TRL's `SFTTrainer` on the same batches                                            |
| nanovlm   | samples laid into `seq_len` by nanoVLM's knapsack, one mask, no isolation, padded |
| ours_text | packed rows of the samples without images                                         |
| trl_text  | TRL's packing (bfd) of the same; it refuses images                                |

Then the head and its loss alone, ours beside Liger's and others: `benchmarks.cross_entropy`.

Each side is a process of its own. The first step (kernels, caches) is not counted; tokens are those
of samples, never padding. MFU divides the operations that training needs (`smolvlm.flops`; what
frozen towers spare and what checkpointing computes again do not count) by the card's peak.
"""

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import cross_entropy
from benchmarks.made.photographs import mixture
from benchmarks.training import padded, samples_of, text_only
from tokenization.schema import Encoding
from trainer import optim, parallel
from trainer.arguments import split_pairs
from trainer.config import Config
from trainer.config_file import load
from trainer.data.batches import Loader, cores
from trainer.data.shards import Row, Rows, open_mixture
from trainer.model import initial
from trainer.model.smolvlm import Objective, flops, passes, random_model
from trainer.monitoring.devices import peak_tflops
from trainer.monitoring.watch import peak_memory
from trainer.step import forward_backward

DEFAULTS = {
    "models": "256m,500m,2b2", "minutes": "9", "steps": "6", "batch": "4", "batch_rows": "8",
    "compile": "false", "device": "cuda", "peak_tflops": "0", "freeze": "[]", "only": "",
    "data": "",
}  # fmt: skip
SIDES = {
    "ours": "ours, packed", "padded": "transformers.Trainer, padded, grouped by length",
    "trl": "TRL, padded, grouped by length", "nanovlm": "nanoVLM-like packing",
    "ours_text": "text: ours, packed", "trl_text": "text: TRL, packed (bfd)",
}  # fmt: skip
ENCODINGS = {
    "256m": {"crop_size": 512, "longest_edge": 2048, "tokens_per_crop": 64},
    "500m": {"crop_size": 512, "longest_edge": 2048, "tokens_per_crop": 64},
    "2b2": {"crop_size": 384, "longest_edge": 1536, "tokens_per_crop": 81},
    "tiny": {"crop_size": 64, "longest_edge": 256, "tokens_per_crop": 16, "seq_len": 1024},
}
SMALL_LOSS = {"tokens": "512", "chunk": "128", "repeats": "1"}
"""Of `benchmarks.cross_entropy`, on a CPU."""
WARM_UP = 1
"""Steps that are not counted."""
KNAPSACKS_SPARE = 5
"""Bins that nanoVLM opens beyond the fewest that could hold all."""


@dataclass(frozen=True)
class Timed:
    """One step: how long it took and waited, and what it trained on."""

    seconds: float
    waited: float
    tokens: int
    learned: int
    flops: float


def rates(steps: Sequence[Timed], *, peak: float) -> dict[str, float]:
    """What the counted steps come to; `peak` in operations a second, 0: not known."""
    counted = steps[WARM_UP:] or steps
    seconds = sum(step.seconds for step in counted)
    done = sum(step.flops for step in counted) / seconds
    return {
        "tokens": sum(step.tokens for step in counted) / seconds,
        "learned": sum(step.learned for step in counted) / seconds,
        "wait": sum(step.waited for step in counted) / seconds,
        "tflops": done / 1e12,
        "mfu": done / peak if peak else float("nan"),
    }


def knapsacks(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """As nanoVLM balances: the longest first into the bin that holds least and has room."""
    bins: list[list[int]] = [[] for _ in range(-(-sum(lengths) // capacity) + KNAPSACKS_SPARE)]
    loads = [0] * len(bins)
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        which = min(range(len(bins)), key=loads.__getitem__)
        if loads[which] + lengths[i] > capacity:
            bins.append([])
            loads.append(0)
            which = len(bins) - 1
        bins[which].append(i)
        loads[which] += lengths[i]
    return [each for each in bins if each]


def config_of(model: str, data: str, options: dict[str, str]) -> Config:
    """The model's published sizes with random weights; one constant rate, activations kept low."""
    pairs = {
        "data": data, "steps": options["steps"], "batch_rows": options["batch_rows"],
        "micro_rows": "1", "device": options["device"], "compile": options["compile"],
        "optim.schedule": "constant", "optim.warmup": "0", "optim.freeze": options["freeze"],
        "model.vision.pretrained": "", "model.language.pretrained": "",
        "gradient_checkpointing": "both", "parallel": "auto", "peak_tflops": options["peak_tflops"],
    }  # fmt: skip
    return load("tiny" if model == "tiny" else f"smolvlm_{model}", pairs)


def model_on(config: Config, tokenizer: Any, device: torch.device) -> Any:
    """Random weights, made where they are used."""
    with device:
        model = random_model(config.model, tokenizer, seed=config.seed)
    optim.freeze(model, config.optim.freeze)
    return model.to(device)


def operations(config: Config, rows: Sequence[Row]) -> float:
    """Of training on these rows once."""
    lengths = np.concatenate([row.seq_lengths for row in rows]).astype(np.int64)
    return float(
        flops(
            config.model, tokens=lengths.sum(), pairs=(lengths**2).sum(),
            crops=sum(row.num_crops for row in rows),
            learned=sum(int(row.loss_mask.sum()) for row in rows),
            passes=passes(config.optim.freeze, adapted=False),
        )
    )  # fmt: skip


def ours(config: Config) -> list[Timed]:
    """The steps of `python -m trainer`, without what it writes."""
    mixtures = [open_mixture(folder) for folder in config.data]
    tokenizer = initial.tokenizer_of(mixtures)
    made = []
    with parallel.processes(config) as world:
        model = model_on(config, tokenizer, world.device)
        initial.prepare_model(model, config, world.device)
        objective = Objective(model, logits_chunk=config.logits_chunk, neftune=0.0)
        called = parallel.wrap(objective, world, config)
        optimizer = optim.optimizer(objective, config.optim)
        work = passes(config.optim.freeze, adapted=False)
        loader = Loader(
            config, image_token=tokenizer.convert_tokens_to_ids("<image>"),
            cost=partial(flops, config.model, passes=work), pin=world.device.type == "cuda",
        )  # fmt: skip
        optim.set_rates(optimizer, 1.0)
        before = time.perf_counter()
        for plan, batches in loader.steps(0, config.steps):
            result = forward_backward(called, plan, batches, config, world, sigterm=[])
            assert result is not None
            optim.clip_gradients(optimizer, config.optim.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if world.device.type == "cuda":
                torch.cuda.synchronize()
            now = time.perf_counter()
            made.append(
                Timed(now - before, result.waited, result.tokens, result.num_learned, result.flops)
            )
            before = now
    return made


def joined(rows: Sequence[Row]) -> Row:
    """Samples end to end as one, nothing between them."""
    first = rows[0]
    ids = np.concatenate([row.input_ids for row in rows])
    return dataclasses.replace(
        first, input_ids=ids, loss_mask=np.concatenate([row.loss_mask for row in rows]),
        seq_lengths=np.array([len(ids)], dtype=np.int32),
        images=[image for row in rows for image in row.images],
        grids=[each for row in rows for each in row.grids],
        sample_ids=[name for row in rows for name in row.sample_ids],
    )  # fmt: skip


def theirs(config: Config, folder: Path, *, side: str, batch: int) -> list[Timed]:
    """`transformers.Trainer`, or TRL's on top of it, over the same samples."""
    # Longer than a screen: a peer's whole set-up, to be compared with its documentation.
    from datasets import Dataset
    from transformers import Trainer, TrainerCallback, TrainingArguments

    data = open_mixture(next(iter(config.data)))
    tokenizer = initial.tokenizer_of([data])
    split = Rows(data, "train")
    rows = [split[n] for n in range(min(len(split), config.steps * config.batch_rows))]
    alone = [sample for row in rows for sample in samples_of(row)]
    if side == "nanovlm":
        packs = knapsacks([len(row.input_ids) for row in alone], data.encoding.seq_len)
        alone, batch = [joined([alone[i] for i in pack]) for pack in packs], 1
    cuda = config.device == "cuda"
    settings: dict[str, Any] = {
        "output_dir": str(folder), "per_device_train_batch_size": batch, "num_train_epochs": 1,
        "gradient_accumulation_steps": max(1, len(alone) // batch // config.steps),
        "learning_rate": 1e-4, "lr_scheduler_type": "constant", "max_grad_norm": 1.0,
        "report_to": [], "save_strategy": "no", "remove_unused_columns": False,
        "disable_tqdm": True, "logging_strategy": "no", "use_cpu": not cuda, "bf16": cuda,
        "dataloader_pin_memory": cuda, "dataloader_num_workers": cores() if cuda else 0,
        "gradient_checkpointing": True, "train_sampling_strategy": "group_by_length",
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
    }  # fmt: skip
    kind: Any = Trainer
    arguments: Any = TrainingArguments
    extra: dict[str, Any] = {}
    if side.startswith("trl"):
        from trl import SFTConfig, SFTTrainer

        kind, arguments, extra = SFTTrainer, SFTConfig, {"processing_class": tokenizer}
        settings |= {"max_length": data.encoding.seq_len}
    width = data.encoding.seq_len if side == "nanovlm" else 0
    if side == "trl_text":
        cells = [
            {"input_ids": row.input_ids.tolist(),
             "labels": np.where(row.loss_mask, row.input_ids, -100).tolist()}
            for row in alone
        ]  # fmt: skip
        dataset, collator = Dataset.from_list(cells), None
        settings |= {"packing": True, "remove_unused_columns": True, "gradient_accumulation_steps":
                     config.batch_rows, "per_device_train_batch_size": 1,
                     "train_sampling_strategy": "random"}  # fmt: skip
    else:
        lengths = [len(row.input_ids) for row in alone]
        dataset = Dataset.from_dict({"number": list(range(len(alone))), "length": lengths})
        collator = lambda chosen: padded(
            [alone[each["number"]] for each in chosen], tokenizer.pad_token_id, width=width
        )
        if side == "trl":
            settings["dataset_kwargs"] = {"skip_prepare_dataset": True}

    class Clock(TrainerCallback):
        begins: list[float] = []  # noqa: RUF012 - one clock
        ends: list[float] = []  # noqa: RUF012

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.begins.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if cuda:
                torch.cuda.synchronize()
            self.ends.append(time.perf_counter())

    model = model_on(config, tokenizer, torch.device(config.device))
    model.set_attn_implementation("sdpa")
    clock = Clock()
    trainer = kind(
        model=model, args=arguments(**settings), train_dataset=dataset, callbacks=[clock], **extra,
        **({"data_collator": collator} if collator else {}),
    )  # fmt: skip
    began = time.perf_counter()
    trainer.train()
    return list(shared_out(config, alone, began, clock.begins, clock.ends))


def shared_out(
    config: Config,
    rows: Sequence[Row],
    began: float,
    begins: Sequence[float],
    ends: Sequence[float],
) -> Iterator[Timed]:
    """The samples' cost spread evenly over steps that each take as many (to one)."""
    share = 1 / len(ends)
    tokens = sum(len(row.input_ids) for row in rows)
    learned = sum(int(row.loss_mask.sum()) for row in rows)
    done = operations(config, rows)
    for start, begin, end in zip([began, *ends], begins, ends, strict=False):
        yield Timed(end - start, begin - start, round(tokens * share), round(learned * share),
                    done * share)  # fmt: skip


def one_side(side: str, model: str, options: dict[str, str]) -> dict[str, Any]:
    """What one process finds."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, data = Path(temporary), options["data"]
        if side.endswith("text"):
            rows = int(options["steps"]) * int(options["batch_rows"])
            data = text_only(data, folder / "text", rows)
        config = config_of(model, data, options)
        if side.startswith("ours"):
            steps = ours(config)
        else:
            steps = theirs(config, folder / "run", side=side, batch=int(options["batch"]))
    device = torch.device(config.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    peak = (config.peak_tflops or peak_tflops(name)) * 1e12
    world = parallel.World(0, 1, device, "one")
    return rates(steps, peak=peak) | {"memory": peak_memory(world), "steps": len(steps)}


def table(model: str, options: dict[str, str], *, until: float) -> dict[str, dict[str, Any]]:
    """All sides of one model; prints a line each, and the sides that the time did not allow."""
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        encoding = Encoding(**{"max_crops": 128} | ENCODINGS[model])  # type: ignore[arg-type]
        rows = int(options["steps"]) * int(options["batch_rows"])
        data = str(mixture(Path(temporary) / "photographs", encoding, rows))
        print(f"\n{model}\n\n| | tokens/s | learned/s | TFLOPS | MFU | data wait | peak GB |\n"
              "|" + "---|" * 7, flush=True)  # fmt: skip
        for side, words in SIDES.items():
            pairs = {**options, "models": model, "only": side, "data": data}
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu",
                       *(f"{key}={value}" for key, value in pairs.items())]  # fmt: skip
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False,
                                      timeout=max(1.0, until - time.monotonic()),
                                      cwd=Path(__file__).parents[1])  # fmt: skip
            except subprocess.TimeoutExpired:
                print(f"| {words} | out of time |" + " |" * 5, flush=True)
                continue
            if done.returncode:
                said = (done.stderr or done.stdout).strip().splitlines()
                print(f"| {words} | failed: {said[-1] if said else done.returncode} |" + " |" * 5,
                      flush=True)  # fmt: skip
                continue
            run = found[side] = json.loads(done.stdout.strip().splitlines()[-1])
            print(f"| {words} | {run['tokens']:,.0f} | {run['learned']:,.0f} | "
                  f"{run['tflops']:.1f} | {run['mfu']:.1%} | {run['wait']:.1%} | "
                  f"{run['memory']:.1f} |", flush=True)  # fmt: skip
    for ours_, others in (("ours", ("padded", "trl", "nanovlm")), ("ours_text", ("trl_text",))):
        for other in others:
            if ours_ in found and other in found:
                times = found[ours_]["tokens"] / found[other]["tokens"]
                print(f"{SIDES[ours_]}: {times:.2f} times {SIDES[other]}")
    return found


def main(arguments: list[str]) -> None:
    options = DEFAULTS | split_pairs(arguments)
    if options["only"]:
        print(json.dumps(one_side(options["only"], options["models"], options)))
        return
    if options["device"] == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            "error: this PyTorch finds no CUDA device. Its form for a CPU: "
            "python -m benchmarks.gpu device=cpu models=tiny steps=2"
        )
    until = time.monotonic() + 60 * float(options["minutes"])
    card = torch.cuda.get_device_name() if options["device"] == "cuda" else "CPU"
    import transformers

    print(f"{card}; {cores()} cores; PyTorch {torch.__version__}, transformers "
          f"{transformers.__version__}; {options}")  # fmt: skip
    for model in options["models"].split(","):
        table(model, options, until=until)
        if time.monotonic() < until:
            small = {} if options["device"] == "cuda" else SMALL_LOSS
            cross_entropy.table(model, {**cross_entropy.DEFAULTS, **small, **options})


if __name__ == "__main__":
    main(sys.argv[1:])
