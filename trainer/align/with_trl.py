"""TRL trains: the one file that knows it.

    PAIRS     --ids, crops of the trainer--> DPOTrainer   reference log-probabilities computed once,
                                                          so that no reference model is held
    QUESTIONS --messages, images-----------> GRPOTrainer  answers sampled, scored by a metric

Both ways the weights are the model's own when it returns; what TRL logs goes to RUN/log.jsonl.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tokenization.schema import Encoding
from tokenization.terminal import log
from trainer.align.settings import Align
from trainer.arguments import did_you_mean
from trainer.evaluation.answer import pixels_of
from trainer.evaluation.metrics import METRICS
from trainer.parallel import uses_cuda

STATES = "checkpoint-*"
"""Of TRL's own states, from which a run goes on."""
KEPT = ("loss", "rewards/margins", "rewards/accuracies", "reward", "kl", "completions/mean_length")
"""What is said of a step; RUN/log.jsonl has all that TRL logs."""


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """What came of it."""

    steps: int
    tokens: int
    """As TRL counts them."""
    before: dict[str, float]
    """Measured on held-out rows; empty where there are none."""
    after: dict[str, float]


def require_trl() -> None:
    """Raises ValueError where TRL is not installed."""
    try:
        import trl  # noqa: F401
    except ImportError as error:
        raise ValueError("align needs TRL: pip install 'smolvlm-pipelines[align]'.") from error


def first_alone() -> Any:
    """A context that the first process leaves before the others enter."""
    from accelerate import PartialState

    return PartialState().main_process_first()


def is_first() -> bool:
    """Whether this process writes files."""
    from accelerate import PartialState

    return bool(PartialState().is_main_process)


def processes() -> int:
    """How many train together."""
    from accelerate import PartialState

    return int(PartialState().num_processes)


def align(
    settings: Align,
    *,
    model: Any,
    tokenizer: Any,
    processor: Any,
    encoding: Encoding,
    train: Path,
    held_out: Path | None,
    run: Path,
) -> Aligned:
    """The model is trained; said again, from the newest of TRL's states in RUN/trl.

    `train`, `held_out`: files of PAIRS or QUESTIONS. `processor`: of questions alone.
    """
    import datasets
    from transformers import PrinterCallback

    datasets.disable_progress_bars()
    rows = datasets.Dataset.from_file(str(train))
    held = datasets.Dataset.from_file(str(held_out)) if held_out is not None else None
    arguments = common(settings, run=run, held=held is not None)
    if settings.method == "dpo":
        trainer = dpo(settings, model, tokenizer, encoding, rows, held, arguments)
    else:
        trainer = grpo(settings, model, processor, rows, held, arguments)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(logging_to(run / "log.jsonl"))
    states = sorted((run / "trl").glob(STATES), key=lambda p: int(p.name.rpartition("-")[2]))
    before = measured(trainer) if held is not None else {}
    trainer.train(resume_from_checkpoint=str(states[-1]) if states else None)
    after = measured(trainer) if held is not None else {}
    logged = [line["num_tokens"] for line in trainer.state.log_history if "num_tokens" in line]
    return Aligned(
        steps=trainer.state.global_step,
        tokens=int(max(logged, default=0)),
        before=before,
        after=after,
    )


def common(settings: Align, *, run: Path, held: bool) -> dict[str, Any]:
    """What both of TRL's configs are given."""
    cuda = uses_cuda(settings.device)
    at_once = settings.micro * processes()
    if settings.batch % at_once:
        raise ValueError(
            f"align: batch is {settings.batch}, micro times the processes {at_once}: expected a "
            "multiple of it."
        )
    half = settings.precision == "bfloat16" or (settings.precision == "auto" and cuda)
    return {
        "output_dir": str(run / "trl"),
        "learning_rate": settings.lr,
        "lr_scheduler_type": settings.schedule,
        "warmup_steps": settings.warmup,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "num_train_epochs": settings.epochs,
        "max_steps": settings.steps or -1,
        "per_device_train_batch_size": settings.micro,
        "per_device_eval_batch_size": settings.micro,
        "gradient_accumulation_steps": settings.batch // at_once,
        "activation_checkpointing": settings.gradient_checkpointing,
        "seed": settings.seed,
        "beta": settings.beta,
        "bf16": half,
        "use_cpu": not cuda,
        "save_strategy": "steps" if settings.save_every else "no",
        "save_steps": settings.save_every or 500,
        "save_total_limit": 1,
        "logging_steps": settings.log_every,
        "logging_first_step": True,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": cuda,
        "ddp_find_unused_parameters": True,  # a batch of text gives the vision tower no gradient
    }


