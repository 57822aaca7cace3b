"""One grammar, one set of exit statuses, for every command of both programs."""

import json
import logging
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.__main__ import PROGRAM as PIPELINES
from tokenization import command_line
from tokenization.command_line import Answer, Command, Program, as_settings, command_help
from tokenization.terminal import LONG, lay_out, log
from tokenization.version import __version__
from trainer.__main__ import PROGRAM as TRAINER

ROOT = Path(__file__).parents[2]
PROGRAMS = (PIPELINES, TRAINER)
EVERY = [(program, name) for program in PROGRAMS for name in program.commands]


def parsed(*words: str) -> list[str]:
    return as_settings(words, takes=("mixture", "output"), switches=frozenset({"overwrite"}))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["mixture=m.yaml", "workers=0"], ["mixture=m.yaml", "workers=0"]),
        (["m.yaml", "--workers=0"], ["mixture=m.yaml", "workers=0"]),
        (["--workers", "0", "m.yaml"], ["workers=0", "mixture=m.yaml"]),
        (["--mixture", "m.yaml", "out/x"], ["mixture=m.yaml", "output=out/x"]),
        (["mixture=m.yaml", "out/x"], ["mixture=m.yaml", "output=out/x"]),
        (["--overwrite", "m.yaml"], ["overwrite=true", "mixture=m.yaml"]),
        (["--overwrite", "false", "m.yaml"], ["overwrite=false", "mixture=m.yaml"]),
        (["m.yaml", "--quiet", "-q"], ["mixture=m.yaml", "quiet=true", "quiet=true"]),
        (["--shard-bytes", "5", "shard-bytes=6"], ["shard_bytes=5", "shard_bytes=6"]),
        (["--components.my-set.ratio", "0.2"], ["components.my-set.ratio=0.2"]),
        (["components.a.subsets.b/c.keep=1"], ["components.a.subsets.b/c.keep=1"]),
        (["out/a=b/m.yaml", "./c=d"], ["mixture=out/a=b/m.yaml", "output=./c=d"]),
        (["--data", "s3://b/x?a=b"], ["data=s3://b/x?a=b"]),
        (["--steps", "-1"], ["steps=-1"]),
        (["data="], ["data="]),
    ],
)
def test_words_are_settings_with_dashes_or_none(words, expected):
    assert parsed(*words) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "b", "c"], "'c': expected key=value."),
        (["mixture=a", "b", "c"], "'c': expected key=value."),
        (["-x"], "'-x': expected key=value."),
        (["--workers"], "--workers: expected its value: --workers VALUE, or workers=VALUE."),
        (["--workers", "--overwrite"], "--workers: expected its value"),
        (["--work-dir", "output=x"], "--work-dir VALUE, or work_dir=VALUE."),
        (["a", "b", "--mixture", "c"], "'b': expected key=value."),
    ],
)
def test_what_is_no_setting_is_named(words, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parsed(*words)


@pytest.mark.parametrize(("program", "name"), EVERY, ids=[name for _, name in EVERY])
def test_every_command_has_help_with_an_example_in_its_own_grammar(program, name, capsys):
    for words in ([name, "--help"], ["help", name], [name, "x=1", "-h"]):
        assert command_line.run(program, words) == 0
        assert capsys.readouterr().out.rstrip() == command_help(program, name)
    command = program.commands[name]
    assert max(map(len, command_help(program, name).splitlines())) <= 100
    assert f"For example:\n  python -m {program.name} {command.example}" in command_help(
        program, name
    )
    first, *words = shlex.split(command.example)
    words = words if first == name else [first, *words]
    settings = as_settings(words, takes=command.takes, switches=command.switches)
    assert settings[0].startswith(f"{command.takes[0]}=")


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_version_and_no_words(program, capsys):
    for words in (["--version"], ["-V"], ["version"]):
        assert command_line.run(program, words) == 0
        assert capsys.readouterr().out.startswith(f"{program.script} {__version__} (Python 3.")
    assert command_line.run(program, []) == 2


def answers(answer: Answer) -> Program:
    def story(words: list[str]) -> Answer:
        log("on the way")
        log("not as it should be", level=logging.WARNING)
        log("for the curious", level=logging.DEBUG)
        return answer

    command = Command(story, "story", "tell", json=True, slow=True)
    return Program(
        name="pipelines", script="s", summary="", commands={"story": command},
        is_mistake=lambda error: True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "out", "err"),
    [
        ([], "on the way\nthe end\n", "pipelines story\nnot as it should be\n"),
        (["quiet=true"], "the end\n", "not as it should be\n"),
        (["--quiet"], "the end\n", "not as it should be\n"),
        (["log_level=debug"], "on the way\nfor the curious\nthe end\n",
         "pipelines story\nnot as it should be\n"),
        (["--log-level", "error"], "the end\n", ""),
        (["--json"], '{\n "n": 3\n}\n', "pipelines story\non the way\nnot as it should be\n"),
        (["--json", "-q"], '{\n "n": 3\n}\n', "not as it should be\n"),
    ],
)  # fmt: skip
def test_what_is_told_and_where(words, out, err, capsys, monkeypatch):
    monkeypatch.setitem(globals(), "__name__", "pipelines.story")
    assert command_line.run(answers(Answer("the end", {"n": 3}, status=1)), ["story", *words]) == 1
    assert capsys.readouterr() == (out, err)
    assert command_line.run(answers(Answer("the end")), [*words, "story"]) in (0, 2)
    assert logging.getLogger("pipelines").level == logging.INFO


