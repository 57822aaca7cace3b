"""Which frames of a video are taken, by which decoder, and what a bad one costs."""

import ast
import io
import struct
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.media import decoders, frames, video
from pipelines.sources.sample import Defect
from tests.pipelines.media.clips import (
    colour_at,
    colours,
    decoded,
    encoded,
    noise,
    plain,
    quarters,
    seconds_of,
)
from tests.pipelines.sources.making import encoded_video, levels

ALL = {"fps": 1.0, "max_frames": 64, "size": 512}


def shown(clip):
    """The gray levels of a clip's frames."""
    return levels([{"bytes": data} for data in clip.frames])


def test_frames_lie_evenly_over_the_whole_clip_and_show_their_second(tmp_path):
    """The public loader took consecutive frames out of the middle of short clips."""
    path = encoded_video(tmp_path / "v.mp4", seconds=20, fps=10)
    clip = decoders.decode_video(path, **ALL)
    assert len(clip.frames) == 20
    assert clip.seconds[0] == 0
    assert clip.seconds[-1] == pytest.approx(19.9)
    assert np.diff(clip.seconds) == pytest.approx(19.9 / 19, abs=0.1)
    assert shown(clip) == pytest.approx([s / 20 * 250 for s in clip.seconds], abs=5)


@pytest.mark.parametrize(
    ("codec", "suffix", "pixels"),
    [
        ("libx264", "mp4", "yuv420p"),
        ("libx264", "mkv", "yuv420p"),
        ("mpeg4", "avi", "yuv420p"),
        ("libvpx-vp9", "webm", "yuv420p"),
        ("libsvtav1", "mp4", "yuv420p"),
        ("libx265", "mp4", "yuv420p10le"),
        ("libx264", "mp4", "yuv420p10le"),
        ("mpeg2video", "mpg", "yuv420p"),
    ],
)
def test_codecs_and_containers(tmp_path, codec, suffix, pixels):
    path = encoded_video(
        tmp_path / f"v.{suffix}", seconds=4, fps=25, codec=codec, pixels=pixels, size=(128, 96)
    )
    for data in (path, path.read_bytes()):
        clip = decoders.decode_video(data, **ALL)
        assert clip.duration == pytest.approx(4, abs=0.1)
        assert len(clip.frames) == 4
        assert shown(clip) == pytest.approx([s / 4 * 250 for s in clip.seconds], abs=10)


@pytest.mark.parametrize("gop", [5, 600])
@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("mp4", "mpeg4")]
)
def test_seeking_and_scanning_agree(tmp_path, gop, suffix, codec):
    path = encoded_video(tmp_path / f"v.{suffix}", seconds=20, codec=codec, gop=gop)
    data = io.BytesIO(path.read_bytes())
    seen = video.probe(data)
    wanted = seen.stamps[[3, 77, 150, 199]].tolist()
    found = []
    for way in (video.frames_by_seeking, video.frames_by_scanning):
        with video.open_container(data, seen.kind) as container:
            found.append(way(container, seen, wanted, 512))
    assert [stamp for stamp, _ in found[0]] == wanted
    for one, other in zip(*found, strict=True):
        assert one[0] == other[0]
        assert np.array_equal(np.asarray(one[1]), np.asarray(other[1]))


def test_variable_frame_rate_goes_by_the_timestamps(tmp_path):
    """A second of many frames, then nine of one each: the clip's half is not half of its frames."""
    times = [*range(50), *range(50, 500, 50)]
    path = encoded_video(tmp_path / "v.mkv", seconds=10, fps=50, times=times)
    clip = decoders.decode_video(path, **ALL)
    assert clip.seconds == pytest.approx(sorted({round(s) for s in clip.seconds}), abs=0.03)
    assert len(clip.frames) == 9
    assert (clip.seconds[0], clip.seconds[-1]) == pytest.approx((0, 9), abs=0.03)
    assert shown(clip) == pytest.approx([s * 25 for s in clip.seconds], abs=5)


def overwritten(data: bytes, box: bytes, offset: int, value: bytes) -> bytes:
    """The file with `value` at `offset` bytes after the name of its first such box."""
    at = data.index(box) + len(box) + offset
    return data[:at] + value + data[at + len(value) :]


def test_a_header_that_lies_about_the_rate_is_not_believed(tmp_path):
    data = encoded_video(tmp_path / "v.mp4", seconds=5, fps=10).read_bytes()
    at = data.index(b"mdhd") + 4 + 12
    scale = int.from_bytes(data[at : at + 4], "big")
    clip = decoders.decode_video(
        overwritten(data, b"mdhd", 16, (scale * 3600).to_bytes(4, "big")), **ALL
    )
    assert clip.duration == pytest.approx(5)
    assert len(clip.frames) == 5


