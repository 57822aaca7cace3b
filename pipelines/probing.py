"""Whether every subset of a mixture can be read, found out by reading a few rows of each.

    listing -> first rows -> adapter -> one medium -> decoded -> encoded -> a Finding per subset

| depth   | what is done                                                     | when              |
|---------|------------------------------------------------------------------|-------------------|
| shallow | listing, first rows, adapter, whether media can be there         | before every build|
| deep    | besides, one medium is found, decoded and its sample encoded     | `probe`; a build  |
|         |                                                                  | of much or remote |

A fault is *certain* where nothing else in the subset can make up for it: columns, a gate, media
that lie nowhere. Others (the first rows are broken) are said, and only `probe` fails for them.
"""

import difflib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from mixtures.config import Mixture, encoding_of
from pipelines.availability import Lack, access_words, lack_of
from pipelines.engine import tables
from pipelines.reading import ingest, traffic
from pipelines.reading.files import File, Tree, is_url
from pipelines.reading.head import Head, MediumFound, find_medium, head_of
from pipelines.reading.locate import find_files, media_tree_of
from pipelines.reading.media_files import Media
from pipelines.reading.member_paths import key_of
from pipelines.reading.sample_media import Reader
from pipelines.reading.splitting import SubsetMedia, media_of
from pipelines.sources import SOURCES, Defect, Sample, Source
from pipelines.survey import Place, source_of
from tokenization import encode as tokens
from tokenization.schema import SAMPLE
from tokenization.terminal import sentence

MUCH = 1 << 30
"""Bytes of a subset from which a build probes deeply: less is read in minutes anyway."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What probing a subset found."""

    component: str
    subset: str
    fault: str = ""
    """Why it cannot be read; empty: it can."""
    way: str = ""
    """The way out."""
    certain: bool = False
    made: str = ""
    """What the first whole row became."""
    media: str = ""
    """Where its media are."""
    num_bytes: int = 0
    seconds: float = 0.0


def probe(mixture: Mixture, place: Place) -> Iterator[Finding]:
    """A finding per subset of every component, in order, each when it is there."""
    for name in mixture.components:
        yield from probe_component(mixture, name, place, deep=True)


def probe_component(
    mixture: Mixture, name: str, place: Place, *, deep: bool | None
) -> Iterator[Finding]:
    """The findings of one component; `deep` null: where there is much to read, or it is remote."""
    begun = time.monotonic()
    with traffic.counted() as read:
        found = None
        lack = lack_of(mixture, name, place, asking=True)
        if lack is None:
            try:
                found = listed(mixture, name, place)
            except (ValueError, OSError) as error:
                lack = Lack(component=name, what=str(error))
    num_bytes, spent = read.num_bytes, time.monotonic() - begun
    if lack is not None or found is None:
        assert lack is not None
        yield Finding(
            component=name,
            subset="",
            fault=lack.what,
            way=lack.way,
            certain=True,
            num_bytes=num_bytes,
            seconds=spent,
        )
        return
    for subset, files in found.subsets.items():
        begun = time.monotonic()
        with traffic.counted() as read:
            try:
                finding = probe_subset(mixture, found, subset, files, place, deep=deep)
            except (ValueError, OSError) as error:
                finding = Finding(component=name, subset=subset, fault=str(error), certain=True)
        spent += time.monotonic() - begun
        yield replace(finding, num_bytes=num_bytes + read.num_bytes, seconds=spent)
        num_bytes, spent = 0, 0.0


@dataclass(frozen=True)
class Listed:
    """A component's files, by subset."""

    component: str
    about: Source
    tree: Tree
    subsets: dict[str, list[File]]
    media: Tree | None


def listed(mixture: Mixture, name: str, place: Place) -> Listed:
    """The component's files; raises as `list_parts` does."""
    component, where = mixture.components[name], f"components.{name}"
    about = source_of(component, name)
    tree, subsets, media = find_files(
        about,
        list(component.subsets),
        data=component.data,
        media=component.media,
        mirror=place.data or None,
        beside=place.beside,
        ours=(place.output, place.work),
        where=where,
    )
    return Listed(name, about, tree, subsets, media)


