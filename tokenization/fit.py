"""Which samples share a row: two limits, tokens and crops, and nearly no room left over.

Rows are filled one after another from a pool of samples in random order. Each row takes the largest
sample of the pool, then random ones while there is much room, and its last few are found exactly: a
dynamic program over (tokens, crops), one bit per reachable state, picks the subset that comes
closest to what a row should hold: the mean of what is left, in each dimension; in the dimension
that binds, that mean is the limit itself. So rows cost about the same compute and stay mixed.
Where crops bind and a row holds few samples, a linear program over patterns of sizes does better
(tokenization/patterns.py). Measured beside peers: benchmarks/packing.py.

Subset sums by bit sets are folklore; fixing the largest item and closing the bin exactly is the
minimum bin slack heuristic (Gupta & Ho 1999, https://doi.org/10.1080/095372899232902).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokenization.patterns import least_by_patterns, rows_of_patterns

POOL = 1024
"""Samples in view when a row is filled."""
CANDIDATES = 40
"""Samples among which the end of a row is searched."""
ROOM = 2.5
"""A row is closed exactly once its room is below this many mean samples."""
LAYERS = 14
"""Steps into which the crops of a mean row are divided where they need only be balanced."""
WINDOW = 20_000
"""Samples that best-fit decreasing sorts at once."""
MANY = 200
"""Samples below which a program is not worth its time."""
FEW = 16
"""Mean samples a row from which on patterns are not worth their while."""
SCARCE = 0.75
"""Rows that crops need, as a share of those that tokens need, from which on patterns are tried."""
ENOUGH = 1.005
"""Share of the rows of the program at which no other way is tried."""
SKEW = 0.3
"""Share of `max_crops` by which a row may run ahead of its crops while it is filled at random."""


def _checked(
    num_tokens: Sequence[int] | np.ndarray,
    num_crops: Sequence[int] | np.ndarray,
    seq_len: int,
    max_crops: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Both columns as int64; ValueError where one sample alone is above a limit."""
    tokens = np.asarray(num_tokens, dtype=np.int64)
    crops = np.asarray(num_crops, dtype=np.int64)
    if tokens.shape != crops.shape or tokens.ndim != 1:
        raise ValueError(f"{tokens.shape} token counts, but {crops.shape} crop counts.")
    bad = np.flatnonzero((tokens > seq_len) | (crops > max_crops) | (tokens < 1) | (crops < 0))
    if len(bad):
        raise ValueError(
            f"sample {bad[0]} has {tokens[bad[0]]} tokens and {crops[bad[0]]} crops; {len(bad)} "
            f"such samples.\nexpected: 1 to {seq_len} tokens (seq_len) and at most {max_crops} "
            "crops "
            "(max_crops)\nway out: reject them before packing, or raise the limits."
        )
    return tokens, crops


def _dual_feasible(sizes: np.ndarray, counts: np.ndarray, capacity: int) -> float:
    """A lower bound on the bins of `capacity` that hold items of these sizes, >= total / capacity.

    The maximum over two families of dual feasible functions, alone and combined (Fekete & Schepers
    2001, https://doi.org/10.1007/s101070100243): u_k, which rounds to multiples of 1/k, after U_e,
    which takes items above 1 - e for whole bins and forgets those below e.
    """
    share = sizes / capacity
    best = float(counts @ share)
    epsilons = np.unique(np.concatenate([[0.0], share[share <= 0.5]]))
    if len(epsilons) > 200:
        epsilons = epsilons[np.linspace(0, len(epsilons) - 1, 200).astype(int)]
    for epsilon in epsilons:
        used = np.where(share > 1 - epsilon + 1e-9, 1.0, np.where(share < epsilon, 0.0, share))
        best = max(best, float(counts @ used))
        for k in range(1, 12):
            scaled = used * (k + 1)
            whole = np.abs(scaled - np.rint(scaled)) < 1e-9
            best = max(best, float(counts @ np.where(whole, used, np.floor(scaled + 1e-9) / k)))
    return best


def _crops_matter(number: int, tokens: int, crops: int, seq_len: int, max_crops: int) -> bool:
    """Whether crops need about as many rows as tokens do or more, and rows are of few samples;
    `tokens` and `crops` of so many samples together.
    """
    by_crops, by_tokens = crops / max(max_crops, 1), tokens / seq_len
    return by_crops > SCARCE * by_tokens and number < FEW * max(by_crops, by_tokens)


