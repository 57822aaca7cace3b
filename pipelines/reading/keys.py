"""What a row is called where annotations speak of it: the file that it is of, and its key there."""

import glob
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pyarrow as pa

from mixtures.annotated import KEY, SAMPLE_ID, Annotations
from pipelines.sources import cells
from pipelines.sources.paths import value_at
from pipelines.sources.sample import Defect, Source
from tokenization.schema import SAMPLE

ENDINGS = re.compile(
    r"(\.(parquet|arrow|jsonl?|ndjson|csv|tsv|tar|tgz|zip|txt|md))?(\.(gz|zst|bz2|xz))?\Z",
    re.IGNORECASE,
)
"""What a file's name ends with that is not the name of the shard."""
KEYED = pa.schema([*SAMPLE, ("shard", pa.string()), ("key", pa.string())])
"""SAMPLE of a component with annotations: the file that a row is of, and what names it there."""


@lru_cache(maxsize=1024)
def keyed(about: Source, key: str) -> Source:
    """The source, which reads the column that names a sample besides; the same object each time."""
    if about.layout == "tar":
        return about
    return replace(about, columns=(*about.columns, glob.escape(key.partition(".")[0])))


def column_of(found: Annotations) -> str:
    """The column that is kept beside samples to join by; empty where there is nothing to join, or
    by their ids alone.
    """
    return found.key if found.files and found.key != SAMPLE_ID else ""


def check_key(about: Source, key: str, *, where: str) -> None:
    """Raises ValueError where samples of the source have no such key."""
    tar = about.layout == "tar"
    if tar and key != KEY:
        raise ValueError(
            f"{where}.annotations.key is {key!r}; the samples of {about.name} are members of tars, "
            f"whose key is {KEY}. Leave it out, and name the column of the files with file_key."
        )
    if not tar and key == KEY:
        raise ValueError(
            f"{where}.annotations.key is missing: only tars have a {KEY}\n"
            "way out: name the column that says which sample a row is: annotations: {key: id}"
        )


def shard_of(name: str) -> str:
    """`000000` of `ai2d/000000.tar`."""
    return ENDINGS.sub("", name.rpartition("/")[2])


def files_of_part(inputs: Mapping[str, Any]) -> list[str]:
    """The URLs of the files whose rows a part holds, as labels number them."""
    if "reads" in inputs:
        return [read[0] for read in inputs["reads"]]
    if "url" in inputs:
        return [inputs["url"]]
    if inputs["kind"] == "tar":
        return [inputs["archive"].files[0].url]
    if inputs["kind"] == "block":
        return [inputs["files"][inputs["file"]].url]
    return [file.url for file in inputs["files"]]


def shards_of(inputs: Mapping[str, Any]) -> list[str]:
    """The shards that a part's rows are of."""
    return list(dict.fromkeys(map(shard_of, files_of_part(inputs))))


def plain_key(key: str) -> str:
    """The key without the `./` that `tar` writes in front of names."""
    return key.removeprefix("./")


def key_of(row: Mapping[str, Any], path: str) -> str | None:
    """The key in a row as text, whole numbers by their digits; null where there is none."""
    try:
        found = row[path] if path in row else value_at(row, path)
        if found is None or isinstance(found, list | dict):
            return None
        return plain_key(cells.written(found, path))
    except Defect:
        return None
