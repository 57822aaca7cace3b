"""The order of training is a pure function of (seed, position), whoever reads it."""

import collections
import dataclasses
import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.trainer.conftest import Settings
from tests.trainer.shards import ENCODING, pack, sample, write
from trainer.config import Config
from trainer.data.batches import Loader, collate, threads
from trainer.data.order import (
    CHEAP_ROWS,
    MIX_BLOCK,
    Order,
    order,
    rows_in_order,
    share_out,
    shares,
)
from trainer.data.shards import SIZES, Rows, open_mixture, predicted_mask, refuse_mismatch

IMAGE = 49190


def cost(*, tokens: np.ndarray, crops: np.ndarray, **_: np.ndarray) -> np.ndarray:
    return tokens + 100.0 * crops


def loader(config: Config, *, rank: int = 0, ranks: int = 1) -> Loader:
    return Loader(config, image_token=IMAGE, rank=rank, ranks=ranks, cost=cost)


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


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_global_order_is_the_same_on_any_number_of_ranks(
    settings: Settings, ranks: int
) -> None:
    config = settings(batch_rows=8, micro_rows=1)
    alone = [step.rows for step, _ in [loader(config).plan(p) for p in range(0, 64, 8)]]
    for number, position in enumerate(range(0, 64, 8)):
        plans = [loader(config, rank=r, ranks=ranks).plan(position) for r in range(ranks)]
        assert all(step == plans[0][0] for step, _ in plans)  # rows and learned tokens of the whole
        together = [f"toy/{n}" for _, groups in plans for group in groups for _, n in group]
        assert sorted(together) == sorted(alone[number])
        assert len({len(groups) for _, groups in plans}) == 1


def test_the_number_of_ranks_may_change_in_mid_run(settings: Settings) -> None:
    config = settings(batch_rows=8)
    rows = len(Rows(open_mixture(next(iter(config.data))), "train"))
    seen: collections.Counter[int] = collections.Counter()
    for position, ranks in zip(range(0, 8 * rows, 8), [4] * 3 + [1] * 2 + [2] * rows, strict=False):
        for rank in range(ranks):
            _, groups = loader(config, rank=rank, ranks=ranks).plan(position)
            seen.update(n for group in groups for _, n in group)
    assert set(seen.values()) == {8}  # eight epochs, each row once in each
    assert len(seen) == rows


def test_learned_tokens_are_counted_without_first_tokens() -> None:
    mask = np.array([True, True, False, True, True, True])
    assert predicted_mask(mask, np.array([3, 1, 2])).tolist() == [
        False,
        True,
        False,
        False,
        False,
        True,
    ]


def test_batches_are_the_rows_laid_end_to_end(settings: Settings) -> None:
    config = settings()
    rows = Rows(open_mixture(next(iter(config.data))), "train")
    batch = collate([rows[0], rows[3]], image_token=IMAGE)
    assert batch.input_ids[0].tolist() == [*rows[0].input_ids, *rows[3].input_ids]
    assert batch.seq_lengths == [*rows[0].seq_lengths, *rows[3].seq_lengths]
    assert batch.sample_ids == rows[0].sample_ids + rows[3].sample_ids
    expected = [i for n in batch.seq_lengths for i in range(n)]
    assert batch.position_ids[0].tolist() == expected
    assert len(batch.pixels) * 16 == (batch.input_ids == IMAGE).sum()
    kinds = [name.split("/")[1] for name in batch.sample_ids]
    assert batch.sample_images == [{"image": 1, "images": 2, "text": 0}[kind] for kind in kinds]
    flat = batch.input_ids[0]
    assert torch.equal(flat[batch.predictors + 1], batch.targets)
    assert (batch.position_ids[0][batch.predictors + 1] > 0).all()
    mask = np.concatenate([rows[0].loss_mask, rows[3].loss_mask])
    assert len(batch.targets) == mask.sum()


def test_a_broken_shard_is_named(settings: Settings) -> None:
    config = settings()
    row = Rows(open_mixture(next(iter(config.data))), "train")[0]
    ids = row.input_ids.copy()
    ids[np.flatnonzero(ids == IMAGE)[0]] = 5
    with pytest.raises(ValueError, match=r"rows \['toy/0'\].*image tokens, but"):
        collate([dataclasses.replace(row, input_ids=ids)], image_token=IMAGE)


@hypothesis_settings(max_examples=5)
@given(prefetch=st.integers(1, 5), workers=st.integers(1, 3))
def test_the_loader_keeps_order_and_bounds(mixture: Path, prefetch: int, workers: int) -> None:
    config = Settings(mixture, Path("unused"))(prefetch=prefetch, workers=workers)
    load = loader(config)
    lock, alive, most = threading.Lock(), 0, 0
    make = load.make

    def counted(group: list[tuple[int, int]]) -> object:
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        return make(group)

    load.make = counted  # type: ignore[assignment, method-assign]
    seen = []
    for _, batches in load.steps(4, 3):
        for batch in batches:
            with lock:
                alive -= 1
            seen += batch.rows
    planned = [load.plan(p)[1] for p in (4, 8, 12)]
    assert seen == [f"toy/{n}" for groups in planned for group in groups for _, n in group]
    assert most <= prefetch + 1  # and the one being trained on


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


