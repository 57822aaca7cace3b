"""What models wrote for the samples of a mixture or said of them: which tables, by which model,
under which licence.

    `rewrites`, `annotations` --revisions_of--> Revisions of a component
    tables of `rewrite` and `judge` --models_asked--> who was asked what: recipe.json, the card
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mixtures.config import Mixture, annotations_of, rewrites_of
from pipelines.reading.files import File
from pipelines.reading.joining import FactFiles, find_file, mirrored
from pipelines.reading.revising import Revisions, about_file, check_file, name_of

NO_DERIVATIVES = re.compile(r"\bND\b", re.IGNORECASE)
"""In names of licences: https://creativecommons.org/licenses/by-nd/4.0/"""
ABOUT = (
    *("model", "engine", "asked", "good", "bad", "missing", "input_tokens", "output_tokens"),
    *("licence", "terms"),
)
"""What a table says of itself, and the card of it."""


def revisions_of(mixture: Mixture, name: str, *, mirror: str, beside: str) -> Revisions | None:
    """What models wrote for the component's samples or said of their turns; null: nothing.

    Raises:
        ValueError: a table is not there, or is none.
    """
    component, found = mixture.components[name], annotations_of(mixture, name)
    own = f"{mixture.name}: components.{name}."
    where = f"{mixture.name}: " if component.rewrites is None else own
    named = [(f"{where}rewrites", file, "rewrite") for file in rewrites_of(mixture, name)]
    if found.ratings:
        where = f"{mixture.name}: " if component.annotations is None else own
        named.append((f"{where}annotations.files", found.files, "judge"))
    held: dict[str, list[File]] = {"rewrite": [], "judge": []}
    for key, path, command in named:
        pattern = mirrored(path, mirror)
        file = find_file(pattern, pattern, beside=beside, trees={})
        if file is None:
            raise ValueError(
                f"{key}: there is no file {path}\nexpected: a table that `pipelines {command}` "
                f"wrote\nway out: python -m pipelines {command} DIR ... output={path} asks a model "
                "about a mixture that was built without it; plan=true states beforehand what that "
                "costs"
            )
        check_file(file, where=key, ratings=command == "judge")
        if file in held[command]:
            raise ValueError(f"{key}: {path} is named twice.")
        held[command].append(file)
    if not named:
        return None
    return Revisions(rewrites=tuple(held["rewrite"]), ratings=tuple(held["judge"]))


def models_asked(
    found: Iterable[tuple[str, FactFiles | None, Revisions | None]],
) -> list[dict[str, Any]]:
    """Per table that a served model made: who was asked what of how many, what came, under which
    licence, and the components that use it, in order.
    """
    of_file: dict[str, dict[str, Any]] = {}
    for component, facts, revisions in found:
        held = [(file, "rewrite") for file in revisions.rewrites] if revisions else []
        held += [(file, "judge") for file in revisions.ratings] if revisions else []
        files = facts.files.values() if facts and facts.fields and facts.by_id else ()
        held += [(file, "judge") for file in files if file.name.endswith(".parquet")]
        for file, command in held:
            about = about_file(file)
            if not about and command == "judge":
                continue  # annotations that no model of ours made
            if file.url not in of_file:
                prompt = about.get("prompt") or {}
                of_file[file.url] = {
                    "command": command,
                    "name": name_of(file),
                    "version": prompt.get("version"),
                    **{key: about.get(key) for key in ABOUT},
                    "components": [],
                }
            components = of_file[file.url]["components"]
            if component not in components:
                components.append(component)
    return list(of_file.values())


def refuse_outputs(
    models: Iterable[Mapping[str, Any]], licences: Mapping[str, Any], *, where: str
) -> None:
    """No texts of a model are used whose licence `licenses` of the mixture refuses, or ValueError
    names all that are. What a model says of samples is in no row.
    """
    allow, forbid = licences.get("allow") or [], licences.get("forbid") or []
    refused = []
    for one in models:
        names = output_terms(one)
        bad = set(names) & set(forbid) or (allow and not set(names) & set(allow))
        if one["command"] == "rewrite" and bad:
            of = ", ".join(one["components"])
            refused.append(f"{of} (rewritten by {one['model']}: {', '.join(names)})")
    if refused:
        raise ValueError(
            f"{where}: `licenses` of the mixture refuses the texts of {'; '.join(refused)}\n"
            "way out: leave these tables out of `rewrites` and build again, change `licenses`, or, "
            "where the outputs stand under another licence, state it: rewrite ... licence=NAME "
            "asks nothing again"
        )


def output_terms(model: Mapping[str, Any]) -> list[str]:
    """The licence of a model's outputs and what it asks or forbids."""
    return [model.get("licence") or "unknown", *(model.get("terms") or ())]


def against_sharing(
    models: Sequence[Mapping[str, Any]], sources: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """What stands against publishing texts of models, and texts that models changed."""
    found = []
    for one in models:
        if one["command"] == "rewrite" and "no-redistribution" in output_terms(one):
            of = ", ".join(one["components"])
            found.append(f"{of} (rewritten by {one['model']}: no-redistribution)")
    changed = [name for one in models if one["command"] == "rewrite" for name in one["components"]]
    for component in dict.fromkeys(changed):
        licence = str(sources[component].get("licence"))
        if NO_DERIVATIVES.search(licence):
            found.append(f"{component} (rewritten, and {licence} lets no adaptation be shared)")
    return found
