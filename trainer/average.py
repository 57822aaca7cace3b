"""`python -m trainer average RUN last=5`: the mean of a run's last checkpoints as one checkpoint.

The mean of the last weights of a run often scores better than each of them (Izmailov et al. 2018,
arXiv 1803.05407; of checkpoints: Kaddour 2022, arXiv 2209.14981). It can be evaluated, published
and started from like any other; a run is never resumed from it.
"""

import dataclasses
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from tokenization.command_line import Answer
from trainer import checkpoint
from trainer.arguments import did_you_mean, local_path, split_pairs
from trainer.checkpoint import ARRIVING
from trainer.data import integrity
from trainer.saving import share

NOT_AVERAGED = re.compile(r"\.safetensors|\.pt$|^trainer/optimizer|^trainer/files\.json$")
"""Of a checkpoint's files: those that the mean has anew, or not at all."""
OPTIONS = {"last": "5", "output": ""}


def average_command(arguments: Sequence[str]) -> Answer:
    """`average RUN ...`: the checkpoint."""
    if not arguments or "=" in arguments[0]:
        raise ValueError("average: expected a run: python -m trainer average RUN last=5")
    pairs = split_pairs(arguments[1:])
    for key in pairs:
        if key not in OPTIONS:
            raise ValueError(f"average: unknown key '{key}'. {did_you_mean(key, list(OPTIONS))}")
    options = OPTIONS | pairs
    if not options["last"].isdigit() or int(options["last"]) < 2:
        raise ValueError(f"average: last={options['last']}: expected a whole number above 1.")
    made = average(Path(arguments[0]), last=int(options["last"]), output=options["output"])
    return Answer(f"checkpoint {made}", checkpoint.as_data(made))


def average(run: Path, *, last: int, output: str = "") -> Path:
    """A checkpoint whose weights are the mean of the run's `last` newest ones."""
    folders = checkpoint.checkpoint_folders(run)[-last:]
    if len(folders) < last:
        raise ValueError(
            f"average: {run} holds {len(folders)} checkpoints, last={last}. Keep more of them "
            f"(keep_last={last}, and save_every lower), or set last lower."
        )
    steps = [checkpoint.read_state(folder).step for folder in folders]
    mean = run / f"average-{steps[0]:06d}-{steps[-1]:06d}"
    final = local_path(output, "output") if output else mean
    if final.exists():
        raise ValueError(f"average: {final} is there already. Remove it, or name another output=.")
    return weighted(folders, [1 / last] * last, output=final)


def weighted(folders: Sequence[Path], shares: Sequence[float], *, output: Path) -> Path:
    """The checkpoint `output`, whose weights are those of these times their shares, summed."""
    final, steps = output, [checkpoint.read_state(folder).step for folder in folders]
    mean: dict[str, torch.Tensor] = {}
    for folder, part in zip(folders, shares, strict=True):
        for name, weight in checkpoint.load_weights(folder).items():
            share = weight.float() * part
            mean[name] = mean[name] + share if name in mean else share
    final.parent.mkdir(parents=True, exist_ok=True)
    arriving = final.with_name(f"{ARRIVING}{final.name}")
    shutil.rmtree(arriving, ignore_errors=True)
    _write(arriving, folders[-1], mean, steps)
    arriving.rename(final)
    return final


def _write(folder: Path, newest: Path, weights: dict[str, torch.Tensor], steps: list[int]) -> None:
    from safetensors.torch import load_file, save_file

    for name in integrity.files_of(newest):
        if not (NOT_AVERAGED.search(str(name))):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(newest / name, folder / name)
    (first, *_) = sorted(newest.glob("*.safetensors"))
    dtypes = {name: tensor.dtype for name, tensor in load_file(first).items()}
    kind = next(iter(dtypes.values()))
    save_file(
        {name: weight.to(dtypes.get(name, kind)).contiguous() for name, weight in weights.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    state = dataclasses.replace(checkpoint.read_state(newest), metrics={}, measured_at=-1)
    (folder / "trainer" / "state.json").write_text(
        json.dumps(dataclasses.asdict(state) | {"averaged": steps}, indent=2) + "\n"
    )
    card = (folder / "README.md").read_text()
    said = f"Its weights are the mean of those after {', '.join(map(str, steps))} steps."
    head, measured, _ = card.partition("## Measured")
    use = "## Use" + card.partition("## Use")[2]
    (folder / "README.md").write_text(
        f"{head}{measured}\n\nNothing was measured of the mean. {said}\n\n{use}"
    )
    share(folder)
    integrity.write_list(folder)
