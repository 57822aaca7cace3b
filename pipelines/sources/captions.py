"""Questions for data that has captions and no questions, chosen by a hash of the subject."""

from collections.abc import Sequence
from hashlib import blake2b

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
SCENES = "Describe the video scene by scene, with the time of each."
SPOKEN = 'The voice-over says: "{}"'
CAMERA = "Which shot type and camera movement are used?"


def choose_question(questions: Sequence[str], about: str) -> str:
    """The question for `about`: the same for the same text, evenly spread over all."""
    digest = blake2b(about.encode("utf-8", "replace"), digest_size=4).digest()
    return questions[int.from_bytes(digest, "big") % len(questions)]
