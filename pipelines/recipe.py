"""What determines a result, as a short hash; and which field changed when two hashes differ."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from filters.rules import FILE_SETTINGS
from mixtures.benchmark_sets import SETS

NAMES = ("name", "description", "variant_of", "plugins")
"""Fields of a mixture that say what it is called and what for; and which plugins it loads, of which
those that are used stand in `inputs` and `versions`."""


def to_json(value: Any, *, where: str = "value") -> Any:
    """`value` in JSON's terms: dataclasses as dicts, tuples as lists, keys as they come.

    Raises:
        TypeError: something in it has no stable identity (a function, a set, a path, NaN...).
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [f for f in dataclasses.fields(value) if not _at_later_default(f, value)]
        return {f.name: to_json(getattr(value, f.name), where=f"{where}.{f.name}") for f in fields}
    if isinstance(value, Mapping):
        return {_key(k, where): to_json(v, where=f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(v, where=f"{where}[{i}]") for i, v in enumerate(value)]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and value == value and abs(value) != float("inf"):
        return value
    raise TypeError(f"{where}: {type(value).__name__} {value!r} has no stable identity.")


def _at_later_default(field: dataclasses.Field, value: Any) -> bool:
    """A field that came after mixtures were finished, at the value that changes nothing."""
    if field.metadata.get("identity") != "where_changed":
        return False
    factory = field.default_factory
    default = field.default if factory is dataclasses.MISSING else factory()
    return bool(getattr(value, field.name) == default)


def _key(key: Any, where: str) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key)
    raise TypeError(f"{where}: key {key!r} is {type(key).__name__}, not str or int.")


def fingerprint(*values: Any) -> str:
    """16 hex digits of SHA-256 over the values; order of keys counts (rules have an order)."""
    text = json.dumps([to_json(v) for v in values], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def identity(content: Mapping[str, Any]) -> dict[str, Any]:
    """What of a recipe determines the mixture: not its name, description or package versions, the
    places of its files, nor the GPUs that its rules ask for, nor what would have happened had a
    component not been there.
    """
    mixture = {k: v for k, v in content["mixture"].items() if k not in NAMES}
    mixture["components"] = {
        name: {k: v for k, v in settings.items() if k not in ("optional", "instead")}
        for name, settings in mixture["components"].items()
    }
    mixture = _without(mixture, "num_gpus")
    mixture["components"] = _unplaced(mixture["components"])
    mixture = _without_files(mixture)
    mixture = _without_lists(mixture)
    if "tokenizer" in content["versions"]:  # its contents, wherever it lies
        mixture["encoding"] = {**mixture["encoding"], "tokenizer": None}
    return {"mixture": mixture, "inputs": content["inputs"], "versions": content["versions"]}


def _without_lists(mixture: Mapping[str, Any]) -> dict[str, Any]:
    """The same without the places of hash lists and models: `versions.rules` has their contents."""

    def placeless(rules: Mapping[str, Any]) -> dict[str, Any]:
        return {
            rule: {k: None if k in FILE_SETTINGS else v for k, v in own.items()}
            if isinstance(own, Mapping)
            else own
            for rule, own in rules.items()
        }

    found = {**mixture, "filters": placeless(mixture.get("filters") or {})}
    lists = mixture.get("benchmarks") or []
    found["benchmarks"] = [name if name in SETS else None for name in lists]
    found["components"] = {
        name: {**component, "filters": placeless(component.get("filters") or {})}
        for name, component in mixture["components"].items()
    }
    return found


def _without_files(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same without the places of annotations and of rewritten texts: `inputs` says what lies
    there.
    """
    found = dict(settings)
    if found.get("rewrites"):
        found["rewrites"] = len(found["rewrites"])
    if found.get("annotations"):
        found["annotations"] = {**found["annotations"], "files": None}
    return found


def _unplaced(components: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The components without the paths of their files: `inputs` says what lies there."""
    return {
        name: _without_files({**c, "data": None, "media": None}) for name, c in components.items()
    }


def _without(value: Any, key: str) -> Any:
    """The value with `key` left out of every mapping in it."""
    if isinstance(value, dict):
        return {k: _without(v, key) for k, v in value.items() if k != key}
    return [_without(v, key) for v in value] if isinstance(value, list) else value


def drift(recorded: Any, current: Any, *, where: str = "") -> list[str]:
    """One line per field that differs: where, the recorded value, the one now."""
    if isinstance(recorded, dict) and isinstance(current, dict):
        lines = []
        for key in [*recorded, *(k for k in current if k not in recorded)]:
            path = f"{where}.{key}" if where else key
            if key not in recorded:
                lines.append(f"{path}: new, now {_short(current[key])}")
            elif key not in current:
                lines.append(f"{path}: was {_short(recorded[key])}, now absent")
            else:
                lines += drift(recorded[key], current[key], where=path)
        if not lines and list(recorded) != list(current):
            lines.append(f"{where or 'the recipe'}: another order of keys ({', '.join(current)})")
        return lines
    if recorded != current:
        return [f"{where}: was {_short(recorded)}, now {_short(current)}"]
    return []


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
