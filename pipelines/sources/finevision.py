"""FineVision: the Cauldron's columns, plus four ratings for every question-answer turn.

`relevance_ratings, image_correspondence_ratings, visual_dependency_ratings, formatting_ratings`
are lists of 1..5, one per turn. Columns named `*_min` are the smallest of each: they stand in where
a row has no list, as one rating of the whole.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipelines.sources import cells
from pipelines.sources.cauldron import cauldron
from pipelines.sources.sample import Sample, source

KINDS = ("relevance", "image_correspondence", "visual_dependency", "formatting")


@source(
    "finevision",
    version=2,
    hub="HuggingFaceM4/FineVision",
    licence="CC-BY-4.0 for the prompts; each of the 185 sets keeps its own licence",
    terms=("per-subset-licences",),
    citation="https://arxiv.org/abs/2510.17269",
    verified="columns, the four lists, their `*_min` and the licence of the prompts on the card",
    columns=("images", "texts"),
    media_columns=("images",),
    also=tuple(f"{kind}_{of}" for kind in KINDS for of in ("ratings", "min")),
    num_bytes=5_000_000_000_000,
)
def finevision(row: Mapping[str, Any]) -> Sample:
    """The conversation of the row, with its ratings by turn."""
    plain = cauldron(row)
    columns = {kind: ratings(row, kind) for kind in KINDS}
    count = max(map(len, columns.values()))
    turns = tuple(
        {kind: values[turn] if turn < len(values) else None for kind, values in columns.items()}
        for turn in range(count)
    )
    return replace(plain, ratings=turns)


def ratings(row: Mapping[str, Any], kind: str) -> list[int | None]:
    """The ratings of one kind by turn; where only their smallest is stated, that one."""
    name = f"{kind}_ratings"
    values = row.get(name)
    if not values and row.get(f"{kind}_min") is not None:
        name = f"{kind}_min"
        values = [row[name]]
    if values is not None and not isinstance(values, list):
        raise cells.unfit(values, name, "a list")
    return [cells.rating(cell, f"{name}[{n}]") for n, cell in enumerate(cells.listed(values))]
