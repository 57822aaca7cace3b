"""One small adapter per dataset family: what a row of its layout means; importing registers all.

| file          | what it holds                                                       |
|---------------|---------------------------------------------------------------------|
| sample.py     | Sample, Source, the registry SOURCES and its decorator              |
| captions.py   | questions for data that has captions only                           |
| mapping.py    | `columns:` of a component -> the source that reads it               |
| cauldron.py.. | the adapters: a row of one layout -> Sample                         |

How rows arrive is `pipelines.reading`; what an image or a video is, `pipelines.media`.
"""

from typing import Any

from pipelines.sources import (  # importing an adapter registers it
    cauldron,  # noqa: F401
    dcvlm,  # noqa: F401
    docmatix,  # noqa: F401
    documents,  # noqa: F401
    finevideo,  # noqa: F401
    finevision,  # noqa: F401
    imagefolder,  # noqa: F401
    llava,  # noqa: F401
    llava_cot,  # noqa: F401
    llava_onevision,  # noqa: F401
    llava_video,  # noqa: F401
    mammoth_vl,  # noqa: F401
    mathwriting,  # noqa: F401
    messages,  # noqa: F401
    moviechat,  # noqa: F401
    preferences,  # noqa: F401
    sharegpt4video,  # noqa: F401
    table,  # noqa: F401
    texts,  # noqa: F401
    video_star,  # noqa: F401
    vista_400k,  # noqa: F401
    vript,  # noqa: F401
    webdataset,  # noqa: F401
)
from pipelines.sources.sample import SOURCES, Defect, Sample, Source, source

__all__ = [
    "SOURCES",
    "Defect",
    "Sample",
    "Source",
    "describe",
    "source",
]


def describe(about: Source) -> dict[str, Any]:
    """What the card and recipe.json say of a source: JSON-able."""
    found = {
        "source": about.name,
        "hub": about.hub,
        "revision": about.revision,
        "licence": about.licence,
        "terms": list(about.terms),
        "layout": about.layout,
        "gating": about.gating,
        "citation": about.citation,
        "version": about.version,
    }
    if about.pairs:
        found["pairs"] = True
    return {**found, "columns": dict(about.columns_of)} if about.columns_of else found
