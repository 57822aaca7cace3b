"""From encoded bytes to pixels and from sizes to crops: the only such code, for build and trainer.

| from                  | to                                  | by                         |
|-----------------------|-------------------------------------|----------------------------|
| bytes                 | an image of a known format          | `open_header`              |
| bytes                 | RGB image, upright                  | `open_image`               |
| bytes                 | the same, perhaps at a smaller scale | `open_copy`               |
| bytes                 | (width, height), header only        | `image_size`               |
| (width, height)       | (rows, cols) of crops               | `grid`                     |
| image, (rows, cols)   | crops [rows * cols + 1, S, S, 3]    | `crops`                    |
| bytes, (rows, cols)   | the same, by the encoding           | `crop_pixels`                   |
| bytes, (rows, cols)   | bytes for the shards                | `stored_bytes`                   |

Grids are a pure function of the size, so ids need no pixels. Sizes and pixels are those of
`SmolVLMImageProcessorPil` (transformers 5.23), bit for bit: LANCZOS to the longest edge, LANCZOS
to a multiple of the crop, cut, and a global view squashed to one crop. Frames are never split.
S is `crop_size`, px; (0, 0) means the global view only.
"""

import io
import math
import struct
import sys
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from PIL import ExifTags, Image, ImageOps

from tokenization.schema import Encoding

MAX_SIDE = 4096
"""px, the longest side transformers ever resizes a SmolVLM image to."""
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""What is read of what Pillow calls a format; a multi-picture JPEG is a JPEG."""
_LANCZOS = Image.Resampling.LANCZOS
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that exchange width and height."""
VIEW_FOLLOWS = b"\x00SmolView"
"""Ends a stored image behind which its global view lies: image, view, bytes of the view, this. What
follows an image's end is read by nobody else; of 1024 x 768 px a view takes 38 ms to make and 3 to
decode (`python -m benchmarks.tokenization`)."""
_LENGTH = struct.Struct("<I")
_PNG_EXIF = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
"""What announces an orientation in a PNG."""


def open_header(stream: BinaryIO) -> Image.Image:
    """The image that begins in `stream`, not decoded yet: every image is opened here.

    Pillow tries no reader but those of FORMATS: others start programs (EPS) or are no images.
    """
    return Image.open(stream, formats=FORMATS)


def open_image(data: bytes) -> Image.Image:
    """The image in `data`: decoded, upright by its EXIF orientation, RGB, transparency on white.

    That is what `datasets` (orientation) and `transformers` (transparency) do one after the other.
    Raises ValueError where `data` is not a whole image.
    """
    return open_copy(data, least=(sys.maxsize, 1)).image


class Copy(NamedTuple):
    """An image that may have been brought down while it was decoded."""

    image: Image.Image
    """As `open_image` gives it, but for its size; of a smaller JPEG L, where it can."""
    size: tuple[int, int]
    """(width, height) of the whole image, px, upright."""
    orientation: int
    """By its EXIF, 1 to 8."""


def open_copy(data: bytes, *, least: tuple[int, int]) -> Copy:
    """The image in `data`, perhaps smaller: longer and shorter side no less than `least` px.

    All of the data are read, so what is cut off or broken is found as by `open_image`; of a JPEG no
    more frequencies are computed than the copy shows (an eighth, a quarter, half). Raises
    ValueError where `data` is not a whole image.
    """
    try:
        image = open_header(io.BytesIO(data))
        stated = image.size
        above = min(max(stated) / least[0], min(stated) / least[1])
        drafted = None
        if above >= 2:
            wanted = (max(1, int(stated[0] / above)), max(1, int(stated[1] / above)))
            drafted = image.draft("L" if has_plain_sampling(image) else None, wanted)  # JPEGs do
        if drafted is not None:
            cast(Any, image).decodermaxblock = max(
                len(data), 1
            )  # all at once: it reads by 64 KiB else
        image.load()
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        if orientation != 1:
            image = ImageOps.exif_transpose(image)
        turned = stated[::-1] if orientation in SIDEWAYS else stated
        size = image.size if drafted is None else turned
        if "A" in image.getbands() or image.info.get("transparency") is not None:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, image)
        if image.mode != "RGB" and (drafted is None or image.mode != "L"):
            image = image.convert("RGB")
        return Copy(image, size, orientation if orientation in range(2, 9) else 1)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise whatever a broken file leads them to
        raise ValueError(f"undecodable image of {len(data)} bytes: {error}") from error


def has_plain_sampling(image: Image.Image) -> bool:
    """Whether a JPEG's colours can be brought to the size of its luminance: where they cannot, only
    decoding them tells.
    """
    factors = [(across, down) for _, across, down, _ in getattr(image, "layer", ())]
    most = [max(sides) for sides in zip(*factors, strict=True)]
    return len(factors) == 3 and all(
        side and largest % side == 0
        for pair in factors
        for side, largest in zip(pair, most, strict=True)
    )


