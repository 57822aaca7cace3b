"""What is known of an image, against its definition."""

import io
import itertools
import random
import struct
import sys
import zlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.media import images
from pipelines.sources.sample import Defect
from tests.pipelines.sources.making import png
from tokenization.images import open_image


def encoded(array, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


@given(st.integers(0, 2**32 - 1), st.integers(9, 300), st.integers(8, 300))
def test_hash_and_contrast_are_those_of_the_luminance(seed, width, height):
    data = png(width, height, seed=seed)
    known = images.image_record(data)
    gray = Image.open(io.BytesIO(data)).convert("L")
    copy = gray.reduce(2) if max(gray.size) >= 256 and min(gray.size) >= 64 else gray
    small = np.asarray(copy.resize((9, 8), Image.Resampling.LANCZOS)).astype(int)
    bits = "".join(
        str(int(small[row, col + 1] > small[row, col])) for row in range(8) for col in range(8)
    )
    assert f"{known['dhash']:064b}" == bits
    scale = max(1, max(copy.size) / 128)
    thumb = copy.resize([max(1, round(side / scale)) for side in copy.size], Image.Resampling.BOX)
    assert known["contrast"] == pytest.approx(np.asarray(thumb, float).std(), abs=1e-6)
    assert (known["width"], known["height"]) == (width, height)
    assert known["bytes"] == data


def with_segment(data, marker, body):
    """The JPEG with a segment more, in front."""
    return data[:2] + bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body + data[2:]


def oriented(data, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return with_segment(data, 0xE1, b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0"))


def test_a_jpeg_is_the_same_whatever_is_said_about_it_and_another_where_a_pixel_is():
    data = jpeg_of((700, 500), seed=1)
    pixels = images.image_record(data)["pixels"]
    for marker, body in (
        (0xFE, b"a comment"),
        (0xE2, b"ICC_PROFILE\0\1\1profile"),
        (0xED, b"a note"),
    ):
        assert images.image_record(with_segment(data, marker, body))["pixels"] == pixels
    assert images.image_record(oriented(data, 1))["pixels"] == pixels
    turned = images.image_record(oriented(data, 6))
    assert (turned["width"], turned["height"]) == (500, 700)
    others = [turned["pixels"], images.image_record(jpeg_of((700, 500), seed=2))["pixels"]]
    adobe = with_segment(data, 0xEE, b"Adobe\0\x64\0\0\0\0\0")  # RGB, not YCbCr
    others += [images.image_record(adobe)["pixels"]]
    board = np.indices((400, 400)).sum(0) % 2 * 255  # and its negative: small copies are alike
    boards = [encoded(b.astype(np.uint8), "JPEG") for b in (board, 255 - board)]
    alike = [images.image_record(b) for b in boards]
    assert alike[0]["dhash"] == alike[1]["dhash"]
    assert len({pixels, *others, *(b["pixels"] for b in alike)}) == 6


def test_lossless_copies_have_the_same_pixels():
    array = np.random.default_rng(3).integers(0, 255, (150, 170, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "WEBP", lossless=True, exact=True)
    kinds = [encoded(array), encoded(array, "BMP"), buffer.getvalue()]
    assert len({images.image_record(data)["pixels"] for data in kinds}) == 1


@pytest.mark.parametrize("size", [(129, 90), (700, 500), (1023, 1025), (90, 2000)])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_measured_small_is_as_measured_whole(size, progressive):
    data = jpeg_of(size, seed=4, progressive=progressive)
    small, whole = images.image_record(data), open_image(data)
    lossless = images.image_record(encoded(np.asarray(whole)))
    assert (small["width"], small["height"]) == whole.size == size
    assert (small["dhash"] ^ lossless["dhash"]).bit_count() <= 2
    assert small["contrast"] == pytest.approx(lossless["contrast"], rel=0.03, abs=0.2)
    assert small["edges"] == pytest.approx(lossless["edges"], abs=0.05)


def jpeg_of(size, *, seed, **settings):
    """A photograph of sorts: coarse and fine noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (9, 11, 3), np.uint8)).resize(size)
    fine = rng.normal(0, 4, (size[1], size[0], 3))
    array = np.clip(np.asarray(coarse) + fine, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", **settings)
    return buffer.getvalue()


def originals():
    """JPEGs of every kind that Pillow writes, oriented ones, with restarts; 130 to 420 px."""
    for number in range(24):
        size = (130 + 37 * (number % 7), 140 + 53 * (number % 5))
        made = jpeg_of(
            size,
            seed=number,
            quality=(40, 75, 92)[number % 3],
            progressive=number % 2 == 0,
            subsampling=number % 3,
            restart_marker_blocks=8 * (number % 4 == 1),
        )
        yield oriented(made, 6) if number % 5 == 0 else made
    for mode in ("L", "CMYK"):
        buffer = io.BytesIO()
        Image.open(io.BytesIO(jpeg_of((300, 280), seed=9))).convert(mode).save(buffer, "JPEG")
        yield buffer.getvalue()


def damaged(rng, data):
    """The file cut off, or with bytes changed, taken out or put in."""
    spoiled, kind = bytearray(data), rng.randrange(5)
    if kind == 0:
        return bytes(spoiled[: rng.randrange(1, len(data))])
    for _ in range(rng.choice((1, 1, 2, 8, 50))):
        end = (
            min(len(spoiled), 700) if kind == 1 else len(spoiled)
        )  # the header, in which all hangs
        place = rng.randrange(2, end)
        if kind in (1, 2):
            spoiled[place] = rng.choice((rng.randrange(256), 0xFF, 0, spoiled[place] ^ 1))
        elif kind == 3:
            del spoiled[place : place + rng.choice((1, 2, 100))]
        else:
            spoiled[place:place] = rng.randbytes(rng.choice((1, 2, 100)))
    return bytes(spoiled)


@pytest.mark.parametrize("count", [400, pytest.param(5000, marks=pytest.mark.slow)])
def test_damaged_jpegs_get_the_verdict_of_a_full_decode(count):
    rng, whole = random.Random(19), list(originals())
    seen = Counter()
    for number in range(count):
        data = damaged(rng, whole[number % len(whole)])
        told = {verdict_of(data, least) for least in ((images.THUMBNAIL, 1), (sys.maxsize, 1))}
        assert len(told) == 1, (number, told)
        seen[told.pop()[0]] += 1
    assert min(seen["whole"], seen["undecodable_image"]) > count / 5  # both sides are tried


def test_odd_sampling_of_colours_gets_the_verdict_of_a_full_decode():
    data = jpeg_of((300, 290), seed=6)
    place = data.index(b"\xff\xc0") + 11  # of the first component's factors
    told = Counter()
    for factors in itertools.product((0x11, 0x21, 0x12, 0x22, 0x31, 0x13, 0x41, 0x32), repeat=3):
        odd = bytearray(data)
        odd[place : place + 9 : 3] = bytes(factors)
        small, whole = (verdict_of(bytes(odd), least) for least in ((128, 32), (sys.maxsize, 1)))
        assert small == whole, factors
        told[small[0]] += 1
    assert min(told["whole"], told["undecodable_image"]) > 50


def verdict_of(data, least):
    """(what it is, its size) where at least so many px are decoded."""
    try:
        copy = images.decode_copy(data, least=least)
    except Defect as defect:
        return defect.reason, None
    return "whole", copy.size


def test_flat_sharp_and_half_images():
    flat = images.image_record(encoded(np.full((64, 64, 3), 90, np.uint8)))
    assert (flat["contrast"], flat["sharpness"], flat["edges"], flat["dhash"]) == (0, 0, 0, 0)
    halves = np.zeros((64, 64, 3), np.uint8)
    halves[:, 32:] = 255
    half = images.image_record(encoded(halves))
    assert half["contrast"] == pytest.approx(127.5)
    assert half["edges"] == pytest.approx(1 / 62)
    board = images.image_record(
        encoded(np.kron(np.indices((32, 32)).sum(0) % 2 * 255, np.ones((2, 2))).astype(np.uint8))
    )
    assert board["edges"] > 0.7
    assert board["sharpness"] > half["sharpness"] > 0


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (2, 2), (3000, 4)])
def test_odd_sizes_have_facts(size):
    known = images.image_record(png(*size))
    assert (known["width"], known["height"]) == size
    assert np.isfinite([known["contrast"], known["sharpness"], known["edges"]]).all()


def test_a_bomb_is_a_verdict_before_it_is_decoded():
    """30,000 x 30,000 pixels in a hundred bytes."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = lambda kind, data: (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    )
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0" * 99))
    with pytest.raises(Defect) as raised:
        images.image_record(bomb)
    assert raised.value.reason == "too_many_pixels"


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\xff\xd8\xff\xe0", png()[:-200], png()[:40]])
def test_bytes_that_are_no_whole_image(data):
    with pytest.raises(Defect) as raised:
        images.image_record(data)
    assert raised.value.reason == "undecodable_image"
