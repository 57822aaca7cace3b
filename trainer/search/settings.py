"""What is searched and how: all that the words of `python -m trainer search` say."""

from dataclasses import dataclass, field

from trainer.config import Benchmark


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large a run is, and of which model."""

    config: str
    settings: dict[str, str]
    """Of the trainer."""
    tokens: int
    """Of its mixture, which is seen once."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is searched, and how."""

    mixture: str
    target: dict[str, float]
    """Component -> weight of its held-out loss; benchmark -> weight of what it is wrong in."""
    benchmarks: dict[str, Benchmark] = field(default_factory=dict)
    config: str = "tiny"
    method: str = "regression"
    runs: int = 16
    hours: float = 0.0
    """Of all that the search waits for, its verification apart; 0: no such budget."""
    stages: int = 1
    """Of a schedule, all of one length; 1: ratios stay."""
    seeds: int = 5
    """Of the verification; 0: none."""
    tokens: int = 100_000
    """Of each run's mixture, which is seen once."""
    size: int = 0
    """Tokens of the train split that the proposal is meant for; supply is a bound at it."""
    seed: int = 17
    output: str = ""
    work: str = ""
    trials: str = ""
    """Where mixtures and runs are kept; searches with the same share them."""
    bounds: dict[str, list[float]] = field(default_factory=dict)
    groups: list[list[str]] = field(default_factory=list)
    fixed: dict[str, float] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    """Of the trainer."""
    overrides: tuple[str, ...] = ()
    """Of the mixture."""
    verify_config: str = ""
    """Of the larger size; empty: that of the search."""
    verify_tokens: int = 0
    """Of each run's mixture at the larger size; 0: as in the search."""
    verify_settings: dict[str, str] = field(default_factory=dict)
    """Of the trainer at the larger size, over `settings`."""
    verify_runs: int = 4
    """Of the search, trained at the larger size as well, for the rank correlation."""

    @property
    def proxy(self) -> Size:
        """That of the search."""
        return Size(config=self.config, settings=self.settings, tokens=self.tokens)

    @property
    def larger(self) -> Size | None:
        """At which the arms are verified as well, where it is asked for."""
        size = Size(
            config=self.verify_config or self.config,
            settings=self.settings | self.verify_settings,
            tokens=self.verify_tokens or self.tokens,
        )
        return None if size == self.proxy else size

    @property
    def supply_at(self) -> int:
        """Tokens of the largest mixture that is made, or meant."""
        return max(self.tokens, self.verify_tokens, self.size)
