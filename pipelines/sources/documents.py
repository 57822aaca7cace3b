"""Raw documents: rows with `text` (FineWeb-Edu, DCLM, Dolma, FineMath) or `content` (The Stack).

Parquet, JSON lines, plain or compressed with gzip or zstandard; or .txt and .md files, one document
each. The whole text is one turn of role
`document`: no chat marks, every token learned, cut at `seq_len` when packed. Stack-Edu holds
only ids of blobs; rows that carry the text beside them are read, others are `wrong_schema`.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.sources import cells
from pipelines.sources.messages import ANY_FILES
from pipelines.sources.sample import Sample, Turn, source


@source(
    "documents",
    version=2,
    layout="text",
    licence="yours",
    citation="https://huggingface.co/datasets/HuggingFaceFW/fineweb-edu",
    verified="`text` on the cards of FineWeb-Edu and FineMath; `content` on The Stack's",
    columns=("text|content",),
    files=(*ANY_FILES, "{subset}/*.json.gz", "**/*.{txt,md}", "{subset}/**/*.{txt,md}"),
    rows_per_part=20_000,
)
def documents(row: Mapping[str, Any]) -> Sample:
    """One document, as it stands."""
    name = "content" if row.get("text") is None and row.get("content") is not None else "text"
    return Sample(turns=(Turn("document", (cells.text(row.get(name), name),)),))
