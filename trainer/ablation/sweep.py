"""A sweep's file: arms, each a set of changes of the mixture and of the trainer, times seeds.

```yaml
description: Are the positions of crops better learned than spelled out?
mixture: quickstart                      # of `pipelines build`, or a finished mixture's folder
build: {tokens: 60_000}                  # changes of the mixture in all arms
config: tiny                             # of the trainer, and its changes in all arms
train: {epochs: 4, optim.lr: 3e-3}
seeds: 5                                 # 1 to 5; or a list
baseline: learned
arms:
  learned: {}
  spelled: {build: {encoding.position_tokens: string}}
  other:   {mixture: mine.yaml, train: {optim.schedule: wsd}}
metric: all                              # all, a component of the held-out samples, a benchmark
held_out: quickstart                     # whose val samples judge; default: the baseline's
benchmarks: {vqa: {file: vqa.tsv, metric: exact}}
```
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.ablation.benchmarks import read_benchmarks
from trainer.arguments import did_you_mean
from trainer.config import Benchmark, Config
from trainer.config_file import find_config, load, refuse_interpolation

KEYS = ("description", "mixture", "build", "config", "train", "seeds", "baseline", "arms", "metric",
        "held_out", "benchmarks")  # fmt: skip
ARM_KEYS = ("mixture", "build", "train")
OURS = {"build": ("output", "work", "data", "mixture"), "train": ("data", "output", "seed")}
"""What the sweep itself sets."""
RUN = {"page_samples": "0", "keep_last": "1"}
"""Of every run, unless `train` says otherwise: there may be many."""


@dataclass(frozen=True, kw_only=True)
class MixtureSpec:
    """What `pipelines build` is asked for, or the folder of a finished mixture."""

    mixture: str
    build: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path | None:
        """Of a finished mixture, which needs no building."""
        path = Path(self.mixture)
        return path if (path / "recipe.json").is_file() else None


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One of what is compared."""

    name: str
    mixture: MixtureSpec
    train: Mapping[str, str]
    """Changes of the config; those of all arms are among them."""
    changes: Mapping[str, str]
    """What this arm's lines in the file say."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The whole file."""

    name: str
    description: str
    config: str
    seeds: Sequence[int]
    baseline: Arm
    arms: Sequence[Arm]
    """The baseline first."""
    metric: str
    held_out: MixtureSpec
    benchmarks: Mapping[str, Benchmark]


