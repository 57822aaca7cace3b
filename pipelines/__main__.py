"""The command line: `smolvlm-pipelines COMMAND ...`, or `python -m pipelines COMMAND ...`.

Grammar, help and exit statuses are those of both programs (tokenization/command_line.py). Heavy
packages are imported by the command that needs them.
"""

import subprocess
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from pipelines.arguments import (
    PLACE_KEYS,
    expanded,
    mixture_of,
    parse_bool,
    parse_folder_and_settings,
    parse_int,
    parse_number,
    parse_settings,
    place_settings,
    split_settings,
    switches_of,
)
from pipelines.served.help import ASKED, FACTS, WRITTEN
from tokenization import command_line
from tokenization.command_line import DONE, FAULTS, INCOMPLETE, Answer, Command, Program
from tokenization.terminal import CONSOLE, log, say, tells

if TYPE_CHECKING:
    from pipelines.served.counts import Asked

BUILD_SWITCHES = ("overwrite", "probe", "report")
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


def build(words: list[str]) -> Answer:
    """`build FILE.yaml [key=value ...]`."""
    settings, overrides = split_settings(words, {*PLACE_KEYS, "train", *BUILD_SWITCHES})
    from pipelines import api

    finished = api.build(
        mixture_of(settings), overrides=overrides, **place_settings(settings),
        **switches_of(settings, *BUILD_SWITCHES),
    )  # fmt: skip
    if "train" in settings:
        log(str(finished))
        command = [sys.executable, "-m", "trainer", f"config={settings['train']}"]
        status = subprocess.call(
            [*command, f"data={finished.folder}"], stdout=sys.stderr if CONSOLE.apart else None
        )
        return Answer("", finished.data(), status=status)
    return Answer(str(finished), finished.data())


def probe(words: list[str]) -> Answer:
    """`probe FILE.yaml`."""
    settings, overrides = split_settings(words, set(PLACE_KEYS))
    from pipelines import api

    place = place_settings(settings, "output", "work", "data")
    for found in api.probing(mixture_of(settings), overrides=overrides, **place):
        if isinstance(found, api.Probed):
            return Answer(str(found), found.data(), status=DONE if found.can_be_built else FAULTS)
        if tells("pipelines"):
            result = found.fault or found.made or "ok"
            say(f"{found.component} {found.subset}: {result}", error=True)
    raise AssertionError("probing ends with what it found")


def plan(words: list[str]) -> Answer:
    """`plan FILE.yaml`."""
    settings, overrides = split_settings(words, {*PLACE_KEYS, "hub", "gpu", "mfu"})
    from pipelines import api

    if settings.get("mixture") == "all":
        from pipelines.estimate import overview_table

        lines = api.plan_all(data=settings.get("data", ""))
        return Answer(overview_table(lines), lines)
    planned = api.plan(
        mixture_of(settings), overrides=overrides, gpu=settings.get("gpu", "H100"),
        mfu=parse_number(settings.get("mfu", "0.3"), "mfu"), **switches_of(settings, "hub"),
        **place_settings(settings, "output", "work", "data"),
    )  # fmt: skip
    return Answer(str(planned), planned.data())


def diff(words: list[str]) -> Answer:
    """`diff A B`."""
    from pipelines.report.diff import diff as differing

    settings = parse_settings(words, {"first", "second"})
    if len(settings) != 2:
        given = " ".join(settings.values()) or "none"
        raise ValueError(f"diff takes two folders of finished mixtures, found {given}.")
    found = differing(**settings)
    return Answer(str(found), found.data())


def push(words: list[str]) -> Answer:
    """`push DIR repo=ORG/NAME`."""
    from pipelines.push import push as pushed

    folder, settings = parse_folder_and_settings(
        words, {"repo", "private", "revision", "format", "content", "terms", "dataset"}
    )
    if "repo" not in settings:
        raise ValueError("repo=ORG/NAME is missing.")
    chosen: dict[str, Any] = dict(settings)
    if "private" in chosen:
        chosen["private"] = parse_bool(chosen["private"], "private")
    return Answer(pushed(folder, **chosen))


def export(words: list[str]) -> Answer:
    """`export DIR output=FOLDER`."""
    from pipelines.export.folder import export as exported
    from pipelines.export.folder import summary

    folder, settings = parse_folder_and_settings(words, {"output", "format", "content"})
    if "output" not in settings:
        raise ValueError("output=FOLDER is missing.")
    settings["output"] = expanded(settings["output"])
    made = exported(folder, **settings)
    return Answer(summary(made, settings["output"]), made)


def sources(words: list[str]) -> Answer:
    """`sources [NAME] [data=...]`."""
    from pipelines import catalogue, plugins

    plugins.use(())  # those of installed packages

    settings = parse_settings(words, {"name", "data", "mirror"})
    if "name" not in settings:
        return Answer(catalogue.source_table(), catalogue.source_rows())
    place = {key: settings.get(key) for key in ("data", "mirror")}
    found = catalogue.describe_source(settings["name"], **place)
    return Answer(str(found), found.data())


