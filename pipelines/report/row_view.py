"""A packed row cut into what a person can read: samples, and in each its spans in order.

ids  <|im_start|> User : What ...  <fake><row_1_col_1><image> x64 ... <fake>  ... answer <end>
span special      text             image 0 (832 tokens)                     text   special
                                                                              learned learned
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tokenization.terminal import visible_text

__all__ = [
    "SampleView",
    "Span",
    "frame_times",
    "row_of_sample",
    "sample_views",
    "visible_text",
]

IMAGE, AROUND = "<image>", "<fake_token_around_image>"


@dataclass(frozen=True, kw_only=True)
class Span:
    """Neighbouring tokens of one kind, all learned or none."""

    kind: Literal["text", "special", "image"]
    text: str
    """As decoded; of an image, the text before it that gives its time in a video, or nothing."""
    learned: bool
    tokens: int
    image: int = -1
    """Which of the row's images; -1: none."""


@dataclass(frozen=True, kw_only=True)
class SampleView:
    """One sample of a packed row."""

    id: str
    spans: tuple[Span, ...]
    num_tokens: int
    num_learned: int
    rejected: str | None = None
    """Of a pair, the answer that its last one was preferred to: no part of the row's tokens."""


def sample_views(
    row: Mapping[str, Any], tokenizer: Any, *, tokens_per_crop: int
) -> list[SampleView]:
    """The samples of a packed row (PACKED) in order; their spans' tokens sum to the row's."""
    ids = np.asarray(row["input_ids"], np.int64)
    mask = np.asarray(row["loss_mask"], bool)
    owner = _images(ids, row["grids"], tokenizer, tokens_per_crop=tokens_per_crop)
    special = np.isin(
        ids, [i for i, t in tokenizer.get_added_tokens_decoder().items() if t.special]
    )
    found, start = [], 0
    rejected = row.get("rejected") or [None] * len(row["sample_ids"])
    for sample, length, other in zip(row["sample_ids"], row["seq_lengths"], rejected, strict=True):
        here = slice(start, start + length)
        found.append(
            SampleView(
                id=sample,
                spans=tuple(_spans(ids[here], mask[here], owner[here], special[here], tokenizer)),
                num_tokens=length,
                num_learned=int(mask[here].sum()),
                rejected=other,
            )
        )
        start += length
    return found


def row_of_sample(
    row: Mapping[str, Any], place: int, tokenizer: Any, *, tokens_per_crop: int
) -> dict[str, Any]:
    """The packed row cut down to its sample at `place`; `images` only where the row has them."""
    start = sum(row["seq_lengths"][:place])
    end = start + row["seq_lengths"][place]
    image = np.asarray(row["input_ids"]) == tokenizer.token_to_id(IMAGE)
    ends = np.cumsum([(g["rows"] * g["cols"] + 1) * tokens_per_crop for g in row["grids"]])
    first, last = np.searchsorted(ends, [image[:start].sum(), image[:end].sum()], side="right")
    cut = {name: row[name][start:end] for name in ("input_ids", "loss_mask")}
    cut |= {name: row[name][first:last] for name in ("grids", "images") if name in row}
    return cut | {name: [row[name][place]] for name in ("seq_lengths", "sample_ids")}


def _images(
    ids: np.ndarray, grids: list[Mapping[str, int]], tokenizer: Any, *, tokens_per_crop: int
) -> np.ndarray:
    """Per token, the image it stands for or frames; -1: none.

    An image reaches from the mark before its first `<image>` to the one after its last; how many
    `<image>` it has follows from its grid.
    """
    owner = np.full(len(ids), -1)
    places = np.flatnonzero(ids == tokenizer.token_to_id(IMAGE))
    around = np.flatnonzero(ids == tokenizer.token_to_id(AROUND))
    taken = 0
    for number, grid in enumerate(grids):
        needed = (grid["rows"] * grid["cols"] + 1) * tokens_per_crop
        mine = places[taken : taken + needed]
        taken += needed
        if not len(mine):
            break
        before = around[around < mine[0]]
        after = around[around > mine[-1]]
        first = before[-1] if len(before) else mine[0]
        last = after[0] if len(after) else mine[-1]
        owner[first : last + 1] = number
    return owner


def _spans(
    ids: np.ndarray, mask: np.ndarray, owner: np.ndarray, special: np.ndarray, tokenizer: Any
) -> Iterator[Span]:
    """Runs of equal (image, special, learned); each special token is a span of its own."""
    alone = special & (owner < 0)
    key = np.stack([owner, special & (owner < 0), mask & (owner < 0)])
    edge = np.any(key[:, 1:] != key[:, :-1], axis=0) | alone[1:]
    starts = np.concatenate([[0], np.flatnonzero(edge) + 1]) if len(ids) else np.zeros(0, int)
    for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
        number = int(owner[start])
        kind: Literal["text", "special", "image"] = (
            "image" if number >= 0 else "special" if special[start] else "text"
        )
        text = "" if number >= 0 else tokenizer.decode(ids[start:end], skip_special_tokens=False)
        yield Span(
            kind=kind,
            text=text,
            learned=bool(mask[start]),
            tokens=int(end - start),
            image=number,
        )


def frame_times(spans: tuple[Span, ...]) -> dict[int, str]:
    """Per image that is a frame of a video, its time as the prompt states it ("00:03")."""
    found, before = {}, ""
    for span in spans:
        if span.kind == "image":
            stated = re.search(r"(\d\d:\d\d(?::\d\d)?):?\s*$", before)
            if stated:
                found[span.image] = stated[1]
            before = ""
        else:
            before = span.text
    return found
