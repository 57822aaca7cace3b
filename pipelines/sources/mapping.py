"""From a component's `columns:`, `repo:` and `split:` to the source that reads it.

| source         | `columns:` says                                                             |
|----------------|-----------------------------------------------------------------------------|
| `table`        | what each column is: the keys of table.py                                   |
| any other      | the source's own name of a column -> its name in these files; of names that |
|                | stand for each other (`label` or `latex`) the one that is stated counts     |

Each mistake is a ValueError with the nearest name. Whether the columns are there is the business
of shape.py, once the files are known.
"""

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import lru_cache, partial
from typing import Any

from pipelines.sources.choices import ANSWER_IS
from pipelines.sources.finevision import KINDS
from pipelines.sources.paths import Text, column, parse_text, value_at
from pipelines.sources.sample import Adapter, Mapped, Sample, Source, source_named
from pipelines.sources.table import (
    ANSWER_KEYS,
    FIELD_QUESTION,
    MEDIA,
    ROLE_KEYS,
    TableMapping,
    sample_of,
)

ALIASES = {
    **{"image": "images", "video": "videos", "pdf": "pdfs", "prompts": "prompt"},
    **{"questions": "question", "answers": "answer", "captions": "caption"},
    "conversations": "messages",
}
"""Other forms of the keys."""
COLUMNS = (
    "question",
    "answer",
    "chosen",
    "rejected",
    "choices",
    "fields",
    "messages",
    "caption",
    "text",
    "system",
    "gold",
)
SETTINGS = ("roles", "ratings", "answer_is", "answer_as", "placeholder", "without_media", "unpack")
KEYS = (*MEDIA, *COLUMNS, "prompt", *SETTINGS)
FORMS: Mapping[str, tuple[str, ...]] = {
    "chosen": ("rejected", "question", "prompt", "without_media", "placeholder"),
    "messages": ("roles", "without_media", "placeholder"),
    "text": (),
    "caption": ("prompt", "without_media"),
    "fields": ("question", "prompt", "without_media", "placeholder"),
    "choices": ("question", "prompt", "answer", "answer_is", "answer_as", "without_media",
                "placeholder"),
    "answer": ("question", "prompt", "without_media", "placeholder"),
}  # fmt: skip
"""What a row is made into, the first that is stated -> what may stand beside it."""
ANYWHERE = ("system", "gold", "ratings", "unpack")
SPEAKERS = ("system", "user", "assistant")
PLAIN = frozenset({"text", "number", "bool", "time"})
"""What can be written as text."""
SAID = PLAIN | {"bytes", "mapping"}
FILE, FILE_KEYS = frozenset({"bytes", "text", "mapping"}), ("bytes", "path", "url", "data")
"""What an image, video or PDF may be; the keys of a mapping that is one."""


def configured(
    name: str,
    *,
    columns: Mapping[str, Any] | None = None,
    repo: str = "",
    split: str = "",
    where: str,
) -> Source:
    """The source as a component configures it; the same object for the same words.

    Raises:
        ValueError: an unknown source, or a mapping that is none.
    """
    about = source_named(name, where=where)
    if about.name == "table" and not columns:
        raise ValueError(
            f"{where}.columns is missing: it says which column of the table is what\n"
            "way out: columns: {images: image, question: question, answer: answer} "
            "(docs/sources.md)."
        )
    if not (columns or repo or split):
        return about
    return derived(about, json.dumps(columns or {}), repo, split, where)


@lru_cache(maxsize=1024)
def derived(about: Source, columns: str, repo: str, split: str, where: str) -> Source:
    """The same, made once."""
    if repo:
        repo, _, revision = repo.partition("@")
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
            raise ValueError(f"{where}.repo is {repo!r}; expected ORG/NAME or ORG/NAME@REVISION.")
        about = replace(about, hub=repo, revision=revision or "main", subsets={}, default=())
    if split:
        about = replace(about, split=split)
    stated = json.loads(columns)
    if not stated:
        return about
    if about.layout == "tar":
        raise ValueError(
            f"{where}.columns: the samples of {about.name} are members of archives, not columns."
        )
    with_columns = of_table if about.name == "table" else renamed
    return with_columns(about, stated, where)


