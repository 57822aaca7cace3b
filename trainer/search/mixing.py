"""Mixtures of the ratios that are tried: what each says of supply, and how a proposal is written.

    ratios --python -m pipelines build--> TRIALS/mixtures/<hash of what determines it>/ --> Facts

What was read for one mixture is there for the next (`work`), so that another ratio costs picking
and packing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from trainer.ablation.building import mixture_key, pipelines
from trainer.ablation.runs import write_json
from trainer.search.space import Ratio

UNITS = {"tokens": "tokens", "samples": "samples", "learned_tokens": "learned_tokens"}
CERTAIN = 0.97
"""Of a supply that was estimated, as not all was read: the part that is counted on."""
HOW = ("workers", "ray", "quiet")
"""Words of a build that change nothing of what is built."""
OF_THE_MIXTURE = ("components.", "encoding.", "filters.", "limits.")
"""Words of a build that a proposal keeps; others (tokens, val_fraction) are of the trials alone."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a finished mixture says of its components."""

    ratios: dict[str, float]
    most: dict[str, float]
    """The largest ratio that the component's supply, the weights of its subsets and max_epochs
    allow at this size, estimated where not all of it was read."""
    supply: dict[str, float]
    """Units of one epoch."""


@dataclass(frozen=True, kw_only=True)
class Kitchen:
    """Where mixtures are made, of what, how large."""

    mixture: str
    trials: Path
    """Its `mixtures` are made."""
    work: str
    """Of the pipelines: what was read."""
    overrides: tuple[str, ...]
    """Of the mixture, for all: `val_fraction=...`."""

    def build(self, ratios: Mapping[str, Ratio] | None, *, tokens: int) -> Path:
        """The finished mixture of these ratios (None: its own) and so many tokens; made once.

        Raises ValueError, with what the build says, where it cannot be.
        """
        shares = {
            f"components.{name}.ratio": json.dumps(stated(share))
            for name, share in (ratios or {}).items()
        }
        words = {"tokens": str(tokens)} | dict(word.split("=", 1) for word in self.overrides)
        words |= shares
        key = mixture_key(self.mixture, {k: v for k, v in words.items() if k not in HOW})
        folder = self.trials / "mixtures" / key
        place = {"mixture": self.mixture, "output": str(folder), "work": self.work}
        if ratios:
            self.trials.joinpath("mixtures").mkdir(parents=True, exist_ok=True)
            write_json(asked_file(folder), dict(ratios))
        try:
            pipelines("build", place | {"quiet": "true", "report": "false"} | words)
        except ValueError as error:
            which = f"ratios {dict(ratios)}" if ratios else "its own ratios"
            raise ValueError(
                f"search: the mixture cannot be built with {which}: {error}"
            ) from error
        return folder


def stated(share: Ratio) -> Ratio | list[list[float]]:
    """A ratio as a mixture's file has it: a number, or the points of a schedule of steps."""
    if not isinstance(share, list) or len(set(share)) == 1:
        return share[0] if isinstance(share, list) else share
    ends = [n / len(share) for n in range(len(share) + 1)]
    return [[round(end, 6), each] for n, each in enumerate(share) for end in (ends[n], ends[n + 1])]


def asked_file(folder: Path) -> Path:
    """Beside a trial's mixture: the ratios of all components of its search, those of 0 as well."""
    return folder.with_name(f"{folder.name}-ratios.json")


def facts_of(folder: Path, *, tokens: int, stages: int) -> Facts:
    """What the mixture in the folder says, of supply for so many tokens; ValueError where its
    ratios follow a schedule, or cannot.
    """
    recipe = json.loads((folder / "recipe.json").read_text())
    stats = json.loads((folder / "stats.json").read_text())
    stated = recipe["mixture"]["components"]
    for name, component in stated.items():
        if component.get("schedule"):
            raise ValueError(
                f"search: the ratio of {name} is a schedule; expected constant ratios to start "
                f"from, for instance components.{name}.ratio={component['ratio']:g}."
            )
    if stages > 1 and recipe["mixture"]["on_shortage"] == "redistribute":
        raise ValueError(
            "search: stages= searches schedules, and the mixture says on_shortage: redistribute, "
            "after which none holds.\nway out: on_shortage: error, or shrink."
        )
    unit = UNITS[recipe["mixture"]["measure"]]
    whole = sum(stats["components"][name][unit] for name in stated)
    size = whole * tokens / max(stats["train"]["tokens"], 1)
    supply, most = {}, {}
    for name, component in stated.items():
        subsets = supplies(stats["components"][name], stats["reading"].get(name, {}), unit)
        supply[name] = sum(subsets.values())
        most[name] = min(1.0, CERTAIN * most_units(component, subsets) / size)
    return Facts(
        ratios={name: component["ratio"] for name, component in stated.items()},
        most=most,
        supply=supply,
    )


def supplies(account: Mapping[str, Any], reading: Mapping[str, Any], unit: str) -> dict[str, float]:
    """Units of one epoch of every subset of a component, on the train side."""
    usual = account[unit] / max(account["samples"], 1)
    found = {}
    for name, own in account["subsets"].items():
        mean = own[unit] / own["samples"] if own["samples"] else usual
        kept = own["train_kept"] / max(own["kept"], 1)
        there = float(reading.get("subsets", {}).get(name, {}).get("supply") or 0)
        found[name] = max(there * kept, own["train_kept"]) * mean
    return found


def most_units(component: Mapping[str, Any], subsets: Mapping[str, float]) -> float:
    """What a component can give: no subset beyond its epochs, their shares as weights say (as
    supply does, where none is stated).
    """
    settings = {name: component["subsets"].get(name) or {} for name in subsets}
    stated = {name: own.get("weight") for name, own in settings.items()}
    if any(each is not None for each in stated.values()):
        weights = {name: 1.0 if each is None else float(each) for name, each in stated.items()}
    else:
        weights = dict(subsets)
    whole = sum(weights.values())
    can = []
    for name, own in settings.items():
        epochs = own.get("max_epochs")
        epochs = component["max_epochs"] if epochs is None else epochs
        if weights[name] > 0:
            can.append(subsets[name] * epochs * whole / weights[name])
    return min(can, default=0.0)


def proposal_yaml(
    mixture: str, overrides: tuple[str, ...], ratios: Mapping[str, Ratio], *, why: str
) -> str:
    """A mixture file: what it is based on and what differs, its ratios. A file that has a base
    itself is written out on that base; words that changed the mixture are kept.
    """
    from omegaconf import OmegaConf

    file = Path(mixture)
    own: dict[str, Any] = (yaml.safe_load(file.read_text()) or {}) if file.is_file() else {}
    said = own if "base" in own else {"base": mixture}
    if Path(said["base"]).is_file():
        said["base"] = str(Path(said["base"]).resolve())
    kept = [word for word in overrides if word.startswith(OF_THE_MIXTURE)]
    more = OmegaConf.to_container(OmegaConf.from_dotlist(kept), resolve=False)
    shares = {"components": {name: {"ratio": stated(r)} for name, r in ratios.items()}}
    whole = _laid_over(_laid_over(said, more), shares)
    lines = "".join(f"# {line}\n" for line in why.splitlines())
    return lines + yaml.safe_dump(whole, sort_keys=False, allow_unicode=True)


def _laid_over(below: Mapping[Any, Any], above: Any) -> dict[Any, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = _laid_over(merged[key], value) if both else value
    return merged