def probe_subset(
    mixture: Mixture,
    found: Listed,
    subset: str,
    files: Sequence[File],
    place: Place,
    *,
    deep: bool | None,
) -> Finding:
    """The finding of one subset; raises ValueError or OSError where a file cannot be read."""
    about, name = found.about, found.component
    head = head_of(about, files)
    one = Finding(component=name, subset=subset)
    if head.columns and (absent := missing_columns(about, head.columns)):
        return replace(one, fault=differs(about, head, absent), way=nearest(head), certain=True)
    media_tree = found.media or elsewhere(mixture, found, subset, files, place)
    here = media_of(about, found.tree, subset, files, media_tree)
    if deep is None:
        size = sum(file.size for file in files) + here.num_bytes
        deep = size >= MUCH or is_url(files[0].url)
    literal = mixture.components[name].placeholders == "literal"
    samples, defects = adapted(about, head, literal=literal)
    if not samples:
        return replace(one, fault=defects if head.rows else f"{files[0].name} has no rows")
    paths = [m.path for sample in samples for m in sample.media if m.path and m.data is None]
    inline = any(sample.media for sample in samples) and not paths
    one = replace(one, media="in the rows" if inline else "" if not paths else "by path")
    found_medium: MediumFound | None = None
    if paths and here.listed is not None:
        if not here.media_there:
            return replace(
                one,
                fault=f"missing_media: rows name {paths[0]!r} and the like, and no image, video "
                f"or archive lies in {media_tree.root if media_tree else found.tree.root}",
                way=f"put them there, or say where they are: components.{name}.media=FOLDER",
                media="missing",
                certain=True,
            )
        if deep:
            found_medium = find_medium(paths, here)
            if found_medium is None:
                return replace(
                    one,
                    fault=f"rows name {paths[0]!r}; no such file was found beside them, in the "
                    "lists of zips, nor at the head of a tar",
                    way=f"look into one archive, and say components.{name}.media=FOLDER",
                    media="not found",
                )
            one = replace(one, media=found_medium.where)
    if not deep:
        return one
    if head.without_media:
        return replace(one, media=f"not read: {head.without_media}")
    frames = {**asdict(mixture.components[name].frames), "size": mixture.encoding.crop_size}
    return encoded(one, chosen(samples, found_medium), found_medium, here, frames, mixture)


def elsewhere(
    mixture: Mixture, found: Listed, subset: str, files: Sequence[File], place: Place
) -> Tree | None:
    """The tree of the repository that is known to hold the subset's media, if one is."""
    if mixture.components[found.component].data is not None:
        return None
    return media_tree_of(found.about, found.tree, subset, files, mirror=place.data or None)


def missing_columns(about: Source, columns: Sequence[str]) -> list[str]:
    """The columns of the layout that are not there."""
    return about.lacks(columns)


def differs(about: Source, head: Head, absent: Sequence[str]) -> str:
    """Found and expected columns, in a sentence."""
    wanted = ", ".join(
        [*(name.replace("|", " or ") for name in about.columns), *(m.path for m in about.mapped)]
    )
    return (
        f"its rows have the columns {', '.join(head.columns)}; {about.name} reads {wanted}, of "
        f"which {', '.join(absent)} is not there"
    )


def nearest(head: Head) -> str:
    """The sources that read such rows, else the names that are nearest."""
    names = set(head.columns)
    fitting = [
        other.name
        for other in SOURCES.values()
        if other.columns and not missing_columns(other, head.columns)
    ]
    if fitting:
        best = sorted(fitting, key=lambda name: -len(SOURCES[name].columns))
        return f"rows with these columns are read by source {', '.join(best[:3])}"
    wanted = {n for s in SOURCES.values() for c in s.columns for n in c.split("|")}
    pairs = [
        f"{name} -> {close[0]}"
        for name in sorted(names)
        if (close := difflib.get_close_matches(name, wanted, 1, cutoff=0.6))
    ]
    if pairs:
        return f"nearest: {', '.join(pairs)}"
    return "no source reads such columns by itself; source table does, by its `columns:`"


def adapted(about: Source, head: Head, *, literal: bool) -> tuple[list[Sample], str]:
    """(the samples of the first rows, why there are none)."""
    samples: list[Sample] = []
    reasons: Counter[str] = Counter()
    detail = ""
    for row in head.rows:
        try:
            samples.append(ingest.sample_of_row(row, about, literal=literal))
        except Defect as defect:
            reasons[defect.reason] += 1
            detail = detail or str(defect)
    told = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    return samples, f"none of its first {len(head.rows)} rows is whole: {told} ({detail})"


