"""What a build would do: the parts of every component, the files each becomes, and the recipe.

Everything that determines a file enters its folder's name; everything that determines the mixture
enters the fingerprint. Where it runs (`Place`) enters neither. No sample is read here.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from typing import Any

import filters
from mixtures import pick as picking
from mixtures.checks import check_licences
from mixtures.config import (
    Component,
    Mixture,
    annotated_facts,
    annotations_of,
    encoding_of,
    rules_of,
)
from mixtures.optional import LeftOut
from pipelines import plugins, recipe, sources
from pipelines.engine import private, tables, versions
from pipelines.ids import names_in_ids, renamed
from pipelines.reading import identity
from pipelines.reading.files import File
from pipelines.reading.joining import COLUMNS_VERSION, FactFiles, fact_files_of
from pipelines.reading.keys import column_of, files_of_part, shard_of, shards_of
from pipelines.reading.leftovers import sentences
from pipelines.reading.parts import Listing, Part, list_component
from pipelines.reading.revising import Revisions
from pipelines.revised import revised_file
from pipelines.revisions import models_asked, refuse_outputs, revisions_of
from pipelines.sources.mapping import configured
from pipelines.sources.sample import Source
from pipelines.stages import STAGES
from tokenization import prompts
from tokenization.schema import Encoding
from tokenization.vocab import tokenizer_digest


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
    report: bool = True
    """Draw report.html, which takes about as long as all else of a build of a few thousand rows."""
    beside: str = ""
    """The folder of the mixture's file, from which its paths are looked for besides."""


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
    facts: FactFiles | None = None
    """The annotations that its rules or `weight_by` may read; null: there are none."""
    revisions: Revisions | None = None
    """What models wrote for its samples or said of their turns; null: nothing."""
    revised: str = ""
    """The file of REVISED, where there are revisions."""

    @property
    def texts(self) -> tuple[str, ...]:
        """The files in which the texts of its samples lie."""
        return (self.samples, self.revised) if self.revised else (self.samples,)


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a build would do: the pieces in order, and the recipe that determines their content."""

    pieces: list[Piece]
    recipe: dict[str, Any]
    unread: dict[str, list[str]]
    """Component -> sentences about what of its own files is not read."""
    read: dict[tuple[str, str], float] = field(default_factory=dict)
    """(component, subset) -> the fraction that `pieces` are of what could be read, where that is
    not all of it."""

    @property
    def fingerprint(self) -> str:
        """16 hex digits over everything that determines the mixture; its name is not part of it."""
        return str(self.recipe["fingerprint"])


def check_decoders(mixture: Mixture) -> None:
    """Raises ValueError where a component asks for decord and there is none."""
    asking = [n for n, c in mixture.components.items() if c.frames.decoder == "decord"]
    if asking and find_spec("decord") is None:
        raise ValueError(
            f"components.{asking[0]}.frames.decoder: decord is not installed (it has wheels for "
            "x86-64 alone). Install decord, or leave `decoder` at av."
        )


def survey(mixture: Mixture, place: Place, *, left_out: Sequence[LeftOut] = ()) -> Survey:
    """The parts of every component, without reading a sample; `left_out`: for the card.

    Raises:
        ValueError: an unknown source, rule or subset.
        FileNotFoundError: data that is not there.
    """
    check_licences(mixture, component_terms(mixture))
    check_decoders(mixture)
    listings = {name: listing_of(mixture, name, place) for name in mixture.components}
    pieces = [p for found in pieces_of(mixture, listings, place).values() for p in found]
    inputs = inputs_of(pieces)
    made = recipe_of(mixture, inputs)
    if models := models_asked([(p.component, p.facts, p.revisions) for p in pieces]):
        refuse_outputs(models, recipe.to_json(mixture.licenses), where=mixture.name)
        made["models"] = private.hidden(models)
    return Survey(
        pieces=pieces,
        recipe={**made, "left_out": [asdict(left) for left in left_out]},
        unread=told(listings),
    )


def inputs_of(pieces: Sequence[Piece]) -> dict[str, Any]:
    """COMPONENT/SUBSET -> what determines its samples, and what is annotated of them."""
    found: dict[str, Any] = {}
    joined: dict[str, list[Any]] = {}
    for p in pieces:
        key = f"{p.component}/{p.part.subset}"
        later = {} if p.revisions is None else {"revised": p.revisions.identity}
        found[key] = {**p.part.identity, **later}
        if p.facts is not None and p.facts.fields:
            joined.setdefault(key, []).append(p.facts.identity)
    for key, identities in joined.items():
        found[key] = {**found[key], "annotations": identity.digest(identities)}
    return found


def told(listings: dict[str, Listing]) -> dict[str, list[str]]:
    """Component -> sentences about what of its files is not read, where there is any such."""
    found = {name: sentences(listing.unread) for name, listing in listings.items()}
    return {name: lines for name, lines in found.items() if lines}


def listing_of(mixture: Mixture, name: str, place: Place) -> Listing:
    """What there is of one component."""
    component = mixture.components[name]
    return list_component(
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
        frames={**recipe.to_json(component.frames), "size": encoding_of(mixture, name).crop_size},
        placeholders=component.placeholders,
        columns=component.columns,
        repo=component.repo,
        split=component.split,
        key=column_of(annotations_of(mixture, name)),
        seed=mixture.seed,
        beside=place.beside,
        ours=(place.output, place.work),
    )


def pieces_of(
    mixture: Mixture, listings: dict[str, Listing], place: Place
) -> dict[str, list[Piece]]:
    """Component -> its parts, and the files they become; no two hold samples of one id.

    Raises:
        ValueError: two components read the same file.
    """
    of = {name: component.source for name, component in mixture.components.items()}
    called = names_in_ids(listings, of)
    trees: dict[str, dict[str, File]] = {}
    return {
        name: pieces_of_one(
            mixture, name, [renamed(p, called) for p in listing.parts], place, trees=trees
        )
        for name, listing in listings.items()
    }


def facts_of(
    mixture: Mixture,
    name: str,
    parts: Sequence[Part],
    place: Place,
    *,
    trees: dict[str, dict[str, File]],
) -> dict[str, FactFiles]:
    """Subset -> the annotations of its selected parts; nothing where the mixture has none."""
    names = annotated_facts(mixture)
    found = annotations_of(mixture, name)
    if not names:
        return {}
    shards: dict[str, dict[str, str]] = {}
    own = mixture.components[name].annotations is not None
    where = f"{mixture.name}: " + (f"components.{name}.annotations" if own else "annotations")
    for part in parts:
        known = shards.setdefault(part.subset, {})
        for url in files_of_part(part.inputs) if found.files else ():
            if known.setdefault(shard_of(url), url) != url and "{shard}" in found.files:
                raise ValueError(
                    f"{where}.files: {{shard}} is {shard_of(url)} for two files of subset "
                    f"{part.subset!r}\nfound: {known[shard_of(url)]}, {url}\nway out: make their "
                    "folders subsets, or name one file for all in which no key comes twice"
                )
    return {
        subset: fact_files_of(
            found,
            subset,
            list(of_subset),
            mirror=place.data,
            beside=place.beside,
            where=where,
            trees=trees,
            absent=names,
        )
        for subset, of_subset in shards.items()
    }


def pieces_of_one(
    mixture: Mixture,
    name: str,
    parts: list[Part],
    place: Place,
    *,
    trees: dict[str, dict[str, File]],
) -> list[Piece]:
    """The parts of one component, and the files they become."""
    facts = facts_of(mixture, name, parts, place, trees=trees)
    revisions = revisions_of(mixture, name, mirror=place.data, beside=place.beside)
    later = [] if revisions is None else [revisions.identity]
    rules = list(checked_rules(mixture, name).items())
    encoding = encoding_of(mixture, name)
    repairs = filters.identity(filters.rewriting(dict(rules)))
    words = prompts.table_named(encoding.system_prompts).identity
    renders = replace(
        encoding, tokenizer=tokenizer_digest(encoding.tokenizer) or encoding.tokenizer
    )
    judging = [filters.identity(dict(rules)), mixture.weight_by]
    pieces = []
    for part in parts:
        read = recipe.fingerprint("ingest", STAGES["ingest"].identity, part.identity)
        mine = facts[part.subset].of(shards_of(part.inputs)) if facts else None
        joined = ""
        if mine is not None and mine.fields:
            joined = f"-{recipe.fingerprint(mine.identity, COLUMNS_VERSION)}"
        judged = recipe.fingerprint(read, "judge", STAGES["judge"].identity, judging, *later)
        encoded = recipe.fingerprint(
            read, "encode", STAGES["encode"].identity, renders, repairs, *words, *later
        )
        file = f"{part.number:05d}.arrow"
        pieces.append(
            Piece(
                component=name,
                part=part,
                samples=tables.join(place.work, "samples", read, file),
                verdicts=tables.join(
                    place.work, "verdicts", judged, f"{part.number:05d}{joined}.arrow"
                ),
                tokens=tables.join(place.work, "tokens", encoded, file),
                rules=rules,
                weight_by=mixture.weight_by,
                encoding=encoding,
                facts=mine,
                revisions=revisions,
                revised=revised_file(place.work, read, later[0], file) if later else "",
            )
        )
    return pieces


def checked_rules(mixture: Mixture, component: str) -> dict[str, dict[str, Any]]:
    """The component's rules in order, each known and each setting of its type; else ValueError."""
    filters.validate(mixture.filters, where=f"{mixture.name}: filters")
    rules = rules_of(mixture, component)
    where = f"{mixture.name}: components.{component}.filters"
    names = annotated_facts(mixture)
    filters.validate_weight(mixture.weight_by, rules=rules, where=mixture.name, annotated=names)
    filters.validate(rules, where=where)
    filters.validate_facts(rules, annotated=names, where=where)
    return rules


