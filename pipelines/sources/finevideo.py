"""FineVideo: whole videos in Parquet, each with questions, scenes and a description.

| column | type                                                                              |
|--------|-----------------------------------------------------------------------------------|
| mp4    | binary                                                                            |
| json   | struct {content_metadata: {description, qAndA: [{question, answer}], scenes: [...]}} |

The description first, then the scenes with their times, then the questions, as one conversation.
"""

import json
from collections.abc import Mapping
from typing import Any

from pipelines.sources.captions import SCENES, VIDEO, choose_question
from pipelines.sources.sample import Defect, Sample, Turn, Video, column, source, text_of


@source(
    "finevideo",
    hub="HuggingFaceFV/finevideo",
    layout="video",
    licence="CC-BY (each video's own)",
    terms=("carry-terms-forward", "honour-removals"),
    gating="share contact details on the repository's page; follow later removals",
    citation="https://huggingface.co/datasets/HuggingFaceFV/finevideo",
    verified="every field in the card's YAML header",
    columns=("mp4", "json"),
    media_columns=("mp4",),
    subsets={"default": 43_751},
    num_bytes=600_000_000_000,
    rows_per_part=64,
)
def finevideo(row: Mapping[str, Any]) -> Sample:
    """A video's description, scenes and questions."""
    about = row.get("json")
    if isinstance(about, str | bytes):
        try:
            about = json.loads(about)
        except ValueError as error:
            raise Defect("broken_json", str(error)) from error
    if not isinstance(about, Mapping):
        raise Defect("wrong_schema", f"json is {type(about).__name__}")
    told = column(about, "content_metadata", Mapping)
    pairs: list[tuple[str, str]] = []
    description = told.get("description")
    if isinstance(description, str) and description:
        pairs.append((choose_question(VIDEO, description), description))
    scenes = [line for scene in told.get("scenes") or [] if (line := scene_line(scene))]
    if scenes:
        pairs.append((SCENES, "\n".join(scenes)))
    for number, pair in enumerate(told.get("qAndA") or []):
        question = text_of(pair.get("question"), f"qAndA[{number}].question")
        pairs.append((question, text_of(pair.get("answer"), f"qAndA[{number}].answer")))
    if not pairs:
        raise Defect("wrong_schema", "neither description, scenes nor questions")
    data = row.get("mp4")
    video = Video(data=data if isinstance(data, bytes) else None)
    turns = [turn for q, a in pairs for turn in (Turn("user", (q,)), Turn("assistant", (a,)))]
    turns[0] = Turn("user", (video, *turns[0].content))
    return Sample(turns=tuple(turns))


def scene_line(scene: object) -> str:
    """`[start - end] title: activities`; empty where the scene has no title."""
    if not isinstance(scene, Mapping) or not isinstance(scene.get("title"), str):
        return ""
    times = scene.get("timestamps") or {}
    start, end = times.get("start_timestamp"), times.get("end_timestamp")
    when = f"[{start} - {end}] " if start and end else ""
    done = [a.get("description") for a in scene.get("activities") or [] if isinstance(a, Mapping)]
    what = " ".join(text for text in done if isinstance(text, str))
    return f"{when}{scene['title']}{': ' if what else ''}{what}"
