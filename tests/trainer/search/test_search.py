"""The search finds what is planted in known losses, keeps all bounds and says mistakes."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.pipelines.sources.making import write_lines
from trainer.__main__ import main
from trainer.search.bench import require_finite
from trainer.search.command import settings_of
from trainer.search.earlier import Earlier
from trainer.search.methods import bayes, merged, regression, require_varying
from trainer.search.mixing import Kitchen
from trainer.search.models import expected_improvement, fit_gaussian, fit_linear
from trainer.search.page import conclusion
from trainer.search.space import Space, space_of
from trainer.search.target import target_of
from trainer.search.verification import compared

PRIOR = {"a": 0.4, "b": 0.3, "noise": 0.3}
FREE: dict = {"bounds": {}, "groups": [], "fixed": {}, "most": {}}


def space(**changes) -> Space:
    return space_of(PRIOR, **(FREE | changes))


def planted(point: np.ndarray) -> float:
    """Best at a: 2/3, b: 1/3 of what is not noise."""
    a, b, _ = point
    return float(3 - 0.2 * np.log(a + 0.02) - 0.1 * np.log(b + 0.02))


@st.composite
def spaces(draw) -> Space:
    names = [f"c{n}" for n in range(draw(st.integers(2, 6)))]
    amounts = draw(st.lists(st.integers(1, 20), min_size=len(names), max_size=len(names)))
    prior = {n: a / sum(amounts) for n, a in zip(names, amounts, strict=True)}
    part = st.floats(0, 1)
    bounds = {
        n: [own * draw(part), own + (1 - own) * draw(part)]
        for n, own in prior.items()
        if draw(st.booleans())
    }
    return space_of(prior, **(FREE | {"bounds": bounds}))


@given(spaces(), st.integers(0, 99))
def test_every_point_keeps_its_bounds_and_ratios_sum_to_one(made: Space, seed: int) -> None:
    for point in made.design(5, random=np.random.default_rng(seed)):
        assert point.sum() == pytest.approx(1)
        assert (point >= made.low - 1e-9).all()
        assert (point <= made.high + 1e-9).all()
        ratios = made.ratios(point)
        assert sum(ratios.values()) == pytest.approx(1, abs=1e-9)
        assert min(ratios.values()) >= -1e-9


def test_groups_stay_together_and_the_fixed_stay() -> None:
    made = space_of({"a": 0.2, "b": 0.4, "c": 0.1, "d": 0.3}, bounds={}, most={},
                    groups=[["a", "b"]], fixed={"c": 0.1})  # fmt: skip
    assert made.names == ["a + b", "d"]
    for point in made.design(4, random=np.random.default_rng(0)):
        ratios = made.ratios(point)
        assert ratios["c"] == 0.1
        assert ratios["b"] == pytest.approx(2 * ratios["a"], abs=1e-5)
        assert list(ratios) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bounds": {"nois": [0, 1]}}, "no component 'nois'"),
        ({"bounds": {"a": [0.6, 0.4]}}, r"bounds.a is \[0.6, 0.4\]"),
        ({"bounds": {"a": [0.6, 1], "b": [0.6, 1]}}, "bounds contradict: together"),
        ({"bounds": {"a": [0, 0.2], "b": [0, 0.2], "noise": [0, 0.2]}}, "are 0 to 0.6"),
        ({"bounds": {"a": [0.5, 1]}, "most": {"a": 0.3}}, "at most 0.3 .its supply"),
        ({"most": {"a": 0.3, "b": 0.3, "noise": 0.3}}, "raise max_epochs where supply binds"),
        ({"fixed": {"a": 0.4, "b": 0.3}}, "nothing to choose"),
        ({"fixed": {"a": 0.4}, "groups": [["a", "b"]]}, "a is in two groups, or fixed"),
    ],
)
def test_contradictions_are_said(changes, said) -> None:
    with pytest.raises(ValueError, match=said):
        space(**changes)


@pytest.mark.parametrize("method", [regression, bayes, merged])
@pytest.mark.parametrize("seed", [1, 2])
def test_planted_noise_goes_and_the_rest_is_shared_out(method, seed) -> None:
    tried = []

    def evaluate(point: np.ndarray) -> float:
        tried.append(point)
        return planted(point)

    made = space()
    more = {} if method is merged else {"runs": 16, "earlier": Earlier.none(made)}
    found = method(made, evaluate, **more, random=np.random.default_rng(seed))
    a, _, noise = found.best
    assert noise < 0.05
    assert a == pytest.approx(2 / 3, abs=0.13)
    assert planted(found.best) < planted(made.prior) - 0.05
    assert found.model.rank_correlation > 0.9
    assert len(found.points) == len(tried) == (12 if method is merged else 16)
    again = method(made, planted, **more, random=np.random.default_rng(seed))
    assert (again.best == found.best).all()


def test_a_search_that_goes_on_takes_the_same_way() -> None:
    known: dict[bytes, float] = {}
    trained = []

    def evaluate(point: np.ndarray) -> float:
        if point.tobytes() not in known:
            if len(known) == 9 and len(trained) < 10:
                trained.append(-1)
                raise KeyboardInterrupt
            trained.append(len(trained))
            known[point.tobytes()] = planted(point)
        return known[point.tobytes()]

    more = {"runs": 14, "earlier": Earlier.none(space())}
    with pytest.raises(KeyboardInterrupt):
        bayes(space(), evaluate, **more, random=np.random.default_rng(3))
    found = bayes(space(), evaluate, **more, random=np.random.default_rng(3))
    whole = bayes(space(), planted, **more, random=np.random.default_rng(3))
    assert (found.points == whole.points).all()
    assert len(trained) == 15


def test_models_know_how_sure_they_are() -> None:
    random = np.random.default_rng(0)
    points = space().design(20, random=random)
    losses = np.array([planted(p) for p in points])
    noisy = losses * np.exp(0.02 * random.standard_normal(20))
    for fit in (lambda y: fit_linear(points, y, random=random), lambda y: fit_gaussian(points, y)):
        sharp, blurred = fit(losses), fit(noisy)
        assert sharp.error < 0.005 < blurred.error
        at = points[:5]
        assert sharp.predict(at)[1].mean() < blurred.predict(at)[1].mean()
        assert np.exp(sharp.predict(at)[0]) == pytest.approx(losses[:5], rel=0.01)
    assert expected_improvement(np.array([0.0, 1.0]), np.array([1e-9, 1e-9]), 0.5) == pytest.approx(
        [0.5, 0], abs=1e-6
    )


def test_a_target_that_is_the_same_everywhere_is_said() -> None:
    calls = []

    def constant(point: np.ndarray) -> float:
        calls.append(point)
        return 2.5

    with pytest.raises(ValueError, match=r"the target is 2.5 in all of 12 runs"):
        regression(
            space(),
            constant,
            runs=12,
            random=np.random.default_rng(0),
            earlier=Earlier.none(space()),
        )
    assert len(calls) == 12
    require_varying(np.array([1.0, 1.1]))


def test_a_difference_is_shown_only_beyond_the_spread_of_seeds() -> None:
    prior = [2.0, 2.1, 1.9, 2.05, 1.95]

    def beside(ours: list[float], theirs: list[float] = prior) -> dict:
        return compared(dict(enumerate(ours)), dict(enumerate(theirs)))

    assert beside([1.8, 1.9, 1.7, 1.85, 1.76])["verdict"] == "better"
    assert beside([2.3, 2.4, 2.21, 2.3, 2.2])["verdict"] == "worse"
    assert beside([2.1, 1.9, 2.0, 1.9, 2.1])["verdict"] == "not shown"
    assert beside(prior)["interval"] is None
    moved = beside([one - 0.1 for one in prior])
    assert (moved["verdict"], moved["interval"]) == ("not shown", None)
    assert beside([1.8], [2.0])["verdict"] == "not shown"
    for odd in (math.nan, math.inf):
        found = beside([*prior[:4], odd])
        assert found["verdict"] == "not finite"
        assert found["difference"] is found["mean"] is found["interval"] is None
        verified = {"proposal": found | {"targets": prior}, "prior": beside(prior)}
        assert "(not finite)" in conclusion({"verified": verified})
        with pytest.raises(ArithmeticError, match="training diverged"):
            require_finite(odd, "ab12")
    losses = {"component/a": 1.0, "component/b": 4.0}
    assert target_of(losses, {"a": 2, "b": 1}, {}) == 2.0
    assert target_of(losses, {"a": 2, "vqa": 2}, {"vqa": 0.25}) == 0.875


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({}, "mixture is not set"),
        ({"mixture": "m.yaml"}, "target is not set"),
        ({"mixture": "m.yaml", "target": "{a: lots}"}, "expected {COMPONENT: weight}"),
        ({"mixture": "m.yaml", "target": "{a: 0}"}, "weights above 0"),
        ({"mixture": "m.yaml", "target": "a", "runs": "2"}, "4 at least"),
        ({"mixture": "m.yaml", "target": "a", "method": "magic"}, "expected regression, bayes"),
        ({"mixture": "m.yaml", "target": "a", "rnus": "9"}, "Did you mean 'runs'"),
        (
            {"mixture": "m.yaml", "target": "a", "train.seed": "3"},
            "itself sets 'train.seed'. Leave",
        ),
        ({"mixture": "m.yaml", "target": "a", "train.data": "x"}, "itself sets 'train.data'"),
        ({"mixture": "m.yaml", "target": "a", "train.output": "x"}, "itself sets 'train.output'"),
    ],
)
def test_mistakes_in_the_words_are_said(words, said) -> None:
    with pytest.raises(ValueError, match=said):
        settings_of(words)


def test_words_become_settings() -> None:
    words = {
        "mixture": "m.yaml",
        "target": "a",
        "train_tokens": "1_000_000",
        "tokens": "50_000",
        "train.batch_rows": "2",
        "components.a.max_epochs": "4",
        "bounds": "{b: [0, .2]}",
    }
    made = settings_of(words)
    assert (made.runs, made.tokens, made.target) == (20, 50_000, {"a": 1.0})
    assert made.settings == {"batch_rows": "2"}
    assert made.overrides == ("components.a.max_epochs=4",)
    assert made.bounds == {"b": [0, 0.2]}


MIXTURE = """
encoding: {tokenizer: builtin, seq_len: 128, crop_size: 64, tokens_per_crop: 16, max_crops: 16,
           longest_edge: 64, system_prompts: none}