def configured(kind: type, settings: Align, arguments: dict[str, Any]) -> Any:
    """TRL's config of these arguments and the further ones of `trl:`."""
    known = [field.name for field in dataclasses.fields(kind)]
    for key in settings.trl:
        if key not in known:
            hint = did_you_mean(key, known)
            raise ValueError(f"align: trl.{key}: unknown to TRL's {kind.__name__}. {hint}")
    return kind(**arguments, **settings.trl)


def dpo(
    settings: Align,
    model: Any,
    tokenizer: Any,
    encoding: Encoding,
    rows: Any,
    held: Any,
    arguments: dict[str, Any],
) -> Any:
    """TRL's trainer of pairs."""
    from trl import DPOConfig, DPOTrainer

    class OfIds(DPOTrainer):  # type: ignore[misc]
        """DPOTrainer whose rows are ids already: those of the shards."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    config = configured(
        DPOConfig,
        settings,
        {
            **arguments,
            "loss_type": list(settings.losses),
            "loss_weights": list(settings.losses.values()),
            "max_length": None,
            "precompute_ref_log_probs": True,
        },
    )
    return OfIds(
        model=model,
        args=config,
        train_dataset=rows,
        eval_dataset=held,
        processing_class=tokenizer,
        data_collator=collator(encoding, pad=tokenizer.pad_token_id),
    )


def collator(encoding: Encoding, *, pad: int) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    """Rows of PAIRS -> TRL's batch: all chosen sequences, then all rejected ones, [2B, T]."""

    def batch_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
        both = [(row["prompt_ids"], row[f"{kind}_ids"]) for kind in ("chosen", "rejected")
                for row in rows]  # fmt: skip
        width = max(len(prompt) + len(answer) for prompt, answer in both)
        ids = torch.full((len(both), width), pad, dtype=torch.int64)
        attended, answered = torch.zeros_like(ids), torch.zeros_like(ids)
        for n, (prompt, answer) in enumerate(both):
            end = len(prompt) + len(answer)
            ids[n, :end] = torch.tensor([*prompt, *answer])
            attended[n, :end] = 1
            answered[n, len(prompt) : end] = 1
        batch = {"input_ids": ids, "attention_mask": attended, "completion_mask": answered}
        grids = [[(cell["rows"], cell["cols"]) for cell in row["grids"]] for row in rows]
        images = [row["encoded"] for row in rows]
        pixels = pixels_of(images, grids, encoding=encoding, dtype=torch.float32)
        if pixels is not None:
            batch["pixel_values"] = torch.cat([pixels, pixels])
        for name in ("ref_chosen_logps", "ref_rejected_logps"):
            if name in rows[0]:
                batch[name] = torch.tensor([row[name] for row in rows])
        return batch

    return batch_of


def grpo(
    settings: Align, model: Any, processor: Any, rows: Any, held: Any, arguments: dict[str, Any]
) -> Any:
    """TRL's trainer by rewards."""
    from trl import GRPOConfig, GRPOTrainer

    score = METRICS[settings.metric]

    def reward(completions: Sequence[Any], gold: Sequence[str], **_: Any) -> list[float]:
        """How right each answer is."""
        return [
            score(said(each), [right], {}) for each, right in zip(completions, gold, strict=True)
        ]

    at_once = settings.micro * settings.generations
    config = configured(
        GRPOConfig,
        settings,
        {
            **arguments,
            "per_device_train_batch_size": at_once,
            "per_device_eval_batch_size": at_once,
            "num_generations": settings.generations,
            "max_completion_length": settings.max_new_tokens,
            "temperature": settings.temperature,
        },
    )
    return GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=config,
        train_dataset=rows,
        eval_dataset=held,
        processing_class=processor,
    )


def said(completion: Any) -> str:
    """The text of a completion, which TRL gives as messages or as text."""
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content)


def measured(trainer: Any) -> dict[str, float]:
    """What TRL measures on the held-out rows, its speeds left out."""
    found = trainer.evaluate()
    return {
        key.removeprefix("eval_"): float(value)
        for key, value in found.items()
        if key.startswith("eval_") and not key.endswith(("_runtime", "_per_second"))
    }


def logging_to(file: Path) -> Any:
    """A callback that appends what TRL logs, and says the numbers of KEPT."""
    from transformers import TrainerCallback

    class Logging(TrainerCallback):
        """Of the first process."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            """One line."""
            if not state.is_world_process_zero:
                return
            with file.open("a") as lines:
                lines.write(json.dumps({"step": state.global_step, **logs}) + "\n")
            shown = [f"{name} {float(logs[name]):.4f}" for name in KEPT if name in logs]
            if shown:
                log(f"step {state.global_step} of {state.max_steps}: {', '.join(shown)}")

    return Logging()
