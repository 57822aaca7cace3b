"""Videos to frames, by PyAV, which nothing else knows; by decord where asked (by_decord.py).

    kind by first bytes -> probe (packets only: clock, keyframes, size) -> wanted instants
    -> decode -> upright RGB, brought down -> JPEG + second

* **Opening.** FFmpeg gets a stream of bytes, never a path; the container by its first bytes
  (container.py), so that it guesses nothing; and an empty list of protocols, so that nothing in the
  bytes opens anything else.
* **Track.** The one that plays: cover images and thumbnails are passed over (`track_that_plays`).
* **Clock.** Times are those of the packets, so a wrong frame rate or duration in the header and a
  variable frame rate do no harm. Where the clock starts again (joined recordings), the next part
  follows the one before (`continuous_packets`).
* **Decoding.** By seeking where the gap between wanted frames exceeds the keyframe distance, else
  in one pass; where seeking fails or lands elsewhere, in one pass. Which frames are taken, and how
  they are kept: frames.py.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image

from pipelines.media import container as containers
from pipelines.media import images
from pipelines.media.by_decord import KINDS, frames_by_decord
from pipelines.media.container import Encoded
from pipelines.media.frames import (
    fit_frame,
    frame_instants,
    jpeg,
    nearest_frames,
    quarter_turn,
    upright_frame,
)
from pipelines.sources.sample import Defect

TRUNCATED = 0.9
"""A clip that holds less than this share of the frames that its own table lists, or of the seconds
that the header of an incomplete file promises, is cut off."""
JUMP = 10.0
"""s by which the clock of a broadcast container jumps ahead where another recording begins, and
which no reordering of frames reaches back: FFmpeg's own `dts_delta_threshold`."""
BROADCAST = ("mpegts", "mpeg")
"""Containers whose clock may begin anywhere."""
HANDED_ON = (containers.MATROSKA, "avi")
"""Containers whose header's duration FFmpeg hands on as it stands."""
SKIPPING = {"h264", "hevc", "mpeg1video", "mpeg2video"}
"""Codecs of which frames that no other builds upon need not be decoded where they are not wanted;
in AVI a packet's time is not its frame's."""


@dataclass(frozen=True)
class Clip:
    """Frames of a video as JPEG, what is known of each image, and its second; `duration` in seconds
    of what was read, `stated` what the file's header says of it, null where it says nothing.
    """

    frames: tuple[bytes, ...]
    facts: tuple[Mapping[str, Any], ...]
    seconds: tuple[float, ...]
    duration: float
    stated: float | None


@dataclass(frozen=True)
class Probe:
    """What the packets say of the track that plays, and what decoding needs."""

    kind: str
    """The container, as FFmpeg calls it."""
    track: int
    """The stream's index."""
    stamps: np.ndarray
    """Presentation times, ascending, in units of `base`."""
    base: float
    """s."""
    duration: float
    """s."""
    keyframes: int
    joined: bool
    """Whether the clock started again."""
    stated: float | None
    """s, by the file's header."""

    @property
    def times(self) -> np.ndarray:
        """Since the first frame, in s, ascending."""
        return (self.stamps - self.stamps[0]) * self.base


# ------------------------------------------------------------------ in the child process


def open_container(stream: Encoded, kind: str) -> Any:
    """The container, that opens nothing else."""
    import av

    stream.seek(0)
    bounds = {"protocol_whitelist": "", "max_pixels": str(images.MAX_PIXELS)}
    return av.open(stream, mode="r", format=kind, options=bounds, metadata_errors="ignore")


def decode(
    stream: Encoded,
    *,
    fps: float,
    max_frames: int,
    size: int,
    start: float,
    end: float,
    decoder: str = "av",
) -> Clip:
    """The frames of a clip, decoded here and now; raises Defect where it is no whole video."""
    import av

    try:
        seen = probe(stream)
        inside = np.flatnonzero((seen.times >= start) & (seen.times < end))
        if len(inside) == 0:
            raise Defect("undecodable_video", f"no frame between {start} and {end} s")
        times = seen.times[inside]
        duration = min(seen.duration, end) - start
        wanted = frame_instants(duration, fps=fps, max_frames=max_frames, last=times[-1] - times[0])
        places = inside[nearest_frames(times - times[0], wanted)]
        chosen = seen.stamps[places].tolist()
        shown: Shown = []
        if decoder == "decord" and is_plain(stream, seen):
            found = frames_by_decord(stream, places, count=len(seen.stamps))
            shown = [(s, fit_frame(i, size)) for s, i in zip(chosen, found, strict=False)]
        shown = shown or frames_at(stream, seen, chosen, size)
    except av.error.MemoryError as error:
        raise MemoryError from error
    except (av.FFmpegError, ValueError, IndexError, OverflowError) as error:
        raise Defect("undecodable_video", f"{type(error).__name__}: {error}") from error
    stated = None if seen.stated is None else max(0.0, min(seen.stated, end) - start)
    first = int(seen.stamps[0])
    seconds = tuple(float((stamp - first) * seen.base - start) for stamp, _ in shown)
    frames = tuple(jpeg(image) for _, image in shown)
    facts = tuple(images.image_facts(data) for data in frames)
    return Clip(frames, facts, seconds, float(duration), stated)


