"""What a terminal is shown: nothing that moves its cursor or turns text around, no credentials.

Every room speaks through `say`: names and texts of strangers are in what it says.
"""

import re
import sys
import traceback
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


def say_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """A sys.excepthook: the traceback as Python prints it, but for what `say` leaves out."""
    say("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"), error=True)
