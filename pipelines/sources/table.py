"""Any table, by a mapping in the mixture that says which column is what: `columns:` of a component.

| key            | names                                                                      |
|----------------|----------------------------------------------------------------------------|
| images, videos,| a column, several, or a template of a path (`{image_id:012d}.jpg`); cells  |
| pdfs           | hold one or a list (cells.py)                                              |
| question       | a column, a template, or several: a list is a question for each turn       |
| prompt         | the question where it is the same for all rows; of several one is chosen   |
| answer         | the same; a list beside one question: the answer that stands there most    |
| chosen,        | two answers, of which the first is preferred, as texts or messages         |
| rejected       | (preferences.py); they may bring their conversation along                  |
| choices        | a column of lists, or several columns of one choice each (choices.py)      |
| fields         | columns of which each is a question (`What is the {field}?`) and its answer|
| messages       | a conversation: {role, content}, {from, value}, {user, assistant}, texts,  |
|                | pairs of a question and its answer                                         |
| caption, text  | what a medium shows, asked for in one of a few ways; a raw document        |
| system, gold   | a system prompt; the gold answer where it stands apart                     |
| ratings        | relevance, image_correspondence, visual_dependency, formatting             |
| unpack         | columns whose texts hold lists or mappings, as JSON or as Python writes it |

mapping.py checks it against the table's schema; a row that does not keep to it is a Defect.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipelines.sources import captions, cells, choices
from pipelines.sources.cauldron import conversation
from pipelines.sources.finevision import KINDS
from pipelines.sources.llava import ROLES
from pipelines.sources.messages import chat
from pipelines.sources.paths import Text, filled, value_at
from pipelines.sources.preferences import TAGS, prompt_of, turns_of_pair
from pipelines.sources.sample import (
    At,
    Content,
    Defect,
    Medium,
    Next,
    Pdf,
    Sample,
    Still,
    Turn,
    Video,
    source,
)

MEDIA: Mapping[str, type[Medium]] = {"images": Still, "videos": Video, "pdfs": Pdf}
LETTER_HINT = "Answer with the letter of the right choice."
FIELD_QUESTION = "What is the {field}?"
ANSWER_KEYS = ("text", "answer", "value")
"""Where the answer stands in a mapping: SQuAD's {text, answer_start}, VQAv2's {answer, ...}."""
ROLE_KEYS, CONTENT_KEYS = ("role", "from", "speaker"), ("content", "value", "text")


@dataclass(frozen=True, kw_only=True)
class TableMapping:
    """Which column of a table is what, each checked."""

    media: Mapping[str, tuple[Text, ...]] = field(default_factory=dict)
    """images, videos, pdfs -> columns."""
    question: tuple[Text, ...] = ()
    prompt: tuple[Text, ...] = ()
    answer: tuple[Text, ...] = ()
    chosen: Text | None = None
    rejected: Text | None = None
    choices: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    """What `{field}` calls it -> column."""
    messages: str = ""
    role: str = ""
    content: str = ""
    roles: Mapping[str, str] = field(default_factory=dict)
    """Words of the table for who speaks -> system, user, assistant."""
    caption: Text | None = None
    text: Text | None = None
    system: Text | None = None
    gold: Text | None = None
    ratings: Mapping[str, str] = field(default_factory=dict)
    answer_is: str = "auto"
    answer_as: str = "letter"
    """letter, text, both: what is learned of a choice."""
    unpack: tuple[str, ...] = ()
    """Columns whose texts hold lists or mappings."""
    placeholder: re.Pattern[str] | None = None
    """What stands in texts for an image besides `<image>`; its group, if any, counts from 1."""
    without_media: str = ""
    """reject, keep: a row whose columns of media are all empty; empty: kept of `messages`."""


@source(
    "table",
    layout="json",
    licence="yours",
    citation="https://huggingface.co/docs/datasets/loading",
    verified="configs, splits and save_to_disk folders in the documentation of datasets",
    files=("*.parquet", "*.arrow", "*.jsonl", "*.json", "*.csv", "*.tsv"),
    by_config=True,
)
def table(row: Mapping[str, Any]) -> Sample:
    """Rows of any columns, by a mapping in the mixture."""
    raise AssertionError("a table is read by its mapping: see mapping.py")


def sample_of(row: Mapping[str, Any], *, mapping: TableMapping) -> Sample:
    """The sample of a row."""
    row = {k: cells.literal(v, k) if k in mapping.unpack else v for k, v in row.items()}
    waiting = media_of(row, mapping)
    keep = mapping.without_media == "keep" or (not mapping.without_media and mapping.messages)
    if mapping.media and not waiting and not keep:
        named = ", ".join(
            path for texts in mapping.media.values() for t in texts for path in t.paths
        )
        raise Defect("missing_media", f"{named[:80]} is null or empty")
    turns = turns_of(row, mapping, waiting)
    if mapping.system is not None and (said := filled(mapping.system, row)) not in (None, ""):
        prompt = Turn("system", (cells.written(said, "system"),))
        turns = (prompt, *(turn for turn in turns if turn.role != "system"))
    if mapping.placeholder is not None:
        turns = tuple(with_places(turn, mapping.placeholder) for turn in turns)
    return Sample(
        turns=turns,
        waiting=waiting,
        tags=tags_of(mapping),
        ratings=ratings_of(row, mapping.ratings),
        answer=gold_of(row, mapping),
    )


def tags_of(mapping: TableMapping) -> tuple[str, ...]:
    """What kind of samples its rows are."""
    return TAGS if mapping.chosen is not None else ("caption",) if mapping.caption else ()


def media_of(row: Mapping[str, Any], mapping: TableMapping) -> tuple[Medium, ...]:
    """The media of the row, those of images first; empty cells are none."""
    found: list[Medium] = []
    for key, texts in mapping.media.items():
        for text in texts:
            name = text.column or key
            value = filled(text, row)
            if isinstance(value, str) and value[:1] + value[-1:] == "[]":
                value = cells.literal(value, name)
            found += cells.media({name: value}, MEDIA[key], (name,))  # type: ignore[type-var]
    return tuple(medium for medium in found if medium.data is not None or medium.path)


def turns_of(
    row: Mapping[str, Any], mapping: TableMapping, waiting: Sequence[Medium]
) -> tuple[Turn, ...]:
    """The turns of the row, in the one form that the mapping has."""
    if mapping.chosen is not None:
        return pair_of_answers(row, mapping)
    if mapping.messages:
        return turns_of_messages(value_at(row, mapping.messages), mapping)
    if mapping.text is not None:
        said = cells.written(filled(mapping.text, row), "text")
        return (Turn("document", (said,)),)
    if mapping.caption is not None:
        return captioned(row, mapping, waiting)
    if mapping.fields:
        return turns_of_fields(row, mapping)
    if mapping.choices:
        return turns_of_choices(row, mapping)
    return turns_of_answers(row, mapping)


# ------------------------------------------------------------------ questions and answers


def several(texts: Sequence[Text], row: Mapping[str, Any], **given: Any) -> Any:
    """What the texts give: of one its value, of several the list of them."""
    values = [filled(text, row, given) for text in texts]
    return values[0] if len(texts) == 1 else values


def question_of(row: Mapping[str, Any], mapping: TableMapping, **given: Any) -> Any:
    """The row's question, or its questions."""
    if not mapping.prompt:
        return several(mapping.question, row, **given)
    number = captions.choose_number(len(mapping.prompt), str(answer_of(row, mapping)))
    return filled(mapping.prompt[number], row, given)


