"""The registry as text: `python -m pipelines sources` and `sources NAME`.

table()      a line per source          markdown()   the README's table, with what was verified
about(NAME)  all that is known of one, and a decoded sample where data is reachable
"""

from dataclasses import dataclass, field
from html import escape
from typing import Any

from pipelines.reading.ingest import peek
from pipelines.reading.parts import list_parts
from pipelines.sources.sample import SOURCES, Source, source_named

LAYOUTS = {
    "parquet": "Parquet rows with images inside",
    "video": "Parquet rows with videos inside",
    "json": "JSON beside media (folders, zip, tar, tar.gz)",
    "text": "rows of text: Parquet, JSON lines, gzip, zstandard; .txt and .md files",
    "tar": "WebDataset tars",
    "folder": "images with metadata.jsonl, .csv or .parquet, or in a folder for each class",
}
TABLES = "tables of any columns: Parquet, Arrow, JSON, CSV; media inside or beside"
"""Of sources whose columns the mixture names."""
SHOWN = 300
"""Characters of a turn that are shown."""


def layout_words(source: Source) -> str:
    """What its files are."""
    return TABLES if source.by_config else LAYOUTS[source.layout]


def source_table() -> str:
    """Every source: hub id, recorded rows, licence, what must be done for access."""
    head = ("source", "repository", "rows", "licence and terms", "access")
    lines = [source_cells(source) for _, source in sorted(SOURCES.items())]
    widths = [max(len(line[n]) for line in [head, *lines]) for n in range(len(head))]
    rule = tuple("-" * width for width in widths)
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [head, rule, *lines]
    )


def source_rows() -> list[dict[str, Any]]:
    """The same as data."""
    return [
        {
            "name": name, "repository": source.hub, "revision": source.revision,
            "layout": source.layout, "licence": source.licence, "terms": list(source.terms),
            "access": access_of(source), "columns": list(source.columns),
            "subsets": dict(source.subsets), "default": list(source.default),
            "version": source.version, "verified": source.verified,
        }
        for name, source in sorted(SOURCES.items())
    ]  # fmt: skip


def access_of(source: Source) -> str:
    """`gated`, `open`, or `data:` where the files are the user's own."""
    return "gated" if source.gating else ("open" if source.hub else "data:")


def source_cells(source: Source) -> tuple[str, str, str, str, str]:
    """The line of one source."""
    terms = f" ({', '.join(source.terms)})" if source.terms else ""
    counts = [source.subsets[name] for name in source.default or source.subsets]
    more = " +" if 0 in counts else ""  # of some subsets no count is published
    return (
        source.name,
        source.hub or "yours",
        f"{human_count(sum(counts))}{more}" if any(counts) else "-",
        clip_text(source.licence + terms, 60),
        access_of(source),
    )


def source_markdown() -> str:
    """The same for a README, with the layout and what of it was verified."""
    lines = ["| source | repository | layout | licence | verified |", "|---|---|---|---|---|"]
    for _, source in sorted(SOURCES.items()):
        gate = f"; gated: {source.gating}" if source.gating else ""
        layout = layout_words(source)
        lines.append(
            f"| `{source.name}` | {source.hub or 'yours, by `data:`'} | {layout} | "
            f"{source.licence}{gate} | {source.verified} |"
        )
    return "\n".join(lines)


def keys_of(source: Source) -> list[str]:
    """Every key of a row that the source reads; `x*`: every one that begins so."""
    required = [name for names in source.columns for name in names.split("|")]
    return list(dict.fromkeys([*required, *source.media_columns, *source.also]))


