"""How evenly an order of rows holds the ratios."""

import numpy as np
import polars as pl
import pytest

from mixtures import balance as balancing
from mixtures.balance import balance, rows_of, strays
from mixtures.columns import in_folder, total
from mixtures.deal import deal
from mixtures.pick import pick
from tests.mixtures.synthetic import index_of, mixture_of


def table(rows: list[list[tuple[str, float]]]) -> pl.DataFrame:
    """Rows of (component, units)."""
    lines = [(place, c, u) for place, row in enumerate(rows) for c, u in row]
    return pl.DataFrame(lines, schema=["place", "component", "units"], orient="row").with_columns(
        seconds=pl.lit(None, pl.Float32), crops=pl.lit(0)
    )


def line(found: pl.DataFrame, what: str) -> dict:
    return found.filter(what=what).row(0, named=True)


def test_an_even_order_strays_nowhere():
    found = balance(table([[("a", 3.0), ("b", 1.0)]] * 20), window=5)
    assert found["what"].to_list() == ["a", "b"]
    assert found["whole"].to_list() == [0.75, 0.25]
    assert found["worst"].max() == pytest.approx(0)
    assert found["windows"].to_list() == [16, 16]


def test_a_block_of_one_component_is_found():
    found = balance(table([[("a", 1.0)]] * 10 + [[("b", 1.0)]] * 10), window=5)
    assert line(found, "a") == {"what": "a", "whole": 0.5, "worst": 0.5, "p95": 0.5, "windows": 16}


def test_rows_weigh_by_their_units():
    found = balance(table([[("a", 1.0), ("b", 3.0)], [("a", 3.0), ("b", 1.0)]]), window=1)
    assert line(found, "a")["whole"] == 0.5
    assert line(found, "a")["worst"] == 0.25


def test_fewer_rows_than_a_window_are_one_window():
    found = balance(table([[("a", 1.0)], [("b", 1.0)]]), window=1000)
    assert found["windows"].to_list() == [1, 1]
    assert found["worst"].max() == pytest.approx(0)


def test_video_length_and_crops_are_relative():
    samples = pl.DataFrame(
        {
            "place": [0, 0, 1, 1],
            "component": ["v", "t", "v", "t"],
            "units": [1.0, 1.0, 1.0, 1.0],
            "seconds": [100.0, None, 300.0, None],
            "crops": [10, 0, 30, 0],
        }
    )
    found = balance(samples, window=1)
    assert line(found, "seconds")["whole"] == 200
    assert line(found, "seconds")["worst"] == pytest.approx(0.5)
    assert line(found, "crops")["whole"] == 20
    assert line(found, "crops")["worst"] == pytest.approx(0.5)


def test_nothing_has_no_lines():
    assert balance(table([]).cast({"place": pl.Int64, "units": pl.Float64})).height == 0


@pytest.mark.parametrize("scheduled", [False, True])
def test_a_few_rows_at_a_time_give_what_all_in_one_array_give(monkeypatch, tmp_path, scheduled):
    """To the bit: numbers of stats.json do not depend on how many rows are summed at a time."""
    random = np.random.default_rng(0)
    number, window = 4000, 50
    place = np.sort(random.integers(0, 1000, number))
    component = random.choice(["b", "a", "c"], number, p=[0.5, 0.3, 0.2])
    units = random.integers(1, 500, number)
    seconds = np.where(component == "b", random.random(number), np.nan)
    crops = random.random(number)
    samples = pl.DataFrame(
        {"place": place, "component": component, "units": units, "crops": crops}
    ).with_columns(seconds=pl.Series(seconds, nan_to_null=True))
    schedules = {"a": [[0, 0.2], [1, 0.4]]} if scheduled else {}
    rows = rows_of(samples, ["c", "a", "b"])
    new = in_folder(tmp_path)
    for name in balancing.COLUMNS:
        column = new(np.float64)
        column.append(getattr(rows, name)[:])
        object.__setattr__(rows, name, column)
    monkeypatch.setattr(balancing, "AT_ONCE", 57)
    found = strays(rows, there=["b", "c"], window=window, schedules=schedules)
    found = pl.concat([found, balance(samples, window=window, schedules=schedules)]).unique()
    assert found["what"].sort().to_list() == ["a", "b", "c", "crops", "seconds"]

    def sums(values: np.ndarray, mine: np.ndarray) -> np.ndarray:
        through = np.r_[0.0, np.cumsum(np.bincount(place[mine], values[mine], 1000))]
        return through[window:] - through[:-window]

    every, video = np.ones(number, bool), component == "b"
    whole = {name: units[component == name].sum() / units.sum() for name in "abc"}
    shares = {n: sums(units, component == n) / sums(units, every) for n in "abc"}
    videos = sums(np.ones(number), video)
    shares["seconds"] = (sums(seconds, video) / np.maximum(videos, 1))[videos > 0]
    shares["crops"] = sums(crops, every) / window
    whole |= {"seconds": seconds[video].mean(), "crops": np.bincount(place, crops).mean()}
    for what, share in shares.items():
        if what == "a" and scheduled:
            continue
        relative = whole[what] if what in ("seconds", "crops") else 1
        away = np.abs(share - whole[what]) / relative
        assert line(found, what) == {
            "what": what,
            "whole": whole[what],
            "worst": away.max(),
            "p95": np.percentile(away, 95),
            "windows": len(away),
        }


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 9876])
def test_a_column_sums_to_what_numpy_sums_an_array_to(monkeypatch, tmp_path, count):
    monkeypatch.setattr("mixtures.columns.ROWS", 1000)
    values = np.random.default_rng(count).lognormal(0, 5, count)
    column = in_folder(tmp_path)(np.float64)
    column.append(values)
    assert total(column) == values.sum()


def test_dealt_samples_are_balanced_and_samples_in_index_order_are_not():
    ratios = {"text": 0.2, "image": 0.5, "video": 0.3}
    modality = {"text": "text", "image": "image", "video": "video"}
    index = index_of(
        {("text", "a"): 8000, ("image", "x"): 4000, ("video", "v"): 500}, modality=modality
    )
    mixture = mixture_of(ratios, tokens=5_000_000, val_fraction=0)
    picked = pick(index, mixture)

    def measured(rows: np.ndarray) -> pl.DataFrame:
        samples = picked[rows].select(
            "component", units=pl.col("num_tokens"), seconds="duration", crops="num_crops"
        )
        place = samples["units"].cum_sum() // 8192  # packed as they come
        return balance(samples.with_columns(place=place), window=100)

    dealt = measured(deal(picked, mixture)["index_row"].to_numpy())
    plain = measured(np.flatnonzero(picked["copies"].to_numpy()))
    for name in ratios:
        assert line(dealt, name)["worst"] < 0.02
        assert line(plain, name)["worst"] > 0.3
    assert line(dealt, "crops")["worst"] < 0.05
    assert line(dealt, "seconds")["worst"] < 0.1
