"""Checkpoints as they lie on the disk: a folder that `transformers` loads, and what resuming needs.

```
RUN/step-000100/  config.json model.safetensors generation_config.json README.md
                  tokenizer.json tokenizer_config.json chat_template.jinja
                  preprocessor_config.json processor_config.json video_preprocessor_config.json
                  trainer/  state.json config.yaml optimizer.pt (optimizer/, sharded, under FSDP)
RUN/best          a link to the checkpoint that is best so far
RUN/log.jsonl     one line per logged step
RUN/run.html      the run to look at: curves, and what the model says to val samples
```

They are written by `saving`, and read here. There is no state of random generators: each step seeds
them from (seed, step, rank).
"""

import dataclasses
import json
import re
import shlex
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tokenization.published import CONFIGS, WEIGHTS, fetch, is_hub_id, split_revision
from tokenization.schema import Encoding
from tokenization.terminal import sentence
from trainer.config import Config, changed_fields
from trainer.config_file import load
from trainer.data import integrity
from trainer.data.shards import Mixture
from trainer.state import State

ARRIVING = ".arriving-"
UNMERGED = "unmerged.pt"
"""Of trainer/: the weights with adapters apart, where the checkpoint holds their sum."""
EXACT = "weights.pt"
"""Of trainer/: the weights as they are trained, where the checkpoint holds them rounded."""
OF_A_RUN = re.compile(
    r"step-\d+|damaged-step-\d+|best|average.*|log\.jsonl|run\.html|run\.log|spikes|skipped.*"
    r"|tensorboard|ray|wandb|trackio|evaluations?|\.arriving-.*"
    r"|run\.json|cpu_seconds\.json|(judged|scored)-.+\.json"  # trainer/ablation/runs.py
)
"""What a run's folder holds."""


def checkpoint_folders(run: Path) -> list[Path]:
    """The finished checkpoints of a run, oldest first: by their number, of however many digits."""
    found = [p for p in run.glob("step-*") if p.is_dir() and (p / "config.json").is_file()]
    return sorted((p for p in found if _number(p).isdigit()), key=lambda p: int(_number(p)))


def _number(folder: Path) -> str:
    return folder.name.removeprefix("step-")


def folder_name(step: float) -> str:
    """Of the checkpoint after so many steps."""
    return f"step-{int(step):06d}"


