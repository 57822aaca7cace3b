"""MovieChat-1K: films with a caption, questions about the whole and about single moments.

A JSON file per film in `jsons/`: {info: {video_path}, caption, global: [{question, answer}],
breakpoint: [{time, question, answer}]}, the film in `raw_videos/`. Only the questions about the
whole film and the caption are used: a moment's number of a frame means nothing after sampling.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.sources.captions import VIDEO, choose_question
from pipelines.sources.sample import Defect, Sample, Turn, Video, column, source, text_of


@source(
    "moviechat",
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
    files=("jsons/*.json", "*.json"),
    row_files=True,
    media_files={"": ("raw_videos/**", "*.mp4")},
    subsets={"default": 795},
    rows_per_part=8,
)
def moviechat(row: Mapping[str, Any]) -> Sample:
    """The film's caption, then its questions."""
    name = text_of(column(row, "info", Mapping).get("video_path"), "info.video_path")
    pairs: list[tuple[str, str]] = []
    caption = row.get("caption")
    if isinstance(caption, str) and caption:
        pairs.append((choose_question(VIDEO, name), caption))
    for number, pair in enumerate(column(row, "global", list)):
        if not isinstance(pair, Mapping):
            raise Defect("wrong_schema", f"global[{number}] is {type(pair).__name__}")
        question = text_of(pair.get("question"), f"global[{number}].question")
        pairs.append((question, text_of(pair.get("answer"), f"global[{number}].answer")))
    if not pairs:
        raise Defect("wrong_schema", "neither caption nor questions")
    video = Video(path=f"raw_videos/{name.rpartition('/')[2]}")
    turns = [turn for q, a in pairs for turn in (Turn("user", (q,)), Turn("assistant", (a,)))]
    turns[0] = Turn("user", (video, *turns[0].content))
    return Sample(turns=tuple(turns))
