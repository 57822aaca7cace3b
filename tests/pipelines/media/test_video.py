"""Which frames of a video are taken, by which decoder, and what a bad one costs."""

import ast
import io
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.media import container as stated
from pipelines.media import decoders, images, video
from pipelines.sources.sample import Defect
from tests.pipelines.sources.making import encoded_video, levels, png

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


def test_both_decoders_give_the_same_frames(tmp_path):
    path = str(encoded_video(tmp_path / "v.mp4", seconds=6, fps=10, codec="libx264", gop=30))
    seen = video.probe(path)
    chosen = np.array([0, 7, 31, 59])
    by_decord = video.by_decord(path, seen, chosen, 512)
    assert by_decord is not None
    by_av = video.by_av(path, seen, chosen, 512)
    for one, other in zip(by_decord, by_av, strict=True):
        difference = np.asarray(one).astype(int) - np.asarray(other).astype(int)
        assert np.abs(difference).max() <= 3


@pytest.mark.parametrize("gop", [5, 600])
def test_seeking_and_scanning_agree(tmp_path, gop):
    path = str(encoded_video(tmp_path / "v.mp4", seconds=20, fps=10, codec="libx264", gop=gop))
    seen = video.probe(path)
    wanted = seen.times[[3, 77, 150, 199]] + seen.start
    found = {}
    for way in (video.frames_by_seeking, video.frames_by_scanning):
        with av.open(path) as container:
            found[way] = [np.asarray(image) for image in way(container, wanted)]
    assert len(found[video.frames_by_seeking]) == 4
    for one, other in zip(
        found[video.frames_by_seeking], found[video.frames_by_scanning], strict=True
    ):
        assert np.array_equal(one, other)


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


@pytest.mark.parametrize(("version", "wide"), [(0, 4), (1, 8)])
def test_both_versions_of_the_movie_header(version, wide):
    def header(units: int, length: int) -> io.BytesIO:
        fields = bytes([version, 0, 0, 0]) + bytes(2 * wide)
        fields += units.to_bytes(4, "big") + length.to_bytes(wide, "big") + bytes(80)
        movie = boxed(b"udta", b"x") + boxed(b"mvhd", fields)
        return io.BytesIO(boxed(b"ftyp", b"isom") + boxed(b"free", b"") + boxed(b"moov", movie))

    assert stated.movie_header(header(600, 900)) == 1.5
    assert stated.movie_header(header(600, 0)) is None  # fragmented: told elsewhere
    assert stated.movie_header(header(600, (1 << 8 * wide) - 1)) is None  # unknown
    assert stated.movie_header(header(0, 900)) is None


def boxed(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + name + content


@given(st.binary(max_size=64), st.sampled_from([b"", b"\0\0\0\x10ftypisom\0\0\0\0"]))
def test_a_broken_movie_header_states_nothing_or_a_number_and_always_ends(noise, head):
    for size in (0, 1, 7, 8, 9, 40, 2**32 - 1):
        movie = struct.pack(">I", size) + b"moov" + boxed(b"mvhd", noise)
        found = stated.movie_header(io.BytesIO(head + movie))
        assert found is None or found > 0


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
    wanted = video.frame_instants(duration, fps=fps, max_frames=most, last=times[-1])
    chosen = video.nearest_frames(times, wanted)
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
    stored = video.frame_size(width, height, size)
    if max(width, height) <= size:
        assert stored == (width, height)
    else:
        assert stored == first_resize(width, height, size)


def test_frames_are_upright_where_the_file_says_so(tmp_path):
    path = encoded_video(tmp_path / "v.mp4", seconds=1, size=(64, 32))
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # the 3 x 3 display matrix of the track: 90 degrees
    quarter = [0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000]
    data[at : at + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in quarter)
    clip = decoders.decode_video(bytes(data), **ALL)
    assert Image.open(io.BytesIO(clip.frames[0])).size == (32, 64)


@pytest.mark.parametrize("data", [b"", b"garbage" * 999, b"\0\0\0\x18ftypmp42"])
def test_bad_bytes_are_a_verdict(data):
    with pytest.raises(Defect, match="undecodable_video"):
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


def page() -> bytes:
    """A PDF of one page."""
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10)).save(buffer, "PDF")
    return buffer.getvalue()


