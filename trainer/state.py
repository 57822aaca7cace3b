"""Where a run stands: what a checkpoint's trainer/state.json holds."""

from dataclasses import dataclass, field, replace
from typing import Any

from trainer.step import StepResult


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a run stands."""

    step: int = 0
    position: int = 0
    """Rows of the global order that have been trained on."""
    tokens: int = 0
    learned_tokens: int = 0
    seconds: float = 0.0
    mixtures: list[dict[str, Any]] = field(default_factory=list)
    """Per mixture of this run: name, fingerprint, weight."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """The stages before this run: their mixtures, steps and tokens."""
    num_steps: int = 0
    """Of the whole run, as it was planned when this was written."""
    base_models: list[str] = field(default_factory=list)
    """Hub ids of what the first stage started from."""
    base_license: str = ""
    """What they state."""
    datasets: list[str] = field(default_factory=list)
    """Hub ids of the data sets of this and earlier stages."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Measured on the weights of this very step; empty where nothing was."""
    measured_at: int = -1
    """The step that `metrics` are of."""
    skipped: int = 0
    """Steps so far that changed nothing, because their gradient was not finite."""
    skipped_in_a_row: int = 0
    """Of them, those that led here without another step between."""
    encoding: dict[str, Any] = field(default_factory=dict)
    """Of the shards: how prompts and crops are made."""
    best: dict[str, float] = field(default_factory=dict)
    """`step` and `value` of the best checkpoint so far."""
    without_better: int = 0
    """Evaluations since then."""

    def after(self, result: StepResult, *, rows: int, changed: bool) -> "State":
        """The state one step later; what was measured was of other weights."""
        return replace(
            self,
            step=self.step + 1,
            position=self.position + rows,
            seconds=self.seconds + result.seconds,
            learned_tokens=self.learned_tokens + result.num_learned,
            tokens=self.tokens + result.tokens,
            metrics={},
            measured_at=-1,
            skipped=self.skipped + (not changed),
            skipped_in_a_row=0 if changed else self.skipped_in_a_row + 1,
        )
