"""Mixture files as plain mappings: found by name, laid over their base, overridden, written out.

    name or path --find--> file --read--> mapping --base--> mapping <--override-- key=value

Nothing here knows which keys a mixture may have; `config.py` does. A mixture file is data that
people share: nothing in it is resolved or interpolated, and it is as large as a page.
"""

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

NAMING = frozenset(
    ("components", "subsets", "limits", "filters", "tags", "benchmarks", "allow", "forbid", "terms")
)
"""Keys whose keys or members are names, whatever YAML would make of them."""
FOLDER = Path(__file__).parent
"""Where the mixtures that ship with the package lie."""
MOST_CHARACTERS, MOST_NODES = 1 << 20, 100_000
"""Of a mixture file, at most: characters, and values when its aliases are written out."""


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown `word`: the nearest known one, else all of them."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if near:
        return f" Did you mean {near[0]!r}?"
    return f" Known: {', '.join(sorted(known)) or 'none'}."


def bundled_mixtures() -> list[str]:
    """Names of the mixtures that ship with the package, as `load` takes them."""
    return sorted(
        path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml")
    )


def variants_of(name: str) -> list[str]:
    """Names of the bundled mixtures that say `variant_of: NAME`."""
    files = ((known, FOLDER / f"{known}.yaml") for known in bundled_mixtures())
    said = re.compile(rf"^variant_of: {re.escape(name)}$", re.MULTILINE)
    return [known for known, path in files if said.search(path.read_text(encoding="utf-8"))]


def find(name_or_path: str) -> str:
    """Path or URL of the file that a name or path means."""
    if "://" in name_or_path:
        return name_or_path
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        if path.is_file():
            return str(path)
        raise FileNotFoundError(
            f"mixture file {name_or_path} not found. Expected a YAML file, or one of the bundled "
            f"names: {', '.join(bundled_mixtures())}."
        )
    inside = FOLDER / f"{name_or_path}.yaml"
    if inside.is_file():
        return str(inside)
    raise FileNotFoundError(
        f"mixture {name_or_path!r} not found in {FOLDER}."
        f"{did_you_mean(name_or_path, bundled_mixtures())} A file of your own ends in .yaml."
    )


def read(path: str) -> dict[str, Any]:
    """The mapping that a YAML file holds."""
    if "://" in path:
        import fsspec

        with fsspec.open(path, "r", encoding="utf-8") as file:
            text = file.read()
    else:
        text = Path(path).read_text(encoding="utf-8")
    if len(text) > MOST_CHARACTERS:
        raise ValueError(
            f"{path}: {len(text):,} characters; a mixture has at most {MOST_CHARACTERS:,}."
        )
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_explosion(root)
        raw = _plain(OmegaConf.create(with_names(text, root)))
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as YAML: {error}") from error
    refuse_interpolation(raw, where=path)
    if not isinstance(raw, dict) or not text.strip():
        raise ValueError(f"{path}: expected `key: value` lines at the top, found {text[:40]!r}.")
    return raw


def with_names(text: str, root: yaml.Node | None) -> str:
    """The YAML text, which `root` is, with every name in quotes, of components, subsets, tags, ...:
    by itself YAML reads `no` as false, `2014` as a number and `null` as nothing.
    """
    if not isinstance(root, yaml.MappingNode):
        return text
    for key, components in root.value:
        if key.value == "components" and isinstance(components, yaml.MappingNode):
            for _, component in components.value:
                if isinstance(component, yaml.MappingNode):
                    component.value = [
                        (name, _as_pairs(value) if name.value == "ratio" else value)
                        for name, value in component.value
                    ]
    _quote_names(root)
    return str(yaml.serialize(root, Dumper=yaml.SafeDumper, allow_unicode=True))


def _quote_names(node: yaml.Node) -> None:
    """Names below the node are strings: keys of NAMING, what stands in lists of NAMING, and all
    that stands under `columns`, `config` and `split`.
    """
    if isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _quote_names(value)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if key.value in ("columns", "config", "split"):
            _quote_all(value)
            continue
        named: list[yaml.Node] = []
        if key.value in NAMING and isinstance(value, yaml.MappingNode):
            named = [name for name, _ in value.value if name.value != "<<"]
        elif key.value in NAMING and isinstance(value, yaml.SequenceNode):
            named = value.value
        for name in named:
            _quote(name)
        _quote_names(value)


