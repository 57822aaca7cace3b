"""What is asked and answered: lengths of questions and answers, the most frequent answers.

    samples drawn (drawn.py) --messages_of--> role, text, tokens --texts--> stats.json

Counts are of the samples drawn, which `stats.texts.sample` states. A question is a user's message
without the words that the pipeline puts around images, an answer an assistant's; a raw document
counts as an answer. Samples without images are compared as `near_duplicate_text` compares them.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import polars as pl

import filters
from filters.duplicates.hashes import text_signature
from pipelines.report.drawn import drawn, views
from pipelines.report.finished import Finished
from pipelines.report.row_view import SampleView
from tokenization import prompts
from tokenization.vocab import BEGIN, END

FREQUENT = 5
"""Answers of a component that are named."""
CHARACTERS = 80
"""Of such an answer, at most."""
EDGES = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256, 512, 1024, 2048, 4096, 16384, 2**30)
"""Tokens between which lengths are counted: fine where most answers are."""
_INTROS = "|".join(
    re.sub(r"\\\{\w+\\\}", r"[\\w:-]+", re.escape(intro.strip()))
    for intro in (*prompts.IMAGE_INTROS, *prompts.IMAGES_INTROS, prompts.VIDEO_INTRO)
)
BEFORE_IMAGE = re.compile(
    rf"(?:(?<=:)\s*(?:{_INTROS})\s*)?(?:\n?Frame from \d\d+:\d\d:)$|(?<=:)\s*(?:{_INTROS})\s*$"
)
"""An intro, the time of a frame, or both, at the end of a text."""
AFTER_IMAGE = re.compile(
    rf"^(?:{'|'.join(map(re.escape, (*prompts.IMAGE_OUTROS, *prompts.IMAGES_OUTROS)))})"
)
NEAR = "near_duplicate_text"
PAIRS = 1
"""Of near texts of a component that are named."""
ROLE = re.compile(r"\s*(System|User|Assistant):")


class Message(NamedTuple):
    """One message of a sample."""

    role: str
    """system, user, assistant, or document."""
    text: str
    tokens: int
    """Of the text, without those of the role, of images and of special marks."""


def texts(mixture: Finished) -> dict[str, Any]:
    """`sample`: what was drawn; `questions`, `answers`: histograms of their tokens, of all and of
    each component; `frequent`: per component its most frequent answers; `near`: of the samples
    without images those that are near another. Empty where shards are rendered by another chat
    template than SmolVLM's: who says what cannot be told there.
    """
    if not tells_roles(mixture):
        return {}
    looked = drawn(mixture)
    asked: dict[str, list[int]] = defaultdict(list)
    answered: dict[str, list[int]] = defaultdict(list)
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    names = [n for n in mixture.stats["components"] if n in set(looked.places["component"])]
    words: list[tuple[str, str, str]] = []
    for place, row, view in views(mixture, looked.places):
        name = place["component"]
        messages = list(messages_of(view, mixture.tokenizer))
        if not row["grids"]:
            said = "\n".join(message.text for message in messages if message.role != "system")
            words.append((view.id, name, said))
        for role, text, tokens in messages:
            if role == "user":
                asked[name].append(tokens)
            elif role != "system":
                answered[name].append(tokens)
                answers[name][text] += 1
    per = dict(looked.places["component"].value_counts().iter_rows())
    return {
        "sample": {
            "shards": looked.shards,
            "of": len(mixture.shards["train"]),
            "each": looked.each,
            "components": {name: per[name] for name in names},
        },
        "questions": _histogram(asked, names),
        "answers": _histogram(answered, names),
        "frequent": {name: _frequent(answers[name]) for name in names},
        "near": near_texts(words, names),
    }


def near_texts(words: list[tuple[str, str, str]], names: list[str]) -> dict[str, Any]:
    """Of (id, component, text): per component how many there are and how many the rule would take,
    each near one that stays; some pairs of ids, the one that stays first.
    """
    schema = {"id": pl.String, "component": pl.String, "text": pl.String}
    frame = pl.DataFrame(words, schema=schema, orient="row")
    pairs = pl.DataFrame(schema={"first": pl.String, "id": pl.String, "component": pl.String})
    if words:
        signed = frame.with_columns(text_signature(frame), priority=pl.lit(0)).drop("text")
        gone = filters.RULES[NEAR].function(signed)
        first = pl.col("detail").str.strip_prefix("of ")
        pairs = gone.select(first=first, id="id").join(frame.drop("text"), on="id").sort("id")
    counts, near = (dict(some["component"].value_counts().iter_rows()) for some in (frame, pairs))
    shown = pairs.group_by("component", maintain_order=True).head(PAIRS)
    return {
        "similarity": filters.settings_of(NEAR, None)[1]["similarity"],
        "components": {
            name: {"compared": counts[name], "near": near.get(name, 0)}
            for name in names
            if name in counts
        },
        "pairs": [list(pair) for pair in shown.sort("component").select("first", "id").iter_rows()],
    }


def tells_roles(mixture: Finished) -> bool:
    """Whether all is rendered as SmolVLM does."""
    recipe = mixture.recipe["mixture"]
    own = [about.get("encoding") or {} for about in recipe["components"].values()]
    encodings = [recipe["encoding"], *own]
    return all(each.get("chat_template", "smolvlm") == "smolvlm" for each in encodings)


def messages_of(view: SampleView, tokenizer: Any) -> Iterator[Message]:
    """The messages of a sample in order, without the words that the pipeline puts around images."""
    text, tokens = "", 0
    chat = bool(view.spans) and view.spans[0].text == BEGIN
    for number, span in enumerate(view.spans):
        if span.kind == "text":
            before, after = view.spans[max(0, number - 1) : number], view.spans[number + 1 :]
            said = span.text
            if after and after[0].kind == "image":
                said = BEFORE_IMAGE.sub("", said)
            if before and before[0].kind == "image":
                said = AFTER_IMAGE.sub("", said)
            text += said
            tokens += span.tokens if said == span.text else _tokens(said, tokenizer)
        elif span.text == END:
            yield from _message(text, tokens, tokenizer, chat=chat)
            text, tokens = "", 0
    if text.strip():
        yield from _message(text, tokens, tokenizer, chat=chat)


def _message(text: str, tokens: int, tokenizer: Any, *, chat: bool) -> Iterator[Message]:
    role = ROLE.match(text) if chat else None  # a document may begin with such a word
    if role is None:
        yield Message("document", text.strip(), tokens)
    else:
        said = text[role.end() :].strip()
        yield Message(role[1].lower(), said, max(0, tokens - _tokens(role[0], tokenizer)))


def _tokens(text: str, tokenizer: Any) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False).ids)


def _histogram(lengths: dict[str, list[int]], names: list[str]) -> dict[str, Any]:
    """Counts between EDGES, of all and of each component; the median and the mean of each."""
    counts = {n: np.histogram(lengths[n], bins=EDGES)[0] for n in names if lengths[n]}
    return {
        "edges": [float(edge) for edge in EDGES],
        "counts": sum(counts.values(), np.zeros(len(EDGES) - 1, int)).tolist(),
        "components": {name: found.tolist() for name, found in counts.items()},
        "median": {name: float(np.median(lengths[name])) for name in counts},
        "mean": {name: round(float(np.mean(lengths[name])), 2) for name in counts},
    }


def _frequent(answers: Counter[str]) -> dict[str, Any]:
    """How many answers were counted and how many differ; the most frequent that came twice."""
    ordered = sorted(answers.items(), key=lambda item: (-item[1], item[0]))
    most = [(text, count) for text, count in ordered[:FREQUENT] if count > 1]
    return {
        "answers": answers.total(),
        "different": len(answers),
        "most": [
            {
                "text": text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + "\u2026",
                "count": count,
                "share": round(count / answers.total(), 6),
            }
            for text, count in most
        ],
    }
