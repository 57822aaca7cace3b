"""Lines that are divided by their ids are all there, what is of one id together."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from pipelines.report import divided as dividing
from pipelines.report.divided import divided

LINES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), max_size=60)


@given(LINES, LINES, st.integers(1, 40))
def test_a_join_range_by_range_is_the_join_of_all(first, second, ranges):
    sides = [
        pl.DataFrame(
            {"id": [f"s/{n}" for n, _ in side], "value": pl.Series([v for _, v in side], dtype=int)}
        ).with_columns(pl.col("id").cast(pl.String))
        for side in (first, second)
    ]
    whole = sides[0].join(sides[1], on="id", how="full", coalesce=True)
    with divided(ranges * dividing.LINES) as files:
        for kind, side in zip("ab", sides, strict=True):
            for some in [side[:7], side[7:]]:
                files.add(kind, some)
        parts = list(files.each("a", "b"))
    assert len(parts) == ranges
    joined = [a.join(b, on="id", how="full", coalesce=True) for a, b in parts]
    assert sorted(pl.concat(joined).rows(), key=str) == sorted(whole.rows(), key=str)
