"""Pairs of near rows, a band at a time: what one task of a large search does.

    rows (CANDIDATES: rank, scope, what is compared) --keys of a band--> 8 bytes a row, sorted
    the few that share a key --their columns gathered--> pairs, compared in full (PAIRS)

A band is a pure function of the rows, so that bands may run anywhere, in any order. It reads the
rows batch by batch (they may be memory-mapped) and holds about 30 bytes for each, besides the
columns of `SLICE` candidates.

| kind      | candidates share                                                  | near if          |
|-----------|-------------------------------------------------------------------|------------------|
| text      | a band of bytes of `text_signature`                               | `similarity`     |
| images    | number of images; of the middle one, the bits under a mask        | `radius`, each   |
| sample    | as images, large buckets as text too; without images, as text     | both             |
| embedding | a band of 3 bytes of `embedding_signature`                        | cosine           |

All images must be near, so one may stand for them: the middle one, because first frames and pages
are often blank. Where many rows have like ones all the same, another one splits them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa

from filters.duplicates import near

SLICE = 1 << 18
"""Candidates whose columns are held at once: 30 MB of signatures. A larger bucket is held whole."""
LARGE_BUCKET = 256
"""Rows of like images from which a bucket is split by their texts, where those count too."""
EMBEDDING_BAND = 3
"""Bytes: at a cosine of 0.95 a pair shares one of 37 bands with probability 0.95, at 0.98 with
1.00; a chance meeting is 1 in 2^24 a band."""

PAIRS = pa.schema([("preferred", pa.int32()), ("other", pa.int32())])
"""Ranks of two rows that are near each other."""

_COLUMNS = {
    "text": ("text_signature",),
    "images": ("dhashes",),
    "sample": ("text_signature", "dhashes"),
    "embedding": ("embedding_signature",),
}
_TYPES = {"dhashes": pa.list_(pa.uint64())}


@dataclass(frozen=True, kw_only=True)
class Search:
    """Which pairs are near: a rule's settings, small enough to travel with every task."""

    kind: Literal["text", "images", "sample", "embedding"]
    count: int
    """Rows: decides how finely hashes of images are cut."""
    similarity: float = 0
    """Least Jaccard index of texts, or cosine of embeddings."""
    radius: int = 0
    """Bits of 64 in which two images may differ."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of VERDICTS that are compared."""
        return _COLUMNS[self.kind]

    @property
    def schema(self) -> pa.Schema:
        """CANDIDATES: rank (0 is preferred to all), scope (only equal ones are compared)."""
        signature = pa.binary(near.PERMUTATIONS)
        return pa.schema(
            [("rank", pa.int32()), ("scope", pa.uint32())]
            + [(name, _TYPES.get(name, signature)) for name in self.columns]
        )

    @property
    def masks(self) -> tuple[int, ...]:
        """One for each band in which images are compared."""
        sees = self.kind in ("images", "sample")
        return near.block_masks(self.radius, count=self.count) if sees else ()

    @property
    def band_bytes(self) -> int:
        """Bytes of a signature that a band compares; 0 without signatures."""
        if self.kind == "embedding":
            return EMBEDDING_BAND
        return 0 if self.kind == "images" else near.band_rows(self.similarity)

    @property
    def num_bands(self) -> int:
        """Bands of images, then those of signatures."""
        return len(self.masks) + self.num_text_bands

    @property
    def num_text_bands(self) -> int:
        """Bands of signatures."""
        return near.PERMUTATIONS // self.band_bytes if self.band_bytes else 0


@dataclass(frozen=True)
class _Rows:
    """What is compared of M rows."""

    scope: np.ndarray  # uint32 [M]
    signatures: np.ndarray  # uint8 [M, PERMUTATIONS], 0 where there is none
    signed: np.ndarray  # bool [M]
    hashes: np.ndarray  # uint64, of all images
    offsets: np.ndarray  # int64 [M + 1]: where each row's begin

    @property
    def counts(self) -> np.ndarray:
        return np.diff(self.offsets)


def _rows(batch: pa.RecordBatch) -> _Rows:
    """A batch of CANDIDATES as arrays, copied only where they must be."""
    count = len(batch)
    signatures, signed = np.zeros((count, 0), np.uint8), np.zeros(count, bool)
    hashes, offsets = np.empty(0, np.uint64), np.zeros(count + 1, np.int64)
    for name in batch.schema.names[2:]:
        column = batch.column(name)
        if name == "dhashes":
            hashes = column.flatten().to_numpy(zero_copy_only=False)
            lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
            offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        else:
            signed = column.is_valid().to_numpy(zero_copy_only=False)
            width = near.PERMUTATIONS
            data = np.frombuffer(column.buffers()[1], np.uint8)
            data = data[column.offset * width : (column.offset + count) * width]
            signatures = data.reshape(count, width)
            if not signed.all():
                signatures = np.where(signed[:, None], signatures, np.uint8(0))
    return _Rows(batch.column("scope").to_numpy(), signatures, signed, hashes, offsets)


