"""LLaVA-Video-178K: LLaVA records about videos, JSON beside tar.gz archives of the videos.

A config is a folder (`0_30_s_academic_v0_1`) with `*cap*.json`, `*oe*.json` and `*mc*.json`
(its splits caption, open_ended and multi_choice: name `CONFIG/caption` as the subset to take one
of them) and `*.tar.gz` whose members are the `video` paths. The folders of the four configs
`..._activitynet` are called `..._activitynetqa`, against the globs of the card.

`llava_hound`'s videos lie in another repository, each as a folder of images, two a second, in
tar.gz archives, and are read from there; `media: FOLDER` names a copy, of the archives or unpacked.
The records put `shareVideoGPTV/frames/all_frames/` in front
of a video's name, where the archives are to be unpacked: inside them it stands alone.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipelines.sources.llava import RECORD, record
from pipelines.sources.sample import Sample, Video, source

LENGTHS = ("0_30_s", "30_60_s", "1_2_m", "2_3_m")
SETS = [
    *(f"{length}_{where}_v0_1" for length in LENGTHS for where in ("academic", "youtube")),
    *(f"{length}_{where}" for length in LENGTHS for where in ("activitynet", "nextqa")),
    *(f"{length}_perceptiontest" for length in LENGTHS[:2]),
    "llava_hound",
]
HOUND = "shareVideoGPTV/"
HOUND_RATE = 2.0
"""Frames a second that LLaVA-Hound cut: its `decode2frame`, and LLaVA-NeXT's loader, which reads so
many (github.com/RifleZhang/LLaVA-Hound-DPO, github.com/LLaVA-VL/LLaVA-NeXT)."""


@source(
    "llava_video",
    version=3,
    hub="lmms-lab/LLaVA-Video-178K",
    layout="json",
    licence="Apache-2.0",
    terms=("research-only",),
    citation="https://arxiv.org/abs/2410.02713",
    verified="configs, splits, licence and its limit to research on the card; folders in the "
    "repository's listing; llava_hound's folders of frames, their 2 a second and where its chunks "
    "are unpacked in LLaVA-NeXT's loader and in public scripts that fetch them",
    columns=("conversations", "video"),
    also=RECORD,
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
    media_hub={
        f"llava_hound{part}": ("ShareGPTVideo/train_video_and_instruction", "train_300k/*.tar.gz")
        for part in ("", "/caption", "/open_ended", "/multi_choice")
    },
    subsets={**dict.fromkeys(SETS, 0), "llava_hound": 255_000},
    rows_per_part=128,
)
def llava_video(row: Mapping[str, Any]) -> Sample:
    """Questions about one video, or its caption."""
    sample = record({**row, "video": hound(row.get("video"))})
    asked = sample.turns[0].content[0]
    caption = isinstance(asked, str) and "describ" in asked.lower()
    return replace(sample, tags=("caption",)) if caption else sample


def hound(video: object) -> object:
    """The folder of frames that a record of `llava_hound` names; any other cell as it is."""
    if not isinstance(video, str) or not video.startswith(HOUND):
        return video
    above, _, name = video.rstrip("/").rpartition("/")
    return Video(path=name, above=above, rate=HOUND_RATE)
