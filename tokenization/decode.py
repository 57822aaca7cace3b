"""Ids back to the conversation that they were made of: what `chat.pieces_of` and `image_ids` do,
undone exactly. Only SmolVLM's own rendering (`chat_template: smolvlm`) can be undone.

    ids, grids   --conversation_of--> [(role, [text | number of an image, ...]), ...]
    a packed row --sequences_of-----> Decoded: the same of each of its sequences, and its images

A conversation that is given back makes the same ids again, or it is not given back.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tokenization import chat
from tokenization.prompts import Conversation
from tokenization.schema import Encoding
from tokenization.vocab import (
    Vocab,
    encode_plain,
    image_ids,
    load_tokenizer,
    plain_tokenizer,
    vocab,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ROLES = ("system", "user", "assistant")
STATED = re.compile(r"(\d\d):(\d\d)(?::(\d\d))?:?\s*\Z")
"""The time that a prompt states right before a frame: `Frame from 00:03:`."""
PLAIN = {
    "system_prompts": "none",
    "media_intro_outro": False,
    "plain_prompts": 0.0,
    "brevity_hints": False,
    "shuffle_turns": False,
    "max_turns": 0,
    "split_turns": 0,
    "tiles": "full",
}
"""Of an encoding that makes the same ids again of conversations that were decoded: their words have
been through the rest.
"""


@dataclass(frozen=True, eq=False, kw_only=True)
class DecodingTools:
    """What undoing needs; one per tokenizer and encoding."""

    encoding: Encoding
    vocab: Vocab
    plain: "Tokenizer"
    labels: dict[str, tuple[int, ...]]
    """Role -> the ids of its name and colon."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Decoded:
    """One sequence of a packed row: a sample, or a part of one that was split."""

    id: str
    """Of the sample."""
    ids: np.ndarray
    mask: np.ndarray
    """True where learned."""
    conversation: Conversation
    whole: bool
    """False: a part of a raw document, at whose ends a character may have been cut."""
    images: list[bytes]
    """As stored."""
    grids: list[tuple[int, int]]
    rejected: str | None
    """Of a pair, the answer that the last one was preferred to."""


def sequences_of(
    row: Mapping[str, Any], tools: "DecodingTools", *, where: str
) -> Iterator[Decoded]:
    """The sequences of a row of PACKED or PAIRED, in order.

    Raises:
        ValueError: it was not made by this encoding; names the sample.
    """
    ids = np.asarray(row["input_ids"], np.int32)
    mask = np.asarray(row["loss_mask"], bool)
    grids = [(cell["rows"], cell["cols"]) for cell in row["grids"]]
    crops = np.array([rows * cols + 1 for rows, cols in grids], np.int64)
    ends = np.cumsum(crops) * tools.vocab.tokens_per_crop
    others = row.get("rejected") or [None] * len(row["sample_ids"])
    start = taken = 0
    for name, length, other in zip(row["sample_ids"], row["seq_lengths"], others, strict=True):
        here = slice(start, start + length)
        images = int((ids[: start + length] == tools.vocab.image).sum()) if grids else 0
        upto = int(np.searchsorted(ends, images, side="right"))
        own = slice(taken, upto)
        try:
            conversation, whole = conversation_of(ids[here], grids[own], tools)
        except ValueError as error:
            raise not_undone(where, name, str(error)) from error
        if upto > len(row["images"]):
            raise not_undone(where, name, "the row's images are of another build.")
        yield Decoded(
            id=name,
            ids=ids[here],
            mask=mask[here],
            conversation=conversation,
            whole=whole,
            images=[image["bytes"] for image in row["images"][own]],
            grids=grids[own],
            rejected=other,
        )
        start, taken = start + length, upto


def not_undone(where: str, name: str, found: str) -> ValueError:
    """The error of a sequence that cannot be turned back."""
    return ValueError(
        f"{where}: sample {name} cannot be turned back into messages.\nfound: {found}\n"
        "expected: shards, index.arrow and tokenizer/ as one build wrote them, with SmolVLM's own "
        "rendering.\nway out: `check` says what else is wrong with the folder; build it again."
    )


def decoding_tools(encoding: Encoding, tokenizer: str) -> DecodingTools:
    """The tools for shards of this encoding, whose tokenizer lies in the folder `tokenizer`.

    Raises:
        ValueError: the shards were rendered by another template than SmolVLM's own.
    """
    if encoding.chat_template != "smolvlm":
        raise ValueError(
            f"encoding.chat_template is {encoding.chat_template[:40]!r}: only SmolVLM's own "
            "rendering can be turned back into messages.\nway out: build the mixture with "
            "chat_template: smolvlm, which changes tokens and packing alone."
        )
    mine = replace(encoding, tokenizer=tokenizer)
    plain = plain_tokenizer(tokenizer)
    names = [f"{role.capitalize()}:" for role in ROLES]
    labels = zip(ROLES, encode_plain(plain, names), strict=True)
    return DecodingTools(
        encoding=mine,
        vocab=vocab(load_tokenizer(tokenizer), mine),
        plain=plain,
        labels={role: tuple(ids) for role, ids in labels},
    )


