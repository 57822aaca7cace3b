"""Images drawn for the demo, with questions that only the image answers.

| component | an image shows                | questions, with how many answers there are |
|-----------|-------------------------------|--------------------------------------------|
| shapes    | one shape in a corner         | which shape (4), colour (6), corner (4)    |
| digits    | one digit, in three fonts     | which digit (10), colour (6)               |
| dots      | one to five dots, nine places | how many (5), colour (6)                   |

Every answer is drawn evenly and apart from the others, so that no question, and no answer to
another one, gives it away. No two images of a set are equal.
"""

import base64
import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw, ImageFont

SIDE = 64
"""px."""
FINER = 2
"""Drawn so many times as large, then made smaller: smooth edges."""
COLOURS = {
    "red": (214, 40, 40),
    "green": (45, 160, 55),
    "blue": (35, 90, 210),
    "yellow": (230, 195, 30),
    "purple": (135, 60, 175),
    "orange": (240, 125, 20),
}
SHAPES = ("circle", "square", "triangle", "cross")
FONTS = ("DejaVuSans-Bold", "DejaVuSansMono-Bold", "DejaVuSerif-Bold")
"""Of matplotlib."""


@dataclass(frozen=True)
class Drawn:
    """A PNG and what may be asked about it."""

    png: bytes
    questions: list[tuple[str, str]]


def _canvas(rng: Random) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A light ground of a random shade."""
    ground = tuple(rng.randint(215, 255) for _ in range(3))
    image = Image.new("RGB", (SIDE * FINER, SIDE * FINER), ground)
    return image, ImageDraw.Draw(image)


def _colour(rng: Random) -> tuple[str, tuple[int, ...]]:
    """Its name, and a shade of it."""
    name = rng.choice(list(COLOURS))
    return name, tuple(min(255, max(0, c + rng.randint(-15, 15))) for c in COLOURS[name])


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(file, "PNG")
    return file.getvalue()


def draw_shape(rng: Random) -> Drawn:
    """One shape in one of the four corners."""
    image, draw = _canvas(rng)
    shape, (colour, ink) = rng.choice(SHAPES), _colour(rng)
    down, right = rng.choice(("top", "bottom")), rng.choice(("left", "right"))
    radius = rng.uniform(12, 14)
    # The middle of the corner, or a little beside it: the shape stays clear of the middle lines.
    x = (SIDE * (0.25 if right == "left" else 0.75) + rng.uniform(-1.5, 1.5)) * FINER
    y = (SIDE * (0.25 if down == "top" else 0.75) + rng.uniform(-1.5, 1.5)) * FINER
    r = radius * FINER
    if shape == "circle":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=ink)
    elif shape == "square":
        draw.rectangle((x - 0.85 * r, y - 0.85 * r, x + 0.85 * r, y + 0.85 * r), fill=ink)
    elif shape == "triangle":
        draw.polygon([(x, y - r), (x - r, y + 0.8 * r), (x + r, y + 0.8 * r)], fill=ink)
    else:
        draw.rectangle((x - r, y - 0.3 * r, x + r, y + 0.3 * r), fill=ink)
        draw.rectangle((x - 0.3 * r, y - r, x + 0.3 * r, y + r), fill=ink)
    asked = [("Which shape is it?", shape), ("Which colour is it?", colour),
             ("In which corner is it?", f"{down} {right}")]  # fmt: skip
    return Drawn(_png(image), asked)


def draw_digit(rng: Random) -> Drawn:
    """One large digit, slightly turned."""
    import matplotlib

    image, draw = _canvas(rng)
    digit, (colour, ink) = str(rng.randrange(10)), _colour(rng)
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    size = rng.randint(56, 62) * FINER
    font = ImageFont.truetype(str(folder / f"{rng.choice(FONTS)}.ttf"), size)
    middle = SIDE * FINER / 2
    place = (middle + rng.uniform(-2, 2) * FINER, middle + rng.uniform(-2, 2) * FINER)
    draw.text(place, digit, fill=ink, font=font, anchor="mm")
    turned = image.rotate(
        rng.uniform(-3, 3), Image.Resampling.BICUBIC, fillcolor=image.getpixel((0, 0))
    )
    return Drawn(_png(turned), [("Which digit is it?", digit), ("Which colour is it?", colour)])


def draw_dots(rng: Random) -> Drawn:
    """One to five dots, in as many of nine places."""
    image, draw = _canvas(rng)
    count, (colour, ink) = rng.randint(1, 5), _colour(rng)
    for place in rng.sample(range(9), count):
        radius = rng.uniform(7, 8)
        x, y = (SIDE * (k + 0.5) / 3 + rng.uniform(-2, 2) for k in divmod(place, 3))
        box = [FINER * edge for edge in (x - radius, y - radius, x + radius, y + radius)]
        draw.ellipse(box, fill=ink)
    return Drawn(
        _png(image), [("How many dots are there?", str(count)), ("Which colour are they?", colour)]
    )


DRAW: dict[str, Callable[[Random], Drawn]] = {
    "shapes": draw_shape,
    "digits": draw_digit,
    "dots": draw_dots,
}


def drawings(component: str, *, seed: int) -> Iterator[Drawn]:
    """Without end, no two the same image; the same seed gives the same ones."""
    rng, seen = Random(f"{seed}/{component}"), set()
    while True:
        drawn = DRAW[component](rng)
        if drawn.png not in seen:
            seen.add(drawn.png)
            yield drawn


def write_conversations(folder: Path, drawn: list[Drawn]) -> None:
    """The images, and beside them conversations.jsonl: all questions of an image are its turns."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for number, each in enumerate(drawn):
        name = f"images/{number:05d}.png"
        (folder / name).write_bytes(each.png)
        messages = []
        for question, answer in each.questions:
            image = [] if messages else [{"type": "image", "image": name}]
            messages += [
                {"role": "user", "content": [*image, {"type": "text", "text": question}]},
                {"role": "assistant", "content": answer},
            ]
        lines.append(json.dumps({"messages": messages}) + "\n")
    (folder / "conversations.jsonl").write_text("".join(lines))


