"""Ids give back the conversation that they were made of, exactly or not at all."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tokenization.rows import IMAGE, SMALL, image_record, message, row_of, sample, table
from tokenization import encode as encoding_of
from tokenization.decode import conversation_of, decoding_tools
from tokenization.schema import Encoding

WORDED = replace(SMALL, system_prompts="smolvlm", media_intro_outro=True, seq_len=4096)
STRINGS = replace(SMALL, position_tokens="string")
LETTERS = st.characters(codec="utf-8", exclude_characters="\ufeff") | st.sampled_from(" \n<>:|")
LIKE_MARKS = [
    "",
    " ",
    "User: <image>",
    "<end_of_utterance>\nAssistant: x",
    "<row_1_col_1>",
    "é 🙂\n\n",
]
TEXT = st.text(LETTERS, max_size=40) | st.sampled_from(LIKE_MARKS)
SIZE = st.tuples(st.integers(1, 200), st.integers(1, 200))
TURN = st.tuples(st.lists(TEXT | SIZE, max_size=4), TEXT)


def sequences(row: dict, encoding: Encoding) -> list[tuple[np.ndarray, list[tuple[int, int]]]]:
    """(ids, grids) of each sequence of an encoded sample."""
    (line,) = encoding_of.encode(table(row), encoding=encoding).to_pylist()
    assert line["problem"] is None
    ids, grids = np.array(line["input_ids"], np.int32), line["grids"]
    cells, at, found = [(g["rows"], g["cols"]) for g in grids], 0, []
    each = len(cells) // len(line["seq_lengths"])
    for number, length in enumerate(line["seq_lengths"]):
        found.append((ids[at : at + length], cells[number * each :][:each]))
        at += length
    return found


def rendered(row: dict, encoding: Encoding) -> list:
    """The conversation as a template would get it, neighbouring texts joined."""
    one = row_of(row)
    joined = []
    for role, parts in encoding_of.with_added_words(one, one.conversation, encoding=encoding):
        whole: list = []
        for part in parts:
            if isinstance(part, str) and whole and isinstance(whole[-1], str):
                whole[-1] += part
            elif part != "" or not whole:
                whole.append(part)
        if len(whole) > 1 and whole[0] == "":
            whole = whole[1:]
        joined.append((role, whole or [""]))
    return joined


@pytest.mark.parametrize("encoding", [SMALL, WORDED, STRINGS], ids=["bare", "words", "strings"])
@settings(max_examples=40)
@given(turns=st.lists(TURN, min_size=1, max_size=3), video=st.booleans())
def test_what_was_encoded_comes_back(encoding, turns, video):
    messages, images = [], []
    for asked, answer in turns:
        parts = [IMAGE if isinstance(part, tuple) else part for part in asked]
        sizes = [part for part in asked if isinstance(part, tuple)]
        images += [
            image_record(*s, seconds=float(n) if video else None) for n, s in enumerate(sizes)
        ]
        messages += [message("user", *parts), message("assistant", answer)]
    row = sample("a/b/1", messages, images)
    if encoding_of.encode(table(row), encoding=encoding)["problem"][0].as_py() is not None:
        return  # of text that the vocabulary has no symbol for
    ((ids, grids),) = sequences(row, encoding)
    found, whole = conversation_of(ids, grids, decoding_tools(encoding, "builtin"))
    assert whole
    texts = [(role, [p for p in parts if p != ""] or [""]) for role, parts in found]
    expected = [
        (role, [p for p in parts if p != ""] or [""]) for role, parts in rendered(row, encoding)
    ]
    assert texts == expected


def test_the_sequences_of_a_sample_that_is_split_come_back_one_by_one():
    encoding = replace(SMALL, split_turns=1, seq_len=512)
    turns = [message("user", IMAGE, "Q0"), message("assistant", "A0")]
    for n in (1, 2):
        turns += [message("user", f"Q{n}"), message("assistant", f"A{n}")]
    made = sequences(sample("a/b/1", turns, [image_record(64, 64)]), encoding)
    tools = decoding_tools(encoding, "builtin")
    found = [conversation_of(ids, grids, tools)[0] for ids, grids in made]
    assert found == [[("user", [0, f"Q{n}"]), ("assistant", [f"A{n}"])] for n in range(3)]


def test_a_document_and_its_parts():
    text = "Größe 🙂 " * 30
    tools = decoding_tools(SMALL, "builtin")
    row = sample("a/b/1", [message("document", text)])
    ((ids, _),) = sequences(row, replace(SMALL, seq_len=10_000))
    assert conversation_of(ids, [], tools) == ([("document", [text])], True)
    parts = [
        conversation_of(ids, [], tools) for ids, _ in sequences(row, replace(SMALL, seq_len=17))
    ]
    assert not parts[0][1]
    joined = "".join(conversation[0][1][0] for conversation, _ in parts)
    assert "\ufffd" not in joined
    assert len(text) - len(parts) < len(joined) <= len(text)


def test_a_document_with_images_comes_back_with_their_places():
    images = [image_record(64, 64), image_record(90, 40)]
    row = sample("a/b/1", [message("document", IMAGE, "A square, ", IMAGE, "and a bar.")], images)
    ((ids, grids),) = sequences(row, replace(SMALL, seq_len=10_000))
    found = conversation_of(ids, grids, decoding_tools(SMALL, "builtin"))
    assert found == ([("document", [0, "A square, ", 1, "and a bar."])], True)


def test_ids_of_another_encoding_are_refused():
    row = sample("a/b/1", [message("user", IMAGE, "Q"), message("assistant", "A")],
                 [image_record(64, 64)])  # fmt: skip
    ((ids, grids),) = sequences(row, SMALL)
    tools = decoding_tools(SMALL, "builtin")
    with pytest.raises(ValueError, match="are not those of its grid"):
        conversation_of(ids, [(1, 2)], tools)
    with pytest.raises(ValueError, match="of no image"):
        conversation_of(np.concatenate([ids, ids[1:]]), grids, tools)
    with pytest.raises(ValueError, match="does not end"):
        conversation_of(ids[:-3], grids, tools)
    with pytest.raises(ValueError, match="no known role"):
        conversation_of(np.concatenate([ids[:1], ids[3:]]), [], tools)
    with pytest.raises(ValueError, match="only SmolVLM's own"):
        decoding_tools(replace(SMALL, chat_template="tokenizer"), "builtin")
