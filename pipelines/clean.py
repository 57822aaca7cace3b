"""What neither a finished mixture nor an unfinished build needs in `work`, listed and removed.

| a build leaves in `work`      | which says                      | and counts                     |
|-------------------------------|---------------------------------|--------------------------------|
| references/RECIPE-OUTPUT.json | its output, the folders it read | while that recipe stands there |
| builds/RECIPE-OUTPUT.json     | the same, and when it began     | until it ends; after a kill    |
|                               |                                 | until `unfinished=true`        |

A folder holds every part of a subset that was read, used or not: what a mixture read ahead stays
for a changed ratio as long as the mixture stands. Folders that none names are free. Where an output
cannot be looked at (another machine's disk, a store that does not answer), what it needs is kept.
"""

import fcntl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import fsspec

from pipelines.engine import ownership, tables
from tokenization.terminal import without_credentials


@dataclass(frozen=True, kw_only=True)
class Unused:
    """A folder of `work` that nothing needs."""

    path: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Need:
    """What an output needs of `work`, by a file that says so."""

    path: str
    output: str
    fingerprint: str
    folders: frozenset[str]
    begun: float
    """Of an unfinished build, in s since 1970; 0: it is finished."""

    @property
    def counts(self) -> bool:
        """Whether its output still holds that mixture, as far as can be seen."""
        return bool(self.begun) or _may_hold(self.output, self.fingerprint)

    @property
    def runs(self) -> bool:
        """Whether its build is running on this machine or on one that shares its locks."""
        if not self.begun or tables.is_remote(self.path):
            return False
        try:
            with Path(self.path).open("r+b") as file:  # NFS locks only what may be written
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False


def whole(place: str) -> str:
    """The place from anywhere: a local path is absolute, a URL without its credentials."""
    if tables.is_remote(place):
        return without_credentials(place)
    return str(Path(place.removeprefix("file://").removeprefix("local://")).absolute())


def _written(output: str, fingerprint: str, files: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """(The name of the file that says so, what it says)."""
    folders = sorted({"/".join(path.split("/")[-3:-1]) for path in files})
    value = {"output": whole(output), "fingerprint": fingerprint, "folders": folders}
    return f"{fingerprint}-{sha256(whole(output).encode()).hexdigest()[:12]}.json", value


def keep_referenced(work: str, *, output: str, fingerprint: str, files: Sequence[str]) -> None:
    """The folders of `files` are kept while `output` holds the mixture of that fingerprint."""
    name, value = _written(output, fingerprint, files)
    tables.write_json(tables.join(work, "references", name), value)


@contextmanager
def needed(work: str, *, output: str, fingerprint: str, files: Sequence[str]) -> Iterator[None]:
    """The folders of `files` are kept while the block runs, and after it where it does not end."""
    name, value = _written(output, fingerprint, files)
    path = tables.join(work, "builds", name)
    tables.write_json(path, {**value, "begun": time.time()})
    if tables.is_remote(path):
        yield
    else:
        with Path(path).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            yield
    tables.remove(path)


def needs(work: str) -> list[Need]:
    """What outputs need of `work`, as files in it say."""
    found = []
    for kind in ("references", "builds"):
        for name in tables.listing(tables.join(work, kind)):
            path = tables.join(work, kind, name)
            said = tables.json_if_there(path) if name.endswith(".json") else None
            if said is not None:
                found.append(
                    Need(
                        path=path,
                        output=said["output"],
                        fingerprint=said["fingerprint"],
                        folders=frozenset(said["folders"]),
                        begun=float(said.get("begun", 0)),
                    )
                )
    return found


def _may_hold(output: str, fingerprint: str) -> bool:
    """False only where it can be seen that `output` holds another mixture, or none."""
    try:
        found = tables.json_if_there(tables.join(output, "recipe.json"))
        if found is None and not tables.is_remote(output):
            return not Path(output).parent.is_dir()  # a disk that is not there now
    except Exception:  # a store that does not answer, a recipe that is damaged
        return True
    return found is not None and found.get("fingerprint") == fingerprint


def unused_folders(work: str, *, unfinished: bool) -> list[Unused]:
    """Folders of `work` that nothing needs, with their bytes; those of builds that did not end
    count as needed unless `unfinished`.

    Raises:
        FileNotFoundError: `work` is not there. ValueError: it is no cache of ours.
    """
    if not tables.exists(work):
        raise FileNotFoundError(f"work={work}: found nothing there, expected a build's cache.")
    ownership.claim_work(work)
    counting = [need for need in needs(work) if need.counts]
    held = [need for need in counting if not need.begun or need.runs or not unfinished]
    kept = {folder for need in held for folder in need.folders}
    found = []
    fs, _ = fsspec.core.url_to_fs(work)
    for kind in ownership.KINDS:
        if kind == "pairs" and any(need.begun for need in held):
            continue  # which of them a build will compare is known when it does
        for name in tables.listing(tables.join(work, kind)):
            ours = kind == "unpublished" or ownership.FINGERPRINT.fullmatch(name)
            if ours and f"{kind}/{name}" not in kept:
                path = tables.join(work, kind, name)
                found.append(Unused(path=path, bytes=int(fs.du(path))))
    return found


def clean(work: str, *, remove: bool, unfinished: bool = False) -> str:
    """What `unused_folders` found, as text; removed when `remove`."""
    found = unused_folders(work, unfinished=unfinished)
    lines = [f"{tables.human_bytes(each.bytes):>10}  {each.path}" for each in found]
    total = tables.human_bytes(sum(each.bytes for each in found))
    if remove:
        for each in found:
            # A build may have begun, or another mixture been finished, since they were listed.
            if each.path in {now.path for now in unused_folders(work, unfinished=unfinished)}:
                tables.remove(each.path)
    verb = "removed" if remove else "no finished mixture references; remove=true removes it"
    lines.append(f"{total:>10}  {len(found)} folders {verb}")
    for need in needs(work):
        if need.begun and need.runs:
            lines.append(f"A build of {need.output} is running; what it needs is kept.")
        elif need.begun and unfinished and remove:
            tables.remove(need.path)
        elif need.begun:
            hours = (time.time() - need.begun) / 3600
            lines.append(
                f"A build of {need.output}, begun {hours:,.1f} h ago, has not ended; what it made "
                "is kept: the same build goes on with it. unfinished=true gives it up."
            )
    return "\n".join(lines)
