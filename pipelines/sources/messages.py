"""Rows with `messages: [{role, content}]`: SmolTalk, Magpie, and your own chats.

`content` is a string, or the parts of `transformers`, TRL and OpenAI:

    {type: text, text} | {type: image, image|path|url|bytes|index?} | {type: image_url, image_url:
    {url}} | {type: video, video|path|url|index?} | a string

A part with an `index` or a name is that one of the row's `images` or `videos`, or the medium that
it names; one without takes the next (placing.py), as does a placeholder in a text. One that says
which by a word that is not known here is a Defect, and so is one that is a medium and a text. Media
beside the content of a message (Ollama's `images`) stand in that message. A column
`image_seconds`, a number or null for each of `images`, says which of them are frames of a video,
and of which second. TRL's rows of
`prompt` and `completion`, texts or messages, are one conversation. Nothing is fetched from http(s)
addresses: such a row is `remote_media`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipelines.sources import cells
from pipelines.sources.llava import (
    MEDIA_COLUMNS,
    media_of,
    role_of,
    turns_of_record,
    with_own_media,
)
from pipelines.sources.placing import PLACEHOLDER
from pipelines.sources.sample import (
    At,
    Content,
    Defect,
    Medium,
    Named,
    Next,
    Sample,
    Still,
    Turn,
    source,
)

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
KINDS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "video": "video",
    "video_url": "video",
}
"""Types of parts, in the words of transformers, TRL and OpenAI (chat completions, responses)."""
NAMING = ("file", "file_name", "filename", "src", "value", "content", "base64")
"""Keys of an image or video part that name or hold it, beside its kind, `KIND_url`, `KIND_path` and
the like."""
SETTINGS = frozenset(
    {
        *("type", "text", "index", "detail", "format", "media_type", "mime_type", "mimeType"),
        *("cache_control", "width", "height", "resized_width", "resized_height"),
        *("min_pixels", "max_pixels", "total_pixels", "fps", "nframes", "num_frames"),
        *("min_frames", "max_frames", "video_start", "video_end"),
    }
)
"""Keys of a part that say how it is shown, not which one it is."""
WRITTEN = ("", "_url", "_path", "_file", "_base64")
"""What the name of a kind is followed by, where a part's own medium stands."""


def kind_of(part: Mapping[str, Any], where: str) -> str:
    """text, image or video; a part without a type (Qwen's) is what it has."""
    given = part.get("type")
    if given is None:
        given = next((key for key in KINDS if part.get(key) is not None), None)
    if cells.text(given, f"{where}.type") not in KINDS:
        raise Defect("wrong_schema", f"{where}.type is none of {', '.join(KINDS)}")
    return KINDS[str(given)]


def part_of(value: object, where: str) -> Content:
    """One part of a message."""
    if isinstance(value, str):
        return cells.text(value, where)
    part = cells.mapping(value, where)
    kind = kind_of(part, where)
    words = part.get("text")
    if kind == "text":
        if media := [key for key, of in KINDS.items() if of != "text" and part.get(key)]:
            raise Defect("wrong_schema", f"{where} is a text and has {media[0]} besides")
        return cells.text(words, f"{where}.text")
    if isinstance(words, str) and PLACEHOLDER.sub("", words).strip():
        raise Defect("wrong_schema", f"{where} is of type {kind} and has a text besides")
    read: Callable[[object, str], Medium] = cells.video if kind == "video" else cells.image
    for key in (*(f"{kind}{what}" for what in WRITTEN), "source", *NAMING):
        if part.get(key) is not None:
            medium = read(part[key], f"{where}.{key}")
            return named(medium, kind)
    if part.keys() & {"bytes", "data", "path", "url"}:
        medium = read({key: cell for key, cell in part.items() if key != "type"}, where)
        if medium.data is not None or medium.path:
            return Named(medium)
    for key in ("index", f"{kind}_index"):
        if part.get(key) is not None:
            return At(kind, cells.index(part[key], f"{where}.{key}"))
    if others := [key for key in part if key not in SETTINGS and says(part[key])]:
        known = f"{kind}, path, url, bytes and index"
        raise Defect("wrong_schema", f"{where} has {others[0]}, and none of {known} says which")
    return Next(kind)


