"""Tables of strangers for the fuzzers: what their columns are, and whole rows of each."""

from typing import Any

from pipelines.sources import SOURCES
from pipelines.sources.mapping import configured
from pipelines.sources.sample import Source
from tests.pipelines.sources.making import cell, png

IMAGE = cell(png())
FRAGE = [{"wer": "Frage", "was": "What?"}, {"wer": "Antwort", "was": "That."}]
TABLES: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "table of answers": (
        {"image": "picture", "question": "q", "answer": "answers", "gold": "best",
         "ratings": {"relevance": "score"}},
        [{"picture": IMAGE, "q": "What?", "answers": ["a", "b", "b"], "best": "b", "score": 4}],
    ),
    "table of turns": (
        {"images": ["a", "b"], "question": "qa.question", "answer": "qa.answer.text"},
        [{"a": IMAGE, "b": None,
          "qa": [{"question": "Q", "answer": {"text": ["A"], "answer_start": [1]}}] * 2}],
    ),
    "table of pairs": (
        {"image": "image", "question": "q", "chosen": "good", "rejected": "bad"},
        [{"image": IMAGE, "q": "What?", "good": "This.", "bad": "That."}],
    ),
    "table of choices": (
        {"images": "image", "question": "q", "choices": "options", "answer": "right"},
        [{"image": "a.png", "q": "Which?", "options": ["x", "y"], "right": 0},
         {"image": "a.png", "q": "Which?", "options": "['x', 'y']", "right": "(b)"},
         {"image": "a.png", "q": "Which?", "options": {"text": ["x"] * 2, "label": ["1", "2"]},
          "right": "2"}],
    ),
    "table of columns": (
        {"image": "image", "prompt": "Which is {name}?", "choices": ["A", "B", "C"],
         "answer": "right", "answer_as": "both"},
        [{"image": "a.png", "name": "it", "A": "x", "B": 2, "C": None, "right": "B"}],
    ),
    "table of fields": (
        {"image": "image", "fields": ["gt.total", "gt.date"], "system": "told"},
        [{"image": "a.png", "gt": '{"total": 3.5, "date": "today"}', "told": "Read."},
         {"image": "a.png", "gt": {"total": None, "date": "today"}, "told": ""}],
    ),
    "table of messages": (
        {"image": "image", "messages": {"column": "talk", "role": "wer", "content": "was"},
         "roles": {"Frage": "user", "Antwort": "assistant"}, "placeholder": "<img{number}>"},
        [{"image": ["a.png", "a.png"],
          "talk": [{"wer": "Frage", "was": "<img1> or <img2>?"}, FRAGE[1]]},
         {"image": None, "talk": FRAGE}],
    ),
    "table of captions": (
        {"video": "film", "caption": "captions"},
        [{"film": "v.mp4", "captions": ["One.", "Two."]}, {"film": "v.mp4", "captions": "One."}],
    ),
    "table of documents": ({"text": "{title}\n{body}", "unpack": "body"},
                           [{"title": "T", "body": "A text."}]),
}  # fmt: skip


def source_named(name: str) -> Source:
    """The source of that name, or of that table."""
    if name in TABLES:
        return configured("table", columns=TABLES[name][0], where="components.mine")
    return SOURCES[name]


def settings_of(name: str) -> dict[str, Any]:
    """What `list_parts` is told of it."""
    if name in TABLES:
        return {"source": "table", "columns": TABLES[name][0]}
    return {"source": name}
