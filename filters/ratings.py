"""Rules about ratings per turn: relevance, image correspondence, visual dependency, formatting.

FineVision found that training on all its turns beat every threshold on these four
(https://arxiv.org/abs/2510.17269), so nothing is dropped unless a mixture asks. `mode: rewrite`
drops the low turns and keeps the sample; `mode: mark` only counts; `weight_by: relevance_mean` lets
a rating weigh the chance of being picked instead. Of whole samples, `relevance_mean` and the like
are facts for the rules of bounds.py.
"""

from typing import Any, Literal

import polars as pl
import pyarrow as pa

from filters.facts import RATED
from filters.rules import rule


def _low(minimum: dict[str, int]) -> pl.Expr:
    """Of an element of `ratings`: a rating is below its minimum (an absent one never is)."""
    rating = pl.element().struct
    return pl.any_horizontal(
        [(rating.field(name) < least).fill_null(value=False) for name, least in minimum.items()]
    )


def _minimum(settings: dict[str, Any]) -> dict[str, int]:
    return {name: settings[f"min_{name}"] for name in RATED}


def _all_low(**settings: Any) -> pl.Expr:
    return low_rating(**settings | {"turns": "all"})


def without_low_turns(samples: pa.Table, **settings: Any) -> pa.Table:
    """The samples without their low turns, if another is left; rows stay as they are.

    A turn is a user's message and the answer after it. The images of a dropped turn belong to the
    conversation: their places move to the next question that stays, or else to the last one.
    """
    frame = pl.DataFrame(pl.from_arrow(samples.select(["messages", "ratings"])))
    minimum = _minimum(settings)
    low = frame.select(pl.col("ratings").list.eval(_low(minimum)))["ratings"].to_list()
    messages, ratings = samples["messages"].to_pylist(), samples["ratings"].to_pylist()
    for n, lows in enumerate(low):
        if lows and any(lows) and not all(lows):
            messages[n] = _keep_turns(messages[n], [not is_low for is_low in lows])
            ratings[n] = [r for r, is_low in zip(ratings[n], lows, strict=True) if not is_low]
    for name, column in (("messages", messages), ("ratings", ratings)):
        position = samples.schema.get_field_index(name)
        field = samples.schema.field(name)
        samples = samples.set_column(position, field, pa.array(column, field.type))
    return samples


def _keep_turns(messages: list[dict[str, Any]], keep: list[bool]) -> list[dict[str, Any]]:
    """The messages of the turns to keep, and of none in particular (a system's)."""
    kept: list[dict[str, Any]] = []
    waiting: list[dict[str, Any]] = []  # places of images whose question is gone
    turn = 0
    for message in messages:
        stays = turn >= len(keep) or keep[turn]
        if message["role"] == "assistant":
            turn += 1
        if message["role"] == "user" and not stays:
            waiting += [part for part in message["content"] if part["type"] == "image"]
        elif message["role"] == "user":
            kept.append(message | {"content": [*waiting, *message["content"]]})
            waiting = []
        elif message["role"] not in ("assistant", "rejected") or stays:
            kept.append(message)
    if waiting:
        last = max(n for n, message in enumerate(kept) if message["role"] == "user")
        kept[last] = kept[last] | {"content": [*kept[last]["content"], *waiting]}
    return kept


@rule(rewrite=without_low_turns, hopeless=_all_low)
def low_rating(
    *, min_relevance: int = 1, min_image_correspondence: int = 1, min_visual_dependency: int = 1,
    min_formatting: int = 1, turns: Literal["any", "all"] = "any",
) -> pl.Expr:  # fmt: skip
    """A turn (or, with `turns: all`, every turn) is rated below a minimum.

    Ratings run from 1 to 5; a turn without ratings is not low. With `mode: rewrite` the low turns
    are dropped, and the sample only if no other is left.
    """
    minimum = _minimum(locals())
    low = pl.col("ratings").list.eval(_low(minimum))
    some = pl.col("ratings").list.len() > 0
    return some & (low.list.any() if turns == "any" else low.list.all())