components:
  a: {source: messages, data: DIR/a.jsonl, ratio: 0.5}
  b: {source: messages, data: DIR/b.jsonl, ratio: 0.5, max_epochs: 2}
"""
MORE = MIXTURE.replace("0.5", "0.4") + "  c: {source: messages, data: DIR/c.jsonl, ratio: 0.2}\n"


def search(mixture: Path, work: Path, **words: str) -> dict:
    """Its result."""
    out = work.parent / words["method"]
    given = {"target": "{a: 1, b: 2}", "runs": "4", "seeds": "0", "tokens": "1000",
             "output": str(out), "work": str(work),
             "trials": str(work.parent / "trials"), "workers": "0", "bounds": "{a: [0.2, 0.8]}",
             "train.batch_rows": "1", "train.micro_rows": "1"} | words  # fmt: skip
    assert main(["search", str(mixture), *(f"{k}={v}" for k, v in given.items())]) == 0
    return json.loads((out / "result.json").read_text())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_small_searches_share_runs_and_end_with_mixtures_that_can_be_built(tmp_path: Path) -> None:
    for name in "abc":
        rows = []
        for n in range(200):
            asked = {"role": "user", "content": f"Say {name} {n}."}
            told = {"role": "assistant", "content": f"{name} {n} {n % 7}"}
            rows.append({"messages": [asked, told]})
        write_lines(tmp_path / f"{name}.jsonl", rows)
    mixture, work = tmp_path / "m.yaml", tmp_path / "work"
    mixture.write_text(MIXTURE.replace("DIR", str(tmp_path)))
    result = search(mixture, work, method="regression", seeds="2")
    out = tmp_path / "regression"
    before = (out / "result.json").read_bytes()
    assert sum(result["proposal"].values()) == pytest.approx(1)
    assert 0.2 <= result["proposal"]["a"] <= 0.8
    assert set(result["verified"]) == {"proposal", "prior", "uniform", "supply"}
    assert "<h1>Search of ratios" in (out / "page.html").read_text()
    trained = {
        folder: folder.stat().st_mtime_ns
        for folder in (tmp_path / "trials" / "runs").glob("*/run.json")
    }
    search(mixture, work, method="regression", seeds="2")
    assert (out / "result.json").read_bytes() == before
    merge = search(mixture, work, method="merge")
    assert merge["search_cost"]["runs"] == 3

    mixture.write_text(MORE.replace("DIR", str(tmp_path)))  # a component is added
    wider = search(mixture, work, method="regression")
    assert (wider["reused"], wider["search_cost"]["runs"]) == (4, 2)
    assert set(wider["proposal"]) == {"a", "b", "c"}
    assert {folder: folder.stat().st_mtime_ns for folder in trained} == trained

    kitchen = Kitchen(mixture=str(out / "proposal.yaml"), work=str(work), trials=tmp_path / "again",
                      overrides=("workers=0",))  # fmt: skip
    assert (kitchen.build(None, tokens=1000) / "recipe.json").is_file()
