"""Questions and answers: those of a row, and some for data that has captions and no questions."""

from collections.abc import Sequence
from hashlib import blake2b

from pipelines.sources import cells
from pipelines.sources.sample import Turn

IMAGE = (
    "Describe the image.",
    "What does this image show?",
    "Write a caption for this image.",
    "Explain what can be seen here.",
)
VIDEO = (
    "Describe the video in detail.",
    "What happens in this video?",
    "Write a detailed caption for this video.",
    "Describe what is shown from beginning to end.",
)
CLASS = (
    "What does this image show? Answer with one label.",
    "Which class does this image belong to?",
    "Name what is in this image.",
    "Classify this image.",
)
SCENES = "Describe the video scene by scene, with the time of each."
SPOKEN = 'The voice-over says: "{}"'
CAMERA = "Which shot type and camera movement are used?"


def choose_question(questions: Sequence[str], about: str) -> str:
    """The question for `about`, by its hash: the same for the same text, evenly spread over all."""
    return questions[choose_number(len(questions), about)]


def choose_number(count: int, about: str) -> int:
    """A number below `count`, chosen in that way."""
    digest = blake2b(about.encode("utf-8", "replace"), digest_size=4).digest()
    return int.from_bytes(digest, "big") % count


def questions(value: object, name: str) -> list[tuple[str, str]]:
    """The (question, answer) pairs of a list of {question, answer}."""
    return [
        (
            cells.text(pair.get("question"), f"{name}[{number}].question"),
            cells.text(pair.get("answer"), f"{name}[{number}].answer"),
        )
        for number, pair in enumerate(cells.rows(value, name))
    ]


def turns_of(pairs: Sequence[tuple[str, str]]) -> tuple[Turn, ...]:
    """Questions and answers as turns."""
    said = ((Turn("user", (q,)), Turn("assistant", (a,))) for q, a in pairs)
    return tuple(turn for pair in said for turn in pair)
