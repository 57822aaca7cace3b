"""Shards -> SmolVLM checkpoints, in Python and on the command line (`smolvlm-trainer --help`).

```python
import trainer

run = trainer.train("tiny", data="out/mine", overrides={"steps": 100})
run.log                                    # a dict per logged step and evaluation
model, processor = trainer.load(run)       # of transformers
```

| name       | gives                                                                               |
|------------|-------------------------------------------------------------------------------------|
| `train`    | `Run`: its folder, its last checkpoint, its log                                     |
| `load`     | a checkpoint's model and processor, on the device                                   |
| `evaluate` | scores on a benchmark, with their intervals, and paired comparisons                 |
| `score`    | what its images are worth to every sample of a mixture                              |
| `answers`  | pairs of right and wrong answers that a checkpoint gave itself                      |
| `align`    | `Run`: a checkpoint trained on pairs of answers, or by gold ones                    |

| room         | what it does                                                                      |
|--------------|-----------------------------------------------------------------------------------|
| config.py    | settings as frozen dataclasses; config_file.py: of YAML and `key=value`           |
| loop.py      | the training loop; step.py, optim.py: one step of it                              |
| data/        | memory-mapped shards -> micro-batches, in an order that is a pure function        |
| model/       | a SmolVLM of `transformers`, what a run starts from, attention, adapters          |
| parallel.py  | one process, DDP or FSDP2; cluster.py: the same by Ray Train                      |
| checkpoint.py | a `transformers` folder plus trainer state, atomic, exact to resume              |
| evaluation/  | a checkpoint answers, is scored and compared                                      |
| ablation/    | runs with identity; arms times seeds, and what their difference shows             |
| monitoring/  | log, progress, trackers, the model card, RUN/run.html                             |

Importing this imports nothing heavy.
"""

from typing import TYPE_CHECKING, Any

from tokenization.version import __version__

if TYPE_CHECKING:
    from trainer.api import Run, align, answers, evaluate, load, score, train

__all__ = ["Run", "__version__", "align", "answers", "evaluate", "load", "score", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'trainer' has no attribute '{name}'")
    from trainer import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
