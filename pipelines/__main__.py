"""The command line: `python -m pipelines COMMAND [key=value ...]`.

Exit status 0: done. 1: a bug or a fault of the machine, with a traceback that names stage and part.
2: a mistake of the user's, with one message that says where, what was found, what was expected and
the way out. Heavy packages are imported by the command that needs them.
"""

import difflib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipelines.arguments import (
    PLACE_KEYS,
    expanded,
    load_mixture_of,
    parse_bool,
    parse_folder_and_settings,
    parse_int,
    parse_number,
    parse_settings,
    place_of,
    split_settings,
)
from tokenization import machine
from tokenization.terminal import say, say_traceback

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 + SIGINT."""

PLACES = """  output=DIR       the finished mixture            (default: out/<mixture name>)
  work=DIR         the cache of samples, verdicts, tokens         (default: out/work)
  data=MIRROR      a local mirror of hub repositories: MIRROR/<org>/<name>/
  ray=local        local, auto (the running cluster), or a cluster's address
  workers=N        CPUs to use; 0: this process alone, without Ray     (default: all)
"""

SHOWN = """\
  row=N            a packed row, learned text coloured, special tokens visible  (default: 0)
  split=train      of which split the row is: train or val
  id=SAMPLE_ID     one sample: read from where, which rules fired, which shards hold it
  rule=NAME        examples of what a rule took
  component=NAME   packed samples of a component, or with rule= what the rule took of it
  work=DIR         where the build kept its samples                         (default: out/work)
  --html           write show.html, with the images, instead
  output=FILE      of --html                                               (default: show.html)
  full=true        of --html: the whole report, rejected samples with their content
