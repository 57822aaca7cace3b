"""Plugins: loaded, refused in one message, part of what determines a result, sent to workers."""

import pickle
import re
import subprocess
import sys
from pathlib import Path

import cloudpickle
import pytest

from mixtures.mixture_file import load
from pipelines import plugins
from pipelines.__main__ import main
from pipelines.engine import runner
from pipelines.report.card import card
from pipelines.report.finished import open_finished
from pipelines.survey import Place, survey
from tests.test_build import index_of
from tokenization.schema import Encoding

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plugins.md").read_text()
FILES = dict(re.findall(r"<!-- file (\S+) -->\n```\w+\n(.*?)```", PAGE, re.DOTALL))
SOURCE = """
from pipelines.sources.sample import Sample, Turn, source

@source("echo", version=1, layout="json", columns=("text",), files=("*.jsonl",))
def echo(row):
    \"\"\"A text and itself.\"\"\"
    return Sample(turns=(Turn("user", (row["text"],)), Turn("assistant", (row["text"],))))
"""


@pytest.fixture(autouse=True)
def _registries_as_they_were():
    before = {kind: dict(registry) for kind, registry in plugins.REGISTRIES.items()}
    path, modules = list(sys.path), set(sys.modules)
    yield
    plugins.LOADED.clear()
    runner.BEFORE_TASKS.clear()
    for kind, registry in plugins.REGISTRIES.items():
        registry.clear()
        registry.update(before[kind])
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith(("smolvlm_plugin", "theirs")):
            del sys.modules[name]


@pytest.fixture
def kitchen(tmp_path, monkeypatch):
    """The folder of docs/plugins.md."""
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fingerprints(path: Path) -> tuple[str, str, str, str]:
    """Of the mixture, and the folders of its samples, verdicts and tokens."""
    mixture = load(str(path), encoding=Encoding)
    plugins.use(mixture.plugins, beside=str(path.parent))
    found = survey(mixture, Place(output="out", beside=str(path.parent)))
    piece = found.pieces[0]
    return found.fingerprint, piece.samples, piece.verdicts, piece.tokens


def refusal(folder: Path, *names: str) -> str:
    """The message with which the command line refuses plugins, named in this order."""
    text = FILES["cooking.yaml"].replace("[./my_plugins.py]", f"[{', '.join(names)}]")
    (folder / "other.yaml").write_text(text)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        plugins.use(load(str(folder / "other.yaml"), encoding=Encoding).plugins,
                    beside=str(folder), where="other.yaml")  # fmt: skip
    return str(caught.value)


def test_the_example_of_the_page_builds(kitchen):
    assert main(["build", "mixture=cooking.yaml", "workers=0", "probe=false"]) == 0
    index = index_of(kitchen / "out" / "cooking")
    assert sorted(index["rule"].fill_null("kept")) == ["few_vowels", "kept", "kept", "shouting"]
    assert index["id"].to_list()[0] == "recipes/default/000000"
    assert set(index["tags"].explode()) == {"kitchen"}
    finished = open_finished(str(kitchen / "out" / "cooking"))
    told = finished.recipe["plugins"]["./my_plugins.py"]
    assert "rule shouting (version 1)" in told["registers"]
    assert finished.recipe["versions"]["prompts"]["cooking"][0]["table"] == "kitchen"
    assert told["content"] in card(finished.stats, finished.recipe)
    again = dict(finished.recipe["mixture"])
    assert again["plugins"] == ["./my_plugins.py"]
    plugins.use(())  # who has no plugin can look at what was made with one
    assert "Shouting." in card(finished.stats, finished.recipe)


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("version=1)\ndef kitchen", "version=2)\ndef kitchen", (True, True, True, True)),
        ('"You are a cook."', '"You are the cook."', (True, True, True, True)),
    ],
)
def test_a_version_and_an_edit_enter_the_fingerprint(kitchen, old, new, changed):
    before = fingerprints(kitchen / "cooking.yaml")
    assert fingerprints(kitchen / "cooking.yaml") == before
    file = kitchen / "my_plugins.py"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    after = fingerprints(kitchen / "cooking.yaml")
    assert tuple(a != b for a, b in zip(before, after, strict=True)) == changed


