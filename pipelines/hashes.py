"""A benchmark's images and questions as a list of hashes, for the rule `contaminated`.

The list is a small Parquet file that holds no image and no text; a mixture names it under
`benchmarks:`.
"""

from pathlib import Path

from filters.decontamination import rules
from mixtures.config import hash_list_path
from pipelines.media import images
from pipelines.reading.hub import dataset_rows


def hashes(name: str, *, data: str, output: str = "") -> str:
    """The list of benchmark `name` is written; returns what was put in it.

    `data`: a VLMEvalKit TSV, a folder of images, or a dataset as `datasets` loads it: a hub id
    (`ORG/NAME`, `ORG/NAME:SPLIT`), or a folder of Parquet, Arrow or JSON files. `output`:
    `hashes/NAME.parquet` unless stated.

    Raises:
        FileNotFoundError: nothing at `data`.
        ValueError: rows without a question or image.
    """
    path = Path(output or hash_list_path(name))
    items = (
        rules.items_of(Path(data))
        if data.endswith(".tsv") or is_image_folder(Path(data))
        else rules.row_items(dataset_rows(data), where=data)
    )
    made = rules.hash_list(items, name=name, decode=images.decode, dhash=images.dhash)
    path.parent.mkdir(parents=True, exist_ok=True)
    counts = rules.write_list(made, path)
    found = ", ".join(f"{key.replace('_', ' ')} {count:,}" for key, count in counts.items())
    return f"{path}: {found}\nName it in a mixture: benchmarks: [{output or name}]"


def is_image_folder(path: Path) -> bool:
    """True of a folder without a table in it."""
    tables = (".parquet", ".arrow", ".json", ".csv")
    return path.is_dir() and not any(p.suffix in tables for p in path.rglob("*"))
