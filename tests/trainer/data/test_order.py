"""The order of training is a pure function of (seed, position), whoever reads it."""

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.order import (
    CHEAP_ROWS,
    MIX_BLOCK,
    SCHEDULE_RUNS,
    Order,
    order,
    rows_in_order,
    rows_on_schedule,
    run_length,
    shards_of_a_run,
    share_out,
    shares,
)


@given(st.integers(1, 300), st.integers(0, 2**63), st.integers(0, 5))
def test_an_epoch_holds_every_row_once(rows: int, seed: int, epoch: int) -> None:
    assert sorted(order(rows, seed, epoch)) == list(range(rows))


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=12).filter(any),
    st.integers(0, 2**63),
    st.integers(0, 3),
    st.integers(1, 14),
)
def test_rows_are_shuffled_a_few_shards_at_a_time(
    shards: list[int], seed: int, epoch: int, window: int
) -> None:
    found = rows_in_order(tuple(shards), seed, epoch, window)
    assert sorted(found) == list(range(sum(shards)))
    if window >= len(shards):
        assert found.tolist() == order(sum(shards), seed, epoch).tolist()
    owners = np.repeat(np.arange(len(shards)), shards)[found]
    spans = [(at[0], at[-1]) for n in range(len(shards)) if len(at := np.flatnonzero(owners == n))]
    for place in range(len(found)):  # shards that are begun and not yet done with
        assert sum(first <= place <= last for first, last in spans) <= window


def test_epochs_and_seeds_differ_and_the_order_is_pinned() -> None:
    first = order(1000, 17, 0)
    assert not np.array_equal(first, order(1000, 17, 1))
    assert not np.array_equal(first, order(1000, 18, 0))
    # A run that is resumed under other versions of Python and numpy must find this order again.
    assert order(10, 17, 0).tolist() == [0, 9, 5, 2, 3, 7, 4, 8, 6, 1]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=4), st.data(), st.integers(0, 9))
def test_positions_draw_each_mixture_by_weight_and_each_row_equally(
    sizes: list[int], data: st.DataObject, seed: int
) -> None:
    weights = [data.draw(st.floats(0.1, 5)) for _ in sizes]
    drawn = Order([(size,) for size in sizes], weights, seed).rows(0, MIX_BLOCK)
    count = collections.Counter(m for m, _ in drawn)
    expected = shares(weights, MIX_BLOCK) if len(sizes) > 1 else [MIX_BLOCK]
    assert [count[m] for m in range(len(sizes))] == expected
    for m, size in enumerate(sizes):
        times = collections.Counter(row for which, row in drawn if which == m)
        assert max(times.values(), default=0) - min((times[r] for r in range(size)), default=0) <= 1


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=6), st.integers(1, 2000))
def test_shares_are_whole_and_within_one(weights: list[float], block: int) -> None:
    counts = shares(weights, block)
    assert sum(counts) == block
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - weight / sum(weights) * block) < 1


