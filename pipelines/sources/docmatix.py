"""Docmatix: questions about the pages of a document.

Config `images` (files in `data/`): images list<Image>, one per page, texts as in the Cauldron.
Config `pdf` (files `pdf/train-NNNNN-of-00089.parquet`): the PDF as bytes in place of the pages;
its pages are rendered by pypdfium2 as they are read. Config `zero-shot-exp` is a small held-out
set, read as `images`.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.sources import cells
from pipelines.sources.cauldron import conversation
from pipelines.sources.sample import Defect, Medium, Pdf, Sample, Still, source


@source(
    "docmatix",
    version=2,
    hub="HuggingFaceM4/Docmatix",
    licence="MIT",
    citation="https://arxiv.org/abs/2408.12637",
    verified="configs images -> data/train-*, pdf -> pdf/train-*-of-00089, their features ({pdf: "
    "binary, texts: [{user, assistant, source}]}) and the MIT licence on the card",
    notes=("a stray pdf_data/ holds one .arrow file, which is not read",),
    columns=("images|pdf", "texts"),
    media_columns=("images", "pdf"),
    places={
        "images": ("data/{split}-*.parquet", "data/*.parquet", "images/*.parquet", "*.parquet")
    },
    default=("images",),
    subsets={"images": 1_270_000, "pdf": 1_270_000, "zero-shot-exp": 1_700},
    whole_name="images",
)
def docmatix(row: Mapping[str, Any]) -> Sample:
    """A document's pages, then the questions about it."""
    media: list[Medium] = [*cells.media(row, Still, ("images",))]
    media = media or [*cells.media(row, Pdf, ("pdf",))]
    if not media:
        raise Defect("missing_media", "neither images nor pdf")
    return Sample(turns=conversation(row.get("texts")), waiting=tuple(media))
