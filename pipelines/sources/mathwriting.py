"""MathWriting: a handwritten formula as an image, and its LaTeX.

| column             | what it is                                                     |
|--------------------|----------------------------------------------------------------|
| image              | the ink, drawn                                                 |
| normalized_label   | the LaTeX that is learned: one spelling for what looks alike   |
| label              | the LaTeX as its writer or generator has it                    |
| source             | human, synthetic, ... : a tag                                  |
| sample_id, ink_path| not read                                                       |

Another conversion calls the LaTeX `latex` or `text`. Rows carry no question, so one of a few is
chosen by the LaTeX's hash: the same row always gets the same one.
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from pipelines.sources import cells
from pipelines.sources.sample import Sample, Turn, source

QUESTIONS = (
    "Write the LaTeX code of this formula.",
    "Convert the handwritten formula to LaTeX.",
    "Which LaTeX expression produces this formula?",
    "Transcribe this mathematical expression in LaTeX.",
)


@source(
    "mathwriting",
    version=3,
    hub="andito/mathwriting-google",
    licence="CC-BY-NC-SA-4.0",
    terms=("non-commercial", "share-alike"),
    citation="https://arxiv.org/abs/2404.10690",
    verified="features, rows and data/{train,validation,test}-* of the mirror on its card; the "
    "licence is that of Google's original release",
    columns=("image", "normalized_label|label|latex|text"),
    media_columns=("image",),
    also=("source",),
    files=("data/{split}-*.parquet", "data/*.parquet"),
    subsets={"default": 632_301},
    num_bytes=25_800_000_000,
)
def mathwriting(row: Mapping[str, Any]) -> Sample:
    """A question for the LaTeX, the image, and the LaTeX as the answer."""
    names = ("normalized_label", "label", "latex", "text")
    name = next((name for name in names if row.get(name) is not None), "latex")
    latex = cells.text(row.get(name), name)
    choice = blake2b(latex.encode(), digest_size=1).digest()[0] % len(QUESTIONS)
    question = Turn("user", (cells.image(row.get("image"), "image"), QUESTIONS[choice]))
    tags = (f"ink:{cells.text(row['source'], 'source')}",) if row.get("source") else ()
    return Sample(turns=(question, Turn("assistant", (latex,))), answer=latex, tags=tags)
