"""What no finished mixture references in `work`, listed and removed.

A build leaves a reference, `work/references/<fingerprint>.json`: its output and the folders it
read. It counts while the output still holds that mixture; folders that none names are free.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import fsspec

from pipelines.engine import tables

KINDS = ("samples", "verdicts", "tokens", "pairs", "facts", "unpublished")


@dataclass(frozen=True, kw_only=True)
class Unused:
    """A folder of `work` that no finished mixture references."""

    path: str
    bytes: int


def keep_referenced(work: str, *, output: str, fingerprint: str, files: Sequence[str]) -> None:
    """The folders of `files` are kept while `output` holds the mixture of that fingerprint."""
    folders = sorted({"/".join(path.split("/")[-3:-1]) for path in files})
    value = {"output": output, "fingerprint": fingerprint, "folders": folders}
    tables.write_json(tables.join(work, "references", f"{fingerprint}.json"), value)


def _holds(reference: dict[str, Any]) -> bool:
    path = tables.join(reference["output"], "recipe.json")
    return tables.exists(path) and tables.read_json(path)["fingerprint"] == reference["fingerprint"]


def unused_folders(work: str) -> list[Unused]:
    """Folders of `work` that no finished mixture references, with their bytes.

    Raises:
        FileNotFoundError: `work` is not there.
    """
    if not tables.exists(work):
        raise FileNotFoundError(f"work={work}: found nothing there, expected a build's cache.")
    names = tables.listing(tables.join(work, "references"))
    references = [tables.read_json(tables.join(work, "references", name)) for name in names]
    held = [reference for reference in references if _holds(reference)]
    kept = {folder for reference in held for folder in reference["folders"]}
    found = []
    fs, _ = fsspec.core.url_to_fs(work)
    for kind in KINDS:
        for name in tables.listing(tables.join(work, kind)):
            if f"{kind}/{name}" not in kept:
                path = tables.join(work, kind, name)
                found.append(Unused(path=path, bytes=int(fs.du(path))))
    return found


def clean(work: str, *, remove: bool) -> str:
    """What `unused_folders` found, as text; removed when `remove`."""
    found = unused_folders(work)
    lines = [f"{tables.human_bytes(each.bytes):>10}  {each.path}" for each in found]
    total = tables.human_bytes(sum(each.bytes for each in found))
    if remove:
        for each in found:
            tables.remove(each.path)
    verb = "removed" if remove else "no finished mixture references; remove=true removes it"
    return "\n".join([*lines, f"{total:>10}  {len(found)} folders {verb}"])
