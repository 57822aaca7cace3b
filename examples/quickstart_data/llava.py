"""LLaVA's JSON beside its media: several images in one conversation, and chains of thought.

lmms-lab/M4-Instruct-Data   m4_instruct_annotations.json and <set>.zip of images
Xkev/LLaVA-CoT-100k         train.jsonl and image.zip, cut into image.zip.part-aa, -ab, ...
"""

from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image, ImageDraw, ImageOps

from quickstart_data import cauldron, drawing, tables
from quickstart_data.files import (
    Planted,
    count,
    jpeg,
    png,
    write_card,
    write_files,
    write_json,
    write_jsonl,
    write_zip,
)

MULTI_IMAGE = "lmms-lab/M4-Instruct-Data"
REASONING = "Xkev/LLaVA-CoT-100k"
EDITS = {
    "turned upside down": ImageOps.flip,
    "mirrored": ImageOps.mirror,
    "made black and white": ImageOps.grayscale,
    "inverted in its colours": ImageOps.invert,
}


def said(*turns: str) -> list[dict[str, str]]:
    """Human and gpt in turns."""
    return [
        {"from": "human" if at % 2 == 0 else "gpt", "value": value}
        for at, value in enumerate(turns)
    ]


@cache
def known_shapes() -> list[tuple[bytes, str, str]]:
    """(image, shape, colour) where the answers of easy-vqa's train part tell both."""
    found = []
    for data, asked in cauldron.shapes()[1000:]:
        answers = {answer.rstrip(".").lower() for _, answer in asked} - {"yes", "no"}
        shape = answers & {"circle", "rectangle", "triangle"}
        colour = answers - shape
        if len(shape) == 1 and len(colour) == 1:
            found.append((data, shape.pop(), colour.pop()))
    return found


def compare(at: int) -> tuple[dict[str, bytes], list[dict[str, str]]]:
    """Two or three shapes, told apart."""
    rng = Random(f"compare {at}")
    known = rng.sample(known_shapes()[300:], rng.choice([2, 2, 3]))
    files = {f"nlvr2/images/train-{at}-{n}.png": item[0] for n, item in enumerate(known)}
    places = " ".join(f"Image {n + 1}: <image>" for n in range(len(known)))
    same = len({colour for _, _, colour in known}) == 1
    listed = ", ".join(f"a {colour} {shape}" for _, shape, colour in known)
    return files, said(
        f"{places} Do all pictures show the same colour?",
        "Yes." if same else "No.",
        "What does each of them show?",
        f"In this order: {listed}.",
    )


def edit(at: int) -> tuple[dict[str, bytes], list[dict[str, str]]]:
    """A photograph before and after an edit; the second place stands in the middle of the text."""
    rng = Random(f"edit {at}")
    file = rng.choice(list(cauldron.PHOTOGRAPHS))
    before = cauldron.cut(cauldron.photograph(file), rng).resize((192, 144))
    told, change = rng.choice(list(EDITS.items()))
    after = change(before).convert("RGB")
    files = {
        f"HQ-Edit/images/{at}_input.jpg": jpeg(before),
        f"HQ-Edit/images/{at}_output.jpg": jpeg(after),
    }
    return files, said(
        "The first picture is <image>\nand after an edit it is <image>\nWhat was done?",
        f"It was {told}.",
    )


def series(at: int) -> tuple[dict[str, bytes], list[dict[str, str]]]:
    """Three or four steps of a shape that moves; the answer is which way."""
    rng = Random(f"series {at}")
    shape, colour = rng.choice(["circle", "square", "triangle"]), rng.choice(list(drawing.COLORS))
    way, (dx, dy) = rng.choice(
        [("right", (1, 0)), ("left", (-1, 0)), ("down", (0, 1)), ("up", (0, -1))]
    )
    files = {}
    radius, x, y = rng.uniform(10, 20), rng.uniform(56, 72), rng.uniform(56, 72)
    for step in range(rng.choice([3, 4])):
        image = Image.new("RGB", (128, 128), "white")
        shift = 22 * (step - 1.5)
        center = (x + dx * shift, y + dy * shift)
        drawing.draw_shape(ImageDraw.Draw(image), shape, center=center, radius=radius, color=colour)
        files[f"VIST/images/{at}-{step}.png"] = png(image.quantize(8))
    return files, said(
        "<image>" * len(files) + "\nWhich way does the shape move?",
        f"The {colour} {shape} moves {way}.",
    )


