"""The proof of the search: it finds a planted component of noise, and beats ratios made by hand.

    python -m benchmarks.search [OUTPUT] [runs=14] [seeds=5] [tokens=16000] [methods=bayes,merge]

The six components are made (benchmarks/made/components.py): shapes, charts, formulas and text that
can be learned, noise, and one of near-duplicates. The target is the held-out loss of the four. All
methods spend the same number of runs, those of experts included. Prints a table per method; its
page and its proposal are in OUTPUT/METHOD.
"""

import json
import sys
from pathlib import Path

from benchmarks.made.components import LEARNT, write
from trainer.__main__ import main as trainer

SETTINGS = ("train.batch_rows=1", "train.micro_rows=1", "train.save_every=100000",
            "train.log_every=1000")  # fmt: skip
"""Of the trainer: steps are what a short run learns by, so each has one row."""


def main(words: list[str]) -> None:
    """The proof, at the size that the words say."""
    output = Path(next((word for word in words if "=" not in word), "out/proof-search"))
    said = {"runs": "14", "seeds": "5", "tokens": "16000", "methods": "regression,bayes,merge"}
    said |= dict(word.split("=", 1) for word in words if "=" in word)
    mixture = write(output / "data")
    for method in said["methods"].split(","):
        status = trainer([
            "search", f"mixture={mixture}", f"target={json.dumps(dict.fromkeys(LEARNT, 1))}",
            f"method={method}", f"runs={said['runs']}", f"seeds={said['seeds']}",
            f"tokens={said['tokens']}", f"output={output / method}", f"work={output / 'work'}",
            f"trials={output / 'trials'}",
            "workers=0", *SETTINGS,
        ])  # fmt: skip
        if status:
            sys.exit(status)
        found = json.loads((output / method / "result.json").read_text())
        shares = ", ".join(f"{name} {100 * r:.1f} %" for name, r in found["proposal"].items())
        print(f"{method}: {shares}; {json.dumps(found['search_cost'])}")
        for arm, told in found["verified"].items():
            print(f"  {arm:<10}{told['mean']:.4f} +- {told['spread']:.4f}  "
                  f"{told['difference']:+.4f}  {told['verdict']}")  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
