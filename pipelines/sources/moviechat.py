"""MovieChat-1K: films with a caption, questions about the whole and about single moments.

A JSON file per film in `jsons/`: {info: {video_path}, caption, global: [{question, answer}],
breakpoint: [{time, question, answer}]}, the film in `raw_videos/`. Only the questions about the
whole film and the caption are used: a moment's number of a frame means nothing after sampling.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.sources import cells
from pipelines.sources.captions import VIDEO, choose_question, questions, turns_of
from pipelines.sources.sample import Defect, Sample, Video, source


@source(
    "moviechat",
    version=2,
    hub="Enxin/MovieChat-1K_train",
    layout="json",
    licence="unknown; access on request",
    terms=("research-only",),
    gating="ask for access on the repository's page",
    citation="https://arxiv.org/abs/2307.16449",
    verified="folders, info.video_path and global in published code that reads them; that two of "
    "the films named are absent, in the repository's listing",
    notes=("it names two films that it does not hold: 179.mp4 and s02e10-3.mp4",),
    columns=("info", "global"),
    also=("caption",),
    files=("jsons/*.json", "*.json"),
    row_files=True,
    media_files={"": ("raw_videos/**", "*.mp4")},
    subsets={"default": 795},
    rows_per_part=8,
)
def moviechat(row: Mapping[str, Any]) -> Sample:
    """The film's caption, then its questions."""
    info = cells.mapping(row.get("info"), "info")
    name = cells.text(info.get("video_path"), "info.video_path")
    pairs: list[tuple[str, str]] = []
    if row.get("caption"):
        pairs.append((choose_question(VIDEO, name), cells.text(row["caption"], "caption")))
    if row.get("global") != []:
        pairs += questions(row.get("global"), "global")
    if not pairs:
        raise Defect("wrong_schema", "neither caption nor questions")
    video = Video(path=f"raw_videos/{name.rpartition('/')[2]}")
    return Sample(turns=turns_of(pairs), waiting=(video,))