"""


@dataclass(frozen=True)
class Command:
    """A subcommand: what it does and how it is called."""

    run: Callable[[list[str]], int]
    usage: str
    summary: str
    more: str = ""


def build(words: list[str]) -> int:
    """`build mixture=NAME|FILE.yaml [key=value ...]`."""
    from pipelines import main_path
    from pipelines.report import card

    settings, overrides = split_settings(words, {*PLACE_KEYS, "overwrite", "train", "probe"})
    mixture = load_mixture_of(settings, overrides)
    place = place_of(settings, mixture.name)
    stats = main_path.build(mixture, place)
    say(card.terminal_table(stats, output=place.output))
    if "train" in settings:
        command = [sys.executable, "-m", "trainer", f"config={settings['train']}"]
        return subprocess.call([*command, f"data={place.output}"])
    return 0


def probe(words: list[str]) -> int:
    """`probe mixture=NAME|FILE.yaml`."""
    from pipelines import probing

    settings, overrides = split_settings(words, set(PLACE_KEYS))
    mixture = load_mixture_of(settings, overrides)
    place = place_of(settings, mixture.name)
    findings = []
    for found in probing.probe(mixture, place):
        findings.append(found)
        result = found.fault or found.made or "ok"
        say(f"{found.component} {found.subset}: {result}", error=True)
    say(probing.report(findings, mixture, place))
    return 1 if probing.fails(findings, mixture) else 0


def plan(words: list[str]) -> int:
    """`plan mixture=NAME|FILE.yaml`."""
    from pipelines.estimate import plan as planned

    settings, overrides = split_settings(words, {*PLACE_KEYS, "hub", "gpu", "mfu"})
    if settings.get("mixture") == "all":
        say(overview_of(settings))
        return 0
    mixture = load_mixture_of(settings, overrides)
    place = place_of(settings, mixture.name)
    hub = parse_bool(settings.get("hub", "false"), "hub")
    mfu = parse_number(settings.get("mfu", "0.3"), "mfu")
    say(planned(mixture, place, hub=hub, gpu=settings.get("gpu", "H100"), mfu=mfu))
    return 0


def overview_of(settings: dict[str, str]) -> str:
    """A line per bundled mixture."""
    from pipelines.estimate import overview
    from pipelines.survey import Place
    from tokenization.schema import Encoding

    place = Place(output="out/all", data=expanded(settings.get("data", "")))
    return overview(place, encoding=Encoding)


def diff(words: list[str]) -> int:
    """`diff A B`."""
    from pipelines.report.diff import diff as differing

    if len(words) != 2:
        raise ValueError(f"diff takes two folders of finished mixtures, found {words}.")
    say(differing(*words))
    return 0


def push(words: list[str]) -> int:
    """`push DIR repo=ORG/NAME`."""
    from pipelines.push import push as pushed

    folder, settings = parse_folder_and_settings(
        words, {"repo", "private", "revision", "format", "terms", "dataset"}
    )
    if "repo" not in settings:
        raise ValueError("repo=ORG/NAME is missing.")
    chosen: dict[str, Any] = dict(settings)
    if "private" in chosen:
        chosen["private"] = parse_bool(chosen["private"], "private")
    say(pushed(folder, **chosen))
    return 0


def sources(words: list[str]) -> int:
    """`sources [NAME] [data=...]`."""
    from pipelines import catalogue

    if not words:
        say(catalogue.source_table())
        return 0
    settings = parse_settings(words[1:], {"data", "mirror"})
    say(
        catalogue.describe_source(
            words[0], data=settings.get("data"), mirror=settings.get("mirror")
        )
    )
    return 0


def hashes(words: list[str]) -> int:
    """`hashes NAME data=...`."""
    from mixtures.benchmark_sets import SETS
    from pipelines.hashes import hash_set
    from pipelines.hashes import hashes as hashed

    name, settings = parse_folder_and_settings(words, {"data", "output"})
    if name in SETS:
        say(hash_set(name, data=settings.get("data", "")))
        return 0
    if "data" not in settings:
        raise ValueError("data= is missing: a .tsv file, a folder of images, or Parquet files.")
    say(hashed(name, data=settings["data"], output=settings.get("output", "")))
    return 0


def show(words: list[str]) -> int:
    """`show DIR [row=N | id=ID | rule=NAME | component=NAME]`."""
    from pipelines.report.show import show as shown

    rest = [word for word in words if word != "--html"]
    known = {"row", "split", "id", "rule", "component", "work"}
    known |= {"output", "full"} if "--html" in words else set()
    folder, settings = parse_folder_and_settings(rest, known)
    chosen: dict[str, Any] = dict(settings)
    if "row" in chosen:
        chosen["row"] = parse_int(chosen["row"], "row")
    if "--html" in words:
        say(show_page(folder, chosen))
    else:
        say(shown(folder, **chosen, color=sys.stdout.isatty()))
    return 0


def show_page(folder: str, chosen: dict[str, Any]) -> str:
    """The path of a page that shows what was chosen."""
    from pipelines.engine import ownership, tables
    from pipelines.report.finished import open_finished
    from pipelines.report.page import page_of, report

    path = str(chosen.pop("output", "show.html"))
    ownership.claim_page(path)
    mixture, work = open_finished(folder), str(chosen.pop("work", "out/work"))
    full = parse_bool(chosen.pop("full", "false"), "full")
    page = report(mixture, work=work) if full else page_of(mixture, work=work, **chosen)
    tables.write_text(path, page)
    return path


def check(words: list[str]) -> int:
    """`check DIR [rows=N]`."""
    from pipelines.check import folder_faults

    folder, settings = parse_folder_and_settings(words, {"rows"})
    rows = parse_int(settings.get("rows", "64"), "rows")
    found = list(folder_faults(folder, rows=rows))
    for fault in found[:20]:
        say(fault)
    looked = "every row" if rows == 0 else f"{rows} rows of each shard"
    say(f"{folder}: {len(found)} faults" if found else f"{folder}: no fault ({looked} looked into)")
    return 1 if found else 0


def clean(words: list[str]) -> int:
    """`clean work=DIR [remove=true]`."""
    from pipelines.clean import clean as cleaned

    settings = parse_settings(words, {"work", "remove", "unfinished"})
    chosen = {key: parse_bool(settings.get(key, "false"), key) for key in ("remove", "unfinished")}
    say(cleaned(settings.get("work", "out/work"), **chosen))
    return 0


COMMANDS = {
    "build": Command(
        build,
        "build mixture=NAME|FILE.yaml [output=DIR] [key=value ...]",
        "make the mixture: shards, index, card",
        PLACES
        + "  overwrite=true   replace a finished mixture whose recipe differs\n"
        + "  train=CONFIG     train on it afterwards\n"
        + "  probe=false      do not look into what was never read before reading it in earnest\n"
        + "Any other key=value overrides the mixture's YAML: components.video.ratio=0.2",
    ),
    "plan": Command(
        plan,
        "plan mixture=NAME|FILE.yaml|all [key=value ...]",
        "what a build would do: supply, demand, size, time and training cost; runs nothing",
        PLACES
        + "  hub=true         ask the hub for its files, to know parts and bytes\n"
        + "  gpu=H100         for the training cost: A100, H100 or L4\n"
        + "  mfu=0.3          share of its peak that training reaches\n",
    ),
    "probe": Command(
        probe,
        "probe mixture=NAME|FILE.yaml [key=value ...]",
        "read a few rows of every subset: can it be built? exit status 1 where it cannot",
        PLACES,
    ),
    "sources": Command(
        sources,
        "sources [NAME] [data=DIR] [mirror=DIR]",
        "every source: repository, licence, access; or one, with its columns and a sample",
        "  data=DIR         files of one source, to show its first sample\n"
        "  mirror=DIR       or a mirror of hub repositories\n",
    ),
    "hashes": Command(
        hashes,
        "hashes NAME data=FILE.tsv|FOLDER|FILES.parquet [output=FILE]   or: hashes smolvlm",
        "make the hash list of a benchmark, to be named under `benchmarks:` of a mixture; or those "
        "of a set, fetched from VLMEvalKit's addresses",
        "  data=...         VLMEvalKit's TSV, a folder of images, or a hub dataset\n"
        "  output=FILE      (default: hashes/NAME.parquet)\n",
    ),
    "push": Command(
        push,
        "push DIR repo=ORG/NAME [private=true]",
        "publish a finished mixture, or a checkpoint, on the hub",
        """  private=true     only its owners see it
  revision=main    the branch to push to
  format=arrow     of the shards: arrow or parquet
  terms=accepted   you meet the terms of gated or restricted sources
  dataset=ORG/NAME of a checkpoint: the mixture it was trained on
