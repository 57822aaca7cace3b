"""Checkpoints: a folder that `transformers` loads, and beside it what resuming needs.

```
RUN/step-000100/  config.json model.safetensors generation_config.json README.md
                  tokenizer.json tokenizer_config.json chat_template.jinja
                  preprocessor_config.json processor_config.json video_preprocessor_config.json
                  trainer/  state.json config.yaml optimizer.pt (optimizer/, sharded, under FSDP)
RUN/best          a link to the checkpoint that is best so far
RUN/log.jsonl     one line per logged step
RUN/run.html      the run to look at: curves, and what the model says to val samples
```

A checkpoint appears whole or not at all: written under another name, flushed to disk, renamed.
There is no state of random generators: each step seeds them from (seed, step, rank).
"""

import dataclasses
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tokenization.inference import save_processing, unsaid
from tokenization.schema import Encoding
from trainer import parallel
from trainer.config import Config, to_yaml
from trainer.model import adapter
from trainer.parallel import World

ARRIVING = ".arriving-"


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a run stands."""

    step: int = 0
    position: int = 0
    """Rows of the global order that have been trained on."""
    tokens: int = 0
    learned_tokens: int = 0
    seconds: float = 0.0
    mixtures: list[dict[str, Any]] = field(default_factory=list)
    """Per mixture of this run: name, fingerprint, weight."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """The stages before this run: their mixtures, steps and tokens."""
    metrics: dict[str, float] = field(default_factory=dict)
    encoding: dict[str, Any] = field(default_factory=dict)
    """Of the shards: how prompts and crops are made."""
    best: dict[str, float] = field(default_factory=dict)
    """`step` and `value` of the best checkpoint so far."""


def checkpoint_folders(run: Path) -> list[Path]:
    """The finished checkpoints of a run, oldest first."""
    return sorted(p for p in run.glob("step-*") if p.is_dir() and (p / "config.json").is_file())


def resolve_checkpoint(path: Path) -> Path:
    """A checkpoint folder, from itself or from its run (the newest then)."""
    if (path / "config.json").is_file():
        return path
    if path.is_dir() and checkpoint_folders(path):
        return checkpoint_folders(path)[-1]
    raise FileNotFoundError(
        f"{path}: neither a checkpoint (a folder with config.json) nor a run that holds one "
        "(step-000100/...). Train one: python -m trainer config=tiny data=out/quickstart"
    )


def read_state(checkpoint: Path) -> State:
    """The state beside a checkpoint of ours."""
    file = checkpoint / "trainer" / "state.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"{checkpoint}: no trainer/state.json, so this trainer did not write it."
        )
    written = json.loads(file.read_text())
    known = {f.name for f in dataclasses.fields(State)}
    return State(**{key: value for key, value in written.items() if key in known})


def encoding_of(state: State) -> Encoding:
    """How the checkpoint's training data was encoded."""
    return Encoding(**state.encoding)


def remove_unfinished(run: Path) -> None:
    """No half-written checkpoint is left in the run."""
    for leftover in run.glob(f"{ARRIVING}*"):
        shutil.rmtree(leftover)


def said_encoding(state: State, tokenizer: Any) -> Encoding:
    """The encoding of the training data, its tokenizer by a name that this machine can open."""
    encoding = encoding_of(state)
    if encoding.tokenizer == "builtin":
        return encoding
    return dataclasses.replace(encoding, tokenizer=tokenizer.name_or_path)


def _refuse_silence(card: str, encoding: Encoding, where: Path) -> None:
    """Raises ValueError where the card leaves out what the processor's files cannot say."""
    for words in unsaid(encoding):
        if words not in card:
            raise ValueError(
                f"{where}: not saved, since nobody would know of it: the card does not say "
                f"{words!r}. Expected every sentence of tokenization.inference.unsaid in it."
            )