def answer_of(row: Mapping[str, Any], mapping: TableMapping) -> Any:
    """What the row has as its answer or answers."""
    answers = (*mapping.answer, *(one for one in (mapping.caption, mapping.chosen) if one))
    return several(answers, row) if answers else None


def turns_of_answers(row: Mapping[str, Any], mapping: TableMapping) -> tuple[Turn, ...]:
    """The turns of a question and its answer, or of lists of both."""
    asked, answered = question_of(row, mapping), answer_of(row, mapping)
    if not isinstance(asked, list):
        return pair_of(asked, one_answer(answered, "answer"), "question")
    if not isinstance(answered, list):
        raise cells.unfit(answered, "answer", f"a list of {len(asked)}, as question is")
    if len(asked) != len(answered):
        counts = f"question is a list of {len(asked)}, answer of {len(answered)}"
        raise Defect("wrong_schema", counts)
    turns: list[Turn] = []
    for number, (question, answer) in enumerate(zip(asked, answered, strict=True)):
        if question not in (None, "") or answer not in (None, ""):
            said = one_answer(answer, f"answer[{number}]")
            turns += pair_of(question, said, f"question[{number}]")
    if not turns:
        raise Defect("missing_answer", "question and answer are empty")
    return tuple(turns)


def pair_of_answers(row: Mapping[str, Any], mapping: TableMapping) -> tuple[Turn, ...]:
    """The turns of a question, if one is mapped, and of two answers to it."""
    assert mapping.chosen is not None
    assert mapping.rejected is not None
    asked = question_of(row, mapping) if mapping.question or mapping.prompt else None
    prompt = prompt_of(cells.literal(asked, "question"), "question")
    chosen, rejected = (
        cells.literal(filled(text, row), name)
        for text, name in ((mapping.chosen, "chosen"), (mapping.rejected, "rejected"))
    )
    return turns_of_pair(prompt, chosen, rejected)


