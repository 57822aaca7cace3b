"""Images drawn here: charts and tables with known numbers, pages, lines of text, shapes."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw, ImageFont

CHART = (320, 240)  # px
PAGE = (440, 560)  # px
PAGE_LINES, PAGE_COLUMNS = 34, 72
COLORS = {
    "red": (214, 39, 40),
    "green": (44, 160, 44),
    "blue": (31, 119, 180),
    "orange": (255, 127, 14),
    "purple": (148, 103, 189),
    "brown": (140, 86, 75),
}


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One series with a name for every value."""

    kind: str
    """bar | barh | line | pie."""
    title: str
    quantity: str
    """What a value measures, as on the axis."""
    labels: tuple[str, ...]
    values: tuple[float, ...]


@cache
def font(family: str, size: int) -> ImageFont.FreeTypeFont:
    """A DejaVu font (they come with matplotlib) at `size` px."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / f"{family}.ttf"), size)


def nice_ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers that cover [low, high]."""
    raw = (high - low or 1.0) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    first = math.floor(low / step)
    last = math.ceil(high / step)
    return [round(step * n, 10) for n in range(first, last + 1)]


def draw_chart(chart: Chart, *, color: str, grid: bool) -> Image.Image:
    """320 x 240 px with title, axis and tick labels."""
    image = Image.new("RGB", CHART, "white")
    draw = ImageDraw.Draw(image)
    small = font("DejaVuSans", 9)
    draw.text(
        (CHART[0] / 2, 10), chart.title, font=font("DejaVuSans", 10), fill="black", anchor="mm"
    )
    if chart.kind == "pie":
        draw_pie(draw, chart)
        return image.quantize(48)

    ticks = nice_ticks(min(0.0, *chart.values), max(chart.values))
    if chart.kind == "line":
        ticks = nice_ticks(min(chart.values), max(chart.values))
    low, high = ticks[0], ticks[-1]
    lying = chart.kind == "barh"
    widest = max(small.getlength(label) for label in chart.labels)
    left = 12 + (widest if lying else max(small.getlength(f"{t:g}") for t in ticks) + 12)
    box = (left, 24, CHART[0] - 10, CHART[1] - 34)
    along, across = (box[2] - box[0], box[3] - box[1])
    slot = (across if lying else along) / len(chart.labels)

    def at(value: float) -> float:
        """Where a value stands on its axis, px."""
        done = (value - low) / (high - low)
        return box[0] + done * along if lying else box[3] - done * across

    for tick in ticks:
        line = (
            (at(tick), box[1], at(tick), box[3]) if lying else (box[0], at(tick), box[2], at(tick))
        )
        if grid:
            draw.line(line, fill="#d8d8d8")
        place = (at(tick), box[3] + 8) if lying else (box[0] - 4, at(tick))
        draw.text(place, f"{tick:g}", font=small, fill="black", anchor="mm" if lying else "rm")
    middles = [(box[1] if lying else box[0]) + slot * (n + 0.5) for n in range(len(chart.labels))]
    for number, (middle, label, value) in enumerate(
        zip(middles, chart.labels, chart.values, strict=True)
    ):
        half = 0.36 * slot
        if lying:
            draw.rectangle((box[0], middle - half, at(value), middle + half), fill=color)
            draw.text((box[0] - 4, middle), label, font=small, fill="black", anchor="rm")
            continue
        if chart.kind == "bar":
            draw.rectangle((middle - half, at(value), middle + half, box[3]), fill=color)
        crowded = small.getlength(label) > slot - 2 and number % 2
        draw.text(
            (middle, box[3] + (18 if crowded else 8)), label, font=small, fill="black", anchor="mm"
        )
    if chart.kind == "line":
        points = [(x, at(value)) for x, value in zip(middles, chart.values, strict=True)]
        draw.line(points, fill=color, width=2)
        for x, y in points:
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=color)
    draw.rectangle(box, outline="black")
    draw.text((CHART[0] / 2, CHART[1] - 7), chart.quantity, font=small, fill="#444444", anchor="mm")
    return image.quantize(48)


