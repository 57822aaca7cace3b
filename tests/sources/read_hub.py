"""Run as a process of its own, as a user would: HF_ENDPOINT and HF_TOKEN are read at import.

python -m tests.sources.read_hub '{"source": "cauldron", ...}' -> JSON on stdout
"""

import json
import sys

from pipelines import sources
from pipelines.sources import annotations, cutting, repository, spans


def main(settings: dict) -> dict:
    """What was planned and read, or the error that a user would see."""
    first = settings.pop("parts", None)
    cutting.PART_BYTES = settings.pop("part_bytes", cutting.PART_BYTES)
    for name, value in settings.pop("annotations", {}).items():
        setattr(spans if name == "AHEAD" else annotations, name, value)
    repository.PIECE = settings.pop("piece", repository.PIECE)
    repository.BLOCK = settings.pop("block", repository.BLOCK)
    try:
        parts = sources.list_parts(**settings)
        rows = [row for part in parts[:first] for row in sources.ingest(part).to_pylist()]
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


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