def test_only_what_is_made_with_a_plugin_bears_it_and_never_where_it_lies(kitchen, tmp_path):
    (kitchen / "echo.py").write_text(SOURCE)
    text = FILES["cooking.yaml"]
    both = kitchen / "both.yaml"
    both.write_text(text.replace("[./my_plugins.py]", "[./my_plugins.py, ./echo.py]"))
    assert fingerprints(both) == fingerprints(kitchen / "cooking.yaml")  # echo.py is not used
    (kitchen / "inside").mkdir()
    (kitchen / "my_plugins.py").rename(kitchen / "inside" / "my_plugins.py")
    moved = kitchen / "moved.yaml"
    moved.write_text(text.replace("./my_plugins.py", "inside/my_plugins.py"))
    (kitchen / "my_plugins.py").write_bytes((kitchen / "inside" / "my_plugins.py").read_bytes())
    assert fingerprints(moved) == fingerprints(kitchen / "cooking.yaml")
    (kitchen / "my_plugins.py").write_bytes(FILES["my_plugins.py"].replace("\n", "\r\n").encode())
    assert fingerprints(kitchen / "cooking.yaml") == fingerprints(moved)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("gone.py", None, ["no file", "other.yaml", "from the mixture's folder"]),
        ("theirs_gone.rules", None, ["no such module", "Install its package"]),
        ("bad.py", "x = 1\ny = nothing\n", ["fails, line 2", "NameError", "'nothing'"]),
        ("bad.py", "def f(:\n", ["fails, line 1", "SyntaxError"]),
        ("bad.py", "import no_such_package\n", ["line 1", "no_such_package"]),
        ("bad.py", "raise SystemExit(3)\n", ["SystemExit", "3"]),
        ("bad.py", SOURCE.replace('"echo"', '"cauldron"'), ["a source is called 'cauldron'"]),
        ("bad.py", "from filters import rule\n@rule()\ndef small_image():\n    '''S.'''\n",
         ["a rule is called 'small_image' already"]),
        ("bad.py", "from tokenization.prompts import prompt_table\n"
         "@prompt_table('smolvlm')\ndef f():\n    return {}\n",
         ["a prompt table is called 'smolvlm' already"]),
        ("bad.py", "from tokenization.prompts import prompt_table\n"
         "@prompt_table('mine')\ndef f():\n    return {'cooking': ['a']}\n",
         ["unknown kind of task 'cooking'", "conversation"]),
    ],
)  # fmt: skip
def test_a_missing_or_failing_plugin_is_one_message(kitchen, name, content, told):
    if content is not None:
        (kitchen / name).write_text(content)
    before = {kind: dict(registry) for kind, registry in plugins.REGISTRIES.items()}
    said = refusal(kitchen, f"./{name}" if name.endswith(".py") else name)
    assert "\n" not in said
    assert [words for words in told if words not in said] == []
    assert {kind: dict(registry) for kind, registry in plugins.REGISTRIES.items()} == before


def test_a_name_of_two_plugins_is_refused_and_a_folder_is_told_how(kitchen):
    (kitchen / "one.py").write_text(SOURCE)
    (kitchen / "two.py").write_text(SOURCE + "\n")
    assert "a source is called 'echo' already" in refusal(kitchen, "./one.py", "./two.py")
    (kitchen / "many").mkdir()
    assert "named as a module" in refusal(kitchen, "./many")


def test_the_command_line_says_it_and_ends_with_2(kitchen, capsys):
    (kitchen / "my_plugins.py").write_text("1 / 0\n")
    for command in ("plan", "build"):
        assert main([command, "mixture=cooking.yaml"]) == 2
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert "my_plugins.py' fails, line 1: ZeroDivisionError" in said


