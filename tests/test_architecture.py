"""ARCHITECTURE, section 2, executable: who imports whom, and where heavy packages come in."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("mixtures", "filters", "tokenization", "pipelines", "trainer")
MAY_IMPORT = {
    "mixtures": set(),
    "filters": set(),
    "tokenization": set(),
    "pipelines": {"mixtures", "filters", "tokenization"},
    "trainer": {"tokenization"},
}
FLOORS = {
    "pipelines": [
        ("__main__",),
        ("api",),  # what Python programs call
        ("finished_mixture",),
        (
            *("arguments", "catalogue", "check", "estimate", "hashes"),  # commands
            *("push", "served"),
        ),
        ("export",),  # shards -> what other trainers read
        ("main_path",),
        ("enough",),  # which parts are read
        ("unpublished", "shard_tasks"),
        (
            "alike",
            "annotation_counts",
            "availability",
            "clean",
            "contamination",
            "fact_counts",
            "index",
            "preconditions",
            "probing",
            "readiness",
        ),
        ("near", "whole_mixture"),
        ("survey",),
        ("stages", "ids", "plugins", "revisions"),
        ("reading",),  # repository -> rows -> samples
        ("media",),  # bytes -> what is known of an image or a video
        ("report",),  # index and shards -> what a person looks at
        ("sources",),  # a row of one layout -> Sample
        ("revised",),  # samples with what models wrote for them
        ("engine",),  # tasks, tables, progress
        ("recipe",),
    ],
    "trainer": [
        ("__main__",),
        ("api",),  # what Python programs call
        ("search",),  # which ratios are tried, and what they show
        ("ablation",),  # runs with identity, arms times seeds
        ("cluster",),
        ("loop", "average", "align"),
        ("evaluation.measure",),  # a saved checkpoint is measured, and told of
        ("monitoring.reporter",),
        ("inputs",),  # all that a run reads, opened before its first step
        ("monitoring",),
        ("evaluation",),
        ("model.initial",),  # what a run starts from: a checkpoint, too
        ("model.published",),
        ("saving",),
        ("checkpoint",),
        ("monitoring.card",),  # a checkpoint's own README.md
        ("state",),
        ("step", "optim"),
        ("model",),
        ("data",),
        ("parallel",),
        ("config", "config_file", "arguments", "usage"),
    ],
}
"""From the top down, by the longest name that fits."""
SITES = {
    "ray": {"pipelines/engine/runner.py", "trainer/cluster.py"},
    "datasets": {
        "pipelines/finished_mixture.py",
        "pipelines/reading/hub.py",
        "trainer/align/with_trl.py",
    },
    "trl": {"trainer/align/with_trl.py"},
    "decord": {"pipelines/media/by_decord.py"},
    "av": {"pipelines/media/video.py"},
    "datatrove": {"filters/datatrove.py"},
}
PRINTING = ("print", "sys.stdout.write", "sys.stderr.write", "warnings.warn")
HEAVY = ("torch", "ray", "datasets", "transformers", "av", "datatrove", "pandas", "scipy")


@cache
def tree_of(path: Path) -> ast.Module:
    """The file's tree, the same every time."""
    return ast.parse(path.read_text())


@cache
def imports(path: Path) -> tuple[str, ...]:
    """The modules that a file imports."""
    names: list[str] = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.append(node.module or "")
    return tuple(names)


def files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_the_rooms_below_them(room):
    allowed = MAY_IMPORT[room] | {room}
    found = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files(room)
        for name in imports(path)
        if name.split(".")[0] in set(ROOMS) - allowed
    }
    assert not found


@pytest.mark.parametrize("house", FLOORS)
def test_arrows_go_down(house):
    """A file imports from its own floor or from floors below it.

    `FLOORS` is CONTRIBUTING's table of rooms, executable.
    """
    upward = [
        f"{path.relative_to(ROOT)} ({house} floor {floor_of(house, module(path))}: "
        f"{', '.join(FLOORS[house][floor_of(house, module(path))])}) imports {name}, which is on "
        f"floor {floor_of(house, name)} above: move what is shared down, or the caller up"
        for path in files(house)
        for name in modules_imported(path)
        if name.split(".")[0] == house and floor_of(house, name) < floor_of(house, module(path))
    ]
    assert not upward


@pytest.mark.parametrize("house", FLOORS)
def test_every_file_is_in_a_room_of_a_floor(house):
    for path in files(house):
        if module(path) != house:
            floor_of(house, module(path))


def module(path: Path) -> str:
    """`pipelines.media.video`; a package by its own name."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def modules_imported(path: Path) -> Iterator[str]:
    """The modules of ours that a file imports, `from room import module` as the module."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ROOMS:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                there = ROOT.joinpath(*name.split("."))
                is_module = there.with_suffix(".py").exists() or there.is_dir()
                yield name if is_module else str(node.module)


def floor_of(house: str, name: str) -> int:
    """The floor of a module, 0 at the top: that of the longest fitting name in FLOORS."""
    inside = name.removeprefix(house).removeprefix(".")
    found = [
        (len(room), floor)
        for floor, rooms in enumerate(FLOORS[house])
        for room in rooms
        if inside == room or inside.startswith(f"{room}.")
    ]
    if not found:
        if name == house:  # the public names of its __init__.py
            return 0
        raise AssertionError(f"{name}: on no floor; give it a room in FLOORS (CONTRIBUTING.md)")
    return max(found)[1]


@pytest.mark.parametrize("package", SITES)
def test_a_heavy_package_has_one_import_site(package):
    found = {
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in files(room)
        if package in {name.split(".")[0] for name in imports(path)}
    }
    assert found == SITES[package]


def test_one_function_prints():
    """What is shown is escaped: tokenization/terminal.py."""
    found = {
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in files(room)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in PRINTING
    }
    assert found == {"tokenization/terminal.py"}


def test_torch_comes_in_only_where_models_run():
    found = {
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in files(room)
        if "torch" in {name.split(".")[0] for name in imports(path)}
    }
    elsewhere = {name for name in found if not name.startswith("trainer/")}
    assert elsewhere == {"pipelines/served/by_transformers.py"}


def test_importing_the_pipeline_imports_nothing_heavy():
    code = (
        "import sys, pipelines.__main__, pipelines.main_path\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("room", ROOMS)
def test_every_file_says_what_it_is(room):
    without = [str(path.relative_to(ROOT)) for path in files(room) if not docstring(path)]
    assert not without


def docstring(path: Path) -> str | None:
    return ast.get_docstring(tree_of(path))


def test_no_file_of_ours_names_a_path_of_a_machine():
    out = subprocess.run(
        [
            "git",
            "grep",
            "-nIE",
            r"(/root/|/home/[a-z]+/|/tmp/bash)",
            "--",
            "*.py",
            "*.md",
            "*.yaml",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    assert not [line for line in out.splitlines() if "test_architecture.py" not in line]


@pytest.mark.parametrize("path", sorted(ROOT.glob("benchmarks/[a-z]*.py")), ids=lambda p: p.stem)
def test_benchmarks_use_names_that_exist(path):
    """They run by hand alone; what they import from the project is looked up here."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ROOMS:
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
