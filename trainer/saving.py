"""Checkpoints are written beside the training, each appearing whole or not at all.

```
the step ends --snapshot--> copies on the CPU --a thread--> files under another name --flush,
                   |                                                            rename--> the folder
                   +-- training goes on
```

Until the files are written the copies are held: 12 bytes of host memory for each trained weight in
float32 (itself and two moments), 4 for each frozen one. With FSDP the first process holds all
weights and each its share of the moments. `async_save=false` waits instead; what the copies need is
then needed for as long as writing takes.
"""

import dataclasses
import json
import os
import shutil
import stat
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn

from tokenization.inference import save_processing, unsaid
from tokenization.schema import Encoding
from trainer import parallel
from trainer.checkpoint import (
    ARRIVING,
    EXACT,
    UNMERGED,
    checkpoint_folders,
    claim,
    folder_name,
    said_encoding,
)
from trainer.config import Config
from trainer.config_file import to_yaml
from trainer.data import integrity
from trainer.data.shards import Mixture
from trainer.model import adapter, layout
from trainer.monitoring.card import card
from trainer.parallel import World
from trainer.state import State

HEAD, EMBEDDINGS = "lm_head.weight", "model.text_model.embed_tokens.weight"


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint is made of; training on changes nothing of it."""

    state: State
    weights: dict[str, torch.Tensor]
    """By name, as they are trained; of the first process alone, like the card."""
    optimizer: dict[str, Any]
    card: str


class Saver:
    """Writes the checkpoints of a run, one at a time; every rank has one. Leaving `with` waits.

    An error of the writing is raised where it is next looked for: `check`, `save`, `record`.
    """

    def __init__(
        self,
        run: Path,
        objective: nn.Module,
        optimizer: torch.optim.Optimizer,
        tokenizer: Any,
        mixtures: list[Mixture],
        config: Config,
        world: World,
    ) -> None:
        self.run, self.objective, self.optimizer = run, objective, optimizer
        self.tokenizer, self.mixtures = tokenizer, mixtures
        self.config, self.world = config, world
        self.pool = ThreadPoolExecutor(1, "save")
        self.writing: Future[None] | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.wait()
        except Exception as failed:
            if error is None:
                raise
            error.add_note(" ".join([f"Beside this: {failed!r}", *failed.__notes__]))
        finally:
            self.pool.shutdown()

    def save(self, state: State) -> Path:
        """The folder of the checkpoint of `state.step`, which is whole once `wait` returns.

        One that is there already is this one: a run goes on from its newest. All ranks call this.
        """
        self.wait()
        final = self.run / folder_name(state.step)
        if not final.exists():
            encoding = said_encoding(state, self.tokenizer)
            taken = self._snapshot(state, encoding, final)
            self.writing = self.pool.submit(self._write, taken, encoding, final)
            if not self.config.async_save:
                self.wait()
        return final

    def check(self) -> None:
        """Raises what the writing met, if it has ended; waits for nothing."""
        if self.writing is not None and self.writing.done():
            self.wait()

    def wait(self) -> None:
        """What `save` began is whole on the disk, or its error is raised."""
        if self.writing is not None:
            writing, self.writing = self.writing, None
            writing.result()

    def record(self, folder: Path, state: State) -> None:
        """The checkpoint states what was measured of it; RUN/best is the best so far."""
        self.wait()
        if not self.world.first:
            return
        for name, text in (
            ("README.md", self._card(state)),
            ("trainer/state.json", _json(state)),
        ):
            fresh = self.run / f"{ARRIVING}{Path(name).name}"
            fresh.write_text(text)
            fresh.replace(folder / name)
        point_best(self.run, state)
        prune(self.run, state, keep_last=self.config.keep_last)

    def _card(self, state: State) -> str:
        return card(self.config, state, self.mixtures, self.objective.model)

    def _snapshot(self, state: State, encoding: Encoding, final: Path) -> Snapshot:
        text = self._card(state) if self.world.first else ""
        if self.world.first:
            _refuse_silence(text, encoding, final)
        return Snapshot(
            state,
            weights=copied_weights(self.objective, self.world),
            optimizer=copied_optimizer(self.objective, self.optimizer, self.world),
            card=text,
        )

    @torch.no_grad()  # which counts for one thread
    def _write(self, taken: Snapshot, encoding: Encoding, final: Path) -> None:
        """In the thread: what ranks have to agree on goes by a group of its own."""
        try:
            arriving = self.run / f"{ARRIVING}{final.name}"
            if self.world.first:
                if arriving.exists():
                    shutil.rmtree(arriving)
                self._write_model(taken, encoding, arriving)
            parallel.barrier(self.world, self.world.writers)
            save_optimizer(arriving / "trainer", taken.optimizer, self.world)
            parallel.barrier(self.world, self.world.writers)
            if self.world.first:
                share(arriving)
                integrity.write_list(arriving)
                _flush(arriving)
                arriving.rename(final)
                _flush_folder(self.run)
                prune(self.run, taken.state, keep_last=self.config.keep_last)
            parallel.barrier(self.world, self.world.writers)
        except Exception as error:
            whole = checkpoint_folders(self.run)
            error.add_note(
                f"{final} was not written. The same command goes on "
                + (f"from {whole[-1]}." if whole else "from the beginning.")
            )
            raise

    def _write_model(self, taken: Snapshot, encoding: Encoding, arriving: Path) -> None:
        model: Any = self.objective.model
        config, weights = self.config, taken.weights
        inner = arriving / "trainer"
        inner.mkdir(parents=True)
        published = _cast(adapter.merged_weights(model, weights), model, config.save_dtype)
        model.save_pretrained(arriving, state_dict=published)
        save_processing(self.tokenizer, arriving, encoding=encoding)
        layout.write_configs(arriving, dtype=config.save_dtype)
        (arriving / "README.md").write_text(taken.card)
        (inner / "config.yaml").write_text(to_yaml(config))
        (inner / "state.json").write_text(_json(taken.state))
        if config.adapter.rank or config.save_dtype != "float32":
            torch.save(weights, inner / (UNMERGED if config.adapter.rank else EXACT))


def copied_weights(objective: nn.Module, world: World) -> dict[str, torch.Tensor]:
    """The weights as they are now, whole, on the CPU; empty on all ranks but the first."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    model: Any = objective.model
    weights: dict[str, torch.Tensor] = {}
    if world.kind == "fsdp":
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        gathered: dict[str, Any] = get_model_state_dict(objective, options=options)
        weights = {name.removeprefix("model."): weight for name, weight in gathered.items()}
    elif world.first:
        weights = model.state_dict()
    if world.kind != "fsdp" or world.ranks == 1:  # else they were gathered into new memory
        weights = {name: _copy(weight) for name, weight in weights.items()}
    if weights and model.config.tie_word_embeddings:  # one tensor, as it is known to be
        weights[HEAD] = weights[EMBEDDINGS]
    return weights