def hashes(words: list[str]) -> Answer:
    """`hashes NAME data=...`."""
    from mixtures.benchmark_sets import SETS
    from pipelines.hashes import hash_set
    from pipelines.hashes import hashes as hashed

    name, settings = parse_folder_and_settings(words, {"data", "output"})
    if name in SETS:
        return Answer(hash_set(name, data=settings.get("data", "")))
    if "data" not in settings:
        raise ValueError("data= is missing: a .tsv file, a folder of images, or Parquet files.")
    return Answer(hashed(name, data=settings["data"], output=settings.get("output", "")))


def show(words: list[str]) -> Answer:
    """`show DIR [row=N | id=ID | rule=NAME | component=NAME]`."""
    from pipelines.report.show import show as shown

    html = parse_bool(dict(word.split("=", 1) for word in words).get("html", "false"), "html")
    known = {"row", "split", "id", "rule", "component", "work", "html"}
    known |= {"output", "full"} if html else set()
    folder, settings = parse_folder_and_settings(words, known)
    chosen: dict[str, Any] = {key: value for key, value in settings.items() if key != "html"}
    if "row" in chosen:
        chosen["row"] = parse_int(chosen["row"], "row")
    if html:
        return Answer(show_page(folder, chosen))
    return Answer(shown(folder, **chosen, color=sys.stdout.isatty()))


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


def check(words: list[str]) -> Answer:
    """`check DIR [rows=N]`."""
    from pipelines.check import folder_faults

    folder, settings = parse_folder_and_settings(words, {"rows"})
    rows = parse_int(settings.get("rows", "64"), "rows")
    found = list(folder_faults(folder, rows=rows))
    looked = "every row" if rows == 0 else f"{rows} rows of each shard"
    last = f"{len(found)} faults" if found else f"no fault ({looked} looked into)"
    return Answer(
        "\n".join([*found[:20], f"{folder}: {last}"]),
        {"folder": folder, "rows_of_each_shard": rows or "all", "faults": found},
        status=FAULTS if found else DONE,
    )


def judge(words: list[str]) -> Answer:
    """`judge DIR prompt=... endpoint=... model=...`."""
    from pipelines.served.words import judged

    return asked(judged(words))


def rewrite(words: list[str]) -> Answer:
    """`rewrite DIR prompt=... endpoint=... model=...`."""
    from pipelines.served.words import rewritten

    return asked(rewritten(words))


def asked(found: "Asked") -> Answer:
    """What a model was asked, and whether something is left to ask."""
    left = found.missing and not found.needed
    return Answer(str(found), found.data(), status=INCOMPLETE if left else DONE)


def clean(words: list[str]) -> Answer:
    """`clean work=DIR [remove=true]`."""
    from pipelines.clean import clean as cleaned

    settings = parse_settings(words, {"work", "remove", "unfinished"})
    chosen = {key: parse_bool(settings.get(key, "false"), key) for key in ("remove", "unfinished")}
    return Answer(cleaned(settings.get("work", "out/work"), **chosen))