def says(value: object) -> bool:
    """Whether a key of this value tells anything: tables give every part the keys of all."""
    return not (value is None or isinstance(value, bool) or value in ("", [], {}))


def named(medium: Medium, kind: str) -> Content:
    """The part of a medium, which is the next in line where the part leaves it empty."""
    return Named(medium) if medium.data is not None or medium.path else Next(kind)


def content_of(content: object, where: str) -> tuple[Content, ...]:
    """The parts of one message."""
    if isinstance(content, str | bytes):
        return (cells.text(content, where),)
    if isinstance(content, Mapping):
        content = cells.transposed(content, where)
    if not isinstance(content, list):
        raise cells.unfit(content, where, "text or a list")
    return tuple(part_of(part, f"{where}[{number}]") for number, part in enumerate(content))


def chat(value: object, name: str) -> tuple[Turn, ...]:
    """The turns of a list of messages."""
    turns = []
    for number, message in enumerate(cells.rows(value, name)):
        where = f"{name}[{number}]"
        role = role_of(message, where)
        keys = ("content", "value")
        key = next((key for key in keys if message.get(key) is not None), "content")
        said = Turn(role, content_of(message.get(key), f"{where}.{key}"))
        turns.append(with_own_media(said, message))
    return tuple(turns)


def said_by(role: str, value: object, name: str) -> tuple[Turn, ...]:
    """The turns of a `prompt` or `completion`: messages, or a text of its own."""
    if isinstance(value, str | bytes):
        return (Turn(role, (cells.text(value, name).lstrip(" "),)),)
    return chat(value, name)


def turns_of(row: Mapping[str, Any]) -> tuple[Turn, ...]:
    """The turns of `messages`, or of `prompt` and `completion`."""
    if row.get("messages") is None and row.get("completion") is not None:
        asked = said_by("user", row.get("prompt"), "prompt")
        return (*asked, *said_by("assistant", row["completion"], "completion"))
    return chat(row.get("messages"), "messages")


def timed(media: Sequence[Medium], row: Mapping[str, Any]) -> tuple[Medium, ...]:
    """The media; stills that `image_seconds` gives a second are frames of a video."""
    seconds = row.get("image_seconds")
    if seconds is None:
        return tuple(media)
    stills = [medium for medium in media if isinstance(medium, Still)]
    if not isinstance(seconds, list) or len(seconds) != len(stills):
        raise cells.unfit(seconds, "image_seconds", f"a list of {len(stills)} numbers or nulls")
    of = iter(cells.seconds(value, f"image_seconds[{n}]") for n, value in enumerate(seconds))
    return tuple(replace(m, seconds=next(of)) if isinstance(m, Still) else m for m in media)


@source(
    "messages",
    version=4,
    layout="json",
    licence="yours",
    citation="https://huggingface.co/docs/transformers/chat_templating_multimodal",
    verified="content parts in the documentation of transformers, TRL and OpenAI; prompt and "
    "completion in TRL's page on dataset formats",
    columns=("messages|completion",),
    media_columns=("images", "videos"),
    also=("prompt", "image_seconds", *MEDIA_COLUMNS),
    files=ANY_FILES,
    rows_per_part=1000,
)
def messages(row: Mapping[str, Any]) -> Sample:
    """Your own conversations, with or without images and videos."""
    turns = turns_of(row)
    if all(turn.role != "user" for turn in turns):
        raise Defect("wrong_schema", "no user turn")
    return Sample(turns=turns, waiting=timed(media_of(row), row))


@source(
    "smoltalk",
    version=2,
    hub="HuggingFaceTB/smoltalk",
    licence="Apache-2.0",
    terms=("per-subset-licences",),
    citation="https://arxiv.org/abs/2502.02737",
    verified="messages[{content, role}] and config names on the card; files data/CONFIG/train-*",
    columns=("messages",),
    also=("source",),
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
    turns = chat(row.get("messages"), "messages")
    return Sample(turns=turns, tags=("cot",) if "cot" in str(row.get("source")) else ())


@source(
    "magpie",
    version=2,
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
    return Sample(turns=turns_of_record(row, name))
