"""Rows from few kinds of samples: a linear program over patterns says how many of each to make.

Where crops bind, a row holds a handful of samples of few sizes, and filling rows one by one wastes
what fits together badly at the end. So samples are put into kinds (crops, tokens in steps), and the
fewest fractional rows that hold all kinds are found by column generation: prices per kind from the
program over the patterns known so far, and the pattern of highest price that both limits allow from
a dynamic program (Gilmore & Gomory 1961, https://doi.org/10.1287/opre.9.6.849), at prices drawn
towards the best ones so far (Wentges 1997, Weighted Dantzig-Wolfe decomposition, International
Transactions in Operational Research 4). Prices bound the rows of any packing from below, at every
step (Farley 1990, https://doi.org/10.1287/opre.38.5.922).

A kind is as long as the mean of its samples when rows are made, and as short as its shortest one
when they are bounded: no real row is then missing among the patterns.
"""

from dataclasses import dataclass

import numpy as np

STEPS = 64
"""Steps into which the tokens of a row are divided."""
LEVELS = 32
"""Ranges of tokens, of equal width, that make kinds of samples when rows are made."""
KINDS = 420
"""Above so many kinds ranges are made wider."""
RARE = 0.0005
"""Share of the samples below which a kind is put together with the next longer one."""
RARE_IN_BOUND = 0.0002
"""The same where rows are bounded."""
ROUNDS = 300
"""Times that prices are made at most."""
TRIES = 60
"""Patterns that are looked at for the same prices."""
DRAWN = 0.7
"""Weight of the best prices so far in those that patterns are sought for."""
CLOSE = 5e-4
"""Share of rows between program and bound at which the program is solved."""
WORK = 8_000_000
"""Kinds times (tokens, crops) of a row above which ranges and steps are made coarser."""


@dataclass(frozen=True, kw_only=True)
class Kinds:
    """Samples of nearly one size, as the program sees them; sizes in steps and crops."""

    label: np.ndarray
    """Kind of each sample, -1 for samples without any size."""
    steps: np.ndarray
    crops: np.ndarray
    number: np.ndarray
    """Samples of each kind, float."""


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Patterns, one a column; how often each, none never; and what they prove."""

    patterns: np.ndarray
    amounts: np.ndarray
    least: float
    """No packing of these kinds has fewer rows."""


def kinds_of(
    tokens: np.ndarray,
    crops: np.ndarray,
    counts: np.ndarray,
    *,
    level: int,
    step: int,
    smallest: float,
    below: bool,
) -> Kinds:
    """Samples of equal crops and tokens of one range of `level`, at least `smallest` of them where
    there are. `counts`: how many samples are of each size.

    Their size in steps of `step` is that of the shortest of them, rounded down, where `below`; else
    their mean, rounded to the nearest.
    """
    label = np.full(len(tokens), -1, dtype=np.int64)
    steps: list[int] = []
    sizes: list[int] = []
    number: list[float] = []
    for size in np.unique(crops).tolist():
        members = np.flatnonzero(crops == size)
        members = members[np.argsort(tokens[members], kind="stable")]
        before = np.r_[0, np.cumsum(counts[members])]
        cuts = [0]
        for cut in (np.flatnonzero(np.diff(tokens[members] // level)) + 1).tolist():
            if before[cut] - before[cuts[-1]] >= smallest:
                cuts.append(cut)
        for begin, end in zip(cuts, [*cuts[1:], len(members)], strict=True):
            part = members[begin:end]
            many = int(before[end] - before[begin])
            mean = int(tokens[part] @ counts[part] / (step * many) + 0.5)
            height = int(tokens[part[0]]) // step if below else max(mean, 1)
            if not height and not size:
                continue
            label[part] = len(steps)
            steps.append(height)
            sizes.append(size)
            number.append(float(many))
    return Kinds(label=label, steps=np.array(steps), crops=np.array(sizes), number=np.array(number))


def _worth(prices: np.ndarray, kinds: Kinds) -> np.ndarray:
    """Kinds with a price that no kind of at most their size has as well."""
    found: list[int] = []
    for n in np.lexsort((kinds.steps, kinds.crops, -prices)).tolist():
        if prices[n] <= 1e-9:
            break
        if not (
            (kinds.steps[found] <= kinds.steps[n]) & (kinds.crops[found] <= kinds.crops[n])
        ).any():
            found.append(n)
    return np.array(found, dtype=np.int64)


def _best_patterns(
    prices: np.ndarray, kinds: Kinds, used: np.ndarray, *, width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """(highest price, last kind taken or -1) of every room [height + 1 crops, width + 1 steps]."""
    best = np.full((height + 1, 2 * width + 1), -np.inf)  # the left half is out of the row
    last = np.full((height + 1, width + 1), -1, dtype=np.int64)
    text = [(int(kinds.steps[n]), float(prices[n]), n) for n in used.tolist() if not kinds.crops[n]]
    best[0, width] = 0.0
    for room in range(1, width + 1):
        best[0, width + room] = best[0, width + room - 1]
        for steps, price, n in text:
            if steps <= room and best[0, width + room - steps] + price > best[0, width + room]:
                best[0, width + room] = best[0, width + room - steps] + price
                last[0, room] = n
    images = used[kinds.crops[used] > 0]
    images = images[np.argsort(kinds.crops[images], kind="stable")]
    sizes = kinds.crops[images]
    columns = np.arange(width + 1)
    before = columns + width - kinds.steps[images][:, None] - sizes[:, None] * (2 * width + 1)
    ends = np.searchsorted(sizes, np.arange(height + 1), side="right").tolist()
    gain = prices[images][:, None]
    flat = best.ravel()
    for crops in range(1, height + 1):
        row = best[crops - 1, width:]
        end = ends[crops]
        if not end:
            best[crops, width:] = row
            continue
        value = flat.take(before[:end] + crops * (2 * width + 1)) + gain[:end]
        choice = value.argmax(axis=0)
        value = value[choice, columns]
        better = value > row + 1e-12
        best[crops, width:] = np.where(better, value, row)
        last[crops] = np.where(better, images[choice], -1)
    return best[:, width:], last


def _pattern(last: np.ndarray, crops: int, steps: int, kinds: Kinds) -> np.ndarray:
    """How many of each kind the best pattern of that room has."""
    pattern = np.zeros(len(kinds.number))
    while crops or steps:
        n = last[crops, steps]
        if n >= 0:
            pattern[n] += 1
            crops -= int(kinds.crops[n])
            steps -= int(kinds.steps[n])
        elif crops:
            crops -= 1
        else:
            steps -= 1
    return pattern


def _program(columns: list[np.ndarray], number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(how often each pattern, price of each kind): the fewest rows that hold all kinds."""
    from scipy.optimize import linprog
    from scipy.sparse import csc_matrix

    found = linprog(
        np.ones(len(columns)),
        A_ub=-csc_matrix(np.stack(columns, axis=1)),
        b_ub=-number,
        method="highs-ds",
    )
    assert found.status == 0, found.message  # patterns of one kind each always hold all
    return found.x, np.maximum(-found.ineqlin.marginals, 0.0)


