"""What `exact` gives is what OmegaConf gives; what it refuses is left to OmegaConf."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from mixtures.exact import NotExactError, exact


@dataclass(frozen=True, kw_only=True)
class Inner:
    share: float = 0.5
    number: int | None = None
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True, kw_only=True)
class Outer:
    needed: str
    many: int | str = "max"
    flag: bool = False
    free: dict[str, Any] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)
    over: Inner = field(default_factory=lambda: Inner(share=0.1))
    maybe: Inner | None = None
    named: dict[str, Inner] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)
    pairs: list[list[float]] = field(default_factory=list)
    words: list[str] = field(default_factory=lambda: ["x", "y"])


def by_omegaconf(raw: dict[str, Any]) -> Any:
    return OmegaConf.to_object(
        OmegaConf.unsafe_merge(OmegaConf.structured(Outer), OmegaConf.create(raw))
    )


LEAF = st.sampled_from([None, True, 0, 1, 3, 0.5, 2.0, "", "3", "a", "true", "max", "what???"])
ODD = LEAF | st.sampled_from(["???", "${many}", {}, []])
INNER = st.dictionaries(st.sampled_from(["share", "number", "kind", "other"]), LEAF, max_size=3)
RIGHT = st.fixed_dictionaries(
    {"needed": st.sampled_from(["", "n", "1"])},
    optional={
        "many": st.sampled_from([1, "max", "7"]),
        "flag": st.booleans(),
        "free": st.dictionaries(st.sampled_from(["p", "q"]), LEAF | INNER | st.lists(LEAF)),
        "inner": INNER,
        "over": INNER,
        "maybe": st.none() | INNER,
        "named": st.dictionaries(st.sampled_from(["p", "q"]), INNER, max_size=2),
        "counts": st.dictionaries(st.integers(0, 3), st.integers(0, 3), max_size=2),
        "pairs": st.lists(st.lists(st.sampled_from([0, 1, 0.25]), max_size=2), max_size=2),
        "words": st.lists(st.sampled_from(["w", "3"]), max_size=2),
    },
)
KEYS = [*Outer.__dataclass_fields__, "unknown"]


@settings(max_examples=60)
@given(right=RIGHT, odd=st.dictionaries(st.sampled_from(KEYS), ODD, max_size=1))
def test_it_is_what_omegaconf_gives(right, odd):
    raw = right | odd
    try:
        found = exact(raw, Outer)
    except NotExactError:
        return
    expected = by_omegaconf(raw)
    assert repr(found) == repr(expected)  # 1 and 1.0 and True are equal


def test_what_is_stated_right_needs_no_omegaconf():
    raw = {
        "needed": "n", "many": 3, "free": {"p": [1, {"q": None}]}, "inner": {"share": 1},
        "maybe": None, "named": {"p": {"kind": "b"}}, "counts": {1: 2}, "pairs": [[0, 0.5]],
        "words": [],
    }  # fmt: skip
    assert repr(exact(raw, Outer)) == repr(by_omegaconf(raw))


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"needed": None},
        {"needed": "???"},
        {"needed": "${many}"},
        {"needed": "n", "unknown": 1},
        {"needed": "n", "flag": 1},
        {"needed": "n", "inner": {"number": True}},
        {"needed": "n", "inner": {"kind": "c"}},
        {"needed": "n", "over": {"number": 1}},
        {"needed": "n", "counts": {"1": 2}},
        {"needed": "n", "inner": {"share": 10**400}},
    ],
)
def test_everything_else_is_refused(raw):
    with pytest.raises(NotExactError):
        exact(raw, Outer)