@pytest.mark.parametrize(
    ("suffix", "codec", "says"),
    [
        # movie header: created, modified, units a second, duration
        ("mp4", "mpeg4", lambda data: overwritten(data, b"mvhd", 12, struct.pack(">II", 10, 620))),
        # Segment/Info/Duration, a float of ms
        ("mkv", "libx264", lambda d: overwritten(d, b"\x44\x89\x88", 0, struct.pack(">d", 62e3))),
    ],
)
def test_what_a_header_states_is_told_beside_the_real_length(tmp_path, suffix, codec, says):
    path = encoded_video(tmp_path / f"v.{suffix}", seconds=5, fps=10, codec=codec)
    honest = decoders.decode_video(path, **ALL)
    assert (honest.duration, honest.stated) == pytest.approx((5, 5), abs=0.03)
    lying = says(path.read_bytes())
    clip = decoders.decode_video(lying, **ALL)
    assert (clip.duration, clip.stated) == pytest.approx((5, 62), abs=0.03)
    assert clip.frames == honest.frames
    span = decoders.decode_video(lying, **ALL, start=1, end=4)
    assert (span.duration, span.stated) == pytest.approx((3, 3), abs=0.03)
    rest = decoders.decode_video(lying, **ALL, start=1)
    assert (rest.duration, rest.stated) == pytest.approx((4, 61), abs=0.03)


@pytest.mark.parametrize(
    ("suffix", "codec", "rate"),
    [("ts", "libx264", 25), ("mpg", "mpeg2video", 25), ("gif", "gif", 10)],
)
def test_a_container_whose_header_states_no_length(tmp_path, suffix, codec, rate):
    pixels = "rgb8" if codec == "gif" else "yuv420p"
    path = encoded_video(tmp_path / f"v.{suffix}", seconds=4, fps=rate, codec=codec, pixels=pixels)
    assert decoders.decode_video(path, **ALL).stated is None


def test_a_span_of_a_video(tmp_path):
    path = encoded_video(tmp_path / "v.mp4", seconds=10, fps=10)
    clip = decoders.decode_video(path, **ALL, start=4, end=7)
    assert clip.duration == pytest.approx(3)
    assert shown(clip) == pytest.approx([100, 135, 172], abs=6)
    assert clip.seconds[0] == 0
    with pytest.raises(Defect, match="undecodable_video"):
        decoders.decode_video(path, **ALL, start=20, end=30)


@given(
    st.floats(0.01, 5000),
    st.floats(0.1, 30),
    st.integers(1, 200),
    st.integers(1, 300),
    st.booleans(),
)
def test_instants_are_within_bounds_for_any_clip(duration, fps, most, count, jitter):
    times = np.sort(
        np.linspace(0, duration, count) + (np.sin(np.arange(count)) * 1e-3 if jitter else 0)
    )
    times -= times[0]
    wanted = frames.frame_instants(duration, fps=fps, max_frames=most, last=times[-1])
    chosen = frames.nearest_frames(times, wanted)
    assert 1 <= len(chosen) <= min(most, count)
    assert len(wanted) == min(max(1, round(fps * duration)), most)
    assert (np.diff(chosen) > 0).all()
    if len(wanted) > 1 and count > 1:
        assert chosen[0] == 0
        assert chosen[-1] == count - 1


@pytest.fixture(scope="module")
def first_resize():
    """The size arithmetic of transformers' video processor, whose module needs torchvision."""
    import transformers

    path = Path(transformers.__file__).parent / "models/smolvlm/video_processing_smolvlm.py"
    wanted = ("get_resize_output_image_size", "MAX_IMAGE_SIZE")
    body = [
        node
        for node in ast.parse(path.read_text()).body
        if getattr(node, "name", None) in wanted
        or (isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) in wanted)
    ]
    room: dict = {}
    exec(compile(ast.Module(body, []), str(path), "exec"), room)
    return lambda width, height, size: room["get_resize_output_image_size"](
        SimpleNamespace(size=lambda: (1, 3, height, width)), size
    )[::-1]


@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([64, 384, 512]))
def test_stored_size_is_that_of_the_first_resize_of_transformers(first_resize, width, height, size):
    stored = frames.frame_size(width, height, size)
    if max(width, height) <= size:
        assert stored == (width, height)
    else:
        assert stored == first_resize(width, height, size)


