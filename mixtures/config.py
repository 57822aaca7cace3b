"""What a mixture may say: frozen dataclasses, and what follows from them.

Everything here says WHAT is in a mixture and bears its identity; where it runs (paths of work,
workers, Ray) is no field of it. Settings of filter rules are only shaped here (rule -> mapping);
`filters.validate` knows the rules. mixture_file.py reads it, checks.py refuses what means nothing.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mixtures.annotated import LATER, Annotations
from mixtures.benchmark_sets import SETS, list_path

Measure = Literal["tokens", "samples", "learned_tokens"]
Modality = Literal["", "text", "image", "multi_image", "video"]
Read = Literal["enough", "all"]


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Which frames of a video become images."""

    fps: float = 1.0
    """Frames a second, over the whole clip."""
    max_frames: int = 64
    """At most; a longer clip is sampled more sparsely, evenly over its length."""
    decoder: Literal["av", "decord"] = field(default="av", metadata=LATER)
    """`av` (PyAV): every container and codec, the same bytes on every processor. `decord`: as
    SmolVLM2's published loader decodes, where it can (plain MP4 and QuickTime); PyAV elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Subset:
    """One subset (config) of a source, and how much of it."""

    weight: float | None = None
    """Its share inside the component relative to the others, in the unit of `measure`: 2 beside 1
    is twice as much. Where no subset of the component has a weight, shares follow what each can
    give, so that all are used for the same number of epochs; where one has, the others count 1."""
    keep: float = 1.0
    """Fraction of the subset's rows, chosen by a hash of the id; the others get the rule `keep`."""
    max_samples: int | None = None
    """Most samples, chosen likewise; the others get the rule `max_samples`. null: no cap."""
    max_epochs: float | None = None
    """Instead of the component's. null: the component's."""
    grade: int | None = None
    """Quality grade, looked up in the mixture's `grades`. null: no cap by grade."""
    category: str = ""
    """Kind of task (`OCR`, `Chart & Table`), for `limits`; empty: the component's."""


@dataclass(frozen=True, kw_only=True)
class Component:
    """One line of the mixture: what it is made of, and its share."""

    source: str
    """A name of `python -m pipelines sources`."""
    ratio: float
    """Its share of the mixture, in the unit of `measure`. 0 leaves the component out. A schedule,
    `{0: 0.3, 0.7: 0.3, 1: 0.05}` or a list of such pairs: the share after so much of the train
    split, linear between, a step where a position stands twice; the ratio is then its mean. `rest`
    (in one component): what the others leave, at every point."""
    schedule: list[list[float]] = field(default_factory=list, metadata=LATER)
    """Filled in where `ratio` states a schedule: its points. Not to be written."""
    subsets: dict[str, Subset] = field(default_factory=dict)
    """A list of names, or name -> settings. Empty: every subset of the source."""
    max_epochs: float = 1.0
    """How often a sample may be used: nothing is repeated unasked. Up to four epochs of repeated
    data are worth nearly as much as new data, more are not: Muennighoff et al. 2023,
    https://arxiv.org/abs/2305.16264."""
    repo: str = field(default="", metadata=LATER)
    """A dataset repository of the hub, `ORG/NAME` or `ORG/NAME@REVISION`, in place of the source's
    own; its configs are named as `subsets` (or `config: NAME`)."""
    split: str = field(default="", metadata=LATER)
    """The split that is read; `a+b`: both. Empty: train."""
    columns: dict[str, Any] = field(default_factory=dict, metadata=LATER)
    """Which column is what: of source `table` its mapping; of any other the source's own name of a
    column -> its name in these files (`{latex: formula}`), or a field inside one (`a.b`)."""
    data: str | None = None
    """A file, glob or folder (local or fsspec) in place of the hub repository."""
    media: str | None = None
    """The folder of the media where it is not beside the annotations."""
    licence: str = ""
    """Of your own files, in place of the source's: an SPDX name (`CC-BY-4.0`), or words. The card
    and the hub's header show it, `licenses` and limits go by it."""
    terms: list[str] = field(default_factory=list)
    """What that licence asks or forbids (`non-commercial`), as `licenses` may name it."""
    citation: str = ""
    """What a user of your own files is asked to cite; for the card."""
    frames: Frames = field(default_factory=Frames)
    """How videos become images."""
    placeholders: Literal["places", "literal"] = "places"
    """What `<image>` and `<video>` in the rows' texts are: the places of their media, where one
    without a medium rejects the row (`placeholder_mismatch`); or text that is meant."""
    filters: dict[str, Any] = field(default_factory=dict)
    """Rules of this component: added to the mixture's, settings laid over those of the same name;
    `false` turns a rule of the mixture off."""
    encoding: dict[str, Any] = field(default_factory=dict)
    """Settings of `encoding` for this component only (never those that rows share)."""
    tags: list[str] = field(default_factory=list)
    """Given to every sample beside its own tags."""
    learn: Literal["completions", "all"] | None = None
    """Which text is learned, in place of `encoding.learn`. null: as there."""
    category: str = ""
    """Kind of task, for `limits`."""
    priority: int = 0
    """Of two duplicates in different components, the one of the higher priority stays."""
    read: Read | None = None
    """How much of it is read, in place of the mixture's. null: as there."""
    annotations: Annotations | None = field(default=None, metadata=LATER)
    """Facts of its samples from files beside them, in place of the mixture's. null: as there; `{}`:
    none."""
    rewrites: list[str] | None = field(default=None, metadata=LATER)
    """Tables of texts that a model wrote for its samples, in place of the mixture's. null: as
    there; `[]`: none."""
    optional: bool = False
    """Where it cannot be read (media elsewhere, a closed gate) it is left out instead of refused,
    and its share goes to the components of `instead`."""
    instead: list[str] = field(default_factory=list)
    """The components that get its share where it is left out, in proportion to their ratios."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A cap over all components on samples that meet every condition stated."""

    max_ratio: float
    """Their largest share of the mixture, in the unit of `measure`."""
    tag: str = ""
    """Samples with this tag. With no condition at all: the limit's own name is the tag."""
    component: str = ""
    """Samples of this component."""
    modality: Modality = ""
    """Samples of this modality."""
    category: str = ""
    """Samples of this kind of task."""
    licence: str = ""
    """Samples of components under this licence."""
    min_seconds: float | None = None
    """Videos at least this long."""
    max_seconds: float | None = None
    """Videos shorter than this."""


