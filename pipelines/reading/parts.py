"""From a component of a mixture to its parts: which files, which rows of them, without reading any.

    data: | MIRROR/ORG/NAME | hub --list--> Tree --globs of the source--> subsets --> Parts

* Parts of a subset are numbered over *all* of it, in order, whatever is selected: another `keep`
  reuses the parts that it shares with the last.
* Parts are taken in the order of `Part.turn`, a hash of (seed, source, subset, number) under which
  the first of them lie spread over the subset; the same from a mirror as from the hub. `select`
  takes whole parts in that order until they hold the rows asked for. `Part.share` is the fraction
  of the subset's rows that was selected, so that the index can trim to the exact `keep`: of the
  rows read, `keep / share`. Of those that are selected a build reads what it needs (enough.py).
* Where a single archive holds far more than is asked for and its annotations are large, every n-th
  block of them is read and no more.
* `Part.identity` is all that determines the subset's samples; where files lie is in `inputs` only.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from xxhash import xxh3_64_intdigest

from pipelines.engine import private
from pipelines.reading import annotations, hub, identity
from pipelines.reading.annotations import BlockSelection
from pipelines.reading.files import (
    File,
    Tree,
    is_url,
)
from pipelines.reading.keys import check_key, keyed, shard_of
from pipelines.reading.leftovers import leftovers
from pipelines.reading.locate import find_files, media_tree_of
from pipelines.reading.pointers import refuse_pointers
from pipelines.reading.splitting import (
    GROUPING,
    PART_BYTES,
    SubsetMedia,
    kind_of,
    media_of,
    split_files,
)
from pipelines.reading.tar_spans import SPANS
from pipelines.reading.walk import Unread
from pipelines.sources.mapping import configured
from pipelines.sources.sample import Source

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
    columns: Mapping[str, Any] = field(default_factory=dict)
    """The component's `columns:`."""
    turn: int = 0
    """Its place in the order in which the subset's parts are taken."""
    of: int = 1
    """Parts of the whole subset."""
    called: str = ""
    """What ids call the subset, where other files of the mixture have its own name already."""
    key: str = ""
    """The column by which annotations are joined; empty: there are none."""

    @property
    def about(self) -> Source:
        """How its rows are read."""
        where = f"components.{self.component}"
        about = configured(self.source, columns=self.columns, where=where)
        return keyed(about, self.key) if self.key else about

    @property
    def size(self) -> float:
        """What it holds beside others of its subset: rows or, where those are unknown, bytes."""
        return float((self.num_bytes if self.about_rows is None else self.about_rows) or 0)

    @property
    def prefix(self) -> str:
        """What the ids of its samples begin with."""
        return f"{self.source}/{self.called or self.subset}/"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What was found of a component before anything is read."""

    parts: list[Part]
    contents: dict[str, dict[str, str]]
    """Subset -> what is in each of its files (see identity.py) -> the file's URL."""
    unread: list[Unread]
    """Files and folders of its data that are not read, and why."""


def list_parts(**settings: Any) -> list[Part]:
    """The parts of a component, subset by subset: `list_component` for those who need no more."""
    return list_component(**settings).parts


