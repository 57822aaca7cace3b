"""Run as a process of its own, as a user would: HF_ENDPOINT and HF_TOKEN are read at import.

python -m tests.pipelines.reading.read_hub '{"source": "cauldron", ...}' -> JSON on stdout
"""

import json
import sys

from pipelines.reading import annotations, hub, json_spans, splitting
from pipelines.reading.ingest import ingest
from pipelines.reading.parts import Part, list_parts


def main(settings: dict) -> dict:
    """What was planned and read, or the error that a user would see."""
    first = settings.pop("parts", None)
    wanted = settings.pop("wanted", None)
    splitting.PART_BYTES = settings.pop("part_bytes", splitting.PART_BYTES)
    for name, value in settings.pop("annotations", {}).items():
        setattr(json_spans if name == "AHEAD" else annotations, name, value)
    hub.PIECE = settings.pop("piece", hub.PIECE)
    hub.BLOCK = settings.pop("block", hub.BLOCK)
    try:
        parts = list_parts(**settings)
        rows = []
        for part in in_order(parts, first=first, wanted=wanted):
            if wanted is None or len(rows) < wanted:
                rows += ingest(part).to_pylist()
    except (ValueError, FileNotFoundError, ConnectionError) as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {
        "ids": [row["id"] for row in rows],
        "defects": [row["defect"] for row in rows],
        "num_bytes": [part.num_bytes for part in parts],
        "rows": [part.rows for part in parts],
        "share": [part.share for part in parts],
        "identity": parts[0].identity,
    }


def in_order(parts: list[Part], *, first: int | None, wanted: int | None) -> list[Part]:
    """The first of the parts, or all as a build reads them until it has as many rows as are
    `wanted`.
    """
    return parts[:first] if wanted is None else sorted(parts, key=lambda part: part.turn)


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
