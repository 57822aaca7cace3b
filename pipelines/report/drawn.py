"""Which samples the report looks into: of each component some, the same ones every time.

    up to SHARDS train shards, evenly apart, and one of each component that none of them holds
    --hash of the id--> at most SAMPLES of all components, at most EACH of one

Of the shards only the ids are read, of the index a few columns some lines at a time.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from mixtures import draw
from pipelines.engine import tables
from pipelines.report.finished import Finished, lines_of
from pipelines.report.row_view import SampleView, row_of_sample, sample_views

SHARDS = 8
SAMPLES, EACH = 6_000, 300
"""Of 300, a share is known to within 6 points (two standard errors at one half)."""
TEXT = ["input_ids", "loss_mask", "seq_lengths", "grids", "sample_ids"]
PLACES = {"id": pl.String, "shard": pl.String, "row": pl.Int64, "place": pl.Int64}
USED = ["id", "component", "split", "copies", "shard"]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """`places`: id, component, shard, row, place in the row, in the order drawn."""

    places: pl.DataFrame
    shards: int
    each: int
    """Samples of a component at most."""


def drawn(mixture: Finished) -> Drawn:
    """The samples of the train split that are looked into, each once."""
    names = list(mixture.stats["components"])
    every = mixture.shards["train"]
    shards = every[:: max(1, -(-len(every) // SHARDS))]
    places = ids_in(mixture, shards)
    found, first = _components(mixture, places["id"])
    held = set(found["component"])
    more = [shard for name, shard in first.items() if name in names and name not in held]
    if more := sorted(set(more) - set(shards)):
        shards = [*shards, *more]
        places = pl.concat([places, ids_in(mixture, more)])
        found, _ = _components(mixture, places["id"])
    each = min(EACH, max(1, SAMPLES // max(1, len(names))))
    places = places.unique("id", keep="first", maintain_order=True).join(found, on="id")
    hashed = draw.rehash(draw.sample_keys(places["id"], seed=0), "report")
    order = places.with_columns(hash=pl.Series(hashed, dtype=pl.UInt64)).sort("hash")
    some = order.group_by("component", maintain_order=True).head(each)
    return Drawn(places=some.drop("hash"), shards=len(shards), each=each)


def ids_in(mixture: Finished, shards: Iterable[str]) -> pl.DataFrame:
    """PLACES of every sample of the shards."""
    found = [pl.DataFrame(schema=PLACES)]
    for shard in shards:
        ids = pl.Series(
            "id", tables.read(mixture.path(shard), columns=["sample_ids"])["sample_ids"]
        )
        rows = pl.DataFrame([ids]).with_columns(
            shard=pl.lit(shard),
            row=pl.int_range(pl.len()),
            place=pl.int_ranges(0, pl.col("id").list.len()),
        )
        exploded = rows.explode("id", "place").drop_nulls("id")
        found.append(exploded.select(pl.col(name).cast(kind) for name, kind in PLACES.items()))
    return pl.concat(found)


def _components(mixture: Finished, ids: pl.Series) -> tuple[pl.DataFrame, dict[str, str]]:
    """`id` and `component` of these samples; of each component the first train shard with any."""
    wanted = pl.DataFrame({"id": ids.unique()})
    found = [pl.DataFrame(schema={"id": pl.String, "component": pl.String})]
    first: dict[str, str] = {}
    for lines in lines_of(tables.join(mixture.folder, "index.arrow"))(USED):
        used = lines.filter((pl.col("copies") > 0) & (pl.col("split") == "train"))
        plain = used.with_columns(pl.col("component", "id").cast(pl.String))
        found.append(plain.join(wanted, on="id", how="semi").select("id", "component"))
        numbers = plain.group_by("component").agg(pl.col("shard").list.first().drop_nulls().first())
        for name, number in numbers.drop_nulls().iter_rows():
            first.setdefault(name, f"train-{number:05d}.arrow")
    return pl.concat(found).unique("id"), first


def views(
    mixture: Finished, places: pl.DataFrame, *, columns: Sequence[str] = TEXT
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any], SampleView]]:
    """(place, its packed row cut down to the sample, the sample), a record batch at a time."""
    tokens_per_crop = mixture.recipe["mixture"]["encoding"]["tokens_per_crop"]
    for (shard,), here in places.sort("shard", "row", "place").group_by(
        "shard", maintain_order=True
    ):
        path, rows = mixture.path(str(shard)), here["row"].unique(maintain_order=True)
        lines = here.group_by("row", maintain_order=True)
        packed = (
            some.slice(number, 1).to_pylist()[0]
            for some in tables.taken_rows(path, rows.to_numpy(), columns=columns)
            for number in range(len(some))
        )
        for (_, samples), whole in zip(lines, packed, strict=True):
            for line in samples.iter_rows(named=True):
                row = row_of_sample(
                    whole, line["place"], mixture.tokenizer, tokens_per_crop=tokens_per_crop
                )
                view = sample_views(row, mixture.tokenizer, tokens_per_crop=tokens_per_crop)[0]
                yield line, row, view
