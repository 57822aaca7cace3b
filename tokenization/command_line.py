"""The grammar of both programs, `smolvlm-pipelines` and `smolvlm-trainer`, and what runs a command.

| written                                 | is                                               |
|-----------------------------------------|--------------------------------------------------|
| `key=value` `--key=value` `--key value` | a setting; `--max-new-tokens` is `max_new_tokens` |
| `--switch`                              | `switch=true`, where a setting is true or false  |
| `WORD`                                  | what stands without its key: `build FILE.yaml`   |
| `quiet` `json` `log_level`              | settings of every command                        |
| `--help` `--version`                    | also `-h` and `-V`; `help COMMAND`               |

Only the standard library is imported here, so that the first word comes at once.
"""

import difflib
import json
import logging
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from tokenization import machine
from tokenization.terminal import lay_out, logging_at, say, say_traceback, tells
from tokenization.version import __version__

DONE, FAULTS, MISTAKE, INCOMPLETE, INTERRUPTED, PREEMPTED = 0, 1, 2, 3, 130, 143
"""Exit statuses; 1 is Python's own of an exception, the last two are 128 + the signal."""
STATUSES = {
    DONE: "done",
    FAULTS: "`check` or `probe` found faults; or, with a traceback, a bug or the machine's fault",
    MISTAKE: "a mistake in words, settings or data: one message, no traceback",
    INCOMPLETE: "`judge` left samples without an answer: a budget was reached, or the endpoint "
    "does not answer; the same command goes on",
    INTERRUPTED: "stopped by Ctrl-C; what was finished stays, the same command goes on",
    PREEMPTED: "a training, sweep or search was told to leave (SIGTERM) and saved before it did; "
    "the same command goes on",
}
"""What each exit status says."""
SWITCHES = frozenset({"quiet", "json"})
"""Of every command."""
LEVELS = ("debug", "info", "warning", "error")
SETTING = re.compile(r"[A-Za-z_][^=/.]*(?:\.[^=]*)?=")
"""How `key=value` begins, and no path with an equals sign: only after a dot may a key hold a slash,
as names of subsets do."""


@dataclass(frozen=True)
class Answer:
    """What a command found: as text, and as data where it can be had as JSON."""

    text: str = ""
    data: Any = None
    status: int = DONE


@dataclass(frozen=True)
class Command:
    """A command: what it does and how it is called."""

    run: Callable[[list[str]], Answer | int]
    """Gets its words as `key=value`."""
    usage: str
    summary: str
    more: str = ""
    example: str = ""
    takes: tuple[str, ...] = ()
    """Keys of the settings that can stand without them, in this order."""
    switches: frozenset[str] = frozenset()
    """Keys of settings that are true or false."""
    json: bool = False
    """Its answer can be had as JSON."""
    slow: bool = False
    """Its first word is said before anything is imported."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program of several commands."""

    name: str
    """Of its package: `python -m NAME`."""
    script: str
    summary: str
    commands: Mapping[str, Command]
    is_mistake: Callable[[BaseException], bool]
    """Whether a ValueError or OSError is a mistake of the user's, which needs no traceback."""
    otherwise: str = ""
    """The command that is meant where none is named."""

    @property
    def called(self) -> str:
        """As it was called: by its script, or by `python -m`."""
        own = os.path.basename(sys.argv[0]) == self.script  # noqa: PTH119
        return self.script if own else f"python -m {self.name}"


def as_settings(
    words: Sequence[str], *, takes: Sequence[str], switches: frozenset[str]
) -> list[str]:
    """The words as `key=value`, in their order; words without a key get those of `takes`, in order,
    that are not given elsewhere.

    Raises:
        ValueError: a word that is no setting and that the command does not take.
    """
    found: list[tuple[str, str]] = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if word == "-q":
            found.append(("quiet", "true"))
        elif word.startswith("--") and len(word) > 2:
            key, equals, value = word[2:].partition("=")
            if not equals:
                value = _value_after(key, waiting, switches=switches)
            found.append((_key(key), value))
        elif SETTING.match(word):
            key, _, value = word.partition("=")
            found.append((_key(key), value))
        else:
            found.append(("", word))
    given = {key for key, _ in found}
    free = [key for key in takes if key not in given]
    settings = []
    for key, value in found:
        if not key and (not free or value.startswith("-")):
            raise ValueError(f"'{value}': expected key=value.")
        settings.append(f"{key or free.pop(0)}={value}")
    return settings


def _key(written: str) -> str:
    """`max-new-tokens` is `max_new_tokens`; names between dots stay as they are."""
    return written if "." in written else written.replace("-", "_")


def _value_after(key: str, waiting: list[str], *, switches: frozenset[str]) -> str:
    """The value of `--key`, taken from the words after it; `true` of a switch."""
    following = waiting[0] if waiting else "--"
    if _key(key) in switches | SWITCHES:
        return waiting.pop(0) if following.lower() in ("true", "false") else "true"
    if following.startswith("--") or SETTING.match(following):
        raise ValueError(f"--{key}: expected its value: --{key} VALUE, or {_key(key)}=VALUE.")
    return waiting.pop(0)


def help_text(program: Program) -> str:
    """What `--help` prints."""
    width = max(len(name) for name in program.commands)
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in program.commands.items()]
    more = _command_help(program, program.otherwise) + "\n\n" if program.otherwise else ""
    return (
        f"{program.called} COMMAND [key=value ...]\n\n"
        + (f"{program.summary}\n\n" if program.summary else "")
        + "\n".join(lines)
        + f"\n\n{more}{program.called} COMMAND --help says more, with an example.\n"
        "Settings are written key=value, --key=value or --key value. Of every command: quiet=true\n"
        "(the result alone), log_level=debug, and json=true where its help says so."
    )


