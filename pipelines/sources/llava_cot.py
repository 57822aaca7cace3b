"""LLaVA-CoT-100k: LLaVA records whose answers reason in four tagged stages.

    <SUMMARY> </SUMMARY> <CAPTION> </CAPTION> <REASONING> </REASONING> <CONCLUSION> </CONCLUSION>

`train.jsonl`, and one zip of images cut into `image.zip.part-aa`, `-ab`, ... (read in place, as
one archive). The stages stay in the text: that is what is learned. The last turn's conclusion is
the sample's gold answer.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipelines.sources.llava import JSON_FILES, RECORD, record
from pipelines.sources.sample import Sample, source

CONCLUSION = re.compile(r"<CONCLUSION>(.*?)(?:</CONCLUSION>|\Z)", re.DOTALL)


@source(
    "llava_cot",
    version=2,
    hub="Xkev/LLaVA-CoT-100k",
    layout="json",
    licence="Apache-2.0",
    citation="https://arxiv.org/abs/2411.10440",
    verified="record and stage tags in the paper's published code",
    columns=("conversations",),
    also=RECORD,
    files=("train.jsonl", *JSON_FILES),
    subsets={"default": 98_581},
    rows_per_part=1000,
)
def llava_cot(row: Mapping[str, Any]) -> Sample:
    """A question about an image, answered by stages of thought."""
    sample = record(row, tags=("cot",))
    last = sample.turns[-1].content[-1]
    found = CONCLUSION.search(last) if isinstance(last, str) else None
    return replace(sample, answer=found.group(1).strip() if found else None)