def test_sizes_are_those_of_the_rows(tmp_path: Path) -> None:
    packed = pack([sample(i, kind) for kind in ("images", "text") for i in range(60)])
    rows = Rows(open_mixture(str(write(tmp_path / "mixed", packed, shards=3))), "train")
    kinds = set()
    for number in range(len(rows)):
        row = rows[number]
        expected = (
            len(row.input_ids),
            (row.seq_lengths.astype(int) ** 2).sum(),
            row.num_crops,
            predicted_mask(row.loss_mask, row.seq_lengths).sum(),
        )
        assert tuple(rows.sizes(number)) == expected
        kinds.add(row.num_crops > 0)
        batch = collate([row], image_token=IMAGE)
        assert tuple(batch.sizes[name] for name in SIZES) == expected
    assert kinds == {True, False}


def test_plans_are_made_beside_the_training(settings: Settings) -> None:
    """The thread that trains reads no lengths: it takes what others have made."""
    load = loader(settings(batch_rows=4))
    planned_by = set()
    plan = load.plan
    load.plan = lambda p: planned_by.add(threading.current_thread().name) or plan(p)  # type: ignore
    for _, batches in load.steps(0, 3):
        list(batches)
    assert planned_by == {"plan"}


def test_a_mistake_in_a_plan_reaches_the_loop(settings: Settings) -> None:
    load = loader(settings())

    def broken(position: int) -> None:
        raise RuntimeError("cannot plan")

    load.plan = broken  # type: ignore[assignment, method-assign]
    with pytest.raises(RuntimeError, match="cannot plan"):
        next(load.steps(0, 2))


def test_threads_that_make_batches_end_with_who_takes_them(settings: Settings) -> None:
    before = set(threading.enumerate())
    steps = loader(settings()).steps(0, 50)
    _, batches = next(steps)
    next(batches)
    del batches, steps
    assert set(threading.enumerate()) <= before


def test_workers_are_the_cores_shared_by_the_ranks_of_a_machine(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))
    assert threads(settings()) == {"workers": 16, "ahead": 18}
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert threads(settings()) == {"workers": 2, "ahead": 4}
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "32")
    assert threads(settings(prefetch=3)) == {"workers": 1, "ahead": 3}
    assert threads(settings(workers=5))["workers"] == 5


def test_an_error_in_a_worker_reaches_the_loop(settings: Settings) -> None:
    load = loader(settings())

    def broken(group: object) -> None:
        raise RuntimeError("cannot crop")

    load.make = broken  # type: ignore[assignment, method-assign]
    _, batches = next(load.steps(0, 2))
    with pytest.raises(RuntimeError, match="cannot crop"):
        next(batches)


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"crop_size": 32},
            r"model.vision.image_size of config 'tiny' is 64, encoding.crop_size .* 32",
        ),
        (
            {"tokens_per_crop": 64},
            r"model.tokens_per_crop .* is 16, encoding.tokens_per_crop .* is 64",
        ),
        (
            {"seq_len": 9000},
            r"max_position_embeddings of config 'tiny' is 4096, .*seq_len .* is 9000",
        ),
    ],
)
def test_shards_for_another_model_are_refused(
    settings: Settings, change: dict[str, int], message: str
) -> None:
    config = settings()
    found = open_mixture(next(iter(config.data)))
    other = dataclasses.replace(found, encoding=dataclasses.replace(found.encoding, **change))
    refuse_mismatch(config, found, vocabulary=49280)
    with pytest.raises(ValueError, match=message):
        refuse_mismatch(config, other, vocabulary=49280)


def test_a_larger_vocabulary_is_refused(settings: Settings) -> None:
    config = settings()
    found = open_mixture(next(iter(config.data)))
    with pytest.raises(ValueError, match=r"vocab_size of config 'tiny' is 49280, .* has 49281 ids"):
        refuse_mismatch(config, found, vocabulary=49281)


def test_what_is_no_mixture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        open_mixture(str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match=r"no recipe\.json"):
        open_mixture(str(tmp_path))
    (tmp_path / "recipe.json").write_text(json.dumps({"name": "x"}))
    with pytest.raises(ValueError, match="'mixture' is missing"):
        open_mixture(str(tmp_path))
    encoding = {"crop_sise": 3}
    recipe = {"name": "x", "fingerprint": "y", "mixture": {"encoding": encoding}}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(ValueError, match=r"'crop_sise', unknown here\. Did you mean 'crop_size'"):
        open_mixture(str(tmp_path))
    recipe["mixture"] = {"encoding": dataclasses.asdict(ENCODING)}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(FileNotFoundError, match=r"no train-\*\.arrow"):
        Rows(open_mixture(str(tmp_path)), "train")


def test_empty_shards_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "empty", [])
    with pytest.raises(ValueError, match="hold no row"):
        Rows(open_mixture(str(folder)), "train")


def test_batches_that_ranks_cannot_share_are_refused(settings: Settings) -> None:
    with pytest.raises(ValueError, match=r"batch_rows is 4, not a multiple of the 3 ranks.*=6"):
        loader(settings(), ranks=3)


def test_a_remote_mixture_is_read_like_a_local_one(tmp_path: Path, mixture: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for file in mixture.rglob("*"):
        if file.is_file():
            memory.pipe_file(f"/remote-toy/{file.relative_to(mixture)}", file.read_bytes())
    remote = open_mixture("memory://remote-toy")
    assert remote.fingerprint == open_mixture(str(mixture)).fingerprint
    ours, theirs = Rows(remote, "train"), Rows(open_mixture(str(mixture)), "train")
    assert [row.sample_ids for row in ours] == [row.sample_ids for row in theirs]


def test_row_batches_of_any_size_are_found(tmp_path: Path) -> None:
    rows = pack([sample(i, "text") for i in range(100)])
    folder = write(tmp_path / "texts", rows, shards=3)
    opened = Rows(open_mixture(str(folder)), "train")
    assert [opened[i].sample_ids for i in range(len(opened))] == [row["sample_ids"] for row in rows]
