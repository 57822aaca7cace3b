"""An installed wheel is complete: commands, configs, tokenizer, templates; no checkout needed."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tokenization.version import __version__

ROOT = Path(__file__).parents[1]
DATA = (".yaml", ".xz", ".jinja", ".html", ".css", ".js", ".txt", ".json", ".csv", ".parquet")
"""Endings of what the packages read besides Python."""

EVERYTHING = """
import sys
from pathlib import Path

import pipelines, mixtures, filters, tokenization, trainer
from mixtures.mixture_file import load
from mixtures.reading import FOLDER
from tokenization.schema import Encoding
from tokenization.vocab import load_tokenizer
from trainer import config_file

for package in (pipelines, mixtures, filters, tokenization, trainer):
    assert Path(package.__file__).is_relative_to(sys.argv[1]), package.__file__
for file in sorted(FOLDER.rglob("*.yaml")):
    name = str(file.relative_to(FOLDER).with_suffix(""))
    assert load(name, encoding=Encoding).components
    print("mixture", name)
for file in sorted(config_file.CONFIGS.glob("*.yaml")):
    print("config", config_file.load(file.stem, {}).name)
print("tokens", len(load_tokenizer("builtin")))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the wheel's content and nothing else."""
    made = tmp_path_factory.mktemp("wheel")
    source = made / "source"  # setuptools writes build/ and *.egg-info beside what it builds
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    call([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(made), str(source)], made)
    (wheel,) = made.glob("*.whl")
    target = made / "installed"
    call([*pip, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)], made)
    return target


def call(command: list[str], folder: Path, **variables: str) -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **variables}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def python(installed: Path, folder: Path, *arguments: str) -> str:
    """What Python prints that finds the packages only in the installed folder."""
    return call([sys.executable, "-P", *arguments], folder, PYTHONPATH=str(installed))


@pytest.mark.slow
def test_every_file_that_the_packages_read_is_in_the_wheel(installed: Path) -> None:
    rooms = [path.name for path in installed.iterdir() if (ROOT / path.name).is_dir()]
    assert sorted(rooms) == ["filters", "mixtures", "pipelines", "tokenization", "trainer"]
    tracked = subprocess.run(
        ["git", "ls-files", "-z", *rooms], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    read = [name for name in tracked if name.endswith((".py", *DATA))]
    assert len(read) > 60
    assert [name for name in read if not (installed / name).is_file()] == []
    assert not list(installed.glob("tests*"))


@pytest.mark.slow
def test_the_commands_run_from_another_folder(installed: Path, tmp_path: Path) -> None:
    shown = python(installed, tmp_path, "-m", "pipelines", "--help")
    for command in ("build", "plan", "sources", "push", "show"):
        assert f"  {command}" in shown
        assert "key=value" in shown
        own = python(installed, tmp_path, "-m", "pipelines", command, "--help")
        assert own.startswith(f"python -m pipelines {command}")
    assert "cauldron" in python(installed, tmp_path, "-m", "pipelines", "sources")
    planned = python(installed, tmp_path, "-m", "pipelines", "plan", "mixture=sft_v2")
    assert "sft_v2" in planned
    assert "video" in planned
    assert "config=NAME" in python(installed, tmp_path, "-m", "trainer", "--help")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_console_commands_and_types_are_installed(installed: Path, tmp_path: Path) -> None:
    for script in ("smolvlm-pipelines", "smolvlm-trainer"):
        command = [sys.executable, str(installed / "bin" / script)]
        said = call([*command, "--version"], tmp_path, PYTHONPATH=str(installed))
        assert said.startswith(f"{script} {__version__} ")
        shown = call([*command, "--help"], tmp_path, PYTHONPATH=str(installed))
        assert shown.startswith(f"{script} COMMAND")
    for room in ("filters", "mixtures", "pipelines", "tokenization", "trainer"):
        assert (installed / room / "py.typed").is_file()
    (metadata,) = installed.glob("smolvlm_pipelines-*.dist-info/METADATA")
    assert f"\nVersion: {__version__}\n" in metadata.read_text()


@pytest.mark.slow
def test_mixtures_configs_and_the_tokenizer_load(installed: Path, tmp_path: Path) -> None:
    shown = python(installed, tmp_path, "-c", EVERYTHING, str(installed)).splitlines()
    for room, kind in (("mixtures", "mixture"), ("trainer", "config")):
        files = list((ROOT / room).rglob("*.yaml"))
        assert len([line for line in shown if line.startswith(kind)]) == len(files) > 0
    assert any(line.startswith("mixture ablations/") for line in shown)
    assert shown[-1] == "tokens 49280"


@pytest.mark.slow
def test_the_card_and_the_report_find_their_templates(
    installed: Path, mix: Path, tmp_path: Path
) -> None:
    page = python(
        installed, tmp_path, "-m", "pipelines", "show", str(mix), f"work={mix.parent / 'work'}",
        "--html",
    )  # fmt: skip
    assert "<style>" in (tmp_path / page.strip()).read_text()
    code = (
        "import sys; from pipelines.report.card import card;"
        "from pipelines.report.finished import open_finished;"
        "m = open_finished(sys.argv[1]); print(card(m.stats, m.recipe), end='')"
    )
    assert python(installed, tmp_path, "-c", code, str(mix)) == (mix / "README.md").read_text()
    run = (
        "from trainer.config import Config; from trainer.monitoring.page import page;"
        "print(page(Config(name='here'), [], [], steps=1, mixtures=['m']))"
    )
    assert "<h1>here</h1>" in python(installed, tmp_path, "-c", run)


THEIRS = """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"
[project]
name = "their-kitchen"
version = "2.0"
[project.entry-points."smolvlm_pipelines.plugins"]
kitchen = "their_kitchen.plugins"
[tool.setuptools]
packages = ["their_kitchen"]
"""


@pytest.mark.slow
def test_another_packages_plugins_are_found_where_both_are_installed(
    installed: Path, tmp_path: Path
) -> None:
    """docs/plugins.md, its file as a module of an installed package that no mixture names."""
    page = (ROOT / "docs" / "plugins.md").read_text()
    files = dict(re.findall(r"<!-- file (\S+) -->\n```\w+\n(.*?)```", page, re.DOTALL))
    theirs = tmp_path / "theirs" / "their_kitchen"
    theirs.mkdir(parents=True)
    (theirs.parent / "pyproject.toml").write_text(THEIRS)
    (theirs / "__init__.py").write_text("")
    (theirs / "plugins.py").write_text(files["my_plugins.py"])
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheels = tmp_path / "wheels"
    make = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels)]
    call([*make, str(theirs.parent)], tmp_path)
    (wheel,) = wheels.glob("*.whl")
    both = tmp_path / "environment"
    shutil.copytree(installed, both)
    call([*pip, "install", "--no-deps", "--no-index", "--target", str(both), str(wheel)], tmp_path)
    project = tmp_path / "project"
    project.mkdir()
    (project / "recipes.jsonl").write_text(files["recipes.jsonl"])
    mixture = files["cooking.yaml"].replace("plugins: [./my_plugins.py]\n", "")
    (project / "cooking.yaml").write_text(mixture)
    assert "recipes" in python(both, project, "-m", "pipelines", "sources")
    build = ("-m", "pipelines", "build", "mixture=cooking.yaml", "workers=1")
    assert "few_vowels 1, shouting 1" in python(both, project, *build)
    recipe = json.loads((project / "out" / "cooking" / "recipe.json").read_text())
    assert list(recipe["plugins"]) == ["their_kitchen.plugins"]


