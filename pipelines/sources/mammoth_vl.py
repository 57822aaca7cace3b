"""MAmmoTH-VL-Instruct: LLaVA records in two large JSON files, media in tar.gz shards.

| subset          | file                  | media                                     |
|-----------------|-----------------------|-------------------------------------------|
| mammoth_si_10M  | mammoth_si_10M.json   | single_image_data/*.tar.gz                |
| mammoth_ov_2M   | mammoth_ov_2M.json    | multi_image_data/, video_data/, single... |

Many answers reason step by step, and nothing marks them: a record with one is tagged `cot`, so that
`limits: {cot: ...}` counts it where it hides.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipelines.sources.llava import JSON_FILES, RECORD, record
from pipelines.sources.sample import Sample, source

REASONS = re.compile(
    # An answer that announces steps, or one that argues and then concludes; ours.
    r"\bstep[- ]by[- ]step\b|^\W*(?:step|stage) ?1\b"
    r"|\blet(?:'|\u2019)?s (?:analy[sz]e|break|consider|examine|think|work)\b"
    r"|\b(?:therefore|thus|hence|so|in conclusion|consequently),? (?:the |my )?"
    r"(?:correct |final |best |right )?(?:answer|option|choice|solution) (?:is|would|should) ?\w*"
    r"|\b(?:first(?:ly)?|to (?:determine|solve|find|answer|identify|figure|calculate))\b"
    r".*\b(?:therefore|thus|hence|consequently|in conclusion)\b",
    re.IGNORECASE | re.DOTALL | re.MULTILINE,
)


@source(
    "mammoth_vl",
    version=2,
    hub="MAmmoTH-VL/MAmmoTH-VL-Instruct-12M",
    layout="json",
    licence="Apache-2.0",
    citation="https://arxiv.org/abs/2412.05237",
    verified="file and folder names and sizes on the repository's file page; the record is LLaVA's",
    columns=("conversations",),
    also=RECORD,
    files=("{subset}.json", *JSON_FILES),
    media_files={
        "mammoth_si_10M": ("single_image_data/**",),
        "mammoth_ov_2M": ("multi_image_data/**", "video_data/**", "single_image_data/**"),
    },
    subsets={"mammoth_si_10M": 10_000_000, "mammoth_ov_2M": 2_000_000},
    rows_per_part=1000,
)
def mammoth_vl(row: Mapping[str, Any]) -> Sample:
    """A record about one image, several, or a video."""
    found = record(row)
    answers = [text for turn in found.turns if turn.role == "assistant" for text in turn.content]
    reasons = any(isinstance(text, str) and REASONS.search(text) for text in answers)
    return replace(found, tags=("cot",)) if reasons else found
