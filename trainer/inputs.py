"""What a run reads, opened before its first step: what is wrong with it costs no training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.arguments import local_path
from trainer.config import Config
from trainer.data.shards import Mixture, Rows, refuse_mismatch
from trainer.evaluation import generations, held_out, selection
from trainer.evaluation.benchmark import Case
from trainer.evaluation.generations import ShownSample
from trainer.model import initial, published


@dataclass(frozen=True)
class Inputs:
    """All that a run reads besides the weights that it starts from."""

    mixtures: list[Mixture]
    tokenizer: Any
    image_token: int
    held_out: list[Rows]
    """The val rows of each mixture."""
    components: dict[str, str]
    """Of sample ids to names: `held_out.components`."""
    questions: dict[str, list[Case]]
    """Of the benchmarks of `select`."""
    shown: list[ShownSample]
    """Val samples that the model answers for RUN/run.html."""
    notes: list[str]
    """For the user, before the first step."""


def open_inputs(config: Config, mixtures: list[Mixture], *, resumed: bool) -> Inputs:
    """Everything that the run will read; ValueError or FileNotFoundError says what is wrong."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # its bars would run through the lines of the log
    tokenizer = initial.tokenizer_of(mixtures)
    for mixture in mixtures:
        refuse_mismatch(config, mixture, vocabulary=len(tokenizer))
    notes = []
    if config.init and not resumed:
        notes = published.check_init(config, mixtures, tokenizer)
    components: dict[str, str] = {}
    for mixture in mixtures:
        components.update(held_out.components(mixture))
    return Inputs(
        mixtures=mixtures,
        tokenizer=tokenizer,
        image_token=tokenizer.convert_tokens_to_ids("<image>"),
        held_out=[Rows(mixture, "val") for mixture in mixtures],
        components=components,
        questions=selection.open_selection(config),
        shown=generations.choose_samples(mixtures, tokenizer, count=config.page_samples),
        notes=notes,
    )


def run_folder(config: Config, mixtures: Sequence[Mixture]) -> Path:
    """Where this run lives."""
    name = "+".join(mixture.name for mixture in mixtures)
    return local_path(config.output or f"out/runs/{config.name}-{name}", "output")
