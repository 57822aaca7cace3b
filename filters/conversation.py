"""Rules about the conversation itself: who speaks, how often, and whether anything is said."""

import numpy as np
import polars as pl

from filters.facts import evaluated_where
from filters.rules import check_patterns, rule

SPECIAL_TOKENS = (
    # SmolVLM's own vocabulary (tokenizer.json of HuggingFaceTB/SmolVLM2-500M-Video-Instruct) ...
    r"<image>", r"<video>", r"<end_of_utterance>", r"<fake_token_around_image>", r"<global-img>",
    r"<row_\d+_col_\d+>", r"<\|reserved_special_token_\d+\|>", r"<\|im_start\|>", r"<\|im_end\|>",
    r"<\|endoftext\|>",
    # ... and what the chat templates of Llama 2 and 3, Gemma, Phi and Vicuna leave behind.
    r"\[/?INST\]", r"<</?SYS>>", r"</?s>", r"<\|eot_id\|>", r"<\|start_header_id\|>",
    r"<\|end_header_id\|>", r"<start_of_turn>", r"<end_of_turn>", r"<\|assistant\|>", r"<\|user\|>",
)  # fmt: skip

SYSTEM_TEXT = (
    r"^\s*(?:###\s*)?system\s*(?:prompt|message)?\s*:",
    r"you are (?:a|an) (?:very |extremely )?(?:\w+ ){0,3}(?:ai |language |chat)?"
    r"(?:assistant|chatbot|language model)\b",
    r"a chat between a curious (?:user|human) and an artificial intelligence assistant",  # Vicuna
    r"below is an instruction that describes a task",  # Alpaca
)

REFUSALS = (
    # Families seen in synthetic instruction data; Vicuna's cleaning script lists the same kind:
    # https://github.com/lm-sys/FastChat/blob/main/fastchat/data/optional_clean.py
    r"^\W*(?:i'?m|i am) (?:very |really |so )?(?:sorry|afraid)\b[^.]*"
    r"\b(?:can(?:'?t|not)|unable|not able)\b",
    r"^\W*(?:sorry|i apologi[sz]e)\b[^.]*\b(?:can(?:'?t|not)|unable|not able)\b",
    r"^\W*(?:unfortunately,? )?i (?:can(?:'?t|not)|am unable to|am not able to|won'?t) "
    r"(?:assist|help|provide|fulfil|comply|answer|see|view|process|access|identify)",
    r"\bas an? (?:ai|artificial intelligence|large language|language|text-based)"
    r"(?: language)?(?: model| assistant)?\b",
    r"\b(?:my|the) knowledge cut-?off\b",
)


def _any_of(texts: str, pattern: str) -> pl.Expr:
    """True where one of the texts of the list column matches."""
    return pl.col(texts).list.eval(pl.element().str.contains(pattern)).list.any()


def _normalised(text: pl.Expr) -> pl.Expr:
    return text.str.to_lowercase().str.replace_all(r"[^\p{L}\p{N}]+", " ").str.strip_chars()


@rule()
def undecodable() -> pl.Expr:
    """Reading the sample met a defect, such as an image or video that does not decode.

    Always applied, whether listed or not; the reason is then the defect itself, like
    `undecodable_image`.
    """
    return pl.col("defect").is_not_null()


@rule()
def empty_answer() -> pl.Expr:
    """An answer is empty or missing: nothing would be learned from the turn."""
    is_blank = pl.element().str.strip_chars().str.len_bytes() == 0
    blank_answer = pl.col("answers").list.eval(is_blank).list.any()
    nothing_said = (pl.col("answers").list.len() == 0) & (
        (pl.col("documents").list.len() == 0) | pl.col("documents").list.eval(is_blank).list.any()
    )
    return blank_answer | nothing_said


@rule()
def roles_not_alternating() -> pl.Expr:
    """The roles are not user, assistant, user, assistant, ... (a system message may open)."""
    pattern = r"^(?:(?:system )?user assistant(?: user assistant)*|document(?: document)*)$"
    return ~pl.col("roles").str.contains(pattern)


@rule()
def too_many_turns(*, max_turns: int) -> pl.Expr:
    """The conversation has more than `max_turns` answers."""
    return pl.col("num_turns") > max_turns


