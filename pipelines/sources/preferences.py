"""Pairs of answers, one of which is preferred: a prompt with its media, `chosen` and `rejected`.

| source      | a row                                                                        |
|-------------|------------------------------------------------------------------------------|
| preferences | `chosen` and `rejected`, texts or messages; `prompt`, `question`,            |
|             | `conversations` or `messages` in front, or both are whole conversations      |
|             | (TRL's explicit and implicit prompts, LLaMA-Factory's pairs); or `messages`  |
|             | and `rejected_response` (ms-swift); images as in messages.py                 |
| rlaif_v     | image, question, chosen, rejected                                            |
| rlhf_v      | image, text: JSON of {question, chosen, rejected}                            |
| vlfeedback  | img_path, prompt, completions: answers of several models, each rated         |
| mmpr        | image (one or a list), question, chosen, rejected                            |

The sample is the conversation that ends with the chosen answer, so that whatever is true of a
conversation is true of it. The rejected answer stands right before that one, as a turn of role
`rejected`: rules on text see both, neither the ids nor the trainer see it, and shards carry it
beside the ids. Where both say the same, or are rated alike, the row is the Defect `no_preference`;
where one is empty, `missing_answer`.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from pipelines.sources import cells
from pipelines.sources.llava import MEDIA_COLUMNS, media_of
from pipelines.sources.messages import ANY_FILES, chat, timed
from pipelines.sources.sample import Content, Defect, Sample, Turn, source

PROMPTS = ("prompt", "question", "conversations", "messages")
"""Where the prompt of a pair stands, the first that is there."""
REJECTED = ("rejected", "rejected_response", "rejected_messages")
TAGS = ("preference",)


def prompt_of(value: Any, name: str) -> tuple[Turn, ...]:
    """The turns of a prompt: messages, or the text of a question."""
    if value is None:
        return ()
    if isinstance(value, list | Mapping):
        return chat(value, name)
    return (Turn("user", (cells.written(value, name).lstrip(" "),)),)


def answer_of(value: Any, name: str) -> tuple[tuple[Turn, ...], tuple[Content, ...]]:
    """(turns in front of it, the answer) of a text, a message, or messages that end with it."""
    if value is None or value == []:
        raise Defect("missing_answer", f"{name} is {'null' if value is None else 'empty'}")
    if isinstance(value, Mapping) and not any(isinstance(v, list) for v in value.values()):
        value = [value]
    if not isinstance(value, list | Mapping):
        return (), (cells.written(value, name),)
    *before, last = chat(value, name)
    if last.role != "assistant":
        raise Defect("wrong_schema", f"{name} does not end with an answer of the assistant")
    return tuple(before), last.content


def said(answer: Sequence[Content], name: str) -> str:
    """The text of an answer; raises Defect where it is empty or holds an image."""
    if any(not isinstance(part, str) for part in answer):
        raise Defect("wrong_schema", f"{name} holds an image")
    text = "".join(part for part in answer if isinstance(part, str))
    if not text.strip():
        raise Defect("missing_answer", f"{name} is empty")
    return text


def turns_of_pair(prompt: tuple[Turn, ...], chosen: Any, rejected: Any) -> tuple[Turn, ...]:
    """The turns of a pair. Answers that bring their conversation along need no prompt: it is
    what both begin with.
    """
    before, better = answer_of(chosen, "chosen")
    also, worse = answer_of(rejected, "rejected")
    if before and also and before != also:
        raise Defect("wrong_schema", "chosen and rejected are of different conversations")
    before = before or also
    if not before or before[0].role == "assistant":
        before = (*prompt, *before)
    if all(turn.role != "user" for turn in before):
        raise Defect("wrong_schema", "no user turn")
    preferred, other = said(better, "chosen"), said(worse, "rejected")
    if preferred.strip() == other.strip():
        raise Defect("no_preference", "chosen and rejected are the same")
    return (*before, Turn("rejected", (other,)), Turn("assistant", (preferred,)))


@source(
    "preferences",
    layout="json",
    licence="yours",
    citation="https://huggingface.co/docs/trl/dataset_formats#preference",
    verified="explicit and implicit prompts, texts and messages, in TRL 1.16's page and code; "
    "LLaMA-Factory's rows on the card of data made for it; ms-swift's rejected_response and "
    "rejected_messages in its documentation",
    columns=("chosen|messages", "|".join(REJECTED)),
    media_columns=("images", "videos"),
    also=(*PROMPTS, "image_seconds", *MEDIA_COLUMNS),
    files=ANY_FILES,
    rows_per_part=1000,
    pairs=True,
)
def preferences(row: Mapping[str, Any]) -> Sample:
    """Your own pairs of answers, with or without images."""
    rejected = next((row[name] for name in REJECTED if row.get(name) is not None), None)
    if row.get("chosen") is None and row.get("messages") is not None:
        turns = turns_of_pair((), row["messages"], rejected)
    else:
        name = next((name for name in PROMPTS if row.get(name) is not None), PROMPTS[0])
        turns = turns_of_pair(prompt_of(row.get(name), name), row.get("chosen"), rejected)
    return Sample(turns=turns, waiting=timed(media_of(row), row), tags=TAGS)


@source(
    "rlaif_v",
    hub="openbmb/RLAIF-V-Dataset",
    licence="CC-BY-NC-4.0",
    terms=("non-commercial", "model-output-terms"),
    citation="https://arxiv.org/abs/2405.17220",
    verified="features, number of pairs and licence on the card; TRL's script that converts it",
    columns=("image", "question", "chosen", "rejected"),
    media_columns=("image",),
    subsets={"default": 83_132},
    pairs=True,
)
def rlaif_v(row: Mapping[str, Any]) -> Sample:
    """A question about an image, and two answers of models, compared by claims that hold."""
    prompt = prompt_of(row.get("question"), "question")
    turns = turns_of_pair(prompt, row.get("chosen"), row.get("rejected"))
    return Sample(turns=turns, waiting=media_of(row), tags=TAGS)


@source(
    "rlhf_v",
    hub="openbmb/RLHF-V-Dataset",
    licence="CC-BY-NC-4.0",
    terms=("non-commercial",),
    citation="https://arxiv.org/abs/2312.00849",
    verified="file name, features, the keys in `text` and the licence on the card",
    columns=("image", "text"),
    media_columns=("image",),
    files=("RLHF-V-Dataset.parquet", "*.parquet", "data/*.parquet"),
    subsets={"default": 5_733},
    pairs=True,
)
def rlhf_v(row: Mapping[str, Any]) -> Sample:
    """A question about an image, a model's answer, and the same as people have corrected it."""
    pair = cells.mapping(cells.unpacked(row.get("text"), "text"), "text")
    prompt = prompt_of(pair.get("question"), "text.question")
    turns = turns_of_pair(prompt, pair.get("chosen"), pair.get("rejected"))
    return Sample(turns=turns, waiting=media_of(row), tags=TAGS)


