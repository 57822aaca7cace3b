"""Mixtures of the ratios that are tried: built by the pipelines in a process of their own.

    ratios --python -m pipelines build--> OUTPUT/mixtures/<hash of the ratios>/ --facts_of--> Facts

The trainer imports nothing of the pipelines. What was read for one mixture is there for the next
(`work`), so that another ratio costs picking and packing.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

UNITS = {"tokens": "tokens", "samples": "samples", "learned_tokens": "learned_tokens"}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a finished mixture says of its components."""

    ratios: dict[str, float]
    most: dict[str, float]
    """The largest ratio that the component's supply and max_epochs allow at this size, estimated
    where not all of it was read."""
    supply: dict[str, float]
    """Units of one epoch."""
    val_samples: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Kitchen:
    """Where mixtures are made, of what, how large."""

    mixture: str
    output: Path
    work: str
    overrides: tuple[str, ...]
    """Of the mixture, for all: `tokens=...`, `val_fraction=...`."""

    def build(self, ratios: Mapping[str, float] | None) -> Path:
        """The finished mixture of these ratios (None: its own); made once.

        Raises ValueError, with what the build says, where it cannot be.
        """
        words = [f"components.{name}.ratio={share!r}" for name, share in (ratios or {}).items()]
        key = hashlib.sha256("\n".join([self.mixture, *self.overrides, *words]).encode())
        name = key.hexdigest()[:12] if ratios else "prior"
        folder = self.output / "mixtures" / name
        if (folder / "recipe.json").is_file() and ratios:
            return folder
        command = [
            sys.executable, "-m", "pipelines", "build", f"mixture={self.mixture}",
            f"output={folder}", f"work={self.work}", "quiet=true", *self.overrides, *words,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip())[-3000:]
            which = f"ratios {dict(ratios)}" if ratios else "its own ratios"
            raise ValueError(f"search: the mixture cannot be built with {which}: {said}")
        return folder


def facts_of(folder: Path, *, tokens: int) -> Facts:
    """What the mixture in the folder says; ValueError where its ratios follow a schedule."""
    recipe = json.loads((folder / "recipe.json").read_text())
    stats = json.loads((folder / "stats.json").read_text())
    stated = recipe["mixture"]["components"]
    for name, component in stated.items():
        if component.get("schedule"):
            raise ValueError(
                f"search: the ratio of {name} is a schedule; expected constant ratios to start "
                f"from, for instance components.{name}.ratio={component['ratio']:g}."
            )
    unit = UNITS[recipe["mixture"]["measure"]]
    whole = sum(stats["components"][name][unit] for name in stated)
    supply, most = {}, {}
    for name, component in stated.items():
        account, reading = stats["components"][name], stats["reading"].get(name, {})
        mean = account[unit] / max(account["samples"], 1)
        kept = account["train_kept"] / max(account["kept"], 1)
        could = max(float(reading.get("supply") or 0) * kept, account["train_kept"])
        supply[name] = could * mean
        size = whole * tokens / max(stats["train"]["tokens"], 1)
        most[name] = min(1.0, 0.97 * supply[name] * component["max_epochs"] / size)
    return Facts(
        ratios={name: component["ratio"] for name, component in stated.items()},
        most=most,
        supply=supply,
        val_samples=_val_samples(folder),
    )


def _val_samples(folder: Path) -> dict[str, int]:
    """Component -> its samples in the val shards."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found: dict[str, int] = {}
    with pa.ipc.open_file(pa.memory_map(str(folder / "index.arrow"))) as reader:
        for number in range(reader.num_record_batches):
            batch = pa.Table.from_batches([reader.get_batch(number)])
            used = batch.filter(
                pc.and_(pc.equal(batch["split"], "val"), pc.greater(batch["copies"], 0))
            )
            for name in used["component"].to_pylist():
                found[name] = found.get(name, 0) + 1
    return found


def proposal_yaml(kitchen: Kitchen, ratios: Mapping[str, float], *, why: str) -> str:
    """A mixture file: the base and what differs, its ratios."""
    import yaml

    base: str = kitchen.mixture
    file = Path(base)
    if file.is_file():
        own: dict[str, Any] = yaml.safe_load(file.read_text()) or {}
        base = str(file.resolve())
        if "base" in own:
            base = str((kitchen.output / "mixtures" / "prior" / "mixture.yaml").resolve())
    said = {"base": base, "components": {n: {"ratio": share} for n, share in ratios.items()}}
    lines = "".join(f"# {line}\n" for line in why.splitlines())
    return lines + yaml.safe_dump(said, sort_keys=False)
