"""VISTA-400K: questions and captions about long and high-resolution synthetic videos.

A subset is a folder of tars (`two_needle_niah_qa/two_needle_niah_qa_1.tar` ... of 21.5 GB, members
at the root) and an annotation file `SUBSET.json` beside the folders: {image: path of the video in
the folder, conversations}, without a placeholder. A repository without the JSON is read as
WebDataset pairs: NAME.json (or .txt) with NAME.mp4 in the same tar.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.sources.llava import RECORD, record
from pipelines.sources.sample import Sample, source
from pipelines.sources.webdataset import webdataset

SUBSETS = {
    "event_relationship_mcq": 28_427,
    "event_relationship_qa": 28_427,
    "hr_video_grid_mcq": 29_951,
    "hr_video_grid_qa": 29_950,
    "long_video_caption": 58_617,
    "spatial_niah_mcq": 29_981,
    "spatial_niah_qa": 29_997,
    "spatiotemporal_niah_mcq": 28_239,
    "spatiotemporal_niah_qa": 0,
    "temporal_niah_mcq": 29_876,
    "temporal_niah_qa": 27_591,
    "two_needle_niah_qa": 52_349,
}


@source(
    "vista_400k",
    version=3,
    hub="TIGER-Lab/VISTA-400K",
    layout="json",
    licence="MIT",
    citation="https://arxiv.org/abs/2412.00927",
    verified="SUBSET.json beside SUBSET/, the record, tars SUBSET/SUBSET_N.tar and their members "
    "at the root, in the repository; rows in the published mixture tables",
    columns=("conversations|json|txt",),
    also=RECORD,
    files=("{subset}.json", "{subset}.jsonl", "{subset}/*.json", "{subset}/*.tar", "*.tar"),
    media_files={"": ("{subset}/**",)},
    subsets=SUBSETS,
    rows_per_part=64,
)
def vista_400k(row: Mapping[str, Any]) -> Sample:
    """Questions about one video, or its caption."""
    if "__key__" in row:
        return webdataset(row)
    if "video" in row or not isinstance(row.get("image"), str):
        return record(row)
    return record({**row, "image": None, "video": row["image"]})
