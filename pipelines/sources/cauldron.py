"""The Cauldron: one row is all questions about one picture (or several).

| column | type                                |
|--------|-------------------------------------|
| images | list<Image {bytes, path}>           |
| texts  | list<{user, assistant, source}>     |

The pictures stand at the front of the first question, as in the code that built it; later turns
are text. Rows without pictures are text conversations. A literal `<image>` stays text: this layout
has no placeholders.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.sources.sample import (
    Defect,
    Medium,
    Sample,
    Turn,
    column,
    source,
    still_of,
    text_of,
)

CONFIGS = """
ai2d aokvqa chart2text chartqa clevr clevr_math cocoqa datikz diagram_image_to_text docvqa dvqa
figureqa finqa geomverse hateful_memes hitab iam iconqa infographic_vqa intergps
localized_narratives mapqa mimic_cgd multihiertt nlvr2 ocrvqa okvqa plotqa raven rendered_text
robut_sqa robut_wikisql robut_wtq scienceqa screen2words spot_the_diff st_vqa tabmwp tallyqa
tat_qa textcaps textvqa tqa vistext visual7w visualmrc vqarad vqav2 vsr websight
""".split()  # noqa: SIM905 - a list of 50 names reads better so
SUBSETS = {**dict.fromkeys(CONFIGS, 0), "ai2d": 2_445}
"""Recorded rows, where they are published; every config holds at most 200,000."""


def conversation(media: tuple[Medium, ...], texts: list[Mapping[str, Any]]) -> tuple[Turn, ...]:
    """User and assistant turns of `texts`, the media at the front of the first user turn."""
    if not texts:
        raise Defect("wrong_schema", "texts is empty")
    turns: list[Turn] = []
    for number, pair in enumerate(texts):
        if not isinstance(pair, Mapping):
            raise Defect("wrong_schema", f"texts[{number}] is {type(pair).__name__}")
        question = text_of(pair.get("user"), f"texts[{number}].user")
        answer = text_of(pair.get("assistant"), f"texts[{number}].assistant")
        turns.append(Turn("user", (*(media if number == 0 else ()), question)))
        turns.append(Turn("assistant", (answer,)))
    return tuple(turns)


@source(
    "cauldron",
    hub="HuggingFaceM4/the_cauldron",
    licence="CC-BY-4.0 for the prompts; each sub-dataset keeps its own licence",
    terms=("per-subset-licences",),
    citation="https://arxiv.org/abs/2405.02246",
    verified="columns, nesting and config names in the published build code (build_ds_sft.py)",
    columns=("images", "texts"),
    media_columns=("images",),
    subsets=SUBSETS,
)
def cauldron(row: Mapping[str, Any]) -> Sample:
    """A row's question-answer pairs as one conversation about its pictures."""
    images = row.get("images") or []
    if not isinstance(images, list):
        raise Defect("wrong_schema", f"images is {type(images).__name__}")
    stills = tuple(still_of(image) for image in images)
    return Sample(turns=conversation(stills, column(row, "texts", list)))