def image_size(data: bytes) -> tuple[int, int]:
    """(width, height) in px after EXIF orientation, from the header alone.

    Raises ValueError where the header is not that of an image.
    """
    try:
        image = open_header(io.BytesIO(data))
        # Pillow reads all of a PNG to look for EXIF, which may follow the pixels; few have any. The
        # size of a TIFF it states upright.
        plain = image.format == "PNG" and not any(mark in data for mark in _PNG_EXIF)
        orientation = 1 if plain else image.getexif().get(ExifTags.Base.Orientation, 1)
        turned = orientation in SIDEWAYS and image.format != "TIFF"
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise ValueError(f"undecodable image of {len(data)} bytes: {error}") from error
    width, height = image.size
    return (height, width) if turned else (width, height)


def _resized(width: int, height: int, longest_edge: int) -> tuple[int, int]:
    """(width, height) with the longer side `longest_edge`, the other even, none above MAX_SIDE.

    The order of the float operations is that of transformers, on which the last pixel depends.
    """
    aspect = width / height
    if width >= height:
        width, height = longest_edge, int(longest_edge / aspect)
        height += height % 2
    else:
        width, height = int(longest_edge * aspect), longest_edge
        width += width % 2
    width, height = max(width, 1), max(height, 1)
    aspect = width / height
    if width >= height and width > MAX_SIDE:
        width, height = MAX_SIDE, int(MAX_SIDE / aspect)
    elif height > width and height > MAX_SIDE:
        width, height = int(MAX_SIDE * aspect), MAX_SIDE
    return max(width, 1), max(height, 1)


def _edge(width: int, height: int, *, longest_edge: int, upscale: bool) -> int:
    """Pixels of the first resize, or 0 where there is none."""
    return longest_edge if upscale or max(width, height) > longest_edge else 0


@lru_cache(maxsize=1 << 16)
def grid_of(
    width: int, height: int, *, crop_size: int, longest_edge: int, upscale: bool = True
) -> tuple[int, int]:
    """(rows, cols) of a still of that size, in px; (0, 0) where it fits one crop."""
    edge = _edge(width, height, longest_edge=longest_edge, upscale=upscale)
    if edge:
        width, height = _resized(width, height, edge)
    aspect = width / height
    if width >= height:
        cols = math.ceil(width / crop_size)
        rows = math.ceil(int(cols * crop_size / aspect) / crop_size)
    else:
        rows = math.ceil(height / crop_size)
        cols = math.ceil(int(rows * crop_size * aspect) / crop_size)
    rows, cols = max(rows, 1), max(cols, 1)
    return (0, 0) if rows == cols == 1 else (rows, cols)


def grid(width: int, height: int, *, encoding: Encoding, video: bool) -> tuple[int, int]:
    """(rows, cols) of crops of an image of that size in px, by the inference resize of `encoding`.

    `video` says that it is a frame, which is never split. Raises ValueError for a size below 1 px.
    """
    if width < 1 or height < 1:
        raise ValueError(f"an image of {width} x {height} px has no crops; expected 1 x 1 or more.")
    if video or not encoding.split_images:
        return (0, 0)
    return grid_of(
        width,
        height,
        crop_size=encoding.crop_size,
        longest_edge=encoding.longest_edge,
        upscale=encoding.upscale,
    )


def crops(
    image: Image.Image,
    rows: int,
    cols: int,
    *,
    crop_size: int,
    longest_edge: int,
    upscale: bool = True,
) -> np.ndarray:
    """Crops of an RGB image, row by row, then the global view: uint8 [rows * cols + 1, S, S, 3].

    The grid decides: an image of fewer crops than `longest_edge` gives (a frame, random tiles) is
    first resized to the longest edge of its grid, as a processor set to that edge would.
    """
    across = max(rows, cols, 1)
    edge = min(longest_edge, across * crop_size)
    edge = _edge(*image.size, longest_edge=edge, upscale=upscale)
    if edge:
        image = image.resize(_resized(*image.size, edge), _LANCZOS)
    size = (max(cols, 1) * crop_size, max(rows, 1) * crop_size)
    if image.size != size:  # Pillow copies what has its size already: 7 of 136 ms
        image = image.resize(size, _LANCZOS)
    return _cut(image, rows, cols, crop_size)


def _cut(image: Image.Image, rows: int, cols: int, size: int) -> np.ndarray:
    """uint8 [rows * cols + 1, S, S, 3] of an image that has its grid's size."""
    if rows == cols == 0:
        return np.array(image)[None]
    view = image.resize((size, size), _LANCZOS)
    return _with_view(image, view, rows, cols)


