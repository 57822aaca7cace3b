"""MAmmoTH-VL-Instruct: LLaVA records in two large JSON files, media in tar.gz shards.

| subset          | file                  | media                                     |
|-----------------|-----------------------|-------------------------------------------|
| mammoth_si_10M  | mammoth_si_10M.json   | single_image_data/*.tar.gz                |
| mammoth_ov_2M   | mammoth_ov_2M.json    | multi_image_data/, video_data/, single... |

Answers reason step by step throughout; whether that counts as `cot` is the mixture's choice
(`tags: [cot]` on the component).
"""

from collections.abc import Mapping
from typing import Any

from pipelines.sources.llava import JSON_FILES, record
from pipelines.sources.sample import Sample, source


@source(
    "mammoth_vl",
    hub="MAmmoTH-VL/MAmmoTH-VL-Instruct-12M",
    layout="json",
    licence="Apache-2.0",
    citation="https://arxiv.org/abs/2412.05237",
    verified="file and folder names and sizes on the repository's file page; the record is LLaVA's",
    columns=("conversations",),
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
    return record(row)
