"""How well every stretch of the packed rows holds the mixture, not only the whole.

    a line per sample and row --rows_of--> Rows: numbers per packed row --strays--> worst, p95

Windows are summed some rows at a time, so that no step holds a number per row.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import polars as pl

from mixtures.columns import Column, in_memory, stretches, total
from mixtures.schedule import Points, passed

NO_SCHEDULES: Mapping[str, Points] = MappingProxyType({})
AT_ONCE = 1 << 16
"""Rows whose windows are summed at a time."""
P95 = 0.95
COLUMNS = ("units", "seconds", "videos", "crops", "lengths")
"""Of Rows."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Numbers of packed rows in the order of the shards, float64."""

    names: Sequence[str]
    """Of the components."""
    units: Column
    """In the unit of `measure`: of each component in turn, row after row."""
    seconds: Column
    """Of all videos of the row."""
    videos: Column
    """How many it holds."""
    crops: Column
    lengths: Column
    """Seconds of each video, whichever row it is in."""

    def __len__(self) -> int:
        return len(self.crops)

    def units_of(self, start: int, stop: int) -> np.ndarray:
        """[stop - start, components] units of some rows."""
        wide = len(self.names)
        return self.units[start * wide : stop * wide].reshape(-1, wide)


def balance(
    samples: pl.DataFrame, *, window: int = 1000, schedules: Mapping[str, Points] = NO_SCHEDULES
) -> pl.DataFrame:
    """`strays` of rows given by a line per sample, in any order: `place` (number of the row),
    component, units, seconds (of a video, else null), crops.
    """
    if samples.is_empty():
        return _table([])
    names = sorted(samples["component"].cast(pl.String).unique())
    return strays(rows_of(samples, names), there=names, window=window, schedules=schedules)


def rows_of(samples: pl.DataFrame, names: Sequence[str]) -> Rows:
    """The numbers of every row, in memory."""
    place = samples["place"].to_numpy()
    count = int(place.max()) + 1
    found = Rows(names=names, **{name: in_memory(np.float64) for name in COLUMNS})
    component = pl.Series(samples["component"].cast(pl.String))
    code = component.replace_strict(names, range(len(names)), return_dtype=pl.Int64).to_numpy()
    seconds = samples["seconds"]
    append_rows(
        found,
        place,
        code,
        units=samples["units"].to_numpy(),
        seconds=seconds.fill_null(math.nan).to_numpy(),
        crops=np.bincount(place, samples["crops"].to_numpy().astype(np.float64), count),
    )
    return found


def append_rows(
    rows: Rows,
    place: np.ndarray,
    component: np.ndarray,
    *,
    units: np.ndarray,
    seconds: np.ndarray,
    crops: np.ndarray,
) -> None:
    """Rows are added: of each sample its row among them, component, units, seconds (nan: no
    video); of each row its crops.
    """
    count, wide = len(crops), len(rows.names)
    rows.units.append(np.bincount(place * wide + component, units, count * wide))
    video = ~np.isnan(seconds)
    lengths = seconds[video].astype(np.float64)
    rows.seconds.append(np.bincount(place[video], lengths, count))
    rows.videos.append(np.bincount(place[video], minlength=count))
    rows.crops.append(crops)
    rows.lengths.append(lengths)