DECODERS = {
    "video": lambda folder, **limit: (
        decoders.decode_video(encoded_video(folder / "v.mp4"), **ALL, **limit).frames
    ),
    "image": lambda folder, **limit: [decoders.decode_image(png(), **limit)],
    "pdf": lambda folder, **limit: decoders.decode_pdf(page(), **limit),
}


@pytest.mark.parametrize("kind", DECODERS)
def test_a_decoder_that_hangs_costs_one_sample_and_the_next_gets_a_fresh_child(tmp_path, kind):
    call = DECODERS[kind]
    whole = call(tmp_path)
    assert decoders.child is not None
    first = decoders.child.pid
    os.kill(first, signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(Defect, match=f"{kind}_timeout"):
        call(tmp_path, limit=1)
    assert time.monotonic() - started < 20
    assert call(tmp_path) == whole
    assert decoders.child.pid != first


@pytest.mark.parametrize("kind", DECODERS)
def test_a_decoder_that_dies_costs_one_sample(tmp_path, monkeypatch, kind):
    dying = [sys.executable, "-c", "import sys, os; sys.stdin.buffer.read(8); os._exit(139)"]
    decoders.stop_child()
    true = decoders.start_child
    monkeypatch.setattr(
        decoders,
        "started",
        lambda: subprocess.Popen(dying, stdin=subprocess.PIPE, stdout=subprocess.PIPE),
    )
    with pytest.raises(Defect, match="decoder_crash"):
        DECODERS[kind](tmp_path)
    monkeypatch.setattr(decoders, "start_child", true)
    assert DECODERS[kind](tmp_path)


def test_a_request_that_dies_half_written_costs_one_sample(tmp_path, monkeypatch):
    dying = [sys.executable, "-c", "import sys, os; sys.stdin.buffer.read(8); os._exit(139)"]
    decoders.stop_child()
    monkeypatch.setattr(
        decoders,
        "started",
        lambda: subprocess.Popen(dying, stdin=subprocess.PIPE, stdout=subprocess.PIPE),
    )
    with pytest.raises(Defect, match="decoder_crash"):
        decoders.decode_image(b"?" * 1_000_000)


def test_the_child_says_of_stills_what_they_are_and_of_bugs_that_they_are_bugs():
    data = png(40, 30)
    assert decoders.decode_image(data) == images.image_record(data)
    with pytest.raises(Defect, match="undecodable_image"):
        decoders.decode_image(data[:60])
    with pytest.raises(Defect, match="undecodable_pdf"):
        decoders.decode_pdf(b"%PDF-1.4 nothing")
    (leaf,) = decoders.decode_pdf(page())
    assert leaf == images.image_record(leaf["bytes"])
    assert max(leaf["width"], leaf["height"]) == images.PAGE_EDGE
    with pytest.raises(TypeError):
        decoders.decode_in_child("image", data, {"unheard": 1}, 60)


def test_the_child_ends_with_its_worker(tmp_path):
    path = encoded_video(tmp_path / "v.mp4")
    code = (
        "import sys; from pathlib import Path; from pipelines.media import decoders;"
        "decoders.decode_video(Path(sys.argv[1]), fps=1, max_frames=4, size=64);"
        "print(decoders.child.pid)"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_a_long_video_is_read_in_bounded_memory(tmp_path):
    """The child's peak stays far below decord's 2 GB, whatever the clip."""
    path = encoded_video(tmp_path / "v.mp4", seconds=12, fps=5, size=(1920, 1080), gop=60)
    decoders.stop_child()
    clip = decoders.decode_video(path, **ALL)
    assert len(clip.frames) == 12
    assert decoders.child is not None
    status = Path(f"/proc/{decoders.child.pid}/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0])
    assert peak < 1_000_000, f"{peak} kB"
