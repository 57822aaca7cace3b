"""FineVideo: whole videos in Parquet, each with questions, scenes and a description.

| column | type                                                                              |
|--------|-----------------------------------------------------------------------------------|
| mp4    | binary                                                                            |
| json   | struct {content_metadata: {description, qAndA: [{question, answer}], scenes: [...]}} |

The description first, then the scenes with their times, then the questions, as one conversation.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.sources import cells
from pipelines.sources.captions import SCENES, VIDEO, choose_question, questions, turns_of
from pipelines.sources.sample import Defect, Sample, source


@source(
    "finevideo",
    version=2,
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
    about = cells.mapping(cells.unpacked(row.get("json"), "json"), "json")
    told = cells.mapping(about.get("content_metadata"), "json.content_metadata")
    pairs: list[tuple[str, str]] = []
    if told.get("description"):
        description = cells.text(told["description"], "description")
        pairs.append((choose_question(VIDEO, description), description))
    if told.get("scenes"):
        scenes = enumerate(cells.rows(told["scenes"], "scenes"))
        lines = [line for n, scene in scenes if (line := scene_line(scene, f"scenes[{n}]"))]
        pairs += [(SCENES, "\n".join(lines))] if lines else []
    if told.get("qAndA"):
        pairs += questions(told["qAndA"], "qAndA")
    if not pairs:
        raise Defect("wrong_schema", "neither description, scenes nor questions")
    return Sample(turns=turns_of(pairs), waiting=(cells.video(row.get("mp4"), "mp4"),))


def scene_line(scene: Mapping[str, Any], name: str) -> str:
    """`[start - end] title: activities`; empty where the scene has no title."""
    if not scene.get("title"):
        return ""
    title = cells.text(scene["title"], f"{name}.title")
    when = ""
    if scene.get("timestamps"):
        times = cells.mapping(scene["timestamps"], f"{name}.timestamps")
        ends = [times.get(f"{end}_timestamp") for end in ("start", "end")]
        if all(ends):
            when = " - ".join(cells.text(end, f"{name}.timestamps") for end in ends)
    done = cells.rows(scene["activities"], f"{name}.activities") if scene.get("activities") else []
    told = [a["description"] for a in done if a.get("description")]
    what = " ".join(cells.text(text, f"{name}.activities.description") for text in told)
    return f"{f'[{when}] ' if when else ''}{title}{': ' if what else ''}{what}"
