"""ShareGPT4Video: GPT-4V captions of videos, of keyframes and whole.

`sharegpt4video_40k.jsonl`: {video_id, video_path, zip_folder, captions: [{idx, content}]}; the
caption of the whole video is the one with idx "-1". Videos lie in `zip_folder/`:
`bdd100k/bdd100k_videos.zip`, `mixit/mixkit_videos.zip`, ego4d_videos_1 to 4, panda_videos_1 to 21,
pixabay_videos_1 to 14. The mix in LLaVA's form lies beside the captions.
Records with `conversations` (the mix181k SFT file) are read as LLaVA's.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.sources import cells
from pipelines.sources.captions import VIDEO, choose_question
from pipelines.sources.llava import JSON_FILES, RECORD, record
from pipelines.sources.sample import Defect, Sample, Turn, source


@source(
    "sharegpt4video",
    version=2,
    hub="ShareGPT4Video/ShareGPT4Video",
    layout="json",
    licence="CC-BY-NC-4.0",
    terms=("non-commercial",),
    citation="https://arxiv.org/abs/2406.04325",
    verified="field names and the -1 caption in published code that reads the files; the "
    "zips of zip_folder/ in the repository's listing; that video_path is SET/NAME, a member the "
    "name alone, in published code that unpacks them",
    columns=("captions|conversations",),
    also=("video_path", *RECORD),
    files=("sharegpt4video_40k.jsonl", *JSON_FILES),
    media_files={"": ("zip_folder/**", "*.zip", "*.mp4", "**/*.mp4")},
    subsets={"default": 40_178},
    rows_per_part=128,
)
def sharegpt4video(row: Mapping[str, Any]) -> Sample:
    """A question for the caption of a video, and the caption."""
    if row.get("conversations") is not None:
        return record(row)
    video = cells.video(row.get("video_path"), "video_path")
    for number, caption in enumerate(cells.rows(row.get("captions"), "captions")):
        if str(caption.get("idx")) == "-1":
            text = cells.text(caption.get("content"), f"captions[{number}].content")
            ask = Turn("user", (video, choose_question(VIDEO, text)))
            return Sample(turns=(ask, Turn("assistant", (text,))), tags=("caption",))
    raise Defect("wrong_schema", "no caption of the whole video (idx -1)")
