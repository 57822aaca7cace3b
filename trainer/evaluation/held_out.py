"""Loss per component: which component a sample belongs to, and sums over batches."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import torch
from torch import nn

from trainer import parallel
from trainer.config import Config
from trainer.data.batches import collate
from trainer.data.shards import Mixture, Rows
from trainer.parallel import World
from trainer.step import SampleLosses


def components(mixture: Mixture) -> dict[str, str]:
    """From "source/subset", which every sample id begins with, to the component's name.

    Read from the mixture's index; where two components share a subset, their names are joined.
    """
    file = mixture.folder / "index.arrow"
    if not file.is_file():
        return {}
    found: dict[str, set[str]] = {}
    with pa.ipc.open_file(pa.memory_map(str(file))) as reader:
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number).select(["source", "subset", "component"])
            unique = pa.Table.from_batches([batch]).group_by(batch.schema.names).aggregate([])
            for source, subset, component in zip(*unique.to_pydict().values(), strict=True):
                found.setdefault(f"{source}/{subset}", set()).add(component)
    return {prefix: " + ".join(sorted(names)) for prefix, names in found.items()}


@dataclass
class Sums:
    """Losses and learned tokens by name."""

    losses: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, loss: float, tokens: int) -> None:
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
    splits: Iterable[Rows],
    components: Mapping[str, str],
    config: Config,
    *,
    image_token: int,
    world: World,
) -> dict[str, float]:
    """Mean loss per learned token of val rows: `all`, `component/...`, `modality/...`.

    Empty where there are none. All ranks call this and get the same.
    """
    sums = Sums()
    training = objective.training
    objective.eval()
    for rows in splits:
        count = min(len(rows), config.evaluate_rows)
        for start in range(0, count, world.ranks):
            # Every rank takes part in every forward pass; past the end its row is not counted.
            number = start + world.rank
            row = rows[min(number, count - 1)]
            batch = collate([row], image_token=image_token).to(world.device)
            with torch.no_grad(), parallel.precision(world, config):
                _, per_sample = objective(batch)
            if number < count:
                sums.add_samples(SampleLosses.of(batch, per_sample), components)
    objective.train(training)
    return sums.merge(parallel.gather(world, sums)).means()
