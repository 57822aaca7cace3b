"""How a frame becomes RGB: one converter for a clip, whatever it changes to in mid-stream."""

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from pipelines.media import frames

FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le", "gray", "rgb24", "bgra")
SIZES = ((64, 48), (98, 50), (97, 61), (33, 7), (2, 2), (1, 1), (48, 64))
BT709, BT601, WHOLE = 1, 5, 2


def random_frame(rng: np.random.Generator, pixels: str, width: int, height: int) -> av.VideoFrame:
    frame = av.VideoFrame(width, height, pixels)
    for plane in frame.planes:
        if "10le" in pixels:
            levels = rng.integers(0, 1 << 10, plane.buffer_size // 2, np.uint16).tobytes()
        else:
            levels = rng.integers(0, 256, plane.buffer_size, np.uint8).tobytes()
        plane.update(levels)
    frame.colorspace = int(rng.choice((BT709, BT601)))
    frame.color_range = int(rng.choice((1, WHOLE)))
    return frame


def test_one_converter_gives_the_levels_of_one_for_each_frame_whatever_comes_next():
    rng, shared = np.random.default_rng(0), VideoReformatter()
    given = [random_frame(rng, pixels, *size) for pixels in FORMATS for size in SIZES for _ in "ab"]
    for place in rng.permutation(len(given)):
        frame = given[place]
        alone = frame.to_image(interpolation=frames.EXACT)
        assert frames.rgb_image(frame, shared).tobytes() == alone.tobytes(), frame
