"""Small copies of images for a page of bounded size, and a sheet of them for each component.

bytes of an image --thumbnail--> data URL, while the Budget lasts
samples drawn (drawn.py) --contact_sheets--> per component up to THUMBNAILS of them
"""

import base64
import io
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.report.drawn import TEXT, drawn, views
from pipelines.report.finished import Finished
from pipelines.report.row_view import frame_times
from pipelines.report.texts import messages_of, tells_roles

GALLERY_BYTES = 6_000_000
"""Of images of the gallery, as base64."""
SHEET_BYTES = 2_000_000
"""Of all contact sheets, each component an equal part of it: with gallery, plots and text the page
stays under 10 MB."""
THUMBNAILS = 12
"""Samples on a component's sheet."""
SHEET_SIDE = 112
"""px, longer side on a sheet."""
CAPTION = 60
"""Characters of a question below its image; of a text on a sheet of texts, three times as many."""


@dataclass
class Budget:
    """Bytes of images that the page may still take; holds what was left out."""

    left: int = GALLERY_BYTES
    left_out: int = field(default=0)


def thumbnail(data: bytes, *, longest: int, budget: Budget, quality: int = 62) -> dict[str, Any]:
    """A small WebP copy of the image as a data URL, and its true size in px.

    Where the budget is used up, or the bytes do not decode, `note` says so and `source` is empty.
    """
    from tokenization.images import image_size, open_image

    try:
        width, height = image_size(data)
        if budget.left <= 0:
            budget.left_out += 1
            return {"source": "", "note": "left out", "width": width, "height": height}
        image = open_image(data)
    except ValueError:
        return {"source": "", "note": "does not decode", "width": None, "height": None}
    image.thumbnail((longest, longest))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=quality, method=4)
    source = "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
    budget.left -= len(source)
    return {"source": source, "note": "", "width": width, "height": height}


def contact_sheets(mixture: Finished) -> dict[str, dict[str, Any]]:
    """Of each component of the mixture: `samples`, those on its sheet in the order drawn, and how
    many `images` were `left_out` for want of room.

    A sample is its first image, of a video the middle frame, of a text its beginning.
    """
    names = list(mixture.stats["components"])
    places = drawn(mixture).places.group_by("component", maintain_order=True).head(THUMBNAILS)
    order = {sample: number for number, sample in enumerate(places["id"])}
    budgets = {name: Budget(left=SHEET_BYTES // max(1, len(names))) for name in names}
    sheets: dict[str, list[dict[str, Any]]] = defaultdict(list)
    told = tells_roles(mixture)
    for place, row, view in views(mixture, places, columns=[*TEXT, "images"]):
        times, images = frame_times(view.spans), row["images"]
        messages = messages_of(view, mixture.tokenizer) if told else ()
        said = [message.text for message in messages if message.role != "system"]
        shown: dict[str, Any] = {"source": "", "note": "", "width": None, "height": None}
        if images:
            number = len(images) // 2 if times else 0
            budget = budgets[place["component"]]
            data = images[number]["bytes"]
            shown = thumbnail(data, longest=SHEET_SIDE, budget=budget, quality=50)
        sheets[place["component"]].append(
            {
                "id": view.id,
                "images": len(images),
                "video": bool(times),
                "text": shortened(said[0] if said else "", CAPTION if images else 3 * CAPTION),
                **shown,
            }
        )
    return {
        name: {
            "samples": sorted(sheets[name], key=lambda sample: order[sample["id"]]),
            "left_out": budgets[name].left_out,
            "only_text": bool(sheets[name]) and not any(s["images"] for s in sheets[name]),
        }
        for name in names
    }


def shortened(text: str, most: int) -> str:
    """The text on one line, or its beginning and an ellipsis: `most` characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[: most - 1] + "\u2026"


def counted(samples: int) -> str:
    """So many samples, in words."""
    return f"{samples} sample{'' if samples == 1 else 's'}"


def sheet_summary(sheet: Mapping[str, Any]) -> str:
    """What is on a sheet, in words."""
    samples = sheet["samples"]
    if not samples:
        return "no sample of it is in the train shards"
    if sheet["only_text"]:
        return f"text only: the beginning of {counted(len(samples))}"
    videos = sum(sample["video"] for sample in samples)
    texts = sum(not sample["images"] for sample in samples)
    parts = [counted(len(samples))]
    parts += [f"{videos} of them videos, by their middle frame"] if videos else []
    parts += [f"{texts} of them text only"] if texts else []
    parts += [f"{sheet['left_out']} left out to keep this file small"] if sheet["left_out"] else []
    return ", ".join(parts)
