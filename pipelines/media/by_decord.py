"""Frames by decord, where a mixture asks for it (`frames: {decoder: decord}`); all that knows it.

SmolVLM2's published loader decodes with decord; to train on the very frames that it saw, say so.
decord 0.6 (2021) guesses the container, ignores display matrices, cannot take another track, and
crashes on files that break off. So it gets only what `probe` has found to be one whole, upright MP4
or QuickTime track whose frames it counts alike; of all else PyAV decodes the frames, and so it does
where decord fails or dies. Its colours come from FFmpeg's quick conversion, which may differ in the
last bit from processor to processor.
"""

import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from pipelines.media.container import Encoded

KINDS = ("mov",)
"""Containers it is given, as FFmpeg calls them."""


def frames_by_decord(stream: Encoded, places: Sequence[int], *, count: int) -> list[Image.Image]:
    """The frames at `places` (in order of time), whole; none where decord fails, or does not find
    `count` frames.
    """
    import decord

    stream.seek(0)
    try:
        reader: Any = decord.VideoReader(io.BytesIO(stream.read()), decord.cpu(0), num_threads=1)
        if len(reader) != count:
            return []
        return [Image.fromarray(reader[int(place)].asnumpy()) for place in places]
    except (decord.DECORDError, RuntimeError, IndexError):
        return []
