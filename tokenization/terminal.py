"""What a terminal is shown: nothing that moves its cursor or turns text around, no credentials.

Every room speaks through here, since names and texts of strangers are in what it says:

| function  | what it is for                        | where it goes                                |
|-----------|---------------------------------------|----------------------------------------------|
| `say`     | the result of a command; its mistakes | stdout; stderr                               |
| `log`     | what is told while a command runs     | `logging`, in the logger of the module that  |
|           |                                       | calls; shown on stdout, warnings on stderr   |
| `lay_out` | a message of several lines            | text                                         |

`logging.getLogger("pipelines").setLevel("WARNING")` (or "trainer") silences what is told; a console
that `logging.basicConfig` sets up takes it over.
"""

import logging
import re
import sys
import textwrap
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

SECRET = (
    r"token|secret|passw|pwd|credential|signature|api_?key|access_?key"
    r"|(?<![a-z])(?:sig|key|auth)(?![a-z])"
)
IN_URL = re.compile(r"(?P<scheme>\b[A-Za-z][A-Za-z0-9+.-]*://)[^/\s@'\"]*@")
IN_QUERY = re.compile(rf"(?P<name>[?&;][\w.~%-]*(?:{SECRET})[\w.~%-]*=)[^&;#\s'\"]+", re.IGNORECASE)
TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{20,})\b"
)
"""Tokens of the hub, AWS and GitHub, which are known by their form."""
HIDDEN = "***"
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ud800-\udfff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""Control characters, halves of characters, and marks that are invisible or reorder text, but for
tab and newline."""
COLOUR = re.compile(r"(\x1b\[[0-9;]{0,8}m)")
ROOMS = ("pipelines", "trainer", "filters", "mixtures", "tokenization")
LONG = 100
"""Characters from which on a message is laid out."""
PARTS = ("found:", "expected:", "way out:")
"""What lines of a message may begin with, besides the first, which says where and what."""


def without_credentials(text: str) -> str:
    """The text with users and passwords of URLs, secrets of queries and known tokens replaced."""
    text = IN_URL.sub(rf"\g<scheme>{HIDDEN}@", text)
    text = IN_QUERY.sub(rf"\g<name>{HIDDEN}", text)
    return TOKEN.sub(HIDDEN, text)


def visible_text(text: str) -> str:
    """The text with what is invisible, moves a cursor or turns the reading order written out."""
    return UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def printable(text: str) -> str:
    """The text as a terminal may show it: colours stay, everything else that is invisible is
    written out, and no credential is in it.
    """
    parts = COLOUR.split(without_credentials(text))
    return "".join(part if n % 2 else visible_text(part) for n, part in enumerate(parts))


def say(text: str, *, error: bool = False) -> None:
    """The text stands on the terminal, on stderr where it is of an error."""
    print(printable(text), file=sys.stderr if error else sys.stdout, flush=True)


class Console(logging.Handler):
    """Shows records through `say`, unless the user's own logging has a console."""

    apart = False
    """Everything goes to stderr: stdout holds a result for a program."""

    def emit(self, record: logging.LogRecord) -> None:
        """The record stands on the terminal."""
        if not any(type(own) is logging.StreamHandler for own in logging.getLogger().handlers):
            say(record.getMessage(), error=self.apart or record.levelno > logging.INFO)


CONSOLE = Console()
for room in ROOMS:
    logging.getLogger(room).addHandler(CONSOLE)
    if logging.getLogger(room).level == logging.NOTSET:  # else the user has chosen one already
        logging.getLogger(room).setLevel(logging.INFO)


def log(text: str, *, level: int = logging.INFO) -> None:
    """The text is a record of the calling module's logger, escaped as `say` does."""
    caller = sys._getframe(1).f_globals
    run_by_name = caller["__name__"] == "__main__" and caller.get("__spec__")  # python -m
    name = caller["__spec__"].name if run_by_name else caller["__name__"]
    logging.getLogger(name).log(level, printable(text), stacklevel=2)


def tells(room: str) -> bool:
    """Whether what is told while a command runs is to be shown: progress, too."""
    return logging.getLogger(room).isEnabledFor(logging.INFO)


@contextmanager
def logging_at(level: int, *, apart: bool) -> Iterator[None]:
    """Inside, all rooms log from this level on; `apart`: to stderr alone."""
    before = {room: logging.getLogger(room).level for room in ROOMS}
    was_apart, CONSOLE.apart = CONSOLE.apart, apart
    for room in ROOMS:
        logging.getLogger(room).setLevel(level)
    try:
        yield
    finally:
        CONSOLE.apart = was_apart
        for room, old in before.items():
            logging.getLogger(room).setLevel(old)


def lay_out(message: str, *, width: int = 0) -> str:
    """The message as it is shown: a short one as it is, a long one with a line for each part.

    A message says where and what is wrong, then, each on a line that begins so, what was `found:`
    and `expected:`, and the `way out:`. Of a long line without them, each sentence is a line.
    Lines that are indented already are shown as they are. `width`: of the terminal, where there is
    one; 0: lines are as long as they are, so that a log can be searched.
    """
    if len(message) <= LONG and "\n" not in message:
        return message
    lines: list[tuple[str, str]] = []
    for number, line in enumerate(message.split("\n")):
        label = next((part for part in PARTS if line.startswith(f"{part} ")), "")
        if label:
            lines.append((f"  {label:<10}", line.removeprefix(label).strip()))
        elif line[:1].isspace() or len(line) <= LONG:
            lines.append(("", line))
        else:
            first, *rest = re.split(r"(?<=[.;]) (?=[A-Z])", line)
            lines += [("" if number == 0 else "  ", first), *(("  ", text) for text in rest)]
    if not width:
        return "\n".join(before + text for before, text in lines)
    return "\n".join(
        textwrap.fill(
            text,
            max(width, 40),
            initial_indent=before,
            subsequent_indent=" " * len(before) or "  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        if before or not text[:1].isspace()
        else text
        for before, text in lines
    )


def sentence(text: str, *, indent: str = "") -> str:
    """What another part of the program said, with one full stop at its end; lines after the first
    are indented.
    """
    whole = text.rstrip()
    stopped = whole if whole.endswith((".", "!", "?")) else f"{whole}."
    return stopped.replace("\n", f"\n{indent}")


def say_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """A sys.excepthook: the traceback as Python prints it, but for what `say` leaves out."""
    say("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"), error=True)


def human_time(seconds: float) -> str:
    """45 -> 45 s; 700 -> 12 min; 5000 -> 1 h 23 min; 200,000 -> 2 d 8 h."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"
