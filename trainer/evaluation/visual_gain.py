"""How much of each answer's loss the images take away: own images, none, and another sample's.

Three forward passes over a packed row, through the trainer's own attention and loss. Per answer

    visual gain = loss without images - loss with its own
    image match = loss with another sample's images - loss with its own

Near 0 the answer needs no look (VisNec, https://arxiv.org/abs/2603.01195); below 0 the images
mislead (MAGIC, https://arxiv.org/abs/2605.26004): a wrong image, or a wrong answer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from trainer.data.batches import Batch, collate
from trainer.data.shards import Row
from trainer.model.smolvlm import Objective, chunked_losses

Place = tuple[int, int]
"""A row of a window, and an image of that row."""


@dataclass(frozen=True)
class AnswerLosses:
    """Of one sample in one packed row: an entry per answer. NaN: there is none to compare with."""

    id: str
    learned: np.ndarray
    """[answers] learned tokens."""
    own: np.ndarray
    """[answers] mean loss per learned token (natural logarithm), with the sample's own images."""
    without: np.ndarray
    """[answers], without images; NaN where the sample has none."""
    other: np.ndarray
    """[answers], with images of other samples; NaN where the window has none of the same grids."""


def without_images(row: Row, *, fake: int) -> tuple[Row, np.ndarray]:
    """The row without its images and all tokens that stand for them, and where in `row` each token
    that is left stands. They go from each image's first `<fake_token_around_image>` (id `fake`) to
    its last; a sample of which nothing is left goes too.

    Raises:
        ValueError: there are not as many of these tokens as the grids say.
    """
    found = np.flatnonzero(row.input_ids == fake)
    counts = [rows * cols + 2 for rows, cols in row.grids]  # before every crop, after the last
    if len(found) != sum(counts):
        raise ValueError(
            f"row {row.mixture}/{row.number}: {len(found)} marks around images, expected "
            f"{sum(counts)} for grids {row.grids}.\nway out: a mixture whose chat template is "
            "SmolVLM's own."
        )
    kept = np.ones(len(row.input_ids), bool)
    for last, count in zip(np.cumsum(counts, dtype=int).tolist(), counts, strict=True):
        kept[found[last - count] : found[last - 1] + 1] = False
    owners = np.repeat(np.arange(len(row.seq_lengths)), row.seq_lengths)
    left, lengths = np.unique(owners[kept], return_counts=True)
    bare = replace(
        row,
        input_ids=row.input_ids[kept],
        loss_mask=row.loss_mask[kept],
        seq_lengths=lengths.astype(np.int32),
        sample_ids=[row.sample_ids[sample] for sample in left],
        images=[],
        grids=[],
    )
    return bare, np.flatnonzero(kept)


def image_owners(batch: Batch) -> list[int]:
    """Per image, the number of its sample in the batch."""
    return np.repeat(np.arange(len(batch.sample_images)), batch.sample_images).tolist()


def exchange(rows: Sequence[Row], owners: Sequence[Sequence[int]]) -> list[list[Place | None]]:
    """For each image the place of one of another sample that has the same grid and other bytes;
    None where these rows hold none. `owners`: as `image_owners`, per row.

    The n-th image of a sample under a grid gets the n-th of the next sample in a circle, so that a
    video gets the frames of another one in order. A copy of a sample, or a piece of the same
    document, is no other sample.
    """
    groups: dict[tuple[int, int], dict[tuple[int, int], list[Place]]] = {}
    for number, row in enumerate(rows):
        for image, (grid, owner) in enumerate(zip(row.grids, owners[number], strict=True)):
            groups.setdefault(grid, {}).setdefault((number, owner), []).append((number, image))
    found: list[list[Place | None]] = [[None] * len(row.grids) for row in rows]
    for members in groups.values():
        samples = list(members)
        names = [rows[number].sample_ids[owner] for number, owner in samples]
        for position, sample in enumerate(samples):
            turned = (*range(position + 1, len(samples)), *range(position))
            circle = [samples[n] for n in turned if names[n] != names[position]]
            for rank, (number, image) in enumerate(members[sample]):
                own = rows[number].images[image]
                places = (
                    place
                    for other in circle
                    for place in members[other][rank % len(members[other]) :] + members[other]
                )
                found[number][image] = next(
                    (place for place in places if rows[place[0]].images[place[1]] != own), None
                )
    return found