def list_component(
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
    columns: Mapping[str, Any] | None = None,
    repo: str = "",
    split: str = "",
    key: str = "",
    seed: int = 0,
    beside: str = "",
    ours: Sequence[str] = (),
) -> Listing:
    """The parts of a component, subset by subset, and what of its data is left out.

    `data` (a file, glob or folder, local or a URL) is read in place of the hub repository, as is
    MIRROR/ORG/NAME where `mirror` names a folder of checkouts. `subsets`: names (a mapping's keys);
    none: the source's own, or every one found. `select`: subset -> {keep, max_samples}.
    `placeholders`: `places` of media in the rows' texts, or `literal`. `columns`, `repo`, `split`:
    as the component states them (sources/mapping.py); `key`: the column by which annotations are
    joined, where there are any. A relative `data` or `media`
    is looked for from the current folder, then from `beside`, the mixture's. `ours`: folders that
    the build itself writes, which are nobody's data.

    Raises:
        ValueError: unknown source or subset, files that are not of the source's layout.
        FileNotFoundError: data, media or mirror that is not there.
    """
    # Longer than a screen: every setting of a component enters here, once.
    where = f"components.{component}" if component else f"source {source}"
    about = configured(source, columns=columns, repo=repo, split=split, where=where)
    if key:
        check_key(about, key, where=where)
        about = keyed(about, key)
    names = list(subsets)
    tree, found, media_tree = find_files(
        about, names, data=data, media=media, mirror=mirror, beside=beside, ours=ours, where=where
    )
    for files in found.values():
        refuse_pointers(files, where=where)
    settings = {**FRAMES, **(frames or {})}
    parts: list[Part] = []
    read = {file.url for files in found.values() for file in files}
    empty: list[Unread] = []
    for subset, files in found.items():
        other = media_tree
        if other is None and data is None:
            other = media_tree_of(about, tree, subset, files, mirror=mirror)
        hub.require_cached([(file.url, file.content) for file in files])
        here = media_of(about, tree, subset, files, other)
        read |= {file.url for file in here.listed or ()}
        whole = in_turn(
            subset_parts(
                about, tree, subset, files, component=component, media=here, frames=settings
            ),
            seed=seed,
        )
        empty += without_rows(files, whole)
        if placeholders == "literal":
            whole = [with_literal_placeholders(part) for part in whole]
        if key:
            whole = with_keys(whole, key, [shard_of(file.name) for file in files])
        wanted = (select or {}).get(subset, {})
        selected = select_parts(whole, seed=seed, **wanted)
        hub.require_cached([(file.url, file.content) for file in archives_read(selected, here)])
        parts += with_annotations(selected)
    # one file under other columns is other samples
    mapped = f"+{identity.digest(about.columns_of)[:8]}" if about.columns_of else ""
    contents = {
        subset: {
            f"{content}{mapped}": file.url
            for content, file in zip(identity.contents(files), files, strict=True)
        }
        for subset, files in found.items()
    }
    own = data is not None and not tree.commit and len(tree.files) > 0 and not tree.named
    unread = leftovers(about, tree, read, names) if own else list(tree.unread)
    return Listing(parts=parts, contents=contents, unread=[*unread, *empty])


def without_rows(files: Sequence[File], parts: Sequence[Part]) -> list[Unread]:
    """The files of a subset that are known to hold no row."""
    return [
        Unread(file.name, "it is empty" if file.size == 0 else "it has no rows")
        for file in files
        if file.size == 0 or not parts
    ]


def archives_read(parts: Sequence[Part], media: SubsetMedia) -> list[File]:
    """The files of archives that reading these parts opens."""
    streamed = [part.inputs["archive"] for part in parts if "archive" in part.inputs]
    random = [archive for archive in media.archives if not archive.streams]
    return [file for archive in [*streamed, *random] for file in archive.files]


def with_keys(parts: list[Part], key: str, shards: Sequence[str]) -> list[Part]:
    """The parts, of whose rows it is known what file they are of and what names them there."""
    known = {"key": key, "shards": identity.digest(list(shards))}
    return [replace(part, key=key, identity={**part.identity, **known}) for part in parts]


def with_literal_placeholders(part: Part) -> Part:
    """The part, in whose texts `<image>` and `<video>` are text."""
    return replace(
        part,
        identity={**part.identity, "placeholders": "literal"},
        inputs={**part.inputs, "literal": True},
    )


def subset_parts(
    about: Source,
    tree: Tree,
    subset: str,
    files: Sequence[File],
    *,
    component: str,
    media: SubsetMedia,
    frames: Mapping[str, Any],
) -> list[Part]:
    """Every part of one subset."""
    pieces = split_files(about, files, media)
    total = sum(rows_of(piece) or 0 for piece in pieces)
    known = {
        "source": about.name,
        "version": about.version,
        "subset": subset,
        "files": files_identity(tree, files),
        "parts": [GROUPING, PART_BYTES, about.rows_per_part],
    }
    if about.columns_of:
        known["columns"] = private.hidden(dict(about.columns_of))
    if about.plugin:
        known["plugin"] = about.plugin
    if not annotations.is_small(files, about) and kind_of(files[0]) == "json":
        known["blocks"] = [annotations.SCANNED, annotations.PROBE, annotations.BLOCK]
    if any("span" in piece["inputs"] for piece in pieces):
        known["tars"] = SPANS
    if tree.commit:
        known["revision"] = tree.commit
    if media.listed is not None:
        listing = identity.digest([file.identity for file in media.listed])
        known["media"] = {"count": len(media.listed), "listing": listing}
        known["frames"] = dict(frames)
    elif about.layout in ("tar", "video"):
        known["frames"] = dict(frames)
    parts = []
    for number, piece in enumerate(pieces):
        num_bytes = piece["bytes"]
        if total and piece["inputs"]["kind"] in ("json", "block", "csv"):
            num_bytes += media.num_bytes * rows_of(piece) // total
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
                identity=known,
                inputs={**piece["inputs"], "media": media.spec, "frames": dict(frames)},
                columns=about.columns_of,
            )
        )
    return parts


