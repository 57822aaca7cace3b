"""The index: verdicts and token counts of every part, joined; one line per sample ever read.

verdicts + counts --index_in--> numbers in columns, lines in files, some parts at a time
                  --whole_mixture--> what the rules on the whole mixture take of it

Neither is in memory: numbers are what picking and dealing read (mixtures/samples.py), lines what is
written and told. Whatever is asked of all lines is asked of those of some parts after the other.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pyarrow as pa

import filters
from mixtures import pick as picking
from mixtures.columns import Column, in_folder, stretches
from mixtures.config import Mixture, rules_of
from mixtures.samples import Samples, numbers, types_of
from pipelines.engine import tables
from pipelines.near import Searching, compare_in_memory
from pipelines.survey import Piece, licences_of
from pipelines.whole_mixture import HASHES, Taken, refuse_repeats, taken_of

JUDGED = (
    *("id", "modality", "duration", "num_bytes", "tags", "rule", "fired", "detail", "weight"),
    *HASHES,
)
COUNTED = ("num_tokens", "num_learned", "num_crops")
ENCODED = ("problem", "splittable")
"""What is read of VERDICTS; of TOKENS; and of TOKENS for the reason alone."""
PARTS = 64
"""Parts whose lines are made at a time: what does not depend on rows costs little then."""


@dataclass(frozen=True, kw_only=True)
class Index:
    """One line per sample read, before anything is picked."""

    samples: Samples
    """Its numbers, a part for each of the pieces."""
    seconds: Column
    """float32: of a video, else nan."""
    files: list[tuple[int, str]]
    """(Samples before it, a file of lines as `index_lines` makes them)."""
    taken: list[Taken]
    """What rules on the whole mixture take or mark."""

    def __len__(self) -> int:
        return len(self.samples)

    def lines(self) -> Iterator[tuple[int, pl.DataFrame]]:
        """(Samples before them, the lines of some parts) with the first reason each must go."""
        for start, path in self.files:
            lines = pl.read_ipc(path)
            yield start, with_mixture_rules(lines, self.taken, start)

    def picked_lines(self, picked: picking.Picked, mixture: Mixture) -> Iterator[pl.DataFrame]:
        """All lines with what was picked of them, those of some parts at a time."""
        for start, lines in self.lines():
            here = slice(start, start + len(lines))
            yield picking.with_picks(
                lines,
                self.samples.columns["key"][here],
                picked.reason[here],
                picked.copies[here],
                reasons=picked.reasons,
                mixture=mixture,
            )

    def live_counts(self, reason: Column | None = None) -> dict[tuple[str, str, int], int]:
        """(component, subset, limited) -> samples that no rule took and, with `reason`, no cap."""
        found: dict[tuple[str, str, int], int] = {}
        for start, stop in stretches(len(self)):
            live, limited = self.samples.read(("live", "limited"), start, stop)
            if reason is not None:
                live &= reason[start:stop] == 0
            for subset, here in self.samples.runs(start, stop):
                values, counts = np.unique(limited[here][live[here]], return_counts=True)
                for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                    key = *self.samples.subsets[subset], value
                    found[key] = found.get(key, 0) + count
        return found


def whole_rows(pieces: Sequence[Piece]) -> dict[tuple[str, str], int]:
    """(component, subset) -> rows of the subset, where only some of its parts are read."""
    rows: dict[tuple[str, str], float] = {}
    for p in pieces:
        if p.part.share < 1:
            key = (p.component, p.part.subset)
            rows[key] = rows.get(key, 0.0) + tables.num_rows(p.verdicts) / p.part.share
    return {key: round(count) for key, count in rows.items()}


def index_of(
    pieces: Sequence[Piece], mixture: Mixture, *, searching: Searching = compare_in_memory
) -> pl.DataFrame:
    """The lines of a few parts in memory, as `index_in` has them."""
    with TemporaryDirectory() as folder:
        found = index_in(folder, pieces, mixture, searching=searching)
        return pl.concat([lines for _, lines in found.lines()])


def index_in(
    folder: str,
    pieces: Sequence[Piece],
    mixture: Mixture,
    *,
    searching: Searching = compare_in_memory,
) -> Index:
    """One line per sample read, with the first reason it must go, before anything is picked; what
    it holds lies in `folder`, and nothing else.

    The order of reasons: the defect or rule of the sample itself, then what prevents its encoding,
    `too_long`, then the rules on the whole mixture. What near rows are compared by (112 bytes a
    sample, 8 an image) is not read here, but by `searching`, where they are compared.
    """
    shutil.rmtree(folder, ignore_errors=True)
    Path(folder).mkdir(parents=True)
    new = in_folder(folder)
    columns = {name: new(kind) for name, kind in types_of(mixture).items()}
    hashes = {name: new(np.uint64) for name in HASHES}
    seconds, licences = new(np.float32), licences_of(mixture) if mixture.limits else {}
    files: list[tuple[int, str]] = []
    sizes: list[int] = []
    for first in range(0, len(pieces), PARTS):
        lines = index_lines(pieces[first : first + PARTS], mixture, first=first)
        for name, values in numbers(lines, mixture, licences=licences).items():
            columns[name].append(values)
        for name in HASHES:
            hashes[name].append(lines[name].fill_null(0).to_numpy())
        seconds.append(lines["duration"].fill_null(float("nan")).to_numpy())
        some = lines["piece"].to_numpy() - first
        path = f"{folder}/lines-{first:07d}.arrow"
        lines.drop(HASHES).write_ipc(path)
        files.append((sum(sizes), path))
        sizes += np.bincount(some, minlength=len(pieces[first : first + PARTS])).tolist()
    samples = samples_of_pieces(pieces, sizes, columns, folder)
    found = Index(samples=samples, seconds=seconds, files=files, taken=[])
    refuse_repeats(samples, files)
    facts = values_of(mixture)
    taken = taken_of(samples, files, hashes, facts, mixture, run=searching(pieces))
    for column in hashes.values():
        column.clear()
    for each in taken:
        if each.mode == "drop":
            for start, stop in stretches(len(samples)):
                live = columns["live"][start:stop]
                columns["live"].write(start, live & ~each.flags[start:stop])
    return Index(samples=found.samples, seconds=seconds, files=files, taken=taken)


def samples_of_pieces(
    pieces: Sequence[Piece], sizes: Sequence[int], columns: dict[str, Column], folder: str
) -> Samples:
    """The numbers of these pieces, of so many samples each."""
    subsets = sorted({(p.component, p.part.subset) for p in pieces})
    place = {subset: i for i, subset in enumerate(subsets)}
    inside = Path(folder) / "made"
    inside.mkdir()
    return Samples(
        subsets=subsets,
        parts=[p.part.name for p in pieces],
        subset_of=np.array([place[p.component, p.part.subset] for p in pieces], np.int64),
        starts=np.r_[0, np.cumsum(sizes)].astype(np.int64),
        columns=columns,
        new=in_folder(inside),
    )


def index_lines(pieces: Sequence[Piece], mixture: Mixture, *, first: int) -> pl.DataFrame:
    """The lines of some parts, with the reasons that each sample alone decides; `first` is the
    `piece` of the first of them.
    """
    values = values_of(mixture)
    judged = [with_values(p, values) for p in pieces]
    counted = [tables.read(p.tokens, columns=["id", *COUNTED, *ENCODED]) for p in pieces]
    for p, one, other in zip(pieces, judged, counted, strict=True):
        if not one["id"].equals(other["id"]):
            raise AssertionError(f"{p.verdicts} and {p.tokens} hold other rows")
    verdicts = pl.DataFrame(pa.concat_tables(judged).combine_chunks())
    tokens = pl.DataFrame(pa.concat_tables(counted).drop(["id"]).combine_chunks())
    of_piece = pl.DataFrame(
        {
            "piece": pl.Series(range(first, first + len(pieces)), dtype=pl.Int32),
            "source": [p.part.source for p in pieces],
            "component": [p.component for p in pieces],
            "subset": [p.part.subset for p in pieces],
            "part": [p.part.name for p in pieces],
            "own": pl.Series(
                [mixture.components[p.component].tags for p in pieces], dtype=pl.List(pl.String)
            ),
            "seq_len": [p.encoding.seq_len for p in pieces],
            "max_crops": [p.encoding.max_crops for p in pieces],
        }
    )
    sizes = [len(table) for table in judged]
    about = picking.categorical(of_piece)[np.repeat(np.arange(len(pieces)), sizes)]
    row = np.concatenate([np.arange(size, dtype=np.int32) for size in sizes])
    too_long = filters.RULES["too_long"].function()
    dropped, fires = by_tokens(pieces)
    tags, fired = pl.col("tags").fill_null([]), pl.col("fired").fill_null([])
    if any(mixture.components[p.component].tags for p in pieces):
        tags = pl.concat_list(tags, "own")
    if fires:
        fired = pl.concat_list(fired, *fires).list.drop_nulls()
    reason = pl.coalesce("rule", "problem", pl.when(too_long).then(pl.lit("too_long")), *dropped)
    lines = (
        verdicts.hstack(tokens)
        .hstack(about)
        .with_columns(
            rule=reason,
            tags=tags,
            fired=fired,
            row=pl.Series(row),
        )
    )
    unread = [*ENCODED, "own", "seq_len", "max_crops", *([] if mixture.weight_by else ["weight"])]
    return picking.categorical(lines.drop(unread))


def values_of(mixture: Mixture) -> list[str]:
    """The columns of facts of which rules of any component take quantiles."""
    rules = [rules_of(mixture, name) for name in mixture.components]
    facts = dict.fromkeys(fact for one in rules for fact in filters.quantile_facts(one))
    return [f"{fact}{filters.VALUE}" for fact in facts]


def with_values(piece: Piece, values: Sequence[str]) -> pa.Table:
    """JUDGED of a part and `values`, null where none of its rules asks for one."""
    own = [f"{fact}{filters.VALUE}" for fact in filters.quantile_facts(dict(piece.rules))]
    table = tables.read(piece.verdicts, columns=[*JUDGED, *own])
    for name in values:
        if name not in own:
            table = table.append_column(name, pa.nulls(len(table), pa.float64()))
    return table.select([*JUDGED, *values])


def by_tokens(pieces: Sequence[Piece]) -> tuple[list[pl.Expr], list[pl.Expr]]:
    """(the name of the rule that takes a line, else null; of every one that fires) per component
    and rule on token counts that the mixture states.
    """
    dropped: list[pl.Expr] = []
    fired: list[pl.Expr] = []
    for component, rules in {p.component: p.rules for p in pieces}.items():
        for name, given in rules:
            rule = filters.RULES[name]
            if rule.scope != "index" or name == "too_long":
                continue
            mode, settings = filters.settings_of(name, given)
            takes = (pl.col("component") == component) & rule.function(**settings)
            fires = pl.when(takes).then(pl.lit(name))
            fired.append(fires)
            dropped += [fires] if mode == "drop" else []
    return dropped, fired


def with_mixture_rules(lines: pl.DataFrame, taken: Sequence[Taken], start: int) -> pl.DataFrame:
    """The lines with what the rules on the whole mixture took (`mode` drop) or marked."""
    stop = start + len(lines)
    lines = lines.drop([name for name in lines.columns if name.endswith(filters.VALUE)])
    flags = [each.flags[start:stop] for each in taken]
    hit = np.flatnonzero(np.any(flags, axis=0)) if flags else np.zeros(0, np.int64)
    if not len(hit):
        return lines
    fires = [
        pl.when(pl.Series(flag[hit])).then(pl.lit(each.rule)).cast(pl.Categorical)
        for each, flag in zip(taken, flags, strict=True)
    ]
    drops = [fire for each, fire in zip(taken, fires, strict=True) if each.mode == "drop"]
    some = lines.select("rule", "fired")[hit].select(
        rule=pl.coalesce("rule", *drops),
        fired=pl.concat_list("fired", *fires).list.drop_nulls(),
    )
    place = np.arange(len(lines))
    place[hit] = len(lines) + np.arange(len(hit))
    return lines.with_columns(
        pl.concat([lines["rule"], some["rule"]])[place],
        pl.concat([lines["fired"], some["fired"]])[place],
    )
