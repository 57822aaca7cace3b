"""Train a model that answers from the image: `python examples/demo.py [key=value ...]`.

    drawings -> mixture -> run -> answers about images that were in neither

  output=out/demo   where all of it goes
  seed=17           of the drawings, the mixture and the weights
  steps=900         of training
  held_out=100      images of each component that are kept back and asked about

Every image is drawn here (drawings.py). Those kept back are asked about twice: with their own
images, and with images shuffled among the questions; the second is what the questions alone give
away. Exit status 1, and a plain word, where the first is less than 25 points above the second.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
from drawings import DRAW, Drawn, drawings, thumbnails, write_benchmark, write_conversations

HERE = Path(__file__).parent
IMAGES = {"shapes": 1500, "digits": 1100, "dots": 800}
"""Drawn for the mixture."""
MERGES = 2000
"""Of the bundled tokenizer's, the first so many: the vocabulary is then 2,380 and not 49,280, whose
head and embeddings would take three quarters of the time of a model of this size."""
MARGIN = 0.25
SHOWN = 12
DEFAULTS = {"output": "out/demo", "seed": "17", "steps": "900", "held_out": "100"}


def write_tokenizer(folder: Path) -> int:
    """The bundled tokenizer with its first MERGES merges and all its marks; how many ids it has."""
    from tokenization.vocab import load_tokenizer

    whole = load_tokenizer("builtin")
    spec = json.loads(whole.backend_tokenizer.to_str())
    model, added = spec["model"], spec["added_tokens"]
    model["merges"] = model["merges"][:MERGES]
    made = {"".join(pair) for pair in model["merges"]}
    kept = [word for word in model["vocab"] if len(word) == 1 or word in made]
    marks = [token["content"] for token in added]
    model["vocab"] = {word: number for number, word in enumerate([*kept, *marks])}
    for token in added:
        token["id"] = model["vocab"][token["content"]]
    smaller = type(whole)(
        tokenizer_object=type(whole.backend_tokenizer).from_str(json.dumps(spec)),
        **{key: whole.init_kwargs[key] for key in whole.init_kwargs if key.endswith("_token")},
        extra_special_tokens=whole.init_kwargs.get("extra_special_tokens", {}),
        chat_template=whole.chat_template,
        clean_up_tokenization_spaces=False,
        model_max_length=whole.model_max_length,
    )
    smaller.save_pretrained(str(folder))
    return len(smaller)


def run(*arguments: str) -> None:
    """One command of this project; its output is shown."""
    print("$ python -m", " ".join(arguments), flush=True)
    root = os.pathsep.join([str(HERE.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    environment = {**os.environ, "PYTHONPATH": root.rstrip(os.pathsep)}
    subprocess.run([sys.executable, "-m", *arguments], check=True, env=environment)


def make_mixture(out: Path, *, seed: int, held_out: int) -> tuple[dict[str, list[Drawn]], int]:
    """OUT/mixture is built of drawings; gives those that were kept back, as OUT/held_out.tsv does,
    and the size of the vocabulary.
    """
    kept_back = {}
    for component in DRAW:
        drawn = list(islice(drawings(component, seed=seed), IMAGES[component] + held_out))
        kept_back[component] = drawn[:held_out]
        write_conversations(out / "drawings" / component, drawn[held_out:])
    write_benchmark(out / "held_out.tsv", kept_back)
    vocabulary = write_tokenizer(out / "tokenizer")
    data = [f"components.{name}.data={out / 'drawings' / name}" for name in DRAW]
    run("pipelines", "build", f"mixture={HERE / 'drawings.yaml'}", f"output={out / 'mixture'}",
        f"work={out / 'work'}", "workers=0", f"seed={seed}",
        f"encoding.tokenizer={out / 'tokenizer'}", *data)  # fmt: skip
    seen = images_of(out / "mixture")
    leaked = [each for part in kept_back.values() for each in part if each.png in seen]
    if leaked:
        raise AssertionError(f"{len(leaked)} of the images kept back are in the mixture")
    return kept_back, vocabulary


def images_of(mixture: Path) -> set[bytes]:
    """The bytes of every image in the shards, of train and val."""
    found: set[bytes] = set()
    for shard in (mixture / "shards").glob("*.arrow"):
        with pa.ipc.open_file(pa.memory_map(str(shard))) as reader:
            for number in range(reader.num_record_batches):
                images = reader.get_batch(number)["images"].flatten().field("bytes")
                found.update(images.to_pylist())
    return found


def ask(out: Path) -> tuple[list[str], dict[str, list[float]]]:
    """What the run says to OUT/held_out.tsv, and the points of `trainer evaluate`'s exact match:
    with own images, and with shuffled ones.
    """
    import torch

    from trainer.evaluation import benchmark
    from trainer.evaluation.answer import answers, open_checkpoint

    torch.set_num_threads(1)
    model, tokenizer, encoding, _ = open_checkpoint(str(out / "run"), device="cpu")
    cases = benchmark.read(out / "held_out.tsv")
    said, points = {}, {}
    for name, asked in (("own", cases), ("shuffled", benchmark.shuffled(cases, seed=0))):
        said[name] = answers(
            model, tokenizer, [case.question for case in asked], encoding=encoding,
            max_new_tokens=6, batch_size=50,
        )  # fmt: skip
        points[name] = benchmark.scores(asked, said[name], "exact")
    benchmark.write_answers(out / "answers.tsv", cases, said["own"], points["own"])
    return said["own"], points


def table(kept_back: dict[str, list[Drawn]], said: Sequence[str], points: Sequence[float]) -> str:
    """The first images kept back of each component in turn, each with one of its questions."""
    starts: dict[str, int] = {}
    number = 0
    for component, drawn in kept_back.items():
        starts[component] = number
        number += sum(len(each.questions) for each in drawn)
    rows = []
    images = []
    for k in range(SHOWN):
        component = list(kept_back)[k % len(kept_back)]
        turn = k // len(kept_back)
        each = kept_back[component][turn]
        asked = turn % len(each.questions)
        before = sum(len(other.questions) for other in kept_back[component][:turn])
        place = starts[component] + before + asked
        question, answer = each.questions[asked]
        mark = "" if points[place] else "  <- wrong"
        images.append(each.png)
        rows.append(f"{k + 1:>5}  {component:<7} {question:<26} {answer:<13} {said[place]}{mark}")
    head = f"image          {'question':<26} {'data says':<13} model says"
    return "\n".join([*thumbnails(images), head, *rows])


def main(arguments: Sequence[str]) -> int:
    """0 where the model answers from the image."""
    given = dict(argument.partition("=")[::2] for argument in arguments)
    if unknown := sorted(set(given) - set(DEFAULTS)):
        print(f"unknown: {', '.join(unknown)}\n\n{__doc__}", file=sys.stderr)
        return 2
    options = DEFAULTS | given
    out, seed = Path(options["output"]), int(options["seed"])
    began = time.monotonic()
    kept_back, vocabulary = make_mixture(out, seed=seed, held_out=int(options["held_out"]))
    run("trainer", f"config={HERE / 'drawings_model.yaml'}", f"data={out / 'mixture'}",
        f"output={out / 'run'}", f"seed={seed}", f"steps={options['steps']}",
        f"model.language.vocab_size={vocabulary}")  # fmt: skip
    said, points = ask(out)
    own, shuffled = (sum(points[name]) / len(points[name]) for name in ("own", "shuffled"))
    learned = own - shuffled >= MARGIN
    print(f"\n{table(kept_back, said, points['own'])}\n")
    images = sum(map(len, kept_back.values()))
    print(f"{len(said)} questions about {images} images that were never trained on, exact match:")
    for name, rate in (("own images", own), ("shuffled images", shuffled)):
        print(f"  {name:<16} {rate:>6.1%}  {'#' * round(40 * rate)}")
    print(f"  from looking     {100 * (own - shuffled):+.1f} points")
    if not learned:
        print(
            f"It did not learn to look: less than {100 * MARGIN:.0f} points. Another seed= or more "
            "steps= may do; nothing above is hidden."
        )
    print(
        f"\nthe run      {out / 'run' / 'run.html'}\n"
        f"the data     {out / 'mixture' / 'report.html'}\n"
        f"all answers  {out / 'answers.tsv'}\n"
        f"in {time.monotonic() - began:.0f} s"
    )
    return 0 if learned else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
