"""Vript: scripts of videos, scene by scene: content, shot type, camera, and the voice-over.

`vript_captions/vript_{long,short}_videos_captions.jsonl`: {meta: {video_id, ...}, clip_id, caption:
{shot_type, camera_movement, content, scene_title}, voiceover: [str]}, a row per clip; the clip is
`VIDEO_ID/CLIP_ID.mp4` in the zips of `vript_{long,short}_videos_clips/`.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.sources import cells
from pipelines.sources.captions import CAMERA, SPOKEN, VIDEO, choose_question
from pipelines.sources.llava import JSON_FILES
from pipelines.sources.sample import Defect, Sample, Turn, Video, source


@source(
    "vript",
    version=2,
    hub="Mutonix/Vript",
    layout="json",
    licence="academic use only",
    terms=("non-commercial", "research-only", "no-redistribution"),
    notes=("by downloading, the licence on the card is accepted",),
    citation="https://arxiv.org/abs/2406.06040",
    verified="fields of the captions on the card; clip paths in published code that reads them",
    columns=("clip_id", "caption"),
    also=("meta", "video_id", "voiceover"),
    files=("vript_captions/vript_{subset}_videos_captions.jsonl", *JSON_FILES),
    media_files={"": ("vript_{subset}_videos_clips/**", "{subset}/**")},
    subsets={"long": 400_040, "short": 8_776},
    rows_per_part=128,
)
def vript(row: Mapping[str, Any]) -> Sample:
    """A clip's content as a caption, told with its voice-over, and how it was filmed."""
    caption = cells.mapping(row.get("caption"), "caption")
    clip = cells.text(row.get("clip_id"), "clip_id")
    about = cells.mapping(row["meta"], "meta") if row.get("meta") is not None else row
    path = f"{cells.text(about.get('video_id'), 'video_id')}/{clip}.mp4"
    content = cells.text(caption.get("content"), "caption.content")
    if not content:
        raise Defect("wrong_schema", "caption.content is empty")
    question = choose_question(VIDEO, clip)
    words = [word for word in cells.listed(row.get("voiceover")) if word is not None]
    spoken = " ".join(cells.text(word, "voiceover") for word in words).strip()
    if spoken:
        question = f"{SPOKEN.format(spoken)}\n{question}"
    turns = [Turn("user", (Video(path=path), question)), Turn("assistant", (content,))]
    shot = [name for name in ("shot_type", "camera_movement") if caption.get(name)]
    camera = ", ".join(cells.text(caption[name], f"caption.{name}") for name in shot)
    if camera:
        turns += [Turn("user", (CAMERA,)), Turn("assistant", (camera,))]
    return Sample(turns=tuple(turns), tags=("caption",))