def recipe_of(mixture: Mixture, inputs: dict[str, Any]) -> dict[str, Any]:
    """What `recipe.json` holds: the resolved mixture, its inputs, versions, and the fingerprint."""
    resolved = private.hidden(recipe.to_json(mixture))
    made_by: dict[str, Any] = {name: spec.identity for name, spec in STAGES.items()}
    made_by["mix"] = {"version": picking.VERSION}
    made_by["rules"] = {
        name: filters.identity(rules_of(mixture, name)) for name in mixture.components
    }
    if its_files := tokenizer_digest(mixture.encoding.tokenizer):
        made_by["tokenizer"] = its_files
    tables_used = {
        name: table.identity
        for name in mixture.components
        if (table := prompts.table_named(encoding_of(mixture, name).system_prompts)).plugin
    }
    if tables_used:
        made_by["prompts"] = tables_used
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
        **({"plugins": private.hidden(in_use)} if (in_use := plugins.in_use()) else {}),
    }


def describe_component(name: str, component: Component, inputs: dict[str, Any]) -> dict[str, Any]:
    """What the card says of a component's source; its revision is the commit that was read."""
    about = about_source(component)
    mine = [value for key, value in inputs.items() if key.startswith(f"{name}/")]
    commits = [identity["revision"] for identity in mine if "revision" in identity]
    return {**about, "revision": commits[0]} if commits else about


