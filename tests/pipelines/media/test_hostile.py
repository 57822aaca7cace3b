"""Images that mean harm cost one verdict each: no crash, no hang, no flood of memory."""

import io
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from pipelines.media import images
from pipelines.sources.sample import Defect
from tests.pipelines.media import hostile
from tests.pipelines.media.hostile import chunk, noise, png_of, saved
from tests.pipelines.sources.making import png, read, write, write_lines

BOMBS, BROKEN, HARMLESS = (
    dict(group()) for group in (hostile.bombs, hostile.broken, hostile.harmless)
)
EXPECTED = (
    dict.fromkeys(BOMBS, "too_many_pixels")
    | dict.fromkeys(BROKEN, "undecodable_image")
    | dict.fromkeys(HARMLESS)
)
MEMORY = 1500
"""MB of a worker, at most, that has met the largest image allowed: 89 Mpx with alpha."""

INGEST = """
import json, resource, sys
from pipelines.media import decoders
from tests.pipelines.sources.making import read
rows = read("imagefolder", data=sys.argv[1])
decoders.stop_child()
both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
peak = max(resource.getrusage(who).ru_maxrss >> 10 for who in both)
print(json.dumps({"defects": [row["defect"] for row in rows], "peak": peak}))
"""


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    """What one process makes of all of them, and its peak memory in MB."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, data in (BOMBS | BROKEN | HARMLESS).items():
        write(folder / name, data)
    write_lines(folder / "metadata.jsonl", [{"file_name": n, "text": "It is."} for n in EXPECTED])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", INGEST, str(folder)],
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[3],
        timeout=200,
    )
    return json.loads(done.stdout)


def test_every_one_is_a_row_with_its_verdict(worker):
    assert dict(zip(EXPECTED, worker["defects"], strict=True)) == EXPECTED


def test_memory_is_bounded(worker):
    assert worker["peak"] < MEMORY


def test_postscript_is_not_run(tmp_path, monkeypatch):
    """A `gs` that would leave a trace is never started."""
    ghostscript = write(tmp_path / "gs", f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    ghostscript.chmod(0o755)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", str(ghostscript))
    program = BROKEN["program.eps"]
    for data in (program, program.replace(b"\n", b"\r\n")):
        with pytest.raises(Defect, match="undecodable_image"):
            images.image_record(data)
    assert not (tmp_path / "ran").exists()


def test_of_an_animation_the_first_frame_counts():
    data = HARMLESS["many_frames.gif"]
    assert Image.open(io.BytesIO(data)).n_frames == 3000
    known = images.image_record(data)
    assert (known["width"], known["height"], known["contrast"]) == (16, 16, 0)


# ------------------------------------------------------------------ modes

BASE = noise()
GREY = np.asarray(BASE.convert("L"))
ALPHA = np.asarray(noise(24, 32).convert("L")).T.copy()


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours [height, width, 3] laid on white."""
    share = alpha[..., None].astype(float) / 255
    return colours * share + 255 * (1 - share)


def grey_rgb(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.clip(values, 0, 255)[..., None], 3, axis=2)


def modes():
    """(mode, format, image of it, the RGB it stands for, by arithmetic of our own)."""
    colours = np.asarray(BASE)
    palette = BASE.quantize(64)
    table = np.array(palette.getpalette(), np.uint8).reshape(-1, 3)
    indices = np.asarray(palette)
    alpha = Image.fromarray(ALPHA)
    with_alpha = palette.convert("PA")
    with_alpha.putalpha(alpha)
    lit = np.asarray(BASE.convert("1"))
    ink = np.random.default_rng(1).integers(0, 256, (24, 32, 4), dtype=np.uint8)
    black = 255 - ink[..., 3:].astype(float)
    printed = (255 - ink[..., :3].astype(float)) * black / 255
    deep = GREY.astype(np.int32) * 3 - 100  # below 0 and above 255
    yield "1", "PNG", BASE.convert("1"), grey_rgb(lit * 255)
    yield "L", "PNG", BASE.convert("L"), grey_rgb(GREY)
    yield "P", "PNG", palette, table[indices]
    yield "PA", "TIFF", with_alpha, on_white(table[indices], ALPHA)
    yield (
        "LA",
        "PNG",
        Image.merge("LA", (BASE.convert("L"), alpha)),
        on_white(grey_rgb(GREY), ALPHA),
    )
    rgba = Image.merge("RGBA", (*BASE.split(), alpha))
    yield "RGBA", "PNG", rgba, on_white(colours, ALPHA)
    yield "RGBA", "TIFF", rgba, on_white(colours, ALPHA)
    yield (
        "CMYK",
        "TIFF",
        Image.merge("CMYK", [Image.fromarray(plane) for plane in np.moveaxis(ink, 2, 0).copy()]),
        printed,
    )
    yield "YCbCr", "TIFF", BASE.convert("YCbCr"), colours
    yield "I", "TIFF", Image.fromarray(deep), grey_rgb(deep)
    yield "F", "TIFF", Image.fromarray(deep.astype(np.float32)), grey_rgb(deep)
    wide = GREY.astype(np.uint16) * 3
    yield "I;16", "PNG", Image.fromarray(wide), grey_rgb(wide)
    yield "I;16", "TIFF", Image.fromarray(wide), grey_rgb(wide)