""",
    ),
    "diff": Command(
        diff,
        "diff A B",
        "what differs between two finished mixtures",
    ),
    "show": Command(
        show,
        "show DIR [row=N | id=SAMPLE_ID | rule=NAME | component=NAME] [--html]",
        "look at packed rows as the model sees them, or at the story of a sample",
        SHOWN,
    ),
    "check": Command(
        check,
        "check DIR [rows=N]",
        "verify every contract of a finished mixture; exit status 1 with the faults",
        "  rows=N           rows of each shard to decode and verify; 0: all      (default: 64)\n",
    ),
    "clean": Command(
        clean,
        "clean work=DIR [remove=true]",
        "list (and remove) what no finished mixture or unfinished build needs in the cache",
        "  work=DIR         the cache                                     (default: out/work)\n"
        "  remove=true      remove what is listed\n"
        "  unfinished=true  and what builds that were cut short have made so far\n",
    ),
}


def help_text() -> str:
    """What `--help` prints."""
    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return (
        "python -m pipelines COMMAND [key=value ...]\n\n"
        + "\n".join(lines)
        + "\n\npython -m pipelines COMMAND --help says more."
    )


def command_of(name: str) -> Command:
    """The subcommand of that name; ValueError with the nearest one where there is none."""
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise ValueError(f"unknown command '{name}'.{hint}\n\n{help_text()}")
    return COMMANDS[name]


def main(words: list[str]) -> int:
    """Runs the command; returns the exit status."""
    machine.settle()
    if not words or words[0] in ("-h", "--help", "help"):
        say(help_text())
        return 0 if words else 2
    name, *rest = words
    try:
        command = command_of(name)
        if "-h" in rest or "--help" in rest:
            say(f"python -m pipelines {command.usage}\n\n{command.summary.capitalize()}.")
            say(command.more)
            return 0
        return command.run(rest)
    except KeyboardInterrupt:
        say(
            "\nStopped. What was finished stays; the same command goes on from there.",
            error=True,
        )
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has read enough
        sys.stdout = None  # type: ignore[assignment]
        return 0
    except (ValueError, OSError) as error:
        from pipelines.engine.tables import FileError

        if raised_by_stage(error) and not isinstance(error, FileError):
            raise
        say(f"pipelines {name}: {error_message(error)}", error=True)
        return 2


def raised_by_stage(error: BaseException) -> bool:
    """True of an exception that a stage raised: a bug or a fault, not the user's mistake."""
    return any(note.startswith("stage ") for note in getattr(error, "__notes__", ()))


def error_message(error: BaseException) -> str:
    """The error's text and its notes."""
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


if __name__ == "__main__":
    sys.excepthook = say_traceback
    status = main(sys.argv[1:])
    if status == INTERRUPTED:
        # Ray's threads, cut short, can crash a Python that ends in order (seen: a segfault).
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
