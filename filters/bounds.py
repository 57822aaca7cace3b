"""Rules about any number that is known of a sample: a fact of its own, a rating, an annotation.

    out_of_bounds:   {facts: {clip_score: {min: 0.2}, perplexity: {max: 500}}}
    beyond_quantile: {facts: {quality: {lowest: 0.3}}, within: component}

Numbers: `NUMBERS` of facts.py, the scores of rules (`high_perplexity.score`), and the `fields` of a
mixture's `annotations`.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import polars as pl
import pyarrow as pa

from filters.duplicates.rules import SCOPES, Within
from filters.facts import FACTS, NUMBERS, VERDICTS
from filters.rules import RULES, did_you_mean, rule, settings_of

VALUE = ".value"
"""The column of VERDICTS that holds a fact of which quantiles are taken: `quality.value`."""
Rules = Mapping[str, Mapping[str, Any] | None]


def _check(at: str, facts: dict[str, Any], *, sides: tuple[str, str], shares: bool) -> None:
    """Each fact has one or both sides, and they are numbers; else ValueError."""
    expected = f"`fact: {{{sides[0]}: NUMBER}}`, `{{{sides[1]}: NUMBER}}` or both"
    if not facts:
        raise ValueError(f"{at}.facts is empty; expected {expected}.")
    for fact, given in facts.items():
        if not isinstance(given, Mapping) or not given:
            raise ValueError(f"{at}.facts.{fact} is {given!r}; expected {expected}.")
        for side, value in given.items():
            if side not in sides:
                hint = did_you_mean(str(side), list(sides))
                raise ValueError(f"{at}.facts.{fact}: unknown setting {side!r}. {hint}")
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or (shares and not 0 <= value <= 1):
                wanted = "a number from 0 to 1" if shares else "a number"
                raise ValueError(f"{at}.facts.{fact}.{side} is {value!r}, expected {wanted}.")


def check_bounds(at: str, *, facts: dict[str, Any], absent: str = "stays") -> None:
    """Every bound is a number; else ValueError."""
    _check(at, facts, sides=("min", "max"), shares=False)
    for fact, given in facts.items():
        if given.get("min", -math.inf) > given.get("max", math.inf):
            raise ValueError(f"{at}.facts.{fact}: min {given['min']} is above max {given['max']}.")


def check_quantiles(at: str, *, facts: dict[str, Any], within: str = "component") -> None:
    """Every share is a number from 0 to 1; else ValueError."""
    _check(at, facts, sides=("lowest", "highest"), shares=True)


def _broken(facts: dict[str, Any], absent: str) -> Iterable[tuple[pl.Expr, str]]:
    """(true where a bound is broken, which) of every bound."""
    for fact, given in facts.items():
        value = pl.col(fact).cast(pl.Float64)
        if "min" in given:
            yield (value < given["min"]).fill_null(value=False), f"{fact} below {given['min']:g}"
        if "max" in given:
            yield (value > given["max"]).fill_null(value=False), f"{fact} above {given['max']:g}"
        if absent == "goes":
            yield value.is_null(), f"{fact} is absent"


def _which(frame: pl.DataFrame, *, facts: dict[str, Any], absent: str) -> pl.Series:
    """String per sample: the first bound that is broken; null: none."""
    told = [pl.when(broken).then(pl.lit(words)) for broken, words in _broken(facts, absent)]
    return frame.select(pl.coalesce(*told, pl.lit(None, pl.String))).to_series()


@rule(check=check_bounds, detail=_which)
def out_of_bounds(*, facts: dict, absent: Literal["stays", "goes"] = "stays") -> pl.Expr:
    """A number known of the sample is below its `min` or above its `max`.

    `facts`: {fact: {min: NUMBER, max: NUMBER}}. `absent`: whether a sample without it stays.
    """
    return pl.any_horizontal([broken for broken, _ in _broken(facts, absent)])


@rule(scope="mixture", check=check_quantiles)
def beyond_quantile(
    verdicts: pl.DataFrame, *, facts: dict, within: Within = "component"
) -> pl.DataFrame:
    """A number known of the sample is among the `lowest` or `highest` share of those around it.

    `facts`: {fact: {lowest: SHARE, highest: SHARE}}, of what the rules before leave of the
    component (or `subset`, `mixture`) and has the number. Equal ones at the edge stay.
    """
    groups = SCOPES[within]
    fires = []
    for fact, given in facts.items():
        column = pl.col(f"{fact}{VALUE}")
        for side, share in given.items():
            up_to = (column.count() * share + 1e-9).floor()  # 100 * 0.29 lies below 29
            rank = column.rank("max", descending=side == "highest") <= up_to
            fires.append(
                pl.when((rank.over(groups) if groups else rank).fill_null(value=False)).then(
                    pl.lit(f"{fact} among the {side} {share:g}")
                )
            )
    found = verdicts.select("id", detail=pl.coalesce(*fires, pl.lit(None, pl.String)))
    return found.filter(pl.col("detail").is_not_null())


def quantile_facts(rules: Rules) -> list[str]:
    """The facts of which these rules take quantiles, so that verdicts must hold their values."""
    given = rules.get("beyond_quantile")
    return list(settings_of("beyond_quantile", given)[1]["facts"]) if given else []


def verdict_columns(rules: Rules) -> pa.Schema:
    """What `judge` writes under these rules: VERDICTS, and the values of which it is told."""
    more = [(f"{fact}{VALUE}", pa.float64()) for fact in quantile_facts(rules)]
    return pa.schema([*VERDICTS, *pa.schema(more)]) if more else VERDICTS


def bounded_facts(rules: Rules) -> dict[str, list[str]]:
    """Rule -> the facts that its settings name."""
    names = ("out_of_bounds", "beyond_quantile")
    return {name: list((rules.get(name) or {}).get("facts") or {}) for name in names}


def validate_facts(rules: Rules, *, annotated: Iterable[str], where: str) -> None:
    """Rules about numbers name facts that are numbers; else ValueError. `annotated`: the facts that
    a mixture's annotations give, none of which samples have of themselves.
    """
    known = [*NUMBERS, *annotated, *(f"{name}.score" for name in rules if RULES[name].score)]
    for fact in annotated:
        if fact in FACTS or fact in NUMBERS:
            raise ValueError(
                f"{where}: annotations.fields has a fact {fact!r}, which samples have already. "
                f"Call it otherwise, such as `annotated_{fact}`."
            )
    for name, facts in bounded_facts(rules).items():
        for fact in facts:
            if fact not in known:
                kind = "no number" if fact in FACTS else "unknown"
                raise ValueError(
                    f"{where}.{name}.facts: {fact!r} is {kind}. {did_you_mean(fact, known)}"
                )
