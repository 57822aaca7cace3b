"""The LLaVA record, and the repositories that hold it without media of their own kind.

    {id, image: str | [str], video: str | [str], conversations: [{from: human|gpt|system, value}]}

`<image>` and `<video>` in a human turn stand for the next medium, whichever its kind (LLaVA-Video
writes `<image>` for a video). The rules where they do not match the media:

* no media in the record: the placeholders are literal text and stay;
* more placeholders than media: the row asks about something that is not there: `missing_media`;
* fewer: the media left over follow the last placed one, or open the first human turn where
  none is placed;
* line breaks right after placeholders that open a turn, and space between those, belong to them
  and go;
* `<image>` in an assistant turn is text.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.sources.sample import (
    Defect,
    Medium,
    Sample,
    Turn,
    Video,
    column,
    source,
    still_of,
    text_of,
)

PLACEHOLDER = re.compile(r"<image>|<video>")
ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
}

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


def place_media(turns: Sequence[tuple[str, str]], media: Sequence[Medium]) -> tuple[Turn, ...]:
    """`turns` (role, text) with the media at their placeholders, by the rules above."""
    count = sum(len(PLACEHOLDER.findall(text)) for role, text in turns if role == "user")
    if not media:
        return tuple(Turn(role, (text,)) for role, text in turns)
    if count > len(media):
        raise Defect("missing_media", f"{count} placeholders, {len(media)} media")
    first_user = next((n for n, (role, _) in enumerate(turns) if role == "user"), None)
    if first_user is None:
        raise Defect("wrong_schema", "media, but no human turn")
    waiting = list(media)
    placed: list[Turn] = []
    left = count
    for number, (role, text) in enumerate(turns):
        if role != "user":
            placed.append(Turn(role, (text,)))
            continue
        content: list[str | Medium] = []
        if count == 0 and number == first_user:
            content, waiting = list(waiting), []
        pieces = PLACEHOLDER.split(text)
        for index, piece in enumerate(pieces):
            opens = index > 0 and all(not isinstance(part, str) for part in content)
            kept = piece.lstrip("\n") if opens else piece
            if kept and not (index < len(pieces) - 1 and not kept.strip() and opens):
                content.append(kept)
            if index < len(pieces) - 1:
                content.append(waiting.pop(0))
                left -= 1
                if left == 0:
                    content.extend(waiting)
                    waiting = []
        placed.append(Turn("user", tuple(content)))
    return tuple(placed)


def as_list(value: object) -> list[Any]:
    """The cells of `value`: itself where it is a list, nothing where it is null or empty."""
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def video_of(value: object) -> Video:
    """The video in a cell: a path, bytes, or {bytes, path}; itself where it is one."""
    if isinstance(value, Video):
        return value
    if isinstance(value, Mapping):
        data, path = value.get("bytes"), value.get("path")
        return Video(data=data, path=None if data is not None else path)
    if isinstance(value, bytes):
        return Video(data=value)
    return Video(path=text_of(value, "video"))


def media_of(row: Mapping[str, Any]) -> list[Medium]:
    """The stills, then the videos of a record."""
    stills = [still_of(v) for key in ("image", "images") for v in as_list(row.get(key))]
    videos = [video_of(v) for key in ("video", "videos") for v in as_list(row.get(key))]
    return [*stills, *videos]


def turns_of_record(row: Mapping[str, Any], name: str = "conversations") -> list[tuple[str, str]]:
    """The (role, text) turns of a record, a system prompt of its own in front."""
    turns = []
    for number, message in enumerate(column(row, name, list)):
        if not isinstance(message, Mapping):
            raise Defect("wrong_schema", f"{name}[{number}] is {type(message).__name__}")
        speaker = message.get("from", message.get("role"))
        if speaker not in ROLES:
            raise Defect("wrong_schema", f"{name}[{number}] is by {speaker!r}")
        value = message.get("value", message.get("content"))
        turns.append((ROLES[speaker], text_of(value, f"{name}[{number}].value")))
    if not turns:
        raise Defect("wrong_schema", f"{name} is empty")
    own = [v for k, v in row.items() if "system" in k and "message" in k and isinstance(v, str)]
    if own and own[0]:
        turns = [("system", own[0]), *(turn for turn in turns if turn[0] != "system")]
    return turns


def record(row: Mapping[str, Any], *, tags: tuple[str, ...] = ()) -> Sample:
    """A LLaVA record as a sample."""
    return Sample(turns=place_media(turns_of_record(row), media_of(row)), tags=tags)


@source(
    "llava",
    layout="json",
    licence="yours",
    citation="https://arxiv.org/abs/2304.08485",
    verified="the record of LLaVA's own instruction files, as read by its published loaders",
    columns=("conversations",),
    files=JSON_FILES,
    rows_per_part=1000,
)
def llava(row: Mapping[str, Any]) -> Sample:
    """Your own LLaVA JSON or JSONL beside a media folder."""
    return record(row)


@source(
    "m4_instruct",
    hub="lmms-lab/M4-Instruct-Data",
    layout="json",
    licence="CC-BY-4.0",
    citation="https://arxiv.org/abs/2407.07895",
    verified="file names and record on the card; that dreamsim_split.z01 and .zip are disks of one "
    "zip, in the card's words on joining them (here they are read as they are)",
    columns=("conversations",),
    files=("{subset}.json", "m4_instruct_annotations.json", *JSON_FILES),
    subsets={"m4_instruct_annotations": 349_832, "m4_instruct_video": 0},
    default=("m4_instruct_annotations",),
    rows_per_part=1000,
)
def m4_instruct(row: Mapping[str, Any]) -> Sample:
    """Several images per conversation, interleaved with the question's text."""
    return record(row)
