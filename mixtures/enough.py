"""How many parts of every component a mixture needs: the shortest stretches that cover its budget.

    parts in turn, and what each yields --settle--> how many are used; how many to look at next

A queue (queues.py) is used from its start; how far depends on what its parts hold and on the
mixture alone. Nothing beyond a stretch is looked at to find its end, so that the result is the same
whatever was read before, by whom, in how many rounds, and however well the need was guessed.

| YIELDS column                    | of a part, per set of `limits` that its samples are under     |
|----------------------------------|---------------------------------------------------------------|
| subset, limited                  | which                                                         |
| rows                             | rows read, in the first line of the part; kept or not         |
| kept                             | samples that no rule of their own takes, train and val        |
| samples, units, tokens           | of those, on the train side                                   |
| val_units                        | and on the val side                                           |
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from mixtures.allocate import caps_of, epochs_of, redistributed
from mixtures.config import Mixture
from mixtures.limits import kept_fractions
from mixtures.queues import Key, Queue

COUNTS = ("rows", "kept", "samples", "units", "tokens", "val_units")
YIELDS = pl.Schema({"subset": pl.String, "limited": pl.UInt32, **dict.fromkeys(COUNTS, pl.Float64)})
STEP = 8
"""Where what is needed is estimated from what was read (budgets in another unit than tokens,
limits), a stretch grows by this part of itself at a time, so that it ends near its need."""
AHEAD = 0.9
"""Of the parts that seem to be missing, how many are looked at in the next round: the rest is seen
more clearly then."""


@dataclass(frozen=True)
class Settled:
    """How far each queue is used, or how far it must be looked at before that can be said."""

    lengths: list[int]
    """[queues] parts used, as far as it is known."""
    look: list[int]
    """[queues] parts to look at next; none is more than were given where `lengths` are final."""
    short: frozenset[int]
    """Queues that end before they cover their part."""

    def final(self, known: Sequence[int]) -> bool:
        """Whether nothing more has to be looked at."""
        return all(look <= there for look, there in zip(self.look, known, strict=True))


Survival = Mapping[tuple[str, str, int], float]
"""(component, subset, limited) -> what the rules on the whole mixture leave of its kept samples."""


def settle(
    queues: Sequence[Queue],
    yields: Sequence[Sequence[pl.DataFrame]],
    mixture: Mixture,
    *,
    universe: Mapping[Key, float],
    survival: Survival,
    least: Sequence[int],
    accepted: frozenset[int] = frozenset(),
) -> Settled:
    """How far each queue is used, given the YIELDS of its first parts.

    `universe`: (component, subset) -> the fraction of the subset's rows that its parts hold.
    `least`: [queues] parts that are used in any case. `accepted`: queues whose shortness is none.
    """
    looks = [
        Look.of(queue, found, mixture, universe=universe, survival=survival)
        for queue, found in zip(queues, yields, strict=True)
    ]
    known = [look.known for look in looks]
    first = [len(q.subsets) if q.whole else n for q, n in zip(queues, least, strict=True)]
    if any(n > k for n, k in zip(first, known, strict=True)):
        return Settled(first, [max(n, k) for n, k in zip(first, known, strict=True)], frozenset())
    ended: frozenset[int] = frozenset()
    while True:
        found = _grown(looks, mixture, first=first, ended=ended)
        new = found.short - ended - accepted
        stops = mixture.on_shortage == "error" and mixture.tokens != "max"
        if not new or stops or not found.final(known):
            return replace(found, short=new)
        ended |= new


def _grown(
    looks: Sequence["Look"], mixture: Mixture, *, first: Sequence[int], ended: frozenset[int]
) -> Settled:
    """The same, given which queues end before they cover their part."""
    lengths = list(first)
    known = [look.known for look in looks]
    fixed = mixture.measure == "tokens" and not mixture.limits
    while True:
        looks = _thinned(looks, lengths, mixture)
        needs = needs_of(looks, lengths, mixture, ended=ended)
        both = list(zip(looks, needs, lengths, strict=True))
        wanted = [look.shortest(need, at_least=n) for look, need, n in both]
        if not fixed:
            wanted = [min(w, n + max(1, n // STEP)) for w, n in zip(wanted, lengths, strict=True)]
        if any(w > k for w, k in zip(wanted, known, strict=True)):
            ahead = [
                look.ahead(need, wanted=w) for (look, need, _), w in zip(both, wanted, strict=True)
            ]
            return Settled(lengths, ahead, frozenset())
        if wanted == lengths:
            # A stretch that seems to cover its need is not short, whatever lies behind it: that may
            # have been looked at or not.
            short = [
                i
                for i, (look, need, n) in enumerate(both)
                if n == len(look.queue.subsets) and look.is_short(need)
            ]
            return Settled(lengths, known, frozenset(short))
        lengths = wanted


def needs_of(
    looks: Sequence["Look"], lengths: Sequence[int], mixture: Mixture, *, ended: frozenset[int]
) -> np.ndarray:
    """[queues] units of the train split that each shall give; `ended`: those that give all."""
    ratio = np.array([mixture.components[look.queue.component].ratio for look in looks])
    part = ratio * np.array([look.queue.share for look in looks])
    done = [i for i, look in enumerate(looks) if i in ended or look.queue.whole]
    capacity = np.full(len(looks), np.inf)
    capacity[done] = [looks[i].capacity for i in done]
    if not looks:
        return part  # no file has a row
    if not isinstance(mixture.tokens, int):
        if done:
            return part * (capacity / part).min()
        supply = np.array([look.supply(n) for look, n in zip(looks, lengths, strict=True)])
        scarcest = int(np.argmin(supply / part))
        return np.where(np.arange(len(looks)) == scarcest, np.inf, 0.0)
    asked = part * mixture.tokens / _tokens_per_unit(looks, lengths, part, mixture)
    capacity[[i for i in done if i not in ended]] = np.inf
    if not ended or mixture.on_shortage == "error":
        return asked
    if mixture.on_shortage == "shrink":
        return np.minimum(asked, part * (capacity / part).min())
    return redistributed([look.queue.component for look in looks], asked, capacity)


def _tokens_per_unit(
    looks: Sequence["Look"], lengths: Sequence[int], part: np.ndarray, mixture: Mixture
) -> float:
    """Tokens that one unit of the mixture holds, as far as was read."""
    if mixture.measure == "tokens":
        return 1.0
    both = [look.tokens_and_units(n) for look, n in zip(looks, lengths, strict=True)]
    tokens, units = np.array(both).T
    live = units > 0
    if not live.any() or not tokens[live].any():
        return 1.0
    return float((part[live] * tokens[live] / units[live]).sum() / part[live].sum())


def _thinned(looks: Sequence["Look"], lengths: Sequence[int], mixture: Mixture) -> Sequence["Look"]:
    """The queues with what `limits` leave of each stratum, as far as was read."""
    if not mixture.limits:
        return looks
    lines = [
        {"component": look.queue.component, "subset": subset, "limited": limited, "units": units}
        for look, n in zip(looks, lengths, strict=True)
        for (subset, limited), units in zip(look.strata, look.estimate(n), strict=True)
    ]
    schema = {
        "component": pl.String,
        "subset": pl.String,
        "limited": pl.UInt32,
        "units": pl.Float64,
    }
    fractions = kept_fractions(pl.DataFrame(lines, schema=schema), mixture)
    ends = np.cumsum([len(look.strata) for look in looks])
    return [
        replace(look, thin=some)
        for look, some in zip(looks, np.split(fractions, ends[:-1]), strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the first parts of a queue yield, summed up to each of them."""

    queue: Queue
    known: int
    """Parts looked at."""
    strata: list[tuple[str, int]]
    """[strata] (subset, limited)."""
    owner: np.ndarray
    """[strata] the number of the stratum's subset."""
    counts: np.ndarray
    """[known + 1, strata, COUNTS], rules on the whole mixture and caps applied."""
    fraction: np.ndarray
    """[known + 1, subsets] of what a subset can give, how much these parts do."""
    most: np.ndarray
    """[subsets] how often a sample may be used."""
    val_fraction: float
    thin: np.ndarray
    """[strata] what limits leave."""

    @classmethod
    def of(
        cls,
        queue: Queue,
        found: Sequence[pl.DataFrame],
        mixture: Mixture,
        *,
        universe: Mapping[Key, float],
        survival: Survival,
    ) -> "Look":
        """The sums of the YIELDS of a queue's first parts."""
        # Longer than a screen: one chain of array sums over the same axes.
        known, name = len(found), queue.component
        numbered = [frame.with_columns(part=pl.lit(n)) for n, frame in enumerate(found)]
        lines = pl.concat(numbered) if numbered else YIELDS.to_frame().with_columns(part=pl.lit(0))
        strata = sorted(set(lines.select("subset", "limited").iter_rows()))
        subsets = sorted(set(queue.subsets))
        at = {stratum: i for i, stratum in enumerate(strata)}
        column = [at[one] for one in lines.select("subset", "limited").iter_rows()]
        counts = np.zeros((known + 1, len(strata), len(COUNTS)))
        np.add.at(
            counts,
            (lines["part"].to_numpy() + 1, np.array(column, int)),
            lines.select(COUNTS).to_numpy(),
        )
        counts = counts.cumsum(axis=0)
        owner = np.array([subsets.index(subset) for subset, _ in strata], int)
        read = np.zeros((known + 1, len(subsets)))
        for number in range(known):
            read[number + 1] = read[number]
            read[number + 1, subsets.index(queue.subsets[number])] = queue.ends[number]
        left = [survival.get((name, subset, limited), 1.0) for subset, limited in strata]
        counts[:, :, 1:] *= np.array(left)[None, :, None]
        fraction = np.empty_like(read)
        for u, subset in enumerate(subsets):
            rows, kept = counts[:, owner == u, :2].sum(axis=1).T
            whole = np.divide(
                rows,
                read[:, u] * universe.get((name, subset), 1.0),
                out=np.zeros(len(rows)),
                where=read[:, u] > 0,
            )
            cap = np.full(len(rows), np.inf)
            for _, bound in caps_of(mixture, name, subset, rows=whole):
                cap = np.minimum(cap, bound)
            there = np.minimum(kept, cap)
            all_of_it = np.minimum(
                np.divide(kept, read[:, u], out=np.zeros(len(rows)), where=read[:, u] > 0), cap
            )
            fraction[:, u] = np.divide(there, all_of_it, out=read[:, u].copy(), where=all_of_it > 0)
            stays = np.divide(there, kept, out=np.ones(len(rows)), where=kept > 0)
            counts[:, owner == u, 1:] *= stays[:, None, None]
        return cls(
            queue=queue,
            known=known,
            strata=strata,
            owner=owner,
            counts=counts,
            fraction=fraction,
            most=np.array([epochs_of(mixture.components[name], subset) for subset in subsets]),
            val_fraction=mixture.val_fraction,
            thin=np.ones(len(strata)),
        )

    def column(self, name: str) -> np.ndarray:
        """[known + 1, strata] one of COUNTS, thinned."""
        return self.counts[:, :, COUNTS.index(name)] * self.thin

    def estimated(self, name: str) -> np.ndarray:
        """[known + 1, strata] the same of all that the subsets can give, as these parts show it."""
        shown = self.fraction[:, self.owner]
        return np.divide(self.column(name), shown, out=np.zeros(shown.shape), where=shown > 0)

    def estimate(self, length: int) -> np.ndarray:
        """[strata] units of the train split of all, as the first `length` parts show it."""
        return self.estimated("units")[length]

    def supply(self, length: int) -> float:
        """Units that the queue can give with all its epochs, as its first parts show it."""
        units = self.estimate(length)
        epochs = self.most[self.owner][units > 0]
        return float(units.sum() * epochs.min()) if len(epochs) else 0.0

    @property
    def capacity(self) -> float:
        """The same of a queue that was looked at to its end."""
        return self.supply(self.known)

    def tokens_and_units(self, length: int) -> tuple[float, float]:
        """Tokens and units of the train split of all, as the first `length` parts show it."""
        return float(self.estimated("tokens")[length].sum()), float(self.estimate(length).sum())

    def covers(self, need: float) -> np.ndarray:
        """[known + 1] whether so many parts give `need` units of train, each sample once, in the
        proportions of the subsets, and its part of val: that from a standard deviation below,
        since whose turn val is falls by chance.
        """
        if not math.isfinite(need):
            return np.zeros(self.known + 1, bool)
        once = (self.fraction * np.minimum(self.most, 1.0)).min(axis=1)
        train = once * self.estimated("units").sum(axis=1)
        val = once * self.estimated("val_units").sum(axis=1)
        samples, units = self.column("samples").sum(axis=1), self.column("units").sum(axis=1)
        mean = np.divide(units, samples, out=np.zeros(len(units)), where=samples > 0)
        wanted = self.val_fraction * need
        enough_val = val >= wanted - np.sqrt(wanted * mean)
        return (train >= need * (1 - 1e-9)) & enough_val

    def shortest(self, need: float, *, at_least: int) -> int:
        """The fewest parts, `at_least` so many, that cover the need; one more than are known where
        those do not, all where there are no more.
        """
        covering = np.flatnonzero(self.covers(need)[at_least:])
        if len(covering):
            return at_least + int(covering[0])
        return min(self.known + 1, len(self.queue.subsets))

    def ahead(self, need: float, *, wanted: int) -> int:
        """How many parts to look at next, `wanted` at least: most of what seems to be missing."""
        if wanted <= self.known:
            return self.known
        every = len(self.queue.subsets)
        units = self.estimate(self.known).sum()
        if not math.isfinite(need):
            return every
        if units <= 0:
            return min(every, max(wanted, 2 * self.known))
        needed = need / units / min(1.0, self.most.min())
        last = int(np.searchsorted(self.queue.starts, min(needed, 1.0), side="left"))
        sure = AHEAD - 1 / math.sqrt(1 + self.column("samples")[self.known].sum())
        return min(every, max(wanted, self.known + int(max(sure, 0.5) * (last - self.known))))

    def is_short(self, need: float) -> bool:
        """Whether all parts with all epochs give less than `need`, by more than half a sample."""
        if self.known < len(self.queue.subsets):
            return False
        units, samples = self.estimate(self.known), self.estimated("samples")[self.known]
        if units.sum() == 0:
            return need > 0
        mine = np.flatnonzero(units > 0)
        asked = need * units[mine] / units.sum()
        missing = asked - units[mine] * self.most[self.owner[mine]]
        half = 0.5 * units[mine] / np.maximum(samples[mine], 1)
        return bool((missing > half + 1e-9 * asked).any()) if math.isfinite(need) else True
