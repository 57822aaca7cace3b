"""The LLaVA record, and the repositories that hold it without media of their own kind.

    {id, image: str | [str], video: str | [str], conversations: [{from: human|gpt|system, value}]}

`<image>` and `<video>` in a human turn stand for the next medium (placing.py). A turn may have its
own `image` or `video`, which then stands in it. Chats of the other kind, {role, content}, are read
alike.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipelines.sources import cells
from pipelines.sources.placing import place_media
from pipelines.sources.sample import Defect, Medium, Named, Sample, Still, Turn, Video, source

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "system",
}
"""Who speaks, in the words of LLaVA, ShareGPT, Gemini and OpenAI."""
IMAGES, VIDEOS = ("image", "images"), ("video", "videos")
OTHER_IMAGES, OTHER_VIDEOS = (
    tuple(f"{kind}_{what}" for what in ("path", "paths", "file", "files", "url", "urls"))
    for kind in ("image", "video")
)
"""Where the media stand in rows that have none of the columns above."""
MEDIA_COLUMNS = (*IMAGES, *OTHER_IMAGES, *VIDEOS, *OTHER_VIDEOS)
RECORD = (*MEDIA_COLUMNS, "*system*message*", "*message*system*")
"""Columns of a record beside its conversation."""

JSON_FILES = (
    "{subset}/*.json",
    "{subset}/*.jsonl",
    "{subset}/*.jsonl.gz",
    "*.json",
    "*.jsonl",
    "*.jsonl.gz",
    "{subset}/*.parquet",
    "*.parquet",
)


def media_of(row: Mapping[str, Any]) -> tuple[Medium, ...]:
    """The stills, then the videos of a record."""
    stills = cells.media(row, Still, IMAGES) or cells.media(row, Still, OTHER_IMAGES)
    return (*stills, *(cells.media(row, Video, VIDEOS) or cells.media(row, Video, OTHER_VIDEOS)))


def with_own_media(turn: Turn, message: Mapping[str, Any]) -> Turn:
    """The turn with the media that stand in its message beside the text, at their places."""
    own = media_of(message)
    if not own:
        return turn
    asking = replace(turn, role="user") if turn.role == "system" else turn
    placed = place_media(Sample(turns=(asking,), waiting=own), literal=False).turns[0].content
    content = (Named(part) if isinstance(part, Medium) else part for part in placed)
    return replace(turn, content=tuple(content))


def role_of(message: Mapping[str, Any], name: str) -> str:
    """Who speaks: system, user or assistant."""
    key = "from" if message.get("from") is not None else "role"
    speaker = cells.text(message.get(key), f"{name}.{key}")
    if speaker not in ROLES:
        raise Defect("wrong_schema", f"{name}.{key} is none of {', '.join(ROLES)}")
    return ROLES[speaker]


def turns_of_record(row: Mapping[str, Any], name: str = "conversations") -> tuple[Turn, ...]:
    """The turns of a record, a system prompt of its own in front."""
    turns = []
    for number, message in enumerate(cells.rows(row.get(name), name)):
        where = f"{name}[{number}]"
        key = "value" if message.get("value") is not None else "content"
        said = cells.text(message.get(key), f"{where}.{key}")
        turns.append(with_own_media(Turn(role_of(message, where), (said,)), message))
    own = [v for k, v in row.items() if "system" in k and "message" in k and isinstance(v, str)]
    if own and own[0]:
        prompt = Turn("system", (cells.text(own[0], "system message"),))
        turns = [prompt, *(turn for turn in turns if turn.role != "system")]
    return tuple(turns)


def record(row: Mapping[str, Any], *, tags: tuple[str, ...] = ()) -> Sample:
    """A LLaVA record as a sample."""
    return Sample(turns=turns_of_record(row), waiting=media_of(row), tags=tags)


@source(
    "llava",
    version=2,
    layout="json",
    licence="yours",
    citation="https://arxiv.org/abs/2304.08485",
    verified="the record of LLaVA's own instruction files, as read by its published loaders",
    columns=("conversations",),
    also=RECORD,
    files=JSON_FILES,
    rows_per_part=1000,
)
def llava(row: Mapping[str, Any]) -> Sample:
    """Your own LLaVA JSON or JSONL beside a media folder."""
    return record(row)


@source(
    "m4_instruct",
    version=2,
    hub="lmms-lab/M4-Instruct-Data",
    layout="json",
    licence="CC-BY-4.0",
    citation="https://arxiv.org/abs/2407.07895",
    verified="file names and record on the card; that dreamsim_split.z01 and .zip are disks of one "
    "zip, in the card's words on joining them (here they are read as they are)",
    columns=("conversations",),
    also=RECORD,
    files=("{subset}.json", "m4_instruct_annotations.json", *JSON_FILES),
    subsets={"m4_instruct_annotations": 349_832, "m4_instruct_video": 0},
    default=("m4_instruct_annotations",),
    rows_per_part=1000,
)
def m4_instruct(row: Mapping[str, Any]) -> Sample:
    """Several images per conversation, interleaved with the question's text."""
    return record(row)