def keys_markdown() -> str:
    """The keys of rows that each source of one's own files reads."""
    lines = ["| source | must have | may have |", "|---|---|---|"]
    for name, source in sorted(SOURCES.items()):
        if not source.hub and not source.by_config:  # a mixture says which columns those are
            must = " and ".join(f"`{names}`".replace("|", "` or `") for names in source.columns)
            rest = [
                key for key in keys_of(source) if key not in "|".join(source.columns).split("|")
            ]
            lines.append(f"| `{name}` | {must} | {', '.join(f'`{key}`' for key in rest)} |")
    return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class SourceDescription:
    """All that is known of one source; `str(description)` is what the command prints."""

    name: str
    facts: dict[str, str]
    sample: dict[str, Any] | None = None
    """Its first whole sample, images by their sizes; None: none was asked for, or found."""
    text: str = field(default="", repr=False)

    def __str__(self) -> str:
        """A line per fact, then the sample."""
        return self.text

    def data(self) -> dict[str, Any]:
        """What JSON can hold of it."""
        return {"name": self.name, **self.facts, "sample": self.sample}

    def _repr_html_(self) -> str:
        """In a notebook: the text as it stands."""
        return f"<pre>{escape(self.text)}</pre>"


def describe_source(
    name: str, *, data: str | None = None, mirror: str | None = None
) -> SourceDescription:
    """All that is known of one source, and its first whole sample where `data` or a mirror is
    given; raises ValueError for an unknown name.
    """
    source = source_named(name, where="sources")
    subsets = [
        f"{subset}{f' ({human_count(n)})' if n else ''}" for subset, n in source.subsets.items()
    ]
    facts = {
        "repository": source.hub or "your own files, by `data:`",
        "revision": source.revision if source.hub else "",
        "licence": ", ".join([source.licence, *source.terms]),
        "access": source.gating or ("open" if source.hub else ""),
        "citation": source.citation,
        "layout": layout_words(source),
        "columns": ", ".join(source.columns).replace("|", " or "),
        "keys": ", ".join(keys_of(source)),
        "files": ", ".join(source.files),
        "subsets": ", ".join(subsets),
        "taken": ", ".join(source.default) if source.default else "every subset found",
        "size": f"{human_count(source.num_bytes)}B" if source.num_bytes else "",
        "version": str(source.version),
        "verified": source.verified,
        "makes": (source.adapter.__doc__ or "").strip().splitlines()[0],
    }
    lines = [name, *(f"  {key:<11}{value}" for key, value in facts.items() if value)]
    told = {key: value for key, value in facts.items() if value}
    if data is None and mirror is None:
        more = ["  Name data=FOLDER (or a mirror of the hub) to see a sample."]
        return SourceDescription(name=name, facts=told, text="\n".join([*lines, "", *more]))
    parts = list_parts(source=name, data=data, mirror=mirror)
    sample = next((found for part in parts if (found := peek(part)) is not None), None)
    more = [f"  No whole sample in {len(parts)} parts."] if sample is None else sample_lines(sample)
    return SourceDescription(
        name=name, facts=told, sample=sample and sample_data(sample),
        text="\n".join([*lines, "", *more]),
    )  # fmt: skip


def sample_data(sample: dict[str, Any]) -> dict[str, Any]:
    """A sample (SAMPLE) as JSON can hold it: images by their sizes, messages as they are."""
    sizes = [[image["width"], image["height"]] for image in sample["images"]]
    return {"id": sample["id"], "images": sizes, "duration": sample["duration"],
            "messages": sample["messages"]}  # fmt: skip


def sample_lines(sample: dict[str, Any]) -> list[str]:
    """A decoded sample: its images' sizes and its turns."""
    sizes = [f"{image['width']}x{image['height']}" for image in sample["images"]]
    lines = [f"  {sample['id']}"]
    if sizes:
        more = f" and {len(sizes) - 8} more" if len(sizes) > 8 else ""
        lines.append(f"    {len(sizes)} images: {', '.join(sizes[:8])}{more}")
    if sample["duration"] is not None:
        lines.append(f"    {sample['duration']:.1f} s of video")
    for message in sample["messages"]:
        parts = ("[image]" if c["type"] == "image" else c["text"] for c in message["content"])
        lines.append(f"    {message['role']}: {clip_text(' '.join(parts), SHOWN)}")
    return lines


def clip_text(text: str, length: int) -> str:
    """The text on one line, cut at `length` with three dots."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 3] + "..."


def human_count(number: float) -> str:
    """`1.27 M`: a number with three digits and its thousands."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"
