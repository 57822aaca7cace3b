"""What a checkpoint's weights lose on each held-out sample of a mixture."""

from dataclasses import replace
from pathlib import Path

import torch

from trainer import parallel
from trainer.ablation.runs import SampleScore
from trainer.config import Config
from trainer.data.batches import Batch, collate, copied, made_ahead, threads
from trainer.data.shards import Mixture, Row, Rows, refuse_mismatch
from trainer.evaluation.held_out import components
from trainer.model import initial


def sample_scores(config: Config, folder: Path, judge: Mixture) -> dict[str, SampleScore]:
    """By id: every val sample of `judge` that has a learned token, as the weights in `folder` of a
    run of `config` see it; one that was cut into pieces as the sum of them. One process, on the
    device of the config.
    """
    tokenizer = initial.tokenizer_of([judge])
    refuse_mismatch(config, judge, vocabulary=len(tokenizer))
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    names, rows = components(judge), Rows(judge, "val")
    found: dict[str, SampleScore] = {}

    def make(row: Row) -> Batch:
        return collate([row], image_token=image_token)

    alone = replace(config, parallel="auto", compile=False)
    with parallel.processes(alone) as world:
        objective, _ = initial.initial_objective(alone, tokenizer, world, resume=folder)
        objective.eval()
        own = (rows[number] for number in range(len(rows)))
        for batch in copied(made_ahead(own, make, **threads(alone)), world.device):
            with torch.no_grad(), parallel.precision(world, alone):
                losses = objective(batch)[1].tolist()
            for name, loss, tokens in zip(
                batch.sample_ids, losses, batch.sample_learned, strict=True
            ):
                if tokens:
                    prefix = name.rpartition("/")[0]
                    before = found.get(name) or SampleScore(names.get(prefix, prefix), 0.0, 0)
                    found[name] = replace(
                        before, loss=before.loss + loss, tokens=before.tokens + tokens
                    )
    return found