@rule()
def placeholder_mismatch() -> pl.Expr:
    """The messages ask for more or fewer images than there are."""
    return pl.col("num_placeholders").fill_null(0) != pl.col("num_images").fill_null(0)


@rule(check=check_patterns)
def leaked_special_token(*, patterns: tuple[str, ...] = SPECIAL_TOKENS) -> pl.Expr:
    """The text spells a special token of some chat format, left over from another pipeline.

    It would stay plain text here; the rule is for those who rather not teach it. `patterns` are
    regular expressions (Rust's `regex` syntax).
    """
    return pl.col("text").str.contains("|".join(patterns))


@rule(check=check_patterns)
def leaked_system_text(*, patterns: tuple[str, ...] = SYSTEM_TEXT) -> pl.Expr:
    """An answer recites a system prompt.

    `patterns` are regular expressions, case ignored.
    """
    return _any_of("answers", "(?i)" + "|".join(f"(?:{p})" for p in patterns))


@rule(check=check_patterns)
def refusal(*, patterns: tuple[str, ...] = REFUSALS) -> pl.Expr:
    """An answer refuses, or speaks about being a model.

    `patterns` are regular expressions, case ignored.
    """
    return _any_of("answers", "(?i)" + "|".join(f"(?:{p})" for p in patterns))


@rule()
def answer_copies_question() -> pl.Expr:
    """An answer says nothing but its question, letter case and punctuation aside."""
    turns = pl.struct("asked", answered="answers")
    return turns.map_batches(_any_equal, return_dtype=pl.Boolean)


def _turns(rows: pl.Series) -> pl.DataFrame:
    """`row`, `asked`, `answered` of every turn of conversations that answer each question."""
    lists = rows.struct.unnest().with_row_index("row")
    whole = lists.filter(pl.col("asked").list.len() == pl.col("answered").list.len())
    row = np.repeat(whole["row"].to_numpy(), whole["asked"].list.len().to_numpy())
    texts = {
        name: whole[name].list.explode(empty_as_null=False, keep_nulls=False)
        for name in ("asked", "answered")
    }
    return pl.DataFrame({"row": row, **texts})


def _any_equal(rows: pl.Series) -> pl.Series:
    """Boolean per row: an answer has the words of its question, and it has words."""
    first = [
        pl.col(text).str.extract(r"([\p{L}\p{N}])").str.to_lowercase()
        for text in ("asked", "answered")
    ]
    alike = _turns(rows).filter(first[0] == first[1])  # few: what follows is slower
    same = alike.filter(_normalised(pl.col("asked")) == _normalised(pl.col("answered")))
    return pl.int_range(len(rows), eager=True).is_in(same["row"].implode())


@rule()
def repeated_turns() -> pl.Expr:
    """A question and its answer occur again, word for word, in the same conversation."""
    turns = pl.struct("asked", answered="answers")
    twice = turns.map_batches(_any_turn_twice, return_dtype=pl.Boolean)
    return evaluated_where(pl.col("answers").list.n_unique() < pl.col("answers").list.len(), twice)


def _any_turn_twice(rows: pl.Series) -> pl.Series:
    """Boolean per row: two of its turns are the same."""
    turns = _turns(rows)
    twice = turns.filter(pl.struct("row", "asked", "answered").is_duplicated())
    return pl.int_range(len(rows), eager=True).is_in(twice["row"].implode())


@rule()
def punctuation_answer() -> pl.Expr:
    """An answer is only punctuation: no letter, digit or sign."""
    return _any_of("answers", r"^[\p{P}\s]*\p{P}[\p{P}\s]*$")


@rule(scope="index")
def too_long() -> pl.Expr:
    """The sample has more tokens than `encoding.seq_len`, or more crops than `encoding.max_crops`.

    Applied by the build when tokens are counted, always; raw documents are cut instead, and samples
    that `split_turns` has split are packed by their sequences.
    """
    too_many_tokens = (pl.col("num_tokens") > pl.col("seq_len")) & ~pl.col("splittable")
    too_many_crops = (pl.col("num_crops") > pl.col("max_crops")) & ~pl.col("splittable")
    return too_many_tokens | too_many_crops


@rule(scope="index")
def too_few_tokens(*, min_tokens: int) -> pl.Expr:
    """The sample has fewer than `min_tokens` tokens.

    Applied by the build when tokens are counted. For long documents: 8,000 for context extension.
    """
    return pl.col("num_tokens") < min_tokens
