"""Which container a file is, what it promises, and how many films it holds."""

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.media import container
from tests.pipelines.media.clips import KINDS, encoded, noise, plain
from tests.pipelines.sources.making import png

MARKS = {
    "mp4": "mov", "mov": "mov", "fragments.mp4": "mov", "mkv": "matroska", "webm": "matroska",
    "live.webm": "matroska", "wmv": "asf", "m2ts": "mpegts", "ts": "mpegts", "mpg": "mpeg",
    "m1v": "mpegvideo",
}  # fmt: skip
"""Suffix -> FFmpeg's demuxer, where it has another name."""


def layout(data: bytes) -> container.Layout:
    stream = io.BytesIO(data)
    kind = container.kind_of(stream)
    assert kind is not None
    return container.layout_of(stream, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_container_is_known_by_its_first_bytes(kind):
    data = encoded(kind, [noise(n) for n in range(10)])
    assert container.kind_of(io.BytesIO(data)) == MARKS.get(kind, kind)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\nc=IN IP4 0.0.0.0\r\nm=video 5004 RTP/AVP 96\r\n",
        b"#EXTM3U\n#EXTINF:1,\nfile:///elsewhere/a.ts\n",
        b"ffconcat version 1.0\nfile /elsewhere/a.mp4\n",
        b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"/>',
        b"[playlist]\nFile1=/elsewhere\n",
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"im%d.png",
        b"G" + bytes(999),
        png(),
    ],
)
def test_what_names_other_things_or_holds_no_film_is_no_container(data):
    assert container.kind_of(io.BytesIO(data)) is None


@pytest.mark.parametrize(
    ("kind", "promises", "read"),
    [
        ("mp4", True, 1), ("mov", True, 1), ("flv", True, 1), ("wmv", True, 1), ("rm", True, 3),
        ("fragments.mp4", False, 1), ("live.webm", False, 2), ("mkv", False, 2), ("ts", False, 3),
        ("mxf", False, 1),
    ],
)  # fmt: skip
def test_what_a_header_promises_and_how_many_films_lie_behind_what_is_read(kind, promises, read):
    data = encoded(kind, [plain("red")] * 30)
    assert layout(data).seconds == (pytest.approx(3, abs=0.3) if promises else None)
    assert [layout(data * films).unread for films in (1, 2, 3)] == [
        max(0, films - read) for films in (1, 2, 3)
    ]


@pytest.mark.parametrize("kind", ["mp4", "fragments.mp4", "mkv", "webm", "wmv"])
def test_a_file_that_lacks_what_it_announces_is_incomplete(kind):
    data = encoded(kind, [noise(n) for n in range(30)])
    assert layout(data).complete is True
    assert layout(data[: len(data) // 2]).complete is False


@pytest.mark.parametrize(("version", "wide"), [(0, 4), (1, 8)])
def test_both_versions_of_the_movie_header(version, wide):
    def seconds(units: int, length: int, fragments: int = 0) -> float | None:
        fields = bytes([version, 0, 0, 0]) + bytes(2 * wide)
        fields += units.to_bytes(4, "big") + length.to_bytes(wide, "big") + bytes(80)
        movie = boxed(b"udta", b"x") + boxed(b"mvhd", fields)
        extent = bytes([version, 0, 0, 0]) + fragments.to_bytes(wide, "big")
        movie += boxed(b"mvex", boxed(b"mehd", extent)) if fragments else b""
        return layout(boxed(b"ftyp", b"isom") + boxed(b"free", b"") + boxed(b"moov", movie)).seconds

    assert seconds(600, 900) == 1.5
    assert seconds(600, 0) is None  # fragmented: told elsewhere
    assert seconds(600, 0, fragments=1200) == 2
    assert seconds(600, (1 << 8 * wide) - 1) is None  # unknown
    assert seconds(0, 900) is None


def boxed(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + name + content


@given(st.binary(max_size=64), st.sampled_from([b"", b"\0\0\0\x10ftypisom\0\0\0\0"]))
def test_a_broken_movie_header_states_nothing_or_a_number_and_always_ends(noise, head):
    for size in (0, 1, 7, 8, 9, 40, 2**32 - 1):
        movie = struct.pack(">I", size) + b"moov" + boxed(b"mvhd", noise)
        found = container.layout_of(io.BytesIO(head + movie), "mov").seconds
        assert found is None or found > 0


@given(st.sampled_from(sorted(container.LAYOUTS)), st.binary(max_size=200))
def test_any_bytes_have_a_layout(kind, data):
    begins = next(begins for _, begins, name in container.BEGINS if name == kind)
    found = container.layout_of(io.BytesIO(begins + data), kind)
    assert found.unread >= 0
    assert found.seconds is None or found.seconds > 0
