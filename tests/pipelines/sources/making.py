"""What small repositories are made of: images, clips, Parquet, JSON, archives; and reading them."""

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipelines.reading.ingest import ingest
from pipelines.reading.parts import list_parts

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TEXTS = pa.list_(
    pa.struct([("user", pa.string()), ("assistant", pa.string()), ("source", pa.string())])
)


def png(width: int = 32, height: int = 24, *, seed: int = 0, kind: str = "PNG") -> bytes:
    """A small image of its own, encoded."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def coarse_jpeg(seed: int, width: int = 96, height: int = 64) -> bytes:
    """A JPEG of a random pattern of cells of 8 px: near ones do not look alike."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((width, height)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def cell(data: bytes | None) -> dict[str, Any] | None:
    """An Image cell of `datasets`."""
    return None if data is None else {"bytes": data, "path": None}


def qa(*pairs: tuple[str | None, str | None]) -> list[dict[str, Any]]:
    """The `texts` of a Cauldron row."""
    return [{"user": q, "assistant": a, "source": "made"} for q, a in pairs]


def write_parquet(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    schema: pa.Schema | None = None,
    group: int = 2,
) -> Path:
    """A Parquet file of row groups of `group` rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    pq.write_table(table, path, row_group_size=group)
    return path


def write(path: Path, content: bytes | str | object) -> Path:
    """A file of bytes, text, or anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content)
    else:
        path.write_text(json.dumps(content))
    return path


def write_lines(path: Path, rows: Sequence[object]) -> Path:
    """JSON lines; a string is written as it stands."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    return write(path, "\n".join(lines) + "\n")


def tar(path: Path, members: Iterable[tuple[str, bytes]], mode: Any = "w") -> Path:
    """A tar of (name, bytes), in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def zip_of(members: Iterable[tuple[str, bytes]], how: int = zipfile.ZIP_STORED) -> bytes:
    """The bytes of a zip of (name, bytes), in their order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def zipped(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """A zip of (name, bytes), in their order."""
    return write(path, zip_of(members))


def encoded_video(
    path: Path,
    *,
    seconds: float = 4,
    fps: int = 10,
    size: tuple[int, int] = (64, 48),
    codec: str = "mpeg4",
    pixels: str = "yuv420p",
    gop: int = 10,
    times: Sequence[int] | None = None,
) -> Path:
    """A clip whose frame at `t` seconds is gray of level `t / seconds * 250`.

    `times`: presentation times of the frames, in units of 1 / fps s (variable frame rate).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    stamps = list(times) if times is not None else list(range(round(seconds * fps)))
    scheduled = os.sched_getscheduler(0), os.sched_getparam(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        stream.gop_size = gop
        for stamp in stamps:
            level = min(250, round(stamp / fps / seconds * 250))
            shade = np.full((size[1], size[0], 3), level, np.uint8)
            frame = av.VideoFrame.from_ndarray(shade, format="rgb24")
            frame.pts = stamp
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    os.sched_setscheduler(0, *scheduled)  # SVT-AV1, run as root, makes this thread a real-time one
    return path


def levels(images: Sequence[Mapping[str, Any]]) -> list[int]:
    """The gray level of each image's middle."""
    found = []
    for image in images:
        image_record = Image.open(io.BytesIO(image["bytes"])).convert("L")
        found.append(image_record.getpixel((image_record.width // 2, image_record.height // 2)))
    return found


def read(source: str, **settings: Any) -> list[dict[str, Any]]:
    """Every sample of a component, as dicts, by id."""
    parts = list_parts(source=source, **settings)
    tables = [ingest(part) for part in parts]
    rows = [row for table in tables for row in table.to_pylist()]
    for part, table in zip(parts, tables, strict=True):
        assert part.rows in (None, table.num_rows)
    return sorted(rows, key=lambda row: row["id"])


def said(sample: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(role, content) of every turn, an image written as `[i]`."""
    return [
        (m["role"], "".join("[i]" if c["type"] == "image" else c["text"] for c in m["content"]))
        for m in sample["messages"]
    ]


def asked(question, answer="An answer.", **about):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": "x", **about, "conversations": turns}
