"""Whether what is read is what was written: shards by their recipe, checkpoints by their own list.

| what       | compared with                         | when                                        |
|------------|---------------------------------------|---------------------------------------------|
| a shard    | SHA-256 in the mixture's recipe.json  | once on a machine, before its first row     |
| checkpoint | SHA-256 in its trainer/files.json     | when a run goes on from it                  |

That a file was compared is remembered by its place, size and time, in the user's cache folder.
"""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

CHUNK = 8 << 20
"""Bytes hashed at a time."""
LIST = Path("trainer", "files.json")
CHANGING = (LIST, Path("README.md"), Path("trainer", "state.json"))
"""Files of a checkpoint that are not in its list: itself, and what is measured later."""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def cache_folder() -> Path:
    """The user's own cache folder: nobody else may write to it."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root, "smolvlm-pipelines")


def refuse_other_shard(path: Path, name: str, recipe: dict[str, Any]) -> None:
    """Raises ValueError where the shard is not the one that the recipe names; an early recipe names
    none.
    """
    said = recipe.get("files", {}).get(f"shards/{name}", {}).get("sha256")
    if said is None:
        return
    about = path.stat()
    key = f"{path.resolve()} {about.st_ino} {about.st_size} {about.st_mtime_ns} {said}"
    known = cache_folder() / "compared" / hashlib.sha256(key.encode()).hexdigest()[:32]
    with suppress(OSError):
        if known.is_file():
            return
    found = sha256_of(path)
    if found != said:
        raise ValueError(
            f"{path}: its SHA-256 is {found}, but recipe.json says {said}: it has changed since it "
            "was built, and nothing is trained on it.\nway out: `python -m pipelines check DIR` "
            "says what else has; remove the shard and build the mixture again, or fetch it again."
        )
    with suppress(OSError):  # a home that is full or read-only costs another look, no more
        known.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        known.touch()


def write_list(checkpoint: Path) -> None:
    """The checkpoint holds SHA-256 of each of its files, in trainer/files.json."""
    names = sorted(p.relative_to(checkpoint) for p in checkpoint.rglob("*") if p.is_file())
    found = {str(n): sha256_of(checkpoint / n) for n in names if n not in CHANGING}
    (checkpoint / LIST).write_text(json.dumps(found, indent=1) + "\n")


def files_of(checkpoint: Path) -> list[Path]:
    """The checkpoint's own files, without what was laid beside them later (`evaluations/`)."""
    said = json.loads((checkpoint / LIST).read_text()) if (checkpoint / LIST).is_file() else {}
    own = [Path(name) for name in said] or [
        path.relative_to(checkpoint)
        for path in checkpoint.rglob("*")
        if path.is_file()
        and not {"evaluations", "scores"} & set(path.relative_to(checkpoint).parts)
    ]
    return sorted({*own, *(name for name in CHANGING if (checkpoint / name).is_file())})


def damage(checkpoint: Path) -> str:
    """What is wrong with the files of a checkpoint of ours; nothing where it is whole."""
    for name in ("config.json", "trainer/state.json", "trainer/config.yaml"):
        if not (checkpoint / name).is_file():
            return f"{name} is missing"
    for name in ("config.json", "trainer/state.json"):
        try:
            json.loads((checkpoint / name).read_text())
        except ValueError:
            return f"{name} is no JSON"
    try:
        said = json.loads((checkpoint / LIST).read_text())
    except FileNotFoundError:
        said = {}  # of a version that wrote no list
    except ValueError:
        return f"{LIST} is no JSON"
    for name, digest in said.items():
        if not (checkpoint / name).is_file():
            return f"{name} is missing"
        if sha256_of(checkpoint / name) != digest:
            return f"{name} is not as it was written (SHA-256)"
    if not any(checkpoint.glob("*.safetensors")):
        return "it has no *.safetensors"
    return ""
