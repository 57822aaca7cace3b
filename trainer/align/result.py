"""The checkpoint that comes out of an alignment: as those of training, with its own page."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from tokenization.inference import save_processing, unsaid
from trainer.align.settings import Align, to_yaml
from trainer.checkpoint import ARRIVING, folder_name, said_encoding
from trainer.data import integrity
from trainer.data.shards import Mixture
from trainer.model import layout
from trainer.model.smolvlm import count_parameters
from trainer.monitoring.card import data_lines, header, use_lines
from trainer.saving import share
from trainer.state import State

SETTINGS = "align.yaml"
"""Of trainer/: what the checkpoint was aligned with."""


def write(
    run: Path,
    *,
    model: Any,
    tokenizer: Any,
    mixture: Mixture,
    state: State,
    settings: Align,
    before: dict[str, float],
) -> Path:
    """The checkpoint RUN/step-N, whole; returns its folder."""
    final = run / folder_name(state.step)
    arriving = run / f"{ARRIVING}{final.name}"
    shutil.rmtree(arriving, ignore_errors=True)
    inner = arriving / "trainer"
    inner.mkdir(parents=True)
    model.to(getattr(torch, settings.save_dtype)).save_pretrained(arriving)
    encoding = said_encoding(state, tokenizer)
    save_processing(tokenizer, arriving, encoding=encoding)
    layout.write_configs(arriving, dtype=settings.save_dtype)
    words = list(unsaid(encoding))
    page = card(settings, state, mixture, count_parameters(model), words, before=before)
    (arriving / "README.md").write_text(page)
    (inner / SETTINGS).write_text(to_yaml(settings))
    (inner / "state.json").write_text(json.dumps(dataclasses.asdict(state), indent=2) + "\n")
    share(arriving)
    integrity.write_list(arriving)
    arriving.rename(final)
    return final


def card(
    settings: Align,
    state: State,
    mixture: Mixture,
    parameters: dict[str, int],
    words: list[str],
    *,
    before: dict[str, float],
) -> str:
    """README.md, with the hub's header; `words`: what no file says of how it is to be asked."""
    stages = [
        *state.history,
        {"step": state.step, "tokens": state.tokens, "mixtures": state.mixtures},
    ]
    how = {
        "dpo": "pairs of answers, by TRL's DPOTrainer with the losses "
        + ", ".join(f"{name} {weight:g}" for name, weight in settings.losses.items()),
        "grpo": "its own answers, by TRL's GRPOTrainer; reward: the metric "
        f"{settings.metric} against the gold answers",
    }[settings.method]
    measured = [
        f"| {name} | {before.get(name, float('nan')):.4f} | {value:.4f} |"
        for name, value in sorted(state.metrics.items())
    ]
    lines = [
        "---",
        *header(settings.license, state),
        "---",
        "",
        f"# {settings.name} after {state.step} steps",
        "",
        f"A SmolVLM of {sum(parameters.values()):,} parameters, aligned on {how} (beta "
        f"{settings.beta:g}, learning rate {settings.lr:g}, {settings.batch} a step), from "
        f"`{Path(settings.init).name or settings.init}`.",
        "",
        "## Data",
        "",
        *data_lines(stages, [mixture]),
        "",
        "## Measured",
        "",
        *(
            ["| on held-out rows | before | after |", "|---|---|---|", *measured]
            if measured
            else ["Nothing was measured: the mixture has no rows to hold out."]
        ),
        "",
        "## Use",
        "",
        *(
            ["Prompts as they were trained:", "", *(f"- {each}" for each in words), ""]
            * bool(words)
        ),
        *use_lines(),
    ]
    return "\n".join(lines)
