"""What a source makes of a row, and the registry of sources.

An adapter is a function of one row (a dict, as the repository's files hold it) that returns a
`Sample`: turns whose content is text, stills, videos and PDFs in reading order. Media are encoded
bytes or the path of a member of the media folder or archives; `ingest` fetches and decodes them.
An adapter raises `Defect` for a row that is not of its layout; any other exception is a bug.

    row --adapter--> Sample(turns) --ingest: media, frames, facts--> SAMPLE
"""

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

PARQUET_FILES = (
    "{subset}/{split}-*.parquet",
    "{subset}/*.parquet",
    "data/{split}-*.parquet",
    "data/*.parquet",
    "*.parquet",
)


class Defect(Exception):
    """Bad data: the row becomes a sample whose `defect` is `reason` (snake case).

    `detail` says what was found and expected, in names of fields and types; it never holds what
    stands in the row, nor a place on this machine: cards show it.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Defect) and self.args == other.args

    def __hash__(self) -> int:
        return hash(self.args)


@dataclass(frozen=True)
class Still:
    """An image: its encoded bytes, or where they lie among the media; `seconds` of a video's frame,
    from the start of the clip.
    """

    data: bytes | None = None
    path: str | None = None
    seconds: float | None = None
    called: tuple[str, ...] = field(default=(), compare=False)
    """Other names under which the row may mean it."""


@dataclass(frozen=True)
class Video:
    """A video: its encoded bytes or its path, and which seconds of it (`end` inf: to the end).

    The path may be that of a folder of images, `rate` of them a second; `above` are the folders
    in front of it that archives do not know.
    """

    data: bytes | None = None
    path: str | None = None
    start: float = 0.0
    end: float = float("inf")
    rate: float = 1.0
    above: str = ""
    called: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Pdf:
    """A document whose pages are images, in order."""

    data: bytes | None = None
    path: str | None = None
    called: tuple[str, ...] = field(default=(), compare=False)


Medium = Still | Video | Pdf


@dataclass(frozen=True)
class Next:
    """A part that stands for the next medium of its kind (`image` or `video`) that waits."""

    kind: str


@dataclass(frozen=True)
class At:
    """A part that stands for the medium of this place among those of its kind that wait."""

    kind: str
    index: int


@dataclass(frozen=True)
class Named:
    """A part that names its medium, which may be one of those that wait."""

    medium: Medium


Content = str | Medium | Next | At | Named


@dataclass(frozen=True)
class Turn:
    """Who speaks (system, user, assistant; document: raw text; rejected: right before the last
    answer, the one that it was preferred to), and what, in reading order.
    """

    role: str
    content: tuple[Content, ...]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A conversation with its media still unread."""

    turns: tuple[Turn, ...]
    waiting: tuple[Medium, ...] = ()
    """Media of the row that have no place in a turn yet: see placing.py."""
    tags: tuple[str, ...] = ()
    """Kinds that rules and prompts look at: `cot`, `caption`, ..."""
    ratings: tuple[Mapping[str, int | None], ...] = ()
    """Per question-answer turn, the four of FineVision."""
    answer: str | None = None
    """The gold answer, where the row states one apart from the conversation."""

    @property
    def media(self) -> list[Medium]:
        """Every medium, those at their places in order of appearance, then those that wait."""
        parts = [part for turn in self.turns for part in turn.content]
        named = [part.medium if isinstance(part, Named) else part for part in parts]
        return [*(part for part in named if isinstance(part, Medium)), *self.waiting]