def solve(
    kinds: Kinds, *, width: int, max_crops: int, within: float, known: float = 0.0
) -> Solution:
    """The fewest fractional rows, to a share CLOSE or `within` rows, or as far as ROUNDS lead.

    `known` is a number of rows below which no packing can go, for stopping early.
    Every kind must have a size, within `width` steps and `max_crops`.
    """
    most = np.maximum(kinds.number, 1).astype(np.int64)
    fits = np.where(kinds.steps > 0, width // np.maximum(kinds.steps, 1), most)
    fits = np.minimum(
        fits, np.where(kinds.crops > 0, max_crops // np.maximum(kinds.crops, 1), most)
    )
    columns = list(np.diag(np.minimum(fits, most).astype(float)))
    alone = len(columns)
    least, ideal = 0.0, np.zeros(0)
    for _ in range(ROUNDS):
        amounts, prices = _program(columns, kinds.number)
        new: list[np.ndarray] = []
        for drawn in (DRAWN, 0.0) if len(ideal) else (0.0,):
            asked = drawn * ideal + (1 - drawn) * prices if drawn else prices
            best, last = _best_patterns(
                asked, kinds, _worth(asked, kinds), width=width, height=max_crops
            )
            highest = max(float(best[max_crops, width]), 1.0)
            bound = float(asked @ kinds.number) / highest
            if bound > least:
                least, ideal = bound, asked / highest
            value = asked + best[max_crops - kinds.crops, width - kinds.steps]
            for n in np.argsort(-value, kind="stable")[:TRIES].tolist():
                pattern = _pattern(
                    last, max_crops - int(kinds.crops[n]), width - int(kinds.steps[n]), kinds
                )
                pattern[n] += 1
                if prices @ pattern > 1 + 1e-7:
                    new.append(pattern)
            if new:
                break
        if not new or max(least, known) >= amounts.sum() * (1 - CLOSE) - within:
            break
        if len(columns) > 6 * alone:
            dear = 1 - np.stack(columns[alone:], axis=1).T @ prices
            kept = np.sort(np.argsort(dear, kind="stable")[: 3 * alone])
            columns = columns[:alone] + [columns[alone + n] for n in kept.tolist()]
        columns += new
    made = np.flatnonzero(amounts > 1e-9)
    patterns = np.stack([columns[n] for n in made.tolist()], axis=1)
    return Solution(patterns=patterns, amounts=amounts[made], least=least)


def least_by_patterns(
    tokens: np.ndarray,
    crops: np.ndarray,
    *,
    counts: np.ndarray,
    seq_len: int,
    max_crops: int,
    known: float = 0.0,
) -> float:
    """Rows below which no packing can go, from prices of kinds rounded down; at least `known`.
    `counts`: how many samples are of each size.

    From crops alone and, as finely as WORK and KINDS allow, from crops and tokens.
    """
    best = known
    for steps in (1, STEPS, STEPS // 4):
        step = -(-seq_len // steps)
        kinds = kinds_of(
            tokens,
            crops,
            counts,
            level=step,
            step=step,
            smallest=RARE_IN_BOUND * int(counts.sum()),
            below=True,
        )
        width, number = seq_len // step, len(kinds.number)
        if 0 < number <= KINDS and (max_crops + 1) * (width + 1) * number <= WORK:
            best = max(
                best, solve(kinds, width=width, max_crops=max_crops, within=0.25, known=best).least
            )
            if steps > 1:
                break
    return best


def rows_of_patterns(
    tokens: np.ndarray,
    crops: np.ndarray,
    *,
    seq_len: int,
    max_crops: int,
    rng: np.random.Generator,
) -> tuple[list[list[int]], list[int], float] | None:
    """(rows, samples no row has room for, rows of the program), or None where it is out of reach.

    Rows keep both limits.
    """
    order = rng.permutation(len(tokens))
    for coarser in (1, 2, 4):
        step = -(-seq_len * coarser // STEPS)
        kinds = kinds_of(
            tokens[order],
            crops[order],
            np.ones(len(order), np.int64),
            level=-(-seq_len * coarser // LEVELS),
            step=step,
            smallest=RARE * len(tokens),
            below=False,
        )
        number = len(kinds.number)
        width = max(seq_len // step, int(kinds.steps.max(initial=0)))
        if 0 < number <= KINDS and (max_crops + 1) * (width + 1) * number <= WORK:
            break
    else:
        return None
    known = max(float(tokens.sum()) / seq_len, float(crops.sum()) / max_crops)
    found = solve(kinds, width=width, max_crops=max_crops, within=0.3, known=known)
    shelves = []
    for n in range(number):
        members = order[kinds.label == n]
        shelves.append(members[np.argsort(tokens[members], kind="stable")].tolist())
    rows: list[list[int]] = []
    left = order[kinds.label < 0].tolist()
    length, cropped = tokens.tolist(), crops.tolist()
    whole = np.floor(found.amounts + 1e-6).astype(np.int64)
    rest = found.amounts - whole
    tight = np.argsort(-(kinds.steps @ found.patterns), kind="stable").tolist()
    likely = [n for n in np.argsort(-rest, kind="stable").tolist() if rest[n] > 0.1]
    for turn, column in enumerate(tight + likely):
        pattern = found.patterns[:, column].astype(np.int64)
        slots = [(int(n), int(pattern[n])) for n in np.flatnonzero(pattern)]
        for _ in range(int(whole[column]) if turn < len(tight) else 1):
            if turn >= len(tight) and any(len(shelves[n]) < count for n, count in slots):
                continue
            row = _taken(shelves, slots, length, seq_len, rng)
            while (over := sum(length[n] for n in row) - seq_len) > 0:
                enough = [n for n in row if length[n] >= over] or row
                out = min(enough, key=lambda n: (cropped[n], length[n]))
                row.remove(out)
                left.append(out)
            if row:
                rows.append(row)
    left += [n for shelf in shelves for n in shelf]
    remaining = _inserted(rows, left, tokens, crops, seq_len, max_crops)
    return rows, remaining, max(known, float(found.amounts.sum()))


def _taken(
    shelves: list[list[int]],
    slots: list[tuple[int, int]],
    length: list[int],
    seq_len: int,
    rng: np.random.Generator,
) -> list[int]:
    """So many samples off each shelf, all as far up it: as far as the row has room for, anywhere
    where it has room for the longest.
    """
    slots = [(n, min(count, len(shelves[n]))) for n, count in slots]

    def at(share: float) -> list[int]:
        chosen = []
        for n, count in slots:
            place = int(share * (len(shelves[n]) - count))
            chosen += shelves[n][place : place + count]
        return chosen

    share = 1.0
    if sum(length[n] for n in at(share)) <= seq_len:
        share = rng.random()
    else:
        share, above = 0.0, 1.0
        for _ in range(8):
            middle = (share + above) / 2
            if sum(length[n] for n in at(middle)) <= seq_len:
                share = middle
            else:
                above = middle
    row = at(share)
    for n, count in slots:
        place = int(share * (len(shelves[n]) - count))
        del shelves[n][place : place + count]
    return row


def _inserted(
    rows: list[list[int]],
    left: list[int],
    tokens: np.ndarray,
    crops: np.ndarray,
    seq_len: int,
    max_crops: int,
) -> list[int]:
    """Those of `left` for which no row has room, after each other one went where it fits best."""
    room = np.array([seq_len - tokens[row].sum() for row in rows], dtype=np.int64)
    crop_room = np.array([max_crops - crops[row].sum() for row in rows], dtype=np.int64)
    remaining = []
    for n in sorted(left, key=lambda n: max(tokens[n] / seq_len, crops[n] / max_crops))[::-1]:
        fits = np.flatnonzero((room >= tokens[n]) & (crop_room >= crops[n]))
        if not len(fits):
            remaining.append(n)
            continue
        spare = crop_room[fits] * (2 * seq_len) * bool(crops[n]) + room[fits]
        best = fits[spare.argmin()]
        rows[best].append(n)
        room[best] -= tokens[n]
        crop_room[best] -= crops[n]
    return remaining
