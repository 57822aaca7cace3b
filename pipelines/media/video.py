"""Videos to frames: decord first, PyAV where decord cannot or would burst. Nothing else knows them.

    probe (packets only: timestamps, keyframes, size) -> wanted instants -> decode -> JPEG + second

* **Instants.** `num = clamp(round(fps x duration), 1, max_frames)` instants lie evenly over the
  whole clip, first and last frame included (one frame: the middle). Each takes the frame whose real
  timestamp is nearest; timestamps are those of the packets, so a wrong frame rate or duration in
  the header and a variable frame rate do no harm. SmolVLM's processor in transformers spaces its
  indices the same way; the public SmolVLM2 loader instead took consecutive frames from the middle.
* **Decoder.** decord for codecs and sizes it is good at; PyAV for the rest, for rotated images
  and for whatever decord fails on. PyAV seeks per frame where the gap between wanted frames
  exceeds the keyframe distance, else scans once.
* **Size.** The longest edge is brought down to `size` px (the encoder's crop size) with the very
  arithmetic of transformers' first resize (LANCZOS, even short side); the squash to `size` x `size`
  happens when crops are made, as there. Small frames are not enlarged here.
"""

import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from pipelines.media.container import stated_seconds
from pipelines.media.images import decode as decode_image
from pipelines.sources.sample import Defect

BATCH_BYTES = 128 << 20
"""Bytes of whole frames that decord holds at once."""
JPEG_QUALITY = 90
DECORD_CODECS = {"h264", "mpeg4", "vp8", "vp9", "mpeg2video", "mpeg1video", "msmpeg4v3"}
"""Codecs that decord 0.6 (FFmpeg 4) decodes; AV1 it lacks, HEVC it gets wrong in 10 bit."""
DECORD_FORMATS = {"yuv420p", "yuvj420p", "yuv422p", "yuv444p"}
DECORD_PIXELS = 1920 * 1088
"""Above it decord keeps too many whole frames at once (2.1 GB measured where PyAV took 0.1)."""
TRUNCATED = 0.9
"""A clip that holds less than this share of the frames its own table lists is cut off."""


@dataclass(frozen=True)
class Clip:
    """Frames of a video as JPEG, and the second of each; `duration` in seconds of what was read,
    `stated` what the file's header says of it, null where it says nothing.
    """

    frames: tuple[bytes, ...]
    seconds: tuple[float, ...]
    duration: float
    stated: float | None


@dataclass(frozen=True)
class Probe:
    """What the packets say: presentation times (s, ascending), and what the decoders need."""

    times: np.ndarray
    start: float
    duration: float
    codec: str
    pixels: str
    width: int
    height: int
    keyframes: int
    stated: float | None
    """s, by the file's header."""


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


# ------------------------------------------------------------------ in the child process


def probe(data: bytes | str) -> Probe:
    """Reads every packet's header, decodes nothing; raises Defect where there is no video."""
    import av

    with av.open(source_of(data), mode="r", metadata_errors="ignore") as container:
        if not container.streams.video:
            raise Defect("undecodable_video", "no video stream")
        stream = container.streams.video[0]
        base = float(stream.time_base or 0)
        times, keyframes, length = [], 0, 0.0
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                stamp = packet.pts if packet.pts is not None else packet.dts
                if stamp is not None:
                    times.append(stamp * base)
                    length = max(length, (packet.duration or 0) * base)
                keyframes += packet.is_keyframe
        context = stream.codec_context
        if not times:
            raise Defect("undecodable_video", "no packet with a timestamp")
        if stream.frames and len(times) < TRUNCATED * stream.frames:
            raise Defect("truncated_video", f"{len(times)} of {stream.frames} frames")
        found = np.unique(np.array(times))
        gap = float(np.median(np.diff(found))) if len(found) > 1 else length
        return Probe(
            times=found - found[0],
            start=float(found[0]),
            duration=float(found[-1] - found[0] + gap),
            codec=context.name.removeprefix("lib").split("-")[0],
            pixels=context.pix_fmt or "",
            width=context.width,
            height=context.height,
            keyframes=keyframes,
            stated=stated_seconds(
                data,
                container=container.format.name,
                duration=None if container.duration is None else container.duration / av.time_base,
            ),
        )


def source_of(data: bytes | str) -> Any:
    """What a decoder opens: a path, or bytes as a file."""
    return data if isinstance(data, str) else io.BytesIO(data)


def decode(
    data: bytes | str, *, fps: float, max_frames: int, size: int, start: float, end: float
) -> Clip:
    """The frames of a clip, decoded here and now; raises Defect where it is no whole video."""
    import av

    try:
        seen = probe(data)
        inside = np.flatnonzero((seen.times >= start) & (seen.times < end))
        if len(inside) == 0:
            raise Defect("undecodable_video", f"no frame between {start} and {end} s")
        times = seen.times[inside]
        duration = min(seen.duration, end) - start
        wanted = frame_instants(duration, fps=fps, max_frames=max_frames, last=times[-1] - times[0])
        chosen = inside[nearest_frames(times - times[0], wanted)]
        images = images_of(data, seen, chosen, size)
    except (av.FFmpegError, ValueError, IndexError, EOFError) as error:
        raise Defect("undecodable_video", f"{type(error).__name__}: {error}") from error
    frames = tuple(jpeg(image) for image in images)
    stated = None if seen.stated is None else max(0.0, min(seen.stated, end) - start)
    seconds = tuple(float(seen.times[i] - start) for i in chosen)
    return Clip(frames, seconds, float(duration), stated)