def with_other_images(
    batch: Batch,
    row: Row,
    places: Sequence[Place | None],
    starts: Sequence[np.ndarray],
    window: Any,
) -> Batch:
    """The batch of `row` with the crops of the images at `places`; its own where that is None.

    `window`: the batches of all rows, `starts` [images + 1]: per row, where each image's crops
    begin in its batch.
    """
    pixels = batch.pixels.clone()
    first = 0
    for (rows, cols), place in zip(row.grids, places, strict=True):
        count = rows * cols + 1
        if place is not None:
            begin = int(starts[place[0]][place[1]])
            pixels[first : first + count] = window[place[0]].pixels[begin : begin + count]
        first += count
    return replace(batch, pixels=pixels)


def answers_of(batch: Batch) -> np.ndarray:
    """[L]: the number of the answer of each learned token: tokens that stand side by side."""
    places = batch.predictors.numpy()
    owners = batch.owners.numpy()
    breaks = (np.diff(places) != 1) | (np.diff(owners) != 0)
    return np.concatenate([[0], np.cumsum(breaks)])[: len(places)]


def token_losses(objective: Objective, batch: Batch, device: torch.device) -> np.ndarray:
    """[L] float64: the loss of every learned token of the batch."""
    if not len(batch.targets):
        return np.empty(0)
    bfloat16 = device.type == "cuda"
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        there = batch.to(device)
        losses = chunked_losses(
            objective.model.lm_head,
            objective.hidden(there)[there.predictors],
            there.targets,
            chunk=objective.logits_chunk,
        )
    return losses.double().cpu().numpy()


def answer_losses(
    objective: Objective,
    rows: Sequence[Row],
    batches: Sequence[Batch],
    *,
    image_token: int,
    fake_token: int,
    device: torch.device,
) -> Iterator[AnswerLosses]:
    """The samples of a window of rows, in order; `batches`: the rows, collated one by one.

    Images are exchanged within the window. A row without images takes one pass. Counted are the
    tokens that all passes predict: the first text of a sample that begins with an image is not
    predicted without it.
    """
    owners = [image_owners(batch) for batch in batches]
    partners = exchange(rows, owners)
    starts = [np.cumsum([0, *(r * c + 1 for r, c in row.grids)]) for row in rows]
    for number, (row, batch) in enumerate(zip(rows, batches, strict=True)):
        own = token_losses(objective, batch, device)
        none = other = np.full(len(own), np.nan)
        shared = np.ones(len(own), bool)
        alone: set[int] = set()
        if row.images:
            bare, kept = without_images(row, fake=fake_token)
            if len(kept):
                barely = collate([bare], image_token=image_token)
                none = token_losses(objective, barely, device)
                predicted = kept[barely.predictors.numpy() + 1]
            else:
                none, predicted = np.empty(0), kept
            shared = np.isin(batch.predictors.numpy() + 1, predicted)
            places = partners[number]
            alone = {o for o, p in zip(owners[number], places, strict=True) if p is None}
            if any(place is not None for place in places):
                swapped = with_other_images(batch, row, places, starts, batches)
                other = token_losses(objective, swapped, device)
        yield from _by_sample(batch, shared, own[shared], none, other[shared], alone)


def _by_sample(
    batch: Batch,
    shared: np.ndarray,
    own: np.ndarray,
    without: np.ndarray,
    other: np.ndarray,
    alone: set[int],
) -> Iterator[AnswerLosses]:
    """`shared` [L]: the tokens that all passes predict; the losses are of these."""
    answers, owners = answers_of(batch)[shared], batch.owners.numpy()[shared]
    answers = np.unique(answers, return_inverse=True)[1]
    counts = np.bincount(answers)
    means = [np.bincount(answers, losses) / counts for losses in (own, without, other)]
    firsts = np.searchsorted(answers, np.arange(len(counts)))
    owner_of = owners[firsts] if len(firsts) else np.empty(0, int)
    for sample, name in enumerate(batch.sample_ids):
        its = owner_of == sample
        own_, without_, other_ = (values[its] for values in means)
        if not batch.sample_images[sample]:
            without_ = np.full(len(own_), np.nan)
        if not batch.sample_images[sample] or sample in alone:
            other_ = np.full(len(own_), np.nan)
        yield AnswerLosses(name, counts[its], own_, without_, other_)
