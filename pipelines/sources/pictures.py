"""What is known of a picture: one element of IMAGES, from one full decode.

Every still is decoded whole here, so that the trainer never meets a broken one. The bytes are kept
as they came; sizes and hashes are of the picture as the model sees it (orientation applied,
transparency on white), through the same `tokenization.images.open_image` that makes the crops.
"""

import warnings
from typing import Any

import numpy as np
from PIL import Image

from pipelines.sources.sample import Defect

MAX_BYTES = 256 << 20
"""Encoded bytes of a still, at most."""
MAX_PIXELS = 89_478_485
"""Pixels of a still, at most: Pillow's own mark for a decompression bomb."""
THUMBNAIL = 128
"""px, the longest side of the picture that sharpness and edges are measured on."""
EDGE = 32
"""Difference of luminance between neighbours from which a thumbnail pixel is on an edge."""

EMPTY: dict[str, Any] = dict.fromkeys(
    ("bytes", "width", "height", "dhash", "seconds", "contrast", "sharpness", "edges")
)
"""A picture that could not be read."""


def picture(data: bytes, *, seconds: float | None = None) -> dict[str, Any]:
    """The IMAGES element of encoded bytes; raises Defect where they are no whole picture."""
    return {**EMPTY, "bytes": data, "seconds": seconds, **facts(decode(data))}


def decode(data: bytes) -> Image.Image:
    """The picture as RGB, orientation applied; raises Defect where it cannot be."""
    from tokenization.images import open_image

    if len(data) > MAX_BYTES:
        raise Defect("too_many_bytes", f"{len(data)} bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of broken EXIF, odd palettes: the picture decodes
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return open_image(data)
        except ValueError as error:
            bomb = (Image.DecompressionBombWarning, Image.DecompressionBombError)
            reason = "too_many_pixels" if isinstance(error.__cause__, bomb) else "undecodable_image"
            raise Defect(reason, str(error)) from error


def facts(image: Image.Image) -> dict[str, Any]:
    """Sizes, difference hash, contrast, sharpness and edges of an RGB picture."""
    gray = image.convert("L")
    counts = np.asarray(gray.histogram(), dtype=np.float64)
    levels = np.arange(256)
    mean = (counts * levels).sum() / counts.sum()
    contrast = float(np.sqrt((counts * (levels - mean) ** 2).sum() / counts.sum()))
    scale = max(1, max(image.size) / THUMBNAIL)
    small = (max(1, round(image.width / scale)), max(1, round(image.height / scale)))
    thumb = gray.resize(small, Image.Resampling.BOX) if scale > 1 else gray
    sharpness, edges = sharpness_and_edges(np.asarray(thumb, dtype=np.float32))
    return {
        "width": image.width,
        "height": image.height,
        "dhash": dhash(gray),
        "contrast": contrast,
        "sharpness": sharpness,
        "edges": edges,
    }


def dhash(gray: Image.Image) -> int:
    """The 64-bit difference hash: 9 x 8 luminances, a bit per pair of neighbours in a row that
    rises to the right, row by row from the highest bit.

    https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html
    """
    small = np.asarray(gray.resize((9, 8), Image.Resampling.LANCZOS))
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def sharpness_and_edges(gray: np.ndarray) -> tuple[float, float]:
    """(variance of the 4-neighbour Laplacian, share of pixels on an edge) of [height, width]."""
    if min(gray.shape) < 3:
        return 0.0, 0.0
    inner = gray[1:-1, 1:-1]
    laplacian = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:] - 4 * inner
    right = np.abs(gray[1:-1, 2:] - inner)
    below = np.abs(gray[2:, 1:-1] - inner)
    return float(laplacian.var()), float((np.maximum(right, below) >= EDGE).mean())


def pages(data: bytes, *, longest_edge: int) -> list[bytes]:
    """Every page of a PDF as PNG, its longer side `longest_edge` px; raises Defect where it is no
    whole PDF.
    """
    import io

    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        raise Defect("undecodable_pdf", str(error)) from error
    try:
        if len(document) > MAX_PAGES:
            raise Defect("too_many_pages", str(len(document)))
        rendered = []
        for page in document:
            scale = longest_edge / max(1.0, *page.get_size())
            buffer = io.BytesIO()
            page.render(scale=scale).to_pil().convert("RGB").save(buffer, "PNG")
            rendered.append(buffer.getvalue())
    except pypdfium2.PdfiumError as error:
        raise Defect("undecodable_pdf", str(error)) from error
    else:
        return rendered
    finally:
        document.close()


MAX_PAGES = 100
"""Pages of a PDF, at most; Docmatix keeps documents of few pages."""
PAGE_EDGE = 1600
"""px, the longer side of a rendered page: about 140 dpi of an A4 sheet."""
