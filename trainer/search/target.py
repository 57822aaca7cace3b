"""The number that is to be low: held-out losses of components, and what benchmarks are wrong in.

    losses by component, scores by benchmark --target_of--> weighted mean of losses and 1 - scores

Neither is of anything that is trained on: held-out samples are on their side by a hash of their id,
and benchmarks are compared with every mixture before it is trained on.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from trainer.ablation.mixtures import learned_tokens
from trainer.arguments import did_you_mean
from trainer.config import Config
from trainer.data.shards import Mixture
from trainer.evaluation.held_out import components
from trainer.search.settings import Settings


def target_of(
    losses: Mapping[str, float], target: Mapping[str, float], scores: Mapping[str, float]
) -> float:
    """The weighted mean of the losses of the target's components and of 1 less the scores of its
    benchmarks.
    """
    whole = sum(target.values())
    return (
        sum(
            share * (1 - scores[name] if name in scores else losses[f"component/{name}"])
            for name, share in target.items()
        )
        / whole
    )


def require_target(chosen: Settings, ratios: Mapping[str, float], judge: Mixture) -> None:
    """Raises ValueError where the target names what is not there, or is not held out."""
    learned = _learned_by_component(judge)
    for name in chosen.benchmarks:
        if name in ratios:
            raise ValueError(
                f"search: {name} is a component of the mixture and a benchmark; expected names "
                "that tell them apart.\nway out: call the benchmark another name."
            )
        if name not in chosen.target:
            raise ValueError(
                f"search: the benchmark {name} has no weight in target; expected for instance "
                f"target='{{{name}: 1}}'."
            )
    for name in chosen.target:
        if name in chosen.benchmarks:
            continue
        if name not in ratios:
            known = [*ratios, *chosen.benchmarks]
            raise ValueError(
                f"search: target names {name!r}; expected components of the mixture, or benchmarks "
                f"that benchmarks= states: {', '.join(known)}. {did_you_mean(name, known)}"
            )
        if not learned.get(name):
            raise ValueError(
                f"search: target {name} has no held-out samples that anything is learned of.\n"
                "way out: more rows of it, or a larger val_fraction (val_fraction=0.2)."
            )


def _learned_by_component(judge: Mixture) -> dict[str, int]:
    """Learned tokens of the val split."""
    names = components(judge)
    found: Counter[str] = Counter()
    for sample, tokens in learned_tokens(judge, "val").items():
        prefix = sample.rpartition("/")[0]
        found[names.get(prefix, prefix)] += tokens
    return dict(found)


def require_learning(config: Config) -> None:
    """Raises ValueError where nothing can be learned, so that the target is the same everywhere."""
    if not any(vars(config.optim.lr).values()):
        raise ValueError(
            "search: train.optim.lr is 0, so the target is constant: no ratio is better than "
            "another.\nway out: a rate above 0."
        )


def named(target: Mapping[str, float], benchmarks: Sequence[str]) -> str:
    """The target in words."""
    return ", ".join(
        f"{share:g} x {'1 - score of ' if name in benchmarks else 'loss of '}{name}"
        for name, share in target.items()
    )
