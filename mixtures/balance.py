"""How well every stretch of the packed rows holds the mixture, not only the whole.

    one line per sample and row --> per packed row: units per component --> windows --> worst, p95

Reads a table with a line per sample of a packed row, in any order: `place` (number of the row in
the order of the shards), component, units (in the unit of `measure`), seconds (of a video, else
null), crops.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import polars as pl

from mixtures.schedule import Points, passed

NO_SCHEDULES: Mapping[str, Points] = MappingProxyType({})


def balance(
    samples: pl.DataFrame, *, window: int = 1000, schedules: Mapping[str, Points] = NO_SCHEDULES
) -> pl.DataFrame:
    """A line per component (and for `seconds` and `crops`): how far windows of rows stray, those of
    `schedules` from what their schedule says of the window.

    Columns: what, whole (share of units, 0..1; for `seconds` the mean of a video, for `crops` the
    mean of a row), worst and p95 (largest and 95th percentile distance of a window of `window`
    consecutive rows from the whole: points of share 0..1, for seconds and crops relative), windows
    (how many there are; all positions). Fewer rows than `window`: one window, the whole.
    """
    if samples.is_empty():
        return _table([])
    count = int(samples["place"].max()) + 1  # type: ignore[arg-type]
    window = min(window, count)
    place = samples["place"].to_numpy()
    units = samples["units"].to_numpy().astype(np.float64)
    row_units = np.bincount(place, units, count)
    total = _windows(row_units, window)
    lines = []
    for name in samples["component"].unique(maintain_order=True).sort():
        mine = (samples["component"] == name).to_numpy()
        part = _windows(np.bincount(place[mine], units[mine], count), window)
        share = np.divide(part, total, out=np.zeros(len(total)), where=total > 0)
        whole = float(units[mine].sum() / max(units.sum(), 1e-12))
        asked = _asked(schedules[name], row_units, window) if name in schedules else whole
        lines.append(_line(name, share, whole=whole, asked=asked))
    video = samples["seconds"].is_not_null().to_numpy()
    if video.any():
        seconds = samples["seconds"].to_numpy()[video].astype(np.float64)
        sums = _windows(np.bincount(place[video], seconds, count), window)
        videos = _windows(np.bincount(place[video], minlength=count).astype(np.float64), window)
        means = (sums / np.maximum(videos, 1))[videos > 0]
        lines.append(_line("seconds", means, whole=float(seconds.mean()), relative=True))
    crops = np.bincount(place, samples["crops"].to_numpy().astype(np.float64), count)
    if crops.any():
        means = _windows(crops, window) / window
        lines.append(_line("crops", means, whole=float(crops.mean()), relative=True))
    return _table(lines)


def _windows(values: np.ndarray, window: int) -> np.ndarray:
    """[rows - window + 1] the sum of every run of `window` values."""
    through = np.concatenate([[0.0], np.cumsum(values)])
    return through[window:] - through[:-window]


def _asked(points: Points, row_units: np.ndarray, window: int) -> np.ndarray:
    """[rows - window + 1] the mean share that a schedule asks of every window."""
    through = np.concatenate([[0.0], np.cumsum(row_units)]) / max(row_units.sum(), 1e-12)
    part = passed(points, through)
    length = through[window:] - through[:-window]
    return np.divide(
        part[window:] - part[:-window], length, out=np.zeros(len(length)), where=length > 0
    )


def _line(
    what: str,
    found: np.ndarray,
    *,
    whole: float,
    asked: float | np.ndarray | None = None,
    relative: bool = False,
) -> tuple[str, float, float, float, int]:
    away = np.abs(found - (whole if asked is None else asked)) / (
        whole if relative and whole else 1.0
    )
    return what, whole, float(away.max()), float(np.percentile(away, 95)), len(found)


def _table(lines: list[tuple[str, float, float, float, int]]) -> pl.DataFrame:
    schema = {
        "what": pl.String,
        "whole": pl.Float64,
        "worst": pl.Float64,
        "p95": pl.Float64,
        "windows": pl.Int64,
    }
    return pl.DataFrame(lines, schema=schema, orient="row")
