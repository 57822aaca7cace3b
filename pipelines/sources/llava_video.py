"""LLaVA-Video-178K: LLaVA records about videos, JSON beside tar.gz archives of the videos.

A config is a folder (`0_30_s_academic_v0_1`) with `*cap*.json`, `*oe*.json` and `*mc*.json`
(its splits caption, open_ended and multi_choice: name `CONFIG/caption` as the subset to take one
of them) and `*.tar.gz` whose members are the `video` paths. The folders of the four configs
`..._activitynet` are called `..._activitynetqa`, against the globs of the card. `llava_hound`'s
videos lie in another repository: name their folder with `media:`.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.sources.llava import record
from pipelines.sources.sample import Sample, source

LENGTHS = ("0_30_s", "30_60_s", "1_2_m", "2_3_m")
SETS = [
    *(f"{length}_{where}_v0_1" for length in LENGTHS for where in ("academic", "youtube")),
    *(f"{length}_{where}" for length in LENGTHS for where in ("activitynet", "nextqa")),
    *(f"{length}_perceptiontest" for length in LENGTHS[:2]),
    "llava_hound",
]


@source(
    "llava_video",
    hub="lmms-lab/LLaVA-Video-178K",
    layout="json",
    licence="unknown; research use",
    terms=("research-only",),
    citation="https://arxiv.org/abs/2410.02713",
    verified="configs and splits in the card's YAML header, folders in the repository's listing",
    columns=("conversations", "video"),
    files=(
        "{subset}/*.json",
        "{subset}/*.jsonl",
        "{subset}/*.parquet",
        "*.json",
        "*.jsonl",
    ),
    places={
        "/caption": ("{subset}/*cap*.json",),
        "/open_ended": ("{subset}/*oe*.json", "{subset}qa/*oe*.json"),
        "/multi_choice": ("{subset}/*mc*.json",),
        **{f"{length}_activitynet": ("{subset}/*.json", "{subset}qa/*.json") for length in LENGTHS},
    },
    subsets={**dict.fromkeys(SETS, 0), "llava_hound": 255_000},
    rows_per_part=128,
)
def llava_video(row: Mapping[str, Any]) -> Sample:
    """Questions about one video, or its caption."""
    first = (row.get("conversations") or [{}])[0]
    asked = first.get("value", "") if isinstance(first, Mapping) else ""
    caption = isinstance(asked, str) and "describ" in asked.lower()
    return record(row, tags=("caption",) if caption else ())
