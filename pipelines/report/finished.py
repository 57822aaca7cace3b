"""A finished mixture, opened for reading: its recipe and numbers now, index and rows when asked.

A packed row is addressed by split and place: `row=5` is the sixth row of a split's shards in order.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from mixtures.pick import INDEX, categorical
from pipelines import recipe as recipes
from pipelines.engine import tables
from pipelines.revised import REVISED, revised, revised_file

LATER = ("annotations", "revised")
"""Of what determines the samples of a mixture, what came after they were read."""
PACKED_COLUMNS = ["input_ids", "loss_mask", "seq_lengths", "images", "grids", "sample_ids"]
NEAR = 10_000
"""Ids among which the nearest to one that is not there is looked for."""

Lines = Callable[[Sequence[str]], Iterator[pl.DataFrame]]
"""Columns of the index -> those of all lines, some at a time, names as categories."""


def lines_of(path: str) -> Lines:
    """The lines of an index that is a file."""

    def lines(columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        for number in range(tables.open_file(path).num_record_batches):
            reader = tables.open_file(path, columns=columns)  # anew: what a map read stays with it
            batch = tables.batch_at(path, reader, number)
            yield categorical(pl.DataFrame(pa.table(batch)).select(columns))

    return lines


@lru_cache(maxsize=2)
def _tokenizer(text: str) -> Any:
    """The tokenizer that this text is, the same object for the same text: it is read only."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str(text)


