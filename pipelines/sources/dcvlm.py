"""DataComp-VLM's pool: WebDataset tars, a folder for each of its source datasets.

    ai2d/000000.tar: 000012.jpg 000012.json | 000013.txt | 000014.0.jpg 000014.1.jpg 000014.json

A sample is read as webdataset.py reads it: a conversation, a caption, or text. Besides:

| .json with                                    | becomes                                    |
|-----------------------------------------------|--------------------------------------------|
| texts: [text or null, ...], images in order   | an interleaved document: an image at every |
|                                               | null, those left over at the end           |
| text, caption; or .txt: and no image or video | a document                                 |

Its annotations lie in a repository of their own, a JSON for each tar: docs/sources.md.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.sources import cells
from pipelines.sources.sample import Defect, Medium, Sample, Turn, source
from pipelines.sources.webdataset import (
    STILLS,
    VIDEOS,
    WORDS,
    Members,
    members_of,
    webdataset,
)

SPOKEN = {"conversations", "texts", "messages", "completion"}
"""What the JSON of a conversation has."""


@source(
    "dcvlm",
    layout="tar",
    hub="mlfoundations/dcvlm_pool_small",
    licence="each of the 166 sets keeps its own licence",
    terms=("per-subset-licences",),
    citation="https://arxiv.org/abs/2606.28551",
    verified="a folder of numbered tars per source dataset and a JSON of annotations for each tar "
    "on the cards; the members of a sample were not verified",
    also=(*STILLS, *VIDEOS, "json", *WORDS),
    files=("{subset}/*.tar",),
    num_bytes=10_300_000_000_000,
    notes=("the pool was still being uploaded when its card was read",),
)
def dcvlm(row: Mapping[str, Any]) -> Sample:
    """A sample of the pool: a conversation, a caption, an interleaved document, or text."""
    found = members_of(row)
    texts = found.about.get("texts")
    if isinstance(texts, list) and all(isinstance(each, str | None) for each in texts):
        return Sample(turns=(Turn("document", interleaved(texts, found.media)),))
    if found.media or found.about.keys() & SPOKEN:
        return webdataset(row)
    return Sample(turns=(Turn("document", (text_of(found),)),))


def interleaved(texts: list[str | None], media: tuple[Medium, ...]) -> tuple[str | Medium, ...]:
    """The texts, a medium at every null; raises Defect where there are fewer media than nulls."""
    waiting = list(media)
    content: list[str | Medium] = []
    for number, each in enumerate(texts):
        if each is not None:
            content.append(cells.text(each, f"texts[{number}]"))
        elif waiting:
            content.append(waiting.pop(0))
        else:
            raise Defect("missing_media", "texts has more places of images than there are images")
    return (*content, *waiting)


def text_of(found: Members) -> str:
    """The text of a sample that has no media."""
    if found.words is not None:
        return found.words
    name = next((key for key in ("text", "caption") if found.about.get(key) is not None), "text")
    return cells.text(found.about.get(name), name)
