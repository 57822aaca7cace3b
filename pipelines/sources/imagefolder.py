"""A folder of images with `metadata.jsonl` (or .csv, .parquet): {file_name, text | caption, ...}.

The layout of `datasets`' imagefolder. With `question` and `answer` in place of a caption, or
`texts` or `messages`, the row is that conversation.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.sources.captions import IMAGE, choose_question
from pipelines.sources.cauldron import conversation
from pipelines.sources.llava import as_list
from pipelines.sources.messages import messages
from pipelines.sources.sample import Sample, Still, Turn, source, text_of


@source(
    "imagefolder",
    layout="folder",
    licence="yours",
    citation="https://huggingface.co/docs/datasets/image_dataset#imagefolder",
    verified="file_name and the place of metadata files in the documentation of datasets",
    columns=("file_name|file_names",),
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
    names = as_list(row.get("file_name", row.get("file_names")))
    stills = tuple(Still(path=text_of(name, "file_name")) for name in names)
    if isinstance(row.get("texts"), list):
        return Sample(turns=conversation(stills, row["texts"]))
    if isinstance(row.get("messages"), list):
        return messages({"messages": row["messages"], "images": [still.path for still in stills]})
    if row.get("question") is not None:
        pair = {"user": row["question"], "assistant": row.get("answer")}
        return Sample(turns=conversation(stills, [pair]))
    caption = text_of(row.get("text", row.get("caption")), "caption")
    ask = Turn("user", (*stills, choose_question(IMAGE, str(names))))
    return Sample(turns=(ask, Turn("assistant", (caption,))), tags=("caption",))
