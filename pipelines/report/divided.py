"""Lines divided into files, so that all that is said of one sample, or of one place, lies in one.

lines --add, by a hash of their id--> a file per kind of lines and range --each--> what was said of
      --put, where it is said------->                                    one place, joined there

A join of two sides of many millions of lines then needs the memory of one range.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pyarrow as pa

LINES = 1 << 20
"""Of a range, about."""
MOST_RANGES = 256
"""Each is an open file for each kind of lines, of which a process may have some 1,000."""


class Divided:
    """Files of `ranges` ranges in a folder, being written."""

    def __init__(self, folder: str, *, ranges: int) -> None:
        self._folder, self.ranges = Path(folder), ranges
        self._files = ExitStack()
        self._writers: dict[tuple[str, int], pa.RecordBatchStreamWriter] = {}

    def add(self, kind: str, lines: pl.DataFrame) -> None:
        """Other lines of a kind, with `id`; no column is of categories."""
        self.put(kind, lines, (lines["id"].hash(0) % self.ranges).to_numpy())

    def put(self, kind: str, lines: pl.DataFrame, place: np.ndarray) -> None:
        """Other lines of a kind, each in the range that `place` says."""
        order = np.argsort(place, kind="stable")
        table = lines[order].to_arrow()
        ends = np.searchsorted(place[order], np.arange(self.ranges + 1))
        for number, (start, stop) in enumerate(pairwise(ends)):
            if stop > start or (kind, number) not in self._writers:
                self._writer(kind, number, table.schema).write_table(table[start:stop])

    def _writer(self, kind: str, number: int, schema: pa.Schema) -> pa.RecordBatchStreamWriter:
        if (kind, number) not in self._writers:
            path = str(self._folder / f"{kind}-{number}")
            writer = self._files.enter_context(pa.ipc.new_stream(path, schema))
            self._writers[kind, number] = writer
        return self._writers[kind, number]

    def each(self, *kinds: str) -> Iterator[list[pl.DataFrame]]:
        """The lines of each kind, range after range; nothing is added any more."""
        for number in range(self.ranges):
            yield [self.read(kind, number) for kind in kinds]

    def read(self, kind: str, number: int) -> pl.DataFrame:
        """The lines of a kind in a range; nothing is added any more."""
        self._files.close()
        path = self._folder / f"{kind}-{number}"
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
            return pl.DataFrame(reader.read_all())


@contextmanager
def divided(count: int, *, lines: int = LINES) -> Iterator[Divided]:
    """Files in TMPDIR for `count` lines of a kind, about `lines` in each; gone afterwards."""
    with TemporaryDirectory(prefix="lines.") as folder:
        yield Divided(folder, ranges=min(MOST_RANGES, max(1, -(-count // lines))))
