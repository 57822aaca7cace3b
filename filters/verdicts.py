r"""Judging: SAMPLE in, VERDICTS out, row for row.

    SAMPLE --facts--> columns --one select over all rules--> rule (the first), fired (all)
                         \--hashes--> what mixture-level rules compare

A defect of ingest always rejects and is the reason, before any rule. Rows in = rows out.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from filters.bounds import VALUE, quantile_facts, verdict_columns
from filters.duplicates import hashes
from filters.facts import FACTS, VERDICTS, facts
from filters.rules import RULES, SLICE, did_you_mean, settings_of

Rules = Mapping[str, Mapping[str, Any] | None]

_ALWAYS = {"modality", "num_images", "num_turns", "num_bytes", "all_tags"}


def _expressions(rules: Rules) -> tuple[dict[str, pl.Expr], dict[str, pl.Expr]]:
    """(rule -> fires, rule -> rejects) of the per-sample rules, boolean, in the order of `rules`.

    Where an expression is null (a fact that the sample does not have) the rule does not fire.
    """
    fires, rejects = {}, {}
    for name, given in rules.items():
        rule = RULES[name]
        if rule.scope == "sample":
            mode, own = settings_of(name, given)
            fires[name] = rule.function(**own).fill_null(value=False)
            if mode == "drop":
                rejects[name] = fires[name]
            elif mode == "rewrite" and rule.hopeless is not None:
                rejects[name] = rule.hopeless(**own).fill_null(value=False)
    return fires, rejects


def _names_of_true(flags: list[pl.Series]) -> pl.Series:
    """List<string> per row: the names of the boolean columns that are true there, in order.

    Few combinations occur, so each list is made once.
    """
    height = len(flags[0]) if flags else 0
    lists: list[list[str]] = [[]]
    which = np.zeros(height, np.int64)  # row -> index of its list
    for start in range(0, len(flags), 32):
        some = flags[start : start + 32]
        mask = which << 32
        for n, flag in enumerate(some):
            mask |= flag.to_numpy().astype(np.int64) << n
        masks, which = np.unique(mask, return_inverse=True)
        lists = [
            lists[m >> 32] + [flag.name for n, flag in enumerate(some) if m >> n & 1]
            for m in masks.tolist()
        ]
    return pl.Series(lists, dtype=pl.List(pl.String)).gather(which)


def _scores(samples: pa.Table, rules: Rules) -> dict[str, pl.Series]:
    """Column "RULE.score" -> float per sample, of the model-scored rules."""
    made = {}
    for name, given in rules.items():
        score = RULES[name].score
        if score is not None and RULES[name].scope == "sample":
            made[f"{name}.score"] = pl.Series(
                score(samples, **settings_of(name, given)[1]), dtype=pl.Float64
            )
    return made


def _needs(rules: Rules) -> set[str]:
    return {
        column
        for name, given in rules.items()
        for column in RULES[name].needs(**settings_of(name, given)[1])
    }


def judge(samples: pa.Table, *, rules: Rules, weight_by: str = "") -> pa.Table:
    """VERDICTS of `samples` and, for `beyond_quantile`, the facts that it names as columns beside
    them: same rows, same order; every rule that fires is in `fired`.

    `rule` is the sample's defect, else the first rule in the order of `rules` whose mode is `drop`,
    else null. `weight_by` names a fact (or "RULE.score") that is written to `weight`. Mixture-level
    rules are not applied here: their hashes are filled in for `mixture_applications`; those of
    images always, since ingest has them and the report compares them.
    """
    # Longer than a screen: facts, expressions, verdicts and columns of one table, in that order.
    if sum(RULES[name].reads_words for name in rules) > 1 and len(samples) > SLICE:
        slices = [samples.slice(at, SLICE) for at in range(0, len(samples), SLICE)]
        return pa.concat_tables([judge(s, rules=rules, weight_by=weight_by) for s in slices])
    fires, rejects = _expressions(rules)
    scores = _scores(samples, rules)
    needs = _needs(rules)
    read = {n for e in (*fires.values(), *rejects.values()) for n in e.meta.root_names()}
    read |= {hashes.FROM_FACTS[column][0] for column in needs if column in hashes.FROM_FACTS}
    read |= _ALWAYS | ({weight_by} if weight_by else set())
    details = {name: RULES[name] for name in rules if RULES[name].detail is not None}
    read |= {fact for rule in details.values() for fact in rule.reads}
    values = quantile_facts(rules)
    read |= set(values)
    read -= {f"{name}.detail" for name in details}
    frame = facts(samples, names=read - set(scores)).with_columns(**scores)
    for name, rule in details.items():
        assert rule.detail is not None
        found = rule.detail(frame, **settings_of(name, rules[name])[1])
        frame = frame.with_columns(found.alias(f"{name}.detail"))

    scored = pl.col(weight_by).cast(pl.Float32) if weight_by else pl.lit(None, pl.Float32)
    facts_of = ("id", "modality", "duration", "num_images", "num_turns", "num_bytes")
    verdicts = frame.select(*facts_of, "defect", "detail", tags="all_tags", weight=scored)
    if fires:
        fired = frame.lazy().select(**fires).collect()
        beyond = {name: e for name, e in rejects.items() if e is not fires[name]}
        hopeless = frame.lazy().select(**beyond).collect() if beyond else pl.DataFrame()
        goes = [hopeless[name] if name in beyond else fired[name] for name in rejects]
        verdicts = verdicts.with_columns(
            rule=pl.coalesce("defect", _names_of_true(goes).list.first()) if goes else "defect",
            fired=pl.concat_list("defect", _names_of_true(fired.get_columns())),
        )
    else:
        verdicts = verdicts.with_columns(rule="defect", fired=pl.concat_list("defect"))
    told = [frame[f"{name}.detail"] for name in details]
    of_reason = [pl.when(pl.col("rule") == name).then(frame[f"{name}.detail"]) for name in details]
    nothing = pl.lit(None, pl.String)
    verdicts = verdicts.with_columns(
        pl.col("fired").list.drop_nulls(),
        detail=pl.when(pl.col("defect").is_null())
        .then(pl.coalesce(*of_reason, *told, nothing))
        .otherwise("detail"),
    ).drop("defect")

    columns = {
        column: make(frame)
        for column, (_, make) in hashes.FROM_FACTS.items()
        if column in needs or column in hashes.ALWAYS
    }
    for name, given in rules.items():
        score = RULES[name].score
        if score is not None and RULES[name].scope == "mixture":
            own = settings_of(name, given)[1]
            column = RULES[name].needs(**own)[0]
            columns[column] = pl.Series(column, score(samples, **own), dtype=pl.Binary)
    if "bytes_hash" in needs:
        columns["bytes_hash"] = hashes.bytes_hash(samples)
    columns |= {f"{fact}{VALUE}": frame[fact].cast(pl.Float64) for fact in values}
    absent = [field.name for field in VERDICTS if field.name not in {*verdicts.columns, *columns}]
    table = verdicts.with_columns(**columns).to_arrow()
    for name in absent:
        table = table.append_column(name, pa.nulls(len(table), VERDICTS.field(name).type))
    written = verdict_columns(rules)
    return table.select(written.names).cast(written)


def rewriting(rules: Rules) -> dict[str, Mapping[str, Any]]:
    """Those of `rules` that rewrite samples: their identity belongs to that of the tokens."""
    return {n: given or {} for n, given in rules.items() if settings_of(n, given)[0] == "rewrite"}


def seconds_per_sample(samples: pa.Table, *, rules: Rules) -> dict[str, float]:
    """Rule -> CPU seconds that it adds to judging one of `samples`, measured here and now.

    A rule's facts count for each rule that reads them; what every verdict needs counts for none.
    """
    seconds = {}
    judge(samples, rules=rules)  # loads models and lists
    for names in [(), *((n,) for n in rules if RULES[n].scope != "index")]:
        start = time.process_time()
        judge(samples, rules={name: rules[name] for name in names})
        seconds["".join(names)] = (time.process_time() - start) / max(len(samples), 1)
    nothing = seconds.pop("")
    return {name: max(0.0, spent - nothing) for name, spent in seconds.items()}


def rewrite(samples: pa.Table, *, rules: Rules) -> pa.Table:
    """The samples as rules of `mode: rewrite` leave them: same rows, same order, same images.

    What becomes tokens; verdicts are of the samples as they came. Without such a rule: `samples`.
    """
    for name, given in rules.items():
        mode, own = settings_of(name, given)
        repair = RULES[name].rewrite
        if mode == "rewrite" and repair is not None:
            samples = repair(samples, **own)
    return samples


def validate_weight(
    weight_by: str, *, rules: Rules, where: str, annotated: Iterable[str] = ()
) -> None:
    """`weight_by` names a fact, an annotated one, or a score of `rules`; else ValueError."""
    scores = (f"{name}.score" for name in rules if RULES[name].score)
    known = [*FACTS, *annotated, *scores]
    if weight_by and weight_by not in known:
        raise ValueError(
            f"{where}: unknown fact {weight_by!r} in weight_by. {did_you_mean(weight_by, known)}"
        )
