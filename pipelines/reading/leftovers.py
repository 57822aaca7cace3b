"""Of a folder that a component names, the files that nothing reads: told, never passed over.

A repository of the hub holds much that is not asked for; a folder of one's own is meant whole.

| not told                                                | since                                |
|---------------------------------------------------------|--------------------------------------|
| annotation files that are read; media that rows name    | they are in                          |
| images and videos beside JSON or CSV that no row names | rows choose among their media        |
| README, LICENSE, YAML, code, logs, checksums            | they never hold rows                 |
| subsets besides those that the mixture names            | it says so                           |
"""

import re
from collections.abc import Collection, Sequence

from pipelines.reading.files import NOT_ROWS, File, Tree, belongs_to_split
from pipelines.reading.media_files import is_medium
from pipelines.reading.walk import Unread
from pipelines.sources.sample import Source

NEVER_ROWS = re.compile(
    r"((.*/)?(readme|licen[cs]e|notice|citation|changelog|makefile|dockerfile)(\.\w+)?"
    r"|.*\.(ya?ml|py|pyc|sh|ipynb|log|lock|toml|cfg|ini|html?|css|js|tmp|bak|sha256|sha1|md5|sig"
    r"|rst|bib|tex|db))\Z",
    re.IGNORECASE,
)
"""What lies beside data and is none."""
SHOWN = 5
"""Names that a sentence gives."""
TEXTS = re.compile(r".*\.(md|txt)\Z", re.IGNORECASE)
"""What is read as documents, and is a note beside any other data."""


def leftovers(
    about: Source, tree: Tree, read: Collection[str], names: Sequence[str]
) -> list[Unread]:
    """What of the folder is not among the URLs that are read, and why, by name; `names` are the
    subsets that the mixture states.
    """
    told = [
        Unread(file.name, why)
        for file in tree.files
        if file.url not in read and (why := why_not(file, about, names))
    ]
    return sorted([*tree.unread, *told], key=lambda one: one.name)


def why_not(file: File, about: Source, names: Sequence[str]) -> str:
    """Why nothing reads the file; empty where nobody would expect it to be read."""
    if NOT_ROWS.search(file.name) or NEVER_ROWS.match(file.name):
        return ""
    if is_medium(file.name) and about.layout in ("json", "folder"):
        if about.layout == "folder":
            return "neither named by metadata nor in the folder of a class"
        return "" if is_medium(file.name, archives=False) else "no row names anything in it"
    if about.layout != "text" and TEXTS.match(file.name):
        return ""
    if not belongs_to_split(file.name, about.split):
        return f"of another split than {about.split}"
    if names:
        return ""  # what other subsets hold is not asked for
    endings = dict.fromkeys(pattern.rpartition("/")[2] for pattern in about.files)
    return f"{about.name} takes {', '.join(endings)}, the first of them that is there, at one level"


def sentences(unread: Sequence[Unread]) -> list[str]:
    """A sentence for every reason: how many, the first few by name, why."""
    by_reason: dict[str, list[str]] = {}
    for one in unread:
        by_reason.setdefault(one.why, []).append(one.name)
    return [
        f"not read: {', '.join(names[:SHOWN])}"
        f"{f' and {len(names) - SHOWN:,} more' if len(names) > SHOWN else ''} ({why})"
        for why, names in by_reason.items()
    ]
