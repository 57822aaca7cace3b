"""From a component of a mixture to its parts: which files, which rows of them, without reading any.

    data: | MIRROR/ORG/NAME | hub --list--> Tree --globs of the source--> subsets --> Parts

* Parts of a subset are numbered over *all* of it, in order, whatever is selected: another `keep`
  reuses the parts that it shares with the last.
* `select` takes whole parts, in the order of a hash of (seed, source, subset, number), until they
  hold the rows asked for; the same parts from a mirror as from the hub. `Part.share` is the
  fraction of the subset's rows that was selected, so that the index can trim to the exact `keep`:
  of the rows read, `keep / share`.
* `Part.identity` is all that determines the subset's samples; where files lie is in `inputs` only.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.sources import repository, rows
from pipelines.sources.files import File, Tree, is_url, list_tree, local_file, matching, translate
from pipelines.sources.sample import SOURCES, Source

PART_BYTES = 128 << 20
"""Bytes of a part, about: seconds of work, and small beside a worker's memory."""
GROUPING = 1
"""Bumped when the same files would be cut into other parts."""
FRAMES = {"fps": 1.0, "max_frames": 64, "size": 512}
ENOUGH = 1.25
"""Of `max_samples`, how many rows are read, since filters will reject some."""


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
    num_bytes: int | None
    """Bytes read to make it, about; null: unknown."""
    share: float
    """Fraction of the subset's rows in the selected parts, the same on each; 1: all were."""
    identity: dict[str, Any]
    """What determines the subset's samples: JSON-able, free of places."""
    inputs: dict[str, Any]
    """Where to read: place, not identity."""


def source_named(name: str, *, where: str) -> Source:
    """The registered source; raises ValueError with a hint for an unknown one."""
    if name not in SOURCES:
        close = difflib.get_close_matches(name, SOURCES, 1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(sorted(SOURCES))}."
        raise ValueError(f"{where}: unknown source {name!r}. {hint}")
    return SOURCES[name]


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
    seed: int = 0,
) -> list[Part]:
    """The parts of a component, subset by subset.

    `data` (a file, glob or folder, local or a URL) is read in place of the hub repository, as is
    MIRROR/ORG/NAME where `mirror` names a folder of checkouts. `subsets`: names (a mapping's keys);
    none: the source's own, or every one found. `select`: subset -> {keep, max_samples}.

    Raises:
        ValueError: unknown source or subset, files that are not of the source's layout.
        FileNotFoundError: data, media or mirror that is not there.
    """
    where = f"components.{component}" if component else f"source {source}"
    about = source_named(source, where=where)
    tree, chosen = located(about, data=data, mirror=mirror, where=where)
    found = chosen or subsets_of(about, tree, list(subsets), where=where)
    if chosen:
        found = renamed(chosen, about, list(subsets), where=where)
    settings = {**FRAMES, **(frames or {})}
    media_tree = list_tree(media) if media else None
    parts: list[Part] = []
    for subset, files in found.items():
        wanted = (select or {}).get(subset, {})
        whole = subset_parts(
            about, tree, subset, files, component=component, media=media_tree, frames=settings
        )
        parts += selected(whole, seed=seed, **wanted)
    return parts


def located(
    about: Source, *, data: str | None, mirror: str | None, where: str
) -> tuple[Tree, dict[str, list[File]]]:
    """(the tree, the files named outright under the subset's default name: of a file or glob)."""
    if data is not None:
        return of_data(about, data, where=where)
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
    return list_tree(repository.address(about.hub, about.revision)), {}


def of_data(about: Source, data: str, *, where: str) -> tuple[Tree, dict[str, list[File]]]:
    """The tree of `data:`, and its files where it is one file or a glob."""
    if re.search(r"[*?]", data):
        root, _, pattern = split_glob(data)
        tree = list_tree(root)
        files = [file for file in tree.files if translate(pattern).match(file.name)]
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


