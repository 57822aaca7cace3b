r"""andito/mathwriting-google: `data/{train,validation,test}-*.parquet`, a formula and its LaTeX.

The formulas are those of scipy's docstrings that matplotlib can set. They are printed, not
handwritten: no package ships ink.
"""

import re
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image, ImageOps

from quickstart_data.cauldron import package
from quickstart_data.files import Planted, count, image_record, png, write_card, write_parquet

FACES = ("cm", "stix", "dejavusans", "dejavuserif")


@cache
def latex() -> list[str]:
    """Distinct formulas, shuffled; those matplotlib cannot read may still be among them."""
    found: set[str] = set()
    for path in sorted(package("scipy").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        for formula in re.findall(r":math:`([^`]{5,90})`", source):
            clean = " ".join(formula.replace("\\\\", "\\").split())
            if re.search(r"[\\^_=]", clean) and clean.isascii():
                found.add(clean)
    made = sorted(found)
    Random("formulas").shuffle(made)
    return made


def draw(formula: str, rng: Random) -> Image.Image | None:
    """Black on white, 8 px of margin; None where matplotlib does not know a command."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.mathtext import MathTextParser

    face = FontProperties(math_fontfamily=rng.choice(FACES), size=rng.choice([14, 18, 22]))
    try:
        parsed = MathTextParser("agg").parse(f"${formula}$", dpi=100, prop=face)
    except ValueError:
        return None
    ink = Image.fromarray(parsed.image)
    padded = ImageOps.expand(ImageOps.invert(ink), border=8, fill=255)
    width, height = max(padded.width, 40), max(padded.height, 40)
    return ImageOps.pad(padded, (width, height), color=255).quantize(8)


def write(folder: Path, *, share: float) -> tuple[dict[str, int], list[Planted]]:
    """Three splits, and the card. Nothing is planted here."""
    from datasets import Features, Value
    from datasets import Image as ImageFeature

    wanted = {"train": count(450, share), "validation": count(20, share), "test": count(20, share)}
    rng = Random("faces")
    rows: list[dict[str, Any]] = []
    for formula in latex():
        image = draw(formula, rng)
        if image is not None:
            rows.append({"image": image_record(png(image)), "latex": formula})
        if len(rows) == sum(wanted.values()):
            break
    features = Features({"image": ImageFeature(), "latex": Value("string")})
    at = 0
    for split, number in wanted.items():
        path = folder / "data" / f"{split}-00000-of-00001.parquet"
        write_parquet(path, rows[at : at + number], features)
        at += number
    lines = "".join(f"  - split: {split}\n    path: data/{split}-*\n" for split in wanted)
    write_card(folder, f"configs:\n- config_name: default\n  data_files:\n{lines}")
    return {"default": wanted["train"]}, []