def read_sweep(path: Path, *, seeds: str = "") -> Sweep:
    """The checked file; `seeds` wins over what it says."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file. Expected a sweep's YAML: docs/ablations.md."
        )
    try:
        written = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OmegaConfBaseException, ValueError) as error:
        raise ValueError(f"{path}: {str(error).splitlines()[0]}") from error
    refuse_interpolation(written, where=str(path))
    said = _section(written, KEYS, where=str(path))
    for key in ("mixture", "config", "arms"):
        if not said.get(key):
            raise ValueError(
                f"{path}: '{key}' is missing. Every sweep needs mixture, config, arms."
            )
    build = _words(said.get("build"), "build", where=f"{path}: build")
    train = _words(said.get("train"), "train", where=f"{path}: train")
    arms = [
        _arm(str(name), lines, str(said["mixture"]), build, train, where=f"{path}: arms.{name}")
        for name, lines in _section(said["arms"], (), where=f"{path}: arms").items()
    ]
    names = [arm.name for arm in arms]
    baseline = str(said.get("baseline") or names[0])
    if baseline not in names:
        raise ValueError(
            f"{path}: baseline '{baseline}' is no arm. {did_you_mean(baseline, names)}"
        )
    arms.sort(key=lambda arm: arm.name != baseline)
    held_out = said.get("held_out")
    sweep = Sweep(
        name=path.stem,
        description=str(said.get("description") or ""),
        config=_config_name(str(said["config"]), path),
        seeds=_seeds(seeds or said.get("seeds", 3), where=f"{path}: seeds"),
        baseline=arms[0],
        arms=arms,
        metric=str(said.get("metric") or "all"),
        held_out=MixtureSpec(mixture=str(held_out)) if held_out else arms[0].mixture,
        benchmarks=read_benchmarks(said.get("benchmarks"), where=f"{path}: benchmarks"),
    )
    _refuse_nonsense(sweep, where=str(path))
    return sweep


def run_config(sweep: Sweep, arm: Arm, *, seed: int, data: Path | str) -> Config:
    """The settings of one run; ValueError names a key that the trainer does not have."""
    words = {**RUN, **arm.train, "data": str(data), "seed": str(seed)}
    try:
        return load(sweep.config, words)
    except ValueError as error:
        raise ValueError(f"arm '{arm.name}', train: {error}") from error


def _section(value: Any, known: Sequence[str], *, where: str) -> dict[str, Any]:
    """A mapping whose keys are all known (any, where none are given)."""
    if not isinstance(value, dict):
        raise ValueError(f"{where}: found {value!r}, expected keys and values.")
    for key in value:
        if known and key not in known:
            raise ValueError(f"{where}: unknown key '{key}'. {did_you_mean(str(key), known)}")
    return {str(key): each for key, each in value.items()}


def _words(value: Any, kind: str, *, where: str) -> dict[str, str]:
    """Dotted keys and their values as on the command line."""
    found = dict(_dotted(_section(value or {}, (), where=where)))
    for key in found:
        if key in OURS[kind]:
            raise ValueError(f"{where}: the sweep itself sets '{key}'. Leave it out.")
    return found


def _dotted(value: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, each in value.items():
        if isinstance(each, dict) and each:
            found += _dotted(each, f"{before}{key}.")
        else:
            found.append((f"{before}{key}", as_word(each)))
    return found


def as_word(value: Any) -> str:
    """A value of YAML as the command line has it."""
    return value if isinstance(value, str) else json.dumps(value)


def _arm(
    name: str, lines: Any, mixture: str, build: dict[str, str], train: dict[str, str], *, where: str
) -> Arm:
    own = _section(lines or {}, ARM_KEYS, where=where)
    changes = {key: _words(own.get(key), key, where=f"{where}.{key}") for key in ("build", "train")}
    spec = MixtureSpec(
        mixture=str(own.get("mixture") or mixture), build={**build, **changes["build"]}
    )
    if spec.folder and spec.build:
        raise ValueError(
            f"{where}: {spec.mixture} is a finished mixture, and build changes "
            f"{', '.join(spec.build)}.\nway out: name the mixture that it was built from."
        )
    said = {**({"mixture": str(own["mixture"])} if own.get("mixture") else {}),
            **changes["build"], **changes["train"]}  # fmt: skip
    return Arm(name=name, mixture=spec, train={**train, **changes["train"]}, changes=said)


def _config_name(name: str, path: Path) -> str:
    """A file beside the sweep, or what `config=` takes."""
    beside = path.parent / name
    found = str(beside) if beside.is_file() else name
    find_config(found)
    return found


def _seeds(value: Any, *, where: str) -> list[int]:
    given = as_word(value).strip()
    text = given.strip("[]")
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdigit() for word in words):
        raise ValueError(
            f"{where}: found {value!r}, expected how many, or a list of whole numbers."
        )
    seeds = [int(word) for word in words]
    if len(seeds) == 1 and not given.startswith("[") and "," not in text:
        seeds = list(range(1, seeds[0] + 1))
    if len(seeds) < 1 or len(set(seeds)) < len(seeds):
        raise ValueError(f"{where}: found {value!r}, expected one or more, each once.")
    return seeds


def _refuse_nonsense(sweep: Sweep, *, where: str) -> None:
    """What can be known without a mixture is said now."""
    if len(sweep.arms) < 2:
        raise ValueError(f"{where}: arms: found one, expected the baseline and another.")
    seen: dict[Any, str] = {}
    for arm in sweep.arms:
        config = run_config(sweep, arm, seed=1, data="unbuilt")
        same = repr((arm.mixture, dataclasses.replace(config, written_by_user=[])))
        if same in seen:
            raise ValueError(
                f"{where}: the arms '{seen[same]}' and '{arm.name}' are one and the same, so every "
                "metric is constant between them.\nway out: change something in one of them."
            )
        seen[same] = arm.name
        if not any(vars(config.optim.lr).values()):
            raise ValueError(f"{where}: arm '{arm.name}': optim.lr is 0: the metrics are constant.")
