"""Packing beside its peers, on one synthetic mixture: `python -m benchmarks.packing [samples]`.

Every peer is a few lines written from its description, named where it stands. A row is broken where
it has more crops than the limit; a stranger is a sample that attends to another one, which happens
to all but the first sample of a row in packers without isolation. Seconds are CPU time of one
process. `least` is a number of rows no packer can go below, `of bound` is fill over the fill that
this number of rows would have.
"""

import bisect
import sys
import time
from collections.abc import Callable

import numpy as np

from tokenization.pack import least_rows, pack_rows, row_flops

Rows = list[list[int]]
Packer = Callable[[np.ndarray, np.ndarray, int, int], Rows]


def mixture(
    number: int, seq_len: int, max_crops: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, crops): 25 % text, 50 % single images, 8 % several images, 17 % videos.

    Grids are those of 512 px crops at a longest edge of 2048 px (4 x 4, 3 x 4, 2 x 4, 1 x 4 and the
    global view; 1 for unsplit), texts are log-normal, videos have 4 to 64 frames.
    """
    rng = np.random.default_rng(seed)
    kind = rng.choice(4, number, p=[0.25, 0.5, 0.08, 0.17])
    short = np.clip(rng.lognormal(4.5, 1, number), 8, 3000).astype(int)
    long = np.clip(rng.lognormal(6.2, 0.8, number), 40, 3500).astype(int)
    grid = rng.choice([17, 13, 9, 5, 1], number, p=[0.25, 0.45, 0.1, 0.1, 0.1])
    frames = np.clip(rng.lognormal(3, 0.7, number), 4, 64).astype(int)
    crops = np.choose(kind, [0 * grid, grid, rng.integers(2, 5, number) * grid, frames])
    image = crops * 66 + 4 + short
    tokens = np.choose(kind, [long, image, image, crops * 73 + 40 + short])
    fits = (tokens <= seq_len) & (crops <= max_crops)
    return tokens[fits], crops[fits]


def ours(tokens: np.ndarray, crops: np.ndarray, seq_len: int, max_crops: int) -> Rows:
    rows = pack_rows(tokens, crops, seq_len=seq_len, max_crops=max_crops, seed=0)
    return [row.tolist() for row in rows]


def padding(tokens: np.ndarray, crops: np.ndarray, seq_len: int, max_crops: int) -> Rows:
    """One sample in each row."""
    return [[n] for n in range(len(tokens))]


def best_fit_decreasing(tokens: np.ndarray, crops: np.ndarray, seq_len: int, _: int) -> Rows:
    """TRL's `bfd`: the longest sample first, into the fullest row that has room; tokens only."""
    by_room: list[Rows] = [[] for _ in range(seq_len + 1)]
    rooms: list[int] = []  # with a row, ascending, each once
    for n in np.argsort(-tokens, kind="stable").tolist():
        size = int(tokens[n])
        at = bisect.bisect_left(rooms, size)
        row: list[int] = []
        room = seq_len
        if at < len(rooms):
            room = rooms[at]
            row = by_room[room].pop()
            if not by_room[room]:
                rooms.pop(at)
        row.append(n)
        room -= size
        if not by_room[room]:
            bisect.insort(rooms, room)
        by_room[room].append(row)
    return [row for rows in by_room for row in rows]


def windows_of(size: int, packer: Packer) -> Packer:
    """`packer` on consecutive windows of samples."""

    def windowed(tokens: np.ndarray, crops: np.ndarray, seq_len: int, max_crops: int) -> Rows:
        rows: Rows = []
        for at in range(0, len(tokens), size):
            part = packer(tokens[at : at + size], crops[at : at + size], seq_len, max_crops)
            rows += [[at + n for n in row] for row in part]
        return rows

    return windowed


def two_limits_decreasing(
    tokens: np.ndarray, crops: np.ndarray, seq_len: int, max_crops: int
) -> Rows:
    """Best-fit decreasing by length with the crop limit as a second condition."""
    rows: Rows = []
    room = np.zeros(0, dtype=np.int64)
    crop_room = np.zeros(0, dtype=np.int64)
    for n in np.argsort(-tokens, kind="stable").tolist():
        fits = np.flatnonzero((room >= tokens[n]) & (crop_room >= crops[n]))
        if not len(fits):
            rows.append([n])
            room = np.append(room, seq_len - tokens[n])
            crop_room = np.append(crop_room, max_crops - crops[n])
            continue
        best = fits[room[fits].argmin()]
        rows[best].append(n)
        room[best] -= tokens[n]
        crop_room[best] -= crops[n]
    return rows


