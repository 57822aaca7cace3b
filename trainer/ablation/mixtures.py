"""The mixtures of a sweep: each built once, and the held-out samples that all arms are judged on.

```
arms --distinct--> MixtureSpec --`pipelines build`--> OUT/mixtures/NAME-HASH (one OUT/work)
baseline's mixture + an arm's encoding --> what judges the arm: the same samples as it sees them
```

An arm whose encoding differs (positions spelled out, no system prompts) is judged on the samples in
its own encoding; which tokens count (`learn`) is the baseline's in all of them.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from tokenization.terminal import log
from trainer.ablation.benchmarks import refuse_trained
from trainer.ablation.building import mixture_key, pipelines
from trainer.ablation.sweep import Arm, MixtureSpec, Sweep, as_word
from trainer.data.shards import Mixture, Rows, open_mixture, predicted_mask

COUNTING = ("learn",)
"""Of the encoding: which tokens count. A judge has the baseline's."""


@dataclass(frozen=True)
class Prepared:
    """What the runs of a sweep train on and are judged by."""

    mixtures: Mapping[str, Path]
    """Of each arm."""
    judges: Mapping[str, Path]
    """Of each arm."""
    held_out: Sequence[str]
    """Ids of the samples that every arm is judged on."""
    left_out: int
    """Held-out samples of the baseline's that some arm's encoding does not hold."""
    broken: Mapping[str, str]
    """Arms without a mixture, whose build broke off, and why; they are in none of the above."""


def prepare(sweep: Sweep, output: Path, *, place: Mapping[str, str]) -> Prepared:
    """All mixtures of the sweep are finished, and all arms can be judged on the same samples.

    `place` is where they are built, and from what: `data`, `workers`, ... of `pipelines build`.

    Raises:
        ValueError: a mistake in an arm's mixture (a shortage, an unknown key), named before
            anything is trained; held-out samples that are none, or trained on, or no two arms'.
    """
    place = {"work": str(output / "work"), **place}
    for arm in {_key(arm.mixture): arm for arm in sweep.arms}.values():
        if not _is_built(arm.mixture, output):
            _pipelines("plan", arm.mixture, output, place=place, arm=arm.name)
    mixtures, judges, broken = {}, {}, {}
    for arm in sweep.arms:
        try:
            mixtures[arm.name] = built(arm.mixture, output, place=place, arm=arm.name)
            judges[arm.name] = _judge(sweep, arm, mixtures, output, place)
        except RuntimeError as error:
            if arm is sweep.baseline:
                raise
            broken[arm.name] = str(error)
            mixtures.pop(arm.name, None)
            log(broken[arm.name])
    held_out, left_out = _same_samples(sweep, judges)
    _refuse_leaks(held_out, mixtures)
    for folder, arm_name in {folder: name for name, folder in mixtures.items()}.items():
        mixture = open_mixture(str(folder))
        refuse_trained(sweep.benchmarks, mixture, who=f"arm '{arm_name}'")
    return Prepared(mixtures, judges, held_out, left_out, broken)


def built(spec: MixtureSpec, output: Path, *, place: Mapping[str, str], arm: str) -> Path:
    """The folder of the finished mixture, which is built unless it is."""
    if not _is_built(spec, output):
        _pipelines("build", spec, output, place=place, arm=arm)
    return spec.folder or _folder(spec, output)


def _is_built(spec: MixtureSpec, output: Path) -> bool:
    return bool(spec.folder) or (_folder(spec, output) / "recipe.json").is_file()


def _key(spec: MixtureSpec) -> str:
    return mixture_key(spec.mixture, spec.build)


def _folder(spec: MixtureSpec, output: Path) -> Path:
    return output / "mixtures" / f"{Path(spec.mixture).stem}-{_key(spec)}"


def _pipelines(
    command: str, spec: MixtureSpec, output: Path, *, place: Mapping[str, str], arm: str
) -> None:
    """`python -m pipelines COMMAND` has succeeded; ValueError where the mixture is refused."""
    words = {**spec.build, **place, "output": str(_folder(spec, output)), "quiet": "true"}
    if command == "plan":
        words.pop("workers", None)
    else:
        words = {"report": "false", **words}
    log(f"{'checking' if command == 'plan' else 'building'} the mixture of arm '{arm}'")
    try:
        pipelines(command, {"mixture": spec.mixture, **words})
    except (ValueError, RuntimeError) as error:
        raise type(error)(f"arm '{arm}': its mixture cannot be built:\n{error}") from error


