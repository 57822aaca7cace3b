"""What a rule is: a function of keyword settings, found by its name.

A rule answers one question, "must this sample go?". The function's name is the reason that
verdicts, funnel and card show; the first paragraph of its docstring is what the card says about it.

| scope   | the function is                                  | applied by                        |
|---------|--------------------------------------------------|-----------------------------------|
| sample  | settings -> expression over facts, true = goes   | `judge`, part by part             |
| mixture | (verdicts of all parts, settings) -> ids that go | `mixture_applications`, once all  |
|         |                                                  | are judged                        |
| index   | settings -> expression over the index            | the build, when tokens are there  |

Every rule takes `mode` besides its own settings: `drop` (the default), or `mark`: fired and
counted, but the sample stays, so that a rule can be tried before it is trusted. Rules that can
repair take `mode: rewrite`: the sample stays, and what is wrong with it is taken out before it
becomes tokens.
"""

import difflib
import inspect
import json
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, get_args, get_origin

import fsspec
import polars as pl

Scope = Literal["sample", "mixture", "index"]

FILE_SETTINGS = ("benchmarks", "model", "image_model", "text_model", "tokenizer")
"""Settings whose values are paths: what lies there is identity, where it lies is not."""

PLACE_SETTINGS = ("num_gpus",)
"""Settings that say where a rule runs, not what it does: no identity."""

SLICE = 512
"""Samples that are judged at a time where rules read words: bounds what is remembered of them."""

JUDGE_VERSION = 2
"""Bumped when a fact, or how verdicts are put together, changes what `judge` writes."""


MAX_RADIUS = 8
MIN_SIMILARITY = 0.3
"""Bounds of what bands can find: at a radius of 8, 495 tables of 21 bits; at a similarity of 0.3,
bands of two bytes."""
_SHARES = ("share", "similarity", "ratio", "score")


@dataclass(frozen=True)
class Rule:
    """A registered rule."""

    name: str
    """The reason, everywhere."""
    function: Callable[..., Any]
    """Keyword settings in; what comes out depends on `scope`."""
    scope: Scope
    """When it can be applied: see the table above."""
    version: int
    """Bumped when the same settings on the same samples would give another answer."""
    needs: Callable[..., tuple[str, ...]]
    """Settings in; columns of VERDICTS that `judge` must fill for a mixture rule out."""
    score: Callable[..., Any] | None = None
    """Of a model-scored rule: (samples, settings) -> float per sample, the column "RULE.score"."""
    detail: Callable[..., Any] | None = None
    """Of a rule that says more than its name: (facts, settings) -> string per sample, or null."""
    reads: tuple[str, ...] = ()
    """The facts that `detail` reads; what it returns is the column "RULE.detail"."""
    reads_words: bool = False
    """It splits texts into words, slowly: samples are judged in slices, within which such rules
    share the words."""
    check: Callable[..., None] | None = None
    """(where, settings): raises where a file that the settings name is not what it should be."""
    rewrite: Callable[..., Any] | None = None
    """Of a rule that can repair: (samples, settings) -> samples, with the same rows."""
    hopeless: Callable[..., Any] | None = None
    """Of such a rule: settings -> expression, true where nothing would be left to keep."""
    plugin: str = ""
    """A hash of the plugin that registered it; empty: it is built in."""

    @property
    def sentence(self) -> str:
        """The first sentence of the docstring, on one line: what the card says."""
        text = " ".join((inspect.getdoc(self.function) or "").split("\n\n")[0].split())
        return text

    @property
    def settings(self) -> dict[str, inspect.Parameter]:
        """The rule's own keyword settings, in order; `run` is how, not what."""
        parameters = inspect.signature(self.function).parameters.values()
        keyword_only = (p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)
        return {p.name: p for p in keyword_only if p.name != "run"}

    @property
    def modes(self) -> tuple[str, ...]:
        """The values that its `mode` may take."""
        return ("drop", "mark", "rewrite") if self.rewrite else ("drop", "mark")


RULES: dict[str, Rule] = {}
"""Every rule by its name."""


