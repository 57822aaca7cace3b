"""The proof of the search: it finds a planted component of noise, and beats ratios made by hand.

    python -m benchmarks.search OUTPUT [runs=18] [seeds=5] [tokens=40000] [methods=bayes,merge]

Components are made here: sums, spelling, colours; `noise`, whose answers have nothing to do with
their questions; `alike`, a few sums again and again with another last word. The target is the
held-out loss of sums, spelling and colours. Prints a line per method, its table in OUTPUT/METHOD.
"""

import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from trainer.__main__ import main as trainer

COLOURS = ("red", "green", "blue", "black", "white")
THINGS = ("cat", "dog", "bird", "fish", "tree", "sun", "house", "car")
WORDS = (*COLOURS, *THINGS)
HAND_MADE = {"sums": 0.2, "spelling": 0.2, "colours": 0.2, "noise": 0.2, "alike": 0.2}
"""The prior: what somebody writes who does not know which component is worth what."""
ROWS = 2500


def sums(draw: random.Random) -> tuple[str, str]:
    """A sum of two numbers below 30."""
    a, b = draw.randrange(30), draw.randrange(30)
    return f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}."


def spelling(draw: random.Random) -> tuple[str, str]:
    """A word's letters."""
    word = draw.choice(WORDS) + draw.choice(WORDS)
    return f"Spell {word}.", " ".join(word)


def colours(draw: random.Random) -> tuple[str, str]:
    """Which thing has which colour."""
    things = draw.sample(THINGS, 3)
    shades = [draw.choice(COLOURS) for _ in things]
    told = ", ".join(f"the {t} is {c}" for t, c in zip(things, shades, strict=True))
    asked = draw.randrange(3)
    return f"If {told}, what is the {things[asked]}?", f"The {things[asked]} is {shades[asked]}."


def noise(draw: random.Random) -> tuple[str, str]:
    """Letters that nothing tells."""
    letters = [chr(97 + draw.randrange(26)) for _ in range(24)]
    return f"Say {draw.choice(WORDS)} {draw.randrange(9999)}.", " ".join(letters)


def alike(draw: random.Random) -> tuple[str, str]:
    """One of six sums, with another last word."""
    a = draw.randrange(6)
    return f"What is {a} plus 1? {draw.choice(WORDS)}", f"{a} plus 1 is {a + 1}."


MADE: tuple[Callable[[random.Random], tuple[str, str]], ...] = (
    sums,
    spelling,
    colours,
    noise,
    alike,
)


def rows(make: Callable[[random.Random], tuple[str, str]], count: int) -> Iterator[str]:
    """Lines of JSON in the layout `messages`."""
    draw = random.Random(make.__name__)
    for _ in range(count):
        question, answer = make(draw)
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        yield json.dumps({"messages": turns}) + "\n"


def write(folder: Path) -> Path:
    """The mixture's file, its rows beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        "measure: tokens",
        "encoding: {tokenizer: builtin, seq_len: 512, crop_size: 64, tokens_per_crop: 16,"
        " max_crops: 16, longest_edge: 64, system_prompts: none}",
        "components:",
    ]
    for make in MADE:
        name = make.__name__
        (folder / f"{name}.jsonl").write_text("".join(rows(make, ROWS)))
        lines.append(f"  {name}: {{source: messages, data: {folder.resolve()}/{name}.jsonl, "
                     f"ratio: {HAND_MADE[name]}, max_epochs: 4}}")  # fmt: skip
    (folder / "hand_made.yaml").write_text("\n".join(lines) + "\n")
    return folder / "hand_made.yaml"


def main(words: list[str]) -> None:
    """The proof, at the size that the words say."""
    output = Path(words[0])
    said = {"runs": "18", "seeds": "5", "tokens": "40000", "methods": "regression,bayes,merge"}
    said |= dict(word.split("=", 1) for word in words[1:])
    mixture = write(output / "data")
    for method in said["methods"].split(","):
        status = trainer([
            "search", f"mixture={mixture}", "target={sums: 1, spelling: 1, colours: 1}",
            f"method={method}", f"runs={said['runs']}", f"seeds={said['seeds']}",
            f"tokens={said['tokens']}", f"output={output / method}", f"work={output / 'work'}",
            "workers=0", "train.save_every=100000", "train.log_every=1000",
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
