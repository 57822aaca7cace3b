"""A folder of images with `metadata.jsonl` (or .csv, .parquet): {file_name, text | caption, ...}.

The layout of `datasets`' imagefolder. With `question` and `answer` in place of a caption, or
`texts` or `messages`, the row is that conversation. Where there is no metadata the folder that an
image lies in is its label: `cat/1.png`, or `train/cat/1.png`.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.sources import cells
from pipelines.sources.captions import CLASS, IMAGE, choose_question
from pipelines.sources.cauldron import conversation
from pipelines.sources.messages import turns_of
from pipelines.sources.sample import Defect, Sample, Still, Turn, source


@source(
    "imagefolder",
    version=3,
    layout="folder",
    licence="yours",
    citation="https://huggingface.co/docs/datasets/image_dataset#imagefolder",
    verified="file_name and the place of metadata files in the documentation of datasets",
    columns=("file_name|file_names",),
    also=(
        "texts",
        "messages",
        "prompt",
        "completion",
        "question",
        "answer",
        "text",
        "caption",
        "label",
    ),
    files=(
        *(
            f"{folder}metadata.{kind}"
            for kind in ("jsonl", "csv", "parquet")
            for folder in ("{split}/", "", "{subset}/")
        ),
    ),
    rows_per_part=1000,
)
def imagefolder(row: Mapping[str, Any]) -> Sample:
    """An image (or several) with its caption, question or conversation."""
    stills = tuple(cells.media(row, Still, ("file_name", "file_names")))
    if not stills:
        raise Defect("missing_media", "file_name is null")
    if row.get("texts") is not None:
        return Sample(turns=conversation(row["texts"]), waiting=stills)
    if row.get("messages") is not None or row.get("completion") is not None:
        return Sample(turns=turns_of(row), waiting=stills)
    if row.get("question") is not None:
        pair = {"user": row["question"], "assistant": row.get("answer")}
        return Sample(turns=conversation([pair], "row"), waiting=stills)
    about = ", ".join(still.path or "" for still in stills)
    if row.get("label") is not None:
        ask = Turn("user", (*stills, choose_question(CLASS, about)))
        return Sample(turns=(ask, Turn("assistant", (cells.text(row["label"], "label"),))))
    name = "caption" if row.get("text") is None and row.get("caption") is not None else "text"
    caption = cells.text(row.get(name), name)
    ask = Turn("user", (*stills, choose_question(IMAGE, about)))
    return Sample(turns=(ask, Turn("assistant", (caption,))), tags=("caption",))
