"""`python -m trainer align config=... data=... init=CHECKPOINT`: from settings to a checkpoint.

```
RUN/align.yaml     the settings of the run
RUN/begun.json     what its data and first weights are
RUN/trl/           rows as TRL takes them, its own states (save_every)
RUN/log.jsonl      what TRL logs
RUN/step-000100/   the checkpoint, as those of training (trainer/checkpoint.py)
```

Said again it goes on from the newest state, and does nothing where the checkpoint is there.
"""

import dataclasses
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenization.terminal import log
from trainer import checkpoint
from trainer.align import data
from trainer.align.settings import Align, changed, load, to_yaml
from trainer.arguments import local_path
from trainer.config import Config
from trainer.config_file import load as load_config
from trainer.data import integrity
from trainer.data.shards import Mixture, open_mixture, refuse_mismatch

SETTINGS = "align.yaml"
BEGUN = "begun.json"


def align(pairs: Mapping[str, str]) -> Path:
    """The checkpoint of the run that `key=value` words describe.

    Raises:
        ValueError: a mistake in them, data that hold nothing to align on, TRL not installed.
        FileNotFoundError: no such config, mixture or checkpoint.
    """
    settings = load(pairs)
    from trainer.align import with_trl

    with_trl.require_trl()
    mixture = open_mixture(settings.data)
    output = settings.output or f"out/runs/{settings.name}-{mixture.name}"
    run = local_path(output, "align: output")
    if (done := claim(run, settings, begun_with(settings, mixture))) is not None:
        log(f"{done} is there already; nothing to do.")
        return done
    from trainer.parallel import torch_threads

    with torch_threads(settings.threads):
        return aligned(settings, mixture, run)


def begun_with(settings: Align, mixture: Mixture) -> dict[str, str]:
    """What the run's data and its first weights are, by content where they lie here."""
    listed = Path(settings.init) / "trainer" / "files.json"
    if Path(settings.init).is_dir():
        listed = checkpoint.resolve_checkpoint(Path(settings.init)) / integrity.LIST
    init = integrity.sha256_of(listed) if listed.is_file() else settings.init
    return {"data": mixture.fingerprint, "init": init}


def claim(run: Path, settings: Align, begun: Mapping[str, str]) -> Path | None:
    """The run's folder is ours to write in; returns its checkpoint, where it is done.

    Raises:
        ValueError: it holds something else, or was begun with other settings, data or weights.
    """
    file = run / SETTINGS
    if file.is_file():
        drift = changed(file.read_text(), settings)
        before = json.loads((run / BEGUN).read_text())
        drift += [f"{key}: its content changed" for key in begun if before[key] != begun[key]]
        if drift:
            raise ValueError(
                f"output={run} was begun with other settings:\n  " + "\n  ".join(drift) + "\n"
                "way out: name another output=, or use these settings again."
            )
        done = checkpoint.checkpoint_folders(run)
        return done[-1] if done else None
    if run.is_dir() and any(run.iterdir()):
        raise ValueError(
            f"output={run} is not empty and holds no alignment. Nothing was written. Name another "
            "with output=DIR."
        )
    return None


def begin(run: Path, settings: Align, begun: Mapping[str, str]) -> None:
    """The run's folder says what it is."""
    run.mkdir(parents=True, exist_ok=True)
    if not (run / SETTINGS).is_file():
        (run / BEGUN).write_text(json.dumps(begun))
        (run / SETTINGS).write_text(to_yaml(settings))


def aligned(settings: Align, mixture: Mixture, run: Path) -> Path:
    """The checkpoint, trained and written."""
    # Longer than a screen: what is checked, read, trained and written, in that order.
    from transformers.utils import logging

    from trainer.align import result, with_trl
    from trainer.model import initial, published

    logging.disable_progress_bar()
    started = time.monotonic()
    config = config_of(settings)
    tokenizer = initial.tokenizer_of([mixture])
    refuse_mismatch(config, mixture, vocabulary=len(tokenizer))
    for line in published.check_init(config, [mixture], tokenizer):
        log(line)
    train, held = run / "trl" / "train.arrow", run / "trl" / "val.arrow"
    with with_trl.first_alone():
        begin(run, settings, begun_with(settings, mixture))
        count = data.write(mixture, "train", train, method=settings.method)
        kept = 0
        if settings.held_out:
            most = settings.held_out
            kept = data.write(mixture, "val", held, method=settings.method, most=most)
    if not count:
        what = (
            "pairs of answers"
            if settings.method == "dpo"
            else "questions about images with answers of text"
        )
        raise ValueError(
            f"data={settings.data}: no {what} in it.\nway out: build a mixture of a source of "
            "pairs (docs/align.md)."
        )
    log(f"{count:,} {'pairs' if settings.method == 'dpo' else 'questions'}, {kept:,} held out")
    model = initial.initial_model(config, tokenizer, resume=None)
    with processing(settings, tokenizer, mixture) as processor:
        found = with_trl.align(
            settings,
            model=model,
            tokenizer=tokenizer,
            processor=processor,
            encoding=mixture.encoding,
            train=train,
            held_out=held if kept else None,
            run=run,
        )
    state = dataclasses.replace(
        checkpoint.standing(config, [mixture], None),
        step=found.steps,
        num_steps=found.steps,
        tokens=found.tokens,
        seconds=time.monotonic() - started,
        metrics=found.after,
        measured_at=found.steps if found.after else -1,
    )
    if not with_trl.is_first():
        return run / checkpoint.folder_name(state.step)
    return result.write(
        run,
        model=model,
        tokenizer=tokenizer,
        mixture=mixture,
        state=state,
        settings=settings,
        before=found.before,
    )


def config_of(settings: Align) -> Config:
    """The trainer's own config of a stage from `init` on these data, by which both are checked."""
    from trainer.model.published import model_of

    words = {
        "init": settings.init,
        "data": settings.data,
        "seed": str(settings.seed),
        "optim.freeze": json.dumps(settings.freeze),
        "init_may_differ": json.dumps(settings.init_may_differ),
    }
    return load_config("", words, model_of=model_of)


@contextmanager
def processing(settings: Align, tokenizer: Any, mixture: Mixture) -> Iterator[Any]:
    """The processor that the checkpoint will have; pairs need none."""
    if settings.method == "dpo":
        yield None
        return
    from tokenization.inference import save_processing
    from tokenization.processor import processor_of

    with tempfile.TemporaryDirectory() as folder:
        save_processing(tokenizer, Path(folder), encoding=mixture.encoding)
        yield processor_of(Path(folder))
