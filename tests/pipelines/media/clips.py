"""Small clips of plain colours, in every container that is read, and what is seen of them."""

import io
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image

from pipelines.media import video
from pipelines.media.video import Clip

COLOURS = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
KINDS: Mapping[str, tuple[str, str, Mapping[str, str]]] = {
    "mp4": ("mp4", "libx264", {}),
    "mov": ("mov", "mpeg4", {}),
    "fragments.mp4": ("mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
    "mkv": ("matroska", "libx264", {}),
    "webm": ("webm", "libvpx-vp9", {}),
    "live.webm": ("webm", "libvpx", {"live": "1"}),
    "flv": ("flv", "libx264", {}),
    "avi": ("avi", "mpeg4", {}),
    "ts": ("mpegts", "libx264", {}),
    "m2ts": ("mpegts", "libx264", {"mpegts_m2ts_mode": "1"}),
    "mpg": ("mpeg", "mpeg2video", {}),
    "wmv": ("asf", "wmv2", {}),
    "rm": ("rm", "rv20", {}),
    "ogg": ("ogg", "libvpx", {}),
    "gif": ("gif", "gif", {}),
    "mxf": ("mxf", "mpeg2video", {}),
    "m1v": ("mpeg1video", "mpeg1video", {}),
}
"""Suffix -> (FFmpeg's muxer, encoder, the muxer's options)."""
RATES = {"mpg": 25, "m1v": 25, "mxf": 25, "rm": 25}
"""Frames a second where the format does not take 10."""
ALL: dict[str, Any] = {"fps": 2.0, "max_frames": 64, "size": 64, "start": 0.0, "end": float("inf")}


def plain(colour: str, *, width: int = 128, height: int = 96) -> np.ndarray:
    return np.full((height, width, 3), COLOURS[colour], np.uint8)


def noise(seed: int, *, width: int = 128, height: int = 96) -> np.ndarray:
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return np.kron(blocks, np.ones((8, 8, 1), np.uint8))


def quarters(*, width: int = 96, height: int = 64) -> np.ndarray:
    """Red, lime over blue, white."""
    upper = np.hstack([plain(c, width=width // 2, height=height // 2) for c in ("red", "lime")])
    lower = np.hstack([plain(c, width=width // 2, height=height // 2) for c in ("blue", "white")])
    return np.vstack([upper, lower])


def encoded(kind: str, images: Sequence[np.ndarray], **options: str) -> bytes:
    """A clip that shows these images, 10 a second; `options` are the muxer's."""
    form, codec, usual = KINDS[kind]
    rate = RATES.get(kind, 10)
    shown = [images[n * 10 // rate] for n in range(len(images) * rate // 10)]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form, options={**usual, **options}) as out:
        quick = {"deadline": "realtime", "cpu-used": "8"} if codec.startswith("libvpx") else {}
        stream = out.add_stream(codec, rate=rate, options=quick)
        stream.height, stream.width = shown[0].shape[:2]
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        stream.gop_size, stream.bit_rate = 10, 300_000
        for number, pixels in enumerate(shown):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return buffer.getvalue()


def seconds_of(kind: str, colour: str, seconds: int, **options: str) -> bytes:
    """A clip of one colour."""
    return encoded(kind, [plain(colour)] * (10 * seconds), **options)


def decoded(data: bytes, **settings: Any) -> Clip:
    """The clip, decoded in this process."""
    return video.decode(io.BytesIO(data), **{**ALL, **settings})


def colour_at(data: bytes, x: float = 0.5, y: float = 0.5) -> str:
    """The nearest of COLOURS at a place of an image."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    seen = image.getpixel((int(image.width * x), int(image.height * y)))
    distance = {
        c: sum((a - b) ** 2 for a, b in zip(v, seen, strict=True)) for c, v in COLOURS.items()
    }  # type: ignore[arg-type]
    return min(distance, key=distance.__getitem__)


def colours(clip: Clip) -> list[str]:
    """Of the middle of each frame."""
    return [colour_at(frame) for frame in clip.frames]
