"""Where the media of a conversation stand: the samples of every source pass through here, once.

An adapter gives turns, and the media that the row holds beside them, `waiting` for their places. A
place is what the row says it is, and each medium that waits is used:

| in a turn                    | stands for                                                      |
|------------------------------|-----------------------------------------------------------------|
| `<image>`, `<video>` in text | the next that waits of its kind; `<image>` for a video where    |
|                              | the row has no image (LLaVA-Video writes so)                    |
| Next: a part without a name  | the next that waits of its kind                                 |
| At: a part with an index     | that one of its kind                                            |
| Named: a part with a name    | the one that waits under this name or with these bytes, else    |
|                              | the medium itself                                               |
| none of these in any turn    | all that wait open the first user turn                          |

What does not come out even is the Defect `placeholder_mismatch`, and so is a placeholder in an
answer: it would be learned as text. With `literal` a placeholder is text and stays. Line breaks
right after placeholders that open a turn, and space between those, belong to them and go.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from pipelines.sources.sample import (
    At,
    Content,
    Defect,
    Medium,
    Named,
    Next,
    Sample,
    Turn,
    Video,
)

PLACEHOLDER = re.compile(r"<(image|video)>")


@dataclass(frozen=True)
class Placeholder:
    """One that stood in a text."""

    kind: str


Piece = Content | Placeholder


def place_media(sample: Sample, *, literal: bool) -> Sample:
    """The sample with every medium at its place and none waiting; raises Defect."""
    if asks_for_none(sample, literal=literal):
        return with_opening(sample) if sample.waiting else sample
    free = list(sample.waiting)
    only_videos = bool(free) and all(isinstance(medium, Video) for medium in free)
    turns = [
        [claimed(piece, sample.waiting, free) for piece in pieces_of(turn, literal=literal)]
        for turn in sample.turns
    ]
    if only_videos:
        turns = [[Placeholder("video") if is_placeholder(p) else p for p in t] for t in turns]
    asking = Counter(p.kind for turn in turns for p in turn if isinstance(p, Placeholder | Next))
    queues = {kind: [m for m in free if kind_of(m) == kind] for kind in ("image", "video")}
    if asking:
        check_even(asking, queues)
        turns = [with_media(turn, queues) for turn in turns]
    elif free:
        raise Defect("placeholder_mismatch", f"{counted(queues)} that no part names")
    contents = zip(sample.turns, turns, strict=True)
    whole = tuple(Turn(turn.role, tuple(content)) for turn, content in contents)  # type: ignore[arg-type]
    return replace(sample, turns=whole, waiting=())


def asks_for_none(sample: Sample, *, literal: bool) -> bool:
    """Whether no part of a turn stands for a medium that waits: true of most samples."""
    for turn in sample.turns:
        text = literal or turn.role == "document"
        for part in turn.content:
            if isinstance(part, str):
                if not text and "<" in part and PLACEHOLDER.search(part):
                    return False
            elif isinstance(part, At | Named | Next):
                return False
    return True


def with_opening(sample: Sample) -> Sample:
    """The sample with all that waits in front of its first question; raises Defect."""
    for number, turn in enumerate(sample.turns):
        if turn.role == "user":
            opened = Turn("user", (*sample.waiting, *turn.content))
            turns = (*sample.turns[:number], opened, *sample.turns[number + 1 :])
            return replace(sample, turns=turns, waiting=())
    raise Defect("wrong_schema", "media, but no user turn")


def kind_of(medium: Medium) -> str:
    """`image` or `video`: whose placeholder stands for it; that of a PDF is an image's."""
    return "video" if isinstance(medium, Video) else "image"


def is_placeholder(piece: Piece) -> bool:
    """Whether it stood in a text."""
    return isinstance(piece, Placeholder)


def pieces_of(turn: Turn, *, literal: bool) -> Iterator[Piece]:
    """The parts of a turn, its texts cut at their placeholders."""
    for part in turn.content:
        if literal or turn.role == "document" or not isinstance(part, str):
            yield part
            continue
        texts = PLACEHOLDER.split(part)  # text, kind, text, kind, ..., text
        if len(texts) > 1 and turn.role in ("assistant", "rejected"):
            raise Defect("placeholder_mismatch", f"<{texts[1]}> in an answer")
        yield texts[0]
        for kind, text in zip(texts[1::2], texts[2::2], strict=True):
            yield Placeholder(kind)
            yield text


def claimed(piece: Piece, waiting: Sequence[Medium], free: list[Medium]) -> Piece:
    """The medium that an indexed or named part means, which is no longer `free`; else the piece."""
    if isinstance(piece, At):
        same = [medium for medium in waiting if kind_of(medium) == piece.kind]
        if not 0 <= piece.index < len(same):
            raise Defect(
                "placeholder_mismatch", f"index {piece.index} of {len(same)} {piece.kind}s"
            )
        found = same[piece.index]
    elif isinstance(piece, Named):
        found = next((m for m in [*free, *waiting] if is_same(m, piece.medium)), piece.medium)
    else:
        return piece
    if found in free:
        free.remove(found)
    return found


def is_same(medium: Medium, named: Medium) -> bool:
    """Whether a part names this medium: of one kind, with the same bytes or a common name."""
    if kind_of(medium) != kind_of(named):
        return False
    if medium.data is not None and medium.data == named.data:
        return True
    return bool(names_of(medium) & names_of(named))


def names_of(medium: Medium) -> set[str]:
    """What a row may call it: `./a.png` is `a.png`."""
    called = [*medium.called, *([medium.path] if medium.path else [])]
    return {PurePosixPath(name.replace("\\", "/")).as_posix() for name in called}


def check_even(asking: Mapping[str, int], queues: Mapping[str, Sequence[Medium]]) -> None:
    """Raises Defect unless there is a medium for every place, and a place for every medium."""
    if any(asking.get(kind, 0) != len(queue) for kind, queue in queues.items()):
        places = " and ".join(f"{n} <{kind}>" for kind, n in sorted(asking.items()))
        raise Defect("placeholder_mismatch", f"{places} for {counted(queues)}")


def counted(queues: Mapping[str, Sequence[Medium]]) -> str:
    """`2 images and 1 video`."""
    told = [
        f"{len(queue)} {kind}{'s' * (len(queue) != 1)}" for kind, queue in queues.items() if queue
    ]
    return " and ".join(told) or "no image or video"


def with_media(turn: Sequence[Piece], queues: Mapping[str, list[Medium]]) -> list[Piece]:
    """The turn with the next medium of its kind at each place, taken from the front of a queue."""
    content: list[Piece] = []
    opening = False
    """All so far are media, the last one in the place of a placeholder."""
    for number, piece in enumerate(turn):
        if isinstance(piece, Placeholder | Next):
            content.append(queues[piece.kind].pop(0))
            all_media = not any(isinstance(part, str) for part in content)
            opening = all_media and isinstance(piece, Placeholder)
        elif isinstance(piece, str):
            text = piece.lstrip("\n") if opening else piece
            between = opening and number + 1 < len(turn) and is_placeholder(turn[number + 1])
            if text and not (between and not text.strip()):
                content.append(text)
                opening = False
        else:
            content.append(piece)
            opening = False
    return content
