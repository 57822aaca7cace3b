"""A space of stages: bounds hold in each, supply over the whole; what is written of a schedule."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixtures.schedule import mean
from trainer.search.earlier import as_points
from trainer.search.methods import bayes, regression
from trainer.search.mixing import stated
from trainer.search.models import effects, fit_linear
from trainer.search.space import Space, space_of

PRIOR = {"a": 0.4, "b": 0.3, "noise": 0.3}
FREE: dict = {"bounds": {}, "groups": [], "fixed": {}, "most": {}}


@st.composite
def spaces(draw) -> Space:
    """Of two or three stages, whose supply binds, some of it to the last."""
    names = [f"c{n}" for n in range(draw(st.integers(2, 5)))]
    amounts = draw(st.lists(st.integers(1, 20), min_size=len(names), max_size=len(names)))
    prior = {n: a / sum(amounts) for n, a in zip(names, amounts, strict=True)}
    part = st.floats(0, 1)
    most = {n: own + (1 - own) * draw(part) * draw(part) for n, own in prior.items()}
    bounds = {
        n: [own * draw(part), own + (1 - own) * (0.1 + 0.9 * draw(part))]
        for n, own in prior.items()
    }
    stages = draw(st.integers(2, 3))
    return space_of(prior, **FREE | {"bounds": bounds, "most": most}, stages=stages)


@given(spaces(), st.integers(0, 99))
def test_every_stage_keeps_its_bounds_and_the_whole_its_supply(made: Space, seed: int) -> None:
    random = np.random.default_rng(seed)
    for point in [*made.design(3, random=random), *made.wide(3, random=random)]:
        stages = point.reshape(made.stages, -1)
        assert stages.sum(axis=1) == pytest.approx(np.ones(made.stages))
        assert (stages >= made.low - 1e-9).all()
        assert (stages <= made.high + 1e-9).all()
        assert (stages.mean(axis=0) <= made.most + 1e-9).all()
        ratios = made.ratios(point)
        for stage in range(made.stages):
            whole = sum(ratios[name][stage] for name in made.order)  # type: ignore[index]
            assert whole == pytest.approx(1, abs=1e-9)
    prior = made.held(made.prior)
    assert prior == pytest.approx(np.tile(made.prior, made.stages))
    assert made.nearest(prior) == pytest.approx(prior)


@given(spaces())
def test_the_first_designs_are_the_same_however_many(made: Space) -> None:
    few, many = (made.design(n, random=np.random.default_rng(3)) for n in (4, 9))
    assert (few == many[:4]).all()


def test_designs_differ_between_stages_where_supply_leaves_them_no_more_than_their_mean() -> None:
    made = space_of({"a": 0.5, "b": 0.5}, **FREE | {"most": {"a": 0.5, "b": 0.5}}, stages=2)
    points = made.design(9, random=np.random.default_rng(1)).reshape(9, 2, 2)
    assert points.mean(axis=1) == pytest.approx(np.full((9, 2), 0.5))
    assert np.ptp(points[:, :, 0], axis=1).max() > 0.3


@pytest.mark.parametrize(
    ("method", "stages"),
    [(regression, 2), (regression, 3), pytest.param(bayes, 2, marks=pytest.mark.slow)],
)
def test_what_is_better_late_is_put_late(method, stages: int) -> None:
    """A component that is good in the last stage alone, and noise that never is."""
    made = space_of(PRIOR, **FREE, stages=stages)

    def loss(point: np.ndarray) -> float:
        first, *_, last = point.reshape(stages, -1)
        return float(3 - 0.2 * np.log(first[0] + 0.02) - 0.2 * np.log(last[1] + 0.02))

    found = method(
        made, loss, runs=24, random=np.random.default_rng(5),
        earlier=as_points(made, [], list(PRIOR)),
    )  # fmt: skip
    first, *_, last = found.best.reshape(stages, -1)
    assert first[0] > 0.6
    assert last[1] > 0.6
    assert max(first[2], last[2]) < 0.15
    assert loss(found.best) < loss(made.held(made.prior)) - 0.1


def test_a_schedule_is_steps_and_one_that_stays_a_number() -> None:
    assert stated(0.25) == stated([0.25, 0.25]) == 0.25
    points = stated([0.2, 0.5, 0.2])
    assert points == [[0.0, 0.2], [0.333333, 0.2], [0.333333, 0.5], [0.666667, 0.5],
                      [0.666667, 0.2], [1.0, 0.2]]  # fmt: skip
    assert mean(points) == pytest.approx(0.3, abs=1e-6)  # type: ignore[arg-type]


def test_runs_whose_ratios_stay_are_points_of_every_number_of_stages() -> None:
    made = space_of({"a": 0.5, "b": 0.5}, **FREE, stages=2)
    rows = [
        ({"a": 0.3, "b": 0.3, "old (was)": 0.4}, 2.0),
        ({"a": [0.2, 0.6], "b": [0.8, 0.4]}, 3.0),
        ({"a": [0.1, 0.1, 0.2], "b": [0.9, 0.9, 0.8]}, 4.0),  # of three stages
    ]
    found = as_points(made, rows, ["a", "b"])
    assert found.losses.tolist() == [2.0, 3.0]
    assert found.points.tolist() == [[0.3, 0.3, 0.3, 0.3, 0.4, 0.4], [0.2, 0.8, 0.6, 0.4, 0, 0]]
    assert found.padded(made.held(made.prior)[None]).shape == (1, 6)
    constant = space_of({"a": 0.5, "b": 0.5}, **FREE)
    assert as_points(constant, rows, ["a", "b"]).losses.tolist() == [2.0]


def test_an_effect_is_of_one_stage() -> None:
    made = space_of(PRIOR, **FREE, stages=2)
    random = np.random.default_rng(2)
    points = made.design(40, random=random)
    losses = np.exp(1 - 0.3 * np.log(points[:, 4] + 0.02))  # b in the second stage
    found = effects(fit_linear(points, losses, random=random), made.held(made.prior), groups=3)
    assert made.names[4] == "b, stage 2"
    assert found[4][0] == min(change for change, _ in found) < -0.1
    assert abs(found[0][0]) < 0.02


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bounds": {"a": [0.4, 0.4], "b": [0.3, 0.3]}}, "leave one mixture alone"),
        ({"most": PRIOR}, "leave one mixture alone"),
        ({"fixed": {"a": 1.0}}, "leave something of 1"),
        ({"fixed": {"a": -0.1}}, "expected ratios from 0"),
        ({"groups": ["ab"]}, "expected lists of components"),
        ({"bounds": {"a": ["low", "high"]}}, "expected .least, most., 0 to 1"),
    ],
)
def test_what_leaves_nothing_to_choose_is_said(changes: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        space_of(PRIOR, **FREE | changes)
