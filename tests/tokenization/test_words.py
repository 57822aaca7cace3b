"""Ids by words are those that the tokenizer gives for the whole text."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tokenization import words
from tokenization.vocab import encode_plain, plain_tokenizer
from tokenization.words import LONGEST_KNOWN, Words, words_of

PLAIN = plain_tokenizer("builtin")
WORDS = words_of(PLAIN)

SIGNS = (
    *" \t\n\r\f\v\x00\x1c\x1f\x7f\x85\xa0'\"<|>.,-_$0129aZstredvml",
    *("  ", " 'LL", "'re", "'Ve", "don't", "<image>", "<end_of_utterance>", "<row_1_col_2>"),
    *(
        "é",
        "ß",
        "ǅ",
        "٣",
        "½",
        "Ⅷ",
        "日本",
        "한",
        "e\u0301",
        "\u200b",
        "\u2028",
        "\u3000",
        "“",
        "…",
        "👩‍🚀",
    ),
)
TEXTS = st.one_of(
    st.lists(st.sampled_from(SIGNS), max_size=24).map("".join),
    st.text(st.characters(max_codepoint=127), max_size=40),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
)


@given(texts=st.lists(TEXTS, max_size=6))
def test_ids_by_words_are_those_of_whole_texts(texts):
    assert WORDS.cuts
    assert WORDS.ids(texts) == encode_plain(PLAIN, texts)
    assert Words(PLAIN, cuts=True).ids(texts[:1]) == encode_plain(PLAIN, texts[:1])


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}},
        {"pre_tokenizer": None},
    ],
)
def test_a_tokenizer_that_cuts_otherwise_gets_whole_texts(change):
    other = Tokenizer.from_str(json.dumps({**json.loads(PLAIN.to_str()), **change}))
    texts = ["It's 2026:  e\u0301 costs 12.50", "It's", "", "It's"]
    assert not words_of(other).cuts
    assert words_of(other).ids(texts) == encode_plain(other, texts)


@given(texts=st.lists(TEXTS, max_size=6), most=st.integers(1, 30))
def test_texts_are_words_some_at_a_time(texts, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "AT_ONCE", most)
        assert [text for run in words.runs(texts) for text in run] == texts
        assert WORDS.ids(texts) == encode_plain(PLAIN, texts)


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(words, "MOST_KNOWN", 50)
    some, long = Words(PLAIN, cuts=True), "a" * (LONGEST_KNOWN + 1)
    assert some.ids([long, f"{long} b"]) == encode_plain(PLAIN, [long, f"{long} b"])
    assert set(some.known) == {" b"}
    many = [f"{first}{second}" for first in "abcdefgh" for second in "abcdefgh"]
    assert some.ids(many) == encode_plain(PLAIN, many)
    assert len(some.known) <= 50
    assert some.ids(many[:9]) == encode_plain(PLAIN, many[:9])
