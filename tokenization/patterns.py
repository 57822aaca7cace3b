"""Rows from few kinds of samples: a linear program over patterns says how many of each to make.

Where crops bind, a row holds a handful of samples of few sizes, and filling rows one by one wastes
what fits together badly at the end. So samples are put into kinds (crops, tokens in steps), and the
fewest fractional rows that hold all kinds are found by column generation: prices per kind from the
simplex method, and the pattern of highest price that both limits allow from a dynamic program
(Gilmore & Gomory 1961, https://doi.org/10.1287/opre.9.6.849). Prices bound the rows of any packing
from below, at every step (Farley 1990, https://doi.org/10.1287/opre.38.5.922).
"""

from dataclasses import dataclass

import numpy as np

STEPS = 16
"""Steps into which the tokens of a row are divided."""
KINDS = 220
"""Above so many kinds a program is not solved: it would cost more than it gains."""
RARE = 0.0005
"""Share of the samples below which a kind is put together with the next longer one."""
ROUNDS = 1000
"""Times that prices are made at most."""
TRIES = 60
"""Patterns that are looked at for the same prices."""
NEAR = 1.001
"""Share of rows known to be needed at which looking for better patterns is over."""
PIVOTS = 3000
"""Exchanges of patterns after which the best prices and patterns so far are used."""
WORK = 250_000
"""Kinds times (tokens, crops) of a row above which steps are made coarser."""


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
    """Patterns, one a column; how often each; and what they prove."""

    patterns: np.ndarray
    amounts: np.ndarray
    least: float
    """No packing of these kinds has fewer rows."""


