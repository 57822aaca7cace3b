"""How many samples have annotations or texts of models, and what the others miss: for the card and
stats.json.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.engine import tables
from pipelines.reading.joining import MISSING
from pipelines.reading.revising import name_of
from pipelines.survey import Piece


def annotation_counts(pieces: Sequence[Piece]) -> dict[str, Any]:
    """{"annotations": component -> {read, facts, missing: what -> samples}}; nothing where no
    component has annotations.
    """
    found: dict[str, dict[str, Any]] = {}
    for p in pieces:
        if p.facts is None or not p.facts.fields:
            continue
        about = found.setdefault(
            p.component, {"facts": dict(p.facts.fields), "read": 0, "missing": {}}
        )
        column = tables.read(p.verdicts, columns=[MISSING.name])[MISSING.name]
        about["read"] += len(column)
        for entry in column.combine_chunks().flatten().value_counts().to_pylist():
            counts = about["missing"]
            counts[entry["values"]] = counts.get(entry["values"], 0) + entry["counts"]
    for about in found.values():
        order = sorted(about["missing"].items(), key=lambda each: (-each[1], each[0]))
        about["missing"] = dict(order)
    return {"annotations": found} if found else {}


def model_counts(pieces: Sequence[Piece], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """{"models": what recipe.json says of each, and of texts and ratings of turns in `samples`:
    component -> {read, got, without: why -> samples}}; nothing where no model was asked.
    """
    got: dict[tuple[str, str], Counter[str]] = {}
    for p in pieces:
        if not p.revised:
            continue
        columns = ["rewritten", "ratings", "without"]
        table = tables.read(p.revised, columns=columns)
        names = table["rewritten"].combine_chunks().flatten().value_counts().to_pylist()
        rated = len(table) - table["ratings"].null_count
        found: Counter[str] = Counter(ratings=rated)
        found.update({each["values"]: each["counts"] for each in names})
        for each in table["without"].combine_chunks().flatten().value_counts().to_pylist():
            found[f"without {each['values']}"] += each["counts"]
        for name in dict.fromkeys(names_of(p)):
            counts = got.setdefault((p.component, name), Counter())
            counts.update(read=len(table), got=found[name])
            lacks = f"without {name}: "
            counts.update({k: n for k, n in found.items() if k.startswith(lacks)})
    models = []
    for model in recipe.get("models", ()):
        key = "ratings" if model["command"] == "judge" else model["name"]
        samples = {}
        for component in model["components"]:
            if known := got.get((component, key)):
                reasons = {k.partition(": ")[2]: n for k, n in known.items() if ": " in k}
                order = sorted(reasons.items(), key=lambda each: (-each[1], each[0]))
                samples[component] = {
                    "read": known["read"], "got": known["got"], "without": dict(order),
                }  # fmt: skip
        models.append({**model, "samples": samples})
    return {"models": models} if models else {}


def names_of(piece: Piece) -> list[str]:
    """What revises the samples of a part."""
    revisions = piece.revisions
    if revisions is None:
        return []
    return [*map(name_of, revisions.rewrites), *(["ratings"] if revisions.ratings else [])]