def ordered(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """The largest first, of equal ones the first by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The folder of a finished mixture and what its small files say."""

    folder: str
    recipe: dict[str, Any]
    stats: dict[str, Any]
    shards: dict[str, list[str]]
    """Per split, the names of its shards in order."""

    @cached_property
    def index(self) -> pl.DataFrame:
        """One line per sample ever read (INDEX), its names as categories."""
        return pl.concat(lines_of(tables.join(self.folder, "index.arrow"))(INDEX.names))

    @property
    def lines(self) -> Lines:
        """The same, some lines at a time: of a large mixture only they are in memory."""
        return lines_of(tables.join(self.folder, "index.arrow"))

    @cached_property
    def _known(self) -> dict[str, dict[str, Any]]:
        """Lines that were looked for."""
        return {}

    @cached_property
    def tokenizer(self) -> Any:
        """The mixture's own tokenizer (a `tokenizers.Tokenizer`)."""
        path = tables.join(self.folder, "tokenizer", "tokenizer.json")
        return _tokenizer(tables.read_bytes(path).decode())

    def path(self, shard: str) -> str:
        """Where a shard lies."""
        return tables.join(self.folder, "shards", shard)

    def row(self, place: int, *, split: str = "train") -> tuple[str, int, dict[str, Any]]:
        """The shard, the row within it and the packed row (PACKED) at a place of a split.

        Raises:
            ValueError: the split has no such row.
        """
        rows = 0
        for shard in self.shards.get(split, []):
            here = tables.num_rows(self.path(shard))
            if 0 <= place - rows < here:
                return shard, place - rows, self.rows(shard, [place - rows])[0]
            rows += here
        raise ValueError(
            f"{self.folder}: row {place} of '{split}' asked for, found rows 0 to {rows - 1}."
        )

    def rows(self, shard: str, rows: Iterable[int]) -> list[dict[str, Any]]:
        """Packed rows of a shard, in ascending order of row."""
        path = self.path(shard)
        there = tables.open_file(path).schema.names
        columns = [name for name in (*PACKED_COLUMNS, "rejected") if name in there]
        found = tables.take_rows(path, np.array(sorted(rows), np.int64), columns=columns)
        return list(found.to_pylist())

    def find(self, sample: str) -> list[tuple[str, int]]:
        """The shards and rows in which the sample lies."""
        line = self.line(sample)
        found = []
        for number in sorted(set(line["shard"] or [])):
            shard = f"{line['split']}-{number:05d}.arrow"
            ids = tables.read(self.path(shard), columns=["sample_ids"])["sample_ids"]
            held = pl.Series(pl.from_arrow(ids)).list.contains(sample)
            found += [(shard, int(row)) for row in held.arg_true()]
        return found

    def remember(self, samples: Iterable[str]) -> None:
        """The lines of these samples are known, by one reading of the index."""
        wanted = pl.Series(sorted(set(samples) - self._known.keys()), dtype=pl.String)
        path = tables.join(self.folder, "index.arrow")
        for number, some in enumerate(self.lines(["id"]) if len(wanted) else ()):
            here = some["id"].is_in(wanted.implode()).arg_true()
            if len(here):
                batch = pa.table(tables.batch_at(path, tables.open_file(path), number))
                lines = pl.DataFrame(batch.take(here.to_arrow())).select(INDEX.names)
                self._known.update((line["id"], line) for line in lines.iter_rows(named=True))

    def line(self, sample: str) -> dict[str, Any]:
        """The sample's line of the index.

        Raises:
            ValueError: no sample of that id was read.
        """
        self.remember([sample])
        if sample not in self._known:
            raise ValueError(self._no_sample(sample))
        return self._known[sample]

    def _no_sample(self, sample: str) -> str:
        read, first, near = 0, "", list[str]()
        for some in self.lines(["id"]):
            first = first or str(some["id"].head(1).item() if len(some) else "")
            read += len(some)
            alike = some["id"].filter(some["id"].str.starts_with(sample.rsplit("/", 1)[0]))
            near += alike.head(NEAR - len(near)).to_list()
        return (
            f"{self.folder}/index.arrow: no sample '{sample}' among {read:,} (an id reads like "
            f"'{first}').{did_you_mean(sample, near)}{self.unread_note}"
        )

    @property
    def unread_note(self) -> str:
        """That not all rows were read, where that is so."""
        some = [name for name, part in self.stats.get("reading", {}).items() if part["share"] < 1]
        if not some:
            return ""
        return (
            f"\nof {', '.join(some)} only some parts were read (stats.json names the others): "
            "rows of those have no line. read=all reads every one"
        )

    def samples_file(self, component: str, subset: str, part: str, *, work: str) -> str:
        """Where the build kept the samples of a part as they were read."""
        read = self._read_as(component, subset)
        return tables.join(work, "samples", read, f"{part.rsplit('/', 1)[-1]}.arrow")

    def _read_as(self, component: str, subset: str) -> str:
        """The fingerprint of the samples of a subset; what is in LATER came after them."""
        inputs = self.recipe["inputs"][f"{component}/{subset}"]
        identity = {key: value for key, value in inputs.items() if key not in LATER}
        return recipes.fingerprint("ingest", self.recipe["versions"]["ingest"], identity)

    def revised_file(self, component: str, subset: str, part: str, *, work: str) -> str:
        """Where the build kept what a model wrote for the samples of a part; empty: nothing."""
        revision = self.recipe["inputs"][f"{component}/{subset}"].get("revised")
        name = f"{part.rsplit('/', 1)[-1]}.arrow"
        read = self._read_as(component, subset)
        return revised_file(work, read, revision, name) if revision else ""

    def missing_file(self, component: str, subset: str, part: str, *, work: str) -> str:
        """A file that holds the samples of a part and is not there; empty: all are."""
        of_part = {"component": component, "subset": subset, "part": part, "work": work}
        files = (self.samples_file(**of_part), self.revised_file(**of_part))
        return next((path for path in files if path and not tables.exists(path)), "")

    def take_samples(
        self, component: str, subset: str, part: str, *, rows: np.ndarray,
        columns: Sequence[str], work: str, as_read: bool = False,
    ) -> pa.Table:  # fmt: skip
        """Columns of some samples of a part whose file is there; `as_read`, or as they are in the
        mixture, with the texts that a model wrote for them.
        """
        path = self.samples_file(component, subset, part, work=work)
        beside = self.revised_file(component, subset, part, work=work)
        found = tables.take_rows(path, rows, columns=columns)
        if as_read or not beside:
            return found
        return revised(found, tables.take_rows(beside, rows, columns=REVISED.names))

    def sample(self, sample: str, *, work: str) -> dict[str, Any] | None:
        """The sample (SAMPLE) as it is in the mixture, out of `work`; None where that was cleaned
        away. What a model has rewritten of it stands as it was read under `read`.
        """
        line = self.line(sample)
        of_part = {name: str(line[name]) for name in ("component", "subset", "part")}
        if self.missing_file(**of_part, work=work):
            return None
        columns = tables.open_file(self.samples_file(**of_part, work=work)).schema.names

        def one(*, as_read: bool) -> dict[str, Any]:
            rows = np.array([line["row"]])
            found = self.take_samples(
                **of_part, rows=rows, columns=columns, work=work, as_read=as_read
            )
            return dict(found.to_pylist()[0])

        found, read = one(as_read=False), one(as_read=True)
        return found if found["messages"] == read["messages"] else {**found, "read": read}


def open_finished(folder: str) -> Finished:
    """The finished mixture in the folder (or under the URL).

    Raises:
        FileNotFoundError: no `recipe.json` there: not a mixture, or one whose build did not end.
    """
    path = tables.join(folder, "recipe.json")
    if not tables.exists(path):
        raise FileNotFoundError(
            f"{folder}: no recipe.json, so no finished mixture. Build one: "
            "python -m pipelines build mixture=NAME output=" + str(folder)
        )
    stats = tables.read_json(tables.join(folder, "stats.json"))
    return finished_of(folder, recipe=tables.read_json(path), stats=stats)


def finished_of(folder: str, *, recipe: dict[str, Any], stats: dict[str, Any]) -> Finished:
    """The mixture whose shards, index and tokenizer lie in the folder, its small files in hand."""
    names = [n for n in tables.listing(tables.join(folder, "shards")) if n.endswith(".arrow")]
    return Finished(
        folder=str(folder).rstrip("/"),
        recipe=recipe,
        stats=stats,
        shards={
            split: [name for name in names if name.startswith(f"{split}-")]
            for split in ("train", "val")
        },
    )


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """A sentence that names the known name nearest to the one found, or nothing."""
    near = difflib.get_close_matches(found, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""
