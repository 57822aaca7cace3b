"""WebDataset tars: the members of one sample stand together and share a name up to the first dot.

    000001.jpg 000001.txt | 000001.mp4 000001.json | 000001.0.png 000001.1.png 000001.json

| text                                             | becomes                                 |
|--------------------------------------------------|-----------------------------------------|
| .json with conversations (LLaVA), texts,         | that conversation, media at its places  |
| messages, or prompt and completion               |                                         |
| .json with caption or text; .txt, .caption       | a caption: the media, a question, it    |

Media come in the natural order of their names (`2.png` before `10.png`), or in that in which the
JSON's `image` or `video` names them all. Text in another encoding than UTF-8 is read where a byte
order mark says which. `image_seconds` of the JSON is as in messages.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.sources import cells
from pipelines.sources.captions import IMAGE, VIDEO, choose_question
from pipelines.sources.cauldron import conversation
from pipelines.sources.llava import MEDIA_COLUMNS, RECORD, turns_of_record
from pipelines.sources.messages import timed, turns_of
from pipelines.sources.sample import Defect, Medium, Sample, Still, Turn, Video, source

STILLS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
VIDEOS = ("mp4", "webm", "mkv", "avi", "mov", "m4v")
WORDS = ("txt", "caption", "text")


@source(
    "webdataset",
    version=3,
    layout="tar",
    licence="yours",
    citation="https://github.com/webdataset/webdataset",
    verified="the naming convention in the documentation of webdataset",
    also=(
        *(*STILLS, *VIDEOS, "json", *WORDS, "conversations", "texts", "messages", "prompt"),
        *("completion", "caption", "image_seconds", *RECORD),
    ),
    files=("{subset}/*.tar", "{subset}/*.tar.gz", "*.tar", "*.tar.gz", "*.tgz"),
)
def webdataset(row: Mapping[str, Any]) -> Sample:
    """The members of one key as a conversation or a captioned medium."""
    found = members_of(row)
    about, waiting = found.about, found.media
    if "conversations" in about:
        return Sample(turns=turns_of_record(about), waiting=waiting)
    if "texts" in about:
        return Sample(turns=conversation(about["texts"]), waiting=waiting)
    if "messages" in about or "completion" in about:
        return Sample(turns=turns_of(about), waiting=waiting)
    words = found.words
    if words is None:
        name = "text" if about.get("caption") is None else "caption"
        words = cells.text(about.get(name), name)
    if not waiting:
        raise Defect("missing_media", "no image or video of this key")
    questions = VIDEO if isinstance(waiting[0], Video) else IMAGE
    ask = Turn("user", (*waiting, choose_question(questions, str(row.get("__key__")))))
    return Sample(turns=(ask, Turn("assistant", (words,))), tags=("caption",))


@dataclass(frozen=True, kw_only=True)
class Members:
    """What the members of one key hold."""

    media: tuple[Medium, ...]
    """In order."""
    about: Mapping[str, Any]
    """The JSON."""
    words: str | None
    """The text beside it; null: there is none."""


def members_of(row: Mapping[str, Any]) -> Members:
    """The members of one key, read; raises the Defect that one of them is."""
    key = str(row.get("__key__"))
    media: list[Medium] = []
    about: Mapping[str, Any] = {}
    words = None
    for extension in sorted(row.keys() - {"__key__"}, key=place_of):
        data = row[extension]
        last = extension.rpartition(".")[2]
        if isinstance(data, Defect):
            raise data
        if last in STILLS:
            media.append(Still(data=data, called=names_of(key, extension)))
        elif last in VIDEOS:
            media.append(Video(data=data, called=names_of(key, extension)))
        elif last == "json":
            found = cells.unpacked(data, "json")
            about = found if isinstance(found, Mapping) else {"text": found}
        elif last in WORDS:
            words = cells.decoded(data, last).strip()
    return Members(media=timed(as_named(media, about), about), about=about, words=words)


def place_of(extension: str) -> tuple[Any, ...]:
    """What members of a key are sorted by: `0` of `0.png`, which numbers it."""
    return cells.natural_key(extension.rpartition(".")[0]), extension


def names_of(key: str, extension: str) -> tuple[str, ...]:
    """What the JSON of a key may call a member."""
    return (f"{key}.{extension}", f"{key.rpartition('/')[2]}.{extension}", extension)


def as_named(media: list[Medium], about: Mapping[str, Any]) -> tuple[Medium, ...]:
    """The media in the order in which the JSON names them, where it names each of them."""
    names = [name for column in MEDIA_COLUMNS for name in cells.listed(about.get(column))]
    by_name = {name: medium for medium in media for name in medium.called}
    found = [by_name.get(name) for name in names if isinstance(name, str)]
    ordered = tuple(medium for medium in found if medium is not None)
    return ordered if sorted(map(id, ordered)) == sorted(map(id, media)) else tuple(media)
