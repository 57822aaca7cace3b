"""Optional components that are not there give their share to those they name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixtures.config import Component, Limit, Mixture
from mixtures.mixture_file import load
from mixtures.optional import differences, without
from tokenization.schema import Encoding


def mixture(**more: Component) -> Mixture:
    components = {
        "a": Component(source="cauldron", ratio=0.5),
        "b": Component(source="cauldron", ratio=0.3),
        "c": Component(source="cauldron", ratio=0.2, optional=True, instead=["a", "b"]),
        **more,
    }
    limits = {"most": Limit(max_ratio=0.1, component="c")}
    return Mixture(name="made", components=components, limits=limits)


def test_a_share_goes_to_its_heirs_by_their_ratios():
    made, left = without(mixture(), {"c": "its videos are away"})
    assert {name: c.ratio for name, c in made.components.items()} == pytest.approx(
        {"a": 0.5 + 0.2 * 5 / 8, "b": 0.3 + 0.2 * 3 / 8}
    )
    assert made.limits == {}, "a limit on a component that is not there"
    assert left[0].given == pytest.approx({"a": 0.125, "b": 0.075})
    assert left[0].sentence == (
        "c (optional, 20 %) is left out: its videos are away. "
        "Its share goes to a (+12.5 points), b (+7.5 points)."
    )
    assert differences(made, mixture()) == {
        "a": (0.5, pytest.approx(0.625)),
        "b": (0.3, pytest.approx(0.375)),
        "c": (0.2, 0.0),
    }


def test_nothing_absent_changes_nothing():
    assert without(mixture(), {}) == (mixture(), [])


def test_heirs_that_are_absent_too_are_passed_over_and_none_left_is_said():
    more = Component(source="cauldron", ratio=0.1, optional=True, instead=["c", "a"])
    made, left = without(mixture(d=more), {"c": "x", "d": "y"})
    assert left[1].given == {"a": pytest.approx(0.1)}
    assert set(made.components) == {"a", "b"}
    alone = Component(source="cauldron", ratio=0.1, optional=True, instead=["c"])
    with pytest.raises(ValueError, match=r"neither can c, to which components\.d\.instead"):
        without(mixture(d=alone), {"c": "x", "d": "y"})


@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=6), st.data())
def test_shares_sum_to_what_they_were(ratios, data):
    names = [f"n{i}" for i in range(len(ratios))]
    components = {
        name: Component(source="cauldron", ratio=r, optional=i > 0, instead=[names[0]])
        for i, (name, r) in enumerate(zip(names, ratios, strict=True))
    }
    absent = data.draw(st.sets(st.sampled_from(names[1:])))
    made, left = without(Mixture(name="made", components=components), dict.fromkeys(absent, "away"))
    assert sum(c.ratio for c in made.components.values()) == pytest.approx(sum(ratios))
    assert {one.component for one in left} == absent == set(names) - set(made.components)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("optional: true", "instead is empty"),
        ("optional: true, instead: [nobody]", "'nobody'"),
        ("optional: true, instead: [a]", "other components"),
    ],
)
def test_a_mistake_in_an_optional_component_is_said(tmp_path, settings, said):
    file = tmp_path / "m.yaml"
    file.write_text(
        f"components:\n  a: {{source: cauldron, ratio: 0.5, {settings}}}\n"
        "  b: {source: cauldron, ratio: 0.5}\n"
    )
    with pytest.raises(ValueError, match=said):
        load(str(file), encoding=Encoding)


def test_a_component_of_ratio_0_is_no_heir(tmp_path):
    file = tmp_path / "m.yaml"
    file.write_text("base: sft_v2\ncomponents:\n  video_vista: {ratio: 0}\n")
    with pytest.raises(ValueError, match=r"components\.video_star\.instead is empty"):
        load(str(file), encoding=Encoding)
