"""Mixtures of training data: planned, built, opened; on the command line `smolvlm-pipelines`.

```python
import pipelines

mixture = pipelines.load("mine.yaml", {"components.text.ratio": 0.2})
print(pipelines.plan(mixture))             # supply, demand, size, cost; runs nothing
made = pipelines.build(mixture, workers=0) # the same as pipelines.open("out/mine") afterwards
made.index                                 # polars: a line per sample ever read
next(made.samples()).images                # as PIL images
```

| name             | gives                                                                         |
|------------------|-------------------------------------------------------------------------------|
| `load`           | `MixtureFile`: a mixture's settings, checked                                  |
| `plan`           | `Plan`: what a build would do, component by component                         |
| `probe`          | `Probed`: what a few rows of every subset say of whether it can be read       |
| `build`, `open`  | `FinishedMixture`: index, rows, samples, checks and differences               |
| `list_sources`, `describe_source` | every source as a polars frame; all of one                   |

Importing this imports nothing heavy. Mistakes are `ValueError` (or `FileNotFoundError`), whose
message says where, what was found, what was expected and the way out.
"""

from typing import TYPE_CHECKING, Any

from tokenization.version import __version__

if TYPE_CHECKING:
    from pipelines.api import (
        FinishedMixture,
        MixtureFile,
        Probed,
        build,
        describe_source,
        list_sources,
        load,
        open,
        plan,
        probe,
    )

__all__ = [
    "FinishedMixture",
    "MixtureFile",
    "Probed",
    "__version__",
    "build",
    "describe_source",
    "list_sources",
    "load",
    "open",
    "plan",
    "probe",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'pipelines' has no attribute '{name}'")
    from pipelines import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
