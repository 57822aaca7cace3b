"""Runs of earlier searches over other components: what they say of the components that stayed.

    TRIALS/runs, TRIALS/mixtures, the prior --earlier_runs--> runs that count --as_points--> Earlier

A run's identity is its ratios and what it was trained on. A component that was added is at 0 in all
runs before it; one that was removed, or of which anything but its ratio changed, keeps a column of
its own, at 0 in all runs after. So a model is fitted to all of them (as Olmix reuses runs when a
domain is added, arXiv 2602.12237). Runs over the same components are no earlier ones: they are
found by their fingerprints when their ratios come up again.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.ablation.runs import Run
from trainer.search.mixing import asked_file
from trainer.search.space import Ratio, Space

SAME = 1e-3
"""Of a group's proportions: as far apart they are the same."""
NAMES = ("name", "description", "variant_of", "components")
"""Of a mixture: what is no setting of all components."""
WAS = " (was)"
"""After the name of a component that is no more what it was."""


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """Points that are known: columns of the space, and one for each component that is gone."""

    points: np.ndarray
    """[runs, size + gone of every stage]"""
    losses: np.ndarray
    gone: list[str]

    @classmethod
    def none(cls, space: Space) -> "Earlier":
        """Nothing is known."""
        return cls(points=np.zeros((0, space.size)), losses=np.zeros(0), gone=[])

    def padded(self, points: np.ndarray) -> np.ndarray:
        """Points of the space with 0 of all that is gone."""
        more = self.points.shape[1] - points.shape[1]
        return np.pad(points, ((0, 0), (0, more)))


def earlier_runs(trials: Path, like: Run, prior: Path) -> dict[str, tuple[Run, dict[str, Ratio]]]:
    """Fingerprint -> (run, its ratios by component), of finished runs whose settings are those of
    `like`, over mixtures that differ from `prior` in nothing but components and ratios.
    """
    mixtures = {}
    for file in sorted((trials / "mixtures").glob("*/recipe.json")):
        recipe = json.loads(file.read_text())
        if asked_file(file.parent).is_file():
            mixtures[recipe["fingerprint"]] = (file.parent, recipe)
    now = json.loads((prior / "recipe.json").read_text())
    found = {}
    for file in sorted((trials / "runs").glob("*/run.json")):
        identity = json.loads(file.read_text())["identity"]
        of, *others = (fingerprint for fingerprint, _ in identity["mixtures"])
        alike = all(identity[key] == like.identity[key] for key in ("version", "init", "settings"))
        if others or not alike or of not in mixtures:
            continue
        folder, recipe = mixtures[of]
        if _settings(recipe) != _settings(now):
            continue
        asked = json.loads(asked_file(folder).read_text())
        ratios = _named(asked, recipe, now)
        if set(ratios) != set(now["mixture"]["components"]):
            config = dataclasses.replace(
                like.config, output=str(file.parent), data={str(folder): 1.0}
            )
            found[file.parent.name] = (Run(config, identity, file.parent.name), ratios)
    return found


def as_points(
    space: Space, known: Sequence[tuple[Mapping[str, Ratio], float]], components: Sequence[str]
) -> Earlier:
    """What fits into the space: fixed components and the insides of groups have its shares in every
    stage; ratios that stay are a schedule of any stages, another schedule is none.
    """
    rows = [
        (stages, loss)
        for ratios, loss in known
        if (stages := _by_stage(ratios, space.stages)) and all(_fits(one, space) for one in stages)
    ]
    gone = sorted({name for stages, _ in rows for name in stages[0] if name not in components})
    points = [
        [sum(one.get(name, 0.0) for name in group) for one in stages for group in space.groups]
        + [one.get(name, 0.0) for one in stages for name in gone]
        for stages, _ in rows
    ]
    width = space.size + space.stages * len(gone)
    return Earlier(
        points=np.array(points).reshape(len(rows), width),
        losses=np.array([loss for _, loss in rows]), gone=gone,
    )  # fmt: skip


def _by_stage(ratios: Mapping[str, Ratio], stages: int) -> list[dict[str, float]]:
    """The ratios of each stage; empty where they follow a schedule of other stages."""
    found: list[dict[str, float]] = [{} for _ in range(stages)]
    for name, stated in ratios.items():
        shares = stated if isinstance(stated, list) else [stated]
        if len(set(shares)) == 1:
            shares = shares[:1] * stages
        if len(shares) != stages:
            return []
        for own, share in zip(found, shares, strict=True):
            own[name] = share
    return found


def _fits(ratios: Mapping[str, float], space: Space) -> bool:
    return all(abs(ratios.get(n, 0.0) - share) < SAME for n, share in space.fixed.items()) and all(
        _is_inside(ratios, group, space) for group in space.groups
    )


def _is_inside(ratios: Mapping[str, float], group: Sequence[str], space: Space) -> bool:
    whole = sum(ratios.get(name, 0.0) for name in group)
    return all(abs(ratios.get(n, 0.0) - whole * space.inside[n]) < SAME for n in group)


def _settings(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in recipe["mixture"].items() if key not in NAMES}


def _named(
    asked: Mapping[str, Ratio], recipe: Mapping[str, Any], now: Mapping[str, Any]
) -> dict[str, Ratio]:
    """The ratios by today's names; a component that is another today by its name and WAS."""
    found = {}
    for name, share in asked.items():
        same = not np.any(share) or _what(name, recipe) == _what(name, now)
        found[name if same else f"{name}{WAS}"] = share
    return found


def _what(name: str, recipe: Mapping[str, Any]) -> Any:
    """What a component is, but for its ratio; None where there is none."""
    settings = recipe["mixture"]["components"].get(name)
    if settings is None:
        return None
    own = {key: value for key, value in settings.items() if key not in ("ratio", "schedule")}
    inputs = {
        key: {k: v for k, v in value.items() if k != "called"}
        for key, value in recipe["inputs"].items()
        if key.startswith(f"{name}/")
    }
    return own, inputs, recipe["sources"].get(name)