def pair_of(question: Any, answer: str, name: str) -> tuple[Turn, Turn]:
    """A question and its answer as turns."""
    return Turn("user", (cells.written(question, name),)), Turn("assistant", (answer,))


def one_answer(value: Any, name: str) -> str:
    """The answer in a cell; of a list the one that stands there most, the first among equals."""
    if isinstance(value, Mapping):
        key = next((key for key in ANSWER_KEYS if value.get(key) is not None), None)
        if key is None:
            known = f"a mapping with {' or '.join(ANSWER_KEYS)}, or the name of its field"
            if not value.keys() & set(ANSWER_KEYS):
                raise cells.unfit(value, name, known)
            raise Defect("missing_answer", f"{name} holds null")
        return one_answer(value[key], f"{name}.{key}")
    if isinstance(value, list):
        found = [
            one_answer(each, f"{name}[{number}]")
            for number, each in enumerate(value)
            if each not in (None, "") and each != []
        ]
        if not found:
            raise Defect("missing_answer", f"{name} is an empty list")
        return Counter(found).most_common(1)[0][0]
    if value is None:
        raise Defect("missing_answer", f"{name} is null")
    said = cells.written(value, name)
    if not said.strip():
        raise Defect("missing_answer", f"{name} is empty")
    return said


def turns_of_fields(row: Mapping[str, Any], mapping: TableMapping) -> tuple[Turn, ...]:
    """A question for every field that has a value."""
    turns: list[Turn] = []
    for called, path in mapping.fields.items():
        value = value_at(row, path)
        if value in (None, "") or value == []:
            continue
        asked = question_of(row, mapping, field=called)
        turns += pair_of(asked, one_answer(value, path), "question")
    if not turns:
        raise Defect("missing_answer", f"{len(mapping.fields)} fields are empty")
    return tuple(turns)


def counted_choice(row: Mapping[str, Any], mapping: TableMapping) -> tuple[int, int] | None:
    """(the answer, how many choices there are) where the answer is a number that counts them."""
    value, offered = answer_of(row, mapping), offered_by(row, mapping)
    if isinstance(value, Mapping):
        value = one_answer(value, "answer")
    if isinstance(value, list):
        value = value[0] if value else None
    found = None if value is None else choices.number_of(value, offered)
    return None if found is None else (found, len(offered))


def offered_by(row: Mapping[str, Any], mapping: TableMapping) -> list[choices.Choice]:
    """The choices of the row."""
    if len(mapping.choices) > 1:
        return choices.of_columns({path: value_at(row, path) for path in mapping.choices})
    return choices.choices_of(value_at(row, mapping.choices[0]), mapping.choices[0])


def turns_of_choices(row: Mapping[str, Any], mapping: TableMapping) -> tuple[Turn, ...]:
    """A question with its choices, and the choice that is right."""
    offered, value = offered_by(row, mapping), answer_of(row, mapping)
    if isinstance(value, Mapping):
        value = one_answer(value, "answer")
    places = choices.chosen(value, offered, answer_is=mapping.answer_is, name="answer")
    block = choices.block_of(offered)
    inside = any("choices" in text.paths for text in (*mapping.question, *mapping.prompt))
    asked = question_of(row, mapping, choices=block) if inside else question_of(row, mapping)
    if not inside:
        hint = f"\n{LETTER_HINT}" if mapping.answer_as == "letter" else ""
        asked = f"{cells.written(asked, 'question')}\n{block}{hint}"
    said = {
        "letter": lambda one: one.label,
        "text": lambda one: one.text,
        "both": lambda one: f"{one.label}. {one.text}",
    }[mapping.answer_as]
    return pair_of(asked, ", ".join(said(offered[place]) for place in places), "question")


def captioned(
    row: Mapping[str, Any], mapping: TableMapping, waiting: Sequence[Medium]
) -> tuple[Turn, ...]:
    """A question for the caption, and the caption; of several captions one, by their hash."""
    assert mapping.caption is not None
    value = filled(mapping.caption, row)
    if isinstance(value, list):
        told = [one_answer(each, f"caption[{n}]") for n, each in enumerate(value) if each]
        value = told[captions.choose_number(len(told), "\n".join(told))] if told else None
    caption = one_answer(value, "caption")
    if mapping.prompt or mapping.question:
        return pair_of(question_of(row, mapping), caption, "question")
    film = any(isinstance(medium, Video) for medium in waiting)
    asked = captions.choose_question(captions.VIDEO if film else captions.IMAGE, caption)
    return pair_of(asked, caption, "caption")


