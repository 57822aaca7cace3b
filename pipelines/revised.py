"""Samples with the texts that a model wrote for them, and the ratings that one gave.

    SAMPLE + REVISED --revised--> the samples as they are judged, encoded and shown

What was read stays as it was read: REVISED lies beside it, row for row.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines import recipe
from pipelines.engine import tables
from tokenization.schema import MESSAGES, RATINGS, SAMPLE

TURNS = pa.list_(pa.struct([("question", pa.string()), ("answer", pa.string())]))
REWRITES = pa.schema(
    [
        ("id", pa.string()),
        ("verdict", pa.string()),  # why it was not rewritten; null: it was
        ("detail", pa.string()),
        ("turns", TURNS),  # what it is now; a question that is null stays
        ("original", TURNS),  # what it was
        ("whole", pa.bool_()),  # `turns` take the place of all turns, however many
    ]
)
"""A table of rewritten samples."""
REVISED = pa.schema(
    [
        ("id", pa.string()),
        ("messages", MESSAGES),  # null: as they were read
        ("rewritten", pa.list_(pa.string())),  # the prompts that did it, in order
        ("ratings", RATINGS),  # null: those that were read, or of other texts: none
        ("without", pa.list_(pa.string())),  # what it did not get, and why
    ]
)
TAG = "rewritten:"
"""A tag of rewritten samples begins so; the prompt's name follows."""
Messages = list[dict[str, Any]]


def revised_file(work: str, read: str, revision: str, file: str) -> str:
    """Where the REVISED of a part lies, whose samples are those of the fingerprint `read`."""
    return tables.join(work, "revised", recipe.fingerprint(read, revision), file)


def revised(samples: pa.Table, beside: pa.Table | None) -> pa.Table:
    """The samples with what REVISED holds of the same rows: texts, ratings, and a tag of what was
    rewritten. Columns that they lack are not added. Null: as they are.
    """
    if beside is None:
        return samples
    done = pc.greater(pc.list_value_length(beside["rewritten"]), 0)
    columns: dict[str, Any] = {}
    if "messages" in samples.column_names:
        columns["messages"] = pc.if_else(done, beside["messages"], samples["messages"])
    if "ratings" in samples.column_names:
        read = pc.if_else(done, pa.scalar([], RATINGS), samples["ratings"])
        columns["ratings"] = pc.coalesce(beside["ratings"], read)
    if "tags" in samples.column_names:
        both = zip(samples["tags"].to_pylist(), beside["rewritten"].to_pylist(), strict=True)
        columns["tags"] = [[*(tags or []), *(TAG + name for name in by)] for tags, by in both]
    for name, values in columns.items():
        field = SAMPLE.field(name)
        array = values if not isinstance(values, list) else pa.array(values, field.type)
        position = samples.schema.get_field_index(name)
        samples = samples.set_column(position, samples.schema.field(position), array)
    return samples


# ------------------------------------------------------------------ turns of a conversation


def texts_of(messages: Messages) -> list[dict[str, str | None]]:
    """Question and answer of every turn; a turn ends with its answer. Null: it has no question."""
    found: list[dict[str, str | None]] = []
    asked: list[str] = []
    for message in messages:
        if message["role"] == "user":
            asked.append(text_in(message))
        elif message["role"] == "assistant":
            found.append(
                {"question": "\n".join(asked) if asked else None, "answer": text_in(message)}
            )
            asked = []
    return found


def text_in(message: Mapping[str, Any]) -> str:
    """The text of a message, without the places of its images."""
    return "".join(part["text"] or "" for part in message["content"] if part["type"] != "image")


def with_turns(messages: Messages, turns: Sequence[Mapping[str, str | None]]) -> Messages:
    """The conversation with the texts of its turns replaced; a question that is null or empty stays
    as it is, and images keep their places beside them.
    """
    made: Messages = []
    number, asked = 0, False
    for message in messages:
        turn = turns[number] if number < len(turns) else {}
        text: str | None = None
        if message["role"] == "user":
            text = None if not turn.get("question") else "" if asked else turn["question"]
            asked = True
        elif message["role"] == "assistant":
            text, asked, number = turn.get("answer"), False, number + 1
        made.append(message if text is None else with_text(message, text))
    return made


def with_text(message: dict[str, Any], text: str) -> dict[str, Any]:
    """The message with that text where its first one stood, else at its end."""
    content: list[dict[str, Any]] = []
    said = False
    for part in message["content"]:
        if part["type"] == "image":
            content.append(part)
        elif not said:
            content.append({"type": "text", "text": spaced(part["text"] or "", text)})
            said = True
    if not said:
        content.append({"type": "text", "text": text})
    return message | {"content": content}


def spaced(before: str, text: str) -> str:
    """The text with the line breaks that stood around it, between it and an image."""
    if not before.strip():
        return text
    start = before[: len(before) - len(before.lstrip())]
    return start + text + before[len(before.rstrip()) :]


def with_conversation(messages: Messages, turns: Sequence[Mapping[str, str | None]]) -> Messages:
    """A conversation of these turns in place of all that there were; what the system says stays,
    and all images stand before the first question.
    """
    made = [message for message in messages if message["role"] == "system"]
    images = [p for m in messages for p in m["content"] if p["type"] == "image"]
    for turn in turns:
        asked = {"type": "text", "text": turn["question"] or ""}
        made.append({"role": "user", "content": [*images, asked]})
        made.append(
            {"role": "assistant", "content": [{"type": "text", "text": turn["answer"] or ""}]}
        )
        images = []
    return made