def write_benchmark(file: Path, drawn: dict[str, list[Drawn]]) -> None:
    """VLMEvalKit's TSV: all questions of all images; a category is a component's question."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t")
        writer.writerow(["index", "image", "question", "answer", "category"])
        index = 0
        for component, images in drawn.items():
            for each in images:
                image = base64.b64encode(each.png).decode()
                for question, answer in each.questions:
                    writer.writerow([index, image, question, answer, f"{component}: {question}"])
                    index += 1


def thumbnails(images: list[bytes], *, side: int = 12, across: int = 6) -> list[str]:
    """The images as lines of coloured half blocks under their numbers; none where no terminal is
    looking or NO_COLOR (no-color.org) is set.
    """
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return []
    small = [Image.open(io.BytesIO(png)).convert("RGB").resize((side, side)) for png in images]
    lines = []
    for start in range(0, len(small), across):
        strip = small[start : start + across]
        lines.append("  ".join(f"{start + k + 1:<{side}}" for k in range(len(strip))))
        for y in range(0, side, 2):
            lines.append("  ".join(_half_blocks(image, y) for image in strip))
        lines.append("")
    return lines


def _half_blocks(image: Image.Image, y: int) -> str:
    """Rows y and y + 1: the upper one is the ink of a half block, the lower one its ground."""
    upper, lower = ([image.getpixel((x, row)) for x in range(image.width)] for row in (y, y + 1))
    cells = (
        f"\x1b[38;2;{u[0]};{u[1]};{u[2]}m\x1b[48;2;{v[0]};{v[1]};{v[2]}m\u2580"
        for u, v in zip(upper, lower, strict=True)
    )
    return "".join(cells) + "\x1b[0m"