# ------------------------------------------------------------------ columns of other sources


def renamed(about: Source, stated: Mapping[str, Any], where: str) -> Source:
    """The source whose columns are called otherwise in these files."""
    groups = [group.split("|") for group in about.columns]
    known = [name for group in groups for name in group] + [*about.media_columns, *about.also]
    for key, path in stated.items():
        if not any(fnmatchcase(key, name) for name in known):
            raise ValueError(
                f"{where}.columns: {about.name} reads no column {key!r}. {near(key, known)}"
            )
        if not isinstance(path, str) or not path:
            raise ValueError(f"{where}.columns.{key} is {path!r}; expected the name of a column.")
    chosen = [group for group in groups if set(group) & stated.keys()]
    hidden = {name for group in chosen for name in group} - stated.keys()
    needed = {name for group in chosen for name in group}
    return replace(
        about,
        adapter=partial(adapted, adapter=about.adapter, paths=stated, hidden=frozenset(hidden)),
        columns=tuple(g for g in about.columns if not set(g.split("|")) & needed),
        media_columns=tuple(c for c in about.media_columns if c not in {*stated, *hidden}),
        also=tuple(c for c in about.also if c not in {*stated, *hidden}),
        columns_of=stated,
        mapped=tuple(
            Mapped(key=key, path=path, needed=key in needed) for key, path in stated.items()
        ),
    )


def adapted(
    row: Mapping[str, Any], *, adapter: Adapter, paths: Mapping[str, str], hidden: frozenset[str]
) -> Sample:
    """The sample of the row under the names that the adapter knows."""
    own = {key: value for key, value in row.items() if key not in hidden}
    return adapter({**own, **{key: value_at(row, path) for key, path in paths.items()}})


# ------------------------------------------------------------------ tables


def of_table(about: Source, stated: Mapping[str, Any], where: str) -> Source:
    """The source of a table of these columns."""
    key = f"{where}.columns"
    mapping = parse_mapping(stated, key)
    mapped = columns_in(mapping)
    return replace(
        about,
        adapter=partial(sample_of, mapping=mapping),
        columns_of=stated,
        mapped=mapped,
        pairs=mapping.chosen is not None,
        media_columns=tuple(one.path.partition(".")[0] for one in mapped if one.key in MEDIA),
    )


def parse_mapping(stated: Mapping[str, Any], where: str) -> TableMapping:
    """The mapping that `columns:` of a table states, every key and value looked at."""
    for key in stated:
        if key not in KEYS and key not in ALIASES:
            raise ValueError(f"{where}: unknown key {key!r}. {near(key, [*KEYS, *ALIASES])}")
    both = [(a, b) for a, b in ALIASES.items() if a in stated and b in stated]
    for one, other in both:
        raise ValueError(f"{where}: {one} and {other} are the same key; state one of them.")
    given = {ALIASES.get(key, key): value for key, value in stated.items()}
    form = next((form for form in FORMS if form in given), None)
    if form is None:
        asked = [key for key in ("question", "prompt") if key in given]
        raise ValueError(
            f"{where}: no answer is mapped{f' to {asked[0]}' if asked else ''}, so that nothing "
            f"would be learned. Expected one of {', '.join(FORMS)}."
        )
    if form == "chosen" and "rejected" not in given:
        raise ValueError(f"{where}: chosen without rejected: it is preferred to nothing.")
    allowed = {form, *FORMS[form], *ANYWHERE, *MEDIA}
    for key in given:
        if key not in allowed:
            raise ValueError(
                f"{where}: {key} does not go with {form}. Beside {form}: "
                f"{', '.join(k for k in KEYS if k in allowed - {form})}."
            )
    if form in ("answer", "choices"):
        if ("question" in given) == ("prompt" in given):
            found = "both are" if "question" in given else "neither is"
            raise ValueError(
                f"{where}: state the question's column as `question`, or one text for all rows as "
                f"`prompt`; {found} there."
            )
        if "answer" not in given:
            raise ValueError(f"{where}: choices without an answer: nothing would be learned.")
    if form in ("fields", "chosen") and "question" in given and "prompt" in given:
        raise ValueError(f"{where}: question and prompt are both there; state one of them.")
    if form == "text" and any(key in given for key in MEDIA):
        raise ValueError(f"{where}: a raw document (`text`) has no media; did you mean caption?")
    parsers: dict[str, Callable[[Any, str], Any]] = {
        "question": texts, "answer": texts, "prompt": prompts, "caption": text, "text": text,
        "system": text, "gold": text, "chosen": text, "rejected": text, "choices": paths,
        "unpack": paths, "fields": fields,
        "roles": roles, "ratings": ratings, "placeholder": placeholder,
        "answer_is": partial(one_of, known=ANSWER_IS),
        "answer_as": partial(one_of, known=("letter", "text", "both")),
        "without_media": partial(one_of, known=("reject", "keep")),
    }  # fmt: skip
    media = {key: texts(given[key], f"{where}.{key}") for key in MEDIA if key in given}
    rest = {
        key: parsers[key](value, f"{where}.{key}") for key, value in given.items() if key in parsers
    }
    if form == "messages":
        rest |= conversation_of(given["messages"], f"{where}.messages")
    if form == "fields" and not {"question", "prompt"} & given.keys():
        rest["question"] = (parse_text(FIELD_QUESTION, where=where),)
    for name in ("question", "answer"):
        if isinstance(value := rest.get(name), tuple) and len(value) > 1 and form != "answer":
            raise ValueError(f"{where}.{name}: several columns go with `answer` alone.")
    return TableMapping(media=media, **rest)


