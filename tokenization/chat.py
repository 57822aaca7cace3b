"""From a conversation to pieces whose order, text and mask are final: only the ids are missing.

A piece is (what, learned): what is text (str), ids (tuple of int) or the number of an image (int).
Text pieces lie between special tokens, or end where the tokenizer always cuts (after the colon of
a role), so encoding them one by one gives the ids of the whole string. What is learned of an answer
is `" answer<end_of_utterance>"`: the space belongs to it, the line break after it does not.
"""

from tokenization.prompts import Conversation
from tokenization.schema import Encoding
from tokenization.vocab import Vocab

Piece = tuple[str | int | tuple[int, ...], bool]

ROLES = ("system", "user", "assistant", "document")


def problem_of(conversation: Conversation, num_images: int) -> str:
    """Why a conversation cannot be rendered, or "" where it can."""
    roles = {role for role, _ in conversation}
    if not roles <= set(ROLES):
        return "unknown_role"
    if "document" in roles and len(roles) > 1:
        return "mixed_document"
    placeholders = sum(isinstance(part, int) for _, parts in conversation for part in parts)
    if placeholders > num_images:
        return "more_placeholders_than_images"
    if placeholders < num_images:
        return "more_images_than_placeholders"
    return ""


def _pairs(conversation: Conversation) -> tuple[Conversation, list[Conversation]]:
    """(messages before the first user, then one list of messages per user turn)."""
    starts = [n for n, (role, _) in enumerate(conversation) if role == "user"]
    ends = [*starts[1:], len(conversation)] if starts else []
    head = conversation[: starts[0]] if starts else conversation
    return head, [conversation[a:b] for a, b in zip(starts, ends, strict=True)]


def _split_media(pairs: list[Conversation]) -> tuple[list[str | int], list[Conversation]] | None:
    """(images, pairs without them) where all images open the first question; else None."""
    numbers: list[str | int] = [
        part for pair in pairs for _, parts in pair for part in parts if isinstance(part, int)
    ]
    if not pairs or not numbers or pairs[0][0][1][: len(numbers)] != numbers:
        return None
    (role, parts), *rest = pairs[0]
    return numbers, [[(role, parts[len(numbers) :]), *rest], *pairs[1:]]


def _joined(head: Conversation, media: list[str | int], pairs: list[Conversation]) -> Conversation:
    """One conversation again, with the images before the first question."""
    (role, parts), *rest = pairs[0]
    first = [(role, [*media, *parts]), *rest]
    return [*head, *first, *(message for pair in pairs[1:] for message in pair)]


def chosen_turns(
    conversation: Conversation, order: list[int] | None, *, encoding: Encoding
) -> Conversation:
    """The conversation with its pairs in `order` (where its images open it), then `max_turns` of
    them; one whose images come later is only cut after whole pairs that leave no image out.
    """
    head, pairs = _pairs(conversation)
    opening = _split_media(pairs)
    if order is not None and opening is not None:
        media, pairs = opening
        pairs = [pairs[n] for n in order]
        conversation = _joined(head, media, pairs)
    if encoding.max_turns and len(pairs) > encoding.max_turns:
        kept = _pairs(conversation)[1][: encoding.max_turns]
        short = [*head, *(message for pair in kept for message in pair)]
        count = lambda c: sum(isinstance(p, int) for _, parts in c for p in parts)
        if count(short) == count(conversation):
            return short
    return conversation


def num_pairs(conversation: Conversation) -> int:
    """Question-answer pairs whose images open the first question; 0 where they do not."""
    _, pairs = _pairs(conversation)
    return len(pairs) if _split_media(pairs) else 0


def some_pairs(conversation: Conversation, start: int, end: int) -> Conversation:
    """The conversation of pairs `start` to `end` alone, with the head and the opening images."""
    head, pairs = _pairs(conversation)
    opening = _split_media(pairs)
    if opening is None:
        raise ValueError("only conversations whose images open the first question can be split.")
    media, pairs = opening
    return _joined(head, media, pairs[start:end])


def pieces_of(conversation: Conversation, vocab: Vocab, *, encoding: Encoding) -> list[Piece]:
    """The pieces of a conversation in SmolVLM's chat format, or of a raw document.

    A document is its text and `<|endoftext|>`, all of it learned except its first token, which
    nothing comes before.
    """
    everything = encoding.learn == "all"
    if conversation and conversation[0][0] == "document":
        return [
            *_content("", [part for _, parts in conversation for part in parts], True),
            ((vocab.document_end,), True),
        ]
    pieces: list[Piece] = [((vocab.begin,), False)]
    for role, parts in conversation:
        learned = everything or role == "assistant"
        pieces.append((f"{role.capitalize()}:", everything))
        space = "" if parts and isinstance(parts[0], int) else " "
        pieces += _content(space, parts, learned)
        pieces.append(((vocab.end,), learned))
        pieces.append((vocab.newline, everything))
    return pieces


def _content(lead: str, parts: list[str | int], learned: bool) -> list[Piece]:
    """The pieces of one message; neighbouring texts are one text, as in a rendered string."""
    pieces: list[Piece] = []
    text = lead
    for part in parts:
        if isinstance(part, str):
            text += part
            continue
        if text:
            pieces.append((text, learned))
        pieces.append((part, False))
        text = ""
    if text:
        pieces.append((text, learned))
    return pieces
