"""Sampled answers that depend on their prompt and a key of their own, not on what else is asked.

The highest of logits / temperature - log E, E exponential, is a sample of the softmax: the
Gumbel-max trick (Maddison et al. 2014, arXiv 1411.0030). Each answer draws E by a key of its own.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch


def key_of(seed: int, sample: str, number: int) -> int:
    """The key of answer `number` to a sample, of 128 bits."""
    hashed = hashlib.sha256(f"{seed}\n{sample}\n{number}".encode()).digest()
    return int.from_bytes(hashed[:16], "little")


class Drawing:
    """A logits processor that makes the greedy choice of each row one by chance, by its key."""

    def __init__(self, keys: Sequence[int], *, temperature: float) -> None:
        """Holds a generator for each row of the batch."""
        self.temperature = temperature
        self.generators = [np.random.Generator(np.random.Philox(key=key)) for key in keys]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores whose highest is what was drawn, [rows, vocabulary]."""
        drawn = np.stack([g.standard_exponential(scores.shape[-1]) for g in self.generators])
        return scores.double() / self.temperature - torch.from_numpy(np.log(drawn)).to(
            scores.device
        )