def about_source(component: Component) -> dict[str, Any]:
    """What is known of a component's data: of its source, but what the mixture says of its own."""
    about = private.hidden(sources.describe(source_of(component)))
    if about["source"] == "table" and about["hub"]:
        page = f"https://huggingface.co/datasets/{about['hub']}"
        about |= {"licence": "unknown", "citation": page}
    if component.data is not None and not about["hub"]:
        about["citation"] = ""  # that of the layout is not the data's
    if component.licence:
        about |= {"licence": component.licence, "terms": []}
    if component.terms:
        about["terms"] = list(component.terms)
    if component.citation:
        about["citation"] = component.citation
    return about


def source_of(component: Component, name: str = "") -> Source:
    """The source as the component configures it; raises ValueError where it is misconfigured."""
    return configured(
        component.source,
        columns=component.columns,
        repo=component.repo,
        split=component.split,
        where=f"components.{name}" if name else "components",
    )


def component_terms(mixture: Mixture) -> dict[str, list[str]]:
    """Component -> the licence of its data and what that asks or forbids."""
    found = {name: about_source(component) for name, component in mixture.components.items()}
    return {name: [about["licence"], *about["terms"]] for name, about in found.items()}


def licences_of(mixture: Mixture) -> dict[str, str]:
    """Component -> the licence of its data."""
    return {
        name: about_source(component)["licence"] for name, component in mixture.components.items()
    }
