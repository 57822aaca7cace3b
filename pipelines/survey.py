"""What a build would do: the parts of every component, the files each becomes, and the recipe.

Everything that determines a file enters its folder's name; everything that determines the mixture
enters the fingerprint. Where it runs (`Place`) enters neither. No sample is read here.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import filters
from mixtures import pick as picking
from mixtures.config import Component, Mixture, check_licences, encoding_of, rules_of
from mixtures.optional import LeftOut
from pipelines import recipe, sources
from pipelines.engine import tables, versions
from pipelines.reading.parts import Part, list_parts
from pipelines.sources.sample import terms_of
from pipelines.stages import STAGES
from tokenization.schema import Encoding


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a build runs; nothing in it enters a fingerprint."""

    output: str
    work: str = "out/work"
    data: str = ""
    """A local mirror of hub repositories (`MIRROR/<org>/<name>/`); empty: the hub."""
    ray: str = "local"
    workers: int | None = None
    """CPUs to use; 0: this process alone, without Ray; None: all there are."""
    overwrite: bool = False
    probe: bool = True
    """Look into what was never read, before anything is read in earnest."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of a component, and the files it becomes."""

    component: str
    part: Part
    samples: str
    verdicts: str
    tokens: str
    rules: list[tuple[str, dict[str, Any]]]
    weight_by: str
    encoding: Encoding


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a build would do: the pieces in order, and the recipe that determines their content."""

    pieces: list[Piece]
    recipe: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """16 hex digits over everything that determines the mixture; its name is not part of it."""
        return str(self.recipe["fingerprint"])


def survey(mixture: Mixture, place: Place, *, left_out: Sequence[LeftOut] = ()) -> Survey:
    """The parts of every component, without reading a sample; `left_out`: for the card.

    Raises:
        ValueError: an unknown source, rule or subset.
        FileNotFoundError: data that is not there.
    """
    check_licences(mixture, {n: terms_of(c.source) for n, c in mixture.components.items()})
    pieces = [p for name in mixture.components for p in pieces_of(mixture, name, place)]
    inputs = {f"{p.component}/{p.part.subset}": p.part.identity for p in pieces}
    made = recipe_of(mixture, inputs)
    return Survey(pieces=pieces, recipe={**made, "left_out": [asdict(left) for left in left_out]})


def pieces_of(mixture: Mixture, name: str, place: Place) -> list[Piece]:
    """The parts of one component, and the files they become."""
    component = mixture.components[name]
    rules = list(checked_rules(mixture, name).items())
    encoding = encoding_of(mixture, name)
    parts = list_parts(
        component=name,
        source=component.source,
        subsets=component.subsets,
        data=component.data,
        media=component.media,
        mirror=place.data or None,
        select={
            subset: {"keep": settings.keep, "max_samples": settings.max_samples}
            for subset, settings in component.subsets.items()
        },
        frames={**asdict(component.frames), "size": encoding.crop_size},
        placeholders=component.placeholders,
        seed=mixture.seed,
    )
    repairs = filters.identity(filters.rewriting(dict(rules)))
    judging = [filters.identity(dict(rules)), mixture.weight_by]
    pieces = []
    for part in parts:
        read = recipe.fingerprint("ingest", STAGES["ingest"].identity, part.identity)
        judged = recipe.fingerprint(read, "judge", STAGES["judge"].identity, judging)
        encoded = recipe.fingerprint(read, "encode", STAGES["encode"].identity, encoding, repairs)
        file = f"{part.number:05d}.arrow"
        pieces.append(
            Piece(
                component=name,
                part=part,
                samples=tables.join(place.work, "samples", read, file),
                verdicts=tables.join(place.work, "verdicts", judged, file),
                tokens=tables.join(place.work, "tokens", encoded, file),
                rules=rules,
                weight_by=mixture.weight_by,
                encoding=encoding,
            )
        )
    return pieces


def checked_rules(mixture: Mixture, component: str) -> dict[str, dict[str, Any]]:
    """The component's rules in order, each known and each setting of its type; else ValueError."""
    filters.validate(mixture.filters, where=f"{mixture.name}: filters")
    rules = rules_of(mixture, component)
    filters.validate_weight(mixture.weight_by, rules=rules, where=mixture.name)
    filters.validate(rules, where=f"{mixture.name}: components.{component}.filters")
    return rules


def recipe_of(mixture: Mixture, inputs: dict[str, Any]) -> dict[str, Any]:
    """What `recipe.json` holds: the resolved mixture, its inputs, versions, and the fingerprint."""
    resolved = recipe.to_json(mixture)
    made_by: dict[str, Any] = {name: spec.identity for name, spec in STAGES.items()}
    made_by["mix"] = {"version": picking.VERSION}
    made_by["rules"] = {
        name: filters.identity(rules_of(mixture, name)) for name in mixture.components
    }
    content = {"mixture": resolved, "inputs": inputs, "versions": made_by}
    return {
        "name": mixture.name,
        "fingerprint": recipe.fingerprint(recipe.identity(content)),
        "mixture": resolved,
        "sources": {
            name: describe_component(name, component, inputs)
            for name, component in mixture.components.items()
        },
        "inputs": inputs,
        "versions": made_by,
        "packages": versions.packages(),
    }


def describe_component(name: str, component: Component, inputs: dict[str, Any]) -> dict[str, Any]:
    """What the card says of a component's source; its revision is the commit that was read."""
    about = sources.describe(component.source)
    mine = [value for key, value in inputs.items() if key.startswith(f"{name}/")]
    commits = [identity["revision"] for identity in mine if "revision" in identity]
    return {**about, "revision": commits[0]} if commits else about


def licences_of(mixture: Mixture) -> dict[str, str]:
    """Component -> the licence of its source."""
    return {
        name: sources.describe(component.source)["licence"]
        for name, component in mixture.components.items()
    }
