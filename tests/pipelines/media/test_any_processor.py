"""What is determined is the same on every x86-64 processor: forced down to the oldest one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

MEASURED = """
import ctypes, glob, hashlib, io, sys
import av, numpy as np
if sys.argv[1] == "oldest":  # FFmpeg's own switch: no vector instruction at all
    (util,) = glob.glob(f"{av.__path__[0]}/../av.libs/libavutil*")
    ctypes.CDLL(util).av_force_cpu_flags(0)
    assert not np.show_config(mode="dicts")["SIMD Extensions"].get("found")
from filters.duplicates.hashes import text_signature
from pipelines.media import frames, images, video
from tests.pipelines.media.clips import ALL
import polars as pl

told = hashlib.sha256()
for path in sys.argv[2:]:
    data = open(path, "rb").read()
    if path.endswith(("png", "jpg", "webp")):
        told.update(repr(sorted(images.image_facts(data).items())).encode())
        told.update(frames.frame_bytes(data, size=64))
    else:
        clip = video.decode(io.BytesIO(data), **ALL)
        told.update(repr((clip.facts, clip.seconds, clip.duration)).encode())
        told.update(b"".join(clip.frames))
words = pl.DataFrame({"text": ["what does the chart say about the people " * n for n in range(9)]})
told.update(repr(text_signature(words).to_list()).encode())
print(told.hexdigest())
"""
OLDEST = {
    "NPY_DISABLE_CPU_FEATURES": " ".join(
        np.show_config(mode="dicts")["SIMD Extensions"].get("found", ())
    ),
    "ATEN_CPU_CAPABILITY": "default",
    "OPENBLAS_CORETYPE": "Prescott",
    "JSIMD_FORCENONE": "1",  # libjpeg-turbo
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX512F,-AVX",  # the C library's sine
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    from tests.pipelines.media.clips import encoded, noise
    from tests.pipelines.sources.making import png

    folder = tmp_path_factory.mktemp("media")
    shown = [noise(n) for n in range(12)]
    for kind in ("mp4", "webm", "mpg", "avi"):
        (folder / f"clip.{kind}").write_bytes(encoded(kind, shown))
    for kind, suffix in (("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")):
        (folder / f"image.{suffix}").write_bytes(png(301, 203, seed=7, kind=kind))
    return sorted(map(str, folder.iterdir()))


def test_facts_hashes_and_frames_do_not_depend_on_the_processor(files):
    root = str(Path(__file__).parents[3])
    found = {
        which: subprocess.run(
            [sys.executable, "-c", MEASURED, which, *files],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **more, "PYTHONPATH": root},
        ).stdout
        for which, more in (("this", {}), ("oldest", OLDEST))
    }
    assert found["this"] == found["oldest"] != ""
