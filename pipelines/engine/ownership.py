"""Whose folder it is: nothing is written into, or removed from, what this program did not make.

| folder   | ours where it is empty, or holds                                             |
|----------|------------------------------------------------------------------------------|
| `output` | the recipe.json of a mixture, or the mark of a build that was cut short       |
| `work`   | CACHEDIR.TAG with our line, or only what versions before the tag put there    |

Of a folder that is ours only files of our own names are replaced or removed.
"""

import re
from typing import Any

from pipelines.engine import tables
from tokenization.terminal import sentence

MARK = ".building.json"
"""In an output whose build has not ended: the fingerprint that its shards are of."""
SHARD = re.compile(r"(train|val)-\d{5,}\.arrow")
PASSING = re.compile(r"\.lock|\..+\.tmp")
"""Names that a build which was killed may leave: its lock, drafts."""
TAG = "CACHEDIR.TAG"
SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55"
"""Of a folder that backups may leave out: https://bford.info/cachedir/"""
LINE = "# The cache of smolvlm-pipelines: python -m pipelines clean work=THIS_FOLDER"
KINDS = ("samples", "verdicts", "tokens", "pairs", "facts", "unpublished")
"""Folders of `work`, each of folders named by 16 hex digits."""
BESIDE = ("references", "builds", "probes")
FINGERPRINT = re.compile(r"[0-9a-f]{16}")
SHOWN = 6
"""Names of a folder that a message lists."""
GENERATOR = '<meta name="generator" content="smolvlm-pipelines">'
"""In the head of every page of ours."""


def mark_of(output: str) -> dict[str, Any] | None:
    """What the build that was cut short left in `output`, or None."""
    found = tables.json_if_there(tables.join(output, MARK))
    return found if isinstance(found, dict) else None


def recipe_of(output: str) -> dict[str, Any] | None:
    """The recipe of the mixture that stands finished in `output`, or None.

    Raises:
        ValueError: its recipe.json is damaged, or of something else.
    """
    path = tables.join(output, "recipe.json")
    try:
        found = tables.json_if_there(path)
    except tables.DamagedError as error:
        raise ValueError(
            f"{sentence(str(error))} "
            "A mixture whose recipe is lost cannot be told from another's files: put the "
            "recipe back from a copy, or name another folder with output=DIR."
        ) from error
    if found is None:
        return None
    if not isinstance(found, dict) or not {"name", "fingerprint", "mixture"} <= set(found):
        raise ValueError(
            f"{path} is no recipe of a mixture, so {output} is not ours to write to. "
            "Name another folder with output=DIR."
        )
    return found


def claim_output(output: str) -> None:
    """`output` is empty or holds a mixture of ours; else ValueError says what is in it."""
    names = [name for name in tables.listing(output) if not PASSING.fullmatch(name)]
    if names and mark_of(output) is None and recipe_of(output) is None:
        raise ValueError(
            f"output={output} is not empty and holds no mixture, but {listed(names)}. Nothing was "
            "written. Name an empty or a new folder with output=DIR."
        )


def claim_work(work: str) -> None:
    """`work` is empty or a cache of ours, and says so; else ValueError says what is in it."""
    names = [name for name in tables.listing(work) if not PASSING.fullmatch(name)]
    path = tables.join(work, TAG)
    if TAG in names:
        if LINE.encode() in tables.read_bytes(path):
            return
        raise ValueError(
            f"work={work} is the cache of another program ({TAG}). Name another with work=DIR."
        )
    strange = [name for name in names if not _is_from_before(work, name)]
    if strange:
        raise ValueError(
            f"work={work} is not empty and no cache of ours: it holds {listed(strange)}. Nothing "
            "was written. Name an empty or a new folder with work=DIR."
        )
    tables.write_text(path, f"{SIGNATURE}\n{LINE}\n")


def _is_from_before(work: str, name: str) -> bool:
    """Whether versions that wrote no tag made the folder `name` of `work`."""
    if name in (*BESIDE, "unpublished"):
        return True
    inside = tables.listing(tables.join(work, name)) if name in KINDS else []
    return bool(inside) and all(map(FINGERPRINT.fullmatch, inside))


def claim_page(path: str) -> None:
    """`path` is free or an earlier page of ours, and in no finished mixture; else ValueError."""
    folder = path.rpartition("/")[0] or "."
    if recipe_of(folder) is not None:
        raise ValueError(
            f"output={path} lies in a finished mixture, which `push` publishes, and the page may "
            "show rejected samples. Name a file elsewhere."
        )
    if tables.exists(path) and GENERATOR.encode() not in tables.read_bytes(path)[:4096]:
        raise ValueError(f"output={path} is there and is no page of ours. Name another file.")


def listed(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def clear(output: str, fingerprint: str) -> None:
    """`output` holds nothing of another recipe; shards of this one, from a run cut short, stay.

    Only what we name is removed; the mark stands before the first of it goes.
    """
    mark = {"fingerprint": fingerprint}
    if mark_of(output) == mark:
        return
    found = recipe_of(output)
    if found is not None and found["fingerprint"] == fingerprint:
        return  # another build of the same, on a store without locks, has just finished
    tables.write_json(tables.join(output, MARK), {"clearing": True})
    tables.remove(tables.join(output, "recipe.json"))
    shards = [f"shards/{name}" for name in tables.listing(tables.join(output, "shards"))]
    old = [name for name in (found or {}).get("files", {}) if name.startswith("tokenizer/")]
    for name in [s for s in shards if SHARD.fullmatch(s.removeprefix("shards/"))] + old:
        if ".." not in name.split("/"):
            tables.remove(tables.join(output, name))
    tables.write_json(tables.join(output, MARK), mark)