def least_rows(
    num_tokens: Sequence[int] | np.ndarray,
    num_crops: Sequence[int] | np.ndarray,
    *,
    seq_len: int,
    max_crops: int,
    counts: Sequence[int] | np.ndarray = (),
) -> int:
    """A number of rows below which no packing of these samples can go. `counts`: how many samples
    are of each size; of none: each is one.
    """
    tokens, crops = _checked(num_tokens, num_crops, seq_len, max_crops)
    if not len(tokens):
        return 0
    many = np.asarray(counts, np.int64) if len(counts) else np.ones(len(tokens), np.int64)
    bounds = []
    for sizes, capacity in ((tokens, seq_len), (crops, max(max_crops, 1))):
        each, which = np.unique(sizes, return_inverse=True)
        number = np.bincount(which, many).astype(np.int64)
        bounds.append(_dual_feasible(each, number, capacity))
    if _crops_matter(int(many.sum()), int(tokens @ many), int(crops @ many), seq_len, max_crops):
        limits = {"seq_len": seq_len, "max_crops": max_crops}
        bounds.append(least_by_patterns(tokens, crops, counts=many, known=max(bounds), **limits))
    return int(np.ceil(max(bounds) - 1e-6))


def fill_bound(
    num_tokens: Sequence[int] | np.ndarray,
    num_crops: Sequence[int] | np.ndarray,
    *,
    seq_len: int,
    max_crops: int,
    counts: Sequence[int] | np.ndarray = (),
) -> float:
    """An upper bound of the share of row positions that both limits let hold tokens; 0..1."""
    rows = least_rows(num_tokens, num_crops, seq_len=seq_len, max_crops=max_crops, counts=counts)
    whole = np.dot(num_tokens, counts) if len(counts) else np.sum(num_tokens)
    return float(whole) / (rows * seq_len) if rows else 1.0


def _closing_subset(
    tokens: list[int],
    crops: list[int],
    *,
    room: int,
    crop_room: int,
    want: float,
    crop_want: float,
    weight: float,
    crop_weight: float,
) -> list[int]:
    """Positions of the subset within both rooms that comes closest to what is wanted.

    Bit `crops * stride + tokens` of a state says that some subset has these sums. Items come in
    ascending order, so that walking back prefers few large ones and small ones stay for later rows.
    """
    width = (room + 8) // 8  # bytes per crop count
    stride = width * 8
    state = 1
    states = [state]
    for n, c in zip(tokens, crops, strict=True):
        fits = ((1 << (room - n + 1)) - 1).to_bytes(width, "little") * (crop_room - c + 1)
        state |= (state & int.from_bytes(fits, "little")) << (c * stride + n)
        states.append(state)
    data = state.to_bytes(width * (crop_room + 1), "little")
    best_score, best = float("inf"), 0
    below = (1 << (min(int(want), room) + 1)) - 1
    for c in range(crop_room + 1):
        sums = int.from_bytes(data[c * width : (c + 1) * width], "little")
        if not sums:
            continue
        penalty = crop_weight * abs(crop_want - c)
        if penalty >= best_score:
            continue
        under = sums & below
        n = under.bit_length() - 1 if under else (sums & -sums).bit_length() - 1
        score = penalty + weight * abs(want - n)
        if score < best_score:
            best_score, best = score, c * stride + n
    chosen = []
    for position in range(len(tokens) - 1, -1, -1):
        if (states[position] >> best) & 1:
            continue
        chosen.append(position)
        best -= crops[position] * stride + tokens[position]
    return chosen


