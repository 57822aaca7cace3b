"""A small pool as DataComp-VLM lays it out, with its annotations beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.pipelines.sources.making import coarse_jpeg, tar, write

SUBSETS = {"ai2d": "instruction", "flanv2": "text", "datacomp_1b": "caption", "docs": "interleaved"}
SHARD = 12
"""Samples of a shard."""


def members(kind: str, number: int) -> list[tuple[str, bytes]]:
    """The members of one sample: `.jpg`, `.json`, `.txt` under its key."""
    key = f"{number:06d}"
    image = lambda seed: coarse_jpeg(1000 * len(kind) + seed)
    if kind == "instruction":
        question, answer = f"<image>\nWhat is in figure {number}?", f"Pattern {number} in colours."
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        about = {"conversations": turns}
        return [(f"{key}.jpg", image(number)), (f"{key}.json", json.dumps(about).encode())]
    if kind == "text":
        asked = {"role": "user", "content": f"Say the number after {number}."}
        said = {"role": "assistant", "content": f"It is {number + 1}, of course."}
        about = {"messages": [asked, said]}
        return [(f"{key}.json", json.dumps(about).encode())]
    if kind == "caption":
        return [
            (f"{key}.jpg", image(number)),
            (f"{key}.txt", b"A pattern, number %d of them." % number),
        ]
    texts = [f"First comes page {number}.", None, "Then another.", None, "And the end."]
    pages = [(f"{key}.{n}.jpg", image(2 * number + n)) for n in range(2)]
    return [*pages, (f"{key}.json", json.dumps({"texts": texts}).encode())]


def annotation(subset: str, number: int) -> dict[str, Any]:
    """What is said of a sample: the same fields in every shard."""
    return {"quality": {"score": number % 10 / 10}, "perplexity": str(100 + number), "lang": "en"}


def pool(
    folder: Path, *, shards: int = 2, changed: Mapping[str, Mapping[str, Any]] | None = None
) -> Path:
    """FOLDER/pool and FOLDER/annotations; `changed`: `SUBSET/SHARD` -> its annotations instead."""
    for subset, kind in SUBSETS.items():
        for shard in range(shards):
            numbers = range(shard * SHARD, (shard + 1) * SHARD)
            name = f"{subset}/{shard:06d}"
            tar(
                folder / "pool" / f"{name}.tar",
                [member for number in numbers for member in members(kind, number)],
            )
            said = {f"{number:06d}": annotation(subset, number) for number in numbers}
            write(folder / "annotations" / f"{name}.json", (changed or {}).get(name, said))
    return folder