def rule(
    *,
    scope: Scope = "sample",
    version: int = 1,
    needs: Callable[..., tuple[str, ...]] = lambda **_: (),
    score: Callable[..., Any] | None = None,
    detail: Callable[..., Any] | None = None,
    reads: tuple[str, ...] = (),
    reads_words: bool = False,
    check: Callable[..., None] | None = None,
    rewrite: Callable[..., Any] | None = None,
    hopeless: Callable[..., Any] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The decorated function is in RULES under its own name, and otherwise unchanged."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__
        if name in RULES:
            raise ValueError(f"a rule is called {name!r} already; choose another name")
        RULES[name] = Rule(
            name,
            function,
            scope,
            version,
            needs,
            score,
            detail,
            reads,
            reads_words,
            check,
            rewrite,
            hopeless,
        )
        return function

    return register


def check_patterns(at: str, *, patterns: tuple[str, ...]) -> None:
    """Every pattern is a regular expression as Polars reads them; else ValueError."""
    for pattern in patterns:
        try:
            pl.Series([""]).str.contains(pattern)
        except pl.exceptions.ComputeError as error:
            raise ValueError(
                f"{at}.patterns: {pattern!r} is no regular expression of Rust's regex syntax "
                f"({str(error).splitlines()[-1].strip()})."
            ) from error


def check_nearness(
    at: str, *, radius: int = 0, similarity: float = MIN_SIMILARITY, **_: Any
) -> None:
    """Near rows can be found without comparing all with all; else ValueError."""
    if radius > MAX_RADIUS:
        raise ValueError(
            f"{at}.radius is {radius}, expected at most {MAX_RADIUS} of 64 bits.\n"
            "way out: lower it. Beyond that, images that have little in common are near, and "
            "finding them takes ever longer."
        )
    if similarity < MIN_SIMILARITY:
        raise ValueError(
            f"{at}.similarity is {similarity}, expected {MIN_SIMILARITY} or more: below it too "
            "many must be compared with too many."
        )


def did_you_mean(found: str, known: list[str]) -> str:
    """The end of a message about a name that does not exist."""
    close = difflib.get_close_matches(found, known, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(sorted(known))}."


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, list | tuple) and all(_fits(v, get_args(hint)[0]) for v in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _spelled(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"a list of {_spelled(get_args(hint)[0])}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return {**words, dict: "`fact: {...}` pairs"}[hint]


def _check_setting(rule: Rule, name: str, value: Any, *, at: str) -> None:
    hint = typing.get_type_hints(rule.function)[name]
    if not _fits(value, hint):
        raise ValueError(
            f"{at}.{name} is {value!r} ({type(value).__name__}), expected {_spelled(hint)}."
        )
    if hint in (int, float):
        is_share = name.rsplit("_", 1)[-1] in _SHARES
        if value != value or value < 0 or (is_share and value > 1):
            expected = "a number from 0 to 1" if is_share else "a number that is not negative"
            raise ValueError(f"{at}.{name} is {value!r}, expected {expected}.")


def validate(filters: Mapping[str, Mapping[str, Any] | None], *, where: str) -> None:
    """Every rule exists and every setting has its type; else ValueError says what to do.

    `where` opens the message: the file and key, like "sft.yaml: components.video.filters".
    """
    for name, given in filters.items():
        at = f"{where}.{name}"
        if name not in RULES:
            raise ValueError(
                f"{where}: unknown rule {name!r}. {did_you_mean(str(name), list(RULES))}"
            )
        if given is not None and not isinstance(given, Mapping):
            raise ValueError(
                f"{at} is {given!r}, expected settings: {{}} or {{setting: value, ...}}."
            )
        found, known = dict(given or {}), RULES[name].settings
        mode = found.pop("mode", "drop")
        if mode not in RULES[name].modes:
            modes = ", ".join(RULES[name].modes)
            raise ValueError(f"{at}.mode is {mode!r}, expected one of {modes}.")
        for setting, value in found.items():
            if setting not in known:
                hint = did_you_mean(setting, [*known, "mode"])
                raise ValueError(f"{at}: unknown setting {setting!r}. {hint}")
            _check_setting(RULES[name], setting, value, at=at)
        missing = [k for k, p in known.items() if p.default is p.empty and k not in found]
        if missing:
            raise ValueError(
                f"{at}: needs {', '.join(missing)}. Write {name}: {{{missing[0]}: ...}}."
            )
        check = RULES[name].check
        if check is not None:
            check(at, **settings_of(name, given)[1])


def settings_of(name: str, given: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """(mode, the rule's own settings with defaults filled in), lists as tuples."""
    own = {k: p.default for k, p in RULES[name].settings.items() if p.default is not p.empty}
    own.update(given or {})
    mode = own.pop("mode", "drop")
    return mode, {k: tuple(v) if isinstance(v, list) else v for k, v in own.items()}


def identity(filters: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Any]:
    """Everything that determines what these rules do, JSON-able: their share of the fingerprint.

    Settings that name files (`model`, `benchmarks`) are followed by a digest of the content, so
    that another list under the same name is another fingerprint. `num_gpus` is not in it.
    """
    rules: list[dict[str, Any]] = []
    for name, given in filters.items():
        mode, own = settings_of(name, given)
        entry: dict[str, Any] = {"rule": name, "version": RULES[name].version, "mode": mode}
        if RULES[name].plugin:
            entry["plugin"] = RULES[name].plugin
        settings = {key: value for key, value in own.items() if key not in PLACE_SETTINGS}
        entry["settings"] = {key: _placeless(key, value) for key, value in settings.items()}
        rules.append(entry)
    return json.loads(json.dumps({"judge": JUDGE_VERSION, "rules": rules}))


def _placeless(setting: str, value: Any) -> Any:
    """The value; of a setting that names files, their contents' digests."""
    if setting not in FILE_SETTINGS:
        return value
    digests = []
    for path in [value] if isinstance(value, str) else value:
        with fsspec.open(path, "rb") as file:
            digests.append(sha256(file.read()).hexdigest())
    return digests
