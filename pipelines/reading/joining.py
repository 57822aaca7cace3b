r"""Annotations joined to samples: which file belongs to which, and the numbers of each sample.

    annotations.files --list once--> FactFiles of a subset: shard -> file
    samples (shard, key) + FactFiles --join, a shard at a time--> samples with a column per fact
                                                              \-> what is missing, per sample

A row belongs to the file it comes from, whose name without its ending is its shard. Only the files
of shards that a part holds are opened, and of those only the fields asked for are kept. The numbers
of a sample follow from its shard, its key and that file alone.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from mixtures.annotated import SAMPLE_ID, Annotations
from pipelines.reading import fact_files, identity
from pipelines.reading.configs import near
from pipelines.reading.fact_files import REASONS, Wanted, fact_file
from pipelines.reading.files import File, is_url, list_tree, local_file

HUB = re.compile(r"hf://datasets/([^/@]+/[^/@]+)(@[^/]+)?")
MISSING = pa.field("missing_facts", pa.list_(pa.string()))
"""Beside VERDICTS of such a component: `key`, `file`, `repeated key`, `FACT: why`; else empty."""
NUMBER = ".fact"
"""The column beside VERDICTS that holds a fact of annotations: `quality.fact`."""
COLUMNS_VERSION = 2
"""Of what stands beside VERDICTS of annotated samples: bumped when it changes; no identity."""
NO_FILE, NO_KEY, REPEATED = "file", "key", "repeated key"
VERSION = 1
"""Bumped when the same files would give other facts."""
CHECKED = 16
"""Files, at most, that are looked into for fields before anything is read."""


@dataclass(frozen=True, kw_only=True)
class FactFiles:
    """The annotations of one subset, for tasks: picklable; `files` are places, not identity."""

    files: Mapping[str, File]
    """Shard -> its file; of one that has none, none."""
    key: str
    """Of the rows in the files."""
    fields: Wanted
    by_id: bool = False
    """Samples are named by their ids; one file serves all shards."""
    absent: tuple[str, ...] = ()
    """Facts of other components, which these samples do not have: null."""

    def of(self, shards: Iterable[str]) -> "FactFiles":
        """Those of some shards alone."""
        return replace(self, files={s: self.files[s] for s in shards if s in self.files})

    @property
    def identity(self) -> list[Any]:
        """What determines the facts: which shard's file holds what, and what is taken of it."""
        shards = sorted(self.files)
        found = [self.files[shard] for shard in shards]
        held = list(zip(shards, identity.contents(found), strict=True))
        key = f"{SAMPLE_ID} {self.key}" if self.by_id else self.key
        return [VERSION, identity.digest([held, identity.changed(found)]), key, *self.fields]


# ------------------------------------------------------------------ which file is whose


def mirrored(files: str, mirror: str) -> str:
    """The pattern where it lies: in the mirror of the hub, where there is one."""
    found = HUB.match(files)
    return f"{mirror.rstrip('/')}/{found[1]}{files[found.end() :]}" if found and mirror else files


def find_file(
    name: str, pattern: str, *, beside: str, trees: dict[str, dict[str, File]]
) -> File | None:
    """The file of that name, null where there is none; `trees` remembers what was listed."""
    if not is_url(name):
        home = Path(name).expanduser()
        tried = [home] if home.is_absolute() or not beside else [home, Path(beside) / home]
        there = next((path for path in tried if path.is_file()), None)
        return None if there is None else local_file(there, there.parent)
    if name.startswith(("http://", "https://")):  # which lists no folder
        try:
            return list_tree(name).files[0]
        except FileNotFoundError:
            return None
    root = pattern.partition("{")[0].rpartition("/")[0]
    if root not in trees:
        trees[root] = {file.name: file for file in list_tree(root).files}
    return trees[root].get(name[len(root) + 1 :])


def fact_files_of(
    found: Annotations,
    subset: str,
    shards: Sequence[str],
    *,
    mirror: str = "",
    beside: str = "",
    where: str,
    trees: dict[str, dict[str, File]],
    absent: Sequence[str] = (),
) -> FactFiles:
    """The annotations of a subset's shards; `trees` remembers what was listed.

    Raises:
        ValueError: a shard has no file, and `incomplete` does not say that one may have none.
        FileNotFoundError: no such folder in a store.
    """
    by_id = found.key == SAMPLE_ID
    key = found.file_key or ("id" if by_id else found.key)
    fields = tuple(found.fields.items())
    others = tuple(name for name in absent if name not in found.fields)
    if not found.files:
        return FactFiles(files={}, key=key, fields=(), absent=others)
    pattern = mirrored(found.files, mirror)
    named = {s: pattern.replace("{subset}", subset).replace("{shard}", s) for s in shards}
    once = {n: find_file(n, pattern, beside=beside, trees=trees) for n in set(named.values())}
    files = {shard: file for shard, name in named.items() if (file := once[name]) is not None}
    gone = [name for shard, name in named.items() if shard not in files]
    if gone and not (found.incomplete and files):
        some = ", ".join(gone[:3])
        rest = f" and {len(gone) - 3:,} more" if len(gone) > 3 else ""
        also = f" (from {Path.cwd()}, or from {beside})" if beside and not is_url(gone[0]) else ""
        hint = "say that shards may have none: annotations: {incomplete: true}" if files else ""
        raise ValueError(
            f"{where}: {len(gone):,} of {len(shards):,} shards of subset {subset!r} have no file "
            f"of annotations\nexpected: {some}{rest}{also}\n"
            f"way out: name the files that there are{', or ' if hint else ''}{hint}"
        )
    for file in files.values():
        fact_files.kind_of(file)
    return FactFiles(files=files, key=key, fields=fields, by_id=by_id, absent=others)