@pytest.mark.parametrize(("mode", "kind", "image", "means"), list(modes()))
def test_every_mode_becomes_rgb_in_the_one_documented_way(mode, kind, image, means):
    data = saved(image, kind)
    assert Image.open(io.BytesIO(data)).mode == mode
    found = np.asarray(images.decode(data)).astype(float)
    assert found.shape == (24, 32, 3)
    assert np.abs(found - means).max() <= 4  # YCbCr rounds twice
    assert images.image_record(data)["width"] == 32


def test_premultiplied_alpha_is_read_as_what_it_was():
    """RGBa, which Pillow reads out of TIFF (ExtraSamples 1) and gives as RGBA."""
    alpha = Image.new("L", BASE.size, 128)
    whole = Image.merge("RGBA", (*BASE.split(), alpha))
    data = bytearray(saved(whole.convert("RGBa").convert("RGBA"), "TIFF"))
    raw = np.asarray(whole.convert("RGBa").tobytes()).tobytes()
    kept = np.asarray(whole.convert("RGBa").convert("RGBA")).tobytes()
    at, entry = bytes(data).index(kept), bytes(data).index(struct.pack("<HHI", 338, 3, 1))
    data[at : at + len(raw)] = raw
    data[entry + 8 : entry + 10] = struct.pack("<H", 1)
    found = np.asarray(images.decode(bytes(data))).astype(float)
    assert np.abs(found - on_white(np.asarray(BASE), np.asarray(alpha))).max() <= 2


# ------------------------------------------------------------------ EXIF


def entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")


def exif_of(*entries: bytes, count: int = -1) -> bytes:
    """An EXIF block of these entries, that says it has `count`."""
    said = len(entries) if count < 0 else count
    directory = struct.pack("<H", said) + b"".join(entries) + bytes(4)
    return b"Exif\0\0II*\0\x08\0\0\0" + directory


TURNED = entry(0x112, 3, 1, struct.pack("<H", 6))
WHOLE = {
    "turned": exif_of(TURNED),
    "unknown": exif_of(entry(0x112, 3, 1, b"\0\0")),
    "no orientation": exif_of(entry(0x10E, 2, 4, b"abc\0")),
}
BROKEN_EXIF = {
    "cut off": exif_of(TURNED, count=9)[:20],
    "more entries than bytes": exif_of(count=60_000),
    "directory elsewhere": b"Exif\0\0II*\0\xff\xff\xff\x7f",
    "orientation 9": exif_of(entry(0x112, 3, 1, struct.pack("<H", 9))),
    "orientation in words": exif_of(entry(0x112, 2, 4, b"up\0\0")),
    "billions of orientations": exif_of(entry(0x112, 3, 2**31 - 1, b"\6\0")),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("name", WHOLE | BROKEN_EXIF)
def test_broken_exif_is_known_and_the_image_taken_as_it_lies(name, kind):
    data = saved(Image.new("RGB", (40, 20), "red"), kind, exif=(WHOLE | BROKEN_EXIF)[name])
    known = images.image_record(data)
    assert known["broken_exif"] == (name in BROKEN_EXIF)
    assert (known["width"], known["height"]) == ((20, 40) if name == "turned" else (40, 20))


@pytest.mark.parametrize(("kind", "reason"), [("JPEG", None), ("PNG", "unreadable_exif")])
def test_exif_at_which_decoders_give_up_is_a_defect_of_its_own(tmp_path, kind, reason):
    """`datasets` cannot show such a PNG either: it too asks for the orientation."""
    garbage = b"Exif\0\0" + b"garbage" * 9
    write(tmp_path / "a.png", saved(Image.new("RGB", (40, 20)), kind, exif=garbage))
    write_lines(tmp_path / "metadata.jsonl", [{"file_name": "a.png", "text": "It is."}])
    (row,) = read("imagefolder", data=str(tmp_path))
    assert row["defect"] == reason
    assert row["images"][0]["broken_exif"] == (True if reason is None else None)


def test_exif_behind_broken_pixels_is_not_to_blame():
    garbage = chunk(b"eXIf", b"garbage" * 9)
    with pytest.raises(Defect, match="undecodable_image"):
        images.image_record(png_of(hostile.HEAD, garbage, chunk(b"IDAT", b"x" * 99), hostile.END))


def test_exif_is_looked_for_only_where_there_is_some():
    assert images.image_record(png())["broken_exif"] is False
    named = png_of(hostile.HEAD, chunk(b"tEXt", b"about\0eXIf"), hostile.PIXELS, hostile.END)
    assert images.image_record(named)["broken_exif"] is False
