"""The media of a sample: read as its row comes, stills decoded several at once.

    Sample -> read_media -> Found, one a medium -> decode_together -> images_of -> IMAGES

A request to the decoding child costs as much as a small image, so stills wait for one another; a
video or a PDF is decoded when it is read. What a medium's defect is does not depend on the others.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.media import decoders, frame_folders
from pipelines.media.images import MAX_BYTES
from pipelines.reading.media_files import Media
from pipelines.sources.sample import Defect, Medium, Pdf, Sample, Video

AHEAD_BYTES = 4 << 20
"""Encoded bytes of the stills that are decoded at once; a larger one is decoded by itself."""
REMEMBERED = 16
"""Media kept decoded: rows that share one stand next to each other."""


@dataclass
class Reader:
    """What one part needs while it is read: its media, and those just decoded."""

    media: Media
    settings: dict[str, Any]
    """fps, max_frames, size and (where it is not PyAV) decoder of video frames."""
    recent: OrderedDict[object, Any] = field(default_factory=OrderedDict)

    def once(self, key: object, make: Any) -> Any:
        """`make()`, or what it gave (or raised) a moment ago for the same key."""
        if key not in self.recent:
            try:
                self.recent[key] = make()
            except Defect as defect:
                self.recent[key] = defect
            if len(self.recent) > REMEMBERED:
                self.recent.popitem(last=False)
        found = self.recent[key]
        if isinstance(found, Defect):
            raise found
        return found


Length = tuple[float, float | None]
"""(s that a video lasts, s that its header states or null)."""
Images = tuple[list[dict[str, Any]], Length | None]


@dataclass
class Encoded:
    """A still that was read."""

    data: bytes
    decoded: dict[str, Any] | Defect | None = None
    """Null: not yet."""


Found = Images | Encoded | Defect
"""What reading a medium gave."""


def read_media(sample: Sample, reader: Reader) -> list[Found]:
    """What each of the sample's media gives, in order."""
    found: list[Found] = []
    for medium in sample.media:
        try:
            found.append(read_medium(medium, reader))
        except Defect as defect:
            found.append(defect)
    return found


def decode_together(media: Sequence[Found]) -> None:
    """The stills among the media are decoded, but those that are better decoded by themselves."""
    stills = {id(one): one for one in media if isinstance(one, Encoded) and one.decoded is None}
    batch: list[Encoded] = []
    num_bytes = 0
    for one in stills.values():
        if num_bytes + len(one.data) > AHEAD_BYTES:
            decode_batch(batch)
            batch, num_bytes = [], 0
        batch.append(one)
        num_bytes += len(one.data)
    decode_batch(batch)


def decode_batch(stills: Sequence[Encoded]) -> None:
    """The same of stills that are few enough."""
    decoded = decoders.decode_images([one.data for one in stills])
    for one, outcome in zip(stills, decoded, strict=True):
        one.decoded = outcome


def images_of(medium: Found) -> Images:
    """(the medium's images, its length where it is a video); raises the Defect that it has."""
    if isinstance(medium, Encoded):
        if medium.decoded is None:
            try:
                medium.decoded = decoders.decode_image(medium.data)
            except Defect as defect:
                medium.decoded = defect
        if not isinstance(medium.decoded, Defect):
            return [medium.decoded], None
        medium = medium.decoded
    if isinstance(medium, Defect):
        raise medium
    return medium


def held_bytes(medium: Found) -> int:
    """Encoded bytes that are held of it."""
    if isinstance(medium, Encoded):
        return len(medium.data)
    images = [] if isinstance(medium, Defect) else medium[0]
    return sum(len(image["bytes"] or b"") for image in images)


def read_medium(medium: Medium, reader: Reader) -> Images | Encoded:
    """The medium, decoded where it is no still; raises Defect."""
    if medium.data is None and not medium.path:
        raise Defect("missing_media", "an empty cell")
    if medium.path is None:
        return read_now(medium, reader)
    result: Images | Encoded = reader.once(medium, lambda: read_now(medium, reader))
    return result


def read_now(medium: Medium, reader: Reader) -> Images | Encoded:
    """The same, not remembered."""
    if isinstance(medium, Video):
        return decode_clip(medium, reader)
    data = medium_bytes(medium, reader, MAX_BYTES)
    return (decoders.decode_pdf(data), None) if isinstance(medium, Pdf) else Encoded(data)


def medium_bytes(medium: Medium, reader: Reader, limit: int) -> bytes:
    """The medium's encoded bytes."""
    if medium.data is not None:
        return medium.data
    return reader.media.read(medium.path or "", limit)


def decode_clip(medium: Video, reader: Reader) -> Images:
    """(the frames of a video with their seconds, its length)."""
    settings = {**reader.settings, "start": medium.start, "end": medium.end}
    try:
        local = reader.media.local(medium.path) if medium.data is None and medium.path else None
        video = local or medium_bytes(medium, reader, decoders.MAX_BYTES)
    except Defect as defect:
        if defect.reason not in ("missing_media", "broken_archive") or medium.path is None:
            raise
        folder = reader.media.folder(medium.path, medium.above, MAX_BYTES)
        if folder is None:
            raise
        settings.pop("decoder", None)  # of images there is none to choose
        clip = frame_folders.clip_of_folder(folder, rate=medium.rate, **settings)
    else:
        clip = decoders.decode_video(video, **settings)
    shots = zip(clip.frames, clip.facts, clip.seconds, strict=True)
    found = [{**facts, "bytes": data, "seconds": second} for data, facts, second in shots]
    return found, (clip.duration, clip.stated)
