"""Videos that come as a folder of images, an image a frame (LLaVA-Hound's, many of your own).

| the folder lies in         | and is found                                               |
|----------------------------|------------------------------------------------------------|
| a folder of the media      | by listing it                                              |
| a zip or tar read at random| by its members' folders, which the path names from the right |
| a tar.gz, read in order    | as its images pass (along.py); they must stand together    |

Frames count in natural order of their names (`f2` before `f10`); the n-th is at n / fps seconds.
Which are taken, and how they are kept, is as of any video (frames.py).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipelines.media import decoders, frames, video
from pipelines.sources.sample import Defect


@dataclass(frozen=True)
class Folder:
    """The frames of a video: their names in order, and the bytes of the n-th."""

    names: tuple[str, ...]
    read: Callable[[int], bytes]


def clip_of_folder(
    folder: Folder, *, rate: float, fps: float, max_frames: int, size: int, start: float, end: float
) -> video.Clip:
    """The frames of a folder whose images follow each other `rate` times a second; raises Defect
    where there is none, or one that is taken is no whole image.
    """
    times = np.arange(len(folder.names)) / rate
    inside = np.flatnonzero((times >= start) & (times < end))
    if len(inside) == 0:
        raise Defect("undecodable_video", f"no frame between {start} and {end} s")
    duration = min(len(folder.names) / rate, end) - start
    since = times[inside] - times[inside[0]]
    wanted = frames.frame_instants(duration, fps=fps, max_frames=max_frames, last=since[-1])
    chosen = inside[frames.nearest_frames(since, wanted)]
    shown = [decoders.decode_frame(folder.read(int(n)), size) for n in chosen]
    return video.Clip(
        frames=tuple(image["bytes"] for image in shown),
        facts=tuple(shown),
        seconds=tuple(float(times[n] - start) for n in chosen),
        duration=duration,
        stated=None,
    )
