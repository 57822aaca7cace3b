"""Defaults that are ours, on images: what they let pass, and what not."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from pipelines.media.images import dhash, image_record
from tests.filters.rows import reasons, sample

LINE = "The train leaves the station at nine and arrives before noon, said the man with a hat."


def encoded(image: Image.Image, kind: str = "PNG", **settings: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def page(lines: int) -> Image.Image:
    """A4 at 100 dpi, with so many lines of print."""
    image = Image.new("RGB", (827, 1169), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=19)
    for n in range(lines):
        draw.text((80, 100 + 30 * n), LINE, fill="black", font=font)
    return image


@pytest.mark.parametrize(("lines", "stays"), [(0, False), (1, False), (3, True), (20, True)])
def test_a_page_of_three_lines_holds_text_and_one_of_a_line_does_not(lines, stays):
    shown = sample("q", "a", images=[image_record(encoded(page(lines)))])
    assert reasons({"text_free_page": {}}, shown) == [None if stays else "text_free_page"]


def test_paper_as_scanned_is_uniform_and_a_line_of_print_is_not():
    rng = np.random.default_rng(0)
    grain = 245 + rng.normal(0, 1.0, (1169, 827)).round().clip(-4, 4)
    paper = Image.fromarray(grain.astype(np.uint8))
    blank, printed = (encoded(image, "JPEG", quality=80) for image in (paper, page(1)))
    shown = [sample("q", "a", images=[image_record(data)]) for data in (blank, printed)]
    assert reasons({"uniform_image": {}}, *shown) == ["uniform_image", None]


def test_a_frame_encoded_again_differs_in_two_bits_at_most():
    from skimage import data

    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        image = Image.fromarray(getattr(data, name)())
        for quality in (20, 50, 90):
            again = Image.open(io.BytesIO(encoded(image, "JPEG", quality=quality)))
            differ = dhash(image.convert("L")) ^ dhash(again.convert("L"))
            assert differ.bit_count() <= 2, (name, quality)