def draw_pie(draw: ImageDraw.ImageDraw, chart: Chart) -> None:
    """Slices and a legend with each value."""
    total, start = sum(chart.values), 0.0
    for number, (label, value) in enumerate(zip(chart.labels, chart.values, strict=True)):
        fill = tuple(COLORS.values())[number % len(COLORS)]
        end = start + 360 * value / total
        draw.pieslice((16, 36, 186, 206), start, end, fill=fill, outline="white")
        top = 60 + 20 * number
        draw.rectangle((200, top, 210, top + 10), fill=fill)
        told = f"{label}: {value:,.0f} {chart.quantity}"
        draw.text((214, top + 5), told, font=font("DejaVuSans", 9), fill="black", anchor="lm")
        start = end


def draw_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Image.Image:
    """A ruled table; as wide as its longest cells need."""
    small, bold = font("DejaVuSans", 11), font("DejaVuSans-Bold", 11)
    cells = [list(header), *map(list, rows)]
    widths = [
        12 + max(round(bold.getlength(row[column])) for row in cells)
        for column in range(len(header))
    ]
    wide = max(sum(widths), round(bold.getlength(title)))
    image = Image.new("RGB", (wide + 17, 20 * len(cells) + 40), "white")
    draw = ImageDraw.Draw(image)
    draw.text((8, 6), title, font=bold, fill="black")
    for number, row in enumerate(cells):
        left, top = 8, 28 + 20 * number
        for width, cell in zip(widths, row, strict=True):
            shade = "#dde4ee" if number == 0 else "#f6f6f6" if number % 2 else "white"
            draw.rectangle((left, top, left + width, top + 20), outline="#888888", fill=shade)
            draw.text((left + 6, top + 3), cell, font=small if number else bold, fill="black")
            left += width
    return image.quantize(16)


def lay_pages(text: str) -> list[list[str]]:
    """The lines of each page: long lines wrapped, their indent kept."""
    lines: list[str] = []
    for line in text.splitlines():
        indent = " " * (len(line) - len(line.lstrip()))
        lines += textwrap.wrap(line, PAGE_COLUMNS, subsequent_indent=indent) or [""]
    pages = [lines[at : at + PAGE_LINES] for at in range(0, len(lines), PAGE_LINES)]
    return [page for page in pages if any(line.strip() for line in page)]


def draw_page(lines: Sequence[str], *, title: str, family: str, number: int) -> Image.Image:
    """A page of paper with the title at its head and its number at the foot."""
    image = Image.new("L", PAGE, 252)
    draw = ImageDraw.Draw(image)
    draw.text((PAGE[0] // 2, 20), title, font=font(family, 10), fill=60, anchor="mm")
    for row, line in enumerate(lines):
        draw.text((24, 38 + 14 * row), line, font=font(family, 9), fill=20)
    draw.text((PAGE[0] // 2 - 4, PAGE[1] - 24), str(number), font=font(family, 10), fill=90)
    return image.quantize(8)


def draw_line_of_text(text: str, rng: Random) -> Image.Image:
    """One or two lines in a random face, size and colour."""
    face = font(
        rng.choice(["DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "DejaVuSerif-Bold"]),
        rng.choice([13, 16, 20]),
    )
    light = tuple(rng.randint(200, 255) for _ in range(3))
    dark = tuple(rng.randint(0, 90) for _ in range(3))
    if rng.random() < 0.3:
        light, dark = dark, light
    box = face.getbbox(text)
    image = Image.new("RGB", (round(box[2]) + 24, round(box[3]) + 20), light)
    ImageDraw.Draw(image).text((12, 8), text, font=face, fill=dark)
    return image.quantize(32)


def draw_shape(
    draw: ImageDraw.ImageDraw, shape: str, *, center: tuple[float, float], radius: float, color: str
) -> None:
    """`shape` (circle, square, triangle) filled with a colour of COLORS."""
    x, y = center
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        draw.ellipse(box, fill=COLORS[color])
    elif shape == "square":
        draw.rectangle(box, fill=COLORS[color])
    else:
        corners = [(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)]
        draw.polygon(corners, fill=COLORS[color])