@source(
    "vlfeedback",
    hub="MMInstruction/VLFeedback",
    layout="json",
    licence="unknown; none on its card",
    terms=("model-output-terms",),
    citation="https://arxiv.org/abs/2312.10665",
    verified="features and number of rows on the card; that the mean of the aspects' ratings "
    "compares answers, and that equal ones make no pair, in the published code of the paper",
    columns=("prompt", "completions", "img_path"),
    media_columns=("img_path",),
    files=("data/{split}-*.parquet", "*.parquet", "*.jsonl", "*.json"),
    subsets={"default": 80_258},
    notes=(
        "of the answers of a row the best and the worst by their mean rating are the pair; ratings "
        "that are no numbers count for nothing",
    ),
    pairs=True,
)
def vlfeedback(row: Mapping[str, Any]) -> Sample:
    """A question about an image, and of several models' answers the best and the worst."""
    rated: list[tuple[float, Any]] = []
    for number, answer in enumerate(cells.rows(row.get("completions"), "completions")):
        where = f"completions[{number}].annotations"
        aspects = cells.mapping(answer.get("annotations"), where)
        ratings = [as_rating(aspect) for aspect in aspects.values()]
        if found := [rating for rating in ratings if rating is not None]:
            rated.append((mean(found), answer.get("response")))
    if len({rating for rating, _ in rated}) < 2:
        raise Defect("no_preference", f"{len(rated)} rated answers, none better than another")
    chosen = max(rated, key=lambda one: one[0])[1]
    rejected = min(rated, key=lambda one: one[0])[1]
    turns = turns_of_pair(prompt_of(row.get("prompt"), "prompt"), chosen, rejected)
    waiting = (cells.image(row.get("img_path"), "img_path"),)
    return Sample(turns=turns, waiting=waiting, tags=TAGS)


def as_rating(aspect: Any) -> float | None:
    """The number that an aspect is rated with; null for `N/A` and the like."""
    given = aspect.get("Rating") if isinstance(aspect, Mapping) else None
    try:
        found = math.nan if given is None or isinstance(given, bool) else float(given)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


@source(
    "mmpr",
    hub="OpenGVLab/MMPR",
    layout="json",
    licence="MIT",
    citation="https://arxiv.org/abs/2411.10442",
    verified="file names and features on the card; image as a path or a list of paths, video, "
    "placeholders in questions and the keys of meta.json in InternVL's published loader",
    columns=("question", "chosen", "rejected"),
    also=MEDIA_COLUMNS,
    files=("annotations/{subset}.jsonl", "annotations/*.jsonl", "{subset}.jsonl", "*.jsonl"),
    elsewhere={
        "": "annotations.zip and images.zip of the repository, which are read unpacked: data: one "
        "of the .jsonl, media: its root in meta.json"
    },
    notes=(
        "MMPR-v1.1 and v1.2 (their own repositories) have the same rows, and images.zip in pieces "
        "_a, _b or _aa, _ab: join them before they are unpacked",
    ),
    rows_per_part=1000,
    pairs=True,
)
def mmpr(row: Mapping[str, Any]) -> Sample:
    """A question that needs reasoning, an answer that ends right and one that does not."""
    prompt = prompt_of(row.get("question"), "question")
    turns = turns_of_pair(prompt, row.get("chosen"), row.get("rejected"))
    return Sample(turns=turns, waiting=media_of(row), tags=TAGS)
