"""Schedules of ratios: stated, settled, refused, and dealt to a sample at every point."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtures import schedule
from mixtures.config import Mixture, schedules_of
from mixtures.deal import deal
from mixtures.mixture_file import load, to_yaml
from mixtures.optional import without
from mixtures.pick import pick
from tests.mixtures.synthetic import index_of, mixture_of
from tokenization.schema import Encoding

ANNEALED = [[0, 0.3], [0.7, 0.3], [1, 0.05]]
STEPPED = [[0, 0.3], [0.7, 0.3], [0.7, 0.1], [1, 0.1]]
INDEX = index_of(
    {("text", "a"): 3000, ("image", "x"): 1500, ("image", "y"): 600, ("video", "v"): 300},
    modality={"text": "text", "image": "image", "video": "video"},
    part_rows=50,
)


def written(tmp_path: Path, components: str, *overrides: str) -> Mixture:
    path = tmp_path / "made.yaml"
    path.write_text(f"tokens: 1000\ncomponents:\n{components}")
    return load(str(path), overrides, encoding=Encoding)


def two(first: str, second: str = "rest") -> str:
    return (
        f"  a: {{source: table, data: a, ratio: {first}}}\n"
        f"  b: {{source: table, data: b, ratio: {second}}}\n"
    )


@pytest.mark.parametrize(
    ("stated", "points"),
    [
        ("{0: 0.30, 0.7: 0.30, 1: 0.05}", ANNEALED),
        ("[[0, .3], [0.7, .3], [0.7, .1], [1, .1]]", STEPPED),
        ("{0: 0.3, 0.7: 0.3, 0.7: 0.1, 1: 0.1}", STEPPED),
    ],
)
def test_a_ratio_may_be_a_schedule_and_is_then_its_mean(tmp_path, stated, points):
    mixture = written(tmp_path, two(stated))
    a, b = mixture.components.values()
    assert a.schedule == points
    assert a.ratio == pytest.approx(schedule.mean(points), abs=1e-12)
    assert b.ratio == pytest.approx(1 - a.ratio, abs=1e-12)
    for position in (0, 0.35, 0.7, 0.9, 1):
        both = zip(*(schedule.share_at(c.schedule, position) for c in (a, b)), strict=True)
        assert [sum(side) for side in both] == pytest.approx([1, 1])
    (tmp_path / "again.yaml").write_text(to_yaml(mixture))
    assert load(str(tmp_path / "again.yaml"), encoding=Encoding).components == mixture.components


def test_the_command_line_states_schedules_too(tmp_path):
    base = two("0.5", "0.5")
    for stated in ("{0: 0.3, 0.7: 0.3, 1: 0.05}", '{"0": 0.3, "0.7": 0.3, "1": 0.05}',
                   "[[0, 0.3], [0.7, 0.3], [1, 0.05]]"):  # fmt: skip
        words = f"components.a.ratio={stated}", "components.b.ratio=rest"
        assert written(tmp_path, base, *words).components["a"].schedule == ANNEALED
    back = written(tmp_path, two("{0: 0.3, 1: 0.1}"), "components.a.ratio=0.5")
    assert schedules_of(back) == {}
    assert back.components["b"].ratio == 0.5


def test_a_schedule_that_never_changes_is_a_ratio_and_none_is_left_out(tmp_path):
    plain = written(tmp_path, two("0.25", "0.75"))
    assert written(tmp_path, two("{0: 0.25, 1: 0.25}")).components == plain.components
    assert "schedule" not in to_yaml(plain)
    rest = written(tmp_path, two("{0: 0, 1: 0}", "1"))
    assert list(rest.components) == ["b"]


def test_ratio_is_a_schedule_in_components_alone(tmp_path):
    mixture = written(
        tmp_path,
        "  ratio: {source: table, data: a, ratio: {0: 0.2, 1: 0.4}, filters: "
        "{out_of_bounds: {facts: {ratio: {min: 0.2}}}}}\n"
        "  b: {source: table, data: b, ratio: rest, subsets: {ratio: {weight: 2}}}\n",
    )
    assert mixture.components["ratio"].schedule == [[0, 0.2], [1, 0.4]]
    rules = mixture.components["ratio"].filters
    assert rules == {"out_of_bounds": {"facts": {"ratio": {"min": 0.2}}}}
    assert mixture.components["b"].subsets["ratio"].weight == 2


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("{0: 0.3, 0.7: 0.3, 1: 0.05}", "0.7", "ratios sum to 0.75 at position 1 of the run"),
        (str(STEPPED), "0.7", "ratios sum to 0.8 after position 0.7 of the run"),
        ("{0: 0.3, 1: 0.4}", "{0: 0.7, 0.5: 0.9, 1: 0.6}", "sum to 1.25 at position 0.5"),
        ("{0.1: 0.3, 1: 0.1}", "rest", "components.a.ratio goes from 0.1 to 1.0"),
        ("{0: 0.3}", "rest", "components.a.ratio goes from 0.0 to 0.0"),
        ("[[0, 0.3], [0.7, 0.1], [0.2, 0.1], [1, 1]]", "rest", "expected ascending"),
        ("{0: 0.3, 1: 1.4}", "rest", "holds [1, 1.4]; expected {position: share, ...}"),
        ("{0: 0.3, late: 0.4}", "rest", "holds ['late', 0.4]"),
        ("[0.3, 0.4]", "rest", "holds 0.3; expected {position: share, ...}"),
        ("{0: 0.3, 0: 0.4, 1: 0.1}", "rest", "states position 0 2 times"),
        ("rest", "rest", "ratio is rest in a and b"),
        ("0.5, schedule: [[0, 0.5], [1, 0.5]]", "0.5", "write the points as ratio"),
    ],
)  # fmt: skip
def test_what_is_no_schedule_is_said(tmp_path, first, second, said):
    with pytest.raises(ValueError, match=r"made.yaml: ") as error:
        written(tmp_path, two(first, second))
    assert said in str(error.value)


def test_nothing_left_for_rest_is_said(tmp_path):
    three = two("{0: 0.3, 1: 0.6}", "{0: 0.3, 1: 0.5}")
    with pytest.raises(ValueError, match=r"the other ratios sum to 1.1 at position 1 of the run"):
        written(tmp_path, three + "  c: {source: table, data: c, ratio: rest}\n")


def test_a_schedule_and_redistribute_contradict(tmp_path):
    with pytest.raises(ValueError, match=r"on_shortage: shrink keeps every ratio"):
        written(tmp_path, two("{0: 0.3, 1: 0.4}"), "on_shortage=redistribute")


def test_an_heir_has_the_share_where_the_one_left_out_had_it(tmp_path):
    heirs = (
        "  a: {source: table, data: a, ratio: 0.6}\n  b: {source: table, data: b, ratio: rest}\n"
    )
    late = "  c: {source: table, data: c, ratio: {0: 0, 1: 0.2}, optional: true, instead: [a]}\n"
    mixture, _ = without(written(tmp_path, heirs + late), {"c": "gone"})
    assert mixture.components["a"].schedule == [[0, 0.6], [1, 0.8]]
    assert mixture.components["a"].ratio == pytest.approx(0.7)
    stated = {n: c.schedule or schedule.constant(c.ratio) for n, c in mixture.components.items()}
    schedule.require_sums(stated, where="here")


def test_two_schedules_that_come_to_a_constant_are_a_ratio(tmp_path):
    mixture = written(
        tmp_path,
        "  a: {source: table, data: a, ratio: {0: 0.3, 1: 0.1}}\n"
        "  b: {source: table, data: b, ratio: 0.6}\n"
        "  c: {source: table, data: c, ratio: {0: 0.1, 1: 0.3}, optional: true, instead: [a]}\n",
    )
    heir = without(mixture, {"c": "gone"})[0].components["a"]
    assert (heir.ratio, heir.schedule) == (0.4, [])


@st.composite
def pairs_of_schedules(draw) -> tuple[list[list[float]], list[list[float]]]:
    """Two that sum to at most 1, with steps and stretches of nothing."""
    inner = sorted(draw(st.lists(st.integers(1, 19), max_size=4)))
    inner = [n for n in inner if inner.count(n) <= 2]
    positions = [0.0, *(n / 20 for n in inner), 1.0]
    shares = st.lists(st.integers(0, 10), min_size=len(positions), max_size=len(positions))
    first, second = draw(shares), draw(shares)
    first[0], second[-1] = max(1, first[0]), max(1, second[-1])
    return (
        [[p, s / 20] for p, s in zip(positions, first, strict=True)],
        [[p, s / 20] for p, s in zip(positions, second, strict=True)],
    )


def made_of(first: list, second: list, **settings_) -> Mixture:
    components: dict = {"text": {"ratio": first}, "image": {"ratio": second}}
    components["video"] = {"ratio": "rest"}
    schedule.settle(components, where="made")
    components = {n: c for n, c in components.items() if c["ratio"] > 0}
    mixture = mixture_of({n: c["ratio"] for n, c in components.items()}, **settings_)
    for name, component in components.items():
        mixture.components[name].schedule.extend(component.get("schedule", []))
    return mixture


@settings(max_examples=30)
@given(both=pairs_of_schedules(), parts=st.lists(st.floats(0, 0.999999), min_size=1, max_size=9))
def test_a_position_is_where_so_much_has_passed(both, parts):
    for points in both:
        part = np.array(sorted(parts))
        found = schedule.position_of(points, part)
        assert ((found >= 0) & (found < 1)).all()
        assert (np.diff(found) >= 0).all()
        assert schedule.passed(points, found) == pytest.approx(part * schedule.mean(points))
        assert schedule.passed(points, np.array([1.0]))[0] == pytest.approx(schedule.mean(points))


@settings(max_examples=15)
@given(
    both=pairs_of_schedules(),
    measure=st.sampled_from(["tokens", "samples", "learned_tokens"]),
    tokens=st.sampled_from([400_000, "max"]),
    shard_bytes=st.sampled_from([2_000_000, 2**40]),
)
def test_the_whole_is_exact_and_every_stretch_is_on_its_schedule(
    both, measure, tokens, shard_bytes
):
    mixture = made_of(*both, measure=measure, tokens=tokens, shard_bytes=shard_bytes,
                      val_fraction=0.02, on_shortage="shrink")  # fmt: skip
    picked = pick(INDEX.filter(pl.col("component").is_in(list(mixture.components))), mixture)
    dealt = deal(picked, mixture)
    assert deal(picked, mixture).equals(dealt)
    assert not dealt.select("split", "shard", "index_row").is_duplicated().any()
    counts = np.bincount(dealt["index_row"].to_numpy(), minlength=picked.height)
    assert counts.tolist() == picked["copies"].to_list()

    rows = picked[dealt.filter(split="train")["index_row"].to_numpy()]
    column = {"tokens": "num_tokens", "learned_tokens": "num_learned"}.get(measure)
    unit = rows[column].to_numpy().astype(float) if column else np.ones(len(rows))
    through = np.cumsum(unit)
    streams = rows.select(pl.struct("component", "subset", "copies").n_unique()).item()
    for name, component in mixture.components.items():
        mine = np.cumsum(np.where((rows["component"] == name).to_numpy(), unit, 0))
        assert abs(mine[-1] - component.ratio * through[-1]) <= unit.max() + 1e-6
        points = component.schedule or schedule.constant(component.ratio)
        asked = schedule.passed(points, through / through[-1]) * through[-1]
        assert np.abs(mine - asked).max() <= 2 * streams * unit.max()


def test_no_two_copies_meet_where_a_schedule_crowds_them():
    mixture = made_of([[0, 0], [0.9, 0], [0.9, 0.3], [1, 0.3]], [[0, 0.3], [1, 0.3]], tokens="max")
    picked = pick(INDEX, mixture)
    assert picked.filter(component="text")["copies"].max() > 1 or picked["copies"].max() > 1
    dealt = deal(picked, mixture)
    assert not dealt.select("split", "shard", "index_row").is_duplicated().any()


def test_val_holds_the_mean_everywhere():
    mixture = made_of([[0, 0.5], [0.5, 0.5], [0.5, 0], [1, 0]], [[0, 0.3], [1, 0.3]],
                      tokens="max", val_fraction=0.2)  # fmt: skip
    picked = pick(INDEX, mixture)
    val = picked[deal(picked, mixture).filter(split="val")["index_row"].to_numpy()]
    text = val.select(pl.col("num_tokens") * (pl.col("component") == "text")).to_series()
    through = np.cumsum(val["num_tokens"].to_numpy())
    half = np.searchsorted(through, through[-1] / 2)
    assert text[:half].sum() / through[half] == pytest.approx(0.25, abs=0.06)


def test_shards_stay_near_their_size_where_a_schedule_fills_them_unevenly():
    mixture = made_of([[0, 1], [0.5, 1], [0.5, 0], [1, 0]], [[0, 0], [0.5, 0], [0.5, 1], [1, 1]],
                      measure="samples", tokens=400_000, shard_bytes=1_000_000)  # fmt: skip
    picked = pick(INDEX.filter(pl.col("component") != "video"), mixture)
    dealt = deal(picked, mixture)
    size = (picked["num_bytes"] + 5 * picked["num_tokens"]).gather(dealt["index_row"])
    sizes = dealt.with_columns(size=size).group_by("shard").agg(pl.col("size").sum())["size"]
    assert sizes.max() < 1_250_000


def test_four_stages_are_one_schedule():
    mixture = load("smollm2_schedule", encoding=Encoding)
    stages = [load(f"smollm2_stage{n}", encoding=Encoding) for n in (1, 2, 3, 4)]
    alike = {"code": "starcoderdata", "code_edu": "stack_edu", "math": "finemath"}
    for middle, stage in zip((0.3, 0.6, 0.8, 0.95), stages, strict=True):
        now: dict[str, float] = {}
        for component in mixture.components.values():
            share = schedule.share_at(component.schedule, middle)[0]
            now |= {component.source: share} if share else {}
        assert now == pytest.approx({c.source: c.ratio for c in stage.components.values()}), alike
