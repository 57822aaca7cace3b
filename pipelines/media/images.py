"""What is known of an image: one element of IMAGES, from one decode.

All of a still's data are decoded here, so that the trainer never meets a broken one. The bytes are
kept as they came; the rest is of the image as the model sees it (orientation applied, transparency
on white), opened by the same `tokenization.images.open_copy` that makes the crops:

| Pillow's mode             | becomes RGB by                                                       |
|---------------------------|----------------------------------------------------------------------|
| RGB; L, 1; YCbCr, LAB     | itself; the same value thrice; the colour space's formula            |
| CMYK                      | 255 less the ink, black on top; no colour profile                    |
| P                         | its palette                                                          |
| RGBA, LA, PA, clear P     | alpha laid on white                                                  |
| I;16, I, F                | clipped to 0..255, as transformers does: 16-bit grey is nearly white |
| several frames (GIF, ...) | the first alone                                                      |

Hash and statistics are of one small copy (THUMBNAIL), at which a JPEG is decoded: its entropy-coded
data in full, of their frequencies what the copy shows. `pixels` says whether two images are the
very same: of a JPEG it is of what the pixels are computed from, of all else of the pixels.

EXIF is needed for one thing, which side is up. Where the block is broken but Pillow reads on, the
image is taken as it lies and `broken_exif` is true: the rule of that name decides. Where Pillow
gives up on the whole image (PNG, WebP), so would `datasets` on reading the shards: the sample has
the defect `unreadable_exif`.
"""

import io
import math
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xxhash
from PIL import ExifTags, Image

from pipelines.sources.sample import Defect
from tokenization.images import Copy, open_copy, open_header

MAX_BYTES = 256 << 20
"""Encoded bytes of a still, at most."""
MAX_PIXELS = 89_478_485
"""Pixels of a still, at most: Pillow's own mark for a decompression bomb."""
THUMBNAIL = 128
"""px, the longest side of the copy that everything is measured on; smaller images are their own."""
NARROWEST = 32
"""px, the shorter side below which no copy is brought down before it is hashed: 4 for each row."""
EDGE = 32
"""Difference of luminance between neighbours from which a thumbnail pixel is on an edge."""

EXIF_MARKS = (b"Exif\0\0", b"eXIf", b"EXIF", b"Raw profile type exif")
"""What announces EXIF in JPEG, PNG, WebP and old PNG; TIFF is EXIF itself."""

METERED_BYTES = 1 << 20
MAX_READS = 100_000
"""Reads that a header may take in a file of more than METERED_BYTES: real ones take hundreds, a
flood of empty chunks, comments or fill bytes takes millions (half a second per MB in Python)."""
PNG = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = MAX_READS
"""Chunks of a PNG of more than METERED_BYTES: encoders write 8 KiB of pixels a chunk, or more."""

FACTS: Mapping[str, tuple[type, float]] = {
    "width": (int, 1 << 31),
    "height": (int, 1 << 31),
    "pixels": (int, 1 << 64),
    "dhash": (int, 1 << 64),
    "contrast": (float, 128.0),
    "sharpness": (float, math.inf),
    "edges": (float, 1.1),
    "broken_exif": (bool, 2),
}
"""What is measured of an image: its type, and what it lies below (nothing is negative)."""
EMPTY: dict[str, Any] = dict.fromkeys(("bytes", "seconds", *FACTS))
"""An image that could not be read."""
STRIP = 256
"""Rows of pixels that are copied at once."""
JPEG = b"\xff\xd8\xff"
START_OF_SCAN = 0xDA
SEGMENTS = {*range(0xC0, 0xD0), *range(0xDB, 0xFF)}
"""Markers that a length follows, but for that of a scan."""
ABOUT = {0xFE, *range(0xE1, 0xEE), 0xEF}
"""Comments, and the application segments from which no decoder takes anything: all but those of
JFIF and Adobe, which say what the colours are (ITU-T T.81, table B.1)."""
MAX_PAGES = 100
"""Pages of a PDF, at most; Docmatix keeps documents of few pages."""
PAGE_EDGE = 1600
"""px, the longer side of a rendered page: about 140 dpi of an A4 sheet."""


def image_record(data: bytes, *, seconds: float | None = None) -> dict[str, Any]:
    """The IMAGES element of encoded bytes; raises Defect where they are no whole image."""
    return {**image_facts(data), "bytes": data, "seconds": seconds}