def rows_of(piece: Mapping[str, Any]) -> Any:
    """How many rows a piece has, or about how many; null: unknown."""
    return piece.get("about_rows", piece["rows"])


def files_identity(tree: Tree, files: Sequence[File]) -> dict[str, Any]:
    """What stands for the subset's files in a fingerprint."""
    if tree.commit or is_url(tree.root):
        listing = identity.digest([file.identity for file in files])
        return {"count": len(files), "listing": listing}
    known = identity.digest([identity.contents(files), identity.changed(files)])
    return {"count": len(files), "content": known}


def in_turn(parts: list[Part], *, seed: int) -> list[Part]:
    """The parts, each with its `turn`; parts whose rows name media that are in no archive come
    last, since they are found only when every archive is read.
    """
    if not parts:
        return parts
    places = spread(len(parts), salt=f"{seed}/{parts[0].source}/{parts[0].subset}")
    last = [part.inputs["kind"] == "loose" for part in parts]
    order = sorted(range(len(parts)), key=lambda n: (last[n], places[n]))
    turns = {number: turn for turn, number in enumerate(order)}
    return [replace(part, turn=turns[n], of=len(parts)) for n, part in enumerate(parts)]


def spread(count: int, *, salt: str) -> list[int]:
    """[count] a key of each number by which the first 2^m of them lie in different 2^m-ths of all,
    in whatever order the salt gives: van der Corput's sequence, scrambled as by Owen (1995), so
    that parts are taken from every file and from every stretch of it.
    """
    bits = max(1, (count - 1).bit_length())
    keys = []
    for number in range(count):
        place = (number << bits) // count
        key = 0
        for bit in range(bits):
            above = place >> (bits - bit)
            flip = xxh3_64_intdigest(f"{salt}/{bit}/{above}") & 1
            key |= ((place >> (bits - 1 - bit) & 1) ^ flip) << bit
        keys.append(key)
    return keys


def select_parts(
    parts: list[Part], *, seed: int, keep: float = 1.0, max_samples: int | None = None
) -> list[Part]:
    """The parts that hold about `keep` of the rows, and not many more than `max_samples`."""
    if keep >= 1 and max_samples is None:
        return parts
    counted = all(part.about_rows is not None for part in parts)
    # rows in no archive of which no sign was seen are looked for only when every archive is read
    beside = ("loose", "bare")
    whole = [p for p in parts if p.about_rows != 0 or p.inputs["kind"] not in beside] or parts
    total = sum(part.size for part in whole)
    need = keep * total
    if max_samples is not None and counted:
        need = min(need, ENOUGH * max_samples)
    taken, have = list[Part](), 0.0
    for part in sorted(whole, key=lambda part: part.turn):
        if have >= need:
            break
        taken.append(part)
        have += part.size
    if len(taken) == 1 and (step := int(have / (SPARE * max(need, 1)))) > 1:
        (alone,) = taken
        if alone.inputs["kind"] == "archive" and not alone.inputs["small"]:
            return [thin_archive_part(alone, step, share=have / step / total, seed=seed)]
    if len(taken) == len(whole):
        return parts
    return [replace(part, share=have / total) for part in sorted(taken, key=lambda p: p.number)]


def thin_archive_part(part: Part, step: int, *, share: float, seed: int) -> Part:
    """The part of an archive with the rows of every `step`-th block of its annotations alone."""
    phase = xxh3_64_intdigest(f"{seed}/{part.name}") % step
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
