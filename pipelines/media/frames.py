"""Which frames of a clip are taken, and how one is kept.

* **Instants.** `num = clamp(round(fps x duration), 1, max_frames)` instants lie evenly over the
  whole clip, first and last frame included (one frame: the middle). Each takes the frame whose time
  is nearest. SmolVLM's processor in transformers spaces its indices the same way; the public
  SmolVLM2 loader instead took consecutive frames from the middle.
* **Pixels.** RGB by swscale's exact arithmetic, since its quick one differs between processors;
  turned and mirrored as the display matrix says.
* **Size.** The longest edge is brought down to `size` px (the encoder's crop size) with the very
  arithmetic of transformers' first resize (LANCZOS, even short side); the squash to `size` x `size`
  happens when crops are made, as there. Small frames are not enlarged here.
"""

import io
import math
import struct
from typing import Any

import numpy as np
from PIL import Image

from pipelines.media import images

JPEG_QUALITY = 90
EXACT = 0x2 | 0x2000 | 0x40000 | 0x80000
"""swscale's SWS_BILINEAR, _FULL_CHR_H_INT, _ACCURATE_RND and _BITEXACT."""
PLANAR = ("yuv420p", "yuvj420p")
"""Formats that FFmpeg writes the same in planes, by tests: nearly all there are."""
TURNS: dict[tuple[int, int, int, int], Image.Transpose] = {
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}
"""(a, b, c, d) of a display matrix, x' = ax + cy and y' = bx + dy (ISO/IEC 14496-12, 8.3.2), and
what it does; Pillow turns against the clock."""


def frame_instants(duration: float, *, fps: float, max_frames: int, last: float) -> np.ndarray:
    """Instants from 0 to `last` (s), evenly: `clamp(round(fps x duration), 1, max_frames)`."""
    count = int(min(max(1, round(fps * duration)), max_frames))
    return np.array([last / 2]) if count == 1 else np.linspace(0.0, last, count)


def nearest_frames(times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Indices into ascending `times` of the nearest to each wanted instant, each at most once."""
    right = np.clip(np.searchsorted(times, wanted), 1, max(1, len(times) - 1))
    if len(times) == 1:
        return np.array([0])
    left = right - 1
    return np.unique(np.where(wanted - times[left] <= times[right] - wanted, left, right))


def frame_size(width: int, height: int, size: int) -> tuple[int, int]:
    """(width, height) of a stored frame: longest edge `size`, short side even, never enlarged.

    The arithmetic of `get_resize_output_image_size` in transformers' SmolVLM video processing.
    """
    if max(width, height) <= size:
        return width, height
    if width >= height:
        short = int(size / (width / height))
        return size, max(1, short + short % 2)
    short = int(size * (width / height))
    return max(1, short + short % 2), size


def upright_frame(frame: Any, converter: Any) -> Image.Image:
    """The frame as RGB, as its display matrix shows it; `converter`: a VideoReformatter, which
    takes a millisecond to set up, so that a clip's frames share one.
    """
    image = rgb_image(frame, converter)
    turn = TURNS.get(quarter_turn(frame))
    return image if turn is None else image.transpose(turn)


def rgb_image(frame: Any, converter: Any) -> Image.Image:
    """The frame as RGB by exact arithmetic.

    What swscale writes in planes, a third of the work, are the same levels where each row of colour
    is of two rows; below an odd last row it is not.
    """
    if frame.format.name not in PLANAR or frame.height % 2 or frame.width % 2:
        whole: Image.Image = converter.reformat(
            frame, format="rgb24", interpolation=EXACT
        ).to_image()
        return whole
    planes = converter.reformat(frame, format="gbrp", interpolation=EXACT).planes
    size = frame.width, frame.height
    green, blue, red = (
        Image.frombuffer("L", size, plane, "raw", "L", plane.line_size, 1) for plane in planes
    )
    return Image.merge("RGB", (red, green, blue))


def quarter_turn(frame: Any) -> tuple[int, int, int, int]:
    """(a, b, c, d) of the frame's display matrix, brought to the nearest quarter turn or mirror."""
    try:
        matrix = bytes(frame.side_data["DISPLAYMATRIX"])
    except KeyError:
        return (1, 0, 0, 1)
    except ValueError:  # beside it stand data of a kind that PyAV does not know
        angle = -math.radians(frame.rotation)
        a, b = round(math.cos(angle)), round(math.sin(angle))
        return (a, b, -b, a)
    a, b, _, c, d = struct.unpack("=5i", matrix[:20])
    if abs(a) + abs(d) < abs(b) + abs(c):
        return (0, sign(b), sign(c), 0)
    return (sign(a), 0, 0, sign(d))


def sign(number: int) -> int:
    """-1, 0 or 1."""
    return (number > 0) - (number < 0)


def fit_frame(image: Image.Image, size: int) -> Image.Image:
    """The frame, its longest edge at most `size` px."""
    target = frame_size(image.width, image.height, size)
    return image if target == image.size else image.resize(target, Image.Resampling.LANCZOS)


def jpeg(image: Image.Image) -> bytes:
    """The frame as JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def frame_bytes(data: bytes, *, size: int) -> bytes:
    """An image as a frame: as it is where it is a small JPEG or WebP, else fitted, as JPEG."""
    image = images.decode(data)
    small = max(image.size) <= size and data.startswith((b"\xff\xd8\xff", b"RIFF"))
    return data if small else jpeg(fit_frame(image, size))
