r"""Judging: SAMPLE in, VERDICTS out, row for row.

    SAMPLE --facts--> columns --one select over all rules--> rule (the first), fired (all)
                         \--hashes--> what mixture-level rules compare

A defect of ingest always rejects and is the reason, before any rule. Rows in = rows out.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl
import pyarrow as pa

from filters import hashes
from filters.facts import VERDICTS, facts
from filters.rules import RULES, settings_of

Rules = Mapping[str, Mapping[str, Any] | None]

_ALWAYS = {"modality", "num_images", "num_turns", "num_bytes", "tags"}


def expressions(rules: Rules) -> dict[str, tuple[str, pl.Expr]]:
    """Rule -> (mode, expression that is true where it fires), of the per-sample rules, in order.

    Where an expression is null (a fact that the sample does not have) the rule does not fire.
    """
    made = {}
    for name, given in rules.items():
        if RULES[name].scope == "sample":
            mode, own = settings_of(name, given)
            made[name] = (mode, RULES[name].function(**own).fill_null(value=False))
    return made


def _scores(samples: pa.Table, rules: Rules) -> dict[str, pl.Series]:
    """Column "RULE.score" -> float per sample, of the model-scored rules."""
    made = {}
    for name, given in rules.items():
        score = RULES[name].score
        if score is not None:
            made[f"{name}.score"] = pl.Series(score(samples, **settings_of(name, given)[1]))
    return made


def _needs(rules: Rules) -> set[str]:
    return {
        column
        for name, given in rules.items()
        for column in RULES[name].needs(**settings_of(name, given)[1])
    }


def judge(samples: pa.Table, *, rules: Rules, weight_by: str = "") -> pa.Table:
    """VERDICTS of `samples`: same rows, same order; every rule that fires is in `fired`.

    `rule` is the sample's defect, else the first rule in the order of `rules` whose mode is `drop`,
    else null. `weight_by` names a fact (or "RULE.score") that is written to `weight`. Mixture-level
    rules are not applied here: their hashes are filled in for `mixture_rules`.
    """
    made = expressions(rules)
    scores = _scores(samples, rules)
    needs = _needs(rules)
    read = {name for _, expression in made.values() for name in expression.meta.root_names()}
    read |= {hashes.FROM_FACTS[column][0] for column in needs if column in hashes.FROM_FACTS}
    read |= _ALWAYS | ({weight_by} if weight_by else set())
    frame = facts(samples, names=read - set(scores)).with_columns(**scores)

    fires = [
        pl.when(expression).then(pl.lit(name)).otherwise(pl.lit(None, pl.String)).alias(name)
        for name, (_, expression) in made.items()
    ]
    fired = pl.concat_list(pl.col("defect"), *made).list.drop_nulls()
    rejecting = [name for name, (mode, _) in made.items() if mode == "drop"]
    verdicts = frame.lazy().with_columns(*fires).select(
        "id", "modality", "duration", "num_images", "num_turns", "num_bytes", "tags",
        rule=pl.coalesce("defect", *rejecting),
        fired=fired,
        detail=pl.lit(None, pl.String),
        weight=pl.col(weight_by).cast(pl.Float32) if weight_by else pl.lit(None, pl.Float32),
    ).collect()  # fmt: skip

    columns = {
        column: make(frame) for column, (_, make) in hashes.FROM_FACTS.items() if column in needs
    }
    if "bytes_hash" in needs:
        columns["bytes_hash"] = hashes.bytes_hash(samples)
    absent = [field.name for field in VERDICTS if field.name not in {*verdicts.columns, *columns}]
    table = verdicts.with_columns(**columns).to_arrow()
    for name in absent:
        table = table.append_column(name, pa.nulls(len(table), VERDICTS.field(name).type))
    return table.select(VERDICTS.names).cast(VERDICTS)
