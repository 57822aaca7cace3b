"""Bytes on disk, the same every time: parquet as the hub has it, JSON, tar, zip, images."""

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROWS_PER_GROUP = 100  # what `datasets` writes for rows with images
WHAT = {
    "truncated_image": "the picture's bytes end half-way",
    "tiny_image": "8 x 8 px",
    "blank_page": "a page with nothing on it",
    "rotated_image": "upright only after its EXIF orientation is applied; good otherwise",
    "transparent_image": "RGBA; good otherwise",
    "undecodable_video": "the file is not a video",
    "missing_media": "the record names a file that is not there",
    "short_video": "less than a second",
    "empty_answer": "the assistant says nothing",
    "duplicate": "the same pictures and text as another row of the file",
    "literal_image_tag": "`<image>` stands in a question as plain text, not as a picture's place",
    "placeholder_mismatch": "more `<image>` marks than pictures",
    "unfinished_reasoning": "chain of thought without its conclusion",
}


@dataclass(frozen=True, kw_only=True)
class Planted:
    """One row that is bad (or hard) on purpose."""

    repository: str
    """`<org>/<name>`, the folder under the data folder."""
    subset: str
    """The config, or the annotation's folder; empty where the repository has one only."""
    row: int
    """From 0, in the file that `file` names."""
    file: str
    """Relative to the repository."""
    what: str
    """One of the names in WHAT."""


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], features: Any) -> None:
    """`rows` as parquet with the metadata by which `datasets` knows images from structs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows), schema=features.arrow_schema)
    pq.write_table(table, path, row_group_size=ROWS_PER_GROUP)


def hashed_name(split: str, *, of: str) -> str:
    """`train-00000-of-00001-<16 hex>.parquet`, as older uploads to the hub are named."""
    return f"{split}-00000-of-00001-{hashlib.sha256(of.encode()).hexdigest()[:16]}.parquet"


def write_json(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """`records` as one JSON array."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(records), ensure_ascii=False), encoding="utf-8")


def write_jsonl(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """`records`, one JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text("".join(lines), encoding="utf-8")


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Each relative name under `folder` holds its bytes."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def write_tar_gz(path: Path, files: Mapping[str, bytes]) -> None:
    """`files` in one archive without times or owners, so that its bytes repeat."""
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0, filename="") as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    path.write_bytes(packed.getvalue())


def write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    """`files` in one archive, stored, all of 1 January 1980, so that its bytes repeat."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)


def write_card(folder: Path, header: str) -> None:
    """README.md with the YAML `header` from which the hub and `load_dataset` learn the configs."""
    folder.mkdir(parents=True, exist_ok=True)
    text = (
        "A stand-in of a few hundred rows in this repository's layout, made by "
        "`examples/quickstart.py` from pictures and texts that come with Python packages.\n"
    )
    (folder / "README.md").write_text(f"---\n{header.strip()}\n---\n\n{text}")


def png(image: Image.Image) -> bytes:
    """PNG bytes without metadata."""
    out = io.BytesIO()
    image.save(out, format="PNG")
    return out.getvalue()


def jpeg(image: Image.Image, **save: Any) -> bytes:
    """JPEG bytes at quality 85."""
    out = io.BytesIO()
    image.save(out, format="JPEG", quality=85, **save)
    return out.getvalue()


def image_record(data: bytes) -> dict[str, Any]:
    """What an `Image` feature stores: the bytes, and no path."""
    return {"bytes": data, "path": None}


def count(number: int, share: float) -> int:
    """`number` rows at `share`, at least 12, so that every planted row has room."""
    return max(12, round(number * share))
