"""What is known of an image, against its definition."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.media import images
from pipelines.sources.sample import Defect
from tests.pipelines.sources.making import png


def encoded(array, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


@given(st.integers(0, 2**32 - 1), st.integers(9, 200), st.integers(8, 200))
def test_hash_and_contrast_are_those_of_the_luminance(seed, width, height):
    data = png(width, height, seed=seed)
    known = images.image_record(data)
    gray = Image.open(io.BytesIO(data)).convert("L")
    small = np.asarray(gray.resize((9, 8), Image.Resampling.LANCZOS)).astype(int)
    bits = "".join(
        str(int(small[row, col + 1] > small[row, col])) for row in range(8) for col in range(8)
    )
    assert f"{known['dhash']:064b}" == bits
    assert known["contrast"] == pytest.approx(np.asarray(gray, float).std(), abs=1e-6)
    assert (known["width"], known["height"]) == (width, height)
    assert known["bytes"] == data


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