def probe(stream: Encoded) -> Probe:
    """Reads every packet's header, decodes nothing; raises Defect where there is no whole video."""
    import av

    kind = containers.kind_of(stream)
    if kind is None:
        raise Defect("undecodable_video", "it begins like no container that is read")
    layout = containers.layout_of(stream, kind)
    if layout.unread:
        raise Defect("joined_video", f"{layout.unread} films behind those that are played")
    try:
        track = track_that_plays(stream, kind)
        with open_container(stream, kind) as container:
            seen = probe_track(container, kind, track, layout.seconds)
    except av.error.MemoryError:
        raise
    except av.FFmpegError as error:
        if layout.complete is False:  # what FFmpeg looks for lies behind the end
            raise Defect("truncated_video", f"it breaks off: {error}") from error
        raise
    promised = 0.0 if layout.complete else TRUNCATED * (seen.stated or 0.0)
    if seen.duration < promised:
        with open_container(stream, kind) as container:  # a sound track may outlast the images
            lasts = last_second(container) - float(seen.stamps[0] * seen.base)
        if max(seen.duration, lasts) < promised:
            raise Defect("truncated_video", f"{seen.duration:.1f} of {seen.stated:.1f} s")
    return seen


def track_that_plays(stream: Encoded, kind: str) -> int:
    """The index of the video stream that a player shows: of those with at least half as many
    packets as the richest, the default one, else the first. Cover images are none.

    Raises Defect("joined_video") where one film ends and another begins in a track of its own.
    """
    import av

    cover = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    with open_container(stream, kind) as container:
        tracks = [track for track in container.streams.video if not track.disposition & cover]
        if not tracks:
            raise Defect("undecodable_video", "no video track that plays")
        if len(tracks) == 1:
            return int(tracks[0].index)
        default = {t.index for t in tracks if t.disposition & av.stream.Disposition.default}
        places: dict[int, list[int]] = {track.index: [] for track in tracks}
        for place, packet in enumerate(container.demux(tracks)):
            if packet.size:
                places[packet.stream_index].append(place)
    most = max(map(len, places.values()))
    counts = [held for held in places.values() if held and len(held) >= (1 - TRUNCATED) * most]
    middles = sorted((held[len(held) // 4], held[3 * len(held) // 4]) for held in counts)
    if kind in BROADCAST and any(end < begin for (_, end), (begin, _) in pairwise(middles)):
        raise Defect("joined_video", f"{len(counts)} films, one behind the other")
    plays = [index for index, held in places.items() if held and 2 * len(held) >= most]
    return min(plays, key=lambda index: (index not in default, index))


def probe_track(container: Any, kind: str, index: int, promised: float | None) -> Probe:
    """What the packets of the track say; `promised`: s, by the structure of the file."""
    import av

    track = container.streams[index]
    context = track.codec_context
    if context is None:
        raise Defect("undecodable_video", "a codec that is not known")
    if context.width * context.height > images.MAX_PIXELS:
        raise Defect("too_many_pixels", f"{context.width} x {context.height}")
    stamps: list[int] = []
    keyframes, before_key, length, joined = 0, 0, 0, False
    for packet, shift in continuous_packets(container, track, kind):
        if packet.size and packet.is_keyframe:
            keyframes += 1
            before_key = len(stamps) if keyframes == 1 else before_key
        if packet.size and not packet.is_discard and (stamp := stamp_of(packet)) is not None:
            stamps.append(stamp)
            length = max(length, packet.duration or 0)
            joined |= shift != 0
    base = float(track.time_base or 0)
    found = np.unique(np.array(stamps[before_key:], np.int64))
    if not len(found) or not base:
        raise Defect("undecodable_video", "no packet with a timestamp")
    if track.frames and len(stamps) < TRUNCATED * track.frames:
        raise Defect("truncated_video", f"{len(stamps)} of {track.frames} frames")
    gap = float(np.median(np.diff(found))) if len(found) > 1 else float(length)
    if promised is None and container.duration and kind in HANDED_ON:
        promised = container.duration / av.time_base
    return Probe(
        kind=kind,
        track=index,
        stamps=found,
        base=base,
        duration=(float(found[-1] - found[0]) + gap) * base,
        keyframes=keyframes,
        joined=joined,
        stated=None if joined else promised,
    )


def stamp_of(packet: Any) -> int | None:
    """When the packet is shown, or at least decoded, in units of its stream."""
    stamp: int | None = packet.pts if packet.pts is not None else packet.dts
    return stamp


def continuous_packets(container: Any, track: Any, kind: str) -> Iterator[tuple[Any, int]]:
    """(packet, how far its clock was moved) of a track, on one clock that never starts again; at
    last an empty one. A last packet in which the file breaks off is left out.

    No frame after a keyframe is shown before one in front of it, so a keyframe that says it is
    begins another recording.
    """
    jump = round(JUMP / float(track.time_base or 1))
    shift, step, top, held = 0, 1, None, None
    for packet in container.demux(track):
        if not packet.size:
            if held is not None and not held[0].is_corrupt:
                yield held
            held = None
            yield packet, shift
            continue
        if held is not None:
            yield held
        stamp = stamp_of(packet)
        if stamp is not None:
            if top is not None:
                moved = stamp + shift
                back = moved < top - (0 if packet.is_keyframe else jump)
                ahead = kind in BROADCAST and moved > top + jump
                shift += top + step - moved if back or ahead else 0
            step = max(1, packet.duration or step)
            top = stamp + shift if top is None else max(top, stamp + shift)
        if shift:
            packet.pts = None if packet.pts is None else packet.pts + shift
            packet.dts = None if packet.dts is None else packet.dts + shift
        held = packet, shift


def last_second(container: Any) -> float:
    """When the last packet of any stream ends, s by the container's clock."""
    ends = [0.0]
    for packet in container.demux():
        if (stamp := stamp_of(packet)) is not None and packet.size:
            ends.append(float((stamp + (packet.duration or 0)) * packet.time_base))
    return max(ends)


Shown = list[tuple[int, Image.Image]]
"""(stamp, frame) in the order of time."""


def frames_at(stream: Encoded, seen: Probe, wanted: list[int], size: int) -> Shown:
    """The frames at the stamps `wanted`, each brought down to `size` as it comes, so that few whole
    ones are in memory.
    """
    import av

    gap = (wanted[-1] - wanted[0]) / (len(wanted) - 1) if len(wanted) > 1 else math.inf
    seeks = seen.keyframes > 1 and gap * seen.base * seen.keyframes > seen.duration
    if seeks and not seen.joined:
        with suppress(av.FFmpegError), open_container(stream, seen.kind) as container:
            found = frames_by_seeking(container, seen, wanted, size)
            if found is not None:
                return found
    with open_container(stream, seen.kind) as container:
        return frames_by_scanning(container, seen, wanted, size)


def is_plain(stream: Encoded, seen: Probe) -> bool:
    """Whether decord shows of the clip what a player does: one whole, upright track."""
    if seen.joined or not any(kind in KINDS for kind in seen.kind.split(",")):
        return False
    with open_container(stream, seen.kind) as container:
        if len(container.streams.video) != 1:
            return False
        frame = next(container.decode(container.streams.video[0]), None)
        return frame is not None and quarter_turn(frame) == (1, 0, 0, 1)


def decoded_track(container: Any, seen: Probe) -> Any:
    """The track, decoded on this thread alone."""
    track = container.streams[seen.track]
    track.thread_type = "NONE"
    track.codec_context.thread_count = 1
    return track


def frames_by_seeking(container: Any, seen: Probe, wanted: list[int], size: int) -> Shown | None:
    """The frames, each from the keyframe before it; null where one is not to be found like that."""
    from av.video.reformatter import VideoReformatter

    track, found, converter = decoded_track(container, seen), [], VideoReformatter()
    for stamp in wanted:
        container.seek(stamp, stream=track, backward=True)
        later = (f for f in container.decode(track) if f.pts is not None and f.pts >= stamp)
        frame = next(later, None)
        if frame is None or frame.pts != stamp:
            return None
        found.append((stamp, fit_frame(upright_frame(frame, converter), size)))
    return found


def frames_by_scanning(container: Any, seen: Probe, wanted: list[int], size: int) -> Shown:
    """The first frame at or after each wanted stamp, in one pass; the last frame for stamps that
    decoding ends a little before. Raises Defect where it ends earlier.
    """
    from av.video.reformatter import VideoReformatter

    track, converter = decoded_track(container, seen), VideoReformatter()
    skips = track.codec_context.name in SKIPPING and seen.kind != "avi"
    needed, found, count, begun = set(wanted), Shown(), 0, seen.keyframes == 0
    last: tuple[int, Any] | None = None
    taken = None
    for packet, _ in continuous_packets(container, track, seen.kind):
        begun |= packet.is_keyframe
        if not begun:
            continue  # nothing that it builds upon is there
        if skips:
            spare = packet.size and stamp_of(packet) not in needed
            track.codec_context.skip_frame = "NONREF" if spare else "DEFAULT"
        for frame in packet.decode():
            at = frame.pts  # a frame without a time has that of its place
            at = int(seen.stamps[min(count, len(seen.stamps) - 1)]) if at is None else at
            count, last = count + 1, (at, frame)
            due = [stamp for stamp in wanted[len(found) :] if stamp <= at]
            if due:
                image, taken = fit_frame(upright_frame(frame, converter), size), at
                found += [(stamp, image) for stamp in due]
            if len(found) == len(wanted):
                return found
    first, final = int(seen.stamps[0]), wanted[-1]
    if last is None or last[0] - first < TRUNCATED * (final - first):
        raise Defect("undecodable_video", f"{len(found)} of {len(wanted)} frames decode")
    if last[0] != taken:
        found.append((last[0], fit_frame(upright_frame(last[1], converter), size)))
    return found
