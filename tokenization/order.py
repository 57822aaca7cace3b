"""The order of packed rows: every stretch of a shard holds what the whole shard holds.

    features of rows [R, K] --> an order in which sums run along their mean

Rows come from a random queue. Of the few in view, the one goes next that brings the sum of all
features so far closest to what that many mean rows have; every few rows the one that has waited
longest goes instead, so that odd rows do not gather at the end. (Herding, Welling 2009,
https://doi.org/10.1145/1553374.1553517, on a moving window.)
"""

import numpy as np

IN_VIEW = 48
"""Rows among which the next one is chosen."""
WAIT = 8
"""Every so many rows the one that has waited longest goes next."""
STRATA = 128
"""Kinds of samples told apart, those with most tokens; the others count as one."""


def strata_of(ids: list[str], tokens: np.ndarray) -> np.ndarray:
    """[N] int64: the kind of each sample, by its source and subset: all of the id but the row."""
    names = [name.rpartition("/")[0] for name in ids]
    unique, kind = np.unique(names, return_inverse=True)
    if len(unique) <= STRATA:
        return kind
    order = np.argsort(-np.bincount(kind, tokens), kind="stable")
    place = np.empty(len(unique), np.int64)
    place[order] = np.minimum(np.arange(len(unique)), STRATA - 1)
    return place[kind]


def features_of(
    rows: list[np.ndarray], strata: np.ndarray, tokens: np.ndarray, crops: np.ndarray
) -> np.ndarray:
    """[R, K + 1] float64: tokens of each kind, and crops, of each row; both in mean rows."""
    row = np.repeat(np.arange(len(rows)), [len(members) for members in rows])
    members = np.concatenate(rows)
    wide = int(strata.max()) + 1
    found = np.zeros((len(rows), wide + 1))
    cell = row * wide + strata[members]
    found[:, :wide] = np.bincount(cell, tokens[members], len(rows) * wide).reshape(-1, wide)
    found[:, wide] = np.bincount(row, crops[members], len(rows))
    found[:, :wide] /= tokens.sum() / len(rows)
    found[:, wide] /= max(crops.sum() / len(rows), 1.0)
    return found


def even_order(features: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """[R] int64: all rows, in an order in which every stretch has the mean features of the whole,
    but for about one row's.
    """
    queue = rng.permutation(len(features))
    away = features[queue] - features.mean(axis=0)
    size = min(IN_VIEW, len(queue))
    seen = np.arange(size)  # places in the queue
    view = away[:size].copy()  # [size, K]
    own = np.einsum("nk,nk->n", view, view)
    total = np.zeros(features.shape[1])
    order = np.empty(len(queue), np.int64)
    ahead = size
    for n in range(len(queue)):
        spot = int(seen.argmin()) if n % WAIT == 0 else int((own + 2 * (view @ total)).argmin())
        order[n] = queue[seen[spot]]
        total += view[spot]
        if ahead < len(queue):
            seen[spot], view[spot] = ahead, away[ahead]
            own[spot] = away[ahead] @ away[ahead]
            ahead += 1
        else:
            seen[spot], own[spot] = len(queue), np.inf
            view[spot] = 0
    return order
