"""Images that mean harm, or only look as if, by name; and what each must cost."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from pipelines.media.images import MAX_PIXELS

SIDE = int(MAX_PIXELS**0.5)
"""px: the largest square that is no bomb."""

FLOOD = 32 << 20
"""Bytes: half a minute and more, were every one of them looked at in Python."""


def noise(width: int = 32, height: int = 24) -> Image.Image:
    rng = np.random.default_rng(width * height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def saved(image: Image.Image, kind: str, **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes = b"", *, length: int = -1, crc: int = -1) -> bytes:
    """A PNG chunk, honest unless a length or a checksum is given."""
    given = len(data) if length < 0 else length
    return (
        struct.pack(">I", given)
        + kind
        + data
        + struct.pack(">I", zlib.crc32(kind + data) if crc < 0 else crc)
    )


SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIXELS = chunk(b"IDAT", zlib.compress((b"\0" + bytes(range(96))) * 24))
HEAD = chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 24, 8, 2, 0, 0, 0))
END = chunk(b"IEND")


def png_of(*chunks: bytes) -> bytes:
    return b"".join((SIGNATURE, *chunks))


def zeros(width: int, height: int, colours: int, row_bytes: int) -> bytes:
    """A PNG of nothing but zeros: a thousandth of its pixels."""
    press = zlib.compressobj(9)
    row = bytes(1 + row_bytes)
    squeezed = b"".join(press.compress(row) for _ in range(height)) + press.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, colours, 0, 0, 0)
    return png_of(chunk(b"IHDR", header), chunk(b"IDAT", squeezed), END)


def gif_of(screen: tuple[int, int], frame: tuple[int, int], pixels: bytes) -> bytes:
    """A GIF of one frame whose LZW data are `pixels`, without a trailer."""
    palette = bytes(range(12))
    head = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x91, 0, 0) + palette
    return head + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02" + pixels


def animation(frames: int) -> bytes:
    """A GIF that loops for ever over `frames` frames."""
    shades = [Image.new("L", (16, 16), n % 256) for n in range(frames)]
    return saved(shades[0], "GIF", save_all=True, append_images=shades[1:], loop=0)


def bombs() -> Iterator[tuple[str, bytes]]:
    """Images of too many pixels, in few bytes."""
    huge = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    yield "header.png", png_of(chunk(b"IHDR", huge), PIXELS, END)
    yield "a_row_too_many.png", zeros(SIDE + 1, SIDE + 1, 0, SIDE + 1)
    yield "screen.gif", gif_of((65535, 65535), (1, 1), b"\x02\x4c\x01\0;")
    yield "frame_beyond_the_screen.gif", gif_of((1, 1), (65535, 65535), b"\x02\x4c\x01\0;")
    jpeg = saved(noise(), "JPEG")
    at = jpeg.index(b"\xff\xc0") + 5
    yield "header.jpg", jpeg[:at] + struct.pack(">HH", 65500, 65500) + jpeg[at + 4 :]
    tiff = bytearray(saved(noise(), "TIFF"))
    for tag in (256, 257):
        at = bytes(tiff).index(struct.pack("<HHI", tag, 4, 1))
        tiff[at + 8 : at + 12] = struct.pack("<I", 60_000)
    yield "header.tiff", bytes(tiff)
    bmp = bytearray(saved(noise(), "BMP"))
    bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    yield "header.bmp", bytes(bmp)


def broken() -> Iterator[tuple[str, bytes]]:
    """Files from which no whole image comes."""
    yield "wrong_checksum.png", png_of(HEAD, chunk(b"IDAT", b"x" * 99, crc=7), END)
    yield "wrong_checksum_of_text.png", png_of(HEAD, chunk(b"tEXt", b"k\0v", crc=7), PIXELS, END)
    yield "endless_chunk.png", png_of(HEAD, chunk(b"IDAT", b"x", length=2**31 - 1))
    yield "length_beyond_all.png", png_of(HEAD, chunk(b"IDAT", b"x", length=2**32 - 1))
    yield "no_header.png", png_of(PIXELS, END)
    yield "no_pixels.png", png_of(HEAD, END)
    yield (
        "no_size.png",
        png_of(chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 24, 8, 2, 0, 0, 0)), PIXELS, END),
    )
    yield (
        "odd_depth.png",
        png_of(chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 24, 9, 7, 0, 0, 0)), PIXELS, END),
    )
    text = zlib.compress(bytes(64 << 20), 9)
    yield "text_bomb.png", png_of(HEAD, chunk(b"zTXt", b"k\0\0" + text), PIXELS, END)
    yield "not_deflate.png", png_of(HEAD, chunk(b"IDAT", bytes(4096)), END)
    yield "no_end.gif", gif_of((16, 16), (16, 16), b"\xff" + bytes(200))
    yield "comment_without_end.gif", b"GIF89a" + bytes(7) + b"!\xfe" + b"\x01x" * (FLOOD // 2)
    yield "bytes_without_end.gif", b"GIF89a" + bytes(7) + bytes(FLOOD)
    yield "chunks_without_end.png", png_of(HEAD, chunk(b"abCd") * (FLOOD // 12))
    yield "chunks_behind_pixels.png", png_of(HEAD, PIXELS, chunk(b"abCd") * (FLOOD // 12), END)
    yield "comments_without_end.jpg", b"\xff\xd8" + b"\xff\xfe\0\3x" * (FLOOD // 5)
    yield "fill_without_end.jpg", b"\xff\xd8" + b"\xff" * FLOOD
    yield "comments_without_end.ppm", b"P3 " + b"# x\n" * (FLOOD // 4)
    yield "half.jpg", saved(noise(300, 300), "JPEG")[:9000]
    yield "half.webp", saved(noise(300, 300), "WEBP")[:9000]
    yield "circle.tiff", b"II*\0\x08\0\0\0" + struct.pack("<HI", 0, 8)
    yield "program.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n{} loop\n"
    yield "program_with_preview.eps", b"\xc5\xd0\xd3\xc6" + struct.pack("<7I", *range(30, 37))
    yield "page.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    yield "page.html", b"<html><body>404 Not Found</body></html>"
    yield "empty.png", b""


def harmless() -> Iterator[tuple[str, bytes]]:
    """Odd, but images: they must cost nothing but their memory."""
    yield "many_frames.gif", animation(3000)
    # Pillow fills the rows that are missing with zeros, in the trainer as here.
    yield "few_rows.png", png_of(HEAD, chunk(b"IDAT", zlib.compress(b"\0" * 97)), END)
    yield "largest.png", zeros(SIDE, SIDE, 6, 4 * SIDE)
    yield "unknown_chunk.png", png_of(HEAD, chunk(b"abCd", b"?" * 999), PIXELS, END)
    yield "bytes_behind_the_end.png", png_of(HEAD, PIXELS, END) + b"PK\3\4" * 999
    yield "no_trailer.gif", saved(noise(), "GIF")[:-1]
