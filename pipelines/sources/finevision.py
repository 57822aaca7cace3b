"""FineVision: the Cauldron's columns, plus four ratings for every question-answer turn.

`relevance_ratings, image_correspondence_ratings, visual_dependency_ratings, formatting_ratings`
are lists of 1..5, one per turn. Columns named `*_min` are the smallest of each: they stand in where
a row has no list, as one rating of the whole.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.sources.cauldron import cauldron
from pipelines.sources.sample import Defect, Sample, source

KINDS = ("relevance", "image_correspondence", "visual_dependency", "formatting")


@source(
    "finevision",
    hub="HuggingFaceM4/FineVision",
    licence="CC-BY-4.0 for the prompts; each of the 185 sets keeps its own licence",
    terms=("per-subset-licences",),
    citation="https://arxiv.org/abs/2510.17269",
    verified="columns, the four lists, their `*_min` and the licence of the prompts on the card",
    columns=("images", "texts"),
    media_columns=("images",),
    num_bytes=5_000_000_000_000,
)
def finevision(row: Mapping[str, Any]) -> Sample:
    """The conversation of the row, with its ratings by turn."""
    plain = cauldron(row)
    columns = {kind: listed_ratings(row, kind) for kind in KINDS}
    for kind, values in columns.items():
        if not isinstance(values, list):
            raise Defect("wrong_schema", f"{kind}_ratings is {type(values).__name__}")
    count = max(map(len, columns.values()))
    ratings = tuple(
        {kind: rating(values, turn) for kind, values in columns.items()} for turn in range(count)
    )
    return Sample(turns=plain.turns, ratings=ratings)


def listed_ratings(row: Mapping[str, Any], kind: str) -> Any:
    """The ratings of one kind by turn; where only their smallest is stated, that one."""
    values, least = row.get(f"{kind}_ratings"), row.get(f"{kind}_min")
    return values or ([] if least is None else [least])


def rating(values: list[Any], turn: int) -> int | None:
    """The rating of `turn`, 1..5; null where there is none."""
    value = values[turn] if turn < len(values) else None
    if value is None:
        return None
    if not isinstance(value, int | float) or not 1 <= value <= 5:
        raise Defect("wrong_schema", f"a rating is {value!r}, not 1..5")
    return int(value)
