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
    version=2,
    verified="features, rows and data/{train,validation,test}-* of the mirror on its card; the "
    "licence is that of Google's original release",
    columns=("image", "normalized_label|label|latex|text"),
    media_columns=("image",),
    files=("data/{split}-*.parquet", "data/*.parquet"),
    subsets={"default": 632_301},
    num_bytes=25_800_000_000,
)
def mathwriting(row: Mapping[str, Any]) -> Sample:
    """A question for the LaTeX, the image, and the LaTeX as the answer."""
    names = ("normalized_label", "label", "latex", "text")
    latex = next((row[name] for name in names if row.get(name) is not None), None)
    if not isinstance(latex, str):
        raise Defect("wrong_schema", f"the LaTeX is {type(latex).__name__}, not text")
    kind = row.get("source")
    choice = blake2b(latex.encode(), digest_size=1).digest()[0] % len(QUESTIONS)
    question = Turn("user", (still_of(row.get("image")), QUESTIONS[choice]))
    tags = (f"ink:{kind}",) if isinstance(kind, str) and kind else ()
    return Sample(turns=(question, Turn("assistant", (latex,))), answer=latex, tags=tags)
