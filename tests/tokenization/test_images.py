"""Grids, crops and decoding are those of transformers' SmolVLM image processor."""

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from transformers import SmolVLMImageProcessorPil
from transformers.image_transforms import convert_to_rgb

from tests.tokenization.rows import SMALL, encoded, noise, their_grid
from tokenization.images import (
    VIEW_FOLLOWS,
    crop_pixels,
    crops,
    grid,
    image_size,
    open_image,
    processor_settings,
    stored_bytes,
)
from tokenization.schema import Encoding

MODELS = {
    "500M": Encoding(),
    "2.2B": Encoding(crop_size=384, longest_edge=1536, tokens_per_crop=81),
    "paper": Encoding(longest_edge=1920),
    "above 4096": Encoding(longest_edge=5000),
    "one crop": Encoding(longest_edge=512),
    "not enlarged": Encoding(upscale=False),
}


@pytest.mark.parametrize("encoding", MODELS.values(), ids=MODELS)
@settings(max_examples=400)
@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_grid_is_the_processors(encoding: Encoding, width: int, height: int) -> None:
    if not encoding.upscale:  # what is larger is brought to the longest edge, as with upscale
        inference = replace(encoding, upscale=max(width, height) > encoding.longest_edge)
    else:
        inference = encoding
    assert grid(width, height, encoding=encoding, video=False) == their_grid(
        width, height, inference
    )


@settings(max_examples=300)
@given(st.integers(1, 10_000), st.floats(0.01, 100))
def test_grid_of_extreme_aspects_is_the_processors(width: int, aspect: float) -> None:
    height = min(max(round(width / aspect), 1), 10_000)
    for encoding in (MODELS["500M"], MODELS["2.2B"], SMALL):
        ours = grid(width, height, encoding=encoding, video=False)
        assert ours == their_grid(width, height, encoding)
        assert max(ours) <= -(-encoding.longest_edge // encoding.crop_size)


def test_frames_and_unsplit_stills_are_one_crop() -> None:
    assert grid(4000, 300, encoding=Encoding(), video=True) == (0, 0)
    assert grid(4000, 300, encoding=Encoding(split_images=False), video=False) == (0, 0)
    with pytest.raises(ValueError, match="0 x 5 px"):
        grid(0, 5, encoding=Encoding(), video=False)


def their_crops(image: Image.Image, encoding: Encoding) -> tuple[np.ndarray, tuple[int, int]]:
    """(uint8 [n, S, S, 3], (rows, cols)) of transformers under our settings for it."""
    made = processor_settings(encoding) | {"do_rescale": False, "do_normalize": False}
    processor = SmolVLMImageProcessorPil(**made)
    out = processor([[image]], return_row_col_info=True, return_tensors="np")
    values = out["pixel_values"][0].transpose(0, 2, 3, 1)
    return values.astype(np.uint8), (out["rows"][0][0], out["cols"][0][0])


SIZES = [
    (1, 1),
    (1, 90),
    (300, 200),
    (200, 300),
    (64, 64),
    (129, 127),
    (640, 7),
    (31, 500),
    (33, 32),
]


@pytest.mark.parametrize(
    "encoding",
    [
        SMALL,
        replace(SMALL, longest_edge=120),
        replace(SMALL, split_images=False),
        replace(SMALL, longest_edge=32),
        replace(SMALL, crop_size=48, longest_edge=144),
    ],
)
def test_crops_are_bit_equal(encoding: Encoding) -> None:
    rng = np.random.default_rng(0)
    sizes = SIZES + [tuple(int(x) for x in rng.integers(1, 400, 2)) for _ in range(40)]
    for width, height in sizes:
        image = noise(rng, width, height)
        theirs, cells = their_crops(image, encoding)
        assert cells == grid(width, height, encoding=encoding, video=False)
        ours = crop_pixels(encoded(image), *cells, encoding=encoding)
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["500M", "2.2B", "paper"])
def test_crops_are_bit_equal_at_full_size(name: str) -> None:
    encoding = MODELS[name]
    image = noise(np.random.default_rng(1), 301, 203)
    theirs, cells = their_crops(image, encoding)
    ours = crop_pixels(encoded(image), *cells, encoding=encoding)
    assert ours.dtype == np.uint8
    np.testing.assert_array_equal(ours, theirs)


