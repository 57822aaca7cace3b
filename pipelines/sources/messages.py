"""Rows with `messages: [{role, content}]`: SmolTalk, Magpie, and your own chats.

`content` is a string, or the parts of `transformers` and TRL:

    {type: text, text} | {type: image, image|path|url|bytes?} | {type: video, video|path|url?}

An image or video part without a place of its own takes the next of the row's `images` or
`videos`; those left over open the first user turn. Nothing is fetched from http(s) addresses:
such a row is `remote_media`.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.sources.llava import as_list, turns_of_record, video_of
from pipelines.sources.sample import Defect, Medium, Sample, Turn, column, source, still_of, text_of

ANY_FILES = (
    "{subset}/{split}-*.parquet",
    "{subset}/*.parquet",
    "{subset}/*.jsonl",
    "{subset}/*.json",
    "{subset}/*.jsonl.gz",
    "{subset}/*.jsonl.zst",
    "data/{split}-*.parquet",
    "data/*.parquet",
    "*.parquet",
    "*.jsonl",
    "*.json",
    "*.jsonl.gz",
    "*.json.gz",
    "*.jsonl.zst",
)
ROLES = {"system", "user", "assistant"}


def cell_of(part: Mapping[str, Any], kind: str) -> Any:
    """What an image or video part names: a path, bytes, {bytes, path}; null: the next in line."""
    for key in (kind, "path", "url", "bytes"):
        if part.get(key) is not None:
            value = part[key]
            if isinstance(value, Mapping):
                value = value if value.get("bytes") or value.get("path") else value.get("url")
            if isinstance(value, str):
                if value.startswith(("http://", "https://")):
                    raise Defect("remote_media", value)
                return value.removeprefix("file://")
            return value
    return None


def content_of(
    content: object, where: str, stills: list[Any], videos: list[Any]
) -> list[str | Medium]:
    """The parts of one message; takes the media that it does not name from the lists' fronts."""
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise Defect("wrong_schema", f"{where} is {type(content).__name__}")
    parts: list[str | Medium] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text":
            parts.append(text_of(part.get("text"), f"{where}.text"))
        elif kind in ("image", "image_url", "video"):
            kind = "video" if kind == "video" else "image"
            waiting = videos if kind == "video" else stills
            cell = cell_of(part, kind)
            if cell is None:
                if not waiting:
                    raise Defect("missing_media", f"{where}: no {kind} for the part")
                cell = waiting.pop(0)
            parts.append(video_of(cell) if kind == "video" else still_of(cell))
        else:
            raise Defect("wrong_schema", f"{where} has a part of type {kind!r}")
    return parts


@source(
    "messages",
    layout="json",
    licence="yours",
    citation="https://huggingface.co/docs/transformers/chat_templating_multimodal",
    verified="content parts in the documentation of transformers and TRL",
    columns=("messages",),
    media_columns=("images", "videos"),
    files=ANY_FILES,
    rows_per_part=1000,
)
def messages(row: Mapping[str, Any]) -> Sample:
    """Your own conversations, with or without images and videos."""
    stills = [v for key in ("images", "image") for v in as_list(row.get(key))]
    videos = [v for key in ("videos", "video") for v in as_list(row.get(key))]
    turns: list[Turn] = []
    for number, message in enumerate(column(row, "messages", list)):
        if not isinstance(message, Mapping) or message.get("role") not in ROLES:
            raise Defect("wrong_schema", f"messages[{number}] has no role of {sorted(ROLES)}")
        content = content_of(message.get("content"), f"messages[{number}]", stills, videos)
        turns.append(Turn(message["role"], tuple(content)))
    rest: list[Medium] = [*map(still_of, stills), *map(video_of, videos)]
    first = next((n for n, turn in enumerate(turns) if turn.role == "user"), None)
    if first is None:
        raise Defect("wrong_schema", "no user turn")
    turns[first] = Turn("user", (*rest, *turns[first].content))
    return Sample(turns=tuple(turns))


@source(
    "smoltalk",
    hub="HuggingFaceTB/smoltalk",
    licence="Apache-2.0",
    terms=("per-subset-licences",),
    citation="https://arxiv.org/abs/2502.02737",
    verified="messages[{content, role}] and config names on the card; files data/CONFIG/train-*",
    columns=("messages",),
    files=("data/{subset}/{split}-*.parquet", *ANY_FILES),
    subsets={
        "all": 1_100_000,
        "apigen-80k": 0,
        "everyday-conversations": 0,
        "explore-instruct-rewriting": 0,
        "longalign": 0,
        "metamathqa-50k": 0,
        "numina-cot-100k": 0,
        "openhermes-100k": 0,
        "self-oss-instruct": 0,
        "smol-constraints": 0,
        "smol-magpie-ultra": 0,
        "smol-rewrite": 0,
        "smol-summarize": 0,
        "systemchats-30k": 0,
    },
    default=("all",),
    rows_per_part=20_000,
)
def smoltalk(row: Mapping[str, Any]) -> Sample:
    """A text conversation."""
    sample = messages({"messages": row.get("messages")})
    return Sample(turns=sample.turns, tags=("cot",) if "cot" in str(row.get("source")) else ())


@source(
    "magpie",
    hub="Magpie-Align/Magpie-Pro-300K-Filtered",
    licence="Llama-3 community",
    terms=("model-output-terms",),
    citation="https://arxiv.org/abs/2406.08464",
    verified="conversations[{from, value}] on the card",
    columns=("conversations|messages|conversation",),
    files=ANY_FILES,
    subsets={"default": 300_000},
    rows_per_part=20_000,
)
def magpie(row: Mapping[str, Any]) -> Sample:
    """A text conversation distilled from a chat model."""
    names = ("conversations", "messages", "conversation")
    name = next((name for name in names if row.get(name) is not None), "conversations")
    return Sample(turns=tuple(Turn(role, (text,)) for role, text in turns_of_record(row, name)))
