"""From a component of a mixture to its parts: which files, which rows of them, without reading any.

    data: | MIRROR/ORG/NAME | hub --list--> Tree --globs of the source--> subsets --> Parts

* Parts of a subset are numbered over *all* of it, in order, whatever is selected: another `keep`
  reuses the parts that it shares with the last.
* `select` takes whole parts, in the order of a hash of (seed, source, subset, number), until they
  hold the rows asked for; the same parts from a mirror as from the hub. `Part.share` is the
  fraction of the subset's rows that was selected, so that the index can trim to the exact `keep`:
  of the rows read, `keep / share`.
* Where a single archive holds far more than is asked for and its annotations are large, every n-th
  block of them is read and no more.
* `Part.identity` is all that determines the subset's samples; where files lie is in `inputs` only.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pipelines.reading import annotations, hub
from pipelines.reading.annotations import BlockSelection
from pipelines.reading.files import (
    File,
    Tree,
    glob_regex,
    is_url,
    list_tree,
    local_file,
    matching_files,
)
from pipelines.reading.media_files import is_medium
from pipelines.reading.splitting import GROUPING, PART_BYTES, kind_of, media_of, split_files
from pipelines.sources.sample import Source, source_named

FRAMES = {"fps": 1.0, "max_frames": 64, "size": 512}
ENOUGH = 1.25
"""Of `max_samples`, how many rows are read, since filters will reject some."""


SPARE = 2
"""Where one archive has far more rows than are read, so many times the rows are looked for in its
annotations: they may lie unevenly."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some rows of a subset: one task of `ingest`. Picklable."""

    name: str
    """`cauldron/ai2d/00003`"""
    source: str
    subset: str
    component: str
    number: int
    """Its place among all parts of the subset."""
    rows: int | None
    """Rows in it; null where only reading would tell."""
    about_rows: int | None
    """The same, or an estimate from sizes."""
    num_bytes: int | None
    """Bytes read to make it, about; null: unknown."""
    share: float
    """Fraction of the subset's rows in the selected parts, the same on each; 1: all were."""
    identity: dict[str, Any]
    """What determines the subset's samples: JSON-able, free of places."""
    inputs: dict[str, Any]
    """Where to read: place, not identity."""


def list_parts(
    *,
    source: str,
    component: str = "",
    subsets: Iterable[str] = (),
    data: str | None = None,
    media: str | None = None,
    mirror: str | None = None,
    frames: Mapping[str, Any] | None = None,
    select: Mapping[str, Mapping[str, Any]] | None = None,
    placeholders: str = "places",
    seed: int = 0,
) -> list[Part]:
    """The parts of a component, subset by subset.

    `data` (a file, glob or folder, local or a URL) is read in place of the hub repository, as is
    MIRROR/ORG/NAME where `mirror` names a folder of checkouts. `subsets`: names (a mapping's keys);
    none: the source's own, or every one found. `select`: subset -> {keep, max_samples}.
    `placeholders`: `places` of media in the rows' texts, or `literal`.

    Raises:
        ValueError: unknown source or subset, files that are not of the source's layout.
        FileNotFoundError: data, media or mirror that is not there.
    """
    where = f"components.{component}" if component else f"source {source}"
    about = source_named(source, where=where)
    tree, chosen = locate_files(about, data=data, mirror=mirror, where=where)
    found = chosen or subsets_of(about, tree, list(subsets), where=where)
    if chosen:
        found = rename_subset(chosen, about, list(subsets), where=where)
    settings = {**FRAMES, **(frames or {})}
    media_tree = list_tree(media) if media else None
    if chosen and not media_tree and about.layout in ("json", "folder") and not tree.commit:
        tree = list_tree(tree.root)
    parts: list[Part] = []
    for subset, files in found.items():
        wanted = (select or {}).get(subset, {})
        other = media_tree
        if other is None and data is None:
            other = media_tree_of(about, tree, subset, files, mirror=mirror)
        whole = subset_parts(
            about, tree, subset, files, component=component, media=other, frames=settings
        )
        if placeholders == "literal":
            whole = [with_literal_placeholders(part) for part in whole]
        parts += with_annotations(select_parts(whole, seed=seed, **wanted))
    return parts


def with_literal_placeholders(part: Part) -> Part:
    """The part, in whose texts `<image>` and `<video>` are text."""
    return replace(
        part,
        identity={**part.identity, "placeholders": "literal"},
        inputs={**part.inputs, "literal": True},
    )


def locate_files(
    about: Source, *, data: str | None, mirror: str | None, where: str
) -> tuple[Tree, dict[str, list[File]]]:
    """(the tree, the files named outright under the subset's default name: of a file or glob)."""
    if data is not None:
        return locate_data(about, data, where=where)
    if not about.hub:
        raise ValueError(
            f"{where}: source {about.name!r} reads your files. Name them: data: FILE|GLOB|FOLDER"
        )
    if mirror is not None:
        folder = f"{mirror.rstrip('/')}/{about.hub}"
        if not is_url(folder) and not Path(folder).is_dir():
            raise FileNotFoundError(
                f"{where}: the mirror has no folder {folder}. Put a checkout of {about.hub} there, "
                "name another place with data: in the component, or leave out data=MIRROR"
            )
        return list_tree(folder), {}
    return list_tree(hub.hub_url(about.hub, about.revision)), {}


