"""TOKENS and images -> PACKED: several samples in one row, with everything the trainer needs.

| in (one row per picked copy)              | out (one row per packed sequence)        |
|-------------------------------------------|------------------------------------------|
| id, input_ids, loss_mask, grids           | input_ids, loss_mask, grids: end to end  |
| num_tokens, num_crops, splittable         | seq_lengths, sample_ids: one per piece   |
| seq_lengths (of samples that are split)   |                                          |
| images (of SAMPLE)                        | images: bytes, path "<sample id>/<n>"    |
| rejected, where there are pairs           | rejected: one per piece                  |

What stays together is a sample, or one sequence of a splittable one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenization.fit import fill_bound, least_rows, pack_rows, row_flops
from tokenization.images import stored_bytes
from tokenization.order import even_order, features_of, strata_of
from tokenization.schema import PACKED_WRITTEN, PAIRED_WRITTEN, Encoding

__all__ = ["fill_bound", "least_rows", "pack", "pack_rows", "row_flops", "sequences"]

ROWS_PER_BATCH = 64
"""Packed rows per record batch: keeps image bytes of a batch below Arrow's 2 GiB."""

STRETCH_ROWS = (8, 32)
"""Rows that are packed and mixed with each other where the order of samples is kept: fewer could
not be filled, more would blur the order."""
STRETCHES = 20
"""Stretches of a shard that has too few rows for the longest ones."""
FULL = 0.985
"""Of the rows of a stretch, what is given to them, so that it fits."""


def _starts(lengths: np.ndarray) -> np.ndarray:
    """Where each of several pieces lying end to end begins, and the end; int64 [n + 1]."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _flat(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """(values, start of each row in them, with the end) of a column of lists of numbers."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    values = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate(values) if values else np.zeros(0), _starts(lengths)


def sequences(pieces: pa.Table, *, encoding: Encoding) -> list[list[int]]:
    """Per row of `pieces`: the lengths of what must stay together, in order.

    A sample is one piece. One that is `splittable` comes apart by its `seq_lengths`, or at
    `seq_len` where the table has no such column.
    """
    num_tokens = pieces["num_tokens"].to_pylist()
    splittable = pieces["splittable"].to_pylist()
    if "seq_lengths" in pieces.column_names:
        parts = pieces["seq_lengths"].to_pylist()
        return [p if s else [n] for p, s, n in zip(parts, splittable, num_tokens, strict=True)]
    length = encoding.seq_len
    return [
        [min(length, n - at) for at in range(0, n, length)] if s and n > length else [n]
        for n, s in zip(num_tokens, splittable, strict=True)
    ]


def _apart(rows: list[np.ndarray], ids: list[str], sizes: np.ndarray, limits: np.ndarray) -> None:
    """Afterwards no row holds a sample twice: one of the two has changed places with a part of
    another row, within both limits, or has a row of its own.
    """
    names = [{ids[piece] for piece in row} for row in rows]
    loads = [sizes[row].sum(axis=0) for row in rows]
    for n in range(len(rows)):
        if len(names[n]) == len(rows[n]):
            continue
        seen: set[str] = set()
        for position, piece in enumerate(rows[n].tolist()):
            if ids[piece] not in seen:
                seen.add(ids[piece])
                continue
            if not _swapped(n, position, rows, ids, names, loads, sizes, limits):
                rows.append(np.array([piece]))
                names.append({ids[piece]})
                loads.append(sizes[piece].copy())
                loads[n] = loads[n] - sizes[piece]
                rows[n][position] = -1
        rows[n] = rows[n][rows[n] >= 0]


def _swapped(
    n: int,
    position: int,
    rows: list[np.ndarray],
    ids: list[str],
    names: list[set[str]],
    loads: list[np.ndarray],
    sizes: np.ndarray,
    limits: np.ndarray,
) -> bool:
    """Whether the piece at `position` of row `n` has found a place in another row."""
    piece = int(rows[n][position])
    for other in range(len(rows)):
        if other == n or ids[piece] in names[other] or len(rows[other]) != len(names[other]):
            continue
        for place, candidate in enumerate(rows[other].tolist()):
            change = sizes[candidate] - sizes[piece]
            here, there = loads[n] + change, loads[other] - change
            if ids[candidate] in names[n] or (here > limits).any() or (there > limits).any():
                continue
            rows[n][position], rows[other][place] = candidate, piece
            names[n].add(ids[candidate])
            names[other] = (names[other] - {ids[candidate]}) | {ids[piece]}
            loads[n], loads[other] = here, there
            return True
    return False


