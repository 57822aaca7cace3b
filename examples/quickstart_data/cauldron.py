"""HuggingFaceM4/the_cauldron: seven of its configs, one row per image with all its questions.

| config               | stands for it here                                                        |
|----------------------|---------------------------------------------------------------------------|
| clevr                | easy-vqa's train images: shapes, about ten questions each                 |
| chartqa              | charts of vega-datasets; answers from the numbers                         |
| robut_wtq, tat_qa    | tables of vega-datasets; look-ups, arithmetic on prices                   |
| localized_narratives | scikit-image's photographs (cut-outs), captions from their docstrings     |
| rendered_text        | sentences of chatterbot-corpus drawn as images                            |
| scienceqa            | questions without images (chatterbot-corpus)                              |
"""

import io
import json
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image, ImageOps

from quickstart_data import drawing, tables, text
from quickstart_data.files import (
    Planted,
    count,
    hashed_name,
    image_record,
    jpeg,
    png,
    write_card,
    write_parquet,
)

NAME = "HuggingFaceM4/the_cauldron"
PHOTOGRAPHS = {
    # scikit-image's file: (function whose docstring is the caption, a short name)
    "astronaut.png": ("astronaut", "an astronaut"),
    "camera.png": ("camera", "a man with a camera"),
    "cell.png": ("cell", "a cell"),
    "chelsea.png": ("chelsea", "a cat"),
    "chessboard_RGB.png": ("checkerboard", "a checkerboard"),
    "clock_motion.png": ("clock", "a clock"),
    "coffee.png": ("coffee", "a cup of coffee"),
    "coins.png": ("coins", "coins"),
    "horse.png": ("horse", "a horse"),
    "hubble_deep_field.jpg": ("hubble_deep_field", "galaxies"),
    "ihc.png": ("immunohistochemistry", "stained tissue"),
    "logo.png": ("logo", "a logo"),
    "moon.png": ("moon", "the moon"),
    "motorcycle_left.png": ("stereo_motorcycle", "a motorcycle"),
    "page.png": ("page", "a printed page"),
    "retina.jpg": ("retina", "a retina"),
    "rocket.jpg": ("rocket", "a rocket"),
    "text.png": ("text", "written text"),
}
REQUESTS = (
    "Describe the picture.",
    "What does the picture show?",
    "Write a caption for this photograph.",
    "Can you describe what is to be seen here?",
)


def package(name: str) -> Path:
    """The folder of an installed package, without importing it."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ValueError(f"package {name} is not installed: pip install -e '.[demo]'")
    return Path(spec.origin).parent


@cache
def shapes() -> list[tuple[bytes, list[tuple[str, str]]]]:
    """easy-vqa's train images (PNG, 64 x 64 px) with their questions and answers."""
    folder = package("easy_vqa") / "data" / "train"
    asked: dict[int, list[tuple[str, str]]] = {}
    for question, answer, image in json.loads((folder / "questions.json").read_text()):
        asked.setdefault(image, []).append((question.capitalize(), f"{answer.capitalize()}."))
    return [
        ((folder / "images" / f"{image}.png").read_bytes(), asked[image]) for image in sorted(asked)
    ]


@cache
def photograph(file: str) -> Image.Image:
    """One of scikit-image's images, at most 480 px."""
    with Image.open(package("skimage") / "data" / file) as image:
        image.thumbnail((480, 480))
        return image.convert("RGB")


@cache
def caption(file: str) -> str:
    """The first sentences of the docstring of the function that loads the image."""
    source = (package("skimage") / "data" / "_fetchers.py").read_text(encoding="utf-8")
    found = re.search(rf'^def {PHOTOGRAPHS[file][0]}\(.*?"""(.*?)"""', source, re.S | re.M)
    if found is None:
        raise ValueError(f"scikit-image: no docstring for {PHOTOGRAPHS[file][0]}")
    prose = re.split(r"\n\s+(?:Returns|Parameters|Notes|References)\n", found[1])[0]
    sentences = re.split(r"(?<=[.!?])\s+", " ".join(prose.split()))
    kept = [s for s in sentences if not re.search(r"https?:|<|`|copyright|download|CC0", s, re.I)]
    return " ".join(kept[:3])


def cut(image: Image.Image, rng: Random) -> Image.Image:
    """A random part of at least 60 % of each side, at most 320 px, sometimes mirrored."""
    width, height = (round(side * rng.uniform(0.6, 1.0)) for side in image.size)
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    part = image.crop((left, top, left + width, top + height))
    part.thumbnail((320, 320))
    return ImageOps.mirror(part) if rng.random() < 0.3 else part


def row(images: list[bytes], texts: list[tuple[str, str]], source: str) -> dict[str, Any]:
    """A row of the repository."""
    turns = [{"user": user, "assistant": answer, "source": source} for user, answer in texts]
    return {"images": [image_record(data) for data in images], "texts": turns}


def clevr(share: float) -> list[dict[str, Any]]:
    """Shapes, all questions of an image in one row."""
    return [row([image], asked, "CLEVR") for image, asked in shapes()[: count(500, share)]]


