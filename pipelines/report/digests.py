"""SHA-256 of every file of a finished mixture: kept in its recipe.json, compared by `check`, `push`
and the trainer.

    {"README.md": {"bytes": 5210, "sha256": "..."}, ..., "shards/train-00000.arrow": {...}}

Of stats.json the numbers count, not what was measured (`timings`), so that two builds of one recipe
write the same recipe.json. `digest` in it is of the recipe itself.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import fsspec

from pipelines.engine import tables

CHUNK = 8 << 20
"""Bytes read at a time."""


def file_digest(path: str) -> dict[str, Any]:
    """Bytes and SHA-256 of a file, read once."""
    digest, size = hashlib.sha256(), 0
    with fsspec.open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return {"bytes": size, "sha256": digest.hexdigest()}


def stats_digest(stats: Mapping[str, Any]) -> dict[str, Any]:
    """The same of stats.json, as if it had no `timings`."""
    counted = {key: value for key, value in stats.items() if key != "timings"}
    text = json.dumps(counted, ensure_ascii=False, separators=(",", ":")).encode()
    return {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}


def digest_of(folder: str, name: str) -> dict[str, Any]:
    """What stands in the recipe for a file of the folder."""
    path = tables.join(folder, name)
    return stats_digest(tables.read_json(path)) if name == "stats.json" else file_digest(path)


def digests(folder: str, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What stands in the recipe for these files of the folder."""
    return {name: digest_of(folder, name) for name in sorted(names)}


def sealed(recipe: Mapping[str, Any], files: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe with the hashes of its files, and of itself."""
    whole = {**{k: v for k, v in recipe.items() if k != "digest"}, "files": dict(files)}
    return {**whole, "digest": recipe_digest(whole)}


def recipe_digest(recipe: Mapping[str, Any]) -> str:
    """SHA-256 of a recipe without its own `digest`."""
    counted = {key: value for key, value in recipe.items() if key != "digest"}
    text = json.dumps(counted, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def differing(folder: str, recipe: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(name, what is wrong) of every file that is not as the recipe says, and of shards and files
    of the tokenizer of which it says nothing.
    """
    files: Mapping[str, Any] = recipe.get("files") or {}
    for name, said in files.items():
        if not tables.exists(tables.join(folder, name)):
            yield name, "it is missing"
            continue
        try:
            found = digest_of(folder, name)
        except tables.DamagedError as error:
            yield name, error.why
            continue
        if found["sha256"] != said["sha256"]:
            now, then = (f"{d['sha256'][:12]}... ({d['bytes']:,} bytes)" for d in (found, said))
            yield name, f"its SHA-256 is {now}, in the recipe {then}"
    for inside in ("shards", "tokenizer"):
        for name in tables.listing(tables.join(folder, inside)):
            if f"{inside}/{name}" not in files:
                yield f"{inside}/{name}", "the recipe does not name it"
