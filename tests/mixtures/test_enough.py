"""Properties of `settle`: how far parts are read follows from what they hold, and covers it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtures.config import Component, Mixture, Subset
from mixtures.enough import YIELDS, Look, Settled, needs_of, settle
from mixtures.queues import Queue, queues_of
from tokenization.schema import Encoding

few = settings(max_examples=40)


@dataclass(frozen=True)
class World:
    """A mixture, its queues, and what every part yields."""

    mixture: Mixture
    queues: list[Queue]
    yields: list[list[pl.DataFrame]]
    """[queues][parts] YIELDS."""
    survival: dict[tuple[str, str, int], float]

    def settled(self, known: Sequence[int]) -> Settled:
        """What the first `known` parts of each queue tell."""
        return settle(
            self.queues,
            [found[:n] for found, n in zip(self.yields, known, strict=True)],
            self.mixture,
            universe={},
            survival=self.survival,
            least=[queue.least for queue in self.queues],
        )

    def asking(self, **change: object) -> "World":
        """The same data, of which the mixture asks otherwise."""
        return replace(self, mixture=replace(self.mixture, **change))  # type: ignore[arg-type]

    @property
    def every(self) -> list[int]:
        """[queues] parts that there are."""
        return [len(queue.subsets) for queue in self.queues]

    @property
    def whole(self) -> Settled:
        """What all parts tell."""
        return self.settled(self.every)

    @property
    def looks(self) -> list[Look]:
        """The sums of all parts."""
        return [
            Look.of(queue, found, self.mixture, universe={}, survival=self.survival)
            for queue, found in zip(self.queues, self.yields, strict=True)
        ]


def yield_of(subset: str, rows: int, kept: int, length: int, val: int, unit: str) -> pl.DataFrame:
    """YIELDS of a part of which `kept` rows survive, `val` of them on the val side."""
    train = max(0, kept - val)
    each = 1 if unit == "samples" else length
    lines = [[subset, 0, rows, kept, train, train * each, train * length, (kept - train) * each]]
    return pl.DataFrame(lines, schema=YIELDS.names(), orient="row").cast(YIELDS)


@st.composite
def worlds(draw, *, measures=("tokens", "samples"), shortage=("error", "shrink", "redistribute")):
    """Some components of some subsets of some parts, none like another."""
    measure = draw(st.sampled_from(measures))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    components, sizes, held = {}, {}, {}
    for name in draw(st.sampled_from(["a", "ab", "abc"])):
        weighted, subsets = draw(st.booleans()), {}
        for subset in "xyz"[: draw(st.integers(1, 3))]:
            subsets[subset] = Subset(
                weight=draw(st.sampled_from([1.0, 2.5])) if weighted else None,
                keep=draw(st.sampled_from([1.0, 1.0, 0.5])),
                max_samples=draw(st.sampled_from([None, None, 40])),
            )
            count = draw(st.integers(1, 12))
            rows = random.integers(1, 30, count)
            sizes[name, subset] = rows.tolist()
            kept = random.binomial(rows, draw(st.sampled_from([1.0, 0.7, 0.1])))
            held[name, subset] = [
                yield_of(subset, int(r), int(k), int(length), int(val), measure)
                for r, k, length, val in zip(
                    rows, kept, random.integers(1, 90, count), random.binomial(kept, 0.05),
                    strict=True,
                )
            ]  # fmt: skip
        components[name] = Component(
            source="smoltalk", ratio=1.0, subsets=subsets, max_epochs=draw(st.sampled_from([1, 3]))
        )
    total = len(components)
    mixture = Mixture(
        tokens=draw(st.one_of(st.integers(1, 20_000), st.just("max"))),
        measure=measure,
        val_fraction=draw(st.sampled_from([0.0, 0.05])),
        encoding=Encoding(),
        on_shortage=draw(st.sampled_from(shortage)),
        read=draw(st.sampled_from(["enough", "enough", "all"])),
        components={name: replace(c, ratio=1 / total) for name, c in components.items()},
    )
    queues = queues_of(sizes, mixture)
    yields = [
        [held[q.component, s][turn] for s, turn in zip(q.subsets, q.turns, strict=True)]
        for q in queues
    ]
    left = {(name, "x", 0): draw(st.sampled_from([1.0, 0.6])) for name in components}
    return World(mixture, queues, yields, left)


@few
@given(world=worlds(), data=st.data())
def test_rounds_and_what_is_read_ahead_change_nothing(world, data):
    whole = world.whole
    assert whole.final(world.every)
    known = [
        max(q.least, data.draw(st.integers(0, n)))
        for q, n in zip(world.queues, world.every, strict=True)
    ]
    rounds = 0
    while not (found := world.settled(known)).final(known):
        further = [
            min(n, look + data.draw(st.sampled_from([0, 0, 1, 5])))
            for look, n in zip(found.look, world.every, strict=True)
        ]
        assert any(a > b for a, b in zip(further, known, strict=True))
        known = [max(a, b) for a, b in zip(further, known, strict=True)]
        rounds += 1
    assert rounds <= sum(world.every)
    assert found.lengths == whole.lengths
    assert found.short == whole.short


@few
@given(world=worlds(measures=("tokens",), shortage=("error",)))
def test_a_stretch_covers_its_need_and_one_part_less_does_not(world):
    found = world.whole
    looks = world.looks
    needs = needs_of(looks, found.lengths, world.mixture, ended=found.short)
    for number, (look, need, length) in enumerate(zip(looks, needs, found.lengths, strict=True)):
        if look.queue.whole or number in found.short or not np.isfinite(need):
            continue
        if length < len(look.queue.subsets):
            assert look.covers(need)[length]
            if world.mixture.tokens != "max":  # the scarcest says how much, once it is read whole
                assert length == look.queue.least or not look.covers(need)[length - 1]


@few
@given(world=worlds(measures=("tokens",), shortage=("error",)), less=st.floats(0.01, 1))
def test_a_smaller_budget_is_a_prefix(world, less):
    """In samples it is so as far as parts agree in the tokens of a sample."""
    if world.mixture.tokens == "max":
        world = world.asking(tokens=5_000)
    fewer = world.asking(tokens=max(1, int(world.mixture.tokens * less))).whole
    assert all(a <= b for a, b in zip(fewer.lengths, world.whole.lengths, strict=True))


@few
@given(world=worlds(shortage=("error",)), data=st.data())
def test_a_component_alone_reads_as_far_as_it_does_beside_others_that_have_enough(world, data):
    """A ratio that falls reads no more of that component: its parts are a prefix too."""
    if world.mixture.tokens == "max" or world.mixture.measure != "tokens":
        world = world.asking(tokens=2_000, measure="tokens")
    name = data.draw(st.sampled_from(sorted(world.mixture.components)))
    component = world.mixture.components[name]
    lower = replace(component, ratio=component.ratio * data.draw(st.floats(0.05, 1)))
    other = world.asking(components={**world.mixture.components, name: lower})
    for queue, now, then in zip(
        world.queues, world.whole.lengths, other.whole.lengths, strict=True
    ):
        assert then <= now if queue.component == name else then == now


def test_parts_come_by_fractions_of_their_subsets_and_of_a_weighted_one_alone():
    together = Component(source="smoltalk", ratio=1.0)
    mixture = Mixture(encoding=Encoding(), components={"a": together})
    sizes = {("a", "x"): [10, 10], ("a", "y"): [5, 5, 5, 5]}
    (queue,) = queues_of(sizes, mixture)
    assert list(zip(queue.subsets, queue.turns, strict=True)) == [
        ("y", 0), ("x", 0), ("y", 1), ("x", 1), ("y", 2), ("y", 3)
    ]  # fmt: skip
    assert queue.least == 2
    weights = {"x": Subset(weight=3.0), "y": Subset()}
    mixture = replace(mixture, components={"a": replace(together, subsets=weights)})
    assert [(q.subsets, q.share) for q in queues_of(sizes, mixture)] == [
        (("x",) * 2, pytest.approx(0.75)), (("y",) * 4, pytest.approx(0.25))
    ]  # fmt: skip