def turned(data: bytes, a: float, b: float, c: float, d: float) -> bytes:
    """The clip with that display matrix (ISO/IEC 14496-12, 8.3.2)."""
    at = data.index(b"tkhd") + 4 + 40
    rows = [round(v * 65536) for v in (a, b, 0, c, d, 0, 0, 0, 16384)]
    return data[:at] + struct.pack(">9i", *rows) + data[at + 36 :]


@pytest.mark.parametrize(
    ("matrix", "corners"),
    [
        ((1, 0, 0, 1), "red lime blue white"),
        ((-1, 0, 0, 1), "lime red white blue"),  # a phone's front camera
        ((1, 0, 0, -1), "blue white red lime"),
        ((-1, 0, 0, -1), "white blue lime red"),
        ((0, 1, -1, 0), "blue red white lime"),  # a quarter with the clock
        ((0, -1, 1, 0), "lime white red blue"),
        ((0, 1, 1, 0), "red blue lime white"),
        ((0, -1, -1, 0), "white lime blue red"),
        ((0.02, 0.99, -0.99, 0.02), "blue red white lime"),  # nearly a quarter
        ((0, 0, 0, 0), "red lime blue white"),  # which shows nothing
    ],
)
@pytest.mark.parametrize("kind", ["mp4", "mov"])
def test_frames_lie_as_the_display_matrix_shows_them(kind, matrix, corners):
    clip = decoded(turned(encoded(kind, [quarters()] * 8), *matrix))
    places = [(x, y) for y in (0.25, 0.75) for x in (0.25, 0.75)]
    assert [colour_at(clip.frames[0], x, y) for x, y in places] == corners.split()
    upright = abs(matrix[0]) >= abs(matrix[1])
    assert Image.open(io.BytesIO(clip.frames[0])).size == ((64, 42) if upright else (42, 64))


def with_thumbnail(form: str, codec: str, *, first: bool, pictures: int = 1) -> bytes:
    """A film of 3 s, red then blue, and a track of lime pictures."""
    film = ("film", "libx264", ["red"] * 15 + ["blue"] * 15)
    cover = ("cover", codec, ["lime"] * pictures)
    buffer, packets = io.BytesIO(), []
    with av.open(buffer, "w", format=form) as out:
        for _, coder, shown in (cover, film) if first else (film, cover):
            stream = out.add_stream(coder, rate=10)
            stream.width, stream.height = 96, 64
            stream.pix_fmt = {"png": "rgb24", "mjpeg": "yuvj420p"}.get(coder, "yuv420p")
            for number, colour in enumerate(shown):
                image = plain(colour, width=96, height=64)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame = frame.reformat(format=stream.pix_fmt)
                frame.pts, frame.time_base = number, Fraction(1, 10)
                packets += stream.encode(frame)
            packets += stream.encode()
        out.start_encoding()
        out.mux(sorted(packets, key=lambda packet: packet.dts * packet.time_base))
    return buffer.getvalue()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("form", "codec", "pictures"),
    [("mp4", "mjpeg", 1), ("mov", "png", 1), ("matroska", "mjpeg", 1), ("mp4", "libx264", 2),
     ("mpegts", "mpeg2video", 1), ("avi", "mjpeg", 1)],
)  # fmt: skip
def test_the_track_that_plays_is_taken_and_a_thumbnail_is_none(form, codec, pictures, first):
    clip = decoded(with_thumbnail(form, codec, first=first, pictures=pictures))
    assert colours(clip) == ["red"] * 3 + ["blue"] * 3
    assert clip.duration == pytest.approx(3, abs=0.2)


TWO_AT_MOST = ("mkv", "webm")
"""Containers of which FFmpeg reads the first two films; more are `joined_video`."""


@pytest.mark.parametrize("kind", ["ts", "m2ts", "mpg", "mkv", "webm", "avi", "gif"])
def test_where_the_clock_starts_again_the_parts_follow_each_other(kind):
    parts = {colour: seconds_of(kind, colour, 2) for colour in ("red", "blue")}
    for order in (["red", "blue"], ["blue", "red", "blue"][: 2 if kind in TWO_AT_MOST else 3]):
        clip = decoded(b"".join(parts[colour] for colour in order), fps=1.0)
        assert colours(clip) == [colour for colour in order for _ in range(2)]
        assert clip.duration == pytest.approx(2 * len(order), abs=0.1)
        assert list(clip.seconds) == sorted(clip.seconds)


