"""Narrow hashes of a sample's text and images: what mixture-level rules compare.

| column      | what is equal when two samples share it                                    |
|-------------|----------------------------------------------------------------------------|
| text_hash   | the text of all turns but the system's; case, punctuation and width aside  |
| text_signature | ... or alike: the share of equal bytes estimates the Jaccard index of 5-grams |
| bytes_hash  | the encoded images, in order                                               |
| pixels_hash | the images, in order: pixels; of a JPEG, what they are computed from        |

All are stable: xxh3 and fixed seeds, no hash of a library that changes between versions.
"""

from collections.abc import Callable, Iterator

import numpy as np
import polars as pl
import pyarrow as pa
import xxhash

from filters.duplicates.near import NGRAM, PERMUTATIONS, scatter_bits

MIN_BITS = 8
"""Bits of a hash that must be set, and must be unset, for it to identify an image; ours."""
ALWAYS = ("dhashes",)
"""The columns of FROM_FACTS that are filled in whether or not a rule asks: 5 us a sample."""


def normalized_words(text: pl.Expr) -> pl.Expr:
    """The words of a text: NFKC, lower case, everything but letters and digits one space."""
    return (
        text.str.normalize("NFKC")
        .str.to_lowercase()
        .str.replace_all(r"[^\p{L}\p{M}\p{N}]+", " ")
        .str.strip_chars()
    )


def text_hash(frame: pl.DataFrame) -> pl.Series:
    """uint64 per row of fact `text`; null where no word is left."""
    texts = frame.select(normalized_words(pl.col("text"))).to_series()
    hashes = [xxhash.xxh3_64_intdigest(text) if text else None for text in texts]
    return pl.Series("text_hash", hashes, dtype=pl.UInt64)


def _hash_lists(parts: np.ndarray, lengths: np.ndarray) -> pl.Series:
    """uint64 per list: xxh3 of the list's rows of `parts`, in order; null where it is empty."""
    rows = np.ascontiguousarray(parts)
    ends = np.cumsum(lengths)
    hashes = [
        xxhash.xxh3_64_intdigest(rows[end - length : end].tobytes()) if length else None
        for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)
    ]
    return pl.Series(hashes, dtype=pl.UInt64)


def bytes_hash(samples: pa.Table) -> pl.Series:
    """uint64 per sample: its encoded images, in order; null without images.

    Reads every byte of `images.bytes` where it lies; nothing is copied.
    """
    digests: list[int] = []
    lengths: list[int] = []
    for chunk in samples["images"].chunks:
        lengths += [length or 0 for length in pa.compute.list_value_length(chunk).to_pylist()]
        column = chunk.flatten().field("bytes")
        digests += [
            xxhash.xxh3_64_intdigest(memoryview(value.as_buffer())) if value.is_valid else 0
            for value in column
        ]
    hashes = _hash_lists(np.array(digests, np.uint64), np.array(lengths, np.int64))
    return hashes.alias("bytes_hash")


def pixels_hash(frame: pl.DataFrame) -> pl.Series:
    """uint64 per row of `images`: its decoded images, in order; null without images.

    A lossless copy in another format has the same pixels, and a JPEG without its EXIF and comments;
    what a JPEG was decoded to and saved as is near it (a bit or two of its dhash), not the same.
    """
    images = frame["images"].list.explode(empty_as_null=False, keep_nulls=False).struct.unnest()
    lengths = frame["images"].list.len().fill_null(0).to_numpy().astype(np.int64)
    return _hash_lists(images["pixels"].fill_null(0).to_numpy(), lengths).alias("pixels_hash")


def word_multiplier(k: int) -> np.uint64:
    """What the hash of word `k` of a run is multiplied by: odd, so that no bit is lost."""
    return np.uint64((2 * k + 1) * 0x9E3779B97F4A7C15 % 2**64)


