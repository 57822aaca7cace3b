"""What a mixture file may say: frozen dataclasses, read from YAML and `key=value` overrides.

    mixtures/NAME.yaml --+
    FILE.yaml ----------+--> plain mapping <-- key=value ...  --> Mixture, checked
                                                  (encoding: a dataclass type that is passed in)

Everything here says WHAT is in a mixture and bears its identity; where it runs (paths of work,
workers, Ray) is no field of it. Settings of filter rules are only shaped here (rule -> mapping);
`filters.validate` knows the rules. Every mistake is a ValueError that names the file and the key.

A file may say `base: NAME` and then only what differs from that file (which has no base itself):
this is how an ablation states its one difference, and cannot drift from what it ablates.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from mixtures.benchmark_sets import SETS, list_path
from mixtures.names import check_component, check_name, check_subset
from mixtures.reading import did_you_mean, find, override, read, with_base, write_out_short_forms

SHARED_ENCODING = (
    "tokenizer",
    "seq_len",
    "max_crops",
    "crop_size",
    "tokens_per_crop",
    "pack",
    "seed",
)
"""Settings of `encoding` that a component cannot change: samples of all components share rows."""

Measure = Literal["tokens", "samples", "learned_tokens"]
Modality = Literal["", "text", "image", "multi_image", "video"]
Read = Literal["enough", "all"]


LATER = {"identity": "where_changed"}
"""Of a setting that came after mixtures were finished: no part of their identity at its default."""


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
    """Its share of the mixture, in the unit of `measure`. 0 leaves the component out."""
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


def load(
    name_or_path: str,
    overrides: Sequence[str] = (),
    *,
    encoding: type,
    like: Callable[[str], Mapping[str, Any]] | None = None,
) -> Mixture:
    """The checked mixture of a bundled name or a file, with `key=value` overrides laid over it.

    `encoding` is the dataclass type of the `encoding` block; `like` gives the settings that
    `encoding: {like: CHECKPOINT}` stands for. Raises FileNotFoundError where there is no such file
    and ValueError for everything a user can get wrong in one.
    """
    path = find(name_or_path)
    raw = _filled(with_base(_filled(read(path), like, path), path), like, path)
    write_out_short_forms(raw)
    for assignment in overrides:
        key, equals, value = assignment.partition("=")
        if key == "encoding.like" and equals:
            stated = _filled({"encoding": {"like": value}}, like, assignment)["encoding"]
            raw["encoding"] = {**(raw.get("encoding") or {}), **stated}
        else:
            override(raw, assignment)
    name = str(raw.get("name") or Path(path).stem)
    components = raw.get("components")
    if isinstance(components, dict):
        for key in [
            k for k, c in components.items() if isinstance(c, dict) and c.get("ratio") == 0
        ]:
            del components[key]
            for other in components.values():
                if isinstance(other, dict) and key in (heirs := other.get("instead") or []):
                    other["instead"] = [heir for heir in heirs if heir != key]
    mixture = _typed({**raw, "name": name}, encoding=encoding, where=path)
    _check(mixture, encoding=encoding, where=path)
    return mixture


def _filled(
    raw: dict[str, Any], like: Callable[[str], Mapping[str, Any]] | None, where: str
) -> dict[str, Any]:
    """`encoding.like` replaced by what it stands for; settings beside it are laid over that."""
    block = raw.get("encoding")
    if not isinstance(block, dict) or "like" not in block:
        return raw
    own = {key: value for key, value in block.items() if key != "like"}
    if like is None or not isinstance(block["like"], str):
        raise ValueError(
            f"{where}: encoding.like is {block['like']!r}, expected a hub id or the folder of a "
            "SmolVLM checkpoint."
        )
    try:
        return {**raw, "encoding": {**like(block["like"]), **own}}
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def to_yaml(mixture: Mixture) -> str:
    """The resolved mixture as YAML that `load` reads back to an equal one."""
    return yaml.safe_dump(
        dataclasses.asdict(mixture), sort_keys=False, allow_unicode=True, width=100
    )


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


def is_weighted(component: Component) -> bool:
    """Whether subsets have shares of their own inside the component."""
    return any(subset.weight is not None for subset in component.subsets.values())


def encoding_of(mixture: Mixture, component: str) -> Any:
    """The encoding of the samples of `component`: the mixture's with the component's changes."""
    changes = dict(mixture.components[component].encoding)
    if mixture.components[component].learn is not None:
        changes["learn"] = mixture.components[component].learn
    return dataclasses.replace(mixture.encoding, **changes)


def check_licences(mixture: Mixture, terms: Mapping[str, Sequence[str]]) -> None:
    """No component is under a licence that `licenses` refuses, or ValueError names all that are.

    `terms`: component -> its licence and what that forbids (`CC-BY-NC-4.0`, `non-commercial`).
    """
    allow, forbid = mixture.licenses.allow, mixture.licenses.forbid
    refused = []
    for component in mixture.components:
        names = list(terms[component])
        bad = [name for name in names if name in forbid]
        if bad:
            refused.append(f"{component} ({', '.join(bad)}: in licenses.forbid)")
        elif allow and not any(name in allow for name in names):
            refused.append(f"{component} ({', '.join(names)}: not in licenses.allow)")
    if refused:
        raise ValueError(
            f"{mixture.name}: licences refused: {'; '.join(refused)}. "
            "Set these components' ratio to 0 and share it out, or change `licenses`."
        )


def _typed(raw: dict[str, Any], *, encoding: type, where: str) -> Mixture:
    """`raw` as a Mixture; unknown keys, wrong types and missing values are ValueErrors."""
    schema = OmegaConf.structured(Mixture)
    OmegaConf.set_readonly(schema, False)
    schema.encoding = OmegaConf.structured(encoding)
    try:
        mixture = OmegaConf.to_object(OmegaConf.unsafe_merge(schema, OmegaConf.create(raw)))
    except MissingMandatoryValue as error:
        key = str(error.full_key)
        raise ValueError(f"{where}: {key} is missing. Say `{key}: ...`.") from error
    except OmegaConfBaseException as error:
        raise ValueError(f"{where}: {_explained(error)}") from error
    assert isinstance(mixture, Mixture)
    return mixture


def _explained(error: OmegaConfBaseException) -> str:
    """What OmegaConf found wrong, as one sentence with the full key."""
    key, kind = str(error.full_key or error.key), error.object_type
    first = str(error).splitlines()[0]
    if "not in" in first and dataclasses.is_dataclass(kind):
        known = [f.name for f in dataclasses.fields(kind)]
        return f"unknown key {key!r}.{did_you_mean(str(error.key), known)}"
    return f"{key}: {first}."


def _check(mixture: Mixture, *, encoding: type, where: str) -> None:
    """Every number lies where it means something, or ValueError says which does not."""
    # Longer than a screen: a list of conditions and their messages.

    def expect(right: bool, key: str, found: object, expected: str) -> None:
        if not right:
            raise ValueError(f"{where}: {key} is {found}; expected {expected}.")

    check_name(mixture.name, key="name", where=where)
    tokens = mixture.tokens
    whole = isinstance(tokens, int) and not isinstance(tokens, bool) and tokens > 0
    expect(whole or tokens == "max", "tokens", repr(tokens), "a whole number above 0, or `max`")
    fraction = mixture.val_fraction
    expect(0 <= fraction <= 0.5, "val_fraction", fraction, "0 to 0.5")
    expect(mixture.seed >= 0, "seed", mixture.seed, "0 or more")
    expect(mixture.shard_bytes > 0, "shard_bytes", mixture.shard_bytes, "more than 0")
    expect(
        bool(mixture.components), "components", "empty", "at least one, with a source and a ratio"
    )
    _check_rules(mixture.filters, key="filters", off=False, where=where)
    for grade, most in mixture.grades.items():
        expect(most >= 0, f"grades.{grade}", most, "a number of samples, 0 or more")
    for name, limit in mixture.limits.items():
        expect(0 <= limit.max_ratio <= 1, f"limits.{name}.max_ratio", limit.max_ratio, "0 to 1")
        there = limit.component in {"", *mixture.components}
        expect(there, f"limits.{name}.component", repr(limit.component), "a component of the file")
    for name, component in mixture.components.items():
        key = f"components.{name}"
        check_component(name, key=key, where=where)
        expect(0 < component.ratio <= 1, f"{key}.ratio", component.ratio, "0 to 1")
        for heir in component.instead:
            there = heir in mixture.components and heir != name
            expect(there, f"{key}.instead", repr(heir), "other components of the file")
        both = bool(component.repo) and component.data is not None
        expect(not both, f"{key}.repo", component.repo, "repo or data, not both")
        told = bool(component.instead) or not component.optional
        expect(told, f"{key}.instead", "empty", "who gets the share of an optional component")
        epochs = component.max_epochs
        expect(epochs > 0, f"{key}.max_epochs", epochs, "more than 0")
        frames = component.frames
        expect(frames.fps > 0, f"{key}.frames.fps", frames.fps, "more than 0")
        expect(frames.max_frames > 0, f"{key}.frames.max_frames", frames.max_frames, "1 or more")
        _check_rules(component.filters, key=f"{key}.filters", off=True, where=where)
        _check_encoding(component.encoding, encoding=encoding, key=f"{key}.encoding", where=where)
        edge = component.encoding.get("longest_edge")
        crop = getattr(mixture.encoding, "crop_size", 1)
        largest = int(getattr(mixture.encoding, "longest_edge", 0))
        fits = edge is None or (isinstance(edge, int) and edge % crop == 0 and edge <= largest)
        expected = f"a multiple of crop_size ({crop} px), at most the mixture's {largest} px"
        expect(fits, f"{key}.encoding.longest_edge", edge, expected)
        for subset, settings in component.subsets.items():
            inner = f"{key}.subsets.{subset}"
            check_subset(subset, key=inner, where=where)
            expect(0 < settings.keep <= 1, f"{inner}.keep", settings.keep, "above 0, at most 1")
            for what in ("weight", "max_epochs", "max_samples"):
                value = getattr(settings, what)
                expect(value is None or value > 0, f"{inner}.{what}", value, "more than 0")
            graded = (
                settings.grade is None or not mixture.grades or settings.grade in mixture.grades
            )
            expect(graded, f"{inner}.grade", settings.grade, f"one of {sorted(mixture.grades)}")
    total = sum(component.ratio for component in mixture.components.values())
    if abs(total - 1) > 1e-6:
        ratios = ", ".join(f"{name} {c.ratio:g}" for name, c in mixture.components.items())
        raise ValueError(
            f"{where}: ratios sum to {total:.7g}, not 1 ({ratios}). "
            f"Dividing each by {total:.7g} keeps their proportions."
        )


def _check_rules(rules: Mapping[str, Any], *, key: str, off: bool, where: str) -> None:
    for rule, settings in rules.items():
        if not (isinstance(settings, dict) or (off and settings is False)):
            or_false = ", or `false` to turn the mixture's rule off" if off else ""
            raise ValueError(
                f"{where}: {key}.{rule} is {settings!r}; expected `setting: value` pairs"
                f" (`{{}}` for the defaults){or_false}."
            )


def _check_encoding(changes: Mapping[str, Any], *, encoding: type, key: str, where: str) -> None:
    for name in changes:
        if name in SHARED_ENCODING:
            raise ValueError(
                f"{where}: {key}.{name} is set for one component, but samples of all components "
                f"share packed rows; expected it in the mixture's `encoding`."
            )
    if not changes:
        return
    schema = OmegaConf.structured(encoding)
    OmegaConf.set_readonly(schema, False)
    try:
        OmegaConf.merge(schema, OmegaConf.create(dict(changes)))
    except OmegaConfBaseException as error:
        raise ValueError(f"{where}: {key}: {_explained(error)}") from error