def save(
    run: Path,
    state: State,
    *,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    tokenizer: Any,
    config: Config,
    card: str,
    here: World,
) -> Path:
    """The finished checkpoint folder of `state.step`. All ranks call this.

    ValueError where `card` leaves out what other programs have to know.
    """
    final = run / f"step-{state.step:06d}"
    encoding = said_encoding(state, tokenizer)
    _refuse_silence(card, encoding, final)
    arriving = run / f"{ARRIVING}{final.name}"
    model, weights = _weights(objective, here)
    if here.first:
        run.mkdir(parents=True, exist_ok=True)
        if arriving.exists():
            shutil.rmtree(arriving)
        (arriving / "trainer").mkdir(parents=True)
        model.save_pretrained(arriving, state_dict=adapter.merged_weights(model, weights))
        save_processing(tokenizer, arriving, encoding=encoding)
        (arriving / "README.md").write_text(card)
        (arriving / "trainer" / "config.yaml").write_text(to_yaml(config))
        (arriving / "trainer" / "state.json").write_text(
            json.dumps(dataclasses.asdict(state), indent=2) + "\n"
        )
    parallel.barrier(here)
    _save_optimizer(arriving / "trainer", objective, optimizer, here)
    if config.adapter.rank and here.first:
        torch.save(weights, arriving / "trainer" / "unmerged.pt")
    parallel.barrier(here)
    if here.first:
        _flush(arriving)
        if final.exists():
            shutil.rmtree(final)
        arriving.rename(final)
        _flush_folder(run)
    parallel.barrier(here)
    return final


def _weights(objective: nn.Module, here: World) -> tuple[Any, dict[str, torch.Tensor]]:
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    model = objective.model
    if here.kind != "fsdp":
        return model, model.state_dict()  # type: ignore[operator, union-attr]
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    full: dict[str, Any] = get_model_state_dict(objective, options=options)
    weights = {key.removeprefix("model."): value for key, value in full.items()}
    if model.config.tie_word_embeddings:  # type: ignore[union-attr]
        weights.pop("lm_head.weight", None)  # gathered apart, it is no longer seen to be shared
    return model, weights


def _save_optimizer(
    folder: Path, objective: nn.Module, optimizer: torch.optim.Optimizer, here: World
) -> None:
    from torch.distributed import checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    sharded = here.kind == "fsdp"
    options = StateDictOptions(full_state_dict=not sharded, cpu_offload=True)
    state = get_optimizer_state_dict(objective, optimizer, options=options)
    if sharded:
        dcp.save({"optimizer": state}, checkpoint_id=str(folder / "optimizer"))
    elif here.first:
        torch.save(state, folder / "optimizer.pt")


def load_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint folder, by name; tied ones once."""
    from safetensors.torch import load_file

    files = sorted(checkpoint.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{checkpoint}: no *.safetensors in it.")
    weights: dict[str, torch.Tensor] = {}
    for file in files:
        weights.update(load_file(file))
    return weights


def load_optimizer(
    checkpoint: Path, objective: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """The optimizer is as it was when the checkpoint was written, on any number of ranks."""
    from torch.distributed import checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_optimizer_state_dict,
        set_optimizer_state_dict,
    )

    file = checkpoint / "trainer" / "optimizer.pt"
    if file.is_file():
        state = torch.load(file, map_location="cpu", weights_only=True)
        options = StateDictOptions(full_state_dict=True)
        set_optimizer_state_dict(objective, optimizer, state, options=options)
        return
    state = get_optimizer_state_dict(objective, optimizer)
    with warnings.catch_warnings():
        # Reading a sharded state in one process is meant; PyTorch warns that it is done.
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        dcp.load({"optimizer": state}, checkpoint_id=str(checkpoint / "trainer" / "optimizer"))
    set_optimizer_state_dict(objective, optimizer, state)


def point_best(run: Path, checkpoint: Path) -> None:
    """`RUN/best` links to this checkpoint."""
    fresh = run / f"{ARRIVING}best"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(checkpoint.name)
    fresh.replace(run / "best")


def prune(run: Path, *, keep_last: int) -> None:
    """Only the newest `keep_last` checkpoints and the best one are left (0: all)."""
    if not keep_last:
        return
    best = (run / "best").resolve() if (run / "best").is_symlink() else None
    for folder in checkpoint_folders(run)[:-keep_last]:
        if folder.resolve() != best:
            # Renamed first: a folder that is half deleted is no checkpoint any more.
            doomed = run / f"{ARRIVING}removed-{folder.name}"
            folder.rename(doomed)
            shutil.rmtree(doomed)


def _flush(folder: Path) -> None:
    for path in _files(folder):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    _flush_folder(folder)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