def columns_in(mapping: TableMapping) -> tuple[Mapped, ...]:
    """Every column that the mapping names, once for each key."""
    given = {"field"} if mapping.fields else {"choices"} if mapping.choices else set()
    found: list[Mapped] = []

    def add(
        key: str,
        names: Sequence[str],
        kinds: frozenset[str],
        *,
        inside: tuple[str, ...] = (),
        needed: bool = False,
    ) -> None:
        found.extend(
            Mapped(key=key, path=p, kinds=kinds, inside=inside, needed=needed) for p in names
        )

    for key, several in mapping.media.items():
        for one in several:
            add(key, one.paths, FILE if one.column else PLAIN, inside=FILE_KEYS)
    for key in ("question", "answer", "prompt"):
        several = getattr(mapping, key)
        for one in several:
            pair = key == "question" and mapping.chosen is not None  # or messages, as in TRL's rows
            kinds = SAID if one.column and (key == "answer" or pair) else PLAIN | {"bytes"}
            names = one.without(tuple(given)) if key != "answer" else one.paths
            inside = ROLE_KEYS if pair else ANSWER_KEYS
            add(key, names, kinds, inside=inside, needed=len(several) == 1)
    for key in ("caption", "text", "system", "gold"):
        one = getattr(mapping, key)
        if one is not None:
            needed = key in ("caption", "text")
            add(key, one.paths, SAID, inside=ANSWER_KEYS, needed=needed)
    for key in ("chosen", "rejected"):
        one = getattr(mapping, key)
        if one is not None:
            add(key, one.paths, SAID, inside=ROLE_KEYS, needed=True)
    add("choices", mapping.choices, PLAIN | {"mapping"}, needed=len(mapping.choices) == 1)
    add("fields", tuple(mapping.fields.values()), SAID, inside=ANSWER_KEYS)
    speaks = (mapping.role.partition(".")[0],) if mapping.role else (*ROLE_KEYS, "user")
    talk = [mapping.messages] if mapping.messages else []
    add("messages", talk, frozenset({"mapping", "text"}), inside=speaks, needed=True)
    add("ratings", tuple(mapping.ratings.values()), frozenset({"number", "text"}))
    unpacked = {path.partition(".")[0] for path in mapping.unpack}
    return tuple(
        replace(one, kinds=frozenset()) if one.path.partition(".")[0] in unpacked else one
        for one in dict.fromkeys(found)
    )


