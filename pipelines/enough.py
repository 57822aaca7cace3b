"""Parts are read until what survives covers the budget; then the index of those that are used.

    todo --first parts of each queue--> read --yields--> settle --more parts--> read ...
         --rules on the whole mixture--> what they leave --settle--> perhaps more parts

What is read ahead is guessed from what was read; what is used is not: `mixtures/enough.py` finds it
from the first part on, whatever else lies in `work`. Parts that were read and are not used stay
there, for a build that needs them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import polars as pl

from mixtures import pick as picking
from mixtures.config import Mixture, reads_all
from mixtures.draw import sample_keys
from mixtures.enough import YIELDS, settle
from mixtures.limits import limit_masks
from mixtures.queues import Queue, queues_of
from pipelines.engine import tables
from pipelines.index import PARTS, Index, index_in, index_lines, whole_rows
from pipelines.near import Searching, compare_in_memory
from pipelines.survey import Piece, Place, Survey, licences_of
from pipelines.unpublished import pick_or_keep

Key = tuple[str, str]
"""(component, subset)."""
READ_WHOLE = {
    "archive": "an archive that is read in order",
    "tar": "a tar whose headers are not read beforehand",
    "compressed": "compressed lines",
}
"""Kinds of parts that are one file each, however large, unless they are a `span` of it: nothing
tells where a row in it begins."""
NOTABLE = 0.05
"""Of its subset, from which on a file that is only read whole is named."""


class Read(Protocol):
    """Sees to it that samples, verdicts and tokens of the pieces are there; `measuring`: the cost
    of rules as well.
    """

    def __call__(self, pieces: Sequence[Piece], *, measuring: bool) -> None:
        """As the class says."""


def read_enough(
    todo: Survey,
    mixture: Mixture,
    place: Place,
    *,
    read: Read,
    folder: str,
    searching: Searching = compare_in_memory,
) -> tuple[Survey, Index]:
    """(The survey with the pieces that are used, in their order; their index, nothing picked, which
    lies in `folder`).
    """
    queues, pieces = in_queues(todo, mixture)
    universe = {(p.component, p.part.subset): p.part.share for p in todo.pieces}
    least = [queue.least for queue in queues]
    known = [len(q.subsets) if q.whole else n for q, n in zip(queues, least, strict=True)]
    place_of = {(p.component, p.part.name): number for number, p in enumerate(todo.pieces)}
    yields: list[list[pl.DataFrame]] = [[] for _ in queues]
    survival: dict[tuple[str, str, int], float] = {}
    accepted: frozenset[int] = frozenset()
    lengths: list[int] = []
    used, index = todo, index_in(folder, [], mixture)
    while True:
        first = not any(yields)
        new = [
            p for q, have, n in zip(pieces, yields, known, strict=True) for p in q[len(have) : n]
        ]
        if new:
            in_order = sorted(new, key=lambda p: place_of[p.component, p.part.name])
            read(in_order, measuring=first)
        fresh = iter(yields_of(new, mixture))
        for have, n in zip(yields, known, strict=True):
            have += [next(fresh) for _ in range(n - len(have))]
        found = settle(
            queues,
            yields,
            mixture,
            universe=universe,
            survival=survival,
            least=least,
            accepted=accepted,
        )
        if not found.final(known):
            known = found.look
            continue
        if found.lengths != lengths:
            lengths = found.lengths
            used = chosen(todo, queues, pieces, lengths)
            index = index_in(folder, used.pieces, mixture, searching=searching)
            left = survival_of(index, yields, queues, lengths)
            if left != survival:
                survival, least = left, lengths
                continue
        if found.short - accepted:  # most often an error; where rounding alone made it short, not
            pick_or_keep(index, used, mixture, place)
            accepted |= found.short
            continue
        return used, index


def in_queues(todo: Survey, mixture: Mixture) -> tuple[list[Queue], list[list[Piece]]]:
    """(The queues, the pieces of each in the order of reading)."""
    turns: dict[Key, list[Piece]] = {}
    for p in sorted(todo.pieces, key=lambda p: p.part.turn):
        turns.setdefault((p.component, p.part.subset), []).append(p)
    order = dict.fromkeys((p.component, p.part.subset) for p in todo.pieces)
    sizes = {key: [p.part.size for p in turns[key]] for key in order}
    queues = queues_of(sizes, mixture)
    return queues, [
        [turns[q.component, s][turn] for s, turn in zip(q.subsets, q.turns, strict=True)]
        for q in queues
    ]


def chosen(
    todo: Survey,
    queues: Sequence[Queue],
    pieces: Sequence[Sequence[Piece]],
    lengths: Sequence[int],
) -> Survey:
    """The survey with the first pieces of every queue alone, in the order that it had."""
    used, read = set[tuple[str, str, int]](), dict[Key, float]()
    for queue, mine, length in zip(queues, pieces, lengths, strict=True):
        for p, end in zip(mine[:length], queue.ends, strict=False):
            used.add((p.component, p.part.subset, p.part.number))
            read[p.component, p.part.subset] = end
    kept = [
        replace(p, part=replace(p.part, share=p.part.share * read[p.component, p.part.subset]))
        for p in todo.pieces
        if (p.component, p.part.subset, p.part.number) in used
    ]
    return replace(todo, pieces=kept, read={key: part for key, part in read.items() if part < 1})


def yields_of(pieces: Sequence[Piece], mixture: Mixture) -> list[pl.DataFrame]:
    """YIELDS of every piece, from its verdicts and tokens."""
    found = []
    licences = licences_of(mixture)
    for start in range(0, len(pieces), PARTS):
        some = pieces[start : start + PARTS]
        lines = pl.DataFrame(index_lines(some, mixture, first=0))
        keys = sample_keys(lines["id"], seed=mixture.seed)
        masks = limit_masks(lines, mixture, licences=licences)
        train = ~pl.col("val")
        unit = picking.unit_of(mixture)
        kept = (
            lines.with_columns(limited=masks, val=pl.Series(picking.in_val(keys, mixture)))
            .filter(pl.col("rule").is_null())
            .group_by("piece", "limited")
            .agg(
                kept=pl.len(),
                samples=train.sum(),
                units=(unit * train).sum(),
                tokens=(pl.col("num_tokens").cast(pl.Float64) * train).sum(),
                val_units=(unit * pl.col("val")).sum(),
            )
        )
        for number, piece in enumerate(some):
            subset, count = piece.part.subset, tables.num_rows(piece.verdicts)
            mine = kept.filter(piece=number).drop("piece").sort("limited")
            about = pl.DataFrame({"subset": [subset], "limited": [0], "rows": [count]})
            both = pl.concat(
                [about, mine.with_columns(subset=pl.lit(subset))], how="diagonal_relaxed"
            )
            found.append(both.fill_null(0).select(YIELDS.names()).cast(YIELDS))
    return found


def survival_of(
    index: Index,
    yields: Sequence[Sequence[pl.DataFrame]],
    queues: Sequence[Queue],
    lengths: Sequence[int],
) -> dict[tuple[str, str, int], float]:
    """(component, subset, limited) -> what the rules on the whole mixture leave of the samples that
    no rule of their own takes, where that is not all.
    """
    after = index.live_counts()
    before: dict[tuple[str, str, int], float] = {}
    for queue, have, length in zip(queues, yields, lengths, strict=True):
        for frame in have[:length]:
            for subset, limited, kept in frame.select("subset", "limited", "kept").iter_rows():
                key = queue.component, subset, limited
                before[key] = before.get(key, 0.0) + kept
    return {
        key: after.get(key, 0) / kept
        for key, kept in before.items()
        if kept and after.get(key, 0) < kept
    }


def reading_of(
    todo: Survey, live: Mapping[tuple[str, str, int], int], mixture: Mixture
) -> dict[str, Any]:
    """Component -> what of it was read: `read` (enough or all), `parts` `of` all, `share` of its
    rows, `supply` (samples of train and val that all of it would give, as estimated from those),
    and for each subset that was not read whole the same, with the parts that were not read. `live`:
    (component, subset, limited) -> samples that are left.
    """
    found: dict[str, Any] = {}
    left = Counter[Key]()
    for (component, subset, _), count in live.items():
        left[component, subset] += count
    rows = whole_rows(todo.pieces)
    by: dict[str, dict[str, list[Piece]]] = {}
    for p in todo.pieces:
        by.setdefault(p.component, {}).setdefault(p.part.subset, []).append(p)
    for name, subsets in by.items():
        parts: dict[str, Any] = {}
        read_rows = all_rows = 0.0
        for subset, mine in subsets.items():
            here = sum(tables.num_rows(p.verdicts) for p in mine)
            whole = rows.get((name, subset), here)
            read_rows, all_rows = read_rows + here, all_rows + whole
            parts[subset] = {
                "parts": len(mine),
                "of": mine[0].part.of,
                "share": mine[0].part.share,
                "supply": round(left[name, subset] / todo.read.get((name, subset), 1.0)),
                "unread": ranges({p.part.number for p in mine}, mine[0].part.of),
            }
        found[name] = {
            "read": "all" if reads_all(mixture, name) else "enough",
            "parts": sum(part["parts"] for part in parts.values()),
            "of": sum(part["of"] for part in parts.values()),
            "share": read_rows / all_rows if all_rows else 1.0,
            "supply": sum(part["supply"] for part in parts.values()),
            "subsets": {subset: part for subset, part in parts.items() if part["share"] < 1},
        }
    return found


def ranges(read: set[int], count: int) -> str:
    """The numbers below `count` that are not among `read`: `0-3, 7`."""
    out: list[list[int]] = []
    for number in range(count):
        if number in read:
            continue
        if out and out[-1][1] == number - 1:
            out[-1][1] = number
        else:
            out.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in out)


def read_whole(pieces: Sequence[Piece]) -> str:
    """The largest file of a component that is read whole or not at all and is much of its subset,
    with its size; empty where there is none.
    """
    bytes_of: dict[str, int] = {}
    for p in pieces:
        bytes_of[p.part.subset] = bytes_of.get(p.part.subset, 0) + (p.part.num_bytes or 0)
    found = [
        p.part
        for p in pieces
        if p.part.inputs["kind"] in READ_WHOLE
        and "span" not in p.part.inputs
        and (p.part.num_bytes or 0) >= NOTABLE * bytes_of[p.part.subset] > 0
    ]
    if not found:
        return ""
    largest = max(found, key=lambda part: part.num_bytes or 0)
    inputs, more = largest.inputs, f", and {len(found) - 1} more" if found[1:] else ""
    file = inputs["archive"].name if "archive" in inputs else inputs["url"].rpartition("/")[2]
    return (
        f"{file} ({tables.human_bytes(largest.num_bytes or 0)}, "
        f"{READ_WHOLE[inputs['kind']]}{more}) is read whole, however little of it is needed"
    )
