"""A benchmark's items as a person looks at them, beside its hash list and apart from it.

    NAME.parquet        hashes and item numbers: may be published
    NAME.items.parquet  ITEMS: what each asks, its answer, small copies of its images; stays here

A file of items names its list by the SHA-256 of it, so that no sample is ever shown beside an item
of another list; the list is the same with and without it.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from filters.decontamination.benchmark_items import Item

VERSION = "1"
"""Of files of items."""
IMAGES = 4
"""Of an item that are kept, the first ones."""
SIDE = 192
"""px, the longer side of a copy."""
ROWS = 256
"""Of a row group: a file is read a group at a time."""
ITEMS = pa.schema(
    [
        ("item", pa.string()),
        ("question", pa.string()),
        ("options", pa.list_(pa.string())),
        ("answer", pa.string()),
        ("num_images", pa.int32()),
        ("images", pa.list_(pa.binary())),  # WebP, at most IMAGES
        ("same_images_as", pa.string()),  # another item, or ""
    ]
)


@dataclass(frozen=True, kw_only=True)
class ShownItem:
    """One item of a benchmark, to be looked at."""

    question: str
    options: tuple[str, ...]
    answer: str
    num_images: int
    images: tuple[bytes, ...]


def items_path(list_path: str) -> str:
    """Where the items of the list at `list_path` lie."""
    return f"{list_path.removesuffix('.parquet')}.items.parquet"


def kept(
    items: Iterable[Item], rows: list[dict[str, Any]], *, decode: Callable[[bytes], Image.Image]
) -> Iterator[Item]:
    """The items as they come; `rows` gets a line of ITEMS for each.

    Raises ValueError, naming the item, where `decode` does.
    """
    for item in items:
        try:
            copies = [small(decode(data)) for data in item.images]
        except ValueError as error:
            raise ValueError(f"item {item.id}: {error}") from error
        rows.append(
            {
                "item": item.id,
                "question": item.question,
                "options": list(item.options),
                "answer": item.answer,
                "num_images": len(item.images),
                "images": copies[:IMAGES],
                "same_images_as": item.same_images_as,
            }
        )
        yield item


def small(image: Image.Image) -> bytes:
    """A copy of the image as WebP."""
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.convert("RGB").save(file, "WEBP", quality=60)
    return file.getvalue()


def write_items(rows: Sequence[dict[str, Any]], list_path: str, *, name: str) -> str:
    """The items of the list at `list_path` lie beside it; returns where."""
    about = {"benchmark_items": VERSION, "name": name, "list": _digest(list_path)}
    table = pa.Table.from_pylist(list(rows), schema=ITEMS.with_metadata(about))
    pq.write_table(table, items_path(list_path), compression="zstd", row_group_size=ROWS)
    return items_path(list_path)


def is_items(path: str) -> bool:
    """Whether a file of items lies at `path`."""
    try:
        return b"benchmark_items" in (pq.read_schema(path).metadata or {})
    except (pa.ArrowInvalid, OSError):
        return False


def read_items(list_path: str, wanted: Iterable[str]) -> tuple[dict[str, ShownItem], str]:
    """(Those of `wanted` that are known of the list at `list_path`; why nothing is, or "")."""
    path = items_path(list_path)
    rows: dict[str, dict[str, Any]] = {}
    try:
        with fsspec.open(path, "rb") as file:
            parquet = pq.ParquetFile(file)
            about = parquet.schema_arrow.metadata or {}
            if about.get(b"benchmark_items", b"").decode() != VERSION:
                return {}, f"{path} is no file of items of this version"
            if about[b"list"].decode() != _digest(list_path):
                return {}, f"{path} is of another list than {list_path}"
            missing = set(wanted)
            while missing:  # a second time for items whose images are another's
                rows |= _rows(parquet, missing)
                others = {row["same_images_as"] for row in rows.values()} - {""}
                missing = others - missing - rows.keys()
    except FileNotFoundError:
        return {}, f"no {path}: `python -m pipelines hashes` writes it beside a list that it makes"
    except (pa.ArrowInvalid, OSError) as error:
        return {}, f"{path} cannot be read ({error})"
    found = {}
    for item in set(wanted) & rows.keys():
        row = rows[item]
        pictured = rows.get(row["same_images_as"], row)
        found[item] = ShownItem(
            question=row["question"],
            options=tuple(row["options"]),
            answer=row["answer"],
            num_images=pictured["num_images"],
            images=tuple(pictured["images"]),
        )
    return found, ""


def _rows(parquet: pq.ParquetFile, wanted: set[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for group in range(parquet.num_row_groups):
        names = parquet.read_row_group(group, columns=["item"])["item"].to_pylist()
        here = [n for n, name in enumerate(names) if name in wanted]
        if here:
            lines = parquet.read_row_group(group).take(here).to_pylist()
            found |= {line["item"]: line for line in lines}
    return found


def _digest(path: str) -> str:
    with fsspec.open(path, "rb") as file:
        return sha256(file.read()).hexdigest()
