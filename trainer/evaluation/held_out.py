"""Loss per component: which component a sample belongs to, and sums over batches."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import torch
from torch import nn

from trainer import parallel
from trainer.config import Config
from trainer.data.batches import Batch, collate, copied, made_ahead, threads
from trainer.data.order import shares
from trainer.data.shards import Mixture, Row, Rows
from trainer.parallel import World
from trainer.step import SampleLosses


def components(mixture: Mixture) -> dict[str, str]:
    """From "source/subset" or "source/subset~HASH", which every sample id begins with, to the
    component's name.

    Read from the mixture's index: all ids of a component's subset begin alike. Where two components
    share a beginning, their names are joined.
    """
    file = mixture.folder / "index.arrow"
    if not file.is_file():
        return {}
    found: dict[str, set[str]] = {}
    with pa.ipc.open_file(pa.memory_map(str(file))) as reader:
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number).select(["id", "source", "subset", "component"])
            groups = pa.Table.from_batches([batch]).group_by(
                ["source", "subset", "component"], use_threads=False
            )
            firsts = groups.aggregate([("id", "first")])
            for name, component in zip(
                firsts["id_first"].to_pylist(), firsts["component"].to_pylist(), strict=True
            ):
                found.setdefault(name.rpartition("/")[0], set()).add(component)
    return {prefix: " + ".join(sorted(names)) for prefix, names in found.items()}


@dataclass
class Sums:
    """Losses and learned tokens by name."""

    losses: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, loss: float, tokens: float) -> None:
        """Counts `tokens` learned tokens whose losses sum to `loss`."""
        self.losses[name] = self.losses.get(name, 0.0) + loss
        self.tokens[name] = self.tokens.get(name, 0) + tokens

    def add_samples(self, samples: SampleLosses, names: Mapping[str, str]) -> None:
        """Counts samples by component (`names`: see `components`) and by modality."""
        modality = ("text", "image", "images")
        for sample, images, loss, tokens in zip(
            samples.sample_ids, samples.sample_images, samples.losses.tolist(),
            samples.sample_learned, strict=True,
        ):  # fmt: skip
            prefix = sample.rpartition("/")[0]
            self.add(f"component/{names.get(prefix, prefix)}", loss, tokens)
            self.add(f"modality/{modality[min(images, 2)]}", loss, tokens)
            self.add("all", loss, tokens)

    def times(self, factor: float) -> "Sums":
        """The sums of `factor` times as many samples like these."""
        return Sums(
            {name: loss * factor for name, loss in self.losses.items()},
            {name: tokens * factor for name, tokens in self.tokens.items()},
        )

    def merge(self, others: Iterable["Sums"]) -> "Sums":
        """The sums of all of these; self is not among them."""
        total = Sums()
        for other in others:
            for name, loss in other.losses.items():
                total.add(name, loss, other.tokens[name])
        return total

    def means(self) -> dict[str, float]:
        """Loss per learned token, by name."""
        return {n: self.losses[n] / t for n, t in sorted(self.tokens.items()) if t}


def held_out(
    objective: nn.Module,
    splits: Sequence[Rows],
    components: Mapping[str, str],
    config: Config,
    *,
    image_token: int,
    world: World,
) -> dict[str, float]:
    """Mean loss per learned token of val rows: `all`, `component/...`, `modality/...`.

    Several mixtures count by their weights, as in training: `evaluate_rows` are shared out by them,
    and where one has too few, its rows count for those it lacks. Empty where there are no rows.
    All ranks call this and get the same.
    """
    found = []
    counts = row_counts([len(rows) for rows in splits], list(config.data.values()), config)
    training = objective.training
    objective.eval()
    cuda = world.device.type == "cuda"

    def make(row: Row) -> Batch:
        batch = collate([row], image_token=image_token)
        return batch.pinned() if cuda else batch

    for rows, count, weight in zip(splits, counts, config.data.values(), strict=True):
        sums = Sums()
        # Every rank takes part in every forward pass; past the end its row is not counted.
        numbers = [start + world.rank for start in range(0, count, world.ranks)]
        own = (rows[min(number, count - 1)] for number in numbers)
        seen = []
        for batch in copied(made_ahead(own, make, **threads(config)), world.device):
            with torch.no_grad(), parallel.precision(world, config):
                _, per_sample = objective(batch)
            seen.append(SampleLosses.of(batch, per_sample))
        for number, samples in zip(numbers, seen, strict=True):
            if number < count:
                sums.add_samples(samples, components)
        if count:
            found.append(sums.times(weight / count * sum(counts) / sum(config.data.values())))
    objective.train(training)
    gathered = parallel.gather(world, Sums().merge(found))
    return Sums().merge(gathered).means()


def row_counts(held: Sequence[int], weights: Sequence[float], config: Config) -> list[int]:
    """Val rows that are read of each mixture: `evaluate_rows` by weight, no more than it holds."""
    wanted = shares(weights, config.evaluate_rows)
    return [min(have, max(1, want)) for have, want in zip(held, wanted, strict=True)]