class _Images:
    """The images of each row of `pieces`, as they go into a shard.

    No chunk of the column is joined to another: Arrow holds at most 2 GiB of bytes in one array.
    """

    def __init__(self, pieces: pa.Table, encoding: Encoding) -> None:
        self.encoding = encoding
        self.ids = pieces["id"].to_pylist()
        self.chunks = pieces["images"].chunks
        self.starts = _starts(np.array([len(chunk) for chunk in self.chunks], dtype=np.int64))

    def of(self, row: int, grids: list[dict[str, int]]) -> list[dict[str, bytes | str]]:
        """Bytes and names of the images of one row, which have these grids."""
        chunk = int(np.searchsorted(self.starts, row, side="right")) - 1
        images = self.chunks[chunk][row - int(self.starts[chunk])].values
        data = pc.struct_field(images, "bytes").to_pylist() if images is not None else []
        if len(data) != len(grids) or any(item is None for item in data):
            raise ValueError(
                f"sample {self.ids[row]}: {len(grids)} grids, but {len(data)} images, "
                f"{sum(item is None for item in data)} of them without bytes. Encode and pack the "
                "same table."
            )
        name = self.ids[row]
        return [
            {
                "bytes": stored_bytes(item, cell["rows"], cell["cols"], encoding=self.encoding),
                "path": f"{name}/{number}",
            }
            for number, (item, cell) in enumerate(zip(data, grids, strict=True))
        ]


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What is packed: samples, or the sequences of splittable ones. One row per part."""

    sample: np.ndarray
    """Row of `pieces`."""
    start: np.ndarray
    """First token, within the sample."""
    length: np.ndarray
    """Tokens."""
    crops: np.ndarray
    place: np.ndarray
    """0 for the first sequence of its sample, then 1, ..."""
    siblings: np.ndarray
    """Sequences of its sample."""


def _parts_of(pieces: pa.Table, encoding: Encoding) -> _Parts:
    """The parts of all pieces, in order. Raises ValueError where one alone is above a limit."""
    lengths = sequences(pieces, encoding=encoding)
    siblings = np.array([len(parts) for parts in lengths], dtype=np.int64)
    sample = np.repeat(np.arange(len(lengths)), siblings)
    parts = _Parts(
        sample=sample,
        start=np.array([s for p in lengths for s in accumulate(p[:-1], initial=0)], dtype=np.int64),
        length=np.array([n for p in lengths for n in p], dtype=np.int64),
        crops=pieces["num_crops"].to_numpy().astype(np.int64)[sample] // siblings[sample],
        place=np.arange(len(sample)) - _starts(siblings)[sample],
        siblings=siblings[sample],
    )
    for name, sizes, limit in (
        ("seq_len", parts.length, encoding.seq_len),
        ("max_crops", parts.crops, encoding.max_crops),
    ):
        if len(sizes) and sizes.max() > limit:
            worst = int(sizes.argmax())
            raise ValueError(
                f"sample {pieces['id'][int(sample[worst])]} needs {sizes[worst]}, above "
                f"encoding.{name} = {limit}. Reject such samples before packing, or raise it."
            )
    return parts


def stretch_rows(rows: int) -> int:
    """Rows that are packed and mixed with each other where so many keep the order of samples."""
    least, most = STRETCH_ROWS
    return min(most, max(least, rows // STRETCHES))


def _stretches(parts: _Parts, encoding: Encoding) -> Iterator[np.ndarray]:
    """Runs of parts that fill STRETCH_ROWS rows each, or the fewer where all fill few; the last
    what is left.
    """
    shares = np.stack([parts.length / encoding.seq_len, parts.crops / encoding.max_crops])
    through = np.concatenate([np.zeros((2, 1)), np.cumsum(shares, axis=1)], axis=1)  # [2, parts+1]
    rows, start = stretch_rows(int(through[:, -1].max())), 0
    while start < len(parts.sample):
        full = through[:, start] + rows * FULL
        ends = [
            int(np.searchsorted(t, f, side="right")) - 1 for t, f in zip(through, full, strict=True)
        ]
        end = max(start + 1, min(ends))
        yield np.arange(start, end)
        start = end


def _rows_of(
    parts: _Parts, members: np.ndarray, ids: list[str], *, encoding: Encoding, seed: int
) -> list[np.ndarray]:
    """These parts in rows, as `pack` orders them."""
    limits = {"seq_len": encoding.seq_len, "max_crops": encoding.max_crops}
    length, crops = parts.length[members], parts.crops[members]
    rows = pack_rows(length, crops, seed=seed, **limits)
    names = [ids[s] for s in parts.sample[members]]
    _apart(rows, names, np.stack([length, crops], axis=1), np.array(list(limits.values())))
    if rows:
        features = features_of(rows, strata_of(names, length), length, crops)
        rows = [rows[n] for n in even_order(features, rng=np.random.default_rng(seed))]
    return [members[row] for row in rows]


def pack(pieces: pa.Table, *, encoding: Encoding, seed: int, in_order: bool = False) -> pa.Table:
    """PACKED rows (of `pieces` with `rejected` PAIRED) of these samples, one row of `pieces` per
    copy, in an order in which every stretch holds all subsets and crops evenly, else random.

    `in_order`: rows follow the order of `pieces`, but for the few samples that share a stretch of
    rows (`_stretches`). Under `pack: none` each sample (each sequence of a splittable one) is a
    row, in the order given. No row holds a sample twice. Raises ValueError where one piece is above
    `seq_len` or `max_crops`, and where images and grids do not go together.
    """
    parts = _parts_of(pieces, encoding)
    ids = pieces["id"].to_pylist()
    every = np.arange(len(parts.sample))
    if encoding.pack == "none":
        rows = [np.array([part]) for part in every]
    elif in_order:
        rows = []
        for number, stretch in enumerate(_stretches(parts, encoding)):
            rows += _rows_of(parts, stretch, ids, encoding=encoding, seed=seed + number)
    else:
        rows = _rows_of(parts, every, ids, encoding=encoding, seed=seed)
    token, token_starts = _flat(pieces["input_ids"])
    mask, _ = _flat(pieces["loss_mask"])
    grids = pieces["grids"].to_pylist()
    stored_images = _Images(pieces, encoding)
    pairs = "rejected" in pieces.column_names
    schema = PAIRED_WRITTEN if pairs else PACKED_WRITTEN
    rejected = pieces["rejected"].to_pylist() if pairs else [None] * len(ids)

    def row_of(members: np.ndarray) -> dict[str, object]:
        sample = parts.sample[members].tolist()
        begin = token_starts[parts.sample[members]] + parts.start[members]
        spans = list(zip(begin, begin + parts.length[members], strict=True))
        cells, shown = [], []
        for part, row in zip(members.tolist(), sample, strict=True):
            each = len(grids[row]) // int(parts.siblings[part])
            own = grids[row][parts.place[part] * each :][:each]
            cells += own
            shown += stored_images.of(row, own) if own else []
        return {
            "input_ids": np.concatenate([token[a:b] for a, b in spans]),
            "loss_mask": np.concatenate([mask[a:b] for a, b in spans]),
            "seq_lengths": parts.length[members],
            "images": shown,
            "grids": cells,
            "sample_ids": [ids[row] for row in sample],
            "rejected": [rejected[row] for row in sample],
        }

    batches = []
    for first in range(0, len(rows), ROWS_PER_BATCH):
        made = [row_of(members) for members in rows[first : first + ROWS_PER_BATCH]]
        columns = [pa.array([row[field.name] for row in made], field.type) for field in schema]
        batches.append(pa.RecordBatch.from_arrays(columns, schema=schema))
    return pa.Table.from_batches(batches, schema=schema)
