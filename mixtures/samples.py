"""What of an index is numbers, a value per sample in columns: all that picking and dealing read.

    lines of the index (some at a time) --numbers--> columns of Samples, part after part

| column                  | of a sample                                          |
|-------------------------|------------------------------------------------------|
| key                     | the hash of its id (draw.py)                         |
| live                    | no rule took it                                      |
| limited                 | bit i set: under the i-th of `limits`                |
| num_tokens, num_learned | as in the index; num_crops and num_bytes, too        |
| size                    | ms of a video, 1000 x crops of another               |
| row                     | within its part                                      |
| weight                  | with `weight_by`: what the chance to be drawn is of  |
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from mixtures import draw
from mixtures.columns import Column, New, in_memory
from mixtures.config import Mixture
from mixtures.limits import limit_masks

TYPES = {
    "key": np.uint64,
    "live": np.bool_,
    "limited": np.uint32,
    "num_tokens": np.int32,
    "num_learned": np.int32,
    "num_crops": np.int32,
    "num_bytes": np.int64,
    "size": np.int64,
    "row": np.int32,
}
WEIGHT = {"weight": np.float64}


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The numbers of an index, part after part."""

    subsets: list[tuple[str, str]]
    """(component, subset) in the order of their names."""
    parts: list[str]
    """The name of each part."""
    subset_of: np.ndarray
    """[parts] the place of its subset in `subsets`."""
    starts: np.ndarray
    """[parts + 1] how many samples lie before each part; the last: all."""
    columns: Mapping[str, Column]
    """TYPES (and WEIGHT), a value per sample."""
    new: New
    """Where columns are made that come of these."""

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read(self, names: Sequence[str], start: int, stop: int) -> list[np.ndarray]:
        """A stretch of these columns."""
        return [self.columns[name][start:stop] for name in names]

    def part_of(self, start: int, stop: int) -> np.ndarray:
        """[stop - start] the part of each sample."""
        first, last = self._parts_in(start, stop)
        inside = np.clip(self.starts[first : last + 1], start, stop)
        return np.repeat(np.arange(first, last), np.diff(inside))

    def part_at(self, rows: np.ndarray) -> np.ndarray:
        """The part of each of these samples."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def runs(self, start: int, stop: int) -> Iterator[tuple[int, slice]]:
        """The stretches of one subset each, relative to `start`: (which, where)."""
        first, last = self._parts_in(start, stop)
        of = self.subset_of[first:last]
        begins = np.flatnonzero(np.r_[True, of[1:] != of[:-1]]) if len(of) else np.zeros(0, int)
        edges = np.clip(self.starts[first : last + 1], start, stop) - start
        for begin, end in zip(begins, [*begins[1:], len(of)], strict=True):
            yield int(of[begin]), slice(int(edges[begin]), int(edges[end]))

    def _parts_in(self, start: int, stop: int) -> tuple[int, int]:
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        return first, int(np.searchsorted(self.starts, stop, side="left"))

    def rows_of_subsets(self) -> np.ndarray:
        """[subsets] how many samples of each were read."""
        return np.bincount(self.subset_of, np.diff(self.starts), len(self.subsets)).astype(np.int64)


def types_of(mixture: Mixture) -> dict[str, type]:
    """The columns that this mixture needs."""
    return {**TYPES, **(WEIGHT if mixture.weight_by else {})}


def numbers(
    lines: pl.DataFrame,
    mixture: Mixture,
    *,
    licences: Mapping[str, str],
    keys: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """The columns of these lines of the index. `keys`: those of the ids, where they are known."""
    counts = lines.select(
        pl.col("num_tokens", "num_learned", "num_crops", "num_bytes").fill_null(0)
    )
    size = pl.coalesce("duration", "num_crops").cast(pl.Float64) * 1000
    found = {
        "key": draw.sample_keys(lines["id"], seed=mixture.seed) if keys is None else keys,
        "live": lines["rule"].is_null().to_numpy(),
        "limited": limit_masks(lines, mixture, licences=licences).to_numpy(),
        **{name: counts[name].to_numpy() for name in counts.columns},
        "size": lines.select(size.cast(pl.Int64).fill_null(0)).to_series().to_numpy(),
        "row": lines["row"].to_numpy(),
    }
    return {**found, "weight": _weights(lines, mixture)} if mixture.weight_by else found


def _weights(lines: pl.DataFrame, mixture: Mixture) -> np.ndarray:
    """A weight of null counts 1."""
    if "weight" not in lines.columns:
        raise ValueError(
            f"{mixture.name}: weight_by is {mixture.weight_by!r}, but the index has no column "
            f"`weight`; expected the verdicts to carry that fact."
        )
    return lines["weight"].cast(pl.Float64).fill_null(1.0).to_numpy()


def refuse_weights(samples: Samples, mixture: Mixture, start: int, stop: int) -> None:
    """Raises ValueError where a sample that no rule took has a weight below 0, or NaN."""
    live, weight = samples.read(("live", "weight"), start, stop)
    wrong = weight[live & ~(weight >= 0)]
    if len(wrong):
        raise ValueError(
            f"{mixture.name}: weight_by {mixture.weight_by!r} has negative or undefined values\n"
            f"found: {len(wrong):,} in {stop - start:,} samples, least {np.nanmin(wrong):g}\n"
            "expected: 0 or more of every sample that no rule takes\n"
            f"way out: filters: {{out_of_bounds: {{facts: {{{mixture.weight_by}: {{min: 0}}}}}}}}"
        )


def ranks(samples: Samples, start: int, stop: int) -> np.ndarray:
    """[stop - start] uint64: what samples are drawn by, smallest first: the hash, or with weights
    a weighted one.

    Weighted: -log(u) / weight, so that the first n are a draw without replacement with chances in
    proportion to the weights (Efraimidis and Spirakis 2006); as bits, which are in the order of the
    numbers where none is negative (IEEE 754).
    """
    keys = samples.columns["key"][start:stop]
    if "weight" not in samples.columns:
        return keys
    weight = samples.columns["weight"][start:stop]
    spent = -np.log1p(-draw.unit_fractions(keys))
    drawn = np.divide(spent, weight, out=np.full(len(keys), np.inf), where=weight > 0)
    return (drawn + 0.0).view(np.uint64)  # without a negative zero


def samples_of(
    index: pl.DataFrame,
    mixture: Mixture,
    *,
    licences: Mapping[str, str] | None = None,
    new: New = in_memory,
) -> tuple[Samples, np.ndarray]:
    """(The numbers of an index in memory, [N] its row that each sample is)."""
    names = ["component", "subset", *(["part"] if "part" in index.columns else [])]
    some = index.select(names).select(pl.all().cast(pl.String))
    code = some.select(pl.struct(names).rank("dense")).to_series().to_numpy().astype(np.int64) - 1
    order = np.argsort(code, kind="stable")
    counts = np.bincount(code, minlength=int(code.max(initial=-1)) + 1)
    starts = np.r_[0, np.cumsum(counts)].astype(np.int64)
    firsts = some[order[starts[:-1]]].rows()
    subsets = sorted({(component, subset) for component, subset, *_ in firsts})
    place = {subset: i for i, subset in enumerate(subsets)}
    row = index if "row" in index.columns else index.with_columns(row=pl.lit(0, pl.Int32))
    found = numbers(row, mixture, licences=licences or {})
    columns = {name: new(kind) for name, kind in types_of(mixture).items()}
    for name, column in columns.items():
        column.append(found[name][order])
    samples = Samples(
        subsets=subsets,
        parts=[last for *_, last in firsts],
        subset_of=np.array([place[c, s] for c, s, *_ in firsts], np.int64),
        starts=starts,
        columns=columns,
        new=new,
    )
    return samples, order


def component_places(samples: Samples, mixture: Mixture) -> np.ndarray:
    """[subsets] int16: the place of its component in the mixture."""
    names = list(mixture.components)
    return np.array([names.index(component) for component, _ in samples.subsets], np.int16)
