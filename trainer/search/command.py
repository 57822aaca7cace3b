"""`python -m trainer search`: its words, the search, and the three files that it ends with."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tokenization.command_line import DONE, FAULTS, Answer
from tokenization.terminal import log
from trainer.ablation.benchmarks import read_benchmarks
from trainer.ablation.leaving import answer_or_leave
from trainer.ablation.runs import as_json
from trainer.ablation.sweep import OURS
from trainer.arguments import did_you_mean, split_pairs
from trainer.search.mixing import OF_THE_MIXTURE, proposal_yaml
from trainer.search.page import conclusion, page
from trainer.search.search import searched
from trainer.search.settings import Settings

METHODS = ("regression", "bayes", "merge")
NUMBERS = ("train_tokens", "runs", "seeds", "tokens", "seed", "stages", "size", "verify_tokens",
           "verify_runs")  # fmt: skip
WORDS = ("mixture", "config", "method", "output", "work", "trials", "verify_config")
PARSED = {"target": dict, "bounds": dict, "fixed": dict, "groups": list, "benchmarks": dict}
TRAINERS = {"train.": "settings", "verify.": "verify_settings"}
"""Words for settings of the trainer: of all runs, and of those at the larger size over them."""
MOST_STAGES = 3
MOST_RUNS = 1000
"""Where hours alone are the budget."""
MIXTURE_KEYS = ("val_fraction", "shard_bytes", "data", "workers", "ray")
"""Passed on to the build besides `components.*`, `encoding.*` and `filters.*`."""


def search_command(words: Sequence[str]) -> Answer:
    """`search mixture=... target=...`; exit status 1 where a run failed, 143 where SIGTERM came."""
    return answer_or_leave(lambda: _searched(words))


def _searched(words: Sequence[str]) -> Answer:
    chosen = settings_of(split_pairs(words))
    output = Path(chosen.output)
    output.mkdir(parents=True, exist_ok=True)
    result = searched(chosen, say=log)
    told = conclusion(result)
    proposed = proposal_yaml(chosen.mixture, chosen.overrides, result["proposal"], why=told)
    text = json.dumps(as_json(result), indent=1, allow_nan=False) + "\n"
    for name, content in (
        ("result.json", text),
        ("page.html", page(result, name=Path(chosen.mixture).stem)),
        ("proposal.yaml", proposed),
    ):
        arriving = output / f".arriving-{name}"
        arriving.write_text(content)
        arriving.replace(output / name)
    lost = "".join(f"\n{f['run']}, seed {f['seed']} failed: {f['why']}" for f in result["failed"])
    files = f"proposal {output / 'proposal.yaml'}\npage     {output / 'page.html'}"
    return Answer(f"{told}{lost}\n{files}", as_json(result), FAULTS if result["failed"] else DONE)


def settings_of(pairs: Mapping[str, str]) -> Settings:
    """The settings that these words state; ValueError for one that is wrong."""
    given, overrides = _given(pairs)
    for key in ("mixture", "target"):
        if not given.get(key):
            raise ValueError(
                f"search: {key} is not set.\nexpected: mixture=FILE.yaml "
                "target='{COMPONENT: 1}', the components whose held-out loss is to be low (or "
                "benchmarks= whose score is to be high), with their weights"
            )
    if given.get("method", METHODS[0]) not in METHODS:
        raise ValueError(f"search: method={given['method']}: expected {', '.join(METHODS)}.")
    if (budget := given.pop("train_tokens", 0)) and "runs" not in given:
        given["runs"] = budget // given.get("tokens", Settings.tokens)
    if given.get("hours"):
        given.setdefault("runs", MOST_RUNS)
    if given.get("runs", Settings.runs) < 4:
        raise ValueError(
            f"search: {given['runs']} runs; expected 4 at least, of which a model is fitted."
        )
    if not 1 <= given.get("stages", 1) <= MOST_STAGES:
        raise ValueError(f"search: stages={given['stages']}; expected 1, 2 or 3.")
    given["benchmarks"] = read_benchmarks(given.get("benchmarks"), where="search: benchmarks")
    given.setdefault("output", f"out/search/{Path(given['mixture']).stem}")
    return Settings(**given, overrides=tuple(overrides))


def _given(pairs: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """(each word as what it is, those of the mixture); ValueError names one that is unknown."""
    given: dict[str, Any] = {"settings": {}, "verify_settings": {}}
    overrides = []
    for key, value in pairs.items():
        if key in WORDS:
            given[key] = value
        elif key in NUMBERS:
            if not value.replace("_", "").isdigit():
                raise ValueError(f"search: {key}={value}: expected a whole number.")
            given[key] = int(value)
        elif key == "hours":
            given[key] = _hours(value)
        elif key in PARSED:
            given[key] = _parsed(key, value)
        elif key in MIXTURE_KEYS or key.startswith(OF_THE_MIXTURE):
            overrides.append(f"{key}={value}")
        elif (prefix := key[: key.find(".") + 1]) in TRAINERS:
            setting = key.removeprefix(prefix)
            if setting.partition(".")[0] in OURS["train"]:
                raise ValueError(f"search: the search itself sets '{key}'. {_instead(setting)}")
            given[TRAINERS[prefix]][setting] = value
        else:
            known = [*WORDS, *NUMBERS, *PARSED, *MIXTURE_KEYS, "hours", *TRAINERS]
            raise ValueError(f"search: unknown key '{key}'. {did_you_mean(key, known)}")
    return given, overrides


def _hours(value: str) -> float:
    try:
        hours = float(value)
    except ValueError:
        hours = 0.0
    if not 0 < hours < math.inf:
        raise ValueError(f"search: hours={value}: expected a number above 0, as hours=1.5.")
    return hours


def _instead(setting: str) -> str:
    own = "seed=N is the search's" if setting == "seed" else "every trial has its own"
    return f"Leave it out: {own}."


def _parsed(key: str, value: str) -> Any:
    try:
        found = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"search: {key}={value}: not readable as YAML: {error}") from error
    if key == "target" and isinstance(found, str):
        found = {found: 1.0}
    numbers = found.values() if isinstance(found, dict) and key in ("target", "fixed") else []
    right = isinstance(found, PARSED[key]) and all(
        isinstance(n, int | float) and not isinstance(n, bool) for n in numbers
    )
    weighs = key != "target" or (
        right and min(numbers, default=-1) >= 0 and 0 < sum(numbers) < math.inf
    )
    if not right or not weighs:
        raise ValueError(
            f"search: {key}={value}: expected "
            + {"target": "{COMPONENT: weight}, weights above 0",
               "benchmarks": "{NAME: {file: FILE.tsv, metric: exact}}", "bounds":
               "{COMPONENT: [least, most]}", "fixed": "{COMPONENT: ratio}",
               "groups": "[[COMPONENT, COMPONENT], ...]"}[key] + "."
        )  # fmt: skip
    return found
