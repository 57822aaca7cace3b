"""WebDataset tars: the members of one sample stand together and share a name up to the first dot.

    000001.jpg 000001.txt | 000001.mp4 000001.json | 000001.0.png 000001.1.png 000001.json

| text                                             | becomes                                 |
|--------------------------------------------------|-----------------------------------------|
| .json with conversations (LLaVA) or texts, messages | that conversation, media at its places |
| .json with caption or text; .txt, .caption       | a caption: the media, a question, it    |

Media come in the order of the tar.
"""

import json
from collections.abc import Mapping
from typing import Any

from pipelines.sources.captions import IMAGE, VIDEO, choose_question
from pipelines.sources.cauldron import conversation
from pipelines.sources.llava import place_media, turns_of_record
from pipelines.sources.messages import messages
from pipelines.sources.sample import Defect, Medium, Sample, Still, Turn, Video, source, text_of

STILLS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
VIDEOS = ("mp4", "webm", "mkv", "avi", "mov", "m4v")
WORDS = ("txt", "caption", "text")


@source(
    "webdataset",
    layout="tar",
    licence="yours",
    citation="https://github.com/webdataset/webdataset",
    verified="the naming convention in the documentation of webdataset",
    files=("{subset}/*.tar", "{subset}/*.tar.gz", "*.tar", "*.tar.gz", "*.tgz"),
)
def webdataset(row: Mapping[str, Any]) -> Sample:
    """The members of one key as a conversation or a captioned medium."""
    media: list[Medium] = []
    about: dict[str, Any] = {}
    words = None
    for extension, data in row.items():
        last = extension.rpartition(".")[2]
        if isinstance(data, Defect):
            raise data
        if last in STILLS:
            media.append(Still(data=data))
        elif last in VIDEOS:
            media.append(Video(data=data))
        elif last == "json":
            found = json_of(data)
            about = found if isinstance(found, dict) else {"text": found}
        elif last in WORDS:
            words = data.decode("utf-8", "replace").strip()
    if "conversations" in about:
        return Sample(turns=place_media(turns_of_record(about), media))
    if "texts" in about:
        return Sample(turns=conversation(tuple(media), about["texts"]))
    if "messages" in about:
        stills = [medium.data for medium in media if isinstance(medium, Still)]
        videos = [medium.data for medium in media if isinstance(medium, Video)]
        return messages({"messages": about["messages"], "images": stills, "videos": videos})
    if words is None:
        words = text_of(about.get("caption", about.get("text")), "caption")
    if not media:
        raise Defect("missing_media", str(row.get("__key__")))
    questions = VIDEO if isinstance(media[0], Video) else IMAGE
    ask = Turn("user", (*media, choose_question(questions, str(row.get("__key__")))))
    return Sample(turns=(ask, Turn("assistant", (words,))), tags=("caption",))


def json_of(data: bytes) -> Any:
    """The JSON in a member; raises Defect where it is none."""
    try:
        return json.loads(data.decode("utf-8-sig"))
    except ValueError as error:
        raise Defect("broken_json", str(error)) from error
