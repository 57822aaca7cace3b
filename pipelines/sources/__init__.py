"""One small adapter per dataset family; everything generic around them.

| file          | what it holds                                                       |
|---------------|---------------------------------------------------------------------|
| sample.py     | Sample, Source, the registry SOURCES and its decorator              |
| cauldron.py.. | the adapters: a row of one layout -> Sample                         |
| parts.py      | a component -> its parts (which files, which rows); cutting.py      |
| files.py      | listings of a local folder, a hub repository, an fsspec URL         |
| repository.py | the hub; the only file that knows `huggingface_hub`                 |
| annotations.py| JSON, small and large -> rows, by index or by block; spans.py       |
| rows.py       | Parquet, compressed JSON lines, CSV -> rows                         |
| media.py      | a row's paths -> bytes, out of folders and archives                 |
| frames.py     | videos -> frames; the only file that knows decord and PyAV; the     |
|               | child process in which everything is decoded                        |
| folders.py    | videos that are folders of pictures                                 |
| pictures.py   | encoded picture -> size, hash, contrast ...                         |
| archives.py   | zips and tars, read in place; spanned.py: zips cut into disks       |
| along.py      | rows in a tar's own order                                           |
| ingest.py     | a part -> SAMPLE                                                    |
| table.py      | the registry as text                                                |
"""

from typing import Any

from pipelines.sources import (  # importing an adapter registers it
    cauldron,  # noqa: F401
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
    sharegpt4video,  # noqa: F401
    video_star,  # noqa: F401
    vista_400k,  # noqa: F401
    vript,  # noqa: F401
    webdataset,  # noqa: F401
)
from pipelines.sources.ingest import ingest, ingest_batches
from pipelines.sources.parts import Part, list_parts
from pipelines.sources.sample import SOURCES, Defect, Sample, Source, source

__all__ = [
    "SOURCES",
    "Defect",
    "Part",
    "Sample",
    "Source",
    "describe",
    "ingest",
    "ingest_batches",
    "list_parts",
    "source",
]


def describe(name: str) -> dict[str, Any]:
    """What the card and recipe.json say of a source: JSON-able."""
    about = SOURCES[name]
    return {
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