def test_each_mixture_has_its_own_and_an_edit_counts_in_the_same_process(kitchen):
    from pipelines.sources import SOURCES

    (kitchen / "one.py").write_text(SOURCE)
    plugins.use(["./one.py"], beside=str(kitchen))
    first = SOURCES["echo"]
    plugins.use(["./my_plugins.py"], beside=str(kitchen))
    assert "echo" not in SOURCES
    assert "recipes" in SOURCES
    plugins.use(["./one.py"], beside=str(kitchen))
    assert SOURCES["echo"] is first
    (kitchen / "one.py").write_text(SOURCE.replace("version=1", "version=2"))
    plugins.use(["./one.py"], beside=str(kitchen))
    assert SOURCES["echo"].version == 2


@pytest.fixture
def package(tmp_path):
    """A package of two modules, of which one imports the other, outside of every path."""
    root = tmp_path / "theirs_packages" / "theirs_kitchen"
    root.mkdir(parents=True)
    (root / "__init__.py").write_text("from theirs_kitchen import more\n")
    (root / "more.py").write_text("NAME = 'echo'\n")
    text = SOURCE.replace('"echo"', "more.NAME")
    (root / "sources.py").write_text(f"from theirs_kitchen import more\n{text}")
    return root


def test_workers_load_what_they_have_no_file_of(kitchen, package, tmp_path):
    sys.path.append(str(package.parent))
    plugins.use(["./my_plugins.py", "theirs_kitchen.sources"], beside=str(kitchen))
    (tmp_path / "sent").write_bytes(cloudpickle.dumps(runner.BEFORE_TASKS["plugins"]))
    away = tmp_path / "another machine"
    away.mkdir()
    code = (
        "import pickle, sys\n"
        "call = pickle.load(open(sys.argv[1], 'rb'))\n"
        "call(); call()\n"
        "from pipelines.sources import SOURCES; from filters import RULES\n"
        "from tokenization.prompts import TABLES\n"
        "print('echo' in SOURCES, 'recipes' in SOURCES, 'few_vowels' in RULES, 'kitchen' in TABLES)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "sent")],
        cwd=away, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["True"] * 4, done.stderr
    assert pickle.loads((tmp_path / "sent").read_bytes())


def test_installed_packages_are_loaded_by_their_entry_point(kitchen, package, monkeypatch):
    from pipelines.sources import SOURCES

    about = package.parent / "theirs-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    points = f"[{plugins.ENTRY_POINTS}]\nkitchen = theirs_kitchen.sources\n"
    (about / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(package.parent)
    assert main(["sources", "echo"]) == 0
    assert SOURCES["echo"].plugin
    (package / "sources.py").write_text("1 / 0\n")
    with pytest.raises(ValueError, match=r"named by the installed package theirs.*ZeroDivision"):
        plugins.use(())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_rays_workers_build_with_plugins(kitchen, package):
    """In a process whose current folder is another: neither file nor package is beside a worker."""
    text = FILES["cooking.yaml"].replace("my_plugins.py]", "my_plugins.py, theirs_kitchen.sources]")
    place = package.parent / "mixtures"
    place.mkdir()
    package.rename(place / "theirs_kitchen")
    echo = "\n  echo: {source: echo, data: e.jsonl, ratio: 0.5}\n"
    (place / "cooking.yaml").write_text(text.replace("ratio: 1}", "ratio: 0.5}").rstrip() + echo)
    (place / "e.jsonl").write_text("".join(f'{{"text": "Some words {n}"}}\n' for n in range(4)))
    for name in ("my_plugins.py", "recipes.jsonl"):
        (place / name).write_text(FILES[name])
    away = place.parent / "away"
    away.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "build", f"mixture={place}/cooking.yaml", "workers=1",
         "on_shortage=shrink"],
        cwd=away, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(index_of(away / "out" / "cooking")) == 8
