"""Text to ids by words, each of which goes through the tokenizer once.

    text -> words, as the tokenizer itself cuts -> ids known, or asked for in one call -> joined

A byte-level tokenizer cuts a text before it merges, and no merge crosses a cut, so a word's ids do
not depend on what stands around it. SmolVLM's cuts (digits one by one, then GPT-2's expression) are
made here where they need no table of Unicode: in ASCII, and before a space between two of its
signs. What lies between such cuts, and all text of other tokenizers, is one word.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from tokenization.vocab import encode_plain

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPACE = r" \t\n\r\f\v"
ASCII_WORDS = re.compile(
    rf"'(?:s|t|re|ve|m|ll|d)| ?[A-Za-z]+|[0-9]| ?[^{SPACE}A-Za-z0-9]+"
    rf"|[{SPACE}]+(?![^{SPACE}0-9])|[{SPACE}]+"
)
"""https://github.com/openai/gpt-2, src/encoder.py, for ASCII, digits cut off beforehand."""
SAFE_CUT = re.compile(r"(?<=[!-~])(?= [!-~])")
CUTS = [
    {"type": "Digits", "individual_digits": True},
    {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
]
"""What a tokenizer of SmolVLM says of how it cuts."""
MOST_KNOWN, LONGEST_KNOWN = 1 << 16, 64
"""Words that are remembered, and characters of one: some 10 MB."""
AT_ONCE = 1 << 20
"""Characters that are words at a time: those take twelve times the bytes."""


def packed(ids: Sequence[int]) -> bytes:
    """The ids as int32, one behind the other."""
    return np.array(ids, np.int32).tobytes()


def runs(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts, as many at a time as have AT_ONCE characters."""
    run: list[str] = []
    size = 0
    for text in texts:
        run.append(text)
        size += len(text)
        if size >= AT_ONCE:
            yield run
            run, size = [], 0
    yield run


@dataclass(frozen=True, eq=False)
class Words:
    """A tokenizer, and the ids of words that it was asked for."""

    tokenizer: "Tokenizer"
    cuts: bool
    """Whether it cuts as SmolVLM's."""
    known: dict[str, bytes] = field(default_factory=dict)
    """Word -> its ids, packed."""

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, with no string taken for a special token."""
        return [np.frombuffer(ids, np.int32).tolist() for ids in self.packed(texts)]

    def packed(self, texts: Sequence[str]) -> list[bytes]:
        """The same ids, packed: joining bytes costs a fraction of joining lists of numbers."""
        return [ids for run in runs(texts) for ids in self._packed(run)]

    def _packed(self, texts: Sequence[str]) -> list[bytes]:
        words = [self._words(text) for text in texts]
        fresh = list(set(chain.from_iterable(words)).difference(self.known))
        if fresh:
            asked = map(packed, encode_plain(self.tokenizer, fresh))
            self.known.update(zip(fresh, asked, strict=True))
        ids = [b"".join(map(self.known.__getitem__, found)) for found in words]
        for word in fresh:
            if len(word) > LONGEST_KNOWN:
                del self.known[word]
        if len(self.known) > MOST_KNOWN:
            self.known.clear()
        return ids

    def _words(self, text: str) -> list[str]:
        if not self.cuts:
            return [text]
        if text.isascii():
            return ASCII_WORDS.findall(text)
        return [
            word
            for piece in SAFE_CUT.split(text)
            for word in (ASCII_WORDS.findall(piece) if piece.isascii() else (piece,))
        ]


def words_of(tokenizer: "Tokenizer") -> Words:
    """The words of a tokenizer, none known yet."""
    spec = json.loads(tokenizer.to_str())
    model, cutting = spec["model"], spec["pre_tokenizer"] or {}
    found = [
        {key: value for key, value in step.items() if key != "trim_offsets"}
        for step in cutting.get("pretokenizers", ())
    ]
    cuts = (
        model.get("type") == "BPE"
        and not model.get("dropout")
        and spec["normalizer"] is None
        and found == CUTS
    )
    return Words(tokenizer, cuts)