Adapter = Callable[[Mapping[str, Any]], Sample]


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """A column that a mixture's `columns:` names."""

    key: str
    """What it is for: `answer`, or the source's own name of it."""
    path: str
    """The column, or a field inside one: `qa.question`."""
    kinds: frozenset[str] = frozenset()
    """What it may hold (shape.py); empty: anything."""
    inside: tuple[str, ...] = ()
    """Fields of which a mapping there has one; empty: it may have any."""
    needed: bool = True
    """Every file has it."""

    def is_in(self, names: Collection[str]) -> bool:
        """Whether one of the columns is it, or has it inside."""
        return any(self.path == name or self.path.startswith(f"{name}.") for name in names)


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A dataset family: where it lies, on which terms, and how a row is read.

    Each equals itself alone, so that it may key a cache.
    """

    name: str
    adapter: Adapter
    version: int
    """Bumped when the samples made of the same rows would change."""
    hub: str = ""
    """`org/name` of the repository; empty: bring your own with `data:`."""
    revision: str = "main"
    licence: str = "unknown"
    """SPDX where there is one."""
    terms: tuple[str, ...] = ()
    """What the licence asks or forbids: non-commercial, share-alike, no-redistribution, ..."""
    gating: str = ""
    """What must be done to get access; empty: open."""
    citation: str = ""
    """URL of the paper or the card."""
    verified: str = ""
    """What of the layout was checked, and where; the rest is as the adapter's docstring says."""
    layout: str = "parquet"
    """`parquet`: rows with images inside. `video`: with videos inside. `json`: annotations beside
    media. `text`: rows of text. `tar`: WebDataset. `folder`: images with a metadata file."""
    columns: tuple[str, ...] = ()
    """Columns without which a file is not of this layout; `a|b` means one of them."""
    files: tuple[str, ...] = PARQUET_FILES
    """Globs of a subset's annotation files in the repository: the first that matches anything is
    used."""
    places: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Globs of the subsets that lie elsewhere; a key `/x` is for every subset named `NAME/x`."""
    default: tuple[str, ...] = ()
    """Subsets taken where a mixture names none; empty: all that are found."""
    split: str = "train"
    subsets: Mapping[str, int] = field(default_factory=dict)
    """Subsets of the hub repository and their recorded rows (0: not recorded)."""
    num_bytes: int = 0
    """Recorded size of the repository, bytes (0: not recorded)."""
    media_files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Subset -> globs of its media in the repository (`""`: every other subset); none: whatever
    lies beside the annotations."""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Subset (`""`: every other) whose media (or texts) the repository does not hold -> where they
    are to be had. A mixture then names them with `media:` (texts: with `data:`)."""
    media_hub: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Subset whose media lie in another repository of the hub -> that repository, then globs there:
    they are read from it."""
    notes: tuple[str, ...] = ()
    """What else of the repository one should know: media that are named and absent, stray files."""
    row_files: bool = False
    """Every JSON file is one row."""
    whole_name: str = "default"
    """The subset's name where a repository has only one."""
    media_columns: tuple[str, ...] = ()
    """Large columns, left out of row counts and text-only looks at a file."""
    also: tuple[str, ...] = ()
    """Columns that the adapter reads besides, where they are there; globs. No other is ever
    converted, so that it may be of any type."""
    rows_per_part: int = 2000
    """At most, so that a part is seconds of work."""
    by_config: bool = False
    """Files are found as `datasets` finds them, by configs and splits, not by globs."""
    pairs: bool = False
    """Its samples may have a rejected answer (preferences.py)."""
    columns_of: Mapping[str, Any] = field(default_factory=dict)
    """The `columns:` of the component that is read, as it states them."""
    mapped: tuple[Mapped, ...] = ()
    """The columns that those name: read beside the others."""
    plugin: str = ""
    """A hash of the plugin that registered it; empty: it is built in."""

    @property
    def identity(self) -> list[Any]:
        """What determines the samples of a row: JSON-able."""
        more = [dict(self.columns_of)] if self.columns_of else []
        return [self.name, self.version, *more, *([self.plugin] if self.plugin else [])]

    def lacks(self, names: Collection[str]) -> list[str]:
        """Of the columns that every file has, those (`a or b`) that are not among `names`."""
        known = set(names)
        groups = [group for group in self.columns if not set(group.split("|")) & known]
        inside = [one.path for one in self.mapped if one.needed and not one.is_in(known)]
        return [*(group.replace("|", " or ") for group in groups), *dict.fromkeys(inside)]

    def reads(self, column: str) -> bool:
        """Whether the adapter may look at a column of this name."""
        if any(one.is_in((column,)) for one in self.mapped):
            return True
        required = (name for names in self.columns for name in names.split("|"))
        globs = (*required, *self.media_columns, *self.also)
        return any(fnmatchcase(column, glob) for glob in globs)


SOURCES: dict[str, Source] = {}


def source(name: str, *, version: int = 1, **about: Any) -> Callable[[Adapter], Adapter]:
    """Register the decorated adapter under `name`; `about` are the fields of `Source`."""

    def register(adapter: Adapter) -> Adapter:
        if name in SOURCES:
            raise ValueError(f"a source is called {name!r} already; choose another name")
        SOURCES[name] = Source(name=name, adapter=adapter, version=version, **about)
        return adapter

    return register


def source_named(name: str, *, where: str) -> Source:
    """The registered source; raises ValueError with a hint for an unknown one."""
    if name not in SOURCES:
        close = difflib.get_close_matches(name, SOURCES, 1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(sorted(SOURCES))}."
        raise ValueError(f"{where}: unknown source {name!r}. {hint}")
    return SOURCES[name]


def terms_of(name: str) -> list[str]:
    """The licence of a source and what it asks or forbids, as `licenses` may name them."""
    about = source_named(name, where="sources")
    return [about.licence, *about.terms]
