"""MathWriting: a handwritten formula as an image, and its LaTeX.

The card names an `image` column; the LaTeX is accepted as `latex`, `label` or `text`. Rows carry
no question, so one of a few is chosen by the LaTeX's hash: the same row always gets the same one.
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from pipelines.sources.sample import Defect, Sample, Turn, source, still_of

QUESTIONS = (
    "Write the LaTeX code of this formula.",
    "Convert the handwritten formula to LaTeX.",
    "Which LaTeX expression produces this formula?",
    "Transcribe this mathematical expression in LaTeX.",
)


@source(
    "mathwriting",
    hub="andito/mathwriting-google",
    licence="CC-BY-NC-SA-4.0",
    terms=("non-commercial", "share-alike"),
    citation="https://arxiv.org/abs/2404.10690",
    verified="parquet under data/train-*, 25.8 GB, on the repository's file page; the licence is "
    "that of Google's original release; the columns: `image` in published code that reads it; the "
    "LaTeX column's name was found nowhere (another conversion of the set calls it `latex`)",
    columns=("image", "latex|label|text"),
    media_columns=("image",),
    files=("data/{split}-*.parquet", "data/*.parquet"),
    subsets={"default": 230_000},
    num_bytes=25_800_000_000,
)
def mathwriting(row: Mapping[str, Any]) -> Sample:
    """A question for the LaTeX, the image, and the LaTeX as the answer."""
    latex = row.get("latex") or row.get("label") or row.get("text")
    if not isinstance(latex, str):
        raise Defect("wrong_schema", f"the LaTeX is {type(latex).__name__}, not text")
    choice = blake2b(latex.encode(), digest_size=1).digest()[0] % len(QUESTIONS)
    question = Turn("user", (still_of(row.get("image")), QUESTIONS[choice]))
    return Sample(turns=(question, Turn("assistant", (latex,))), answer=latex)