@dataclass(frozen=True, kw_only=True)
class Licences:
    """Which licences may enter. Checked before anything runs."""

    allow: list[str] = field(default_factory=list)
    """Only these licences or terms; empty: any."""
    forbid: list[str] = field(default_factory=list)
    """None of these (`non-commercial`)."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """A page of YAML: which components, in which ratio, encoded how."""

    name: str = ""
    """The file's stem unless stated; finished mixtures and caches are called so."""
    description: str = ""
    """One sentence for the card."""
    plugins: list[str] = field(default_factory=list, metadata=LATER)
    """Python files (`./my_sources.py`, from this file's folder) and modules (`mypackage.rules`)
    that register sources, rules, scores and prompt tables. Their code is run."""
    variant_of: str = ""
    """The bundled mixture that this one stands in for where some of its sets are out of reach."""
    tokens: int | str = "max"
    """Tokens of the train split, whatever `measure` is; `max`: as many as the ratios allow."""
    measure: Measure = "tokens"
    """What a ratio counts."""
    val_fraction: float = 0.002
    """Chance of a sample to be of the val split, by a hash of its id, and val's share beside train:
    a component's val part is this fraction of its budget, each sample once."""
    seed: int = 17
    """Enters every hash of a sample id."""
    encoding: Any = None
    """How samples become ids: an instance of the type given to `load`."""
    filters: dict[str, Any] = field(default_factory=dict)
    """Rule -> settings, for every component, in this order; the first to fire is the reason."""
    weight_by: str = ""
    """A fact (`min_sharpness`, a rating) that weighs a sample's chance to be used where a component
    uses less than all; empty: all alike."""
    benchmarks: list[str] = field(default_factory=list)
    """Names of hash lists, or of a set of them (`smolvlm`), whose questions and images are kept
    out."""
    annotations: Annotations = field(default_factory=Annotations, metadata=LATER)
    """Facts of every component's samples from files beside them, for rules and `weight_by`."""
    rewrites: list[str] = field(default_factory=list, metadata=LATER)
    """Tables that `pipelines rewrite` wrote, local, in a store or on the hub, applied in this
    order: their texts take the place of those that were read, before any rule."""
    components: dict[str, Component] = field(default_factory=dict)
    """Name -> component; ratios sum to 1."""
    read: Read = "enough"
    """`enough`: of every component as many parts as cover its budget, in the order of a hash, so
    that cost follows what the mixture holds; duplicates are then found among what was read. `all`:
    every part, as with `weight_by`, which chooses between all that there is."""
    limits: dict[str, Limit] = field(default_factory=dict)
    """Name -> cap over all components, e.g. `cot: {max_ratio: 0.0005}`."""
    grades: dict[int, int] = field(default_factory=dict)
    """Quality grade -> most samples of a subset of that grade; the others get the rule `grade`."""
    licenses: Licences = field(default_factory=Licences)
    """Which licences may enter."""
    on_shortage: Literal["error", "shrink", "redistribute"] = "error"
    """When a component cannot fill its share: stop and say so, lower `tokens` until the ratios
    hold, or let the others fill the gap."""
    shard_bytes: int = 536_870_912
    """Bytes of media and ids that a shard aims at (512 MiB)."""