def _pooled(
    all_tokens: np.ndarray,
    all_crops: np.ndarray,
    *,
    seq_len: int,
    cap: int,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Rows filled one after another from a pool, as the head of this file says."""
    # Longer than a screen: the inner loop of packing; calls would cost more than they explain.
    number = len(all_tokens)
    stream = rng.permutation(number)
    size = min(POOL, number)
    pool = stream[:size].copy()
    tokens, crops = all_tokens[pool], all_crops[pool]
    key = np.maximum(tokens / seq_len, crops / max(cap, 1))
    taken = np.int64(1 << 60)  # tokens of an empty place in the pool: larger than any room
    ahead = size
    left, crops_left, samples_left = int(all_tokens.sum()), int(all_crops.sum()), number
    mean = left / number
    rows: list[np.ndarray] = []
    place = 0
    while samples_left:
        share = max(left / seq_len, crops_left / max(cap, 1), 1.0)
        aim, crop_aim = left / share, crops_left / share
        weight = max(0.01, (aim / seq_len) ** 64) / seq_len
        crop_weight = max(0.01, (crop_aim / max(cap, 1)) ** 64) / max(cap, 1)
        density = crop_aim / aim
        first = int(key.argmax())
        row = [first]
        used, crops_used = int(tokens[first]), int(crops[first])
        spots = set(row)
        tries = 0
        while seq_len - used > ROOM * mean and tries < 16 and len(row) < samples_left:
            place = (place + 1) % size
            n, c = int(tokens[place]), int(crops[place])
            tries += 1
            if place in spots or used + n > seq_len or crops_used + c > cap:
                continue
            if crops_used + c - density * (used + n) > SKEW * cap:
                continue
            row.append(place)
            spots.add(place)
            used += n
            crops_used += c
            tries = 0
        room, crop_room = seq_len - used, cap - crops_used
        open_ = (tokens <= room) & (crops <= crop_room)
        open_[row] = False
        fits = np.flatnonzero(open_)
        if len(fits) > CANDIDATES:
            fits = fits[(place + np.arange(CANDIDATES)) % len(fits)]
        if len(fits):
            fits = fits[np.argsort(tokens[fits], kind="stable")]
            chosen = _closing_subset(
                tokens[fits].tolist(),
                crops[fits].tolist(),
                room=room,
                crop_room=crop_room,
                want=max(aim - used, 0.0),
                crop_want=max(crop_aim - crops_used, 0.0),
                weight=weight,
                crop_weight=crop_weight,
            )
            row += fits[chosen].tolist()
        spot = np.array(row)
        rows.append(pool[spot])
        left -= int(tokens[spot].sum())
        crops_left -= int(crops[spot].sum())
        samples_left -= len(row)
        fresh = stream[ahead : ahead + len(row)]
        ahead += len(fresh)
        new = spot[: len(fresh)]
        pool[new], tokens[new], crops[new] = fresh, all_tokens[fresh], all_crops[fresh]
        key[new] = np.maximum(tokens[new] / seq_len, crops[new] / max(cap, 1))
        gone = spot[len(fresh) :]
        tokens[gone], key[gone] = taken, -1.0
    return rows


def _decreasing(
    tokens: np.ndarray, crops: np.ndarray, *, seq_len: int, max_crops: int, key: np.ndarray
) -> list[np.ndarray]:
    """Best-fit decreasing: samples by `key`, the largest first, into the row that has room and has
    the least for crops (for text: for tokens). Windows of WINDOW keep it linear.
    """
    rows: list[list[int]] = []
    for begin in range(0, len(tokens), WINDOW):
        members = np.arange(begin, min(begin + WINDOW, len(tokens)))
        room = np.full(len(members), -1, dtype=np.int64)
        crop_room = room.copy()
        opened = 0
        first = len(rows)
        for n in members[np.argsort(-key[members], kind="stable")].tolist():
            size, number = tokens[n], crops[n]
            fits = np.flatnonzero((room[:opened] >= size) & (crop_room[:opened] >= number))
            if not len(fits):
                rows.append([n])
                room[opened], crop_room[opened] = seq_len - size, max_crops - number
                opened += 1
                continue
            left = crop_room[fits] * (2 * seq_len) + room[fits] if number else room[fits]
            best = fits[left.argmin()]
            rows[first + best].append(n)
            room[best] -= size
            crop_room[best] -= number
    return [np.array(row) for row in rows]


def _coarse(
    tokens: np.ndarray,
    crops: np.ndarray,
    *,
    seq_len: int,
    max_crops: int,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Rows of few samples where crops matter: by patterns, or filled one by one where patterns
    are not close to the program and take more. Fewer than MANY samples: the best of three ways.
    """
    found = []
    limits = {"seq_len": seq_len, "max_crops": max_crops}
    if len(tokens) < MANY:
        key = np.maximum(tokens / seq_len, crops / max_crops)
        found.append(_decreasing(tokens, crops, key=key, **limits))
        found.append(_decreasing(tokens, crops, key=crops * (seq_len + 1) + tokens, **limits))
    solved = len(tokens) >= MANY and rows_of_patterns(tokens, crops, rng=rng, **limits)
    if solved:
        made, left, least = solved
        rest = np.array(left, dtype=np.int64)
        key = np.maximum(tokens[rest] / seq_len, crops[rest] / max_crops)
        ends = _decreasing(tokens[rest], crops[rest], seq_len=seq_len, max_crops=max_crops, key=key)
        found.append([np.array(row) for row in made] + [rest[row] for row in ends])
        if len(found[0]) <= ENOUGH * least:
            return found[0]
    found.append(_pooled(tokens, crops, seq_len=seq_len, cap=max_crops, rng=rng))
    return min(found, key=len)


def pack_rows(
    num_tokens: Sequence[int] | np.ndarray,
    num_crops: Sequence[int] | np.ndarray,
    *,
    seq_len: int,
    max_crops: int,
    seed: int,
) -> list[np.ndarray]:
    """The samples of each row, as positions in the input; every sample is in exactly one row.

    No row has more than `seq_len` tokens or `max_crops` crops. Rows, and samples in a row, come in
    random order. Raises ValueError where a sample alone is above a limit.
    """
    tokens, crops = _checked(num_tokens, num_crops, seq_len, max_crops)
    if not len(tokens):
        return []
    rng = np.random.default_rng(seed)
    density = crops.sum() / tokens.sum()
    if _crops_matter(len(tokens), int(tokens.sum()), int(crops.sum()), seq_len, max_crops):
        rows = _coarse(tokens, crops, seq_len=seq_len, max_crops=max_crops, rng=rng)
    elif float((crops / tokens).max()) * seq_len > max_crops:
        rows = _pooled(tokens, crops, seq_len=seq_len, cap=max_crops, rng=rng)
    else:
        # Even the densest samples cannot reach the crop limit. Crops are then only balanced, in
        # units of a LAYERS-th of the mean row.
        unit = max(float(density) * seq_len / LAYERS, 1.0)
        coarse = np.rint(crops / unit).astype(np.int64)
        cap = max(int(coarse.max()), round(1.25 * LAYERS))
        rows = _pooled(tokens, coarse, seq_len=seq_len, cap=cap, rng=rng)
    return [rng.permutation(rows[n]) for n in rng.permutation(len(rows))]


@dataclass(frozen=True, kw_only=True)
class Flops:
    """What a forward and backward pass of one model costs, for comparing rows."""

    per_token: float
    """Language model, without attention between tokens."""
    per_token_pair: float
    """Attention of the language model, causal: half of all pairs of a sample."""
    per_crop: float
    """Vision encoder on one crop."""


def _flops(
    text: int, layers: int, hidden: int, vision: int, patches: int, deep: int, wide: int
) -> Flops:
    """6 FLOPs per weight and token, 12 x width per layer and pair (https://arxiv.org/abs/2001.08361,
    section 2.1, forward and backward).
    """
    crop = 6.0 * vision * patches + 12.0 * deep * wide * patches**2
    return Flops(per_token=6.0 * text, per_token_pair=6.0 * layers * hidden, per_crop=crop)


MODELS = {
    "256M": _flops(135_000_000, 30, 576, 93_000_000, 1024, 12, 768),
    "500M": _flops(362_000_000, 32, 960, 93_000_000, 1024, 12, 768),
    "2.2B": _flops(1_711_000_000, 24, 2048, 428_000_000, 729, 27, 1152),
}
"""SmolVLM sizes: language model weights, layers, width; vision encoder weights, patches per crop,
layers, width (https://arxiv.org/abs/2504.05299, section 2.1 and the model cards)."""


def row_flops(seq_lengths: Sequence[int] | np.ndarray, num_crops: int, *, model: str) -> float:
    """Modelled FLOPs of training on one packed row with a SmolVLM of that size, a key of MODELS.

    A trainer waits for its slowest row: max over mean of a global batch is the time that is lost.
    """
    cost = MODELS[model]
    lengths = np.asarray(seq_lengths, dtype=np.float64)
    pairs = float(lengths @ lengths)
    return float(
        cost.per_token * lengths.sum() + cost.per_token_pair * pairs + cost.per_crop * num_crops
    )