ALONE = """
import json, sys
from importlib.machinery import PathFinder

absent = set(json.loads(sys.argv[1]))
class Theirs:
    def find_spec(name, path=None, target=None):
        there = name.partition(".")[0] not in absent
        return PathFinder.find_spec(name, path, target) if there else None
    find_distributions = PathFinder.find_distributions
sys.meta_path[sys.meta_path.index(PathFinder)] = Theirs

from pathlib import Path
import trainer.loop, trainer.evaluation.evaluate, trainer.evaluation.score, trainer.average
from tokenization.inference import save_processing
from tokenization.schema import Encoding
from tokenization.vocab import load_tokenizer
from tokenization.processor import processor_of

save_processing(load_tokenizer("builtin"), Path(sys.argv[2]), encoding=Encoding())
print(type(processor_of(Path(sys.argv[2]))).__mro__[1].__name__)
"""
"""Run as where nothing is installed but what a wheel brings: the trainer, and its processor."""


def needed_by(requirements: list[str]) -> set[str]:
    """The distributions that these requirements bring, as they are installed here."""
    found: set[str] = set()
    waiting = [Requirement(each) for each in requirements]
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        extras = one.extras or {""}
        if name in found or (one.marker and not one.marker.evaluate()):
            continue
        found.add(name)
        with contextlib.suppress(metadata.PackageNotFoundError):
            theirs = [Requirement(each) for each in metadata.requires(one.name) or []]
            waiting += [
                each for each in theirs
                if not each.marker or any(each.marker.evaluate({"extra": e}) for e in extras)
            ]  # fmt: skip
            for each in theirs:
                each.marker = None
    return found


@pytest.mark.slow
@pytest.mark.parametrize("extra", ["train", "align"])
def test_what_the_trainer_needs_comes_with_its_extra(extra: str, tmp_path: Path) -> None:
    said = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    brought = needed_by([*said["dependencies"], *said["optional-dependencies"][extra]])
    absent = [
        name
        for name, owners in metadata.packages_distributions().items()
        if not {canonicalize_name(each) for each in owners} & {*brought, "smolvlm-pipelines"}
    ]
    assert {"hypothesis", "pytest"} <= set(absent)
    given = (json.dumps(absent), str(tmp_path))
    done = call([sys.executable, "-c", ALONE, *given], tmp_path, PYTHONPATH=str(ROOT))
    assert done.split()[-1] == "SmolVLMProcessor"