# ------------------------------------------------------------------ conversations


def turns_of_messages(value: Any, mapping: TableMapping) -> tuple[Turn, ...]:
    """The turns of a conversation in any of its usual forms."""
    name = mapping.messages
    value = cells.literal(value, name)
    if value is None or value == []:
        raise Defect("missing_answer", f"{name} is {'null' if value is None else 'empty'}")
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        roles = ("user", "assistant")
        return tuple(Turn(roles[n % 2], (cells.text(t, name),)) for n, t in enumerate(value))
    if isinstance(value, list) and all(isinstance(each, list) and len(each) == 2 for each in value):
        pairs = [(q, one_answer(a, f"{name}[{n}][1]")) for n, (q, a) in enumerate(value)]
        return tuple(t for n, (q, a) in enumerate(pairs) for t in pair_of(q, a, f"{name}[{n}][0]"))
    messages = cells.rows(value, name)
    if not mapping.role and all({"user", "assistant"} <= each.keys() for each in messages):
        return conversation(messages, name)
    turns = chat([in_our_words(m, f"{name}[{n}]", mapping) for n, m in enumerate(messages)], name)
    for role in ("user", "assistant"):
        if all(turn.role != role for turn in turns):
            raise Defect(
                "missing_answer" if role == "assistant" else "wrong_schema", f"no {role} turn"
            )
    return turns


def in_our_words(message: Mapping[str, Any], name: str, mapping: TableMapping) -> dict[str, Any]:
    """The message as {role, content}."""
    keys = [mapping.role] if mapping.role else ROLE_KEYS
    key = next((key for key in keys if value_at(message, key) is not None), keys[0])
    speaker = cells.written(value_at(message, key), f"{name}.{key}")
    role = mapping.roles.get(speaker) or ROLES.get(speaker) or ROLES.get(speaker.strip().lower())
    if role is None:
        known = ", ".join([*mapping.roles, *ROLES])
        raise Defect("wrong_schema", f"{name}.{key} is none of {known}; name it in columns: roles")
    keys = [mapping.content] if mapping.content else CONTENT_KEYS
    key = next((key for key in keys if value_at(message, key) is not None), keys[0])
    content = value_at(message, key)
    if content is not None and not isinstance(content, list | Mapping | str | bytes):
        content = cells.written(content, f"{name}.{key}")
    return {"role": role, "content": content}


def with_places(turn: Turn, placeholder: re.Pattern[str]) -> Turn:
    """The turn with the table's own marks of images as places."""
    content: list[Content] = []
    for part in turn.content:
        if not isinstance(part, str) or turn.role == "document":
            content.append(part)
            continue
        at = 0
        for match in placeholder.finditer(part):
            if turn.role in ("assistant", "rejected"):
                raise Defect("placeholder_mismatch", "the mark of an image in an answer")
            content.append(part[at : match.start()])
            number = match[1] if placeholder.groups else ""
            content.append(At("image", int(number[:9]) - 1) if number else Next("image"))
            at = match.end()
        content.append(part[at:])
    return replace(turn, content=tuple(part for part in content if part != ""))


# ------------------------------------------------------------------ beside the conversation


def gold_of(row: Mapping[str, Any], mapping: TableMapping) -> str | None:
    """The gold answer, where one is mapped and there."""
    value = filled(mapping.gold, row) if mapping.gold is not None else None
    return None if value in (None, "") or value == [] else one_answer(value, "gold")


def ratings_of(
    row: Mapping[str, Any], columns: Mapping[str, str]
) -> tuple[Mapping[str, int | None], ...]:
    """The ratings by turn: a list, or one number for the whole row."""
    if not columns:
        return ()
    values = {
        kind: [
            cells.rating(as_number(cell), f"{path}[{n}]")
            for n, cell in enumerate(cells.listed(cells.literal(value_at(row, path), path)))
        ]
        for kind, path in columns.items()
    }
    count = max(map(len, values.values()))
    return tuple(
        {kind: (values.get(kind, []) + [None] * count)[n] for kind in KINDS} for n in range(count)
    )


def as_number(cell: Any) -> Any:
    """The number that a text spells, as in CSV; any other cell as it is."""
    if isinstance(cell, str):
        try:
            return float(cell)
        except ValueError:
            return cell
    return float(cell) if not isinstance(cell, bool) and hasattr(cell, "as_tuple") else cell