def _with_view(image: Image.Image, view: Image.Image, rows: int, cols: int) -> np.ndarray:
    size = view.width
    made = np.empty((rows * cols + 1, size, size, 3), np.uint8)
    cut = np.asarray(image).reshape(rows, size, cols, size, 3)
    made[:-1].reshape(rows, cols, size, size, 3)[:] = cut.swapaxes(1, 2)
    made[-1] = np.asarray(view)
    return made


def crop_pixels(data: bytes, rows: int, cols: int, *, encoding: Encoding) -> np.ndarray:
    """The crops of an image as it lies in a shard: uint8 [rows * cols + 1, S, S, 3].

    Raises ValueError where `data` does not decode, or is not of its grid's size under
    `images: fitted`, or has a global view of another size.
    """
    image = open_image(data)
    if encoding.images != "fitted":
        return crops(
            image,
            rows,
            cols,
            crop_size=encoding.crop_size,
            longest_edge=encoding.longest_edge,
            upscale=encoding.upscale,
        )
    size = (max(cols, 1) * encoding.crop_size, max(rows, 1) * encoding.crop_size)
    if image.size != size:
        raise ValueError(
            f"images: fitted, but an image of {image.size[0]} x {image.size[1]} px lies in the "
            f"shard where its grid {rows} x {cols} needs {size[0]} x {size[1]}."
        )
    if not data.endswith(VIEW_FOLLOWS) or rows == cols == 0:
        return _cut(image, rows, cols, encoding.crop_size)
    end = len(data) - len(VIEW_FOLLOWS) - _LENGTH.size
    (length,) = _LENGTH.unpack_from(data, end)
    view = open_image(data[end - length : end])
    if view.size != (encoding.crop_size, encoding.crop_size):
        raise ValueError(
            f"images: fitted, but behind an image lies a global view of {view.width} x "
            f"{view.height} px where crops have {encoding.crop_size} px a side."
        )
    return _with_view(image, view, rows, cols)


def stored_bytes(data: bytes, rows: int, cols: int, *, encoding: Encoding) -> bytes:
    """The bytes that go into a shard for an image, by `encoding.images`.

    `original`: `data` itself. `recompress`: never above the longest edge, and `data` itself where
    re-encoding saves nothing. `fitted`: of the grid's size (cols x S, rows x S), with the global
    view of an image that is split behind it (`VIEW_FOLLOWS`).
    """
    if encoding.images == "original":
        return data
    image = open_image(data)
    before = image.size
    across = max(rows, cols, 1)
    edge = min(encoding.longest_edge, across * encoding.crop_size)
    if encoding.images == "fitted":
        edge = _edge(*image.size, longest_edge=edge, upscale=encoding.upscale)
        if edge:
            image = image.resize(_resized(*image.size, edge), _LANCZOS)
        size = (max(cols, 1) * encoding.crop_size, max(rows, 1) * encoding.crop_size)
        image = image.resize(size, _LANCZOS)
    elif max(image.size) > edge:
        image = image.resize(_resized(*image.size, edge), _LANCZOS)
    written = _encoded(image, encoding)
    if encoding.images == "fitted" and (rows, cols) != (0, 0):
        view = image.resize((encoding.crop_size, encoding.crop_size), _LANCZOS)
        behind = _encoded(view, encoding)
        return written + behind + _LENGTH.pack(len(behind)) + VIEW_FOLLOWS
    keeps = encoding.images == "recompress" and image.size == before
    return data if keeps and len(written) >= len(data) else written


def _encoded(image: Image.Image, encoding: Encoding) -> bytes:
    buffer = io.BytesIO()
    if encoding.image_format == "png":
        image.save(buffer, "PNG")
    elif encoding.image_format == "webp":
        image.save(buffer, "WEBP", quality=encoding.image_quality, method=4)
    else:  # 4:4:4, since subsampled colour blurs coloured text
        image.save(buffer, "JPEG", quality=encoding.image_quality, subsampling=0, optimize=True)
    return buffer.getvalue()


def processor_settings(encoding: Encoding) -> dict[str, Any]:
    """Settings under which transformers' SmolVLM image processor makes the pixels of `crops`.

    With `upscale: false` the processor resizes nothing to a longest edge: images above
    `longest_edge` must be brought down to it first, which transformers has no setting for.
    """
    edge = encoding.longest_edge
    if not encoding.split_images:
        edge = min(edge, encoding.crop_size)
    return {
        "do_convert_rgb": True,
        "do_resize": encoding.upscale,
        "size": {"longest_edge": edge},
        "max_image_size": {"longest_edge": encoding.crop_size},
        "do_image_splitting": encoding.split_images,
        "resample": int(_LANCZOS),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_pad": True,
    }