def test_images_that_are_not_enlarged_are_bit_equal() -> None:
    encoding = replace(SMALL, upscale=False)
    rng = np.random.default_rng(2)
    for width, height in [(20, 30), (32, 32), (33, 95), (127, 128), (128, 5)]:
        image = noise(rng, width, height)
        theirs, cells = their_crops(image, encoding)
        assert cells == grid(width, height, encoding=encoding, video=False)
        np.testing.assert_array_equal(
            crop_pixels(encoded(image), *cells, encoding=encoding), theirs
        )


def test_fewer_crops_are_those_of_a_smaller_longest_edge() -> None:
    image = noise(np.random.default_rng(3), 90, 61)
    for tiles in (1, 2, 3):
        inference = replace(SMALL, longest_edge=tiles * 32)
        theirs, cells = their_crops(image, inference)
        assert max(cells) == (tiles if tiles > 1 else 0)
        ours = crops(image, *cells, crop_size=32, longest_edge=128)
        np.testing.assert_array_equal(ours, theirs)


def odd_modes() -> dict[str, Image.Image]:
    rng = np.random.default_rng(4)
    base = noise(rng, 40, 30)
    alpha = Image.fromarray(rng.integers(0, 256, (30, 40), dtype=np.uint8))
    clear = base.quantize(16)
    clear.info["transparency"] = 3
    deep = Image.fromarray(rng.integers(0, 65536, (30, 40), dtype=np.uint16))
    return {
        "RGB": base,
        "RGBA": Image.merge("RGBA", (*base.split(), alpha)),
        "LA": Image.merge("LA", (base.convert("L"), alpha)),
        "L": base.convert("L"),
        "1": base.convert("1"),
        "P": base.quantize(16),
        "P with a clear colour": clear,
        "I;16": deep,
    }


@pytest.mark.parametrize("name", odd_modes())
def test_odd_modes_become_rgb_as_in_transformers(name: str) -> None:
    data = encoded(odd_modes()[name])
    ours = open_image(data)
    theirs = convert_to_rgb(Image.open(io.BytesIO(data)), return_numpy=True)
    assert ours.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(ours), theirs)


def test_cmyk_jpeg_becomes_rgb() -> None:
    data = encoded(noise(np.random.default_rng(5), 20, 10).convert("CMYK"), "JPEG")
    assert open_image(data).mode == "RGB"
    assert image_size(data) == (20, 10)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied_to_pixels_and_size(kind: str, orientation: int) -> None:
    image = noise(np.random.default_rng(6), 24, 16)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, kind, exif=exif)
    plain = Image.open(io.BytesIO(data))
    upright = np.asarray(ImageOps.exif_transpose(plain).convert("RGB"))
    opened = open_image(data)
    np.testing.assert_array_equal(np.asarray(opened), upright)
    assert image_size(data) == opened.size == ((16, 24) if orientation > 4 else (24, 16))


