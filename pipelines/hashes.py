"""A benchmark's images and questions as a list of hashes, for the rule `contaminated`.

The list is a small Parquet file that holds no image and no text; a mixture names it under
`benchmarks:`. What its items ask lies in a file beside it, to be seen beside samples that match.
"""

import hashlib
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from PIL import Image

from filters.decontamination import rules, shown_items
from mixtures.benchmark_sets import SETS, Benchmark, list_path
from mixtures.config import hash_list_path
from mixtures.names import check_name
from pipelines.media import images
from pipelines.reading.hub import dataset_rows
from pipelines.sources.sample import Defect


def hashes(name: str, *, data: str, output: str = "") -> str:
    """The list of benchmark `name` and, beside it, its items are written; returns what they hold.

    `data`: a VLMEvalKit TSV, a folder of images, or a dataset as `datasets` loads it: a hub id
    (`ORG/NAME`, `ORG/NAME:SPLIT`), or a folder of Parquet, Arrow or JSON files. `output`:
    `hashes/NAME.parquet` unless stated.

    Raises:
        FileNotFoundError: nothing at `data`.
        ValueError: rows without a question or image, or an image that does not decode.
    """
    check_name(name, key="NAME", where="hashes")
    path = Path(output or hash_list_path(name))
    if path.exists():
        try:
            rules.read_list(str(path))
        except ValueError as error:
            raise ValueError(
                f"output={path} is there and is no hash list of ours. Name another file."
            ) from error
    beside = shown_items.items_path(str(path))
    if Path(beside).exists() and not shown_items.is_items(beside):
        raise ValueError(f"{beside} is there and holds no items of ours. Name another output.")
    items = (
        rules.items_of(Path(data))
        if data.endswith(".tsv") or is_image_folder(Path(data))
        else rules.row_items(dataset_rows(data), where=data)
    )
    rows: list[dict[str, Any]] = []

    def decode(encoded: bytes) -> Image.Image:
        try:
            return images.decode(encoded)
        except Defect as error:
            raise ValueError(
                f"{error} ({data})\nway out: mend the file, or take the item out of it: what is "
                "not hashed is not found."
            ) from error

    kept = shown_items.kept(items, rows, decode=decode)
    made = rules.hash_list(kept, name=name, decode=images.decode, dhash=images.dhash)
    path.parent.mkdir(parents=True, exist_ok=True)
    counts = rules.write_list(made, path)
    shown_items.write_items(rows, str(path), name=name)
    found = ", ".join(f"{key.replace('_', ' ')} {count:,}" for key, count in counts.items())
    return (
        f"{path}: {found}\n{beside}: what they ask, to be seen beside samples that match; "
        f"keep it here\nName it in a mixture: benchmarks: [{output or name}]"
    )


def hash_set(name: str, *, data: str = "") -> str:
    """The lists of every benchmark of the set are written; returns a line for each.

    `data`: a folder, or the address of one, with BENCHMARK.tsv files; empty: where VLMEvalKit's
    table says. A list that is there is kept. Raises ValueError, after all others are made, naming
    those that could not be.
    """
    lines, failed = [], []
    for benchmark, about in SETS[name].items():
        path = list_path(name, benchmark)
        if Path(path).is_file():
            known = shown_items.is_items(shown_items.items_path(path))
            without = "" if known else ", without its items: remove it to make both"
            lines.append(f"{path}: there already{without}")
            continue
        try:
            lines.append(made_list(name, benchmark, about, data).partition("\n")[0])
        except (OSError, ValueError) as error:
            failed.append(f"{benchmark}: {error}")
    if failed:
        raise ValueError(
            "\n".join([*lines, *failed])
            + f"\n{len(failed)} of {len(SETS[name])} lists could not be made. Try again, or put "
            f"the files into a folder: python -m pipelines hashes {name} data=FOLDER"
        )
    return "\n".join([*lines, f"Name them in a mixture: benchmarks: [{name}]"])


def made_list(name: str, benchmark: str, about: Benchmark, data: str) -> str:
    """The list of one benchmark of a set is written; as of `hashes`."""
    output = list_path(name, benchmark)
    if not data and about.url.startswith("hub:"):
        return hashes(benchmark, data=about.url.removeprefix("hub:"), output=output)
    place = f"{data.rstrip('/')}/{benchmark}.tsv" if data else about.url
    if "://" not in place:
        return hashes(benchmark, data=place, output=output)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"{benchmark}.tsv")
        digest = hashlib.md5(usedforsecurity=False)
        with urllib.request.urlopen(place, timeout=60) as stream, file.open("wb") as out:
            while piece := stream.read(1 << 20):
                digest.update(piece)
                out.write(piece)
        if not data and about.md5 and digest.hexdigest() != about.md5:
            raise ValueError(
                f"{place} has the MD5 {digest.hexdigest()}, VLMEvalKit's table says {about.md5}. "
                "It came broken, or is another version"
            )
        return hashes(benchmark, data=str(file), output=output)


def is_image_folder(path: Path) -> bool:
    """True of a folder without a table in it."""
    tables = (".parquet", ".arrow", ".json", ".csv")
    return path.is_dir() and not any(p.suffix in tables for p in path.rglob("*"))
