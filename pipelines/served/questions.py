"""A sample and a prompt make one question: what is sent, and the digest that finds its answer.

    SAMPLE, Prompt, Settings --question_of--> Question --body--> a request of the chat endpoint

The digest is of the conversation, the bytes of its images and how much of them is shown, not of how
an image is encoded on the way: another version of Pillow asks nothing again.
"""

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.served.prompts import Prompt
from pipelines.served.replies import counts, in_words, schema

CHARS_PER_TOKEN = 4
"""Of English, about: https://platform.openai.com/tokenizer"""
IMAGE_TOKENS = 1000
"""Of an image, about, before a server states any: models take 64 to some thousands."""
AROUND = 64
"""Tokens of an answer beside its turns: braces, names."""
QUALITY = 90
"""Of the JPEGs that are sent where an image is too large."""
SENT_AS_THEY_ARE = {"JPEG": "jpeg", "PNG": "png", "WEBP": "webp"}
"""Formats that every such server opens."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What of the request determines its answer, beside prompt and model."""

    max_edge: int = 1024
    """px; a larger image is sent smaller."""
    max_images: int = 8
    """Of more (frames of a video), so many are sent, evenly spaced."""
    temperature: float = 0.0
    structured: bool = True
    """The JSON schema goes along as `response_format`; false: of servers that refuse it."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked about a sample."""

    id: str
    content: str
    """The digest by which an answer is found."""
    turns: int
    """Answers in it."""
    messages: Sequence[Mapping[str, Any]]
    images: Sequence[bytes | None]
    """Of all its images in order those that are shown; null: one that is not."""

    @property
    def shown(self) -> int:
        """Images that are sent."""
        return sum(data is not None for data in self.images)


def question_of(sample: Mapping[str, Any], prompt: Prompt, settings: Settings) -> Question | None:
    """What is asked about the sample; null where there is no answer in it, or no image and the
    prompt needs one, or where one answer of a pair would be rewritten.

    Reads: id, messages, images.
    """
    roles = [message["role"] for message in sample["messages"] or []]
    if prompt.writes and "rejected" in roles:
        return None
    turns = roles.count("assistant")
    stored = [image["bytes"] for image in sample["images"] or []]
    if not turns or any(data is None for data in stored):
        return None
    if not stored and prompt.images == "required":
        return None
    kept = set(evenly(len(stored), settings.max_images))
    images = [data if number in kept else None for number, data in enumerate(stored)]
    digest = hashlib.sha256(json.dumps(sample["messages"]).encode())
    for data in images:
        digest.update(b"-" if data is None else hashlib.sha256(data).digest())
    return Question(
        id=sample["id"],
        content=digest.hexdigest()[:32],
        turns=turns,
        messages=sample["messages"],
        images=images,
    )


def evenly(count: int, most: int) -> list[int]:
    """At most so many of the numbers below `count`, first and last among them."""
    if count <= most:
        return list(range(count))
    return [round(n * (count - 1) / max(1, most - 1)) for n in range(most)]


def expected_tokens(
    question: Question, prompt: Prompt, *, image_tokens: int = IMAGE_TOKENS
) -> tuple[int, int]:
    """(tokens that go in, about; tokens that may come out)."""
    texts = (part["text"] or "" for m in question.messages for part in m["content"] or [])
    chars = sum(map(len, texts)) + len(prompt.told)
    return (
        -(-chars // CHARS_PER_TOKEN) + question.shown * image_tokens + AROUND,
        most_output(question, prompt),
    )


def most_output(question: Question, prompt: Prompt) -> int:
    """Tokens that the answer may have."""
    return AROUND + prompt.output_tokens * counts(prompt, turns=question.turns)[1]


def body(question: Question, prompt: Prompt, settings: Settings, *, model: str) -> dict[str, Any]:
    """The request, as https://platform.openai.com/docs/api-reference/chat/create has it."""
    parts = [text_part(prompt.told), *conversation(question, settings)]
    parts.append(text_part(in_words(prompt, turns=question.turns)))
    request: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": parts}],
        "temperature": settings.temperature,
        "max_tokens": most_output(question, prompt),
    }
    if settings.structured:
        called = "rewritten" if prompt.writes else "ratings"
        wanted = schema(prompt, turns=question.turns)
        named = {"name": called, "strict": True, "schema": wanted}
        request["response_format"] = {"type": "json_schema", "json_schema": named}
    return request


def conversation(question: Question, settings: Settings) -> list[dict[str, Any]]:
    """The parts of the conversation: numbered questions and answers, images at their places."""
    parts: list[dict[str, Any]] = []
    images, number, skipped = iter(question.images), 1, 0
    for message in question.messages:
        if message["role"] == "rejected":  # of a pair: the answer that nobody learns
            continue
        is_answer = message["role"] == "assistant"
        title = "Answer" if is_answer else "Question" if message["role"] == "user" else "System"
        said = f"\n{title} {number}:\n"
        for part in message["content"] or []:
            if part["type"] != "image":
                said += part["text"] or ""
                continue
            data = next(images, None)
            if data is None:
                skipped += 1
                continue
            parts += [text_part(said), image_part(data, max_edge=settings.max_edge)]
            said = ""
        parts.append(text_part(said))
        number += is_answer
    if skipped:
        parts.append(text_part(f"\n({skipped} more images are not shown.)\n"))
    return [part for part in parts if part.get("text") != ""]


def text_part(text: str) -> dict[str, Any]:
    """A part that is text."""
    return {"type": "text", "text": text}


def image_part(data: bytes, *, max_edge: int) -> dict[str, Any]:
    """A part that is the image, as a data URL."""
    kind, shown = sendable(data, max_edge=max_edge)
    url = f"data:image/{kind};base64,{base64.b64encode(shown).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def sendable(data: bytes, *, max_edge: int) -> tuple[str, bytes]:
    """(format, bytes) of the image as it is sent: as it is where its format is common, it stands
    upright and is small enough; else a JPEG of what the model in training sees.
    """
    from tokenization.images import image_size, open_header, open_image

    with open_header(io.BytesIO(data)) as header:
        kind, stored = SENT_AS_THEY_ARE.get(header.format or ""), header.size
        upright = header.getexif().get(0x0112, 1) == 1
    width, height = image_size(data)
    if kind and upright and max(stored) <= max_edge:
        return kind, data
    image = open_image(data)
    scale = min(1.0, max_edge / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    file = io.BytesIO()
    (image if size == image.size else image.resize(size)).save(file, "JPEG", quality=QUALITY)
    return "jpeg", file.getvalue()
