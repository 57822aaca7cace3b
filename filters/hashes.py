"""Narrow hashes of a sample's text and pictures: what mixture-level rules compare.

| column      | what is equal when two samples share it                                    |
|-------------|----------------------------------------------------------------------------|
| text_hash   | the text of all turns but the system's; case, punctuation and width aside  |
| bytes_hash  | the encoded pictures, in order                                             |
| pixels_hash | the decoded pictures, in order: size, dhash, statistics of ingest, by bits |

All are stable: xxh3 and fixed seeds, no hash of a library that changes between versions.
"""

from collections.abc import Callable

import numpy as np
import polars as pl
import pyarrow as pa
import xxhash


def normalised(text: pl.Expr) -> pl.Expr:
    """The words of a text: NFKC, lower case, everything but letters and digits one space."""
    return (
        text.str.normalize("NFKC")
        .str.to_lowercase()
        .str.replace_all(r"[^\p{L}\p{M}\p{N}]+", " ")
        .str.strip_chars()
    )


def text_hash(frame: pl.DataFrame) -> pl.Series:
    """uint64 per row of fact `text`; null where no word is left."""
    texts = frame.select(normalised(pl.col("text"))).to_series()
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
    """uint64 per sample: its encoded pictures, in order; null without pictures.

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
    """uint64 per row of `images`: its decoded pictures, in order; null without pictures.

    Two pictures are the same if size, dhash, contrast, sharpness and edges are, bit by bit: these
    are functions of the pixels alone, so a lossless copy in another format is found, and three
    float32 statistics keep other pictures apart.
    """
    parts = ("width", "height", "dhash", "contrast", "sharpness", "edges")
    pictures = frame["images"].list.explode(empty_as_null=False, keep_nulls=False).struct.unnest()
    columns = [
        pictures[part].fill_null(0).to_numpy().astype(np.float64).view(np.uint64)
        if pictures[part].dtype.is_float()
        else pictures[part].fill_null(0).to_numpy().astype(np.uint64)
        for part in parts
    ]
    lengths = frame["images"].list.len().fill_null(0).to_numpy().astype(np.int64)
    return _hash_lists(np.stack(columns, axis=1), lengths).alias("pixels_hash")


def dhashes(frame: pl.DataFrame) -> pl.Series:
    """List<uint64> per row: the difference hash of every picture, in order."""
    return frame["dhashes"].list.eval(pl.element().fill_null(0)).alias("dhashes")


FROM_FACTS: dict[str, tuple[str, Callable[[pl.DataFrame], pl.Series]]] = {
    "text_hash": ("text", text_hash),
    "pixels_hash": ("images", pixels_hash),
    "dhashes": ("dhashes", dhashes),
}
"""Column of VERDICTS -> (the fact it is made of, how)."""
