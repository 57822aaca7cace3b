"""From what was dealt to the tasks of the shards, and to the index as it is written.

Dealt --rows of a shard--> work/facts/FINGERPRINT/picks/SHARD.arrow --pack, facts--> tasks
lines, picks, shards  --some parts at a time--> index.arrow
"""

import hashlib
from collections.abc import Iterator

import numpy as np
import polars as pl
import pyarrow as pa

from mixtures import pick as picking
from mixtures.config import Mixture, schedules_of
from pipelines import recipe
from pipelines.clean import whole
from pipelines.engine import tables
from pipelines.engine.tasks import File, Needs, Task
from pipelines.index import Index
from pipelines.report.row_facts import DEALT
from pipelines.stages import FACTS, packing_stage
from pipelines.survey import Place, Survey

INDEX_ROWS = 1 << 16
"""Of a record batch of index.arrow."""
PICKS = pa.schema([("part", pa.int32()), ("row", pa.int32()), *DEALT])
"""Of each copy in a shard, in deal order: where it is gathered from, and DEALT."""
PACK_COPIES = 3
"""A shard in memory while it is packed: rows gathered, in deal order, and as packed."""


def pack_tasks(
    dealt: picking.Dealt, index: Index, todo: Survey, mixture: Mixture, place: Place
) -> list[Task]:
    """Two tasks per shard: one packs it, with the rows it must gather in deal order; one takes from
    it what the card says. Both read those rows from a file, so that none is held here.
    """
    packing, counting = [], []
    pairs = any(p.part.about.pairs for p in todo.pieces)
    component_of = picking.component_places(index.samples, mixture)
    for split, shard, rows in dealt.in_order():
        name, piece = f"{split}-{shard:05d}", index.samples.part_at(rows)
        used, part = np.unique(piece, return_inverse=True)
        picks = pa.table(
            {
                "part": part.astype(np.int32),
                "row": (rows - index.samples.starts[piece]).astype(np.int32),
                "key": index.samples.columns["key"][rows],
                "component": component_of[index.samples.subset_of[piece]],
                "num_crops": index.samples.columns["num_crops"][rows],
                "seconds": pa.array(index.seconds[rows], from_pandas=True),
            },
            schema=PICKS,
        )
        path = tables.join(picks_folder(todo, place), f"{name}.arrow")
        tables.write(picks, path, rows_per_batch=INDEX_ROWS)
        pack = Task(
            stage=packing_stage(pairs=pairs),
            part=name,
            settings={
                "picks": File(path),
                "parts": [(todo.pieces[i].samples, todo.pieces[i].tokens) for i in used],
                "encoding": mixture.encoding,
                "seed": mixture.seed + shard,
                "in_order": split == "train" and bool(schedules_of(mixture)),
                "pairs": pairs,
            },
            out=tables.join(place.output, "shards", f"{name}.arrow"),
            needs=Needs(memory=PACK_COPIES * mixture.shard_bytes),
        )
        count = Task(
            stage=FACTS,
            part=name,
            settings={
                "shard": pack.out,
                "samples": File(path),
                "tokens_per_crop": mixture.encoding.tokens_per_crop,
                "seed": mixture.seed,
            },
            out=tables.join(facts_folder(todo, place), f"{name}.arrow"),
            after=(pack.out,),
        )
        packing.append(pack)
        counting.append(count)
    return [*packing, *counting]


def picks_folder(todo: Survey, place: Place) -> str:
    """Where the rows of each shard lie while the shards are packed: of this output alone, since
    another build of the same recipe may end first.
    """
    mine = hashlib.sha256(whole(place.output).encode()).hexdigest()[:12]
    return tables.join(facts_folder(todo, place), f"picks-{mine}")


def facts_folder(todo: Survey, place: Place) -> str:
    """Where what the card says of each shard lies: the fingerprint determines it."""
    determined = recipe.fingerprint(todo.fingerprint, "facts", FACTS.identity)
    return tables.join(place.work, "facts", determined)


def facts_files(todo: Survey, place: Place) -> list[str]:
    """What the card says of each shard, in the order of the shards."""
    folder = facts_folder(todo, place)
    return [tables.join(folder, n) for n in tables.listing(folder) if n.endswith(".arrow")]


def index_tables(
    index: Index, picked: picking.Picked, dealt: picking.Dealt, mixture: Mixture
) -> Iterator[pa.Table]:
    """The index as it is written, the lines of some parts at a time."""
    start = 0
    for lines in index.picked_lines(picked, mixture):
        stop = start + len(lines)
        shards = pl.Series("shard", dealt.shards_of(start, stop))
        yield from picking.as_tables(lines.with_columns(shards))
        start = stop