def _as_pairs(node: yaml.Node) -> yaml.Node:
    """A mapping as a list of its pairs, so that a key may stand twice: a step of a schedule."""
    if not isinstance(node, yaml.MappingNode):
        return node
    pairs = [yaml.SequenceNode("tag:yaml.org,2002:seq", list(pair)) for pair in node.value]
    return yaml.SequenceNode("tag:yaml.org,2002:seq", pairs)


def _quote(node: yaml.Node) -> None:
    """A scalar is a string."""
    if isinstance(node, yaml.ScalarNode):
        node.tag, node.style = "tag:yaml.org,2002:str", "'"


def _quote_all(node: yaml.Node) -> None:
    """Every scalar in the node is a string."""
    inside = node.value if isinstance(node, yaml.SequenceNode | yaml.MappingNode) else []
    for part in inside:
        for each in part if isinstance(part, tuple) else [part]:
            _quote_all(each)
    _quote(node)


def _refuse_explosion(node: yaml.Node | None) -> None:
    """Raises ValueError where aliases (`*name`) would become more than MOST_NODES values."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            return sizes[id(node)]
        sizes[id(node)] = MOST_NODES + 1  # while it is counted: an alias of what it lies in
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            parts = node.value
        sizes[id(node)] = 1 + sum(map(size, parts))
        return sizes[id(node)]

    if node is not None and size(node) > MOST_NODES:
        raise ValueError(f"its aliases (`*name`) stand for more than {MOST_NODES:,} values")


def refuse_interpolation(value: Any, *, where: str, key: str = "") -> None:
    """Raises ValueError where a text in the value holds `${`: OmegaConf would put something there,
    a variable of the environment, say, which then stands in everything that is published.
    """
    if isinstance(value, dict):
        for name, each in value.items():
            refuse_interpolation(name, where=where, key=key)
            refuse_interpolation(each, where=where, key=f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            refuse_interpolation(each, where=where, key=f"{key}[{number}]")
    elif isinstance(value, str) and "${" in value:
        raise ValueError(
            f"{where}: {key} holds '${{'. Nothing is interpolated in a mixture, which is data that "
            "people share.\nway out: write the value itself, or give it on the command line: "
            f"{key}=VALUE."
        )


def with_base(raw: dict[str, Any], path: str) -> dict[str, Any]:
    """`raw` laid over the file that its `base` names, if it names one."""
    if "base" not in raw:
        return raw
    base_path = find(str(raw["base"]))
    base = read(base_path)
    if "base" in base:
        raise ValueError(
            f"{path}: its base {base_path} has a base itself; expected a complete mixture there."
        )
    write_out_short_forms(base)
    return _laid_over(base, {key: value for key, value in raw.items() if key != "base"})


def _laid_over(below: dict[str, Any], above: Mapping[Any, Any]) -> dict[str, Any]:
    """`below` with the values of `above`; mappings are merged, everything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = _laid_over(old, value) if both else value  # type: ignore[arg-type]
    return merged


def override(raw: dict[str, Any], override: str) -> None:
    """`raw` with one `key.key=value` laid over it; the value is read as YAML."""
    if "=" not in override or override.startswith("="):
        raise ValueError(f"override {override!r}: expected key=value, with dots inside the key.")
    try:
        parsed = _plain(OmegaConf.from_dotlist([override]))
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise ValueError(f"override {override!r}: value not readable as YAML: {error}") from error
    refuse_interpolation(parsed, where=f"override {override!r}")
    named = parsed.get("components")
    known = raw.get("components")
    if isinstance(named, dict) and isinstance(known, dict):
        for component, settings in named.items():
            new = component not in known and isinstance(settings, dict) and "source" not in settings
            if new:
                raise ValueError(
                    f"override {override!r}: the mixture has no component {component!r}."
                    f"{did_you_mean(str(component), [str(k) for k in known])} A new one is "
                    f"started with components.{component}.source=NAME."
                )
    merged = _laid_over(raw, parsed)
    write_out_short_forms(merged)
    raw.clear()
    raw.update(merged)