def ngrams(texts: pl.Series, *, n: int, short: bool) -> tuple[np.ndarray, np.ndarray]:
    """(uint64 [M], int64 [N + 1]): hashes of every run of `n` words, and where each text's begin.

    A text of fewer words has one run, all of it, if `short`; else none. Texts are
    `normalized_words`.
    """
    words = texts.fill_null("").str.split(" ")
    lengths = np.where(texts.fill_null("") == "", 0, words.list.len().to_numpy()).astype(np.int64)
    said = words.filter(pl.Series(lengths > 0)).list.explode(empty_as_null=False, keep_nulls=False)
    encoded = said.cast(pl.String).to_arrow().cast(pa.large_string()).dictionary_encode()
    of_word = [xxhash.xxh3_64_intdigest(word) for word in encoded.dictionary.to_pylist()]
    hashed = np.array(of_word, np.uint64)[encoded.indices.to_numpy()]

    counts = np.maximum(lengths - n + 1, 0)
    begins = np.cumsum(lengths) - lengths
    runs = np.zeros(len(hashed), np.uint64)  # of n words from here, whoever says them
    short_runs = np.zeros(len(texts), np.uint64)
    for k in range(n):
        runs[: max(len(hashed) - k, 0)] += hashed[k:] * word_multiplier(k)
        longer = np.flatnonzero((lengths > k) & (lengths < n))
        short_runs[longer] += hashed[begins[longer] + k] * word_multiplier(k)
    alone = (counts == 0) & (lengths > 0) if short else np.zeros(len(texts), bool)
    counts = np.where(alone, 1, counts)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    starts = np.repeat(begins - offsets[:-1], counts) + np.arange(offsets[-1])
    found = runs[starts]
    found[offsets[:-1][alone]] = short_runs[alone]
    return scatter_bits(found), offsets


def _batches(texts: pl.Series, *, max_bytes: int = 8 << 20) -> Iterator[pl.Series]:
    """Runs of rows whose texts hold about `max_bytes`, at least one row each."""
    ends = texts.str.len_bytes().fill_null(0).cum_sum().to_numpy()
    start = 0
    while start < len(texts):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + max_bytes, side="right")))
        yield texts[start:stop]
        start = stop


def minhashes(runs: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """uint8 [N, PERMUTATIONS]: the low byte of each MinHash of what `ngrams` returns.

    rensa's R-MinHash: the fastest of those measured (benchmarks/duplicates.py), and its estimates
    are unbiased on the 8 bits kept. Seed and permutations are fixed, so signatures of different
    builds compare.
    """
    from rensa import RMinHash

    made = RMinHash.digest_matrix_from_flat_token_hashes(
        runs, offsets.astype(np.uint64), PERMUTATIONS, 42
    )
    return np.array(made.to_rows(), np.uint32).astype(np.uint8).reshape(-1, PERMUTATIONS)


def text_signature(frame: pl.DataFrame) -> pl.Series:
    """PERMUTATIONS bytes per row of fact `text`, see `minhashes`; null without words."""
    texts = frame.select(normalized_words(pl.col("text"))).to_series()
    signatures: list[bytes | None] = []
    for batch in _batches(texts):
        runs, offsets = ngrams(batch, n=NGRAM, short=True)
        low, empty = minhashes(runs, offsets), np.diff(offsets) == 0
        signatures += [None if no else row.tobytes() for no, row in zip(empty, low, strict=True)]
    return pl.Series("text_signature", signatures, dtype=pl.Binary)


def is_distinctive(hashes: np.ndarray) -> np.ndarray:
    """Bool [N]: the difference hash has enough set and unset bits to identify an image."""
    bits = np.bitwise_count(hashes.astype(np.uint64))
    return (bits >= MIN_BITS) & (bits <= 64 - MIN_BITS)


def dhashes(frame: pl.DataFrame) -> pl.Series:
    """List<uint64> per row: the difference hash of every image, in order.

    A hash that says nothing (a plain colour, a flag in bands) decides nothing: unless most hashes
    of the sample tell images apart, the hash of its pixels stands in its place, and only the very
    same image is near.
    """
    images = frame["images"].list.explode(empty_as_null=False, keep_nulls=False).struct.unnest()
    hashes, pixels = (images[name].fill_null(0).to_numpy() for name in ("dhash", "pixels"))
    lengths = frame["images"].list.len().fill_null(0).to_numpy().astype(np.int64)
    row = np.repeat(np.arange(len(lengths)), lengths)
    tells = is_distinctive(hashes)
    told = np.bincount(row, tells, minlength=len(lengths))
    kept = np.where(tells | (2 * told > lengths)[row], hashes, pixels)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    lists = pa.LargeListArray.from_arrays(ends, pa.array(kept, pa.uint64()))
    return pl.Series("dhashes", pl.from_arrow(lists))


FROM_FACTS: dict[str, tuple[str, Callable[[pl.DataFrame], pl.Series]]] = {
    "text_hash": ("text", text_hash),
    "text_signature": ("text", text_signature),
    "pixels_hash": ("images", pixels_hash),
    "dhashes": ("images", dhashes),
}
"""Column of VERDICTS -> (the fact it is made of, how)."""