def images_of(data: bytes | str, seen: Probe, chosen: np.ndarray, size: int) -> list[Image.Image]:
    """The frames at indices `chosen`, by decord where it can, else by PyAV; each brought down to
    `size` as it comes, so that few whole frames are in memory.
    """
    suits = seen.codec in DECORD_CODECS and seen.pixels in DECORD_FORMATS
    if suits and seen.width * seen.height <= DECORD_PIXELS and seen.keyframes > 0:
        images = by_decord(data, seen, chosen, size)
        if images is not None:
            return images
    return by_av(data, seen, chosen, size)


def by_decord(
    data: bytes | str, seen: Probe, chosen: np.ndarray, size: int
) -> list[Image.Image] | None:
    """The frames by decord; null where it fails or disagrees with the packets, PyAV's turn then."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        return None  # no wheel
    import decord

    try:
        reader = decord.VideoReader(source_of(data), ctx=decord.cpu(0), num_threads=1)
        if len(reader) != len(seen.times) or is_rotated(data):
            return None
        # on some .mpg, .m1v and .mkv its index is senseless, and then so are its frames
        stamps = reader.get_frame_timestamp(range(len(reader)))[:, 0]
        if np.abs(stamps - stamps[0] - seen.times).max() > seen.duration / len(seen.times) / 2:
            return None
        images: list[Image.Image] = []
        step = max(1, BATCH_BYTES // (3 * seen.width * seen.height))
        for start in range(0, len(chosen), step):  # one by one it would seek for every frame
            batch = reader.get_batch(chosen[start : start + step].tolist()).asnumpy()
            images += [fit_frame(Image.fromarray(pixels), size) for pixels in batch]
    except (RuntimeError, IndexError) as error:
        # decord's own errors are RuntimeErrors; PyAV, asked next, has the last word
        print(f"decord: {str(error).splitlines()[0]}", file=sys.stderr)
        return None
    return images


def is_rotated(data: bytes | str) -> bool:
    """Whether the first frame carries a display rotation, which decord ignores."""
    import av

    with av.open(source_of(data), mode="r", metadata_errors="ignore") as container:
        frame = next(container.decode(video=0))
        return bool(frame.rotation % 360)


def by_av(data: bytes | str, seen: Probe, chosen: np.ndarray, size: int) -> list[Image.Image]:
    """The frames by PyAV, seeking where wanted frames lie further apart than keyframes."""
    import av

    wanted = seen.times[chosen] + seen.start
    gap = float(np.diff(wanted).mean()) if len(wanted) > 1 else seen.duration
    seeks = seen.keyframes > 1 and gap > seen.duration / seen.keyframes
    with av.open(source_of(data), mode="r", metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        found = (
            frames_by_seeking(container, wanted) if seeks else frames_by_scanning(container, wanted)
        )
        images = [fit_frame(image, size) for image in found]
    if len(images) < len(wanted):
        if seeks:  # an index that lies: read it from the start
            with av.open(source_of(data), mode="r", metadata_errors="ignore") as container:
                images = [fit_frame(image, size) for image in frames_by_scanning(container, wanted)]
        if len(images) < len(wanted):
            raise Defect("undecodable_video", f"{len(images)} of {len(wanted)} frames decode")
    return images


def frames_by_scanning(container: Any, wanted: np.ndarray) -> Iterator[Image.Image]:
    """The first frame at or after each wanted time (s), in one pass."""
    position = 0
    for frame in container.decode(video=0):
        if position == len(wanted):
            return
        if frame.time is not None and frame.time >= wanted[position] - 1e-4:
            image = upright_frame(frame)
            while position < len(wanted) and frame.time >= wanted[position] - 1e-4:
                position += 1
                yield image


def frames_by_seeking(container: Any, wanted: np.ndarray) -> Iterator[Image.Image]:
    """The first frame at or after each wanted time (s), each from the keyframe before it."""
    stream = container.streams.video[0]
    for instant in wanted:
        container.seek(int(instant / stream.time_base), stream=stream, backward=True)
        for frame in container.decode(video=0):
            if frame.time is not None and frame.time >= instant - 1e-4:
                yield upright_frame(frame)
                break


def upright_frame(frame: Any) -> Image.Image:
    """The frame as RGB with its display rotation applied."""
    image: Image.Image = frame.to_image()
    return image.rotate(frame.rotation, expand=True) if frame.rotation % 360 else image


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
    image = decode_image(data)
    small = max(image.size) <= size and data.startswith((b"\xff\xd8\xff", b"RIFF"))
    return data if small else jpeg(fit_frame(image, size))
