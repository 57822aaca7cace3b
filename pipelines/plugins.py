"""Plugins: other people's files and modules that register sources, rules, scores, prompt tables.

    plugins: [./my_sources.py, mypackage.rules] | installed packages (entry points) --use-->
        registries of this process; every worker does the same before its first task

| named              | is                                                | travels to workers as  |
|--------------------|---------------------------------------------------|------------------------|
| `./my_sources.py`  | a file beside the mixture or in the current       | its content            |
|                    | folder; it stands alone                           |                        |
| `mypackage.rules`  | a module that can be imported                     | the files of mypackage |
| group ENTRY_POINTS | such a module of an installed package             | the same               |

What a plugin registers bears its `version=` and a hash of the file in which it is registered: with
either another, what was made with it is made again. What that file imports does not count.
"""

import importlib
import importlib.metadata
import importlib.util
import sys
import tempfile
import traceback
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from filters import RULES
from pipelines.engine import runner
from pipelines.sources.sample import SOURCES
from tokenization.prompts import TABLES

ENTRY_POINTS = "smolvlm_pipelines.plugins"
"""The group under which an installed package names its modules of plugins."""
MOST_BYTES = 64 << 20
"""Of the files of a package that travel to workers; of a larger one none do."""
REGISTRIES: Mapping[str, dict[str, Any]] = {
    "source": SOURCES,
    "rule": RULES,
    "prompt table": TABLES,
}
UNPACKED: list[tempfile.TemporaryDirectory] = []
"""Where packages that came from the driver lie, until this process ends."""


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """What a worker needs to load it, too. Picklable."""

    name: str
    """As the mixture names it; of an entry point the module."""
    content: bytes
    """Of the file or module that is named."""
    is_file: bool
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Of a module: the files of its package, by their paths from where it is imported."""
    said_by: str = ""
    """The installed package whose entry point names it."""

    @property
    def digest(self) -> str:
        """16 hex digits of its content, whatever its line breaks."""
        return sha256(self.content.replace(b"\r\n", b"\n")).hexdigest()[:16]


@dataclass(frozen=True)
class Loaded:
    """A plugin that was loaded in this process, and what it registered: kind -> name -> what."""

    plugin: Plugin
    registered: dict[str, dict[str, Any]]


LOADED: dict[str, Loaded] = {}
"""By name."""


def use(names: Sequence[str], *, beside: str = "", where: str = "plugins") -> None:
    """The registries hold what is built in, what these plugins register, and what those of
    installed packages do; workers of builds from now on, too.

    Raises:
        ValueError: one is not there, fails, or registers a name that is taken.
    """
    wanted = [*installed(), *(found(name, beside=beside, where=where) for name in names)]
    plugins = {plugin.name: plugin for plugin in wanted}
    for name in LOADED.keys() - plugins.keys():
        put_out(LOADED[name])
    for plugin in plugins.values():
        load(plugin, where=where)
    runner.BEFORE_TASKS["plugins"] = partial(load_all, tuple(plugins.values()))


def load_all(plugins: Sequence[Plugin]) -> None:
    """The same, where the work is done."""
    for plugin in plugins:
        load(plugin, where="plugins")


def in_use() -> dict[str, dict[str, Any]]:
    """Plugin -> a hash of it and what it registers, of those that are in the registries."""
    told: dict[str, dict[str, Any]] = {}
    for name, loaded in LOADED.items():
        names = [
            f"{kind} {one} (version {thing.version})"
            for kind, things in loaded.registered.items()
            for one, thing in things.items()
            if one in REGISTRIES[kind] and REGISTRIES[kind][one] is thing
        ]
        if names:
            told[name] = {"content": loaded.plugin.digest, "registers": names}
    return told


# ------------------------------------------------------------------ where they are


def installed() -> list[Plugin]:
    """Those that installed packages name."""
    plugins = []
    points = importlib.metadata.entry_points(group=ENTRY_POINTS)
    for point in sorted(points, key=lambda point: (point.module, point.name)):
        package = str(point.dist.name) if point.dist is not None else point.name
        plugin = module_named(point.module, (), where=f"installed package {package}")
        plugins.append(replace(plugin, said_by=package))
    return plugins


def found(name: str, *, beside: str, where: str) -> Plugin:
    """The plugin that a mixture names."""
    if not name.endswith(".py") and "/" not in name:
        return module_named(name, [beside or ".", "."], where=where)
    path = Path(name).expanduser()
    tried = [path] if path.is_absolute() else [Path(beside or ".") / path, path]
    for place in tried:
        if place.is_file():
            return Plugin(name=name, content=place.read_bytes(), is_file=True)
    looked = " nor ".join(dict.fromkeys(str(place.absolute()) for place in tried))
    is_folder = any(place.is_dir() for place in tried)
    way = (
        "A folder is named as a module: plugins: [mypackage.rules]."
        if is_folder
        else "Expected a Python file, from the mixture's folder, or a module (mypackage.rules)."
    )
    raise ValueError(f"{where}: plugin {name!r}: no file {looked}. {way}")


def module_named(name: str, folders: Sequence[str], *, where: str) -> Plugin:
    """The plugin that is a module; `folders` are looked in where it is not installed."""
    for folder in ["", *folders]:
        if folder and (place := str(Path(folder).absolute())) not in sys.path:
            sys.path.append(place)
        if (origin := origin_of(name)) is not None:
            files = files_of(name, origin)
            return Plugin(name=name, content=origin.read_bytes(), is_file=False, files=files)
    raise ValueError(
        f"{where}: plugin {name!r}: no such module. Install its package, put it beside the "
        "mixture, or name a file: ./NAME.py."
    )


def origin_of(name: str) -> Path | None:
    """The file of a module, found without importing its package."""
    importlib.invalidate_caches()
    top, *inside = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not inside:
        return Path(spec.origin) if spec.origin and Path(spec.origin).is_file() else None
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, *inside)
        for place in (path.with_suffix(".py"), path / "__init__.py"):
            if place.is_file():
                return place
    return None


def files_of(name: str, origin: Path) -> dict[str, bytes]:
    """The files of the package that a module is in, by their paths from where it is imported."""
    top, *inside = name.split(".")
    if not inside and origin.name != "__init__.py":
        return {origin.name: origin.read_bytes()}
    root = next(folder for folder in origin.parents if folder.name == top)
    paths = [p for p in sorted(root.rglob("*")) if p.is_file() and "__pycache__" not in p.parts]
    if sum(path.stat().st_size for path in paths) > MOST_BYTES:
        return {}
    return {path.relative_to(root.parent).as_posix(): path.read_bytes() for path in paths}


# ------------------------------------------------------------------ loading


def load(plugin: Plugin, *, where: str) -> None:
    """What the plugin registers is in the registries; raises ValueError where it fails."""
    known = LOADED.get(plugin.name)
    if known is not None and (known.plugin.content, known.plugin.files) == (
        plugin.content,
        plugin.files,
    ):
        put_in(known, where=where)
        return
    if known is not None:
        put_out(LOADED.pop(plugin.name))
        drop_modules(plugin.name)
    before = {kind: dict(registry) for kind, registry in REGISTRIES.items()}
    try:
        (run_file if plugin.is_file else import_module)(plugin)
    except (Exception, SystemExit) as error:
        for kind, registry in REGISTRIES.items():
            registry.clear()
            registry.update(before[kind])
        drop_modules(plugin.name)
        raise failing(plugin.name, error, where=where, said_by=plugin.said_by) from error
    registered: dict[str, dict[str, Any]] = {}
    for kind, registry in REGISTRIES.items():
        for name in registry.keys() - before[kind].keys():
            registry[name] = replace(registry[name], plugin=digest_of(registry[name], plugin))
            registered.setdefault(kind, {})[name] = registry[name]
    LOADED[plugin.name] = Loaded(plugin, registered)


def digest_of(thing: Any, plugin: Plugin) -> str:
    """A hash of the file in which a source, rule or prompt table is registered."""
    made = getattr(thing, "adapter", None) or getattr(thing, "function", None)
    name = str(getattr(made, "__module__", None) or getattr(thing, "module", ""))
    file = getattr(sys.modules.get(name), "__file__", None)
    if plugin.is_file or not file or not Path(file).is_file():
        return plugin.digest
    return replace(plugin, content=Path(file).read_bytes()).digest


def put_in(loaded: Loaded, *, where: str) -> None:
    """What it registered is in the registries."""
    for kind, things in loaded.registered.items():
        for name, thing in things.items():
            if REGISTRIES[kind].setdefault(name, thing) is not thing:
                raise ValueError(
                    f"{where}: plugin {loaded.plugin.name!r} registers {kind} {name!r}, as another "
                    "plugin does. Call one of them otherwise."
                )


def put_out(loaded: Loaded) -> None:
    """What it registered is in no registry."""
    for kind, things in loaded.registered.items():
        for name, thing in things.items():
            if REGISTRIES[kind].get(name) is thing:
                del REGISTRIES[kind][name]


def run_file(plugin: Plugin) -> None:
    """The file's content is run as a module of its own."""
    module = types.ModuleType(module_name(plugin.name))
    module.__file__ = plugin.name
    sys.modules[module.__name__] = module
    exec(compile(plugin.content, plugin.name, "exec"), module.__dict__)


