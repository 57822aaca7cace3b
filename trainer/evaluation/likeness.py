"""How much each sample of a mixture is like those of a target set, and what weight makes it alike.

```
shards --> hidden states, mean per sample --> OUTPUT.parts/SHARD.parquet
two halves, by a hash of the id --> a classifier of each: target or mixture? --> the other half
```

The classifier's odds are the ratio of the two densities, which is the weight under which the
mixture resembles the target (importance weights by a probabilistic classifier: Bickel et al. 2009,
JMLR 10, section 3). No sample is judged by a classifier that was fitted on it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from tokenization.terminal import log
from trainer.data.batches import Batch
from trainer.data.shards import Mixture, Rows
from trainer.evaluation.score import is_of, shards_of, windows, write
from trainer.model.smolvlm import Objective

FITTED = 20_000
"""Samples of each side, at most, that a classifier is fitted on: the first by a hash."""
PENALTY = 1.0
"""Of the squared weights, as scikit-learn's LogisticRegression has it at C = 1."""
MOST = 20.0
"""A weight is at most so large, so that a few samples do not stand for all."""
LIKENESS = pa.schema(
    {
        "id": pa.string(),
        "likeness": pa.float32(),  # probability that it is of the target, were both equally many
        "likeness_weight": pa.float32(),  # its odds, at most MOST
    }
)


class Classifier(NamedTuple):
    """A logistic regression on standardised embeddings."""

    mean: np.ndarray
    scale: np.ndarray
    slope: np.ndarray
    """[E + 1], the intercept last."""

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """[N] log-odds that the samples are of the target."""
        found: np.ndarray = (embeddings - self.mean) / self.scale @ self.slope[:-1] + self.slope[-1]
        return found


def fit(mixture: np.ndarray, target: np.ndarray) -> Classifier:
    """Of embeddings [N, E] and [M, E]; both sides weigh alike, however many they are."""
    from scipy.optimize import minimize
    from scipy.special import expit

    both = np.concatenate([mixture, target]).astype(np.float64)
    mean, scale = both.mean(0), both.std(0)
    scale[scale < 1e-9 * (1 + np.abs(mean))] = 1.0
    known = np.column_stack([(both - mean) / scale, np.ones(len(both))])
    sign = np.concatenate([-np.ones(len(mixture)), np.ones(len(target))])
    half = len(both) / 2
    weight = np.where(sign > 0, half / len(target), half / len(mixture))
    punished = np.append(np.full(known.shape[1] - 1, PENALTY), 0.0)

    def loss(slope: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (known @ slope)
        value = weight @ np.logaddexp(0, -margin) + (punished * slope) @ slope / 2
        pull = -(weight * sign * expit(-margin)) @ known + punished * slope
        return float(value), pull

    found = minimize(loss, np.zeros(known.shape[1]), jac=True, method="L-BFGS-B")
    return Classifier(mean, scale, found.x)


def means_per_sample(objective: Objective, batch: Batch, device: torch.device) -> np.ndarray:
    """[samples, E] float32: the mean of the last hidden states of each sample's tokens."""
    with (
        torch.no_grad(),
        torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"),
    ):
        hidden = objective.hidden(batch.to(device)).float()
    lengths = torch.as_tensor(batch.ends).diff().to(device)
    owners = torch.repeat_interleave(torch.arange(len(lengths), device=device), lengths)
    sums = torch.zeros(len(lengths), hidden.shape[1], device=device)
    found: np.ndarray = (sums.index_add_(0, owners, hidden) / lengths[:, None]).cpu().numpy()
    return found


def embed(
    objective: Objective,
    rows: Rows,
    *,
    image_token: int,
    parts: Path,
    identity: Mapping[str, str],
) -> list[Path]:
    """A file per shard: id, tokens, embedding of every sample in it; one that is there stays."""
    parts.mkdir(parents=True, exist_ok=True)
    made = []
    for shard, numbers in shards_of(rows):
        part = parts / f"{shard}.parquet"
        made.append(part)
        if is_of(part, identity):
            continue
        ids: list[str] = []
        tokens: list[np.ndarray] = []
        found: list[np.ndarray] = []
        for window, batches in windows(rows, numbers, image_token=image_token):
            for row, batch in zip(window, batches, strict=True):
                ids.extend(row.sample_ids)
                tokens.append(row.seq_lengths)
                found.append(means_per_sample(objective, batch, objective.model.device))
        width = found[0].shape[1] if found else 1
        flat = np.concatenate([*found, np.empty((0, width), np.float32)]).ravel()
        columns = {
            "id": pa.array(ids, pa.string()),
            "tokens": pa.array(np.concatenate([*tokens, np.empty(0, np.int32)]), pa.int32()),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), width),
        }
        write(part, pa.table(columns), identity)
        log(f"embedded {shard}: {len(ids)} samples of {len(numbers)} rows")
    return made


def hashes_of(ids: Sequence[str]) -> np.ndarray:
    """[N] uint64. The last bit is a sample's half; the order is that of being fitted on."""
    return np.array(
        [int.from_bytes(blake2b(i.encode(), digest_size=8).digest(), "little") for i in ids],
        np.uint64,
    )


