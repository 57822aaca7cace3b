"""What rules on the whole mixture take of an index that is in files.

    hashes in columns --ranges of them--> rows that have equals --their ids--> the rule --> flags

Equal rows have equal hashes, so that a range of hashes can be looked at after the other, and of it
only the rows that are not alone. Near rows are compared by tasks (near.py), in the order of ids.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

import filters
from mixtures import draw
from mixtures.columns import ROWS, Column, stretches
from mixtures.config import Mixture
from mixtures.samples import Samples

HASHES = ("text_hash", "bytes_hash", "pixels_hash")
"""What equal rows are compared by: known until the rules on the whole mixture have been applied."""
AT_ONCE = 4 * ROWS
"""Hashes looked at, or rows compared, at a time."""
Hashes = Callable[[int, int], np.ndarray]
"""(start, stop) -> uint64: what rows of a stretch are compared by; 0: nothing."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What one rule on the whole mixture takes or marks."""

    rule: str
    mode: str
    """drop | mark"""
    flags: Column
    """Bool per sample."""


def refuse_repeats(samples: Samples, files: Sequence[tuple[int, str]]) -> None:
    """Raises ValueError where two components read the same sample: it would be counted twice."""
    for rows in repeated(lambda start, stop: samples.columns["key"][start:stop], len(samples)):
        some = about(rows, samples, files)
        twice = some.filter(pl.col("id").is_duplicated())
        if len(twice):
            first = twice["id"][0]
            names = twice.filter(pl.col("id") == first)["component"].to_list()
            raise ValueError(
                f"components {', '.join(dict.fromkeys(names))} read the same samples ({first} and "
                f"{twice['id'].n_unique() - 1:,} more). A subset belongs to one component: name "
                "other subsets in one of them."
            )


def repeated(hashes: Hashes, length: int, *, at_once: int = AT_ONCE) -> Iterator[np.ndarray]:
    """The rows whose hash another row has, ascending, all of one hash together; about `at_once` at
    a time. A hash of 0 is none.
    """
    ranges = max(1, -(-length // at_once))
    width = 2**64 // ranges + 1
    waiting: list[np.ndarray] = []
    for number in range(ranges):
        low, high = np.uint64(number * width), np.uint64(min((number + 1) * width, 2**64) - 1)
        values, rows = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
        for start, stop in stretches(length):
            found = hashes(start, stop)
            here = np.flatnonzero((found >= low) & (found <= high) & (found != 0))
            values.append(found[here])
            rows.append(here + start)
        value, row = np.concatenate(values), np.concatenate(rows)
        ordered = np.sort(value)
        again = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        waiting.append(row[np.isin(value, again)])
        if sum(map(len, waiting)) >= at_once or number == ranges - 1:
            yield np.sort(np.concatenate(waiting))
            waiting = []


def about(
    rows: np.ndarray,
    samples: Samples,
    files: Sequence[tuple[int, str]],
    *,
    values: Sequence[str] = (),
) -> pl.DataFrame:
    """A line per row (ascending): at (itself), id, component, subset, piece, row, and `values`."""
    read = ["id", *values]
    lines = [pl.DataFrame(schema={"id": pl.String, **dict.fromkeys(values, pl.Float64)})]
    for number, (start, path) in enumerate(files):
        stop = files[number + 1][0] if number + 1 < len(files) else len(samples)
        here = rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)] - start
        if len(here):
            lines.append(copied(pl.read_ipc(path, columns=read).select(read)[here]))
    part = samples.part_at(rows)
    subset = samples.subset_of[part]
    component = pl.Series([component for component, _ in samples.subsets], dtype=pl.String)
    name = pl.Series([name for _, name in samples.subsets], dtype=pl.String)
    return pl.DataFrame(
        {
            "at": rows,
            "component": component.cast(pl.Categorical).gather(subset),
            "subset": name.cast(pl.Categorical).gather(subset),
            "piece": pl.Series(part.astype(np.int32)),
            "row": pl.Series((rows - samples.starts[part]).astype(np.int32)),
        }
    ).hstack(pl.concat(lines))


def copied(lines: pl.DataFrame) -> pl.DataFrame:
    """The lines with texts of their own: those taken of a file that is mapped keep all of it."""
    return pl.DataFrame(lines.to_arrow(compat_level=pl.CompatLevel.oldest()))


def taken_of(
    samples: Samples,
    files: Sequence[tuple[int, str]],
    hashes: Mapping[str, Column],
    values: Sequence[str],
    mixture: Mixture,
    *,
    run: filters.Run,
) -> list[Taken]:
    """What each rule takes of what the rules before it left."""
    applications = filters.mixture_applications(
        mixture.filters, {name: c.filters for name, c in mixture.components.items()}
    )
    left = samples.new(np.bool_)
    for start, stop in stretches(len(samples)) if applications else ():
        left.append(samples.columns["live"][start:stop])
    found = []
    for each in applications:
        seen = np.array([each.sees(component) for component, _ in samples.subsets], bool)

        def there(start: int, stop: int, seen: np.ndarray = seen) -> np.ndarray:
            of = samples.subset_of[samples.part_of(start, stop)]
            return left[start:stop] & seen[of]

        whole = each.near or not each.needs  # of all that are left, in memory
        if whole:
            rows = np.concatenate(
                [np.flatnonzero(there(a, b)) + a for a, b in stretches(len(samples))]
                or [np.zeros(0, np.int64)]
            )
            groups: Iterator[np.ndarray] = iter([rows])
        else:
            by = [hashes[name] for name in each.needs]

            def combined(start: int, stop: int, by: Sequence[Column] = by) -> np.ndarray:
                out = np.zeros(stop - start, np.uint64)
                for column in by:
                    out = draw.rehash(out, "with") * (out != 0) + column[start:stop]
                return out * there(start, stop)

            groups = repeated(combined, len(samples))
        gone = [np.zeros(0, np.int64)]
        for rows in groups:
            frame = about(rows, samples, files, values=values if whole else ())
            frame = frame.with_columns(priority=priorities(mixture))
            for name in () if whole else each.needs:
                value = pl.Series(hashes[name][rows])
                frame = frame.with_columns(pl.when(value != 0).then(value).alias(name))
            took = each.call(frame.drop("at"), run)
            gone.append(frame.select("at", "id").join(took, on="id", how="semi")["at"].to_numpy())
        found.append(Taken(rule=each.rule, mode=each.mode, flags=flags_of(gone, samples)))
        for start, stop in stretches(len(samples)) if each.mode == "drop" else ():
            left.write(start, left[start:stop] & ~found[-1].flags[start:stop])
    return found


def flags_of(rows: Sequence[np.ndarray], samples: Samples) -> Column:
    """A bool per sample: it is among the rows."""
    ordered, flags = np.sort(np.concatenate(rows)), samples.new(np.bool_)
    for start, stop in stretches(len(samples)):
        some = np.zeros(stop - start, bool)
        some[ordered[np.searchsorted(ordered, start) : np.searchsorted(ordered, stop)] - start] = 1
        flags.append(some)
    return flags


def priorities(mixture: Mixture) -> pl.Expr:
    """Of two duplicates the one of the smaller number stays: by `priority`, then as in the file."""
    names = sorted(mixture.components, key=lambda name: -mixture.components[name].priority)
    order = {name: i for i, name in enumerate(names)}
    return pl.col("component").replace_strict(order, return_dtype=pl.Int16)
