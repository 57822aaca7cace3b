"""A mixture as a file: read, checked, and written so that it reads back equal.

    mixtures/NAME.yaml --+
    FILE.yaml ----------+--> plain mapping <-- key=value ...  --> Mixture, checked
                                                  (encoding: a dataclass type that is passed in)

A file may say `base: NAME` and then only what differs from that file (which has no base itself):
this is how an ablation states its one difference, and cannot drift from what it ablates.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from mixtures.checks import check
from mixtures.config import Mixture
from mixtures.exact import NotExactError, exact
from mixtures.reading import explained, find, override, read, with_base, write_out_short_forms
from mixtures.schedule import settle


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
        settle(components, where=path)
        for key in [
            k for k, c in components.items() if isinstance(c, dict) and c.get("ratio") == 0
        ]:
            del components[key]
            for other in components.values():
                if isinstance(other, dict) and key in (heirs := other.get("instead") or []):
                    other["instead"] = [heir for heir in heirs if heir != key]
    mixture = _typed({**raw, "name": name}, encoding=encoding, where=path)
    check(mixture, encoding=encoding, where=path)
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
    stated = dataclasses.asdict(mixture)
    for component in stated["components"].values():
        component["ratio"] = component.pop("schedule") or component["ratio"]
    return yaml.safe_dump(stated, sort_keys=False, allow_unicode=True, width=100)


def _typed(raw: dict[str, Any], *, encoding: type, where: str) -> Mixture:
    """`raw` as a Mixture; unknown keys, wrong types and missing values are ValueErrors."""
    with suppress(NotExactError):
        block = exact(raw.get("encoding", {}), encoding)
        mixture: Mixture = exact({**raw, "encoding": None}, Mixture)
        return dataclasses.replace(mixture, encoding=block)
    schema = OmegaConf.structured(Mixture)
    OmegaConf.set_readonly(schema, False)
    schema.encoding = OmegaConf.structured(encoding)
    try:
        found = OmegaConf.to_object(OmegaConf.unsafe_merge(schema, OmegaConf.create(raw)))
    except MissingMandatoryValue as error:
        key = str(error.full_key)
        raise ValueError(f"{where}: {key} is missing. Say `{key}: ...`.") from error
    except OmegaConfBaseException as error:
        raise ValueError(f"{where}: {explained(error)}") from error
    assert isinstance(found, Mixture)
    return found