# ------------------------------------------------------------------ one key each


def named(value: Any, where: str) -> str:
    """A name; raises ValueError for anything else."""
    if not isinstance(value, str) or not value:
        found = "null" if value is None else str(value).lower() if value in (True, False) else value
        raise ValueError(
            f"{where} is {found!r}; expected the name of a column (in quotes, where YAML reads it "
            "as something else: 'no', '1')."
        )
    return value


def many(value: Any, where: str) -> list[str]:
    """One name or a list of them."""
    values = value if isinstance(value, list) and value else [value]
    return [
        named(each, f"{where}[{n}]" if len(values) > 1 else where) for n, each in enumerate(values)
    ]


def paths(value: Any, where: str) -> tuple[str, ...]:
    """Columns."""
    return tuple(many(value, where))


def texts(value: Any, where: str) -> tuple[Text, ...]:
    """Columns or templates."""
    return tuple(text(each, where) for each in many(value, where))


def text(value: Any, where: str) -> Text:
    """A column; a template, where it has braces."""
    written = named(value, where)
    if "{" not in written and "}" not in written:
        return column(written)
    parsed = parse_text(written, where=where)
    if not parsed.paths:
        raise ValueError(f"{where} is {value!r}, which names no column; say it as `prompt`.")
    return parsed


def prompts(value: Any, where: str) -> tuple[Text, ...]:
    """Texts that are the same for all rows, or nearly."""
    return tuple(parse_text(each, where=where) for each in many(value, where))


def fields(value: Any, where: str) -> dict[str, str]:
    """What each field is called -> its column."""
    if isinstance(value, Mapping):
        return {str(called): named(path, f"{where}.{called}") for called, path in value.items()}
    columns = many(value, where)
    return {path.rpartition(".")[2].replace("_", " "): path for path in columns}


def conversation_of(value: Any, where: str) -> dict[str, str]:
    """The column of a conversation, and where it says who speaks and what."""
    if not isinstance(value, Mapping):
        return {"messages": named(value, where)}
    keys = ("column", "role", "content")
    for key in value:
        if key not in keys:
            raise ValueError(f"{where}: unknown key {key!r}. {near(str(key), keys)}")
    if "column" not in value:
        raise ValueError(f"{where}.column is missing: the column of the conversation.")
    found = {key: named(path, f"{where}.{key}") for key, path in value.items()}
    return {"messages": found.pop("column"), **found}


def roles(value: Any, where: str) -> dict[str, str]:
    """The table's words for who speaks -> ours."""
    if not isinstance(value, Mapping) or not value:
        raise ValueError(
            f"{where} is {value!r}; expected their words: {{Human: user, Bot: assistant}}."
        )
    return {
        str(word): one_of(role, f"{where}.{word}", known=SPEAKERS) for word, role in value.items()
    }


def ratings(value: Any, where: str) -> dict[str, str]:
    """Kind of rating -> its column."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} is {value!r}; expected {{relevance: COLUMN, ...}}.")
    for kind in value:
        if kind not in KINDS:
            raise ValueError(f"{where}: unknown rating {kind!r}. {near(str(kind), KINDS)}")
    return {kind: named(path, f"{where}.{kind}") for kind, path in value.items()}


def placeholder(value: Any, where: str) -> re.Pattern[str]:
    """The pattern of a mark such as `<image {number}>`."""
    written = named(value, where)
    before, marked, after = written.partition("{number}")
    if not before.strip():
        raise ValueError(f"{where} is {value!r}; expected a mark such as '<image {{number}}>'.")
    number = r"(\d+)" if marked else ""
    return re.compile(re.escape(before) + number + re.escape(after))


def one_of(value: Any, where: str, *, known: Sequence[str]) -> str:
    """One of the words."""
    if value not in known:
        raise ValueError(f"{where} is {value!r}; expected {' or '.join(known)}.")
    return str(value)


def near(name: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown name."""
    close = difflib.get_close_matches(name, known, 1)
    every = f"Known: {', '.join(dict.fromkeys(known)) or 'none'}."
    return f"Did you mean {close[0]!r}? {every}" if close else every