@given(
    st.integers(1, 5).flatmap(
        lambda ranks: st.tuples(
            st.just(ranks),
            st.lists(
                st.tuples(st.floats(0, 1e6), st.integers(1, 8192)), min_size=ranks, max_size=40
            ).map(lambda rows: rows[: len(rows) // ranks * ranks]),
        )
    ),
    st.integers(1, 3),
)
def test_ranks_share_out_every_row_once_in_as_many_micro_batches(
    given_rows: tuple[int, list[tuple[float, int]]], micro_rows: int
) -> None:
    ranks, rows = given_rows
    costs, tokens = [cost for cost, _ in rows], [count for _, count in rows]
    dealt = share_out(costs, tokens, ranks, micro_rows=micro_rows)
    assert sorted(i for groups in dealt for group in groups for i in group) == list(
        range(len(rows))
    )
    assert len(dealt) == ranks
    assert len({len(groups) for groups in dealt}) == 1
    for groups in dealt:
        sums = [sum(costs[i] for i in group) for group in groups]
        assert sums == sorted(sums, reverse=True)
        for group in groups:
            assert group  # no rank goes without while another works
            assert sum(costs[i] for i in group) <= micro_rows * max(costs) * (1 + 1e-6)
            most = CHEAP_ROWS * micro_rows * max(tokens)
            assert sum(tokens[i] for i in group) <= most * (1 + 1e-6)


def test_ranks_are_balanced_by_cost() -> None:
    costs = [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    dealt = share_out(costs, [8192] * 8, 2, micro_rows=1)
    assert {sum(costs[i] for group in groups for i in group) for groups in dealt} == {18.0}


def test_micro_batches_that_run_at_the_same_time_cost_nearly_the_same() -> None:
    """FSDP's ranks meet in every layer: a step takes the dearest micro-batch of each round."""
    rng = np.random.default_rng(0)
    costs = rng.lognormal(0, 0.4, 64).tolist()
    dealt = share_out(costs, [8192] * 64, 8, micro_rows=1)
    sums = [[sum(costs[i] for i in group) for group in groups] for groups in dealt]
    together = sum(max(micro) for micro in zip(*sums, strict=True))
    assert together < 1.06 * sum(costs) / 8


def test_cheap_rows_share_a_micro_batch_and_dear_ones_do_not() -> None:
    costs, tokens = [12.0, 12.0] + [1.0] * 8, [8192] * 10
    (groups,) = share_out(costs, tokens, 1, micro_rows=1)
    assert sorted(map(len, groups)) == [1, 1, 4, 4]
    assert all(len(group) == 1 for group in groups if 0 in group or 1 in group)
    (alike,) = share_out([5.0] * 6, tokens[:6], 1, micro_rows=2)
    assert [len(group) for group in alike] == [2, 2, 2]


def test_an_order_of_many_mixtures_makes_each_permutation_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import trainer.data.order as module

    made = []
    real = module.rows_in_order
    monkeypatch.setattr(module, "rows_in_order", lambda *a: made.append(a) or real(*a))
    many = Order([(1000,)] * 12, [1.0] * 12, 17)
    drawn = [many.rows(start, 64) for start in range(0, 6400, 64)]
    assert len(made) == 12
    alone = Order([(1000,)] * 12, [1.0] * 12, 17)
    assert [alone.row_at(p) for p in (6399, 0, 100)] == [drawn[-1][-1], drawn[0][0], drawn[1][36]]


@given(st.integers(1, 700), st.integers(0, 2**63), st.integers(0, 3), st.integers(0, 90))
def test_rows_on_a_schedule_are_shuffled_only_within_runs(
    rows: int, seed: int, epoch: int, mixed: int
) -> None:
    found = rows_on_schedule(rows, seed, epoch, mixed)
    assert sorted(found) == list(range(rows))
    run = mixed or max(1, rows // SCHEDULE_RUNS)
    assert (found // run == np.arange(rows) // run).all()
    if run >= 20 and rows > 50:
        assert (found != rows_on_schedule(rows, seed, epoch + 1, mixed)).any()


def test_each_mixture_keeps_its_own_order_or_none() -> None:
    drawn = Order([(300,), (300,)], [1.0, 1.0], 17, on_schedule=[True, False]).rows(0, 500)
    kept, mixed = ([row for which, row in drawn if which == n] for n in (0, 1))
    assert [row // 3 for row in kept] == sorted(row // 3 for row in kept)
    assert len(set(mixed)) == len(mixed)
    assert mixed != sorted(mixed)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 30))
def test_a_run_of_rows_lies_in_no_more_shards_than_are_counted(
    shards: list[int], mixed: int
) -> None:
    found = rows_on_schedule(sum(shards), 17, 0, mixed)
    length, owner = run_length(sum(shards), mixed), np.repeat(np.arange(len(shards)), shards)
    touched = [len(set(owner[found[at : at + length]])) for at in range(0, len(found), length)]
    assert max(touched) == shards_of_a_run(shards, mixed)
