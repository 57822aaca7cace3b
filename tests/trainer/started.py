"""`torchrun -m tests.trainer.started CONFIG.yaml RESUME|- OUT.pt`: the weights of an FSDP start.

The first process writes them whole, and what else the ranks have to say for the test to judge.
"""

import sys
from pathlib import Path

import torch
from torch import distributed

from trainer import parallel
from trainer.config_file import load
from trainer.data.shards import open_mixtures
from trainer.model import initial


def main(settings: str, resume: str, out: str) -> None:
    config = load(settings, {})
    made = []
    whole = initial.initial_model
    initial.initial_model = lambda *a, **b: made.append(1) or whole(*a, **b)  # type: ignore
    with parallel.processes(config) as world:
        tokenizer = initial.tokenizer_of(open_mixtures(config))
        checkpoint = None if resume == "-" else Path(resume)
        objective, _ = initial.initial_objective(config, tokenizer, world, resume=checkpoint)
        model = objective.model
        shards = sum(p.to_local().numel() for p in objective.parameters())
        counts = parallel.gather(world, (len(made), shards))
        tied = model.lm_head.weight is model.model.text_model.embed_tokens.weight
        weights = {n: p.full_tensor().detach().clone() for n, p in model.named_parameters()}
        buffers = parallel.gather(world, dict(model.named_buffers()))
        trained = [n for n, p in model.named_parameters() if p.requires_grad]
        if world.first:
            torch.save({"weights": weights, "buffers": buffers, "counts": counts, "tied": tied,
                        "trained": trained}, out)  # fmt: skip
        distributed.barrier()


if __name__ == "__main__":
    main(*sys.argv[1:])