def media_tree_of(
    about: Source, tree: Tree, subset: str, files: Sequence[File], *, mirror: str | None
) -> Tree | None:
    """What another repository holds of the subset's media; null where none is known to, where they
    lie beside the annotations after all, and where the mirror lacks that repository.
    """
    if subset not in about.media_hub:
        return None
    beside = media_of(about, tree, subset, files, None).listed or ()
    if any(is_medium(file.name) for file in beside):
        return None
    repository, *globs = about.media_hub[subset]
    root = f"{mirror.rstrip('/')}/{repository}" if mirror else hub.hub_url(repository, "main")
    if mirror and not is_url(root) and not Path(root).is_dir():
        return None
    other = list_tree(root)
    wanted = [glob_regex(pattern) for pattern in globs]
    held = (file for file in other.files if any(glob.match(file.name) for glob in wanted))
    return replace(other, files=tuple(held))


def locate_data(about: Source, data: str, *, where: str) -> tuple[Tree, dict[str, list[File]]]:
    """The tree of `data:`, and its files where it is one file or a glob."""
    if re.search(r"[*?]", data):
        root, _, pattern = split_glob(data)
        tree = list_tree(root)
        files = [file for file in tree.files if glob_regex(pattern).match(file.name)]
        if not files:
            raise FileNotFoundError(f"{where}.data: no file matches {data}")
        return replace(tree, files=tuple(files)), {about.whole_name: files}
    if is_url(data):
        tree = list_tree(data)
        one = len(tree.files) == 1 and data.endswith(tree.files[0].name)
        return tree, {about.whole_name: list(tree.files)} if one else {}
    path = Path(data)
    if path.is_file():
        file = local_file(path, path.parent)
        return Tree(str(path.parent.absolute()), (file,)), {about.whole_name: [file]}
    if not path.is_dir():
        raise FileNotFoundError(f"{where}.data: {data} is neither a file, a folder nor a glob")
    return list_tree(data), {}


def split_glob(pattern: str) -> tuple[str, str, str]:
    """(the folder before the first wildcard, "/", the rest)."""
    fixed = re.split(r"[*?]", pattern, maxsplit=1)[0]
    folder, slash, _ = fixed.rpartition("/")
    return folder or ("/" if slash else "."), "/", pattern[len(folder) + len(slash) :]


def rename_subset(
    chosen: dict[str, list[File]], about: Source, names: list[str], *, where: str
) -> dict[str, list[File]]:
    """The files of a glob or file under the one subset that the mixture names, if it names one."""
    if len(names) > 1:
        raise ValueError(
            f"{where}: data: names files, which are one subset, but subsets are "
            f"{', '.join(names)}. Name a folder with a sub-folder for each, or use a component each"
        )
    return {name: chosen[about.whole_name] for name in (names or [about.whole_name])}