def copied_optimizer(
    objective: nn.Module, optimizer: torch.optim.Optimizer, world: World
) -> dict[str, Any]:
    """The optimizer's state as it is now, on the CPU: each rank's share of it under FSDP, else all
    of it on the first.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict
    from torch.utils._pytree import tree_map_only

    options = StateDictOptions(full_state_dict=world.kind != "fsdp", cpu_offload=True)
    state = get_optimizer_state_dict(objective, optimizer, options=options)
    if world.device.type == "cpu":  # where coming to the CPU copied nothing
        state = tree_map_only(torch.Tensor, torch.clone, state)
    return state


def save_optimizer(folder: Path, state: dict[str, Any], world: World) -> None:
    """The optimizer's state lies in `folder`: one file, or under FSDP one of each rank."""
    if world.kind == "fsdp":
        from torch.distributed import checkpoint as dcp

        where = str(folder / "optimizer")
        dcp.save({"optimizer": state}, checkpoint_id=where, process_group=world.writers)
    elif world.first:
        torch.save(state, folder / "optimizer.pt")


def _copy(weight: torch.Tensor) -> torch.Tensor:
    return weight.detach().to("cpu", copy=True)


def _cast(weights: dict[str, torch.Tensor], model: Any, dtype: str) -> dict[str, torch.Tensor]:
    if dtype == "float32":
        return weights
    if model.config.tie_word_embeddings:  # a copy is no longer seen to be shared
        weights = {name: w for name, w in weights.items() if name != HEAD}
    kind = getattr(torch, dtype)
    return {name: w.to(kind) if w.is_floating_point() else w for name, w in weights.items()}


def _refuse_silence(card: str, encoding: Encoding, where: Path) -> None:
    """Raises ValueError where the card leaves out what the processor's files cannot say."""
    for words in unsaid(encoding):
        if words not in card:
            raise ValueError(
                f"{where}: not saved, since nobody would know of it: the card does not say "
                f"{words!r}. Expected every sentence of tokenization.inference.unsaid in it."
            )


def _json(state: State) -> str:
    return json.dumps(dataclasses.asdict(state), indent=2) + "\n"


def clean(run: Path, state: State, world: World) -> None:
    """The run's folder exists, holds nothing half-written, and `best` is what `state` says.

    Raises:
        ValueError: it is no run's folder.
    """
    claim(run)
    if world.first:
        run.mkdir(parents=True, exist_ok=True)
        for leftover in run.glob(f"{ARRIVING}*"):
            remove(leftover)
        point_best(run, state)
    parallel.barrier(world)


def remove(path: Path) -> None:
    """The file, link or folder is gone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def share(folder: Path) -> None:
    """Every file has the rights that the user's umask gives (safetensors gives the owner alone)."""
    rights = stat.S_IMODE((folder / "README.md").stat().st_mode)
    for file in _files(folder):
        file.chmod(rights)


def point_best(run: Path, state: State) -> None:
    """`RUN/best` links to the best checkpoint, where there is one."""
    if not state.best or not (run / folder_name(state.best["step"])).is_dir():
        return
    fresh = run / f"{ARRIVING}best"
    remove(fresh)
    fresh.symlink_to(folder_name(state.best["step"]))
    fresh.replace(run / "best")


def prune(run: Path, state: State, *, keep_last: int) -> None:
    """Only the newest `keep_last` checkpoints and the best one are left (0: all)."""
    best = folder_name(state.best["step"]) if state.best else ""
    for folder in checkpoint_folders(run)[:-keep_last] if keep_last else ():
        if folder.name != best:
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
