"""A checkpoint answers the questions of a finished mixture, several times each.

shards --questions--> prompt, images, gold --n draws each--> SAMPLED, OUTPUT/sampled/SHARD-N.parquet

What is drawn depends on the seed and the question alone. A file is whole or not there; the same
command goes on after the last one.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tokenization.decode import Decoded, DecodingTools
from tokenization.terminal import log
from trainer.align import data
from trainer.data.shards import Rows
from trainer.evaluation.answer import Prompt, replies
from trainer.evaluation.sampling import key_of

CHUNK = 128
"""Sequences of a file of SAMPLED."""
SAMPLED = pa.schema(
    [
        ("id", pa.string()),
        ("key", pa.string()),  # of its prompt: parts of a sample that was split differ in it
        ("question", pa.string()),  # the text of the last message before the answer
        ("gold", pa.string()),  # null: no answer of text ends it, and nothing was asked
        ("answers", pa.list_(pa.struct([("text", pa.string()), ("finished", pa.bool_())]))),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What determines the answers, beside the weights and the mixture."""

    generations: int = 8
    temperature: float = 1.0
    seed: int = 17
    max_new_tokens: int = 64
    component: str = ""
    """Names, by commas; empty: all."""
    limit: int = 0
    """So many questions, the first of the shards; 0: all."""


def key(one: Decoded) -> str:
    """What tells one sequence of a sample from others."""
    return hashlib.sha256(one.ids.tobytes()).hexdigest()[:16]


def last_question(one: Decoded) -> str:
    """The text before the last answer."""
    role, parts = one.conversation[-2]
    return "".join(part for part in parts if isinstance(part, str)) if role == "user" else ""


def chunks(rows: Rows, number: int, tools: DecodingTools) -> Iterator[tuple[str, list[Decoded]]]:
    """(name, CHUNK sequences) of a shard, in order."""
    held: list[Decoded] = []
    count, stem = 0, Path(rows.shards[number]).stem
    for one in data.of_shard(rows, number, tools):
        held.append(one)
        if len(held) == CHUNK:
            yield f"{stem}-{count:04d}", held
            held, count = [], count + 1
    if held:
        yield f"{stem}-{count:04d}", held


def sample(
    model: Any,
    tokenizer: Any,
    rows: Rows,
    tools: DecodingTools,
    sampling: Sampling,
    *,
    wanted: Collection[str],
    names: Mapping[str, str],
    known: dict[str, bool],
    batch: int,
    folder: Path,
) -> None:
    """`folder` holds a file of SAMPLED for every chunk of the rows, until `limit` is reached.

    `wanted`: components, none: all; `names`: an id's beginning -> its component. `known`: what was
    met before, and whether it was asked, to which these are added: a copy is asked once.
    """
    for number in range(len(rows.shards)):
        for name, sequences in chunks(rows, number, tools):
            file = folder / f"{name}.parquet"
            if file.is_file():
                lines = pq.read_table(file, columns=["id", "key", "gold"]).to_pylist()
                known.update({f"{each['id']} {each['key']}": bool(each["gold"]) for each in lines})
                continue
            asked = sum(known.values())
            if sampling.limit and asked >= sampling.limit:
                return
            new: dict[str, Decoded] = {}
            for one in sequences:
                called = f"{one.id} {key(one)}"
                ours = not wanted or names.get(one.id.rpartition("/")[0], "") in wanted
                if not ours or called in known or called in new:
                    continue
                is_question = data.answer_of(one) is not None
                if sampling.limit and is_question and asked >= sampling.limit:
                    continue
                asked += is_question
                new[called] = one
            table = answered(model, tokenizer, list(new.values()), tools, sampling, batch=batch)
            known.update(
                {name: bool(gold) for name, gold in zip(new, table["gold"].to_pylist(),
                                                        strict=True)}
            )  # fmt: skip
            arriving = file.with_suffix(".arriving")
            pq.write_table(table, arriving)
            arriving.rename(file)
            log(f"asked {sum(known.values()):,} questions {sampling.generations} times ({name})")


def answered(
    model: Any,
    tokenizer: Any,
    sequences: list[Decoded],
    tools: DecodingTools,
    sampling: Sampling,
    *,
    batch: int,
) -> pa.Table:
    """SAMPLED of these sequences."""
    lines: list[dict[str, Any]] = []
    prompts: list[Prompt] = []
    images: list[list[bytes]] = []
    keys: list[int] = []
    for one in sequences:
        gold = data.answer_of(one)
        lines.append({"id": one.id, "key": key(one), "gold": gold, "question": None, "answers": []})
        if gold is None:
            continue
        lines[-1]["question"] = last_question(one)
        ids, _ = data.parted(one, gold, tools)
        for number in range(sampling.generations):
            prompts.append(Prompt(np.array(ids, np.int64), one.grids))
            images.append(one.images)
            keys.append(key_of(sampling.seed, f"{one.id} {key(one)}", number))
    said = replies(
        model, tokenizer, prompts, images, encoding=tools.encoding,
        max_new_tokens=sampling.max_new_tokens, batch_size=batch, keys=keys,
        temperature=sampling.temperature,
    ) if prompts else []  # fmt: skip
    given = iter(said)
    for line in lines:
        if line["gold"] is not None:
            some = [next(given) for _ in range(sampling.generations)]
            line["answers"] = [{"text": each.text, "finished": each.finished} for each in some]
    return pa.Table.from_pylist(lines, schema=SAMPLED)