def check_fields(found: Sequence[tuple[str, FactFiles]]) -> None:
    """Every field is in a file of some subset, and not text alone; `found`: (where, files).

    Raises:
        ValueError: one is in none of those that are looked into.
    """
    for key in dict.fromkeys((one.key, one.fields) for _, one in found):
        mine = [(where, one) for where, one in found if (one.key, one.fields) == key and one.files]
        if mine:
            _check_fields(mine)


def _check_fields(found: Sequence[tuple[str, FactFiles]]) -> None:
    (where, about), *_ = found
    open_fields = dict(about.fields)
    seen: list[object] = []
    for _, one in found[:CHECKED]:
        seen += fact_files.first_rows(next(iter(one.files.values())), one.key)
        reasons = {
            fact: [fact_files.number_of(row, path)[1] for row in seen]
            for fact, path in about.fields
        }
        open_fields = {
            fact: path
            for fact, path in about.fields
            if all(why in (fact_files.NO_FIELD, fact_files.NO_NUMBER) for why in reasons[fact])
        }
        if not open_fields:
            return
    if not seen:
        return
    for fact, path in open_fields.items():
        if fact_files.NO_NUMBER in reasons[fact]:
            raise ValueError(
                f"{where}.fields.{fact}: {path!r} holds no number in the first annotations\n"
                "expected: numbers, true and false, or text that is a number"
            )
        raise ValueError(
            f"{where}.fields.{fact}: no field {path!r} in the first {len(seen):,} annotations. "
            f"{near(path, fact_files.names_in(seen))}"
        )


# ------------------------------------------------------------------ the join


def joined(samples: pa.Table, facts: FactFiles) -> tuple[pa.Table, pa.Array]:
    """(the samples with a float64 column per fact, what each sample misses: MISSING)."""
    names = [fact for fact, _ in facts.fields]
    if not names:
        nothing = pa.array([[]] * len(samples), MISSING.type)
        return with_absent(samples, facts.absent), nothing
    whole = next(iter(facts.files.values()), None) if facts.by_id else None
    named = {"key": samples["id"]} if facts.by_id else samples.select(["shard", "key"])
    ids = pl.DataFrame(pl.from_arrow(pa.table(named))).with_row_index("row")
    if facts.by_id:
        ids = ids.with_columns(shard=pl.lit(""))
    parts = [
        with_facts(rows, whole or facts.files.get(str(shard)), facts)
        for (shard,), rows in ids.group_by("shard", maintain_order=True)
    ]
    empty = with_facts(ids.clear(), None, facts)
    found = pl.concat([empty, *parts]).sort("row")
    for name in names:
        samples = samples.append_column(name, pa.array(found[name].to_arrow(), pa.float64()))
    return with_absent(samples, facts.absent), found["missing"].to_arrow().cast(MISSING.type)


def number_columns(facts: FactFiles) -> list[pa.Field]:
    """The columns beside VERDICTS that hold these facts, in their order."""
    return [pa.field(f"{fact}{NUMBER}", pa.float64()) for fact, _ in facts.fields]


def with_absent(samples: pa.Table, names: Iterable[str]) -> pa.Table:
    """The samples with facts that none of them has."""
    for name in names:
        samples = samples.append_column(name, pa.nulls(len(samples), pa.float64()))
    return samples


def with_facts(rows: pl.DataFrame, file: File | None, facts: FactFiles) -> pl.DataFrame:
    """Rows (row, shard, key) of one shard with the numbers of its file, and what is missing."""
    names = [fact for fact, _ in facts.fields]
    if file is None:
        nothing = [pl.lit(None, pl.Float64).alias(name) for name in names]
        missing = pl.lit([NO_FILE], dtype=pl.List(pl.String)).alias("missing")
        return rows.select("row", *nothing, missing)
    table = fact_file(file, key=facts.key, fields=facts.fields)
    mine = table.filter(pl.col("key").is_in(rows["key"].unique().implode()))
    found = rows.join(mine, on="key", how="left", maintain_order="left")
    repeated = pl.col("repeated").fill_null(value=False)
    reasons = [
        pl.when(pl.col(f"{name} why") == number).then(pl.lit(f"{name}: {why}"))
        for name in names
        for number, why in enumerate(REASONS)
        if number
    ]
    missing = (
        pl.when(pl.col("repeated").is_null())
        .then(pl.lit([NO_KEY], dtype=pl.List(pl.String)))
        .when(repeated)
        .then(pl.lit([REPEATED], dtype=pl.List(pl.String)))
        .otherwise(pl.concat_list(reasons).list.drop_nulls())
    )
    numbers = [pl.when(~repeated).then(pl.col(name)).alias(name) for name in names]
    return found.select("row", *numbers, missing.alias("missing"))