@pytest.mark.parametrize(("first", "then"), [(0, 50_000), (50_000, 0), (95_442.7, 0)])
def test_a_broadcast_clock_may_begin_anywhere_and_wrap(first, then):
    """2^33 ticks of 90 kHz are 95,443.7 s."""
    one, two = (
        seconds_of("ts", colour, 2, output_ts_offset=str(at))
        for colour, at in (("red", first), ("blue", then))
    )
    clip = decoded(one + two, fps=1.0)
    assert colours(clip) == ["red", "red", "blue", "blue"]
    assert clip.duration == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize("kind", ["mp4", "mov", "fragments.mp4", "flv", "wmv", "mxf"])
def test_a_second_film_that_players_do_not_reach_is_a_verdict(kind):
    with pytest.raises(Defect, match="joined_video"):
        decoded(seconds_of(kind, "red", 2) + seconds_of(kind, "blue", 2))


@pytest.mark.parametrize("kind", TWO_AT_MOST)
def test_a_third_film_that_players_do_not_reach_is_a_verdict(kind):
    with pytest.raises(Defect, match="joined_video"):
        decoded(b"".join(seconds_of(kind, colour, 1) for colour in ("red", "blue", "lime")))


def test_a_second_recording_in_tracks_of_its_own_is_a_verdict():
    other = seconds_of("ts", "blue", 2, mpegts_start_pid="300")
    with pytest.raises(Defect, match="joined_video"):
        decoded(seconds_of("ts", "red", 2) + other)


NOISE = [noise(n) for n in range(40)]


@pytest.mark.parametrize("kind", ["flv", "mkv", "webm", "avi", "wmv", "mp4", "rm"])
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_download_that_broke_off_is_told_from_a_short_film(kind, share):
    data = encoded(kind, NOISE)
    assert decoded(data).duration == pytest.approx(4, abs=0.1)
    with pytest.raises(Defect, match="truncated_video"):
        decoded(data[: round(share * len(data))])


@pytest.mark.parametrize("kind", ["flv", "mkv", "webm", "avi", "wmv"])
def test_a_film_that_lacks_its_last_moment_is_as_long_as_what_is_there(kind):
    data = encoded(kind, NOISE)
    clip = decoded(data[: round(0.95 * len(data))])
    assert 3.6 <= clip.duration <= 4


@pytest.mark.parametrize("kind", ["ts", "mpg", "live.webm", "fragments.mp4", "gif", "ogg"])
def test_where_nothing_is_promised_what_is_there_is_the_film(kind):
    data = encoded(kind, NOISE)
    clip = decoded(data[: len(data) // 2])
    assert 1 < clip.duration < 3
    assert len(clip.frames) >= 2


@pytest.mark.parametrize("kind", ["ts", "m2ts"])
def test_a_recording_that_begins_in_the_middle_begins_at_its_first_keyframe(kind):
    data = encoded(kind, NOISE)
    clip = decoded(data[len(data) // 3 :])
    assert 1.5 < clip.duration < 3


@pytest.mark.parametrize("size", [(72, 64), (18, 34), (2, 2), (16, 400), (418, 16), (130, 98)])
@pytest.mark.parametrize("kind", ["mp4", "webm", "avi"])
def test_any_size_is_decoded(kind, size):
    clip = decoded(encoded(kind, [plain("red", width=size[0], height=size[1])] * 8))
    assert set(colours(clip)) == {"red"}


@pytest.mark.parametrize("kind", ["rm", "m1v"])
def test_where_seeking_fails_the_film_is_read_in_one_pass(kind):
    data = encoded(kind, [plain(c) for c in ("red", "blue", "lime", "white") for _ in range(20)])
    clip = decoded(data, fps=0.5)
    assert colours(clip) == ["red", "blue", "lime", "white"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "undecodable_video"),
        (b"garbage" * 999, "undecodable_video"),
        (b"\0\0\0\x18ftypmp42", "truncated_video"),
        (b"\0\0\0\x10ftypmp42isom", "undecodable_video"),
    ],
)
def test_bad_bytes_are_a_verdict(data, reason):
    with pytest.raises(Defect, match=reason):
        decoders.decode_video(data, **ALL)


def test_a_clip_cut_off_is_told_from_a_short_one(tmp_path):
    path = encoded_video(tmp_path / "v.mp4", seconds=10, codec="libx264", size=(320, 240))
    with (
        av.open(str(path)) as given_,
        av.open(str(tmp_path / "f.mp4"), "w", options={"movflags": "faststart"}) as out,
    ):
        stream = out.add_stream_from_template(given_.streams.video[0])
        for packet in given_.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    data = (tmp_path / "f.mp4").read_bytes()
    assert decoders.decode_video(data, **ALL).duration == pytest.approx(10)
    with pytest.raises(Defect, match="truncated_video"):
        decoders.decode_video(data[: len(data) * 2 // 3], **ALL)