def balanced_knapsack(tokens: np.ndarray, crops: np.ndarray, seq_len: int, max_crops: int) -> Rows:
    """nanoVLM's: total / seq_len + 5 knapsacks, the longest sample into the emptiest that has room
    for its tokens and crops, a new knapsack where none has.
    """
    number = -(-int(tokens.sum()) // seq_len) + 5
    load = np.zeros(number, dtype=np.int64)
    crop_load = np.zeros(number, dtype=np.int64)
    rows: Rows = [[] for _ in range(number)]
    for n in np.argsort(-tokens, kind="stable").tolist():
        fits = np.flatnonzero((load + tokens[n] <= seq_len) & (crop_load + crops[n] <= max_crops))
        if len(fits):
            spot = int(fits[load[fits].argmin()])
        else:
            spot = len(rows)
            rows.append([])
            load, crop_load = np.append(load, 0), np.append(crop_load, 0)
        rows[spot].append(n)
        load[spot] += tokens[n]
        crop_load[spot] += crops[n]
    return [row for row in rows if row]


def first_fit(tokens: np.ndarray, crops: np.ndarray, seq_len: int, max_crops: int) -> Rows:
    """SmolVLM's m4 code: in the order they come, into the first open row with room for both."""
    rows: Rows = []
    room: list[list[int]] = []
    for n, (size, number) in enumerate(zip(tokens.tolist(), crops.tolist(), strict=True)):
        fits = (
            k for k, (left, crops_left) in enumerate(room) if left >= size and crops_left >= number
        )
        spot = next(fits, len(rows))
        if spot == len(rows):
            rows.append([])
            room.append([seq_len, max_crops])
        rows[spot].append(n)
        room[spot][0] -= size
        room[spot][1] -= number
    return rows


def dynamic_program(tokens: np.ndarray, crops: np.ndarray, seq_len: int, max_crops: int) -> Rows:
    """Molmo2's: of a pool of 48 samples, the subset with most tokens within both limits, by a table
    over tokens (in steps of 32) and crops.
    """
    step, pool, rows = 32, list(range(min(48, len(tokens)))), []
    ahead = len(pool)
    width = seq_len // step
    height = min(max_crops, int(crops.max()) * 16)
    while pool:
        table = np.full((height + 1, width + 1), -1, dtype=np.int64)
        table[0, 0] = 0
        tables = [table]
        for n in pool:
            size, number = -(-int(tokens[n]) // step), int(crops[n])
            moved = np.full_like(table, -1)
            source = table[: height + 1 - number, : width + 1 - size]
            moved[number:, size:] = np.where(source >= 0, source + tokens[n], -1)
            table = np.maximum(table, moved)
            tables.append(table)
        c, t = np.unravel_index(int(table.argmax()), table.shape)
        row = []
        for position in range(len(pool) - 1, -1, -1):
            if tables[position][c, t] != tables[position + 1][c, t]:
                n = pool[position]
                row.append(n)
                c, t = c - int(crops[n]), t + int(tokens[n]) // -step
        rows.append(row)
        gone = set(row)
        pool = [n for n in pool if n not in gone]
        more = range(ahead, min(ahead + len(row), len(tokens)))
        pool += more
        ahead += len(more)
    return rows


PEERS: dict[str, tuple[Packer, bool]] = {
    "this project": (ours, True),
    "one sample a row, padded": (padding, True),
    "best fit, tokens only, windows of 1000 (TRL)": (windows_of(1000, best_fit_decreasing), True),
    "best fit decreasing, both limits, all at once": (two_limits_decreasing, True),
    "balanced knapsack, windows of 64 (nanoVLM)": (windows_of(64, balanced_knapsack), False),
    "first fit, windows of 64 (m4)": (windows_of(64, first_fit), False),
    "2-D dynamic program, pool of 48 (Molmo2)": (dynamic_program, True),
}  # fmt: skip
"""Name -> (packer, whether its samples are isolated from each other)."""


def line(
    name: str, tokens: np.ndarray, crops: np.ndarray, seq_len: int, max_crops: int, least: int
) -> str:
    """One row of the Markdown table."""
    packer, isolated = PEERS[name]
    begin = time.process_time()
    rows = packer(tokens, crops, seq_len, max_crops)
    seconds = time.process_time() - begin
    if sorted(n for row in rows for n in row) != list(range(len(tokens))):
        raise RuntimeError(f"{name} lost or repeated samples")
    totals = np.array([[tokens[row].sum(), crops[row].sum()] for row in rows])
    broken = int(((totals[:, 0] > seq_len) | (totals[:, 1] > max_crops)).sum())
    cost = [
        row_flops(tokens[row], int(number), model="500M")
        for row, number in zip(rows, totals[:, 1], strict=True)
    ]
    strangers = 0.0 if isolated else sum(len(row) - 1 for row in rows) / len(tokens)
    return (
        f"| {name} | {len(rows):,} | {tokens.sum() / len(rows) / seq_len:.2%} | "
        f"{least / len(rows):.2%} | {broken:,} | {len(tokens) / max(seconds, 1e-9):,.0f} | "
        f"{max(cost) / np.mean(cost):.2f} | {strangers:.0%} |"
    )


def main(number: int) -> None:
    head = "| packer | rows | fill | of bound | rows above a limit | samples/s | max/mean FLOPs "
    for seq_len in (4096, 8192, 16384):
        for name, share in (("loose", 1.0), ("tight", 0.5), ("off", 1e6)):
            max_crops = int(seq_len / 64 * share)
            tokens, crops = mixture(number, seq_len, max_crops)
            least = least_rows(tokens, crops, seq_len=seq_len, max_crops=max_crops)
            bound = tokens.sum() / least / seq_len
            limit = f"{max_crops} crops" if share < 1e6 else "no limit of crops"
            print(f"\n**{seq_len} tokens, {limit} ({name}), {len(tokens):,} samples; at least "
                  f"{least:,} rows, fill at most {bound:.2%}**\n")  # fmt: skip
            print(f"{head}| to strangers |\n|---|---|---|---|---|---|---|---|")
            for peer in PEERS:
                print(line(peer, tokens, crops, seq_len, max_crops, least), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
