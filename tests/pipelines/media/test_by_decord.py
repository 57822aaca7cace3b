"""decord takes plain clips where a mixture asks for it; all else is PyAV's, and no crash shows."""

import io
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from mixtures.config import Component, Frames
from pipelines.media import by_decord, decoders, video
from pipelines.recipe import fingerprint
from tests.pipelines.media.clips import ALL, decoded, encoded, noise, seconds_of

pytestmark = pytest.mark.skipif(find_spec("decord") is None, reason="no decord for this machine")
CLIP = [noise(n // 5) for n in range(30)]
"""Six images, half a second each."""


def pixels(frame: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(frame)), np.int16)


@pytest.fixture
def asked(monkeypatch):
    """(container, count of frames) of what decord was given and gave."""
    given = []
    true = by_decord.frames_by_decord

    def watched(stream, places, *, count):
        found = true(stream, places, count=count)
        given.append((count, len(found)))
        return found

    monkeypatch.setattr(video, "frames_by_decord", watched)
    return given


def test_the_same_frames_as_pyav_in_its_own_colours(asked):
    data = encoded("mp4", CLIP)
    ours, theirs = decoded(data), decoded(data, decoder="decord")
    assert asked == [(30, len(theirs.frames))]
    assert theirs.seconds == ours.seconds
    assert theirs.duration == ours.duration
    for number, frame in enumerate(theirs.frames):  # colours between pixels are its own
        apart = [np.abs(pixels(frame) - pixels(other)).mean() for other in ours.frames]
        assert min(apart) == apart[number] < 8
        assert sorted(apart)[1] > 30


@pytest.mark.parametrize("kind", ["mkv", "avi", "flv", "ts", "webm"])
def test_other_containers_are_never_given_to_it(asked, kind):
    data = encoded(kind, CLIP)
    assert decoded(data, decoder="decord") == decoded(data)
    assert not asked


def test_where_it_counts_other_frames_or_fails_pyav_decodes(monkeypatch):
    data = seconds_of("mp4", "red", 3)
    monkeypatch.setattr(video, "frames_by_decord", lambda *a, **k: [])
    assert decoded(data, decoder="decord") == decoded(data)
    assert by_decord.frames_by_decord(io.BytesIO(b"no film"), [0], count=1) == []


def test_in_the_child_and_when_it_dies(monkeypatch):
    """The child that decodes has decord, and gave up files and network like any other."""
    data = encoded("mp4", CLIP)
    settings = {k: ALL[k] for k in ("fps", "max_frames", "size")}
    plain = decoders.decode_video(data, **settings)
    clip = decoders.decode_video(data, **settings, decoder="decord")
    assert decoders.child is not None
    assert decoders.child.packages == ("decord",)
    assert decoders.child.confined
    assert clip.seconds == plain.seconds
    true = decoders.decode_in_child

    def dies(kind, data, settings, limit):
        if settings.get("decoder") == "decord":
            raise decoders.Defect("decoder_crash", "the decoder ended its process")
        return true(kind, data, settings, limit)

    monkeypatch.setattr(decoders, "decode_in_child", dies)
    assert decoders.decode_video(data, **settings, decoder="decord") == plain


def test_at_its_default_it_is_no_part_of_what_a_mixture_is():
    component = Component(source="llava", ratio=1.0)
    by = replace(component, frames=Frames(decoder="decord"))
    assert fingerprint(component.frames) == fingerprint({"fps": 1.0, "max_frames": 64})
    assert fingerprint(by) != fingerprint(component)
