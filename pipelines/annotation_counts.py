"""How many samples have annotations, and what the others miss: for the card and stats.json."""

from collections.abc import Sequence
from typing import Any

from pipelines.engine import tables
from pipelines.reading.joining import MISSING
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
