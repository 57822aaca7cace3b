"""Parts that are read together, in the order in which they are read.

A *queue* is a subset with a weight, or all subsets of a component without, one fraction of each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mixtures.config import Mixture, is_weighted, reads_all

Key = tuple[str, str]
"""(component, subset)."""


@dataclass(frozen=True, kw_only=True)
class Queue:
    """Parts that are read together, in order."""

    component: str
    share: float
    """Of the component's part of the mixture."""
    subsets: tuple[str, ...]
    """[parts] the subset of each part."""
    turns: tuple[int, ...]
    """[parts] which of its subset's parts it is, in the order of their turn."""
    starts: tuple[float, ...]
    """[parts] the fraction of its subset that lies before it, ascending."""
    ends: tuple[float, ...]
    """[parts] the fraction of its subset that it ends."""
    whole: bool
    """All of it is read, however little is used."""

    @property
    def least(self) -> int:
        """Parts that are read in any case: the first of each subset."""
        return self.starts.count(0.0)


def queues_of(parts: Mapping[Key, Sequence[float]], mixture: Mixture) -> list[Queue]:
    """The queues of a mixture, and in each the parts in the order of reading; `parts`: subset ->
    the sizes of its parts in the order of their turn.
    """
    made = []
    for name, component in mixture.components.items():
        mine = [subset for (owner, subset) in parts if owner == name]
        weight = {s: settings.weight for s, settings in component.subsets.items()}
        weighted = is_weighted(component)
        named = {s: 1.0 if w is None else w for s, w in weight.items()}
        total = sum(named.get(s, 1.0) for s in dict.fromkeys([*named, *mine]))
        for together in [[s] for s in mine] if weighted else [mine]:
            lines = sorted(
                (start, turn, end, subset)
                for subset in together
                for turn, (start, end) in enumerate(_stretches(parts[name, subset]))
            )
            made.append(
                Queue(
                    component=name,
                    share=named.get(together[0], 1.0) / total if weighted else 1.0,
                    subsets=tuple(subset for *_, subset in lines),
                    turns=tuple(turn for _, turn, *_ in lines),
                    starts=tuple(start for start, *_ in lines),
                    ends=tuple(end for _, _, end, _ in lines),
                    whole=reads_all(mixture, name),
                )
            )
    return [queue for queue in made if queue.subsets]


def _stretches(sizes: Sequence[float]) -> list[tuple[float, float]]:
    """(start, end) of each part as fractions of all; by number where no size is known."""
    known = np.asarray(sizes, float) if sum(sizes) else np.ones(len(sizes))
    ends = np.cumsum(known) / known.sum()
    ends[-1] = 1.0
    return list(zip(np.r_[0.0, ends[:-1]].tolist(), ends.tolist(), strict=True))
