"""What is said of components is of some that there are, and once."""

from collections.abc import Mapping, Sequence
from typing import Any


def require_names(
    prior: Mapping[str, float],
    *,
    bounds: Mapping[str, Any],
    groups: Sequence[Any],
    fixed: Mapping[str, float],
) -> None:
    """Raises ValueError where what is said of components is of none, or says two things of one."""
    for group in groups:
        if not isinstance(group, list) or not group:
            raise ValueError(f"search: groups holds {group!r}; expected lists of components.")
    named = [*bounds, *fixed, *(name for group in groups for name in group)]
    for name in named:
        if name not in prior:
            raise ValueError(
                f"search: the mixture has no component {name!r}; expected {', '.join(prior)}."
            )
    grouped = [name for group in groups for name in group]
    twice = [name for name in prior if [*fixed, *grouped].count(name) > 1]
    if twice:
        raise ValueError(f"search: {twice[0]} is in two groups, or fixed and in a group.")
    for name, pair in bounds.items():
        right = isinstance(pair, list | tuple) and len(pair) == 2 and all(map(_is_number, pair))
        if not right or not 0 <= pair[0] <= pair[1] <= 1:
            raise ValueError(f"search: bounds.{name} is {pair}; expected [least, most], 0 to 1.")
        if name in fixed:
            raise ValueError(f"search: {name} is fixed and has bounds; state one of the two.")
    whole = sum(fixed.values())
    if min(fixed.values(), default=0) < 0 or whole >= 1:
        raise ValueError(
            f"search: fixed is {dict(fixed)}, together {whole:g}; expected ratios from 0 that "
            "leave something of 1 to choose."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