def renamed(
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
        names = [n for n in about.default if subset_files(about, tree, n)] or discovered(
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
            known = discovered(about, tree) or sorted(about.subsets)
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
        files = [file for _, file in matching(tree.files, exact, split=about.split)]
        if files:
            return files
    return []


def discovered(about: Source, tree: Tree) -> list[str]:
    """The names of every subset that the source's globs find; the whole one only if no other."""
    plain = {"data", about.whole_name}
    for pattern in about.files:
        pairs = matching(tree.files, pattern, split=about.split)
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
    spec, media_identity, media_bytes = media_of(about, tree, files, media)
    pieces = cut(about, files)
    total = sum(piece["rows"] or 0 for piece in pieces)
    identity = {
        "source": about.name,
        "version": about.version,
        "subset": subset,
        "files": {"count": len(files), "listing": digest([file.identity for file in files])},
        "parts": [GROUPING, PART_BYTES, about.rows_per_part],
    }
    if tree.commit:
        identity["revision"] = tree.commit
    if media_identity is not None:
        identity["media"] = media_identity
        identity["frames"] = dict(frames)
    parts = []
    for number, piece in enumerate(pieces):
        num_bytes = piece["bytes"]
        if total and media_bytes and piece["rows"]:
            num_bytes += media_bytes * piece["rows"] // total
        parts.append(
            Part(
                name=f"{about.name}/{subset}/{number:05d}",
                source=about.name,
                subset=subset,
                component=component,
                number=number,
                rows=piece["rows"],
                num_bytes=num_bytes,
                share=1.0,
                identity=identity,
                inputs={**piece["inputs"], "media": spec, "frames": dict(frames)},
            )
        )
    return parts


def media_of(
    about: Source, tree: Tree, files: Sequence[File], media: Tree | None
) -> tuple[dict[str, Any], dict[str, Any] | None, int]:
    """(where media lie, their identity, their bytes): null identity where rows hold them all."""
    folder = files[0].name.rpartition("/")[0]
    if media is not None:
        roots, listed = [media.root], list(media.files)
    else:
        beside = f"{tree.root}/{folder}" if folder else tree.root
        roots = list(dict.fromkeys([beside, tree.root]))
        rows_files = {file.name for file in files}
        inside = f"{folder}/" if folder else ""
        listed = [f for f in tree.files if f.name not in rows_files and f.name.startswith(inside)]
    if media is None and about.layout in ("parquet", "text"):
        return {"roots": roots}, None, 0
    identity = {"count": len(listed), "listing": digest([file.identity for file in listed])}
    return {"roots": roots}, identity, sum(file.size for file in listed)


def digest(listing: object) -> str:
    """16 hex digits of a listing of files."""
    return blake2b(repr(listing).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def cut(about: Source, files: Sequence[File]) -> list[dict[str, Any]]:
    """The subset's files cut into pieces {rows, bytes, inputs}, in order."""
    kinds = {kind_of(file) for file in files}
    if kinds == {"parquet"}:
        return cut_parquet(about, files)
    if kinds == {"json"}:
        return cut_json(about, files)
    if kinds == {"compressed"}:
        return [
            {
                "rows": None,
                "bytes": file.size,
                "inputs": {
                    "kind": "compressed", "url": file.url, "size": file.size, "file": number
                },
            }
            for number, file in enumerate(files)
        ]  # fmt: skip
    raise ValueError(
        f"{files[0].url} and {len(files) - 1} more: a subset's files must be all Parquet, all JSON "
        f"or all compressed JSON lines; found {', '.join(sorted(kinds))}"
    )


def kind_of(file: File) -> str:
    """How the file is read."""
    if file.name.endswith(".parquet"):
        return "parquet"
    if rows.COMPRESSED.search(file.name):
        return "compressed"
    if file.name.endswith((".json", ".jsonl")):
        return "json"
    raise ValueError(f"{file.url}: expected .parquet, .json, .jsonl, .jsonl.gz or .jsonl.zst")


def cut_parquet(about: Source, files: Sequence[File]) -> list[dict[str, Any]]:
    """Row groups gathered up to PART_BYTES and the source's rows per part; none is split."""
    with ThreadPoolExecutor(16) as pool:
        footers = list(pool.map(lambda file: rows.footer(file, about), files))
    pieces: list[dict[str, Any]] = []
    first = 0
    for file, footer in zip(files, footers, strict=True):
        for group, (count, size) in enumerate(zip(footer.rows, footer.num_bytes, strict=True)):
            last = pieces[-1] if pieces else None
            fits = (
                last is not None
                and last["bytes"] + size <= PART_BYTES
                and last["rows"] + count <= about.rows_per_part
            )
            if last is None or not fits:
                last = {"rows": 0, "bytes": 0, "inputs": {"kind": "parquet", "reads": []}}
                pieces.append(last)
            reads = last["inputs"]["reads"]
            if reads and reads[-1][0] == file.url:
                reads[-1][2].append(group)
            else:
                reads.append([file.url, file.size, [group], first])
            last["rows"] += count
            last["bytes"] += size
            first += count
    return pieces


def cut_json(about: Source, files: Sequence[File]) -> list[dict[str, Any]]:
    """Rows gathered by their first medium, so that one named by many rows is read once."""
    scans = [rows.scan(file, about) for file in files]
    counts = [len(scan.offsets) for scan in scans]
    refs = np.column_stack(
        [
            np.repeat(np.arange(len(files)), counts),
            np.arange(sum(counts)),
            np.concatenate([scan.offsets for scan in scans]),
            np.concatenate([scan.lengths for scan in scans]),
        ]
    ).astype(np.int64)  # [rows, 4]: file, row in the subset, offset, length
    keys = np.concatenate([scan.keys for scan in scans])
    order = by_medium(keys)
    refs, keys = refs[order], keys[order]
    places = [(file.url, file.size) for file in files]
    pieces, start = [], 0
    while start < len(refs):
        stop = min(start + about.rows_per_part, len(refs))
        while stop < len(refs) and keys[stop] != 0 and keys[stop] == keys[stop - 1]:
            stop += 1
        part = refs[start:stop]
        inputs = {"kind": "json", "files": places, "refs": part}
        pieces.append({"rows": len(part), "bytes": int(part[:, 3].sum()), "inputs": inputs})
        start = stop
    return pieces


def by_medium(keys: np.ndarray) -> np.ndarray:
    """The order of rows: as they are, but those that share a medium right after its first row."""
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    home = first[group]
    alone = keys == 0
    home[alone] = np.flatnonzero(alone)
    return np.argsort(home, kind="stable")


def selected(
    parts: list[Part], *, seed: int, keep: float = 1.0, max_samples: int | None = None
) -> list[Part]:
    """The parts that hold about `keep` of the rows, and not many more than `max_samples`."""
    if keep >= 1 and max_samples is None:
        return parts
    known = [part.rows for part in parts if part.rows is not None]
    typical = max(1.0, sum(known) / len(known)) if known else 1.0
    sizes = [typical if part.rows is None else part.rows for part in parts]
    total = sum(sizes)
    need = keep * total
    if max_samples is not None and known:
        need = min(need, ENOUGH * max_samples / keep if keep < 1 else ENOUGH * max_samples)
    order = sorted(range(len(parts)), key=lambda n: part_hash(seed, parts[n]))
    taken, have = set[int](), 0.0
    for number in order:
        if have >= need:
            break
        taken.add(number)
        have += sizes[number]
    share = have / total if total else 1.0
    return [replace(part, share=share) for n, part in enumerate(parts) if n in taken]


def part_hash(seed: int, part: Part) -> bytes:
    """The place of a part in the order in which parts are taken."""
    return blake2b(f"{seed}/{part.name}".encode(), digest_size=8).digest()
