"""`python -m trainer config=NAME data=DIR [output=DIR] [key=value ...]`, also under torchrun.

`python -m trainer evaluate CHECKPOINT bench=FILE.tsv` judges a checkpoint.

Exit status: 0 done, 2 a mistake in settings or data (one message), 143 left on SIGTERM after
saving, 1 a bug or a loss that is not finite.
"""

import sys
from collections.abc import Sequence

from .config import load, split_pairs

USAGE = """\
python -m trainer config=NAME|FILE.yaml data=DIR [output=DIR] [init=CHECKPOINT] [key=value ...]
python -m trainer evaluate CHECKPOINT bench=FILE.tsv [metric=exact] [key=value ...]

configs: tiny, smolvlm_256m, smolvlm_500m, smolvlm_2b2; every field: docs/trainer.md
"""


def main(arguments: Sequence[str]) -> int:
    """The exit status."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    try:
        return _run(arguments)
    except (ValueError, FileNotFoundError, PermissionError, NotADirectoryError) as error:
        if isinstance(error, ValueError) and not _raised_by_us(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2


def _raised_by_us(error: ValueError) -> bool:
    """Our own ValueErrors explain a user's mistake; those of other packages are bugs."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    name = frame.tb_frame.f_globals.get("__name__", "") if frame is not None else ""
    return name.split(".")[0] in ("trainer", "tokenization") or name == "__main__"


def _run(arguments: Sequence[str]) -> int:
    if arguments[0] == "evaluate":
        from .benchmark import command

        return command(arguments[1:])
    pairs = split_pairs(arguments)
    if "config" not in pairs:
        raise ValueError("config is not set. Expected config=tiny or config=FILE.yaml.")
    config = load(pairs.pop("config"), pairs)
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ValueError("the trainer needs PyTorch: pip install -e '.[train]'.") from error
    from .loop import Preempted, train

    try:
        checkpoint = train(config)
    except Preempted as stopped:
        print(stopped)
        return 143
    import os

    if os.environ.get("RANK", "0") == "0":
        print(f"checkpoint {checkpoint}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