def module_name(name: str) -> str:
    """What the module of a file is called; a module by its own name."""
    is_file = name.endswith(".py") or "/" in name
    return f"smolvlm_plugin_{sha256(name.encode()).hexdigest()[:12]}" if is_file else name


def import_module(plugin: Plugin) -> None:
    """The module is imported: this machine's, where it is the driver's, else the driver's."""
    here = origin_of(plugin.name)
    same = here is not None and here.read_bytes() == plugin.content
    if same and plugin.files and here is not None:
        same = files_of(plugin.name, here) == plugin.files
    if not same:
        if not plugin.files:
            raise ValueError(
                f"the module is not (or is another) on this machine, and its package has more than "
                f"{MOST_BYTES:,} bytes, which do not travel: install it on every machine"
            )
        UNPACKED.append(tempfile.TemporaryDirectory(prefix="smolvlm-plugin-"))
        for name, data in plugin.files.items():
            path = Path(UNPACKED[-1].name, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        sys.path.insert(0, UNPACKED[-1].name)
        drop_modules(plugin.name)
        importlib.invalidate_caches()
    importlib.import_module(plugin.name)


def drop_modules(name: str) -> None:
    """Neither the module nor its package counts as imported."""
    top = module_name(name).partition(".")[0]
    for known in [known for known in sys.modules if known == top or known.startswith(f"{top}.")]:
        del sys.modules[known]


def failing(name: str, error: BaseException, *, where: str, said_by: str = "") -> ValueError:
    """The message that a plugin fails, with the line of it that did."""
    frames = traceback.extract_tb(error.__traceback__)
    base = name if name.endswith(".py") else f"/{name.replace('.', '/')}.py"
    own = [frame for frame in frames if frame.filename.endswith(base)]
    line = own[-1].lineno if own else getattr(error, "lineno", None)
    at = f", line {line}" if line else ""
    whose = f" (named by the installed package {said_by})" if said_by else ""
    told = " ".join(str(error).split()) or "no message"
    way = f" Mend or uninstall {said_by}." if said_by else ""
    return ValueError(
        f"{where}: plugin {name!r}{whose} fails{at}: {type(error).__name__}: {told[:400]}.{way}"
    )
