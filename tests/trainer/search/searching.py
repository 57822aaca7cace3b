"""A small search in this process: builds without a process of their own, the smallest model."""

import contextlib
import io
import json
import random
from collections.abc import Mapping
from pathlib import Path

from pipelines.__main__ import main as pipelines_main
from tests.pipelines.sources.making import write_lines
from tests.trainer.conftest import SMALL
from trainer.__main__ import main
from trainer.ablation.building import MISTAKE

MIXTURE = """
encoding: {tokenizer: builtin, seq_len: 128, crop_size: 64, tokens_per_crop: 16, max_crops: 16,
           longest_edge: 64, system_prompts: none}
components:
  a: {source: messages, data: DIR/a.jsonl, ratio: 0.5}
  b: {source: messages, data: DIR/b.jsonl, ratio: 0.5, max_epochs: 2}
"""
WORDS = {**{f"train.{key}": value for key, value in SMALL.items()}, "train.batch_rows": "1",
         "train.micro_rows": "1", "workers": "0", "runs": "4", "tokens": "1000",
         "target": "{a: 1, b: 2}", "bounds": "{a: [0.2, 0.8]}", "seeds": "0"}  # fmt: skip
del WORDS["train.steps"], WORDS["train.page_samples"]


def write_mixture(folder: Path, rows: int = 200) -> Path:
    """A mixture of two components, sums and noise, of which little is read."""
    draw = random.Random(17)
    for name in "ab":
        lines = []
        for n in range(rows):
            told = str(n + 1) if name == "a" else " ".join(draw.choices("uvwxyz", k=4))
            lines.append({"messages": [{"role": "user", "content": f"What follows {name} {n}?"},
                                       {"role": "assistant", "content": told}]})  # fmt: skip
        write_lines(folder / f"{name}.jsonl", lines)
    file = folder / "m.yaml"
    file.write_text(MIXTURE.replace("DIR", str(folder)))
    return file


def build_here(command: str, words: Mapping[str, str]) -> None:
    """As `trainer.ablation.building.pipelines`, but for the process."""
    with contextlib.redirect_stderr(io.StringIO()) as said:
        status = pipelines_main([command, *(f"{k}={v}" for k, v in words.items())])
    if status == MISTAKE:
        raise ValueError(said.getvalue().strip())
    assert status == 0


def search(mixture: Path, out: Path, **words: str) -> int:
    """The exit status of a small search into `out`; mixtures are read once beside it."""
    given = WORDS | {"output": str(out), "work": str(out.parent / "work")} | words
    return main(["search", str(mixture), *(f"{k}={v}" for k, v in given.items())])


def result(out: Path) -> dict:
    """Of a search, but for what was measured of its costs."""
    found = json.loads((out / "result.json").read_text())
    for cost in (found["cost"], found["search_cost"]):
        del cost["cpu_seconds"]
    return found
