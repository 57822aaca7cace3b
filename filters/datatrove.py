"""Rules that are datatrove's: its text filters, document by document, behind our expressions.

The only file that imports datatrove, https://github.com/huggingface/datatrove. A rule here fires
where the filter of the same name would drop the document. The document is the text to learn:
answers and raw documents, a message a line. Defaults are those of the papers, as datatrove has
them.

These cost 100 times what column rules do: a word tokenizer reads every text. List them last.
"""

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import polars as pl
import pyarrow as pa

from filters.facts import evaluated_where
from filters.rules import SLICE, rule

ENGLISH = "eng"
"""The word tokenizer's language, as ISO 639-3."""
_URL = r"https?://[^\s<>\"'\])}|]+"


def _dropped(keeps: Callable[[str], bool], text: str = "learned_text") -> pl.Expr:
    """Boolean per row: the filter keeps not this text; an empty one goes without being asked."""

    def judge(texts: pl.Series) -> pl.Series:
        return pl.Series([not (t and t.strip() and keeps(t)) for t in texts], dtype=pl.Boolean)

    return pl.col(text).map_batches(judge, return_dtype=pl.Boolean)


@lru_cache(maxsize=1)
def _share_words() -> None:
    """Datatrove remembers the words of as many texts as a slice has, not of 5.

    Its filters each split the text they are given, which is nearly all that they cost.
    """
    from datatrove.utils import text

    text.split_into_parts = lru_cache(SLICE)(text.split_into_parts.__wrapped__)


def _keeps(filter_: Any) -> Callable[[str], bool]:
    """Text -> whether a datatrove filter keeps it."""
    from datatrove.data import Document

    _share_words()

    def keeps(text: str) -> bool:
        verdict = filter_.filter(Document(text=text, id=""))
        return verdict if isinstance(verdict, bool) else verdict[0]

    return keeps


@rule(reads_words=True)
def gopher_quality(
    *, min_words: int = 50, max_words: int = 100_000, min_word_length: float = 3,
    max_word_length: float = 10, max_symbol_ratio: float = 0.1, max_bullet_ratio: float = 0.9,
    max_ellipsis_ratio: float = 0.3, min_alpha_ratio: float = 0.8, min_stop_words: int = 2,
    language: str = ENGLISH,
) -> pl.Expr:  # fmt: skip
    """The text fails Gopher's quality rules: its length, its words' lengths, symbols, bullets,
    ellipses, words with letters, stop words.
    """
    # https://arxiv.org/abs/2112.11446, table A1 and section A1.1.
    from datatrove.pipeline.filters import GopherQualityFilter

    filter_ = GopherQualityFilter(
        min_doc_words=min_words,
        max_doc_words=max_words,
        min_avg_word_length=min_word_length,
        max_avg_word_length=max_word_length,
        max_symbol_word_ratio=max_symbol_ratio,
        max_bullet_lines_ratio=max_bullet_ratio,
        max_ellipsis_lines_ratio=max_ellipsis_ratio,
        max_non_alpha_words_ratio=min_alpha_ratio,
        min_stop_words=min_stop_words,
        language=language,
    )
    keeps = _keeps(filter_)
    # A text of symbols only has no mean word length: numpy would warn, Gopher drops it.
    return _dropped(lambda text: any(c.isalnum() for c in text) and keeps(text))


@rule(reads_words=True)
def gopher_repetition(
    *, max_line_ratio: float = 0.3, max_paragraph_ratio: float = 0.3,
    max_line_char_ratio: float = 0.2, max_paragraph_char_ratio: float = 0.2,
    language: str = ENGLISH,
) -> pl.Expr:  # fmt: skip
    """The text repeats itself by Gopher's measures: lines, paragraphs, top and duplicate runs of
    words.
    """
    # https://arxiv.org/abs/2112.11446, table A1; the shares of word runs (top 2 to 4, duplicate 5
    # to 10) are datatrove's defaults, the same table.
    from datatrove.pipeline.filters import GopherRepetitionFilter

    filter_ = GopherRepetitionFilter(
        dup_line_frac=max_line_ratio,
        dup_para_frac=max_paragraph_ratio,
        dup_line_char_frac=max_line_char_ratio,
        dup_para_char_frac=max_paragraph_char_ratio,
        language=language,
    )
    return _dropped(_keeps(filter_))


@rule(reads_words=True)
def fineweb_quality(
    *, min_line_end_ratio: float = 0.12, max_short_line_ratio: float = 0.67,
    short_line_chars: int = 30, max_duplicate_char_ratio: float = 0.01,
    max_newline_ratio: float = 0.3, language: str = ENGLISH,
) -> pl.Expr:  # fmt: skip
    """The text fails FineWeb's rules: lines without an end mark, short lines, characters in
    repeated lines, a list rather than prose.
    """
    # https://arxiv.org/abs/2406.17557, section 3.6; the last two are datatrove's defaults.
    from datatrove.pipeline.filters import FineWebQualityFilter

    filter_ = FineWebQualityFilter(
        line_punct_thr=min_line_end_ratio,
        short_line_thr=max_short_line_ratio,
        short_line_length=short_line_chars,
        char_duplicates_ratio=max_duplicate_char_ratio,
        new_line_ratio=max_newline_ratio,
        language=language,
    )
    return _dropped(_keeps(filter_))


