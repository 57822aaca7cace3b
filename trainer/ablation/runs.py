"""Runs with identity: what determines a training is a fingerprint, and its folder is called so.

```
config (its mixtures finished, its seed set) --plan_run--> Run --train_run--> RUNS/<fingerprint>/
                                                            |
               val rows of a mixture that judges --judge_run--> {sample id: SampleScore}
```

| in the run's folder          | is                                                             |
|------------------------------|----------------------------------------------------------------|
| step-N, log.jsonl, run.html  | the run, as `python -m trainer` writes it                      |
| run.json                     | its identity, its last checkpoint, its cost; written at the end |
| judged-FINGERPRINT.json      | losses of the held-out samples of the mixture of that name     |
| cpu_seconds.json             | what a run that is not finished has taken so far               |

A run that is killed goes on from its newest checkpoint and ends the same; one with a run.json is
never trained again, whatever asks for it: an ablation, a search, another arm of the same settings.
"""

import dataclasses
import hashlib
import json
import math
import resource
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenization.command_line import as_json
from trainer import checkpoint
from trainer.config import MAY_CHANGE, Config
from trainer.data import integrity
from trainer.data.shards import Mixture, Rows, open_mixture, open_mixtures

VERSION = 1
"""Of training: bumped where the same settings and shards give other weights."""
ENDS = ("steps", "epochs", "patience", "stop_at")
"""Fields that may change when a run goes on, but determine what it ends with."""


@dataclass(frozen=True)
class Run:
    """A training that is determined; `folder` holds it, or will."""

    config: Config
    identity: dict[str, Any]
    """What the fingerprint is of."""
    fingerprint: str

    @property
    def folder(self) -> Path:
        """Of the run, in the folder that was given for all."""
        return Path(self.config.output)


@dataclass(frozen=True)
class Cost:
    """What a run took, as measured; over all times that it was started and ended by itself."""

    tokens: int
    learned_tokens: int
    seconds: float
    """Of training steps."""
    cpu_seconds: float
    """Of this process and those it waited for; a kill loses those of that time."""
    devices: int = 1
    device: str = "CPU"


@dataclass(frozen=True)
class SampleScore:
    """A held-out sample: its component, the sum of its losses, its learned tokens."""

    component: str
    loss: float
    tokens: int


def plan_run(config: Config, runs: Path) -> Run:
    """The run of these settings, in a folder of `runs`; its mixtures are finished.

    Not part of its identity: where and how fast it runs (`MAY_CHANGE`), what the mixtures are
    called and where they lie.
    """
    settings = {
        key: value
        for key, value in dataclasses.asdict(config).items()
        if key not in (*MAY_CHANGE, "data", "init") or key in ENDS
    }
    if config.patience:  # which looks at every evaluation
        settings |= {"evaluate_every": config.evaluate_every, "select": str(config.select)}
    identity = {
        "version": VERSION,
        "mixtures": [
            [mixture.fingerprint, weight]
            for mixture, weight in zip(open_mixtures(config), config.data.values(), strict=True)
        ],
        "init": _start(config.init),
        "settings": settings,
    }
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Run(
        dataclasses.replace(config, output=str(runs / fingerprint)), json.loads(text), fingerprint
    )


def _start(init: str) -> str:
    """A checkpoint by its contents, one of the hub by its name and revision."""
    folder = Path(init)
    if not init or not folder.is_dir():
        return init
    files = checkpoint.resolve_checkpoint(folder) / integrity.LIST
    return integrity.sha256_of(files) if files.is_file() else init


def finished(run: Run) -> Path | None:
    """The last checkpoint of the run, where it is finished."""
    file = run.folder / "run.json"
    return run.folder / json.loads(file.read_text())["checkpoint"] if file.is_file() else None


def train_run(run: Run, train: Callable[[Config], Path], *, devices: int = 1) -> Path:
    """The last checkpoint of the run, which is trained by `train` unless it is finished."""
    standing = finished(run)
    if standing:
        return standing
    before = _cpu_seconds()
    spent = run.folder / "cpu_seconds.json"
    try:
        last = train(run.config)
    finally:
        if run.folder.is_dir():
            earlier = json.loads(spent.read_text()) if spent.is_file() else 0.0
            write_json(spent, earlier + _cpu_seconds() - before)
    state = checkpoint.read_state(last)
    cost = Cost(
        tokens=state.tokens, learned_tokens=state.learned_tokens, seconds=state.seconds,
        cpu_seconds=json.loads(spent.read_text()), devices=devices, device=_device(run.config),
    )  # fmt: skip
    write_json(
        run.folder / "run.json",
        {"fingerprint": run.fingerprint, "identity": run.identity, "checkpoint": last.name,
         "step": state.step, "cost": dataclasses.asdict(cost)},
    )  # fmt: skip
    spent.unlink()
    return last


def cost_of(run: Run) -> Cost:
    """What the finished run took."""
    return Cost(**json.loads((run.folder / "run.json").read_text())["cost"])


def judge_run(run: Run, judge: Mixture) -> dict[str, SampleScore]:
    """The losses of the finished run on the val samples of `judge`, by id; computed once."""
    file = run.folder / f"judged-2-{judge.fingerprint[:16]}.json"
    if not file.is_file():
        from trainer.ablation.judging import sample_scores

        last = finished(run)
        assert last is not None
        found = sample_scores(run.config, last, judge)
        write_json(file, {name: dataclasses.astuple(score) for name, score in found.items()})
    return {
        name: SampleScore(component, math.nan if loss is None else loss, tokens)
        for name, (component, loss, tokens) in json.loads(file.read_text()).items()
    }


def held_out_losses(
    scores: Mapping[str, SampleScore], ids: Iterable[str] | None = None
) -> dict[str, float]:
    """Mean loss per learned token of these samples (all, where no ids are given): `all`, and
    `component/NAME` of each. As `held_out` of the log, but of whole samples that are chosen.
    """
    sums: dict[str, list[float]] = {}
    for name in scores if ids is None else ids:
        score = scores[name]
        for key in ("all", f"component/{score.component}"):
            total = sums.setdefault(key, [0.0, 0.0])
            total[0] += score.loss
            total[1] += score.tokens
    return {name: loss / tokens for name, (loss, tokens) in sorted(sums.items()) if tokens}


def sample_ids(mixture: str, split: str) -> set[str]:
    """Ids of all samples of a finished mixture's split: `train`, or `val`, which is held out."""
    rows = Rows(open_mixture(mixture), split)
    return {name for number in range(len(rows)) for name in rows[number].sample_ids}


def _cpu_seconds() -> float:
    own, children = (
        resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _device(config: Config) -> str:
    import torch

    cuda = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    return torch.cuda.get_device_name() if cuda else "CPU"


def write_json(file: Path, value: Any) -> None:
    """The file holds the value as JSON, whole or not at all; null where a number is not finite."""
    arriving = file.with_name(f"{checkpoint.ARRIVING}{file.name}")
    arriving.write_text(json.dumps(as_json(value), indent=1, allow_nan=False) + "\n")
    arriving.replace(file)
