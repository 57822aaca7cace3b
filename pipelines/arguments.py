"""The command line's words: `key=value` as settings, or a ValueError that says what to write."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.engine import private

PLACE_KEYS = frozenset({"mixture", "output", "work", "data", "ray", "workers"})
"""Settings that say what is built, and where."""


def parse_folder_and_settings(words: list[str], known: set[str]) -> tuple[str, dict[str, str]]:
    """The folder (or name), which may stand without its key, and the other settings."""
    settings = parse_settings(words, {*known, "folder", "name"})
    for key in ("folder", "name"):
        if key in settings:
            return settings.pop(key), settings
    raise ValueError(f"expected a folder or name first, found {' '.join(words[:1]) or 'nothing'}.")


def parse_settings(words: list[str], known: set[str]) -> dict[str, str]:
    """The settings, all of them known; else ValueError with the nearest one."""
    settings, rest = split_settings(words, known)
    if rest:
        key = rest[0].partition("=")[0]
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"Did you mean '{close[0]}'?" if close else f"Known: {', '.join(sorted(known))}."
        raise ValueError(f"unknown setting '{key}'. {hint}")
    return settings


def parse_number(word: str, key: str) -> float:
    """The number that `word` spells."""
    try:
        return float(word)
    except ValueError as error:
        raise ValueError(f"{key}={word}: expected a number.") from error


def parse_int(word: str, key: str) -> int:
    """The number that `word` spells."""
    if not word.isdigit():
        raise ValueError(f"{key}={word}: expected a whole number.")
    return int(word)


def split_settings(words: Sequence[str], known: set[str]) -> tuple[dict[str, str], list[str]]:
    """The settings among `known`, and the rest, which override the mixture's YAML.

    Raises:
        ValueError: a word that is not `key=value`.
    """
    settings, overrides = {}, []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"'{word}': expected key=value.")
        if key in known:
            settings[key] = value
        else:
            overrides.append(word)
    return settings, overrides


def mixture_of(settings: Mapping[str, str]) -> str:
    """The mixture that is named."""
    if "mixture" not in settings:
        raise ValueError("mixture=NAME or mixture=FILE.yaml is missing.")
    return settings["mixture"]


def load_mixture_of(name: str, overrides: Sequence[str]):  # type: ignore[no-untyped-def]
    """The mixture of that name or file, with the overrides."""
    from mixtures.mixture_file import load as load_mixture
    from mixtures.reading import find
    from tokenization.published import encoding_of
    from tokenization.schema import Encoding

    mixture = load_mixture(name, overrides, encoding=Encoding, like=encoding_of)
    mixture = private.mapped(mixture, found_path)
    load_plugins(mixture, find(name))
    return with_files_found(mixture, folder_of(find(name)))


def with_files_found(mixture: Any, beside: str) -> Any:
    """The mixture with its tokenizer, hash lists and models of rules where they are: from the
    current folder, as a component's `data`, or else from `beside`, the folder of its file.
    """
    from filters.rules import FILE_SETTINGS
    from mixtures.benchmark_sets import SETS
    from mixtures.config import hash_list_path

    def found(name: str, path: str) -> str:
        """Of `path` in `beside`, where it is there and not here; else the name as it is."""
        here, there = Path(path).expanduser(), Path(beside, path)
        if here.exists():
            return str(here) if path.startswith("~") else name
        return str(there) if beside and there.exists() else name

    def ruled(rules: Mapping[str, Any]) -> dict[str, Any]:
        return {
            rule: settled(own) if isinstance(own, Mapping) else own for rule, own in rules.items()
        }

    def settled(own: Mapping[str, Any]) -> dict[str, Any]:
        return {key: placed(own[key]) if key in FILE_SETTINGS else own[key] for key in own}

    def placed(value: Any) -> Any:
        if isinstance(value, str):
            return found(value, value)
        return [placed(path) for path in value] if isinstance(value, list) else value

    own = mixture.encoding.tokenizer
    return replace(
        mixture,
        encoding=mixture.encoding
        if own == "builtin"
        else replace(mixture.encoding, tokenizer=found(own, own)),
        benchmarks=[
            name if name in SETS else found(name, hash_list_path(name))
            for name in mixture.benchmarks
        ],
        filters=ruled(mixture.filters),
        components={
            name: replace(component, filters=ruled(component.filters))
            for name, component in mixture.components.items()
        },
    )


def load_plugins(mixture: Any, file: str) -> None:
    """The plugins that the mixture of this file names are loaded, and those of no other."""
    from pipelines import plugins

    plugins.use(mixture.plugins, beside=folder_of(file), where=file)


def folder_of(file: str) -> str:
    """The folder of a mixture's file; empty: it has none here."""
    return "" if "://" in file else str(Path(file).absolute().parent)


def found_path(text: str) -> str:
    """The text; of a path that was hidden in a finished mixture, the path it was on this machine.

    Raises:
        ValueError: it was hidden on another.
    """
    found = private.found_again(text)
    if found.startswith(private.PREFIX) and found == text:
        raise ValueError(
            f"{text} stands for a path of the machine on which the mixture was built, which is not "
            "published.\nway out: name your copy: components.NAME.data=PATH (or whichever key it "
            "is)."
        )
    return found


def place_settings(settings: Mapping[str, str], *keys: str) -> dict[str, Any]:
    """Where to run, of what is given: arguments of `pipelines.build`; only `keys`, if named."""
    keys = keys or ("output", "work", "data", "ray", "workers")
    found: dict[str, Any] = {key: settings[key] for key in keys if key in settings}
    return found | {key: parse_int(value, key) for key, value in found.items() if key == "workers"}


def switches_of(settings: Mapping[str, str], *keys: str) -> dict[str, Any]:
    """Those of the keys that are given, as booleans."""
    return {key: parse_bool(settings[key], key) for key in keys if key in settings}


def expanded(path: str) -> str:
    """The path with `~` as the user's home: shells leave it alone behind `=`."""
    return str(Path(path).expanduser()) if path.startswith("~") else path


def parse_bool(word: str, key: str) -> bool:
    """The boolean that `word` spells."""
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    raise ValueError(f"{key}={word}: expected true or false.")