def kinds_of(
    tokens: np.ndarray, crops: np.ndarray, *, step: int, smallest: float, below: bool
) -> Kinds:
    """Samples of equal crops and similar tokens, at least `smallest` of them where there are.

    Their size is that of the smallest of them, rounded down, where `below`; else their mean,
    rounded up.
    """
    label = np.full(len(tokens), -1, dtype=np.int64)
    steps: list[int] = []
    sizes: list[int] = []
    number: list[float] = []
    for size in np.unique(crops).tolist():
        members = np.flatnonzero(crops == size)
        members = members[np.argsort(tokens[members], kind="stable")]
        level = tokens[members] // step
        cuts = [0]
        for cut in (np.flatnonzero(np.diff(level)) + 1).tolist():
            if cut - cuts[-1] >= smallest:
                cuts.append(cut)
        for begin, end in zip(cuts, [*cuts[1:], len(members)], strict=True):
            part = members[begin:end]
            mean = -(-int(tokens[part].sum()) // (step * len(part)))
            height = int(level[begin]) if below else mean
            if not height and not size:
                continue
            label[part] = len(steps)
            steps.append(height)
            sizes.append(size)
            number.append(float(len(part)))
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
    prices: np.ndarray, kinds: Kinds, used: np.ndarray, width: int, height: int
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
    pictures = used[kinds.crops[used] > 0]
    pictures = pictures[np.argsort(kinds.crops[pictures], kind="stable")]
    sizes = kinds.crops[pictures]
    columns = np.arange(width + 1)
    before = columns + width - kinds.steps[pictures][:, None] - sizes[:, None] * (2 * width + 1)
    ends = np.searchsorted(sizes, np.arange(height + 1), side="right").tolist()
    gain = prices[pictures][:, None]
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
        last[crops] = np.where(better, pictures[choice], -1)
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


def solve(
    kinds: Kinds, *, width: int, max_crops: int, close: float, known: float = 0.0
) -> Solution:
    """The fewest fractional rows, to within a share `close` or as far as PIVOTS exchanges lead.

    `known` is a number of rows below which no packing can go, for stopping early.
    Every kind must have a size within `width` steps and `max_crops`.
    """
    fits = np.minimum(
        width // np.maximum(kinds.steps, 1) + np.where(kinds.steps == 0, 10**6, 0),
        max_crops // np.maximum(kinds.crops, 1) + np.where(kinds.crops == 0, 10**6, 0),
    ).astype(float)
    patterns, inverse = np.diag(fits), np.diag(1 / fits)
    amounts = kinds.number / fits
    least, done, seen = known, 0, -1
    for _ in range(ROUNDS):
        if done == seen:  # rounding errors have added up
            inverse = np.linalg.inv(patterns)
        prices = inverse.sum(axis=0)
        used = _worth(prices, kinds)
        best, last = _best_patterns(prices, kinds, used, width, max_crops)
        highest = max(float(best[max_crops, width]), 1.0)
        least = max(least, float(np.maximum(prices, 0) @ kinds.number) / highest)
        if (
            highest < 1 + 1e-7
            or max(least, known * NEAR) >= amounts.sum() * (1 - close)
            or done >= PIVOTS
        ):
            return Solution(patterns=patterns, amounts=amounts, least=least)
        stuck, seen = done == seen, done
        value = np.maximum(prices, 0) + best[max_crops - kinds.crops, width - kinds.steps]
        for n in np.argsort(-value, kind="stable")[:TRIES].tolist():
            if value[n] < 1 + 1e-7:
                break
            pattern = _pattern(
                last, max_crops - int(kinds.crops[n]), width - int(kinds.steps[n]), kinds
            )
            pattern[n] += 1
            if prices @ pattern < 1 + 1e-7 + 0.3 * (highest - 1):
                continue
            of = np.flatnonzero(pattern)
            change = (inverse[:, of] * pattern[of]).sum(axis=1)
            rises = change > 1e-9
            ratio = np.where(rises, amounts / np.where(rises, change, 1.0), np.inf)
            leaves = int(ratio.argmin())
            step = ratio[leaves]
            patterns[:, leaves] = pattern
            done += 1
            if done % 250:
                line = inverse[leaves] / change[leaves]
                inverse -= np.outer(change, line)
                inverse[leaves] = line
                amounts = np.maximum(amounts - step * change, 0)
                amounts[leaves] = step
            else:
                inverse = np.linalg.inv(patterns)
                amounts = np.maximum(inverse @ kinds.number, 0)
            prices = inverse.sum(axis=0)
        if stuck and done == seen:
            break
    return Solution(patterns=patterns, amounts=amounts, least=least)


def least_by_patterns(
    tokens: np.ndarray,
    crops: np.ndarray,
    *,
    seq_len: int,
    max_crops: int,
    with_tokens: bool = True,
) -> float:
    """Rows below which no packing can go, from prices of kinds rounded down; 0 if out of reach.

    From crops alone and, where `with_tokens` and not too much WORK, from crops and tokens.
    """
    best = 0.0
    for steps in (1, STEPS) if with_tokens else (1,):
        step = -(-seq_len // steps)
        kinds = kinds_of(tokens, crops, step=step, smallest=1, below=True)
        width, number = seq_len // step, len(kinds.number)
        if 0 < number <= KINDS and (max_crops + 1) * (width + 1) * number <= WORK / 2:
            found = solve(kinds, width=width, max_crops=max_crops, close=1e-4)
            best = max(best, found.least)
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

    Rows keep both limits. Rows with most room for tokens get the longest samples of each kind.
    """
    order = rng.permutation(len(tokens))
    for steps in (STEPS, STEPS // 2):
        step = -(-seq_len // steps)
        kinds = kinds_of(
            tokens[order], crops[order], step=step, smallest=RARE * len(tokens), below=False
        )
        number = len(kinds.number)
        width = max(seq_len // step, int(kinds.steps.max(initial=0)))
        if 0 < number <= KINDS and (max_crops + 1) * (width + 1) * number <= WORK:
            break
    else:
        return None
    known = least_by_patterns(
        tokens, crops, seq_len=seq_len, max_crops=max_crops, with_tokens=False
    )
    found = solve(kinds, width=width, max_crops=max_crops, close=2e-3, known=known)
    lists: list[list[int]] = []
    for n in range(len(kinds.number)):
        members = order[kinds.label == n]
        lists.append(members[np.argsort(-tokens[members], kind="stable")].tolist())
    left = order[kinds.label < 0].tolist()
    rows: list[list[int]] = []
    whole = np.floor(found.amounts + 1e-6).astype(np.int64)
    rest = found.amounts - whole
    tight = np.argsort(-(kinds.steps @ found.patterns), kind="stable").tolist()
    likely = np.argsort(-rest, kind="stable").tolist()
    turns = [(n, int(whole[n])) for n in tight] + [(n, 1) for n in likely if rest[n] > 0.1]
    for turn, (column, times) in enumerate(turns):
        pattern = found.patterns[:, column]
        slots = np.repeat(np.arange(len(lists)), pattern.astype(int)).tolist()
        for _ in range(times):
            if turn >= len(tight) and any(len(lists[n]) < pattern[n] for n in slots):
                continue
            row = [lists[n].pop() for n in slots if lists[n]]
            while (over := int(tokens[row].sum()) - seq_len) > 0:
                enough = [n for n in row if tokens[n] >= over] or row
                out = min(enough, key=lambda n: (crops[n], tokens[n]))
                row.remove(out)
                left.append(out)
            if row:
                rows.append(row)
    left += [n for kind in lists for n in kind]
    return (
        rows,
        _inserted(rows, left, tokens, crops, seq_len, max_crops),
        max(known, found.least if steps == STEPS else 0.0),
    )


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
