"""What was found of benchmarks, list by list, or that nothing was checked.

verdicts --detail of `contaminated`--> samples per benchmark; beside it the lists and their items
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import polars as pl

import filters
from mixtures.config import Mixture, hash_lists
from pipelines.engine import tables
from pipelines.survey import Piece

RULE = "contaminated"


def contamination(pieces: Sequence[Piece], mixture: Mixture) -> dict[str, Any]:
    """`lists`: benchmark -> items in its list, samples that leak one; `unmade`: benchmarks that the
    mixture names and that were not checked, for want of a list.
    """
    _, unmade = hash_lists(mixture)
    paths = dict.fromkeys(
        path for piece in pieces for path in dict(piece.rules).get(RULE, {}).get("benchmarks", ())
    )
    lists = {}
    for path in paths:
        about = filters.benchmarks.read_list(path).schema.metadata
        lists[about[b"name"].decode()] = {"items": json.loads(about[b"counts"])["items"]}
    found: Counter[str] = Counter()
    for piece in pieces if lists else ():
        verdicts = pl.DataFrame(tables.read(piece.verdicts, columns=["fired", "detail"]))
        leaks = verdicts.filter(pl.col("fired").list.contains(RULE))["detail"]
        found.update(leaks.drop_nulls().str.split("/").list.first().to_list())
    return {
        "lists": {name: {**about, "samples": found[name]} for name, about in lists.items()},
        "unmade": [path.rpartition("/")[2].removesuffix(".parquet") for path in unmade],
    }
