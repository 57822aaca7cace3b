"""Prompt files: what a model is told, and what it gives: scores of a rubric, or other texts.

    FILE.yaml --load_prompt--> Prompt; everything in it determines its answers

A file with `scores` is one of `judge`, a file with `writes` one of `rewrite`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from mixtures.annotated import NAME
from pipelines import recipe as recipes

BUNDLED = Path(__file__).parent
VERSION = 1
"""Bumped when the same prompt and sample would make another request."""
KEYS = {
    "name": str,
    "version": int,
    "instructions": str,
    "scores": dict,
    "per": str,
    "images": str,
    "reason_chars": int,
    "output_tokens": int,
    "writes": str,
    "max_turns": int,
}
"""Of a prompt file."""
REQUIRED = ("name", "version", "instructions")
WRITES = ("answers", "turns", "conversation")
LANGUAGE = "{language}"
"""In the instructions: the place of a language that is named where the prompt is used."""
LATER = {"identity": "where_changed"}
"""Of a field that came after answers were paid for: at its default they stay what they are."""
PER = ("turn", "sample")
IMAGES = ("required", "optional")
OWN = ("id", "verdict", "reason", "turns")
"""Columns of the table that no score may be called."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt file."""

    name: str
    version: int
    instructions: str
    scores: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Score -> its least and its greatest value, whole numbers; empty: it rewrites."""
    per: str = "turn"
    """turn: every answer of a conversation is rated; sample: the whole of it, once."""
    images: str = "required"
    """required: samples without an image are not asked about."""
    reason_chars: int = 300
    """Of a reason, at most."""
    output_tokens: int = 160
    """Allowed for each turn that is rated or written."""
    writes: str = field(default="", metadata=LATER)
    """answers: of every turn another answer; turns: another question as well; conversation: new
    turns in place of all that there were. Empty: it rates."""
    max_turns: int = field(default=8, metadata=LATER)
    """Of a conversation that is written, at most."""
    language: str = field(default="", metadata=LATER)
    """What stands for {language} in the instructions."""

    @property
    def digest(self) -> str:
        """Of everything in it."""
        return recipes.fingerprint(VERSION, self)

    @property
    def told(self) -> str:
        """The instructions, the language in them."""
        return self.instructions.strip().replace(LANGUAGE, self.language)


def load_prompt(word: str, *, rewrites: bool = False, language: str = "") -> Prompt:
    """The bundled prompt of that name, or that of a file, which rates or else `rewrites`.

    Raises:
        ValueError: a mistake in it. FileNotFoundError: there is none.
    """
    path = Path(word).expanduser()
    if not word.endswith((".yaml", ".yml")):
        path = BUNDLED / f"{word}.yaml"
    if not path.is_file():
        known = ", ".join(bundled(rewrites=rewrites))
        raise FileNotFoundError(f"prompt={word}: no such prompt. Bundled: {known}; or FILE.yaml.")
    found = read_prompt(path)
    if bool(found.writes) is not rewrites:
        does, other = ("rewrites", "rewrite") if found.writes else ("rates", "judge")
        raise ValueError(f"prompt={word}: this prompt {does}, it is one of `{other}`.")
    if (LANGUAGE in found.instructions) is not bool(language):
        raise ValueError(
            f"prompt={word}: language= is {'not asked for' if language else 'missing'}: its "
            f"instructions {'hold no' if language else 'ask for a'} {LANGUAGE}."
        )
    return replace(found, language=language)


def bundled(*, rewrites: bool) -> list[str]:
    """The names of the prompts that ship with the package, of one kind."""
    found = {path.stem: read_prompt(path) for path in BUNDLED.glob("*.yaml")}
    return sorted(name for name, prompt in found.items() if bool(prompt.writes) is rewrites)


def read_prompt(path: Path) -> Prompt:
    """The prompt in a file; raises ValueError."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as YAML ({error}).") from error
    return prompt_of(found, where=str(path))


def prompt_of(found: object, *, where: str) -> Prompt:
    """The prompt that a file's content is; raises ValueError."""
    if not isinstance(found, dict):
        raise ValueError(f"{where}: holds {type(found).__name__}, expected `key: value` pairs.")
    for key in found:
        if key not in KEYS:
            raise ValueError(f"{where}: unknown key {key!r}. Known: {', '.join(KEYS)}.")
    for key in REQUIRED:
        if not found.get(key):
            raise ValueError(f"{where}: {key} is missing.")
    for key, value in found.items():
        if type(value) is not KEYS[key]:
            raise ValueError(f"{where}: {key} is {value!r}; expected {KEYS[key].__name__}.")
        if isinstance(value, int) and value < 1:
            raise ValueError(f"{where}: {key} is {value}; expected 1 or more.")
    for key, among in (("per", PER), ("images", IMAGES)):
        if found.get(key, among[0]) not in among:
            raise ValueError(f"{where}: {key} is {found[key]!r}; expected {' or '.join(among)}.")
    if bool(found.get("scores")) is bool(found.get("writes")):
        raise ValueError(
            f"{where}: scores is missing. Expected either `scores` (a rubric of `judge`) or "
            "`writes` (a prompt of `rewrite`)."
        )
    if found.get("writes", WRITES[0]) not in WRITES:
        raise ValueError(f"{where}: writes is {found['writes']!r}; expected {', '.join(WRITES)}.")
    given = found.get("scores", {})
    scores = {name: bounds_of(name, b, where=where) for name, b in given.items()}
    return Prompt(**{**found, "scores": scores})


def bounds_of(name: object, bounds: object, *, where: str) -> tuple[int, int]:
    """(least, greatest) of a score."""
    if not isinstance(name, str) or not NAME.match(name) or name in OWN:
        raise ValueError(
            f"{where}: a score is called {name!r}; expected letters, digits and _, and none of "
            f"{', '.join(OWN)}."
        )
    keyed = isinstance(bounds, dict) and set(bounds) == {"min", "max"}
    least, most = (bounds["min"], bounds["max"]) if isinstance(bounds, dict) and keyed else (0, 0)
    if type(least) is not int or type(most) is not int or least >= most:
        raise ValueError(
            f"{where}: scores.{name} is {bounds!r}; expected {{min: 1, max: 5}}, whole numbers."
        )
    return least, most
