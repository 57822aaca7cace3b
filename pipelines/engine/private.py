"""What must not be kept: credentials, and paths of this machine.

A credential is cut out wherever it stands: nothing depends on it. A path becomes `private:HASH`,
by which a recipe is the same recipe; which path it was is remembered in the user's cache folder of
this machine, so that a mixture.yaml out of a finished mixture can be built again where it was made.
"""

import dataclasses
import os
import re
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from tokenization.terminal import without_credentials

PREFIX = "private:"
ABSOLUTE = re.compile(r"(?:(?:file|local):/+)?(?:/(?!/)|~[\w.-]*/|[A-Za-z]:[\\/])\S")


def is_path(text: str) -> bool:
    """Whether the text is an absolute path and nothing else."""
    return "\n" not in text and ABSOLUTE.match(text) is not None


def hidden_path(path: str) -> str:
    """What stands for the path where it may be published."""
    return PREFIX + sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def hidden(value: Any) -> Any:
    """The value with credentials cut out and absolute paths replaced, in all that it holds."""
    return mapped(value, _hidden_text)


def _hidden_text(text: str) -> str:
    return hidden_path(text) if is_path(text) else without_credentials(text)


def mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The value with `change` made to every text in it; of mappings to their values and keys."""
    if isinstance(value, str):
        return change(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **{k: mapped(v, change) for k, v in fields.items()})
    if isinstance(value, dict):
        return {change(k) if isinstance(k, str) else k: mapped(v, change) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(mapped(each, change) for each in value)
    return value


def cache_folder() -> Path:
    """Where what was learned is remembered on this machine, for its user.

    Caches and no more: where one is missing its file is read again.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "smolvlm-pipelines")


def remember(value: Any) -> None:
    """Every absolute path in the value is known on this machine by what stands for it."""

    def keep(text: str) -> str:
        if is_path(text):
            with suppress(OSError, RuntimeError):  # a home that is full or missing
                folder = cache_folder() / "paths"
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                file = folder / hidden_path(text).removeprefix(PREFIX)
                if not file.exists():
                    file.write_text(text, errors="surrogateescape")
        return text

    mapped(value, keep)


def found_again(text: str) -> str:
    """The path that `text` stands for, where it was hidden on this machine; else the text."""
    name = text.removeprefix(PREFIX)
    if text.startswith(PREFIX) and re.fullmatch(r"[0-9a-f]{16}", name):
        with suppress(OSError, RuntimeError):
            return (cache_folder() / "paths" / name).read_text(errors="surrogateescape")
    return text