def conversation_of(
    ids: np.ndarray, grids: Sequence[tuple[int, int]], tools: DecodingTools
) -> tuple[Conversation, bool]:
    """(the conversation of one sequence, whether it is whole); `grids` are of its images, in order.

    Of a raw document that was cut at `seq_len` a part is not whole: characters that were cut in two
    at its ends are left out.

    Raises:
        ValueError: the ids were not made by this encoding.
    """
    places = image_places(ids, grids, tools.vocab)
    if not len(ids) or ids[0] != tools.vocab.begin:
        return document_of(ids, places, tools)
    found: Conversation = []
    at = 1
    while at < len(ids):
        role, at = role_at(ids, at, tools)
        parts, at = content_from(ids, at, places, tools)
        found.append((role, parts))
        newline = tools.vocab.newline
        if tuple(ids[at : at + len(newline)].tolist()) != newline:
            raise ValueError("a message is not followed by a line break.")
        at += len(newline)
    if not np.array_equal(ids_of(found, grids, tools), ids):
        raise ValueError("its text makes other ids than those it was decoded from.")
    return found, True


def image_places(
    ids: np.ndarray, grids: Sequence[tuple[int, int]], vocab_: Vocab
) -> dict[int, tuple[int, int]]:
    """First token of an image -> (its number, the token after its last)."""
    marks = np.flatnonzero(ids == vocab_.image) if grids else np.zeros(0, np.int64)
    places, taken = {}, 0
    for number, (rows, cols) in enumerate(grids):
        block = image_ids(vocab_, rows, cols)
        if taken >= len(marks):
            raise ValueError(f"image {number} of {len(grids)} has no tokens.")
        start = int(marks[taken]) - int(np.argmax(block == vocab_.image))
        if start < 0 or not np.array_equal(ids[start : start + len(block)], block):
            raise ValueError(f"the tokens of image {number} are not those of its grid.")
        places[start] = (number, start + len(block))
        taken += int((block == vocab_.image).sum())
    if taken != len(marks):
        raise ValueError(f"{len(marks) - taken} image tokens are of no image.")
    return places


def role_at(ids: np.ndarray, at: int, tools: DecodingTools) -> tuple[str, int]:
    """(who speaks, where the message's content begins)."""
    for role, label in tools.labels.items():
        if tuple(ids[at : at + len(label)].tolist()) == label:
            return role, at + len(label)
    raise ValueError("a message begins with no known role.")


def content_from(
    ids: np.ndarray, at: int, places: dict[int, tuple[int, int]], tools: DecodingTools
) -> tuple[list[str | int], int]:
    """(the parts of a message up to its end mark, where it ends)."""
    parts: list[str | int] = []
    begun = at
    while True:
        if at >= len(ids):
            raise ValueError("a message does not end.")
        ends = ids[at] == tools.vocab.end
        if (at in places or ends) and at > begun:
            parts.append(decoded(ids[begun:at], tools))
        if ends:
            break
        if at in places:
            number, at = places[at]
            parts.append(number)
            begun = at
        else:
            at += 1
    if parts and isinstance(parts[0], str):
        if not parts[0].startswith(" "):
            raise ValueError("the first text of a message does not begin with a space.")
        parts[0] = parts[0][1:]
    return parts, at + 1


def document_of(
    ids: np.ndarray, places: dict[int, tuple[int, int]], tools: DecodingTools
) -> tuple[Conversation, bool]:
    """The same of a raw document, or a part of one: its texts, and the numbers of its images."""
    end = len(ids) > 0 and ids[-1] == tools.vocab.document_end
    parts: list[str | int] = []
    whole, begun = bool(end), 0
    for start, (number, after) in [*places.items(), (len(ids) - int(end), (-1, 0))]:
        if start > begun or not places:
            text = decoded(ids[begun:start], tools)
            whole &= encode_plain(tools.plain, [text])[0] == ids[begun:start].tolist()
            parts.append(text)
        if number >= 0:
            parts.append(number)
        begun = after
    if not whole:
        parts = [part.strip("\ufffd") if isinstance(part, str) else part for part in parts]
    return [("document", parts)], whole


def decoded(ids: np.ndarray, tools: DecodingTools) -> str:
    """The text of ids that hold no image."""
    return str(tools.plain.decode(ids.tolist(), skip_special_tokens=False))


def ids_of(
    conversation: Conversation, grids: Sequence[tuple[int, int]], tools: DecodingTools
) -> np.ndarray:
    """The ids that encoding makes of the conversation."""
    pieces = chat.pieces_of(conversation, tools.vocab, encoding=tools.encoding)
    texts = iter(encode_plain(tools.plain, [what for what, _ in pieces if isinstance(what, str)]))
    ids: list[int] = []
    for what, _ in pieces:
        if isinstance(what, str):
            ids += next(texts)
        elif isinstance(what, int):
            ids += image_ids(tools.vocab, *grids[what]).tolist()
        else:
            ids += what
    return np.array(ids, np.int32)


def seconds_of(
    conversation: Conversation,
    grids: Sequence[tuple[int, int]],
    duration: float | None,
    *,
    video: bool,
) -> list[float | None]:
    """Per image of a sample the second of the video that it shows, as its prompt states it, else
    spread over the video's `duration`; null of stills.
    """
    if not video:
        return [None] * len(grids)
    step = (duration or float(len(grids))) / max(1, len(grids))
    found: list[float | None] = [
        round(number * step, 3) if cell == (0, 0) else None for number, cell in enumerate(grids)
    ]
    for _, parts in conversation:
        for before, part in zip(["", *parts], parts, strict=False):
            if not isinstance(part, int) or not isinstance(before, str) or found[part] is None:
                continue
            if stated := STATED.search(before):
                times = [int(number) for number in stated.groups() if number is not None]
                found[part] = float(sum(t * 60**n for n, t in enumerate(reversed(times))))
    return found
