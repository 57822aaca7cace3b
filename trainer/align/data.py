"""What a finished mixture holds, as TRL's trainers take it: one Arrow file, memory-mapped.

    shards --sequences_of--> PAIRS      prompt, chosen and rejected as ids, images encoded   (dpo)
                             QUESTIONS  the prompt as messages, its images, the gold answer  (grpo)

Ids are those of the shards: what was learned of a chosen answer is what is preferred. A sample is
there as often as the shards hold it. What is no pair (no question with an answer) is left out.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tokenization.decode import Decoded, DecodingTools, decoding_tools, sequences_of
from tokenization.vocab import encode_plain
from trainer.data.shards import Mixture, Rows

BATCH = 64
"""Rows of a record batch."""
GRIDS = pa.list_(pa.struct([("rows", pa.int32()), ("cols", pa.int32())]))
PAIRS = pa.schema(
    [
        ("id", pa.string()),
        ("prompt_ids", pa.list_(pa.int32())),  # up to where the answer begins
        ("chosen_ids", pa.list_(pa.int32())),  # " answer<end_of_utterance>"
        ("rejected_ids", pa.list_(pa.int32())),
        ("encoded", pa.list_(pa.binary())),  # the images, as stored: `images` TRL would take itself
        ("grids", GRIDS),
    ]
)
MESSAGE = pa.struct(
    [("role", pa.string()), ("content", pa.list_(pa.struct([("type", pa.string()),
                                                            ("text", pa.string())])))]
)  # fmt: skip
_TEXT = {"dtype": "string", "_type": "Value"}
_FEATURES = {
    "id": _TEXT,
    "prompt": {
        "feature": {
            "role": _TEXT,
            "content": {"feature": {"type": _TEXT, "text": _TEXT}, "_type": "List"},
        },
        "_type": "List",
    },
    "images": {"feature": {"_type": "Image"}, "_type": "List"},
    "gold": _TEXT,
}
QUESTIONS = pa.schema(
    [
        ("id", pa.string()),
        ("prompt", pa.list_(MESSAGE)),
        ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
        ("gold", pa.string()),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)


def tools_of(mixture: Mixture) -> DecodingTools:
    """What turns the mixture's ids back to text.

    Raises:
        ValueError: it was rendered by another template than SmolVLM's own, or stores crops.
    """
    if mixture.encoding.images == "fitted":
        raise ValueError(
            f"{mixture.folder}: encoding.images is fitted: its images are crops already. Build it "
            "with images: original."
        )
    return decoding_tools(mixture.encoding, str(mixture.folder / "tokenizer"))


def sequences(mixture: Mixture, split: str) -> Iterator[Decoded]:
    """The sequences of a split's shards, in order."""
    rows, tools = Rows(mixture, split), tools_of(mixture)
    for number in range(len(rows.shards)):
        yield from of_shard(rows, number, tools)


def of_shard(rows: Rows, number: int, tools: DecodingTools) -> Iterator[Decoded]:
    """The sequences of one shard, in order."""
    path = rows.fetch(number)
    with pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(file)
        for batch in range(reader.num_record_batches):
            for row in reader.get_batch(batch).to_pylist():
                yield from sequences_of(row, tools, where=str(path))


def answer_of(one: Decoded) -> str | None:
    """The text of its last message, where that is an answer of text alone."""
    if len(one.conversation) < 2:
        return None
    role, parts = one.conversation[-1]
    said = [part for part in parts if isinstance(part, str)]
    return "".join(said) if role == "assistant" and len(said) == len(parts) else None


def pair_of(one: Decoded, tools: DecodingTools) -> dict[str, Any] | None:
    """The row of PAIRS; None where it is no pair."""
    chosen = answer_of(one)
    if chosen is None or one.rejected is None:
        return None
    prompt, better = parted(one, chosen, tools)
    return {
        "id": one.id,
        "prompt_ids": prompt,
        "chosen_ids": better,
        "rejected_ids": answer_ids(one.rejected, tools),
        "encoded": one.images,
        "grids": [{"rows": rows, "cols": cols} for rows, cols in one.grids],
    }


def answer_ids(answer: str, tools: DecodingTools) -> list[int]:
    """The ids of an answer, with its end."""
    return [*encode_plain(tools.plain, [f" {answer}"])[0], tools.vocab.end]


def parted(one: Decoded, answer: str, tools: DecodingTools) -> tuple[list[int], list[int]]:
    """(its ids up to where its last answer begins, those of the answer)."""
    said, ids = answer_ids(answer, tools), one.ids.tolist()
    tail = [*said, *tools.vocab.newline]
    if ids[-len(tail) :] != tail:
        raise ValueError(f"sample {one.id}: its ids do not end with its answer.")
    return ids[: -len(tail)], said


def message(role: str, parts: Sequence[str | int]) -> dict[str, Any]:
    """A message in typed parts; images are the next ones of the row."""
    return {
        "role": role,
        "content": [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "image", "text": None}
            for part in parts
        ],
    }


def question_of(one: Decoded) -> dict[str, Any] | None:
    """The row of QUESTIONS; None where no answer of text ends it, or it has no image: TRL's GRPO
    takes no batch in which some have images and some have none.
    """
    gold = answer_of(one)
    if gold is None or not one.images:
        return None
    prompt = [message(role, parts) for role, parts in one.conversation[:-1]]
    images = [{"bytes": image, "path": None} for image in one.images]
    return {"id": one.id, "prompt": prompt, "images": images, "gold": gold}


def write(mixture: Mixture, split: str, file: Path, *, method: str, most: int = 0) -> int:
    """The file holds the split's PAIRS (grpo: QUESTIONS), at most so many (0: all); returns their
    number. One that is there is kept: the mixture determines it.
    """
    if file.is_file():
        with pa.memory_map(str(file)) as source:
            return sum(batch.num_rows for batch in pa.ipc.open_stream(source))
    tools, schema = tools_of(mixture), PAIRS if method == "dpo" else QUESTIONS
    file.parent.mkdir(parents=True, exist_ok=True)
    arriving, count = file.with_suffix(".arriving"), 0
    with arriving.open("wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        waiting: list[dict[str, Any]] = []
        for one in sequences(mixture, split):
            row = pair_of(one, tools) if method == "dpo" else question_of(one)
            if row is None:
                continue
            waiting.append(row)
            count += 1
            if len(waiting) == BATCH or count == most:
                writer.write_batch(pa.RecordBatch.from_pylist(waiting, schema=schema))
                waiting = []
            if count == most:
                break
        if waiting:
            writer.write_batch(pa.RecordBatch.from_pylist(waiting, schema=schema))
    if count:  # a mixture that is built again may hold some
        arriving.rename(file)
    else:
        arriving.unlink()
    return count
