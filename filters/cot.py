"""Rules about chains of thought: whether their sections are whole and their end is right.

They look at samples tagged `cot`: by their source, or by an answer that shows it (fact
`all_tags`), since chains of thought hide inside instruction sets. How much of it a mixture takes is
not a rule but a limit over all components: `limits: {cot: {max_ratio: 0.0005}}`.
"""

import re

import polars as pl

from filters.facts import evaluated_where
from filters.rules import rule

LLAVA_COT = ("SUMMARY", "CAPTION", "REASONING", "CONCLUSION")
"""The sections of LLaVA-CoT, in order, https://arxiv.org/abs/2411.10440."""

_is_cot = pl.col("all_tags").list.contains("cot")

_CONCLUSIONS = (
    # Where the last answer states its result, the most explicit form first.
    r"(?s)<CONCLUSION>(.*?)</CONCLUSION>",  # LLaVA-CoT
    r"(?s)<answer>(.*?)</answer>",  # R1-like
    r"\\boxed\{([^{}]*)\}",  # MATH
    r"####\s*(.+)",  # GSM8K
    r"(?i)\banswer(?:\s+is|:)\s*(.+)",
)


@rule()
def unclosed_section(*, sections: tuple[str, ...] = (*LLAVA_COT, "think", "answer")) -> pl.Expr:
    """An answer opens a section such as `<REASONING>` and does not close it, or the reverse."""
    answer = pl.element().str
    unlike = [
        answer.count_matches(f"<{section}>", literal=True)
        != answer.count_matches(f"</{section}>", literal=True)
        for section in sections
    ]
    some = pl.col("learned_text").str.contains_any([f"{section}>" for section in sections])
    return evaluated_where(some, pl.col("answers").list.eval(pl.any_horizontal(unlike)).list.any())


@rule()
def missing_section(*, sections: tuple[str, ...] = LLAVA_COT) -> pl.Expr:
    """An answer has one of the sections, but not all of them, in order."""
    names = [re.escape(section) for section in sections]
    tags = [f"<{section}>" for section in sections]
    one = pl.element().str.contains_any(tags)
    whole = "(?s)" + ".*".join(f"<{name}>.*</{name}>" for name in names)
    partly = pl.col("answers").list.eval(one & ~pl.element().str.contains(whole)).list.any()
    return evaluated_where(pl.col("learned_text").str.contains_any(tags), partly)


def _comparable(text: pl.Expr) -> pl.Expr:
    """Words in lower case between single spaces; 1,234.50% stays one word, 3.0 is 3."""
    return (
        text.str.to_lowercase()
        .str.replace_all(r"(\d),(\d{3})", "${1}${2}")
        .str.replace_all(r"(\.\d*?)0+\b", "${1}")
        .str.replace_all(r"[^\p{L}\p{M}\p{N}.%/-]+", " ")
        .str.replace_all(r"\.( |$)", "${1}")
        .str.strip_chars()
    )


@rule()
def wrong_conclusion() -> pl.Expr:
    """The conclusion is absent, or does not contain the answer that the source gives as right.

    Only samples with such an answer are looked at. Compared by words, letter case and punctuation
    aside; numbers by their value as written (1,200 is 1200, 3.0 is 3).
    """
    last = pl.col("answers").list.last()
    conclusion = pl.coalesce([last.str.extract(pattern) for pattern in _CONCLUSIONS])
    stated = " " + _comparable(conclusion) + " "
    gold = " " + _comparable(pl.col("answer")) + " "
    differs = conclusion.is_null() | ~stated.str.contains(gold, literal=True)
    return evaluated_where(_is_cot & pl.col("answer").is_not_null(), differs)


@rule()
def too_long_reasoning(*, max_words: int) -> pl.Expr:
    """A chain of thought has more than `max_words` words, its conclusion not counted."""
    reasoning = pl.element().str.replace_all(r"(?s)<CONCLUSION>.*?</CONCLUSION>", "")
    words = reasoning.str.count_matches(r"\S+")
    return evaluated_where(_is_cot, pl.col("answers").list.eval(words).list.max() > max_words)