def chartqa(share: float) -> list[dict[str, Any]]:
    """Charts with two to four questions."""
    rows = []
    for number, chart in enumerate(tables.all_charts()[: count(300, share)]):
        rng = Random(f"chartqa {number}")
        color = "#{:02x}{:02x}{:02x}".format(*rng.choice(list(drawing.COLORS.values())))
        image = drawing.draw_chart(chart, color=color, grid=rng.random() < 0.5)
        asked = tables.questions(chart, rng, number=rng.randint(2, 4))
        rows.append(row([png(image)], asked, "ChartQA"))
    return rows


def table_rows(name: str, share: float, *, money: bool) -> list[dict[str, Any]]:
    """Tables drawn as images."""
    made = tables.tables(Random(name), number=count(120, share), money=money)
    return [
        row(
            [png(drawing.draw_table(table["title"], table["header"], table["rows"]))],
            table["questions"],
            name,
        )
        for table in made
    ]


def localized_narratives(share: float) -> list[dict[str, Any]]:
    """Photographs with their captions; among them one turned by EXIF and one with alpha."""
    rng = Random("photographs")
    rows = []
    for number in range(count(150, share)):
        file = list(PHOTOGRAPHS)[number % len(PHOTOGRAPHS)]
        texts = [(rng.choice(REQUESTS), caption(file))]
        if rng.random() < 0.5:
            short = PHOTOGRAPHS[file][1]
            texts.append(("Say in a few words what it shows.", f"{short.capitalize()}."))
        part = cut(photograph(file), rng)
        data = jpeg(part)
        if number == 6:
            exif = Image.Exif()
            exif[0x0112] = 6  # Orientation: to be turned by 90 degrees clockwise to stand upright
            data = jpeg(part.rotate(90, expand=True), exif=exif)
        if number == 11:
            with Image.open(package("skimage") / "data" / "logo.png") as logo:
                data = png(logo.convert("RGBA").resize((200, 200)))
        rows.append(row([data], texts, "localized_narratives"))
    return rows


def rendered_text(share: float) -> list[dict[str, Any]]:
    """Lines of text to be read."""
    rng = Random("lines")
    lines = [answer for _, answer in text.dialogues() if 12 <= len(answer) <= 60]
    lines = [line for line in sorted(set(lines)) if "\n" not in line and line.isascii()]
    rng.shuffle(lines)
    return [
        row(
            [png(drawing.draw_line_of_text(line, rng))],
            [("What is written in the picture?", line)],
            "rendered_text",
        )
        for line in lines[: count(250, share)]
    ]


def scienceqa(share: float) -> list[dict[str, Any]]:
    """Questions about science, history and literature without an image."""
    pairs = text.dialogues("science", "history", "literature", "trivia", "psychology")
    return [row([], [pair], "ScienceQA") for pair in pairs[: count(80, share)]]


def spoil(rows: dict[str, list[dict[str, Any]]]) -> list[Planted]:
    """Bad rows stand where good ones were; returns what and where."""
    bad: list[Planted] = []

    def note(subset: str, number: int, what: str) -> dict[str, Any]:
        file = f"{subset}/{hashed_name('train', of=subset)}"
        bad.append(Planted(repository=NAME, subset=subset, row=number, file=file, what=what))
        return rows[subset][number]

    first = note("chartqa", 3, "truncated_image")["images"][0]
    first["bytes"] = first["bytes"][: len(first["bytes"]) // 2]
    note("chartqa", 7, "empty_answer")["texts"] = [
        {"user": "What does the chart show?", "assistant": "", "source": "ChartQA"}
    ]
    rows["clevr"][9] = rows["clevr"][2]
    note("clevr", 9, "duplicate")
    note("clevr", 5, "literal_image_tag")["texts"].append(
        {
            "user": "What does the tag <image> stand for in a prompt?",
            "assistant": "For the place of a picture.",
            "source": "CLEVR",
        }
    )
    tiny = note("localized_narratives", 4, "tiny_image")
    small = Image.open(io.BytesIO(tiny["images"][0]["bytes"])).resize((8, 8))
    tiny["images"][0]["bytes"] = png(small)
    note("localized_narratives", 6, "rotated_image")
    note("localized_narratives", 11, "transparent_image")
    return bad


def write(folder: Path, *, share: float) -> tuple[dict[str, int], list[Planted]]:
    """`<config>/train-00000-of-00001-<hash>.parquet` for each config, and the card."""
    from datasets import Features, Image, List, Value

    features = Features(
        {
            "images": List(Image()),
            "texts": List(
                {"user": Value("string"), "assistant": Value("string"), "source": Value("string")}
            ),
        }
    )
    rows = {
        "clevr": clevr(share),
        "chartqa": chartqa(share),
        "robut_wtq": table_rows("robut_wtq", share, money=False),
        "tat_qa": table_rows("tat_qa", share, money=True),
        "localized_narratives": localized_narratives(share),
        "rendered_text": rendered_text(share),
        "scienceqa": scienceqa(share),
    }
    bad = spoil(rows)
    for subset, made in rows.items():
        write_parquet(folder / subset / hashed_name("train", of=subset), made, features)
    configs = "".join(
        f"- config_name: {subset}\n  data_files:\n  - split: train\n    path: {subset}/train-*\n"
        for subset in rows
    )
    write_card(folder, f"configs:\n{configs}")
    return {subset: len(made) for subset, made in rows.items()}, bad
