"""The command line: `smolvlm-trainer [COMMAND] ...`, or `python -m trainer`, also under torchrun.

Grammar, help and exit statuses are those of both programs (tokenization/command_line.py). Where no
command is named, `train` is meant. A loss that is not finite ends with exit status 1.
"""

import os
from pathlib import Path
from typing import NoReturn

from tokenization import command_line
from tokenization.command_line import PREEMPTED, Answer, Command, Program
from trainer import usage
from trainer.arguments import split_pairs


def train(words: list[str]) -> Answer:
    """`train config=NAME|FILE.yaml data=DIR [key=value ...]`."""
    pairs = split_pairs(words)
    from trainer import api

    config, cluster = api.settings_of(pairs)
    from trainer.loop import Preempted

    try:
        checkpoint = api.trained(config, cluster)
    except Preempted as stopped:
        return Answer(str(stopped), {"stopped": str(stopped)}, status=PREEMPTED)
    return _made(checkpoint)


def evaluate(words: list[str]) -> Answer:
    """`evaluate CHECKPOINT bench=FILE.tsv`."""
    from trainer.evaluation.evaluate import evaluate_command

    return evaluate_command(_named_first(words, "checkpoint"))


def score(words: list[str]) -> Answer:
    """`score CHECKPOINT data=DIR`."""
    from trainer.evaluation.score import score_command

    return score_command(_named_first(words, "checkpoint"))


def answers(words: list[str]) -> Answer:
    """`answers CHECKPOINT data=DIR`."""
    from trainer.align.answers import answers_command

    return answers_command(_named_first(words, "checkpoint"))


def average(words: list[str]) -> Answer:
    """`average RUN last=5`."""
    from trainer.average import average_command

    return average_command(_named_first(words, "run"))


def sweep(words: list[str]) -> Answer:
    """`sweep FILE.yaml`."""
    from trainer.ablation.command import sweep_command

    return sweep_command(words)


def search(words: list[str]) -> Answer:
    """`search mixture=FILE.yaml target='{COMPONENT: 1}'`."""
    from trainer.search.command import search_command

    return search_command(words)


def align(words: list[str]) -> Answer:
    """`align config=NAME|FILE.yaml data=DIR init=CHECKPOINT [key=value ...]`."""
    pairs = split_pairs(words)
    from trainer.align.run import align as aligned

    return _made(aligned(pairs))


def _made(folder: Path) -> Answer:
    """A checkpoint was made: the first of torchrun's processes says so."""
    if os.environ.get("RANK", "0") != "0":
        return Answer()
    from trainer.checkpoint import as_data

    return Answer(f"checkpoint {folder}", as_data(folder))


def _named_first(words: list[str], key: str) -> list[str]:
    """The value of `key` first, then the other words."""
    first = [word.removeprefix(f"{key}=") for word in words if word.startswith(f"{key}=")]
    return [*first, *(word for word in words if not word.startswith(f"{key}="))]


COMMANDS = {
    "train": Command(
        train,
        "[train] config=NAME|FILE.yaml data=DIR [init=CHECKPOINT|HUB_ID] [key=value ...]",
        "train a SmolVLM on a finished mixture; said again, it goes on where it was",
        usage.TRAIN,
        example="mine.yaml data=out/mine optim.lr.vision=5e-6",
        takes=("config",),
        switches=frozenset({"compile", "tensorboard"}),
        json=True,
        slow=True,
    ),
    "evaluate": Command(
        evaluate,
        "evaluate CHECKPOINT bench=FILE.tsv [key=value ...]",
        "ask a checkpoint the questions of a benchmark and score what it says",
        usage.EVALUATE,
        example="evaluate out/runs/sft bench=DocVQA_VAL.tsv metric=anls",
        takes=("checkpoint", "bench"),
        json=True,
        slow=True,
    ),
    "score": Command(
        score,
        "score CHECKPOINT data=DIR [key=value ...]",
        "what its images are worth to every sample of a mixture, as seen by a checkpoint",
        usage.SCORE,
        example="score out/runs/sft data=out/mine",
        takes=("checkpoint", "data"),
        json=True,
        slow=True,
    ),
    "answers": Command(
        answers,
        "answers CHECKPOINT data=DIR [generations=8] [metric=exact] [key=value ...]",
        "its own answers to a mixture's questions, scored, and pairs of right and wrong ones",
        usage.ANSWERS,
        example="answers out/runs/sft data=out/mine metric=relaxed",
        takes=("checkpoint", "data"),
        json=True,
        slow=True,
    ),
    "align": Command(
        align,
        "align [config=dpo|mpo|grpo|FILE.yaml] data=DIR init=CHECKPOINT [key=value ...]",
        "train a checkpoint on pairs of answers, or by gold answers, with TRL",
        usage.ALIGN,
        example="align config=mpo data=out/pairs init=out/runs/sft",
        takes=("config",),
        switches=frozenset({"gradient_checkpointing"}),
        json=True,
        slow=True,
    ),
    "sweep": Command(
        sweep,
        "sweep FILE.yaml [seeds=N] [output=DIR] [key=value ...]",
        "train arms that differ in their data or settings, over seeds, and say what that shows",
        usage.SWEEP,
        example="sweep examples/sweeps/positions.yaml seeds=5",
        takes=("sweep",),
        json=True,
        slow=True,
    ),
    "average": Command(
        average,
        "average RUN [last=5] [output=DIR]",
        "the mean of the weights of a run's last checkpoints, as a checkpoint of its own",
        usage.AVERAGE,
        example="average out/runs/sft last=5",
        takes=("run",),
        json=True,
        slow=True,
    ),
    "search": Command(
        search,
        "search mixture=FILE.yaml target='{COMPONENT: 1}' [key=value ...]",
        "the ratios of a mixture that small runs do best with; said again, it goes on",
        usage.SEARCH,
        example="search mine.yaml target='{charts: 1, pages: 2}' runs=24 tokens=200000",
        takes=("mixture",),
        json=True,
        slow=True,
    ),
}


def is_mistake(error: BaseException) -> bool:
    """Our own ValueErrors, and files that are not there or not to be read, are a user's mistake;
    ValueErrors of other packages are bugs.
    """
    if not isinstance(error, ValueError):
        return isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError)
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    name = frame.tb_frame.f_globals.get("__name__", "") if frame is not None else ""
    return name.split(".")[0] in ("trainer", "tokenization") or name == "__main__"


PROGRAM = Program(
    name="trainer",
    script="smolvlm-trainer",
    summary="Train SmolVLM-type models on what smolvlm-pipelines builds, and judge them.",
    commands=COMMANDS,
    is_mistake=is_mistake,
    otherwise="train",
)


def main(words: list[str]) -> int:
    """Runs the command; returns the exit status."""
    return command_line.run(PROGRAM, words)


def program() -> NoReturn:
    """The console command `smolvlm-trainer`."""
    command_line.leave(PROGRAM, main)


if __name__ == "__main__":
    program()