@pytest.mark.parametrize("data", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_bytes_without_a_image_are_a_value_error(data: bytes) -> None:
    for function in (open_image, image_size):
        with pytest.raises(ValueError, match=f"undecodable image of {len(data)} bytes"):
            function(data)


def test_a_truncated_image_has_a_size_and_no_pixels() -> None:
    data = encoded(noise(np.random.default_rng(7), 64, 64))[:2000]
    assert image_size(data) == (64, 64)
    with pytest.raises(ValueError, match="undecodable"):
        open_image(data)


def test_stored_images_keep_their_crops() -> None:
    image = noise(np.random.default_rng(8), 300, 170)
    data = encoded(image)
    cells = grid(300, 170, encoding=SMALL, video=False)
    exact = crop_pixels(data, *cells, encoding=SMALL)
    assert stored_bytes(data, *cells, encoding=SMALL) is data
    lossless = replace(SMALL, image_format="png")
    for how in ("recompress", "fitted"):
        encoding = replace(lossless, images=how)
        kept = stored_bytes(data, *cells, encoding=encoding)
        assert max(open_image(kept).size) <= 128
        np.testing.assert_array_equal(crop_pixels(kept, *cells, encoding=encoding), exact)
        assert grid(*image_size(kept), encoding=SMALL, video=False) == cells
    for format_ in ("jpeg", "webp"):
        encoding = replace(SMALL, images="fitted", image_format=format_)
        kept = stored_bytes(data, *cells, encoding=encoding)
        difference = np.abs(crop_pixels(kept, *cells, encoding=encoding).astype(int) - exact)
        assert 0 < difference.mean() < (4 if format_ == "jpeg" else 16)


@pytest.mark.parametrize("size", SIZES)
def test_fitted_images_are_the_crops_of_the_processor_itself(size: tuple[int, int]) -> None:
    image = noise(np.random.default_rng(3), *size)
    encoding = replace(SMALL, images="fitted", image_format="png")
    expected, cells = their_crops(image, encoding)
    kept = stored_bytes(encoded(image), *cells, encoding=encoding)
    np.testing.assert_array_equal(crop_pixels(kept, *cells, encoding=encoding), expected)
    whole = (max(cells[1], 1) * 32, max(cells[0], 1) * 32)
    assert open_image(kept).size == image_size(kept) == whole  # to any other reader: an image


@pytest.mark.parametrize("kind", ["jpeg", "webp", "png"])
def test_the_global_view_is_read_from_behind_the_image_where_it_lies_there(kind: str) -> None:
    encoding = replace(SMALL, images="fitted", image_format=kind)
    image, other = (noise(np.random.default_rng(n), 128, 96) for n in (1, 2))
    mine, hers = (stored_bytes(encoded(i), 3, 4, encoding=encoding) for i in (image, other))
    whole = open_image(mine)
    buffer = io.BytesIO()
    whole.save(buffer, "PNG")
    made = crop_pixels(mine, 3, 4, encoding=encoding)
    # Shards of before the view was stored: it is made of the image.
    older = crop_pixels(buffer.getvalue(), 3, 4, encoding=encoding)
    np.testing.assert_array_equal(made[:-1], older[:-1])
    assert (made[-1] == older[-1]).all() == (kind == "png")
    # The other's view behind this image is what is taken: it is read, not made again.
    swapped = buffer.getvalue() + hers[-_view(hers) :]
    swapped_view = crop_pixels(swapped, 3, 4, encoding=encoding)[-1]
    np.testing.assert_array_equal(swapped_view, crop_pixels(hers, 3, 4, encoding=encoding)[-1])
    larger = replace(encoding, crop_size=64, longest_edge=256)
    wrong = stored_bytes(encoded(image), 3, 4, encoding=larger)
    with pytest.raises(ValueError, match="a global view of 64 x 64 px where crops have 32 px"):
        crop_pixels(buffer.getvalue() + wrong[-_view(wrong) :], 3, 4, encoding=encoding)


def _view(data: bytes) -> int:
    """Bytes behind the image."""
    end = len(data) - len(VIEW_FOLLOWS) - 4
    return int.from_bytes(data[end : end + 4], "little") + 4 + len(VIEW_FOLLOWS)


def test_recompressing_never_makes_a_image_larger() -> None:
    data = encoded(Image.new("RGB", (60, 40), "red"))
    encoding = replace(SMALL, images="recompress")
    assert stored_bytes(data, 3, 4, encoding=encoding) is data


def test_a_image_that_is_not_fitted_is_refused() -> None:
    data = encoded(Image.new("RGB", (60, 40)))
    with pytest.raises(ValueError, match="60 x 40 px"):
        crop_pixels(data, 3, 4, encoding=replace(SMALL, images="fitted"))