def resolve_checkpoint(path: Path) -> Path:
    """A checkpoint folder, from itself or from its run (the newest then)."""
    if (path / "config.json").is_file():
        return path
    if path.is_dir() and checkpoint_folders(path):
        return checkpoint_folders(path)[-1]
    raise FileNotFoundError(
        f"{path}: neither a checkpoint (a folder with config.json) nor a run that holds one "
        "(step-000100/...).\nway out: train one: python -m trainer config=tiny data=out/quickstart"
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


def as_data(checkpoint: Path) -> dict[str, Any]:
    """What a program asks of a checkpoint: where it is, how far it came, what was measured."""
    state = read_state(checkpoint)
    told = {name: getattr(state, name) for name in ("step", "tokens", "seconds", "metrics")}
    return {"checkpoint": str(checkpoint), "run": str(checkpoint.parent), **told}


def standing(config: Config, mixtures: list[Mixture], newest: Path | None) -> State:
    """Where the run stands, or its beginning; ValueError where settings or data have changed."""
    used = [
        {"name": m.name, "fingerprint": m.fingerprint, "weight": w}
        for m, w in zip(mixtures, config.data.values(), strict=True)
    ]
    if newest is None:
        before = ancestry(config)
        seen = {name for mixture in mixtures for name in datasets(mixture)}
        before["datasets"] = sorted({*before.get("datasets", ()), *seen})
        return State(mixtures=used, encoding=dataclasses.asdict(mixtures[0].encoding), **before)
    state = read_state(newest)
    past = dataclasses.replace(written_config(newest), data=config.data)
    drift = changed_fields(past, config)
    if state.mixtures != used:
        drift.append(f"data: {state.mixtures} -> {used}")
    if drift:
        raise ValueError(
            f"{newest} was trained with other settings:\n  " + "\n  ".join(drift) + "\n"
            "Use these settings again to go on, choose another output=..., or start a new stage "
            f"from it with init={newest} and another output."
        )
    return state


def datasets(mixture: Mixture) -> list[str]:
    """The hub's ids of the data sets in a mixture."""
    sources = mixture.recipe.get("sources", {}).values()
    return sorted({str(source["hub"]) for source in sources if source.get("hub")})


def ancestry(config: Config) -> dict[str, Any]:
    """What the state that a run begins in says of the stages before it."""
    if not config.init:
        backbones = (config.model.language.pretrained, config.model.vision.pretrained)
        return {"base_models": [name for name in backbones if is_hub_id(name)]}
    folder = source_folder(config.init, weights=False)
    if not (folder / "trainer" / "state.json").is_file():
        bases = [split_revision(config.init)[0]] if is_hub_id(config.init) else []
        return {"base_models": bases, "base_license": stated_license(folder)}
    past = read_state(folder)
    kept = ("step", "tokens", "learned_tokens", "mixtures")
    return {
        "history": [*past.history, {key: getattr(past, key) for key in kept}],
        "base_models": past.base_models,
        "base_license": past.base_license,
        "datasets": past.datasets,
    }


def source_folder(init: str, *, weights: bool) -> Path:
    """The folder of `init`: a checkpoint, a run's newest one, or a hub id's files."""
    if is_hub_id(init):
        files = (*CONFIGS, *WEIGHTS) if weights else CONFIGS
        return fetch(init, files=files, where=f"init={init}")
    return resolve_checkpoint(Path(init))


def stated_license(folder: Path) -> str:
    """The licence in the header of a checkpoint's README.md; empty: it states none."""
    file = folder / "README.md"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    header = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    found = re.search(r"^license: *([\w.-]+) *$", header[1], re.MULTILINE) if header else None
    return found[1] if found else ""


def written_config(folder: Path) -> Config:
    """The settings that a checkpoint was trained with."""
    return load(str(folder / "trainer" / "config.yaml"), {})


def encoding_of(state: State) -> Encoding:
    """How the checkpoint's training data was encoded."""
    return Encoding(**state.encoding)


def newest(run: Path) -> Path | None:
    """The checkpoint of the highest number, whole; None where there is none yet.

    Raises:
        ValueError: it is damaged; names the newest whole one and how to go on from it.
    """
    found = [p for p in run.glob("step-*") if p.is_dir() and _number(p).isdigit()]
    found.sort(key=lambda p: int(_number(p)))
    why = integrity.damage(found[-1]) if found else ""
    if not why:
        return found[-1] if found else None
    whole = next((p for p in reversed(found[:-1]) if not integrity.damage(p)), None)
    last = shlex.quote(str(found[-1]))
    aside = f"mv {last} {shlex.quote(str(run / f'damaged-{found[-1].name}'))}"
    raise ValueError(
        f"{found[-1]} is damaged: {sentence(why)} "
        + (
            f"{whole} is whole. To go on from it put the damaged one aside, then say the same "
            f"command again:\n  {aside}"
            if whole
            else "No other checkpoint of this run is whole: put it back from a copy, or start anew "
            f"with another output=; this one aside:\n  {aside}"
        )
    )


def claim(run: Path) -> None:
    """The folder is empty, or a run's; else ValueError says what is in it."""
    strange = sorted(p.name for p in run.glob("*") if not OF_A_RUN.fullmatch(p.name))
    if strange and not any(run.glob("step-*/trainer/state.json")):
        more = f" and {len(strange) - 6} more" if len(strange) > 6 else ""
        raise ValueError(
            f"output={run} is not empty and no run of this trainer: it holds "
            f"{', '.join(strange[:6])}{more}. Nothing was written. Name another with output=DIR."
        )


def said_encoding(state: State, tokenizer: Any) -> Encoding:
    """The encoding of the training data, its tokenizer by a name that this machine can open."""
    encoding = encoding_of(state)
    if encoding.tokenizer == "builtin":
        return encoding
    return dataclasses.replace(encoding, tokenizer=tokenizer.name_or_path)


def load_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint folder, by name, as exact as it holds them; tied ones once."""
    from safetensors.torch import load_file

    exact = checkpoint / "trainer" / EXACT
    if exact.is_file():
        held: dict[str, torch.Tensor] = torch.load(exact, map_location="cpu", weights_only=True)
        return held
    index, whole = checkpoint / "model.safetensors.index.json", checkpoint / "model.safetensors"
    if whole.is_file():
        files = [whole]
    elif index.is_file():
        parts = json.loads(index.read_text())["weight_map"].values()
        files = [checkpoint / name for name in sorted(set(parts))]
    else:
        raise FileNotFoundError(
            f"{checkpoint}: neither model.safetensors nor model.safetensors.index.json in it."
        )
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