def image_facts(data: bytes) -> dict[str, Any]:
    """The same without the bytes; raises Defect where they are no whole image."""
    copy = decode_copy(data, least=(THUMBNAIL, NARROWEST))  # first: it turns bombs away
    coded = data.startswith(JPEG)
    return {
        "width": copy.size[0],
        "height": copy.size[1],
        "pixels": coded_hash(data, copy.orientation) if coded else pixels_hash(copy.image),
        **luminance_facts(copy.image.convert("L")),
        "seconds": None,
        "broken_exif": has_broken_exif(data),
    }


def decode(data: bytes) -> Image.Image:
    """The image as RGB, orientation applied; raises Defect where it cannot be."""
    return decode_copy(data, least=(sys.maxsize, 1)).image


def decode_copy(data: bytes, *, least: tuple[int, int]) -> Copy:
    """What `open_copy` makes of it; raises Defect where it is no whole image."""
    if len(data) > MAX_BYTES:
        raise Defect("too_many_bytes", f"{len(data)} bytes")
    if len(data) > METERED_BYTES:
        check_chunks(data)
        check_header(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of broken EXIF, odd palettes: the image decodes
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return open_copy(data, least=least)
        except ValueError as error:
            bomb = (Image.DecompressionBombWarning, Image.DecompressionBombError)
            if isinstance(error.__cause__, bomb):
                raise Defect("too_many_pixels", str(error)) from error
            exif = has_broken_exif(data) and decodes_apart_from_exif(data)
            reason = "unreadable_exif" if exif else "undecodable_image"
            raise Defect(reason, str(error)) from error


class MeteredReads(io.BytesIO):
    """Bytes of which no more than MAX_READS reads are given; then it raises Defect."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes."""
        self.reads += 1
        if self.reads > MAX_READS:
            raise Defect("undecodable_image", f"a header of more than {MAX_READS} reads")
        return super().read(size)


def check_chunks(data: bytes) -> None:
    """Raises Defect where a PNG has more chunks than Pillow could go through in bounded time: it
    reads those behind the pixels one by one, too.
    """
    if not data.startswith(PNG):
        return
    position, count = len(PNG), 0
    while position + 8 <= len(data):
        position += 12 + int.from_bytes(data[position : position + 4], "big")
        count += 1
        if count > MAX_CHUNKS:
            raise Defect("undecodable_image", f"a PNG of more than {MAX_CHUNKS} chunks")


def check_header(data: bytes) -> None:
    """Raises Defect where Pillow would read its way through a flood before the first pixel."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            open_header(MeteredReads(data))
        except (Defect, MemoryError):
            raise
        except Exception:  # whatever it is, decoding meets it again and names it
            return


def has_broken_exif(data: bytes) -> bool:
    """Whether the image has an EXIF block that cannot be read to its end, or whose orientation is
    no number from 0 (unknown) to 8.
    """
    end = segments_end(data) if data.startswith(JPEG) else len(data)
    if not any(data.find(mark, 0, end) >= 0 for mark in EXIF_MARKS):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow warns of what is cut off, and reads on
        try:
            image = open_header(io.BytesIO(data))
            image.getexif()  # of a PNG, reads up to it
            block = image.info.get("exif")
            exif = Image.Exif()
            exif.load(block or b"")  # again: that of a JPEG, opening it has read and let pass
            orientation = exif.get(ExifTags.Base.Orientation, 1)
        except MemoryError:
            raise
        except Exception:  # whatever a broken block leads Pillow to
            return True
    return orientation not in range(9)


def decodes_apart_from_exif(data: bytes) -> bool:
    """Whether the pixels are whole."""
    try:
        open_header(io.BytesIO(data)).load()
    except MemoryError:
        raise
    except Exception:  # as above
        return False
    return True


def luminance_facts(gray: Image.Image) -> dict[str, Any]:
    """Hash, contrast, sharpness and edges of an image of mode L, by its small copy.

    All by integers up to the last division, so that they are the same on any processor.
    """
    small = reduced(gray)
    thumb = thumbnail(small)
    levels = np.frombuffer(thumb.tobytes(), np.uint8).reshape(thumb.height, thumb.width)
    levels = levels.astype(np.int16)
    sharpness, edges = sharpness_and_edges(levels)
    return {
        "dhash": dhash(small),
        "contrast": math.sqrt(variance(levels.size, *sums(levels))),
        "sharpness": sharpness,
        "edges": edges,
    }


def reduced(image: Image.Image) -> Image.Image:
    """The image, its longer side from THUMBNAIL to twice that unless it is narrow: means of whole
    squares, so that nothing is shifted.
    """
    factor = min(max(image.size) // THUMBNAIL, min(image.size) // NARROWEST)
    return image.reduce(factor) if factor > 1 else image


def thumbnail(image: Image.Image) -> Image.Image:
    """The image, its longer side at most THUMBNAIL px, by area."""
    scale = max(image.size) / THUMBNAIL
    if scale <= 1:
        return image
    size = (max(1, round(image.width / scale)), max(1, round(image.height / scale)))
    return image.resize(size, Image.Resampling.BOX)


def variance(count: int, total: int, squares: int) -> float:
    """Of `count` whole numbers with this sum and sum of squares."""
    return (count * squares - total**2) / count**2


def pixels_hash(image: Image.Image) -> int:
    """xxh3 of size and pixels of an RGB image: 64 bits."""
    state = xxhash.xxh3_64(f"{image.width} x {image.height} ".encode())
    for top in range(0, image.height, STRIP):
        strip = image.crop((0, top, image.width, min(top + STRIP, image.height)))
        state.update(strip.tobytes())
    return state.intdigest()


def coded_hash(data: bytes, orientation: int) -> int:
    """xxh3 of what the pixels of a JPEG are computed from: 64 bits.

    All of the file but what is said about it (EXIF, profiles, thumbnails, comments). Equal hashes
    mean equal pixels; the converse holds of copies of a file, not of one decoded and encoded again.
    """
    state = xxhash.xxh3_64(f"JPEG {orientation} ".encode())
    view, kept = memoryview(data), 0
    for marker, start, end in segments(data):
        if marker in ABOUT:
            state.update(view[kept:start])
            kept = end
    state.update(view[kept:])
    return state.intdigest()


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, where it begins, where it ends) of the segments in front of a JPEG's scan data, as
    far as they follow one another.
    """
    start = 2
    while start + 4 <= len(data) and data[start] == 0xFF and data[start + 1] in SEGMENTS:
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        yield data[start + 1], start, end
        start = end


def segments_end(data: bytes) -> int:
    """Where the scan data of a JPEG begin; its length where what comes before is out of order."""
    end = max((end for *_, end in segments(data)), default=2)
    return end if data[end : end + 2] == bytes((0xFF, START_OF_SCAN)) else len(data)


def dhash(gray: Image.Image) -> int:
    """The 64-bit difference hash: 9 x 8 luminances of the small copy, a bit per pair of neighbours
    in a row that rises to the right, row by row from the highest bit.

    https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html
    """
    small = reduced(gray).resize((9, 8), Image.Resampling.LANCZOS)
    levels = np.frombuffer(small.tobytes(), np.uint8).reshape(8, 9)
    return int.from_bytes(np.packbits(levels[:, 1:] > levels[:, :-1]).tobytes(), "big")


def sharpness_and_edges(gray: np.ndarray) -> tuple[float, float]:
    """(variance of the 4-neighbour Laplacian, share of pixels on an edge) of int16 [h, w]."""
    if min(gray.shape) < 3:
        return 0.0, 0.0
    inner = gray[1:-1, 1:-1]
    right, below = gray[1:-1, 2:] - inner, gray[2:, 1:-1] - inner
    laplacian = gray[:-2, 1:-1] + gray[1:-1, :-2] - 2 * inner + right + below
    on_edge = int(np.count_nonzero(np.maximum(np.abs(right), np.abs(below)) >= EDGE))
    total, squares = sums(laplacian)
    return variance(laplacian.size, total, squares), on_edge / laplacian.size


def sums(values: np.ndarray) -> tuple[int, int]:
    """(sum, sum of squares) of int16, none of them beyond 2,047."""
    wide = values.astype(np.int32)
    return int(wide.sum(dtype=np.int64)), int((wide * wide).sum(dtype=np.int64))


def render_pdf(data: bytes, *, longest_edge: int) -> list[bytes]:
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


def pdf_pages(data: bytes) -> list[dict[str, Any]]:
    """The IMAGES elements of a PDF's pages."""
    return [image_record(page) for page in render_pdf(data, longest_edge=PAGE_EDGE)]