def command_help(program: Program, name: str) -> str:
    """What `COMMAND --help` prints; of the command that need not be named, the whole help."""
    return help_text(program) if name == program.otherwise else _command_help(program, name)


def _command_help(program: Program, name: str) -> str:
    command = program.commands[name]
    summary = command.summary[0].upper() + command.summary[1:]
    parts = [f"{program.called} {command.usage}", summary + "."]
    if command.more:
        parts.append(command.more.strip("\n"))
    if command.json:
        parts.append("  --json           the answer as JSON on stdout, everything else on stderr")
    if command.example:
        parts.append(f"For example:\n  {program.called} {command.example}")
    return "\n\n".join(parts)


def command_and_words(program: Program, words: Sequence[str]) -> tuple[str, list[str]]:
    """The command that is named, after switches of every command at most, and the other words.

    Raises:
        ValueError: there is none of that name.
    """
    first = 0
    while first < len(words) and words[first].lstrip("-").partition("=")[0] in (*SWITCHES, "q"):
        first += 1
    name = words[first] if first < len(words) else ""
    if name in program.commands:
        return name, [*words[:first], *words[first + 1 :]]
    if program.otherwise:
        return program.otherwise, list(words)
    if name.endswith((".yaml", ".yml")):
        hint = f" Did you mean '{program.called} build {name}'?"
    else:
        close = difflib.get_close_matches(name, program.commands, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
    raise ValueError(f"unknown command '{name}'.{hint}\n\n{help_text(program)}")


def shared_settings(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """(quiet, json and log_level as given, the other words)."""
    shared = {"quiet": "false", "json": "false", "log_level": "info"}
    rest = []
    for word in words:
        key, _, value = word.partition("=")
        if key in shared:
            shared[key] = value.lower()
        else:
            rest.append(word)
    for key in SWITCHES:
        if shared[key] not in ("true", "false"):
            raise ValueError(f"{key}={shared[key]}: expected true or false.")
    if shared["log_level"] not in LEVELS:
        raise ValueError(f"log_level={shared['log_level']}: expected one of {', '.join(LEVELS)}.")
    return shared, rest


def run(program: Program, words: Sequence[str]) -> int:
    """Runs the command that the words name; returns the exit status."""
    machine.settle()
    if not words or words[0] in ("-h", "--help"):
        say(help_text(program))
        return DONE if words else MISTAKE
    if words[0] in ("-V", "--version", "version"):
        version = ".".join(map(str, sys.version_info[:3]))
        say(f"{program.script} {__version__} (Python {version})")
        return DONE
    name = ""
    try:
        if words[0] == "help":
            words = [*words[1:], "--help"]
            if len(words) == 1:
                say(help_text(program))
                return DONE
        name, rest = command_and_words(program, words)
        if {"-h", "--help"} & set(rest):
            say(command_help(program, name))
            return DONE
        return perform(program, name, rest)
    except KeyboardInterrupt:
        say("\nStopped. What was finished stays; the same command goes on from there.", error=True)
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has read enough
        sys.stdout = None  # type: ignore[assignment]
        return DONE
    except (ValueError, OSError) as error:
        if not program.is_mistake(error):
            raise
        width = shutil.get_terminal_size().columns if sys.stderr.isatty() else 0
        message = message_of(error, f"{program.name} {name}".rstrip())
        say(lay_out(message, width=width), error=True)
        return MISTAKE


def perform(program: Program, name: str, words: Sequence[str]) -> int:
    """The command has run and its answer is said; returns the exit status."""
    command = program.commands[name]
    shared, rest = shared_settings(
        as_settings(words, takes=command.takes, switches=command.switches)
    )
    wants_json = shared["json"] == "true"
    if wants_json and not command.json:
        can = ", ".join(name for name, other in program.commands.items() if other.json)
        raise ValueError(f"json=true: {name} has no answer in JSON (those have: {can or 'none'}).")
    level = (
        logging.WARNING
        if shared["quiet"] == "true"
        else getattr(logging, shared["log_level"].upper())
    )
    with logging_at(level, apart=wants_json):
        first = os.environ.get("RANK", "0") == "0"  # of torchrun's processes one speaks
        if command.slow and first and tells(program.name):
            say(" ".join([program.name, name, *rest]), error=True)
        answer = command.run(rest)
    if isinstance(answer, int):
        return answer
    if wants_json:
        if answer.data is not None:  # torchrun's other processes have none
            say(json.dumps(as_json(answer.data), indent=1, allow_nan=False, default=str))
    elif answer.text:
        say(answer.text)
    return answer.status


def as_json(value: Any) -> Any:
    """The value with null for numbers that are not finite, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: as_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def message_of(error: BaseException, where: str) -> str:
    """The error's text and its notes, after the program and its command."""
    text = str(error)
    short = where.rpartition(" ")[2]
    text = text.removeprefix(f"{short}: ")
    return "\n".join([f"{where}: {text}", *getattr(error, "__notes__", ())])


def leave(program: Program, main: Callable[[list[str]], int]) -> NoReturn:
    """The process ends with the status of `main` for its words."""
    sys.excepthook = say_traceback
    status = main(sys.argv[1:])
    if status == INTERRUPTED:
        # Ray's threads, cut short, can crash a Python that ends in order (seen: a segfault).
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(status)
    sys.exit(status)