def read(parts: Sequence[Path]) -> Iterator[tuple[list[str], np.ndarray, np.ndarray]]:
    """(ids, tokens [N], embeddings [N, E]) of each part."""
    for part in parts:
        table = pq.read_table(part)
        if not len(table):  # its embeddings have no width
            continue
        flat = table["embedding"].combine_chunks().flatten().to_numpy()
        width = table.schema.field("embedding").type.list_size
        yield table["id"].to_pylist(), table["tokens"].to_numpy(), flat.reshape(-1, width)


def fitted_on(parts: Sequence[Path], half: int) -> np.ndarray:
    """[at most FITTED, E]: the first samples of a half, by their hashes."""
    keys, kept = np.empty(0, np.uint64), np.empty((0, 0), np.float32)
    for ids, _, embeddings in read(parts):
        key = hashes_of(ids)
        mine = (key & np.uint64(1)) == half
        kept = np.concatenate([kept.reshape(-1, embeddings.shape[1]), embeddings[mine]])
        keys = np.concatenate([keys, key[mine]])
        first = np.sort(np.argsort(keys, kind="stable")[:FITTED])
        keys, kept = keys[first], kept[first]
    return kept


def likeness(
    objective: Objective, mixture: Sequence[Rows], target: Sequence[Rows], *, parts: Path,
    image_token: int, identity: Mapping[str, str],
) -> pa.Table:  # fmt: skip
    """LIKENESS of the mixture's samples, in the order of their ids; what was found stands in the
    table's metadata under `told`.

    Raises:
        ValueError: a half of one of them has no sample.
    """
    ours, theirs = (
        [
            part
            for rows in of
            for part in embed(
                objective, rows, image_token=image_token, parts=parts / side, identity=identity
            )
        ]
        for side, of in (("mixture", mixture), ("target", target))
    )
    judges = []
    for half in (0, 1):
        sides = fitted_on(ours, half), fitted_on(theirs, half)
        if not all(map(len, sides)):
            raise ValueError(
                f"like: too few samples to compare: {len(sides[0])} and {len(sides[1])} in one of "
                "two halves.\nway out: a larger mixture, or a larger target set."
            )
        judges.append(fit(*sides))
    ids, log_odds = odds_of(ours, judges)
    weight = np.minimum(np.exp(np.minimum(log_odds, 50)), MOST)
    columns = [ids, 1 / (1 + np.exp(-np.clip(log_odds, -50, 50))), weight]
    worth = float(weight.sum() ** 2 / max(1e-12, (weight**2).sum()))
    told: dict[str, Any] = {
        "auroc": told_apart(judges[0], ours, theirs),
        "samples": len(weight),
        "effective_samples": worth,
        "share_of_largest_weight": float((weight >= MOST).mean()),
    }
    told["sentence"] = (
        f"a classifier tells mixture and target apart with an AUROC of {told['auroc']:.3f} "
        f"(0.5: alike; 1: nothing in common)\nunder the weights {len(weight):,} samples are worth "
        f"{worth:,.0f} (Kish's effective size); {told['share_of_largest_weight']:.1%} have the "
        f"largest weight, {MOST:g}"
    )
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, LIKENESS, strict=True)],
        schema=LIKENESS.with_metadata({"told": json.dumps(told)}),
    )


def odds_of(parts: Sequence[Path], judges: Sequence[Classifier]) -> tuple[list[str], np.ndarray]:
    """(ids, [N] log-odds of the other half's judge). Pieces and copies of a sample: the mean of
    theirs, by tokens.
    """
    sums: dict[str, list[float]] = {}
    for names, tokens, embeddings in read(parts):
        wide = embeddings.astype(np.float64)
        halves = hashes_of(names) & np.uint64(1)
        found = np.where(halves == 0, judges[1](wide), judges[0](wide))
        for name, count, value in zip(names, tokens.tolist(), found.tolist(), strict=True):
            line = sums.setdefault(name, [0.0, 0.0])
            line[0] += count
            line[1] += count * value
    ids = sorted(sums)
    return ids, np.array([sums[name][1] / sums[name][0] for name in ids])


def told_apart(judge: Classifier, mixture: Sequence[Path], target: Sequence[Path]) -> float:
    """AUROC with which the judge of one half tells the other's samples apart."""
    from scipy.stats import mannwhitneyu

    ours, theirs = (judge(fitted_on(parts, 1).astype(np.float64)) for parts in (mixture, target))
    return float(mannwhitneyu(theirs, ours).statistic / (len(ours) * len(theirs)))


def refuse_shared(mixture: Mixture, target: Mixture) -> None:
    """Raises ValueError where a sample of the target is trained on."""
    both = used_ids(mixture) & used_ids(target)
    if both:
        raise ValueError(
            f"like: {len(both):,} samples of {target.folder} are in {mixture.folder} too "
            f"({min(both)}).\nexpected: a target set that is not trained on\n"
            "way out: leave them out of one of the two."
        )


def used_ids(mixture: Mixture) -> set[str]:
    """Ids of the samples in the shards."""
    found: set[str] = set()
    with pa.ipc.open_file(pa.memory_map(str(mixture.folder / "index.arrow"))) as reader:
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number).select(["id", "copies"])
            found.update(batch.filter(pc.greater(batch["copies"], 0))["id"].to_pylist())
    return found
