"""The Cauldron: one row is all questions about one image (or several).

| column | type                                |
|--------|-------------------------------------|
| images | list<Image {bytes, path}>           |
| texts  | list<{user, assistant, source}>     |

The images stand at the front of the first question, as in the code that built it; later turns
are text. Rows without images are text conversations. Rows of your own may have placeholders.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.sources import cells
from pipelines.sources.sample import Sample, Still, Turn, source

SUBSETS = {
    "ai2d": 2_445,
    "aokvqa": 16_534,
    "chart2text": 26_956,
    "chartqa": 18_260,
    "clevr": 69_995,
    "clevr_math": 70_000,
    "cocoqa": 46_287,
    "datikz": 47_974,
    "diagram_image_to_text": 295,
    "docvqa": 10_189,
    "dvqa": 199_995,
    "figureqa": 99_995,
    "finqa": 5_276,
    "geomverse": 9_298,
    "hateful_memes": 8_495,
    "hitab": 2_495,
    "iam": 5_658,
    "iconqa": 27_302,
    "infographic_vqa": 2_113,
    "intergps": 1_275,
    "localized_narratives": 199_998,
    "mapqa": 37_412,
    "mimic_cgd": 70_939,
    "multihiertt": 7_614,
    "nlvr2": 50_426,
    "ocrvqa": 165_746,
    "okvqa": 8_998,
    "plotqa": 157_070,
    "raven": 41_995,
    "rendered_text": 9_995,
    "robut_sqa": 8_509,
    "robut_wikisql": 74_984,
    "robut_wtq": 38_241,
    "scienceqa": 4_971,
    "screen2words": 15_725,
    "spot_the_diff": 8_566,
    "st_vqa": 17_242,
    "tabmwp": 22_717,
    "tallyqa": 98_675,
    "tat_qa": 2_199,
    "textcaps": 21_953,
    "textvqa": 21_953,
    "tqa": 1_496,
    "vistext": 9_964,
    "visual7w": 14_361,
    "visualmrc": 3_022,
    "vqarad": 308,
    "vqav2": 82_772,
    "vsr": 2_152,
    "websight": 9_995,
}
"""Every config and its rows, about: from the paper's table of instruction data and from the
re-formats of these sets in published mixtures (mixtures/recorded.csv has the origin of each)."""


def conversation(value: object, name: str = "texts") -> tuple[Turn, ...]:
    """User and assistant turns of a list of {user, assistant}."""
    turns: list[Turn] = []
    for number, pair in enumerate(cells.rows(value, name)):
        for role in ("user", "assistant"):
            said = cells.text(pair.get(role), f"{name}[{number}].{role}")
            turns.append(Turn(role, (said,)))
    return tuple(turns)


@source(
    "cauldron",
    version=2,
    hub="HuggingFaceM4/the_cauldron",
    licence="CC-BY-4.0 for the prompts; each sub-dataset keeps its own licence",
    terms=("per-subset-licences",),
    citation="https://arxiv.org/abs/2405.02246",
    verified="columns, nesting and config names in the published build code (build_ds_sft.py); "
    "rows per set in the paper and the published mixtures",
    columns=("images", "texts"),
    media_columns=("images",),
    subsets=SUBSETS,
)
def cauldron(row: Mapping[str, Any]) -> Sample:
    """A row's question-answer pairs as one conversation about its images."""
    stills = cells.media(row, Still, ("images",))
    return Sample(turns=conversation(row.get("texts")), waiting=tuple(stills))
