"""Micro-batches are the rows of the plan, made ahead by threads, whatever the number of ranks."""

import collections
import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.trainer.conftest import Settings
from tests.trainer.shards import pack, sample, write
from trainer.config import Config
from trainer.data.batches import Loader, collate, threads
from trainer.data.shards import SIZES, Rows, open_mixture, predicted_mask

IMAGE = 49190


def cost(*, tokens: np.ndarray, crops: np.ndarray, **_: np.ndarray) -> np.ndarray:
    return tokens + 100.0 * crops


def loader(config: Config, *, rank: int = 0, ranks: int = 1) -> Loader:
    return Loader(config, image_token=IMAGE, rank=rank, ranks=ranks, cost=cost)


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


def test_batches_that_ranks_cannot_share_are_refused(settings: Settings) -> None:
    with pytest.raises(ValueError, match=r"batch_rows is 4, not a multiple of the 3 ranks.*=6"):
        loader(settings(), ranks=3)
