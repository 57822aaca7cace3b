"""Six components of a small mixture, made here: four to learn of, noise, and near-duplicates.

| component | a sample                                                   | samples |
|-----------|------------------------------------------------------------|---------|
| shapes    | an image of one shape: which, of which colour, where       | 1,200   |
| charts    | an image of three bars: which is highest, and lowest       | 900     |
| formulas  | an image of a short formula, to be written down            | 700     |
| text      | sums, spelling, and which thing has which colour; no image | 2,500   |
| chatter   | noise: letters that nothing tells                          | 3,500   |
| repeats   | six sums again and again, with another last word           | 1,500   |

The ratios by hand are of somebody who knows the names of the components, not what is in them.
"""

import io
import json
import random
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from examples.drawings import Drawn, drawings, write_conversations

SIDE = 64
"""px of an image, one crop of the tiny model."""
COLOURS = {"red": "#d62828", "green": "#2da037", "blue": "#235ad2", "black": "#202020"}
THINGS = ("cat", "dog", "bird", "fish", "tree", "sun", "house", "car")
WORDS = (*COLOURS, *THINGS)
HAND_MADE = {"shapes": 0.15, "charts": 0.25, "formulas": 0.15, "text": 0.15, "chatter": 0.2,
             "repeats": 0.1}  # fmt: skip
SAMPLES = {"shapes": 1200, "charts": 900, "formulas": 700, "text": 2500, "chatter": 3500,
           "repeats": 1500}  # fmt: skip
LEARNT = ("shapes", "charts", "formulas", "text")
"""The target's components, all of one weight."""
NOISE = "chatter"
Asked = tuple[str, str]


def chart(draw: random.Random) -> Drawn:
    """Three bars of three colours."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    pen, names = ImageDraw.Draw(image), draw.sample(list(COLOURS), 3)
    heights = draw.sample(range(8, 58, 8), 3)
    for place, (name, height) in enumerate(zip(names, heights, strict=True)):
        left = 6 + 19 * place + draw.randrange(3)
        pen.rectangle((left, 61 - height, left + 12, 61), fill=COLOURS[name])
    order = [name for _, name in sorted(zip(heights, names, strict=True))]
    asked = [("Which bar is highest?", order[2]), ("Which bar is lowest?", order[0])]
    return Drawn(_png(image), asked)


def formula(draw: random.Random) -> Drawn:
    """A sum with one unknown."""
    written = (
        f"{draw.randrange(2, 10)}{draw.choice('xyz')} {draw.choice('+-')} {draw.randrange(10)}"
    )
    image = Image.new("RGB", (SIDE, SIDE), "white")
    font = ImageFont.load_default(17)
    place = (4 + draw.randrange(4), 18 + draw.randrange(8))
    ImageDraw.Draw(image).text(place, written, fill="black", font=font)
    return Drawn(_png(image), [("Write this formula.", written)])


def text(draw: random.Random) -> Asked:
    """One of three kinds of question that the question itself answers."""
    kind = draw.randrange(3)
    if kind == 0:
        a, b = draw.randrange(30), draw.randrange(30)
        return f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}."
    if kind == 1:
        word = draw.choice(WORDS) + draw.choice(WORDS)
        return f"Spell {word}.", " ".join(word)
    things = draw.sample(THINGS, 3)
    shades = [draw.choice(list(COLOURS)) for _ in things]
    told = ", ".join(f"the {t} is {c}" for t, c in zip(things, shades, strict=True))
    asked = draw.randrange(3)
    return f"If {told}, what is the {things[asked]}?", f"The {things[asked]} is {shades[asked]}."


def chatter(draw: random.Random) -> Asked:
    """Letters that nothing tells."""
    letters = [chr(97 + draw.randrange(26)) for _ in range(24)]
    return f"Say {draw.choice(WORDS)} {draw.randrange(9999)}.", " ".join(letters)


def repeats(draw: random.Random) -> Asked:
    """One of six sums, with another last word."""
    a = draw.randrange(6)
    asked = f"What is {a} plus 1? {draw.choice(WORDS)} {draw.choice(WORDS)} {draw.randrange(99)}"
    return asked, f"{a} plus 1 is {a + 1}."


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _images(draw: Callable[[random.Random], Drawn], name: str) -> Iterator[Drawn]:
    source = random.Random(name)
    while True:
        yield draw(source)


def write(folder: Path) -> Path:
    """The components' rows in the folder, and beside them the mixture's file."""
    made = {"shapes": drawings("shapes", seed=17), "charts": _images(chart, "charts"),
            "formulas": _images(formula, "formulas")}  # fmt: skip
    for name, drawn in made.items():
        write_conversations(folder / name, list(islice(drawn, SAMPLES[name])))
    for make in (text, chatter, repeats):
        name = make.__name__
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "rows.jsonl").write_text("".join(_rows(make, SAMPLES[name])))
    lines = [
        "measure: tokens",
        "encoding: {tokenizer: builtin, seq_len: 512, crop_size: 64, tokens_per_crop: 16,",
        "           longest_edge: 64, split_images: false, system_prompts: none,",
        "           media_intro_outro: false}",
        "components:",
        *(f"  {name}: {{source: messages, data: {folder.resolve() / name}, ratio: {share}, "
          "max_epochs: 4}" for name, share in HAND_MADE.items()),
    ]  # fmt: skip
    file = folder / "hand_made.yaml"
    file.write_text("\n".join(lines) + "\n")
    return file


def _rows(make: Callable[[random.Random], Asked], count: int) -> Iterator[str]:
    draw = random.Random(make.__name__)
    for _ in range(count):
        question, answer = make(draw)
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        yield json.dumps({"messages": turns}) + "\n"