def _judge(
    sweep: Sweep, arm: Arm, mixtures: Mapping[str, Path], output: Path, place: Mapping[str, str]
) -> Path:
    """The held-out samples as this arm sees them."""
    own = sweep.held_out == sweep.baseline.mixture
    base = (
        mixtures[sweep.baseline.name]
        if own
        else built(sweep.held_out, output, place=place, arm="held_out")
    )
    wanted = dataclasses.asdict(open_mixture(str(mixtures[arm.name])).encoding)
    given = dataclasses.asdict(open_mixture(str(base)).encoding)
    differs = {k: v for k, v in wanted.items() if v != given[k] and k not in COUNTING}
    if "tokenizer" in differs:
        raise ValueError(
            f"arm '{arm.name}': its tokenizer is {wanted['tokenizer']}, that of the held-out "
            f"samples {given['tokenizer']}: losses per token of two tokenizers cannot be compared."
        )
    if not differs:
        return base
    if sweep.held_out.folder:  # which cannot be built anew: the arm's own val samples, then
        return mixtures[arm.name]
    words = {f"encoding.{key}": as_word(value) for key, value in differs.items()}
    spec = dataclasses.replace(sweep.held_out, build={**sweep.held_out.build, **words})
    return built(spec, output, place=place, arm=f"{arm.name}, held out")


def _same_samples(sweep: Sweep, judges: Mapping[str, Path]) -> tuple[list[str], int]:
    """(ids that all judges hold, how many of the baseline's some judge lacks); ValueError where
    there are none, or where one counts other tokens.
    """
    held = {folder: learned_tokens(open_mixture(str(folder)), "val") for folder in judges.values()}
    first = held[judges[sweep.baseline.name]]
    if not any(first.values()):
        raise ValueError(
            f"{judges[sweep.baseline.name]}: no held-out samples, so no arm can be judged.\n"
            "way out: build with val_fraction above 0, or name another mixture in held_out."
        )
    both = [name for name in first if first[name] and all(name in each for each in held.values())]
    for arm, folder in judges.items():
        other = [name for name in both if held[folder][name] != first[name]]
        if other:
            raise ValueError(
                f"arm '{arm}': {len(other)} of {len(both)} held-out samples have other learned "
                f"tokens than the baseline's ({other[0]}: {held[folder][other[0]]} beside "
                f"{first[other[0]]}), so their losses cannot be compared.\n"
                "way out: name one mixture for all in held_out."
            )
    if not both:
        raise ValueError(
            "no held-out sample is in the mixtures of all arms.\n"
            "way out: name one mixture for all in held_out, or a larger val_fraction."
        )
    return both, len(first) - len(both)


def _refuse_leaks(held_out: Sequence[str], mixtures: Mapping[str, Path]) -> None:
    chosen = set(held_out)
    seen: dict[Path, int] = {}
    for arm, folder in mixtures.items():
        if folder not in seen:
            seen[folder] = len(chosen & learned_tokens(open_mixture(str(folder)), "train").keys())
        if seen[folder]:
            raise ValueError(
                f"arm '{arm}' trains on {seen[folder]} of the {len(chosen)} held-out samples.\n"
                "way out: give all mixtures one seed and one val_fraction, so that a sample is on "
                "the same side in all of them."
            )


def learned_tokens(mixture: Mixture, split: str) -> dict[str, int]:
    """Learned tokens of every sample of a split, by id: of all its copies, and of all pieces of one
    that was cut. Images are not read.
    """
    found: Counter[str] = Counter()
    rows = Rows(mixture, split)
    for shard in range(len(rows.shards)):
        with pa.ipc.open_file(pa.memory_map(str(rows.fetch(shard)))) as reader:
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                lengths = batch.column("seq_lengths").flatten().to_numpy()
                mask = batch.column("loss_mask").flatten().to_numpy(zero_copy_only=False)
                if len(lengths):
                    starts = np.cumsum(lengths) - lengths
                    learned = np.add.reduceat(predicted_mask(mask, lengths).astype(int), starts)
                    names = batch.column("sample_ids").flatten().to_pylist()
                    for name, count in zip(names, learned.tolist(), strict=True):
                        found[name] += count
    return found
