"""What is refused of a mixture whose keys and types are right: numbers and names that mean nothing.

Every message says the file and the key, what was found, and what was expected.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mixtures.annotated import check_annotations
from mixtures.config import Mixture, schedules_of
from mixtures.names import check_component, check_name, check_subset
from mixtures.reading import explained
from mixtures.schedule import constant, require_sums

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


def check(mixture: Mixture, *, encoding: type, where: str) -> None:
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
    check_annotations(mixture.annotations, key="annotations", where=where)
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
        if component.annotations is not None:
            check_annotations(component.annotations, key=f"{key}.annotations", where=where)
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
    _check_ratios(mixture, where=where)


def _check_ratios(mixture: Mixture, *, where: str) -> None:
    """Ratios sum to 1, those with a schedule at every point of the run."""
    if schedules := schedules_of(mixture):
        if mixture.on_shortage == "redistribute":
            raise ValueError(
                f"{where}: on_shortage is redistribute, but {', '.join(schedules)} "
                "has a schedule, which no longer holds where others fill a gap.\nway out: "
                "on_shortage: shrink keeps every ratio at every point; or state constant ratios."
            )
        every = {n: c.schedule or constant(c.ratio) for n, c in mixture.components.items()}
        require_sums(every, where=where)
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
        raise ValueError(f"{where}: {key}: {explained(error)}") from error