@rule()
def c4_quality(
    *, min_sentences: int = 5, min_words_per_line: int = 3, end_marks: bool = True,
    curly_brackets: bool = True, language: str = ENGLISH,
) -> pl.Expr:  # fmt: skip
    """The text fails C4's rules: few sentences in lines that count, filler text, curly brackets.

    `end_marks`: lines without one don't count; `curly_brackets`: a text with one goes. Only whole
    samples go; C4's removal of single lines is not applied.
    """
    # https://jmlr.org/papers/v21/20-074.html, section 2.2.
    from datatrove.pipeline.filters import C4QualityFilter

    filter_ = C4QualityFilter(
        min_num_sentences=min_sentences,
        min_words_per_line=min_words_per_line,
        filter_no_terminal_punct=end_marks,
        filter_curly_bracket=curly_brackets,
        language=language,
    )
    return _dropped(_keeps(filter_))


@rule()
def blocked_url(
    *, domains: tuple[str, ...] = (), urls: tuple[str, ...] = (),
    banned_words: tuple[str, ...] = (), lists: bool = False,
) -> pl.Expr:  # fmt: skip
    """The text holds a link to a blocked domain or address, or with a banned word in it.

    `lists: true` adds the lists that datatrove ships (adult and malicious sites, from
    https://dsi.ut-capitole.fr/blacklists/; 10 s and 1 GB of memory per worker).
    """

    def judge(found: pl.Series) -> pl.Series:
        keeps = _url_filter(domains, urls, banned_words, lists)
        rows = [not all(map(keeps, row)) for row in found.to_list()]
        return pl.Series(rows, dtype=pl.Boolean)

    links = pl.col("text").str.extract_all(_URL)
    some = pl.col("text").str.contains("://", literal=True)
    return evaluated_where(some, links.map_batches(judge, return_dtype=pl.Boolean))


@lru_cache(maxsize=2)
def _url_filter(
    domains: tuple[str, ...], urls: tuple[str, ...], words: tuple[str, ...], lists: bool
) -> Callable[[str], bool]:
    from datatrove.data import Document
    from datatrove.pipeline.filters import URLFilter
    from tldextract import TLDExtract

    filter_ = URLFilter(
        extra_domains=domains, extra_urls=urls, banned_words=words, use_integrated_lists=lists
    )
    filter_.tldextractor = TLDExtract(suffix_list_urls=(), cache_dir=None)  # what it ships

    def keeps(url: str) -> bool:
        with warnings.catch_warnings():  # a property of tldextract, renamed since
            warnings.simplefilter("ignore", DeprecationWarning)
            verdict = filter_.filter(Document(text="", id="", metadata={"url": url}))
        return verdict if isinstance(verdict, bool) else verdict[0]

    return keeps


@lru_cache(maxsize=4)
def _mask(emails: bool, public_ips: bool) -> Callable[[str], str]:
    from datatrove.pipeline.formatters import PIIFormatter

    # One replacement each: datatrove's default goes round a list, so text would depend on order.
    formatter = PIIFormatter(
        remove_emails=emails,
        remove_ips=public_ips,
        email_replacement="email@example.com",
        ip_replacement="192.0.2.1",
    )
    return formatter.format


def mask_personal_information(samples: pa.Table, *, emails: bool, public_ips: bool) -> pa.Table:
    """The samples with every address replaced by one that is nobody's, in all messages."""
    mask = _mask(emails, public_ips)
    position = samples.schema.get_field_index("messages")
    field = samples.schema.field("messages")
    messages = samples["messages"].to_pylist()
    for conversation in messages:
        for message in conversation or []:
            for part in message["content"] or []:
                if part["text"]:
                    part["text"] = mask(part["text"])
    return samples.set_column(position, field, pa.array(messages, field.type))


@rule(version=2, rewrite=mask_personal_information)
def personal_information(*, emails: bool = True, public_ips: bool = True) -> pl.Expr:
    """The text holds an e-mail address or a public IP address.

    With `mode: rewrite` the sample stays, with `email@example.com` or `192.0.2.1` in their
    place: addresses that are reserved and nobody's (RFC 2606, RFC 5737).
    """

    def judge(texts: pl.Series) -> pl.Series:
        mask = _mask(emails, public_ips)
        return pl.Series([mask(text) != text for text in texts], dtype=pl.Boolean)

    # Most texts have neither an @ nor four numbers with dots; only the others are read slowly.
    pattern = r"@|\d\.\d{1,3}\.\d{1,3}\.\d"
    suspicious = [pl.col(text).str.contains(pattern) for text in ("text", "system_text")]
    said = pl.col("text") + "\n" + pl.col("system_text")
    return evaluated_where(
        pl.any_horizontal(suspicious), said.map_batches(judge, return_dtype=pl.Boolean)
    )
