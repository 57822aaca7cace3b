"""The one rule for names that can become part of a path: of mixtures, components and subsets."""

import re
import unicodedata

LONGEST = 120
"""Bytes of a name in UTF-8, at most: with what is put beside it, it stays within the 255 that file
systems take."""
COMPONENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""Component names are keys on the command line, too."""
FORBIDDEN = frozenset('/\\:*?"<>|')
"""Separators, and what some file system or shell takes for more than a character."""
UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Unicode's classes of control characters, marks that turn the reading order, and halves of
characters (https://www.unicode.org/reports/tr44/#General_Category_Values)."""


def problem(name: str) -> str:
    """Why `name` cannot be one part of a path; empty where it can."""
    if not name:
        return "it is empty"
    if len(name.encode("utf-8", "surrogatepass")) > LONGEST:
        return f"it is longer than {LONGEST} bytes"
    if name[0] in ".-~ " or name[-1] in ". ":
        return "it starts with one of `. - ~` or a space, or ends with a dot or space"
    for character in name:
        if character in FORBIDDEN:
            return f"it holds `{character}`"
        if unicodedata.category(character) in UNSEEN:
            return f"it holds the invisible character U+{ord(character):04X}"
    return ""


def check_name(name: str, *, key: str, where: str) -> None:
    """`name` is one part of a path and shows as it is, or ValueError says why not."""
    why = problem(name)
    if why:
        raise ValueError(
            f"{where}: {key} is {name[:60]!r}: {why}. Expected letters, digits, `_`, `-`, `.` and "
            f"spaces within, at most {LONGEST} bytes."
        )


def check_subset(name: str, *, key: str, where: str) -> None:
    """The same of a subset, whose name may have several parts with `/` between them."""
    for part in name.split("/"):
        check_name(part, key=key, where=where)


def check_component(name: str, *, key: str, where: str) -> None:
    """The same of a component, whose name is of ASCII."""
    if COMPONENT.fullmatch(name):
        check_name(name, key=key, where=where)
    else:
        raise ValueError(
            f"{where}: {key} is {name!r}; expected letters, digits, `_`, `-` and `.` in a "
            "component's name."
        )