COMMANDS = {
    "build": Command(
        build,
        "build mixture=NAME|FILE.yaml [output=DIR] [key=value ...]",
        "make the mixture: shards, index, card",
        PLACES
        + "  overwrite=true   replace a finished mixture whose recipe differs\n"
        + "  train=CONFIG     train on it afterwards\n"
        + "  probe=false      do not look into what was never read before reading it in earnest\n"
        + "  report=false     draw no report.html: for a mixture that nobody looks at\n"
        + "Any other key=value overrides the mixture's YAML: components.video.ratio=0.2",
        example="build mine.yaml output=out/mine components.text.ratio=0.2",
        takes=("mixture",),
        switches=frozenset(BUILD_SWITCHES),
        json=True,
        slow=True,
    ),
    "plan": Command(
        plan,
        "plan mixture=NAME|FILE.yaml|all [key=value ...]",
        "what a build would do: supply, demand, size, time and training cost; runs nothing",
        PLACES
        + "  hub=true         ask the hub for its files, to know parts and bytes\n"
        + "  gpu=H100         for the training cost: A100, H100 or L4\n"
        + "  mfu=0.3          share of its peak that training reaches\n",
        example="plan mine.yaml hub=true",
        takes=("mixture",),
        switches=frozenset({"hub"}),
        json=True,
    ),
    "probe": Command(
        probe,
        "probe mixture=NAME|FILE.yaml [key=value ...]",
        "read a few rows of every subset: can it be built? exit status 1 where it cannot",
        PLACES,
        example="probe mine.yaml",
        takes=("mixture",),
        json=True,
        slow=True,
    ),
    "sources": Command(
        sources,
        "sources [NAME] [data=DIR] [mirror=DIR]",
        "every source: repository, licence, access; or one, with its columns and a sample",
        "  data=DIR         files of one source, to show its first sample\n"
        "  mirror=DIR       or a mirror of hub repositories\n",
        example="sources cauldron mirror=/mirror",
        takes=("name",),
        json=True,
    ),
    "hashes": Command(
        hashes,
        "hashes NAME data=FILE.tsv|FOLDER|FILES.parquet [output=FILE]",
        "make the hash list of a benchmark, or of a set of them, for `benchmarks:` of a mixture",
        "  NAME             of the list; smolvlm: the set, fetched from VLMEvalKit's addresses\n"
        "  data=...         VLMEvalKit's TSV, a folder of images, or a hub dataset\n"
        "  output=FILE      (default: hashes/NAME.parquet); what its items ask lies beside it\n",
        example="hashes ocrbench data=OCRBench.tsv",
        takes=("name",),
    ),
    "push": Command(
        push,
        "push DIR repo=ORG/NAME [private=true]",
        "publish a finished mixture, or a checkpoint, on the hub",
        """  private=true     only its owners see it
  revision=main    the branch to push to
  format=arrow     packed shards as arrow or parquet; or, for other trainers, the samples as
                   messages, webdataset or preferences (see `export`)
  content=parts    of messages: parts or text
  terms=accepted   you meet the terms of gated or restricted sources
  dataset=ORG/NAME of a checkpoint: the mixture it was trained on
""",
        example="push out/mine repo=me/mine private=true",
        takes=("folder",),
        switches=frozenset({"private"}),
    ),
    "export": Command(
        export,
        "export DIR output=FOLDER [format=messages|webdataset|preferences]",
        "write a finished mixture for another trainer: messages and images, WebDataset tars, pairs",
        """  format=messages  Parquet of `messages` and `images`; webdataset: tars; preferences:
                   pairs as `prompt`, `chosen`, `rejected`, `images` (TRL's DPOTrainer)
  content=parts    of messages: typed parts (TRL, axolotl), or text: strings with `<image>` in them
                   (LLaMA-Factory, ms-swift)
""",
        example="export out/mine output=out/mine-messages",
        takes=("folder",),
        json=True,
    ),
    "diff": Command(
        diff,
        "diff A B",
        "what differs between two finished mixtures",
        example="diff out/mine out/mine_v2",
        takes=("first", "second"),
        json=True,
    ),
    "show": Command(
        show,
        "show DIR [row=N | id=SAMPLE_ID | rule=NAME | component=NAME] [--html]",
        "look at packed rows as the model sees them, or at the story of a sample",
        SHOWN,
        example="show out/mine row=0",
        takes=("folder",),
        switches=frozenset({"html", "full"}),
    ),
    "check": Command(
        check,
        "check DIR [rows=N]",
        "verify every contract of a finished mixture; exit status 1 with the faults",
        "  rows=N           rows of each shard to decode and verify; 0: all      (default: 64)\n",
        example="check out/mine rows=0",
        takes=("folder",),
        json=True,
    ),
    "judge": Command(
        judge,
        "judge DIR prompt=NAME|FILE.yaml endpoint=URL model=NAME [key=value ...]",
        "a served model rates the samples; `annotations` reads what it found (docs/judges.md)",
        ASKED + FACTS,
        example="judge out/mine prompt=finevision endpoint=http://localhost:8000/v1 model=judge",
        takes=("folder",),
        switches=frozenset({"plan", "again", "structured"}),
        json=True,
    ),
    "rewrite": Command(
        rewrite,
        "rewrite DIR prompt=NAME|FILE.yaml endpoint=URL model=NAME [key=value ...]",
        "a served model writes other texts; `rewrites` of a mixture uses them (docs/judges.md)",
        ASKED + WRITTEN,
        example="rewrite out/mine prompt=longer endpoint=http://localhost:8000/v1 model=writer",
        takes=("folder",),
        switches=frozenset({"plan", "again", "structured"}),
        json=True,
    ),
    "clean": Command(
        clean,
        "clean work=DIR [remove=true]",
        "list (and remove) what no finished mixture or unfinished build needs in the cache",
        "  work=DIR         the cache                                     (default: out/work)\n"
        "  remove=true      remove what is listed\n"
        "  unfinished=true  and what builds that were cut short have made so far\n",
        example="clean out/work remove=true",
        takes=("work",),
        switches=frozenset({"remove", "unfinished"}),
    ),
}


def raised_by_stage(error: BaseException) -> bool:
    """True of an exception that a stage raised: a bug or a fault, not the user's mistake."""
    return any(note.startswith("stage ") for note in getattr(error, "__notes__", ()))


def is_mistake(error: BaseException) -> bool:
    """Of a ValueError or OSError, whether the user can mend it."""
    from pipelines.engine.tables import FileError

    return isinstance(error, FileError) or not raised_by_stage(error)


PROGRAM = Program(
    name="pipelines",
    script="smolvlm-pipelines",
    summary="Build, look at and publish the training data of SmolVLM-type models.",
    commands=COMMANDS,
    is_mistake=is_mistake,
)


def main(words: list[str]) -> int:
    """Runs the command; returns the exit status."""
    return command_line.run(PROGRAM, words)


def program() -> NoReturn:
    """The console command `smolvlm-pipelines`."""
    command_line.leave(PROGRAM, main)


if __name__ == "__main__":
    program()
