"""The trainer's command line as `key=value` pairs, and what a misspelt word was meant to be."""

import difflib
from collections.abc import Sequence
from pathlib import Path


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """A hint for the message, or the list of what is known."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"Did you mean '{close[0]}'?" if close else f"Known: {', '.join(sorted(known))}."


def split_pairs(arguments: Sequence[str]) -> dict[str, str]:
    """`key=value` arguments as a dict, in order."""
    pairs: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key:
            raise ValueError(
                f"'{argument}': expected key=value, e.g. config=tiny data=out/quickstart."
            )
        pairs[key.lstrip("-")] = value
    return pairs


def local_path(value: str, key: str) -> Path:
    """The path on this machine that `key=` names; ValueError where it is a URL."""
    if "://" in value:
        raise ValueError(
            f"{key}={value}: expected a folder or file on this machine, as it is written in small "
            "steps.\nway out: name a local one, and copy it there when it is done."
        )
    return Path(value)