def strays(
    rows: Rows,
    *,
    there: Sequence[str],
    window: int = 1000,
    schedules: Mapping[str, Points] = NO_SCHEDULES,
) -> pl.DataFrame:
    """A line per component that is `there` (and for `seconds` and `crops`): how far windows of rows
    stray, those of `schedules` from what their schedule says of the window.

    Columns: what, whole (share of units, 0..1; for `seconds` the mean of a video, for `crops` the
    mean of a row), worst and p95 (largest and 95th percentile distance of a window of `window`
    consecutive rows from the whole: points of share 0..1, for seconds and crops relative), windows
    (how many there are; all positions). Fewer rows than `window`: one window, the whole.
    """
    if not len(rows):
        return _table([])
    window = min(window, len(rows))
    most = len(rows) - window + 1
    units = sum(rows.units_of(*some).sum(axis=0) for some in stretches(len(rows), rows=AT_ONCE))
    everything = max(float(np.sum(units)), 1e-12)
    share = units / everything
    of = {name: list(rows.names).index(name) for name in sorted(there)}
    away = {name: Distances(most) for name in of}
    seconds, crops = Distances(most), Distances(most)
    mean_seconds = total(rows.lengths) / max(len(rows.lengths), 1)
    mean_crops = total(rows.crops) / len(rows)
    for through in _through(rows, window):
        sums = through[window:] - through[:-window]
        all_units, in_videos, videos, in_crops = sums[:, -4:].T
        for name, k in of.items():
            got = _part(sums[:, k], all_units)
            part = through[:, -4] / everything
            asked = _asked(schedules[name], part, window) if name in schedules else share[k]
            away[name].add(np.abs(got - asked))
        means = (in_videos / np.maximum(videos, 1))[videos > 0]
        seconds.add(np.abs(means - mean_seconds) / (mean_seconds or 1.0))
        crops.add(np.abs(in_crops / window - mean_crops) / (mean_crops or 1.0))
    lines = [away[name].line(name, whole=float(share[k])) for name, k in of.items()]
    if len(rows.lengths):
        lines.append(seconds.line("seconds", whole=mean_seconds))
    if mean_crops:
        lines.append(crops.line("crops", whole=mean_crops))
    return _table(lines)


def _through(rows: Rows, window: int) -> Iterator[np.ndarray]:
    """[some rows + window, components + 4] units of each component and of all, seconds, videos and
    crops of the rows up to each, from `window` rows before some rows to their end.
    """
    last = np.zeros((1, len(rows.names) + 4))
    for start, stop in stretches(len(rows), rows=max(AT_ONCE, window)):
        units = rows.units_of(start, stop)
        others = [column[start:stop] for column in (rows.seconds, rows.videos, rows.crops)]
        some = np.column_stack([units, units.sum(axis=1), *others])
        some[0] += last[-1]
        through = np.concatenate([last, np.cumsum(some, axis=0)])
        yield through
        last = through[-window:]


def _part(some: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Some of the whole; 0 where it is nothing."""
    return np.divide(some, whole, out=np.zeros(len(whole)), where=whole > 0)


def _asked(points: Points, through: np.ndarray, window: int) -> np.ndarray:
    """The mean share that a schedule asks of each window; `through`: how much of all has passed."""
    part = passed(points, through)
    return _part(part[window:] - part[:-window], through[window:] - through[:-window])


class Distances:
    """The largest and the 95th percentile of up to `most` numbers; a twentieth is kept."""

    def __init__(self, most: int) -> None:
        self.count = 0
        self._above = most - int(P95 * (most - 1)) + 1
        self._kept = np.zeros(0)

    def add(self, some: np.ndarray) -> None:
        """Other numbers."""
        self.count += len(some)
        kept = np.concatenate([self._kept, some])
        over = len(kept) - self._above
        self._kept = np.partition(kept, over)[over:] if over > 0 else kept

    def line(self, what: str, *, whole: float) -> tuple[str, float, float, float, int]:
        """Of `what`: the whole, the largest, the 95th percentile (linear between numbers, as
        numpy's), how many there are.
        """
        falling = np.sort(self._kept)[::-1]
        at = P95 * (self.count - 1)
        over, place = at - int(at), self.count - 1 - int(at)
        low, high = falling[place], falling[max(place - 1, 0)]
        p95 = high - (high - low) * (1 - over) if over >= 0.5 else low + (high - low) * over
        return what, whole, float(falling[0]), float(p95), self.count


def _table(lines: list[tuple[str, float, float, float, int]]) -> pl.DataFrame:
    schema = {
        "what": pl.String,
        "whole": pl.Float64,
        "worst": pl.Float64,
        "p95": pl.Float64,
        "windows": pl.Int64,
    }
    return pl.DataFrame(lines, schema=schema, orient="row")