def write_multi_image(folder: Path, *, share: float) -> tuple[dict[str, int], list[Planted]]:
    """One JSON array and a zip per origin, as the repository has them."""
    kinds = {"nlvr2": compare, "HQ-Edit": edit, "VIST": series}
    records: list[dict[str, Any]] = []
    archives: dict[str, dict[str, bytes]] = {name: {} for name in kinds}
    for at in range(count(270, share)):
        name = list(kinds)[at % len(kinds)]
        files, conversations = kinds[name](at)
        archives[name] |= files
        records.append(
            {
                "sample_id": at,
                "conversations": conversations,
                "image": list(files),
                "choice_list": None,
                "metadata": {
                    "dataset": name,
                    "split": "train",
                    "num_sample": len(files),
                    "task_instruction": "",
                    "question_type": "open-ended",
                },
            }
        )
    records[4]["conversations"][0]["value"] += " <image> <image>"
    records[7]["image"][0] = "HQ-Edit/images/lost.jpg"
    write_json(folder / "m4_instruct_annotations.json", records)
    for name, files in archives.items():
        write_zip(folder / f"{name}.zip", files)
    write_card(
        folder, "license: cc-by-4.0\nlanguage:\n- en\npretty_name: M4-Instruct\nviewer: false"
    )
    bad = [
        Planted(
            repository=MULTI_IMAGE,
            subset="",
            row=at,
            file="m4_instruct_annotations.json",
            what=what,
        )
        for at, what in ((4, "placeholder_mismatch"), (7, "missing_media"))
    ]
    return {"m4_instruct_annotations": len(records)}, bad


def about_shape(at: int) -> tuple[str, bytes, str, str]:
    """A shape with a question answered by steps."""
    data, shape, colour = known_shapes()[at]
    other = Random(f"shape {at}").choice([name for name in drawing.COLORS if name != colour])
    steps = (
        f"<SUMMARY> I will look at the shape's colour and compare it. </SUMMARY>\n\n"
        f"<CAPTION> The picture shows one {colour} {shape}. </CAPTION>\n\n"
        f"<REASONING> The only shape is a {shape}. Its colour is {colour}, and {colour} is not "
        f"{other}. </REASONING>\n\n<CONCLUSION> No </CONCLUSION>"
    )
    name = f"CLEVR_v1.0/images/train/CLEVR_train_{at:06d}.png"
    return name, data, f"Is there a {other} {shape} in the picture?", steps


def about_chart(at: int, chart: tables.Chart) -> tuple[str, bytes, str, str]:
    """A chart with a difference worked out by steps."""
    question, steps = tables.reasoning(chart)
    image = drawing.draw_chart(chart, color="#1f77b4", grid=at % 4 == 0)
    return f"chartqa/train/png/{at:06d}.png", png(image), question, steps


def write_reasoning(folder: Path, *, share: float) -> tuple[dict[str, int], list[Planted]]:
    """One JSON a line, and one zip of the images in parts that `cat` joins."""
    charts = [chart for chart in reversed(tables.all_charts()) if chart.kind != "pie"]
    files: dict[str, bytes] = {}
    records = []
    for at in range(count(160, share)):
        if at % 2:
            name, data, question, steps = about_shape(at)
        else:
            name, data, question, steps = about_chart(at, charts[at // 2])
        files[name] = data
        records.append(
            {"id": Path(name).stem, "image": name, "conversations": said(question, steps)}
        )
    cut_off = records[6]["conversations"][1]
    cut_off["value"] = cut_off["value"].split("<CONCLUSION>")[0].rstrip()
    write_jsonl(folder / "train.jsonl", records)
    whole = folder / "image.zip"
    write_zip(whole, files)
    data = whole.read_bytes()
    whole.unlink()
    half = len(data) // 2
    write_files(folder, {"image.zip.part-aa": data[:half], "image.zip.part-ab": data[half:]})
    write_card(
        folder,
        "license: apache-2.0\nlanguage:\n- en\nconfigs:\n- config_name: default\n  data_files:\n"
        "  - split: train\n    path: train.jsonl\n",
    )
    bad = [
        Planted(
            repository=REASONING, subset="", row=6, file="train.jsonl", what="unfinished_reasoning"
        )
    ]
    return {"train": len(records)}, bad