def schedules_of(mixture: Mixture) -> dict[str, list[list[float]]]:
    """Component -> the points of its ratio's schedule, of those that have one."""
    return {name: c.schedule for name, c in mixture.components.items() if c.schedule}


def rules_of(mixture: Mixture, component: str) -> dict[str, dict[str, Any]]:
    """Rule -> settings for the samples of `component`: the mixture's, its own laid over them."""
    rules = {name: dict(settings) for name, settings in mixture.filters.items()}
    own = mixture.components[component].filters
    for name, settings in own.items():
        if settings is False:
            rules.pop(name, None)
        else:
            rules[name] = {**rules.get(name, {}), **settings}
    if mixture.benchmarks and own.get("contaminated") is not False:
        lists, _ = hash_lists(mixture)
        if lists:
            rules["contaminated"] = {"benchmarks": lists, **rules.get("contaminated", {})}
    return rules


def hash_lists(mixture: Mixture) -> tuple[list[str], list[str]]:
    """(paths of the hash lists that `benchmarks` names, those of named sets that were not made).

    A list that the mixture names itself has to be there: reading it will tell.
    """
    made, unmade = [], []
    for name in mixture.benchmarks:
        paths = [list_path(name, benchmark) for benchmark in SETS.get(name, ())]
        made += [path for path in paths if Path(path).is_file()]
        unmade += [path for path in paths if not Path(path).is_file()]
        made += [] if paths else [hash_list_path(name)]
    return made, unmade


def hash_list_path(benchmark: str) -> str:
    """Where the hash list of a benchmark lies: a path as it is, a name in the folder `hashes`."""
    return benchmark if "/" in benchmark or "." in benchmark else f"hashes/{benchmark}.parquet"


def reads_all(mixture: Mixture, component: str) -> bool:
    """Whether all of the component is read, however little of it is used: where that is stated, or
    only all of it says how much is taken.
    """
    stated = mixture.components[component].read or mixture.read
    all_decides = mixture.tokens == "max" and mixture.on_shortage == "redistribute"
    return stated == "all" or bool(mixture.weight_by) or all_decides


def annotations_of(mixture: Mixture, component: str) -> Annotations:
    """The annotations of the samples of `component`; without `files`: none."""
    own = mixture.components[component].annotations
    return mixture.annotations if own is None else own


def rewrites_of(mixture: Mixture, component: str) -> list[str]:
    """The tables of rewritten texts of the samples of `component`."""
    own = mixture.components[component].rewrites
    return mixture.rewrites if own is None else own


def annotated_facts(mixture: Mixture) -> list[str]:
    """The facts that annotations give to samples of any component."""
    found = [annotations_of(mixture, name).fields for name in mixture.components]
    return list(dict.fromkeys(fact for fields in found for fact in fields))


def is_weighted(component: Component) -> bool:
    """Whether subsets have shares of their own inside the component."""
    return any(subset.weight is not None for subset in component.subsets.values())


def encoding_of(mixture: Mixture, component: str) -> Any:
    """The encoding of the samples of `component`: the mixture's with the component's changes."""
    changes = dict(mixture.components[component].encoding)
    if mixture.components[component].learn is not None:
        changes["learn"] = mixture.components[component].learn
    return dataclasses.replace(mixture.encoding, **changes)
