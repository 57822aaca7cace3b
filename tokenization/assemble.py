"""From pieces to columns of ids: those of a whole batch at once, as bytes until they are all there.

Plan -> assembled: packed ids of its pieces -> joined -> input_ids, loss_mask of all rows
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from tokenization import chat
from tokenization.vocab import Vocab, image_ids
from tokenization.words import packed


@dataclass(slots=True)
class Plan:
    """What one row will be: its sequences as pieces, or the problem that prevents it."""

    problem: str | None = None
    grids: list[tuple[int, int]] = field(default_factory=list)
    """Per image of the sample."""
    sequences: list[list[chat.Piece]] = field(default_factory=list)
    splittable: bool = False


def assembled(
    plan: Plan, ids_of: Iterator[bytes], vocab: Vocab, *, seq_len: int
) -> tuple[list[bytes], list[bool], list[int]]:
    """(packed ids of every piece, whether each is learned, tokens of the sequences); `ids_of` gives
    those of each text.
    """
    pieces: list[bytes] = []
    flags: list[bool] = []
    seq_lengths: list[int] = []
    images = 0
    for sequence in plan.sequences:
        own: list[bytes] = []
        for what, _ in sequence:
            if isinstance(what, str):
                own.append(next(ids_of))
            elif isinstance(what, int):
                own.append(_image_ids(vocab, *plan.grids[images]))
                images += 1
            else:
                own.append(_packed(what))
        pieces += own
        flags += [learned for _, learned in sequence]
        seq_lengths.append(count(own))
    if plan.splittable and len(seq_lengths) == 1 and seq_lengths[0] > seq_len:
        full, rest = divmod(seq_lengths[0], seq_len)
        seq_lengths = [seq_len] * full + [rest] * (rest > 0)
    return pieces, flags, seq_lengths


@lru_cache(maxsize=1024)
def _image_ids(vocab: Vocab, rows: int, cols: int) -> bytes:
    return image_ids(vocab, rows, cols).tobytes()


_packed = lru_cache(maxsize=1024)(packed)


def count(ids: list[bytes]) -> int:
    """Tokens of packed ids."""
    return sum(map(len, ids)) // np.dtype(np.int32).itemsize


def lists(values: Any, counts: Sequence[int] | np.ndarray) -> pa.ListArray:
    """Lists of so many values each."""
    offsets = np.concatenate([[0], np.cumsum(np.asarray(counts, np.int64))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def learned_tokens(
    flags: list[list[bool]], pieces: list[list[bytes]], seq_lengths: list[list[int]]
) -> np.ndarray:
    """Bool [tokens of all rows]: whether each is learned. The first of a sequence is not: nothing
    comes before it.
    """
    sizes = np.fromiter(map(len, chain.from_iterable(pieces)), np.int64)
    each = np.fromiter(chain.from_iterable(flags), bool)
    mask = np.repeat(each, sizes // np.dtype(np.int32).itemsize)
    lengths = np.fromiter(chain.from_iterable(seq_lengths), np.int64)
    mask[(np.cumsum(lengths) - lengths)[lengths > 0]] = False
    return mask
