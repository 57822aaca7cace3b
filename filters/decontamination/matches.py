"""What `contaminated` found in a sample, as its verdict says it, and read back.

    "mmmu/17 by image 3 (2 bits), ai2d/9 by 13 words"  <->  two Match

Of each benchmark one image and one text at most; an image is named by its place among several.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_MATCH = re.compile(
    r"(?P<benchmark>[^/]+)/(?P<item>.*?) by "
    r"(?:image(?: (?P<image>\d+))? \((?P<bits>\d+) bits\)"
    r"|(?P<question>question)|(?P<words>\d+) words)(?:, |$)",
    re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class Match:
    """One item of a benchmark that a sample has."""

    benchmark: str
    item: str
    by: Literal["image", "question", "words"]
    image: int = 0
    """Which of the sample's images, from 1; 0: its only one."""
    bits: int = 0
    """In which the two images differ, of 64."""
    words: int = 0
    """In a row that are the same."""

    @property
    def how(self) -> str:
        """What was found, as the verdict says it."""
        if self.by == "image":
            return f"image{f' {self.image}' if self.image else ''} ({self.bits} bits)"
        return "question" if self.by == "question" else f"{self.words} words"


def told(matches: Sequence[Match]) -> str:
    """The detail of a verdict."""
    return ", ".join(f"{match.benchmark}/{match.item} by {match.how}" for match in matches)


def matches_of(detail: str) -> list[Match]:
    """What a detail tells; nothing where it is another rule's."""
    found, at = [], 0
    while at < len(detail):
        match = _MATCH.match(detail, at)
        if match is None:
            return []
        number = {key: int(match[key] or 0) for key in ("image", "bits", "words")}
        by: Literal["image", "question", "words"] = "image" if match["bits"] else "words"
        found.append(
            Match(
                benchmark=match["benchmark"],
                item=match["item"],
                by="question" if match["question"] else by,
                **number,
            )
        )
        at = match.end()
    return found
