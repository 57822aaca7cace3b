"""What Python programs and notebooks call; the command line is a thin shell over it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.cluster import cluster_settings, launch
from trainer.config import Config, Model
from trainer.config_file import load as load_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

Where = str | PathLike[str]


@dataclass(frozen=True)
class Run:
    """A run that has ended; `trainer.load(run)` opens its last checkpoint."""

    folder: Path
    checkpoint: Path

    def __fspath__(self) -> str:
        """Its last checkpoint."""
        return str(self.checkpoint)

    @property
    def page(self) -> Path:
        """RUN/run.html: curves, and what the model says to held-out samples."""
        return self.folder / "run.html"

    @property
    def log(self) -> list[dict[str, Any]]:
        """RUN/log.jsonl: a dict per logged step (`loss`, `losses`, ...), and one per measurement of
        a checkpoint (`held_out`, `metrics`, `said`).
        """
        return [json.loads(line) for line in (self.folder / "log.jsonl").read_text().splitlines()]

    def _repr_html_(self) -> str:
        from tokenization.pages import light_css, place_styles
        from trainer.monitoring.page import loss_names, plots

        lines = self.log
        logged = [line for line in lines if "loss" in line]
        held = [line for line in lines if "held_out" in line]
        styles = place_styles((), loss_names(logged, held))
        drawn = plots(logged, held, styles) if len(logged) > 1 else []
        figures = "".join(
            f"<figure>{plot['svg']}<figcaption>{escape(plot['title'])}, {escape(plot['note'])}"
            "</figcaption></figure>"
            for plot in drawn
        )
        last = f"loss {logged[-1]['mean_loss']:.4f} after {logged[-1]['step']} steps"
        return (
            f'<style>{light_css(".smolvlm-run")}</style><div class="smolvlm-run">'
            f"<h3>{escape(str(self.checkpoint))}</h3><p>{last}</p>{figures}</div>"
        )


def train(
    config: Where = "",
    *,
    data: Where | Mapping[str, float],
    output: Where = "",
    init: Where = "",
    overrides: Mapping[str, Any] | None = None,
    ray: str = "",
    ranks: int = 0,
    failures: int = 0,
) -> Run:
    """The run, trained to its end; the same call again goes on from its newest checkpoint.

    `config` is `tiny`, `smolvlm_256m`, ... or a YAML file; without it the sizes are those of
    `init`, a checkpoint or a SmolVLM of the hub. `data` is a finished mixture, or several with
    their shares of rows. `overrides` are keys of the config: `{"optim.lr.vision": 5e-6}`. With
    `ray`, `ranks` processes of a Ray cluster train.

    Raises:
        ValueError, FileNotFoundError: a mistake in the settings or the data.
        Preempted (trainer.loop): SIGTERM came; the run was saved before leaving.
    """
    several = isinstance(data, Mapping)
    given = {
        "config": fspath(config),
        "data": json.dumps(data) if several else fspath(data),  # type: ignore[arg-type]
        "output": fspath(output),
        "init": fspath(init),
        "ray": ray,
        "ranks": str(ranks or ""),
        "failures": str(failures or ""),
    }
    pairs = {key: value for key, value in given.items() if value}
    settings, cluster = settings_of(pairs | {k: as_word(v) for k, v in (overrides or {}).items()})
    checkpoint = trained(settings, cluster)
    return Run(folder=checkpoint.parent, checkpoint=checkpoint)


def as_word(value: Any) -> str:
    """A value of Python as the command line has it."""
    return value if isinstance(value, str) else json.dumps(value)


def settings_of(pairs: dict[str, str]) -> tuple[Config, dict[str, Any]]:
    """(the checked config, what `launch` is to be given, if anything) of `key=value`."""
    if "config" not in pairs and not pairs.get("init"):
        raise ValueError(
            "config is not set. Expected config=tiny or config=FILE.yaml, or init=CHECKPOINT, "
            "whose sizes are then taken."
        )
    pairs = dict(pairs)
    cluster = cluster_settings(pairs)
    config = load_config(pairs.pop("config", ""), pairs, model_of=_model_of)
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "the trainer needs PyTorch: pip install 'smolvlm-pipelines[train]'."
        ) from error
    return config, cluster


def trained(config: Config, cluster: dict[str, Any]) -> Path:
    """The last checkpoint of the run, trained here or on the cluster."""
    from trainer.loop import train as train_here

    return launch(config, **cluster) if cluster else train_here(config)


def _model_of(init: str) -> Model:
    """`transformers` comes in only here: a run that names its config does not wait for it."""
    from trainer.model.published import model_of

    return model_of(init)


def load(checkpoint: Where, *, device: str = "auto") -> "tuple[PreTrainedModel, ProcessorMixin]":
    """(model, processor) of `transformers`, of a checkpoint's folder or of a run's newest one.

    The model is on the device, in float32, in eval mode. The processor makes the ids and crops that
    were trained, but for what the checkpoint's README.md says it leaves out; videos need
    torchvision.

    Raises:
        FileNotFoundError: no checkpoint there.
    """
    from tokenization.processor import processor_of
    from trainer.evaluation.answer import open_checkpoint

    model, _, _, folder = open_checkpoint(fspath(checkpoint), device=device)
    return model, processor_of(folder)


def evaluate(checkpoint: Where, bench: Where, **options: Any) -> list[dict[str, Any]]:
    """The scores of a checkpoint on a benchmark in VLMEvalKit's layout, as in the files beside it.

    `options` are those of `smolvlm-trainer evaluate`: metric, choices_from, against, prompts,
    images, limit, batch, max_new_tokens, device, threads, output. One result per kind of prompts
    and checkpoint, then the paired comparisons.
    """
    from trainer.evaluation.evaluate import evaluated

    words = [f"{key}={fspath(v) if isinstance(v, PathLike) else v}" for key, v in options.items()]
    return evaluated([fspath(checkpoint), f"bench={fspath(bench)}", *words])


def answers(checkpoint: Where, data: Where, **options: Any) -> Path:
    """A folder with a checkpoint's own answers to a mixture's questions, scored, and pairs of right
    and wrong ones, a mixture to be built for `align` (docs/align.md).

    `options` are those of `smolvlm-trainer answers`: generations, temperature, seed, metric, right,
    chosen, pairs, ratings, rating, split, component, limit, max_new_tokens, batch, device, threads,
    output, cache, cache_bytes. What was sampled is not sampled again.
    """
    from trainer.align.answers import answers as answered

    words = {key: fspath(v) if isinstance(v, PathLike) else str(v) for key, v in options.items()}
    return answered(fspath(checkpoint), data=fspath(data), **words)


def align(
    config: Where = "dpo",
    *,
    data: Where,
    init: Where,
    output: Where = "",
    overrides: Mapping[str, Any] | None = None,
) -> Run:
    """A checkpoint trained by TRL on pairs of answers (`dpo`, `mpo`), or by gold answers (`grpo`),
    or as a YAML file says (docs/align.md); the same call again does nothing where it is done.

    `overrides` are keys of its settings: `{"lr": 5e-6, "trl.label_smoothing": 0.1}`.

    Raises:
        ValueError, FileNotFoundError: a mistake in the settings or the data, TRL not installed.
    """
    from trainer.align.run import align as aligned

    given = {"config": config, "data": data, "init": init, "output": output}
    pairs = {key: fspath(value) for key, value in given.items() if fspath(value)}
    checkpoint = aligned(pairs | {k: as_word(v) for k, v in (overrides or {}).items()})
    return Run(folder=checkpoint.parent, checkpoint=checkpoint)


def score(checkpoint: Where, data: Where, **options: Any) -> Path:
    """A Parquet file with a line per sample of a finished mixture: its loss with its own images,
    without, and with another sample's, as the checkpoint sees them (docs/scores.md).

    `options` are those of `smolvlm-trainer score`: like, output, split, device, threads, cache,
    cache_bytes. A file that is there already, of these weights and this mixture, is not made again.
    """
    from trainer.evaluation.score import score as scored

    words = {key: fspath(v) if isinstance(v, PathLike) else str(v) for key, v in options.items()}
    return scored(fspath(checkpoint), data=fspath(data), **words)