@pytest.mark.parametrize("words", [["--log-level", "loud"], ["quiet=perhaps"], ["json=1"]])
def test_unknown_levels_and_switches_are_refused(words, capsys):
    assert command_line.run(answers(Answer()), ["story", *words]) == 2
    assert "expected" in capsys.readouterr().err


def test_a_users_own_console_takes_over(capsys, monkeypatch):
    import io

    monkeypatch.setitem(globals(), "__name__", "trainer.story")
    own = logging.StreamHandler(stream := io.StringIO())
    logging.getLogger().addHandler(own)
    try:
        log("once")
    finally:
        logging.getLogger().removeHandler(own)
    assert stream.getvalue() == "once\n"
    assert capsys.readouterr() == ("", "")


def test_what_a_module_run_by_name_tells_is_of_its_package(tmp_path):
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "__init__.py").write_text("")
    (tmp_path / "trainer" / "__main__.py").write_text(
        "from tokenization.terminal import log\nlog('told \\x1b[2J')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "trainer"], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}, check=True,
    )  # fmt: skip
    assert done.stdout == "told \\u001b[2J\n"


def test_numbers_that_json_lacks_are_null(capsys):
    found = {"n": float("nan"), "deep": [{"m": (1.5, -math.inf)}]}
    assert command_line.run(answers(Answer("", found)), ["story", "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out) == {"n": None, "deep": [{"m": [1.5, None]}]}


def test_a_process_without_an_answer_says_nothing(capsys):
    assert command_line.run(answers(Answer()), ["story", "--json", "-q"]) == 0
    assert capsys.readouterr().out == ""


def test_every_command_of_the_trainer_answers_in_json():
    assert [name for name, command in TRAINER.commands.items() if not command.json] == []


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("m.yaml: short. As it is.", "m.yaml: short. As it is."),
        (
            "m.yaml: video is short\nfound: 240 M\nexpected: 300 M\nway out: lower it",
            "m.yaml: video is short\n  found:    240 M\n  expected: 300 M\n  way out:  lower it",
        ),
        (f"m.yaml: {'long ' * 20}end. Do this; Then that.",
         f"m.yaml: {'long ' * 20}end.\n  Do this;\n  Then that."),
        ("m.yaml: other:\n  a: 1 -> 2\nUse it.", "m.yaml: other:\n  a: 1 -> 2\nUse it."),
    ],
)  # fmt: skip
def test_long_messages_are_laid_out(message, shown):
    assert lay_out(message) == shown
    narrow = lay_out(message, width=40)
    assert narrow.split() == shown.split()
    assert len(shown) <= LONG or all(len(line) <= 40 for line in narrow.splitlines())


def ending(outcome: Answer | BaseException) -> Program:
    def end(words: list[str]) -> Answer:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return Program(
        name="trainer", script="s", summary="", commands={"end": Command(end, "end", "end")},
        is_mistake=lambda error: "bug" not in str(error),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "status", "said"),
    [
        (Answer("done"), 0, "done\n"),
        (BrokenPipeError(), 0, ""),
        (Answer("2 faults", status=1), 1, "2 faults\n"),
        (ValueError("end: here: short"), 2, "trainer end: here: short\n"),
        (FileNotFoundError("x is not there"), 2, "trainer end: x is not there\n"),
        (Answer("INCOMPLETE: 3", status=3), 3, "INCOMPLETE: 3\n"),
        (KeyboardInterrupt(), 130, "Stopped. What was finished stays"),
        (Answer("SIGTERM: saved", status=143), 143, "SIGTERM: saved\n"),
    ],
)
def test_every_exit_status_says_what_the_table_of_the_docs_says(
    outcome, status, said, capsys, monkeypatch
):
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # a broken pipe takes it away
    assert command_line.run(ending(outcome), ["end"]) == status
    told = capsys.readouterr()
    assert said in told.out + told.err
    page = (ROOT / "docs" / "commands.md").read_text()
    assert re.findall(r"^\| `(\d+)` \| (.+) \|$", page, re.MULTILINE) == [
        (str(number), text) for number, text in command_line.STATUSES.items()
    ]
    assert status in command_line.STATUSES


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ValueError, match="a bug"):
        command_line.run(ending(ValueError("a bug")), ["end"])


def test_the_changelog_begins_with_this_version():
    headings = re.findall(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == __version__
    assert headings == sorted(headings, key=lambda n: [*map(int, n.split("."))], reverse=True)


HEAVY = ("numpy", "polars", "pyarrow", "torch", "ray", "omegaconf", "yaml", "jinja2", "fsspec")
FIRST_WORD = """
import sys
from tokenization import terminal, command_line
from {name}.__main__ import main

def say(text, **where):
    print(text.split()[:2], [heavy for heavy in {heavy} if heavy in sys.modules])
    raise SystemExit

command_line.say = say
main({words})
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pipelines", ["--help"]), ("pipelines", ["--version"]), ("trainer", ["--help"]),
        ("trainer", ["evaluate", "--help"]), ("pipelines", ["build", "sft_v2"]),
        ("trainer", ["tiny", "data=x"]), ("trainer", ["average", "x"]),
    ],
)  # fmt: skip
def test_the_first_word_comes_before_anything_heavy(name, words):
    code = FIRST_WORD.format(name=name, heavy=HEAVY, words=words)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith(" []\n"), done.stdout


PROJECT = (ROOT / "pyproject.toml").read_text()


def test_both_programs_are_console_commands():
    for program in PROGRAMS:
        assert f'{program.script} = "{program.name}.__main__:program"' in PROJECT