def candidates(frame: pl.DataFrame, search: Search) -> pa.Table:
    """CANDIDATES of rows with rank, scope and the columns of VERDICTS that the search reads."""
    table = frame.select(search.schema.names).to_arrow()
    columns = []
    for field in search.schema:
        column = table.column(field.name)
        if pa.types.is_fixed_size_binary(field.type):
            column = column.cast(pa.binary())
        columns.append(column.cast(field.type))
    return pa.table(columns, schema=search.schema)


def _keys(rows: _Rows, search: Search, band: int) -> tuple[np.ndarray, np.ndarray]:
    """(uint64 [M], bool [M]: the row has a key in this band)."""
    scope, masks = near.scatter_bits(rows.scope), search.masks
    if band < len(masks):
        held = rows.counts > 0
        middle = np.zeros(len(held), np.uint64)
        middle[held] = rows.hashes[(rows.offsets[:-1] + rows.counts // 2)[held]]
        apart = near.scatter_bits(rows.counts.astype(np.uint64)) ^ scope
        return near.scatter_bits(middle & np.uint64(masks[band]) ^ apart), held
    keys = near.band_keys(rows.signatures, rows=search.band_bytes, band=band - len(masks))
    return near.scatter_bits(keys ^ scope), rows.signed & (rows.counts == 0)


def _verify(rows: _Rows, search: Search) -> near.Verify:
    """Verify: two of `rows` are in one scope and near, as the search's kind has it."""
    checks: list[near.Verify] = [lambda a, b: rows.scope[a] == rows.scope[b]]
    if search.kind in ("images", "sample"):
        checks.append(_near_images(rows, search.radius))
    if search.kind in ("text", "sample"):
        checks.append(_similar(rows.signatures, search.similarity))
    if search.kind == "embedding":
        checks.append(_near_signs(rows.signatures, search.similarity))

    def verify(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        passed = np.arange(len(a))
        for check in checks:  # each is asked only about pairs that passed those before
            passed = passed[check(a[passed], b[passed])]
        verdict = np.zeros(len(a), bool)
        verdict[passed] = True
        return verdict

    return verify


def _similar(signatures: np.ndarray, similarity: float) -> near.Verify:
    """Verify: the signatures estimate a Jaccard index of `similarity` or more."""
    chance = 1 / 256  # at which bytes of other texts agree

    def verify(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        agree = np.empty(len(a))
        for at in range(0, len(a), SLICE):
            part = slice(at, at + SLICE)
            agree[part] = (signatures[a[part]] == signatures[b[part]]).mean(axis=1)
        return (agree - chance) / (1 - chance) >= similarity

    return verify


def _near_images(rows: _Rows, radius: int) -> near.Verify:
    """Verify: equally many images, each within `radius` bits of its counterpart."""
    counts, offsets, hashes = rows.counts, rows.offsets, rows.hashes

    def verify(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        same = counts[a] == counts[b]
        for n in range(int(counts[a[same]].max(initial=0))):
            held = np.flatnonzero(same & (counts[a] > n))
            differ = hashes[offsets[a[held]] + n] ^ hashes[offsets[b[held]] + n]
            same[held] = np.bitwise_count(differ) <= radius
        return same

    return verify


def _near_signs(signatures: np.ndarray, similarity: float) -> near.Verify:
    """Verify: the cosine that the signs estimate; one differs with probability angle / pi."""
    most = 8 * near.PERMUTATIONS * np.arccos(similarity) / np.pi

    def verify(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        differ = np.bitwise_count(signatures[a] ^ signatures[b]).sum(axis=1, dtype=np.int64)
        return differ <= most

    return verify


def _batches(rows: pa.Table) -> list[pa.RecordBatch]:
    return [batch for batch in rows.to_batches(max_chunksize=1 << 16) if len(batch)]


def _taken(batches: Sequence[pa.RecordBatch], wanted: np.ndarray) -> _Rows:
    """The rows of ascending numbers `wanted`, counted through all batches."""
    parts, start = [], 0
    for batch in batches:
        low, high = np.searchsorted(wanted, (start, start + len(batch)))
        if low < high:
            parts.append(batch.take(pa.array(wanted[low:high] - start)))
        start += len(batch)
    return _rows(pa.Table.from_batches(parts).combine_chunks().to_batches()[0])


def _slices(buckets: np.ndarray) -> Iterator[slice]:
    """Runs of about SLICE rows that end where a bucket ends."""
    ends = np.append(np.flatnonzero(buckets[1:] != buckets[:-1]) + 1, len(buckets))
    start = 0
    while start < len(buckets):
        fits = ends[max(int(np.searchsorted(ends, start + SLICE, side="right")) - 1, 0)]
        stop = int(max(fits, ends[np.searchsorted(ends, start, side="right")]))
        yield slice(start, stop)
        start = stop


def pairs_of_band(
    rows: pa.Table, *, order: np.ndarray, settled: int, search: Search, band: int
) -> np.ndarray:
    """int32 [M, 2] of PAIRS, sorted: near pairs that share a key of this band.

    rows: CANDIDATES in any order; `order`: int32 [A], ranks in order of preference, of which the
    first `settled` are not compared with each other.
    """
    batches, count = _batches(rows), len(order)
    place = np.full(len(rows), -1, np.int32)  # rank -> position in `order`
    place[order] = np.arange(count, dtype=np.int32)
    positions = place[rows["rank"].to_numpy()]  # of each row
    words, start, filled = np.empty(count, np.uint64), 0, 0
    for batch in batches:
        keys, held = _keys(_rows(batch), search, band)
        at = positions[start : start + len(batch)]
        held &= at >= 0
        made = near.pack_keys(keys[held], at[held], count=count)
        words[filled : filled + len(made)] = made
        start, filled = start + len(batch), filled + len(made)
    met = near.bucket_members(words[:filled], count=count, settled=settled)
    del words
    row_of = place[:count]  # position -> row, in the memory of `place`
    present = np.flatnonzero(positions >= 0).astype(np.int32)
    row_of[positions[present]] = present
    bits = np.uint64(near.position_bits(count))
    buckets, met = met >> bits, met & ((np.uint64(1) << bits) - np.uint64(1))
    found = [np.empty(0, np.uint64)]
    for part in _slices(buckets):
        wanted = row_of[met[part]]
        by_row = np.argsort(wanted)
        gathered = _taken(batches, wanted[by_row])
        at = np.empty(len(wanted), np.int64)  # of each candidate, its place among the gathered
        at[by_row] = np.arange(len(wanted))
        ranks = order[met[part]].astype(np.uint64)
        for pairs in _compared(buckets[part], at, gathered, search):
            found.append(ranks[pairs[:, 0]] << np.uint64(32) | ranks[pairs[:, 1]])
    both = np.unique(np.concatenate(found))
    low = np.uint64(0xFFFFFFFF)
    return np.stack([both >> np.uint64(32), both & low], axis=1).astype(np.int32)


def _compared(
    buckets: np.ndarray, at: np.ndarray, rows: _Rows, search: Search
) -> Iterator[np.ndarray]:
    """[M, 2] of places in `buckets` (sorted) that share a bucket and are near; `at`: their row.

    Large buckets of like images are split: by each band of their texts where those count too,
    else by another image.
    """
    verify = _verify(rows, search)
    large = np.zeros(len(buckets), bool)
    if search.masks:
        _, number, sizes = np.unique(buckets, return_inverse=True, return_counts=True)
        enough = 0 if search.kind == "sample" else 1
        large = (sizes > LARGE_BUCKET)[number] & (rows.counts[at] > enough)
    small, split = np.flatnonzero(~large), np.flatnonzero(large)

    def pairs_of(places: np.ndarray, keys: np.ndarray) -> np.ndarray:
        pairs = near.near_pairs(keys, lambda a, b: verify(at[places[a]], at[places[b]]))
        return places[pairs]

    yield pairs_of(small, buckets[small])
    for second in _second_keys(rows, at[split], search) if len(split) else ():
        keys = near.scatter_bits(buckets[split] ^ second)
        by_key = np.argsort(keys, kind="stable")
        yield pairs_of(split[by_key], keys[by_key])


def _second_keys(rows: _Rows, at: np.ndarray, search: Search) -> Iterator[np.ndarray]:
    """uint64 [M], scattered, again and again: near rows among `at` share one of these too."""
    for band in range(search.num_text_bands):
        texts = near.band_keys(rows.signatures[at], rows=search.band_bytes, band=band)
        yield near.scatter_bits(texts)
    if not search.num_text_bands:
        another = rows.hashes[rows.offsets[at] + rows.counts[at] // 4]
        yield from (near.scatter_bits(another & np.uint64(mask)) for mask in search.masks)


Run = Callable[[pl.DataFrame, Search], near.Compare]
"""(rows with rank and scope; the search) -> what compares them, band by band."""


def comparison_of_frame(frame: pl.DataFrame, search: Search) -> near.Compare:
    """Compares, in this process, rows that hold the columns of the search themselves."""
    return comparison_of_candidates(candidates(frame, search), search)


def comparison_of_candidates(rows: pa.Table, search: Search) -> near.Compare:
    """Compares CANDIDATES, in this process."""

    def compare(order: np.ndarray, settled: int) -> np.ndarray:
        bands = [
            pairs_of_band(rows, order=order, settled=settled, search=search, band=band)
            for band in range(search.num_bands)
        ]
        return np.concatenate([np.empty((0, 2), np.int32), *bands])

    return compare