def chosen(samples: Sequence[Sample], medium: MediumFound | None) -> Sample:
    """The sample to make: the one whose medium was found, of those the one with fewest media."""

    def worth(sample: Sample) -> tuple[bool, bool, int]:
        named = medium is not None and any(m.path == medium.path for m in sample.media)
        return (not named, not sample.media, len(sample.media))

    return min(samples, key=worth)


def encoded(
    one: Finding,
    sample: Sample,
    medium: MediumFound | None,
    here: SubsetMedia,
    frames: Mapping[str, Any],
    mixture: Mixture,
) -> Finding:
    """The finding, with what the sample became when its media were decoded and it was encoded.

    Where only a medium of the right kind was found, it stands for the sample's own.
    """
    reader = Reader(Media(here.spec), dict(frames))
    try:
        if medium is not None and medium.data is not None:
            for other in sample.media:
                if other.path and other.data is None:
                    reader.media.at_hand[key_of(other.path)] = medium.data
        columns = ingest.sample_columns(sample, reader)
    finally:
        reader.media.close()
    if columns["defect"] is not None:
        return replace(one, fault=f"its first whole row is {columns['defect']}")
    line = {"id": "probe", "source": "", "subset": one.subset, **columns}
    table = pa.Table.from_pylist([line], schema=SAMPLE)
    made = tokens.encode(table, encoding=encoding_of(mixture, one.component)).to_pylist()[0]
    if made["problem"]:
        return replace(one, fault=f"its first whole row cannot be encoded: {made['problem']}")
    count = len(columns["images"])
    images = f"{count} images, " if count > 1 else "1 image, " if count else ""
    return replace(one, made=f"{images}{made['num_tokens']:,} tokens")


# ------------------------------------------------------------------ as text


def report(findings: Sequence[Finding], mixture: Mixture, place: Place) -> str:
    """The table of `probe`, the faults, and what the sources ask."""
    head = f"{'component':<21}{'subset':<28}{'':<9}{'media':<26}{'read':>9}{'s':>6}"
    lines = [head, "-" * len(head)]
    for found in findings:
        result = "ok" if not found.fault else "optional" if is_optional(found, mixture) else "FAILS"
        lines.append(
            f"{cut(found.component, 20):<21}{cut(found.subset or '(all)', 27):<28}{result:<9}"
            f"{cut(found.media or '-', 25):<26}{tables.human_bytes(found.num_bytes):>9}"
            f"{found.seconds:>6.1f}"
        )
    total = tables.human_bytes(sum(found.num_bytes for found in findings))
    spent = sum(found.seconds for found in findings)
    lines += ["-" * len(head), f"{'together':<84}{total:>9}{spent:>6.1f}", ""]
    for found in findings:
        if found.fault:
            lines.append(
                f"{found.component} {found.subset}".rstrip()
                + f": {sentence(found.fault, indent='  ')}"
            )
            lines += [f"  Way out: {sentence(found.way, indent='  ')}"] if found.way else []
    lines += ["", *terms(mixture, place)]
    return "\n".join(lines)


def terms(mixture: Mixture, place: Place) -> list[str]:
    """A line per repository: licence, gate, and whether this token opens it."""
    lines, said = ["licence and access"], set[tuple[str, str]]()
    for component in mixture.components.values():
        about = source_of(component)
        if (about.name, about.hub) not in said:
            said.add((about.name, about.hub))
            words = access_words(about, component, place)
            notes = "".join(f"; {note}" for note in about.notes)
            lines.append(
                f"  {about.name:<18}{about.hub or 'yours'}: {about.licence}; {words}{notes}"
            )
    return lines


def is_optional(found: Finding, mixture: Mixture) -> bool:
    """Whether the mixture can do without the component."""
    return mixture.components[found.component].optional


def cut(text: str, width: int) -> str:
    """The text, its end replaced by `~` where it is longer."""
    return text if len(text) <= width else text[: width - 1] + "~"


def fails(findings: Sequence[Finding], mixture: Mixture) -> bool:
    """Whether a component that is not optional cannot be read."""
    return any(found.fault and not is_optional(found, mixture) for found in findings)
