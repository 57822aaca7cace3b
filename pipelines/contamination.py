"""What was found of benchmarks, list by list, or that nothing was checked.

verdicts --detail of `contaminated`--> samples per benchmark, some of them by name; beside it the
                                       lists and their items
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import polars as pl

import filters
from mixtures import draw
from mixtures.config import Mixture, hash_lists
from pipelines.engine import tables
from pipelines.survey import Piece

RULE = "contaminated"
EXAMPLES = 4
"""Samples of a benchmark that are named, drawn by a hash of their ids."""


def contamination(pieces: Sequence[Piece], mixture: Mixture) -> dict[str, Any]:
    """`lists`: benchmark -> items in its list, samples that have one of them, and the ids of some;
    `unmade`: benchmarks that the mixture names and that were not checked, for want of a list.

    A sample that has items of several benchmarks counts for each of them.
    """
    _, unmade = hash_lists(mixture)
    paths = dict.fromkeys(
        path for piece in pieces for path in dict(piece.rules).get(RULE, {}).get("benchmarks", ())
    )
    lists: dict[str, dict[str, Any]] = {}
    for path in paths:
        about = filters.benchmarks.read_list(path).schema.metadata
        name, items = about[b"name"].decode(), json.loads(about[b"counts"])["items"]
        lists[name] = {"items": items + lists.get(name, {"items": 0})["items"]}
    found: Counter[str] = Counter()
    drawn: dict[str, list[tuple[int, str]]] = {name: [] for name in lists}
    for piece in pieces if lists else ():
        verdicts = pl.DataFrame(tables.read(piece.verdicts, columns=["id", "fired", "detail"]))
        leaks = verdicts.filter(pl.col("fired").list.contains(RULE)).drop_nulls("detail")
        keys = draw.rehash(draw.sample_keys(leaks["id"], seed=0), RULE)
        for key, (sample, _, detail) in zip(keys.tolist(), leaks.iter_rows(), strict=True):
            for name in {match.benchmark for match in filters.matches_of(detail)} & lists.keys():
                found[name] += 1
                drawn[name] = sorted([*drawn[name], (key, sample)])[:EXAMPLES]
    return {
        "lists": {
            name: {**about, "samples": found[name], "examples": [id for _, id in drawn[name]]}
            for name, about in lists.items()
        },
        "unmade": [path.rpartition("/")[2].removesuffix(".parquet") for path in unmade],
    }