def subsets_of(about: Source, tree: Tree, names: list[str], *, where: str) -> dict[str, list[File]]:
    """Subset -> its annotation files, in order; raises ValueError where there are none."""
    if not names:
        names = [n for n in about.default if subset_files(about, tree, n)] or discover_subsets(
            about, tree
        )
    if not names:
        raise ValueError(
            f"{where}: no file of source {about.name!r} under {tree.root}; expected "
            f"{', '.join(about.files)} ({len(tree.files)} files there)"
        )
    found = {}
    for name in names:
        files = subset_files(about, tree, name)
        if not files:
            known = discover_subsets(about, tree) or sorted(about.subsets)
            close = difflib.get_close_matches(name, known, 1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Found: {', '.join(known[:60])}."
            raise ValueError(f"{where}: no subset {name!r} of {about.name} in {tree.root}. {hint}")
        found[name] = files
    return found


def subset_files(about: Source, tree: Tree, subset: str) -> list[File]:
    """The annotation files of one subset: of the first glob that matches any."""
    tail = next((key for key in about.places if key[0] == "/" and subset.endswith(key)), "")
    patterns = about.places.get(tail or subset, about.files)
    folder = subset.removesuffix(tail)
    for pattern in patterns:
        if "{subset}" not in pattern and pattern in about.files and subset != about.whole_name:
            continue
        exact = pattern.replace("{subset}", folder)
        files = [file for _, file in matching_files(tree.files, exact, split=about.split)]
        if files:
            return files
    return []


def discover_subsets(about: Source, tree: Tree) -> list[str]:
    """The names of every subset that the source's globs find; the whole one only if no other."""
    plain = {"data", about.whole_name}
    for pattern in about.files:
        pairs = matching_files(tree.files, pattern, split=about.split)
        names = sorted({subset for subset, _ in pairs} - plain - {""})
        if names:
            return names
        if pairs and subset_files(about, tree, about.whole_name):
            return [about.whole_name]
    return []


def subset_parts(
    about: Source,
    tree: Tree,
    subset: str,
    files: Sequence[File],
    *,
    component: str,
    media: Tree | None,
    frames: Mapping[str, Any],
) -> list[Part]:
    """Every part of one subset."""
    media_here = media_of(about, tree, subset, files, media)
    pieces = split_files(about, files, media_here)
    total = sum(rows_of(piece) or 0 for piece in pieces)
    identity = {
        "source": about.name,
        "version": about.version,
        "subset": subset,
        "files": {
            "count": len(files),
            "listing": listing_digest([file.identity for file in files]),
        },
        "parts": [GROUPING, PART_BYTES, about.rows_per_part],
    }
    if not annotations.is_small(files, about) and kind_of(files[0]) == "json":
        identity["blocks"] = [annotations.SCANNED, annotations.PROBE, annotations.BLOCK]
    if tree.commit:
        identity["revision"] = tree.commit
    if media_here.listed is not None:
        listing = listing_digest([file.identity for file in media_here.listed])
        identity["media"] = {"count": len(media_here.listed), "listing": listing}
        identity["frames"] = dict(frames)
    elif about.layout in ("tar", "video"):
        identity["frames"] = dict(frames)
    parts = []
    for number, piece in enumerate(pieces):
        num_bytes = piece["bytes"]
        if total and piece["inputs"]["kind"] in ("json", "block", "csv"):
            num_bytes += media_here.num_bytes * rows_of(piece) // total
        parts.append(
            Part(
                name=f"{about.name}/{subset}/{number:05d}",
                source=about.name,
                subset=subset,
                component=component,
                number=number,
                rows=piece["rows"],
                about_rows=rows_of(piece),
                num_bytes=num_bytes,
                share=1.0,
                identity=identity,
                inputs={**piece["inputs"], "media": media_here.spec, "frames": dict(frames)},
            )
        )
    return parts


def rows_of(piece: Mapping[str, Any]) -> Any:
    """How many rows a piece has, or about how many; null: unknown."""
    return piece.get("about_rows", piece["rows"])


def listing_digest(listing: object) -> str:
    """16 hex digits of a listing of files."""
    return blake2b(repr(listing).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def select_parts(
    parts: list[Part], *, seed: int, keep: float = 1.0, max_samples: int | None = None
) -> list[Part]:
    """The parts that hold about `keep` of the rows, and not many more than `max_samples`."""
    if keep >= 1 and max_samples is None:
        return parts
    counted = all(part.about_rows is not None for part in parts)
    # rows in no archive are looked for only when every archive is read
    whole = [part for part in parts if part.inputs["kind"] != "loose"] or parts
    sizes = [float((part.about_rows if counted else part.num_bytes) or 0) for part in whole]
    total = sum(sizes)
    need = keep * total
    if max_samples is not None and counted:
        need = min(need, ENOUGH * max_samples)
    taken, have = list[int](), 0.0
    for number in sorted(range(len(whole)), key=lambda n: part_hash(seed, whole[n])):
        if have >= need:
            break
        taken.append(number)
        have += sizes[number]
    if len(taken) == 1 and (step := int(have / (SPARE * max(need, 1)))) > 1:
        alone = whole[taken[0]]
        if alone.inputs["kind"] == "archive" and not alone.inputs["small"]:
            return [thin_archive_part(alone, step, share=have / step / total, seed=seed)]
    if len(taken) == len(whole):
        return parts
    return [replace(whole[n], share=have / total) for n in sorted(taken)]


def thin_archive_part(part: Part, step: int, *, share: float, seed: int) -> Part:
    """The part of an archive with the rows of every `step`-th block of its annotations alone."""
    phase = int.from_bytes(part_hash(seed, part), "big") % step
    return replace(
        part,
        share=share,
        about_rows=round((part.about_rows or 0) / step),
        identity={**part.identity, "every": [step, phase]},
        inputs={**part.inputs, "every": BlockSelection(step, phase)},
    )


def with_annotations(parts: list[Part]) -> list[Part]:
    """The same; the first says besides its own the bytes of annotations that all of them share."""
    if not parts or parts[0].inputs["kind"] != "archive" or parts[0].inputs["small"]:
        return parts
    inputs = parts[0].inputs
    size = sum(file.size for file in inputs["files"]) // inputs["every"].step
    return [replace(parts[0], num_bytes=(parts[0].num_bytes or 0) + size), *parts[1:]]


def part_hash(seed: int, part: Part) -> bytes:
    """The place of a part in the order in which parts are taken."""
    return blake2b(f"{seed}/{part.name}".encode(), digest_size=8).digest()