def write_out_short_forms(raw: dict[str, Any]) -> None:
    """Short forms written out in place: lists of subsets, settings left empty, whole tokens."""
    tokens = raw.get("tokens")
    if isinstance(tokens, float) and tokens.is_integer():
        raw["tokens"] = int(tokens)
    if isinstance(raw.get("grades"), dict):  # on the command line every key is text
        raw["grades"] = {
            int(key) if isinstance(key, str) and key.isdigit() else key: most
            for key, most in raw["grades"].items()
        }
    blocks = [raw, *_mappings(raw.get("components"))]
    for block in blocks:
        if isinstance(block.get("filters"), dict):
            block["filters"] = {
                rule: {} if settings is None else settings
                for rule, settings in block["filters"].items()
            }
        for key in (
            "filters",
            "encoding",
            "components",
            "limits",
            "grades",
            "subsets",
            "frames",
            "columns",
        ):
            if key in block and block[key] is None:
                block[key] = {}
    named = raw.get("components")
    for name, component in named.items() if isinstance(named, dict) else ():
        if not isinstance(component, dict):
            continue
        where = f"components.{name}."
        _write_out_config(component)
        for key in ("subsets", "tags", "terms"):
            _refuse_values(component.get(key), f"{where}{key}")
        subsets = component.get("subsets")
        _refuse_no_subsets(subsets, f"{where}subsets")
        if isinstance(subsets, list) and all(isinstance(name, str) for name in subsets):
            component["subsets"] = {name: {} for name in subsets}
        elif isinstance(subsets, dict):
            component["subsets"] = {
                name: {} if settings is None else settings for name, settings in subsets.items()
            }


def _write_out_config(component: dict[str, Any]) -> None:
    """`config: NAME` is the one subset of that name."""
    if "config" not in component:
        return
    name = component.pop("config")
    if component.get("subsets"):
        raise ValueError("config and subsets are the same: state one of them.")
    _refuse_values(name if isinstance(name, list) else [name], "config")
    component["subsets"] = name if isinstance(name, list) else {str(name): {}}


def _refuse_no_subsets(subsets: object, where: str) -> None:
    """Raises ValueError where `subsets` is a name, a value, or says of a name but a number."""
    found = None
    if isinstance(subsets, str | int | float):
        found = f"{where} is {subsets!r}"
    elif isinstance(subsets, dict):
        odd = [(n, s) for n, s in subsets.items() if s is not None and not isinstance(s, dict)]
        found = f"{where}.{odd[0][0]} is {odd[0][1]!r}" if odd else None
    if found is not None:
        raise ValueError(
            f"{found}; expected a list of names, or a mapping of names to their settings."
            f"\nway out: write {where}: [en, 'no'], or {where}: {{en: {{weight: 2}}, 'no': {{}}}}"
        )


def _refuse_values(names: object, key: str) -> None:
    """Raises ValueError where a list of names holds what YAML took for something else."""
    if isinstance(names, list | tuple | dict):
        for name in names:
            if not isinstance(name, str):
                found = "null" if name is None else str(name).lower()
                raise ValueError(
                    f"{key}: found {found} among the names; YAML reads no, yes, on, off, null and "
                    f"numbers as values. Put the name in quotes, as in {key}: ['no']."
                )


def _plain(config: Any) -> Any:
    """The dicts and lists that an OmegaConf node holds."""
    return OmegaConf.to_container(config, resolve=False)


def _mappings(block: object) -> list[dict[str, Any]]:
    return [c for c in block.values() if isinstance(c, dict)] if isinstance(block, dict) else []


def explained(error: OmegaConfBaseException) -> str:
    """What OmegaConf found wrong, as one sentence with the full key."""
    key, kind = str(error.full_key or error.key), error.object_type
    first = str(error).splitlines()[0]
    if "not in" in first and dataclasses.is_dataclass(kind):
        known = [f.name for f in dataclasses.fields(kind)]
        return f"unknown key {key!r}.{did_you_mean(str(error.key), known)}"
    return f"{key}: {first}."
