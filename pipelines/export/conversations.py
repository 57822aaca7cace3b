"""What a finished mixture holds, as conversations again: shard by shard, in order, every copy.

    shards (PACKED), index --records--> Record: messages, images as stored, where it is from

The words are those that the model sees: system prompt, media intro and outro, order of turns. Of a
sample that was split each sequence is a record, and of a raw document each part that a row holds.
"""

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipelines.engine import tables
from pipelines.report.divided import divided
from pipelines.report.finished import Finished
from tokenization.decode import DecodingTools, decoding_tools, not_undone, seconds_of, sequences_of
from tokenization.prompts import Conversation
from tokenization.schema import Encoding

ABOUT = ["id", "component", "subset", "modality", "duration"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One sequence of a packed row: a sample, or a part of one that was split."""

    id: str
    component: str
    subset: str
    modality: str
    conversation: Conversation
    """(role, texts and numbers of images); a raw document is one message of role `document`."""
    images: list[bytes]
    seconds: list[float | None]
    """Per image, of a video's frame: as the prompt states it, else spread over the video's length;
    null: a still."""
    num_tokens: int
    num_learned: int
    whole: bool
    """False: a part of a raw document, at whose ends a character may have been cut."""
    rejected: str | None = None
    """Of a pair, the answer that the last one was preferred to."""

    @property
    def is_document(self) -> bool:
        """Whether it is raw text, without chat marks."""
        return bool(self.conversation) and self.conversation[0][0] == "document"


@contextmanager
def opened_tools(mixture: Finished) -> Iterator[DecodingTools]:
    """What turns the mixture's ids back to text, by the tokenizer that lies in it."""
    encoding = Encoding(**mixture.recipe["mixture"]["encoding"])
    folder = tables.join(mixture.folder, "tokenizer")
    if not tables.is_remote(folder):
        yield decoding_tools(encoding, folder.removeprefix("file://"))
        return
    with tempfile.TemporaryDirectory() as near:
        for name in tables.listing(folder):
            (Path(near) / name).write_bytes(tables.read_bytes(tables.join(folder, name)))
        yield decoding_tools(encoding, near)


@dataclass(frozen=True, kw_only=True)
class AboutShards:
    """What the index says of the samples in each shard; of some neighbouring shards in memory."""

    names: dict[str, list[str]]
    """Split -> its shards that hold samples, in order."""
    of: Callable[[str], pl.DataFrame]
    """Name of a shard -> {id, component, subset, modality, duration} of the samples in it."""


@contextmanager
def about_shards(mixture: Finished) -> Iterator[AboutShards]:
    """The lines of the samples of each shard, while they lie in files beside each other."""
    all_names = [name for names in mixture.shards.values() for name in names]
    place = pl.DataFrame({"name": all_names}).with_row_index("at")
    found = np.zeros(len(all_names), bool)
    name = pl.format("{}-{}.arrow", "split", pl.col("shard").cast(pl.String).str.zfill(5))
    with divided(mixture.stats["read"]) as ranges:
        for some in mixture.lines([*ABOUT, "split", "shard", "copies"]):
            used = some.filter(pl.col("copies") > 0).with_columns(
                pl.col(*ABOUT[1:4], "split").cast(pl.String)
            )
            dealt = used.explode("shard").unique(["id", "split", "shard"])
            lines = (
                dealt.with_columns(name=name).join(place, on="name").select(*ABOUT, "name", "at")
            )
            at = lines["at"].to_numpy()
            found[at] = True
            ranges.put("about", lines.drop("at"), at.astype(np.int64) * ranges.ranges // len(found))

        @lru_cache(maxsize=1)
        def neighbours(number: int) -> dict[tuple[Any, ...], pl.DataFrame]:
            return ranges.read("about", number).partition_by(
                "name", as_dict=True, include_key=False
            )

        def of(shard: str) -> pl.DataFrame:
            return neighbours(all_names.index(shard) * ranges.ranges // len(found))[(shard,)]

        there = set(itertools.compress(all_names, found))
        names = {split: [n for n in of if n in there] for split, of in mixture.shards.items()}
        yield AboutShards(names=names, of=of)


def records(
    mixture: Finished, shard: str, about: pl.DataFrame, tools: DecodingTools
) -> Iterator[Record]:
    """The records of a shard, row by row; a batch of rows is in memory.

    Raises:
        ValueError: the shard was not made by the mixture's encoding; names the sample.
    """
    known = {line["id"]: line for line in about.iter_rows(named=True)}
    path = mixture.path(shard)
    for batch in tables.batches(path, tables.open_file(path)):
        for row in batch.to_pylist():
            yield from records_of(row, known, tools, where=path)


def records_of(
    row: dict[str, Any], known: dict[str, dict[str, Any]], tools: DecodingTools, *, where: str
) -> Iterator[Record]:
    """The records of a packed row."""
    for one in sequences_of(row, tools, where=where):
        if one.id not in known:
            raise not_undone(where, one.id, "index.arrow is of another build.")
        line = known[one.id]
        if one.images and one.conversation[0][0] == "document":
            raise not_undone(where, one.id, "a raw document holds an image, which no format has.")
        yield Record(
            id=one.id,
            component=str(line["component"]),
            subset=str(line["subset"]),
            modality=str(line["modality"]),
            conversation=one.conversation,
            images=one.images,
            seconds=seconds_of(
                one.conversation, one.grids, line["duration"], video=line["modality"] == "video"
            ),
            num_tokens=len(one.ids),
            num_learned=int(one.mask.sum()),
            whole=one.whole,
            rejected=one.rejected,
        )
