"""`python -m trainer config=NAME data=DIR [output=DIR] [key=value ...]`, also under torchrun.

`python -m trainer evaluate CHECKPOINT bench=FILE.tsv` judges a checkpoint, `average RUN` makes one
of a run's last ones.

Exit status: 0 done, 2 a mistake in settings or data (one message), 143 left on SIGTERM after
saving, 1 a bug or a loss that is not finite.
"""

import sys
from collections.abc import Sequence

from tokenization import machine
from tokenization.terminal import say, say_traceback
from trainer.config import Model, load, split_pairs

USAGE = """\
python -m trainer config=NAME|FILE.yaml data=DIR [output=DIR] [key=value ...]
python -m trainer init=CHECKPOINT|HUB_ID data=DIR [output=DIR] [key=value ...]

Train a SmolVLM on a finished mixture. The same command again goes on from the newest checkpoint.

  config=NAME      tiny, smolvlm_256m, smolvlm_500m, smolvlm_2b2, or a YAML file; the paper's
                   other pairings: pairing_so400m_135m, pairing_so400m_360m, pairing_b16_1b7
  data=DIR         a finished mixture; '{A: 3, B: 1}' mixes several by share of rows
  output=DIR       the run                    (default: out/runs/<config name>-<mixture name>)
  init=CHECKPOINT  start from the weights of a stage before, or of a SmolVLM of the hub
                   (HuggingFaceTB/SmolVLM2-500M-Video-Instruct, ORG/NAME@revision); without
                   config= the sizes are this checkpoint's

Any other key=value overrides the config, with dots: optim.lr.vision=5e-6. Those asked for most:

  steps=N, epochs=1       how long; steps wins
  batch_rows=64           packed rows per step, over all processes
  micro_rows=1            of them at one time in memory
  save_every=500          steps between checkpoints; each updates RUN/run.html
  evaluate_every=0        steps between held-out losses; 0: at the end
  device=auto, threads=0  where it runs
  optim.freeze=[vision]   towers that stay as they are: vision, connector, language
  adapter.rank=0          above 0: train low-rank adapters

Several devices: torchrun --nproc-per-node=8 -m trainer config=... data=... [parallel=fsdp]
On a Ray cluster: python -m trainer config=... data=... output=... ray=auto ranks=16 [failures=3]
Judge a checkpoint: python -m trainer evaluate CHECKPOINT bench=FILE.tsv; evaluate --help says more.
Average a run's last checkpoints: python -m trainer average RUN last=5; average --help says more.
Every field: trainer/config.py; what they mean: docs/trainer.md.
"""


def main(arguments: Sequence[str]) -> int:
    """The exit status."""
    machine.settle()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        say(USAGE.rstrip())
        return 0 if arguments else 2
    if arguments[0] not in ("evaluate", "average") and {"-h", "--help"} & set(arguments):
        say(USAGE.rstrip())
        return 0
    try:
        return _run(arguments)
    except (ValueError, FileNotFoundError, PermissionError, NotADirectoryError) as error:
        if isinstance(error, ValueError) and not _raised_by_us(error):
            raise
        say(f"error: {error}", error=True)
        return 2


def _raised_by_us(error: ValueError) -> bool:
    """Our own ValueErrors explain a user's mistake; those of other packages are bugs."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    name = frame.tb_frame.f_globals.get("__name__", "") if frame is not None else ""
    return name.split(".")[0] in ("trainer", "tokenization") or name == "__main__"


def _model_of(init: str) -> Model:
    """`transformers` comes in only here: a run that names its config does not wait for it."""
    from trainer.model.published import model_of

    return model_of(init)


def _run(arguments: Sequence[str]) -> int:
    if arguments[0] == "evaluate":
        from trainer.evaluation.evaluate import evaluate_command

        return evaluate_command(arguments[1:])
    if arguments[0] == "average":
        from trainer.average import average_command

        return average_command(arguments[1:])
    pairs = split_pairs(arguments)
    if "config" not in pairs and not pairs.get("init"):
        raise ValueError(
            "config is not set. Expected config=tiny or config=FILE.yaml, or init=CHECKPOINT, "
            "whose sizes are then taken."
        )
    from trainer.cluster import cluster_settings, launch

    cluster = cluster_settings(pairs)
    config = load(pairs.pop("config", ""), pairs, model_of=_model_of)
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ValueError("the trainer needs PyTorch: pip install -e '.[train]'.") from error
    from trainer.loop import Preempted, train

    try:
        checkpoint = launch(config, **cluster) if cluster else train(config)
    except Preempted as stopped:
        say(str(stopped))
        return 143
    import os

    if os.environ.get("RANK", "0") == "0":
        say(f"checkpoint {checkpoint}")
    return 0


if __name__ == "__main__":
    sys.excepthook = say_traceback
    sys.exit(main(sys.argv[1:]))
