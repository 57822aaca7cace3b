"""What report.html, run.html and sweep.html share: how templates are read, colours, light and dark,
and drawings that take them.

    place in the mixture --place_styles--> Style --css--> var(--c3), dashed
    matplotlib's figure, in stand-in colours --svg--> an element in the page's colours

A component has the colour of its place in its mixture, and so the same one on both pages. What is
no component is drawn in `PLAIN`.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIGHT = ("#c3781e", "#9678ff", "#1e00b4", "#960000", "#5a0f5a", "#781ef0",
         "#ff2d96", "#783c78", "#2d785a", "#c32d0f", "#a53cb4", "#4b96b4")  # fmt: skip
DARK = ("#e1a500", "#2d8769", "#c300f0", "#5ab4d2", "#d2f0b4", "#78e1ff",
        "#f00f00", "#ffd22d", "#9669b4", "#a587ff", "#a5c396", "#b49669")  # fmt: skip
"""Found by searching sRGB for twelve that are farthest apart, the first ones most: to the normal
eye and to those without one of the three cones any two differ by 0.085 or more in OKLab, the first
eight by 0.1. Against the page each has a contrast of 3:1 or more, as WCAG asks of graphics. All of
it is tested."""
GROUND = {"light": "#fbfbf9", "dark": "#131417"}
"""Of the page."""
_OTHERS = {
    "light": "--card: #ffffff; --ink: #1c1d20; --quiet: #5d6068; --faint: #dcdcd6; "
    "--plain: #5d6068; --good: #0b5d2c;",
    "dark": "--card: #1c1e22; --ink: #e7e7e3; --quiet: #a2a6ae; --faint: #3a3d44; "
    "--plain: #a2a6ae; --good: #a6e8b8;",
}
DASHES = ("-", "--", ":", "-.")
"""Of lines whose colour is taken: matplotlib's signs."""

LINE = 0.36
"""Inches of a line of `stacked_axes`."""

INK, FAINT, PLAIN = "#010101", "#020202", "#030303"
SERIES = tuple(f"#0a00{k:02x}" for k in range(len(LIGHT)))
"""Stand-ins in which figures are drawn, until `svg` puts the page's variables in their place."""


@dataclass(frozen=True)
class Style:
    """How a component is drawn."""

    colour: int
    """`var(--cN)`; the stand-in is SERIES[N]."""
    dash: int = 0
    """Of DASHES; above 0 where the colour is another component's already."""

    @property
    def ink(self) -> str:
        """The stand-in."""
        return SERIES[self.colour]

    @property
    def line(self) -> str:
        """Matplotlib's sign."""
        return DASHES[self.dash % len(DASHES)]


def template(file: Path, **filters: Callable[..., Any]) -> Any:
    """The compiled Jinja template of a page, which escapes what it is given."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(file.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(file.name)


def place_styles(mixtures: Sequence[Sequence[str]], others: Sequence[str] = ()) -> dict[str, Style]:
    """The style of every component of the mixtures, each given as its components in their order.

    Its colour is that of its place in the first mixture that has it, so that a run on several
    mixtures shows each as that one's report does; whose colour is taken by then is dashed. `others`
    that are "A + B" (components that share a subset) take A's colour, the rest the next ones.
    """
    styles: dict[str, Style] = {}
    taken = [0] * len(SERIES)

    def place(name: str, number: int) -> None:
        colour = number % len(SERIES)
        styles[name] = Style(colour, taken[colour])
        taken[colour] += 1

    for names in mixtures:
        for number, name in enumerate(names):
            if name not in styles:
                place(name, number)
    for name in others:
        if name not in styles:
            first = styles.get(name.split(" + ")[0])
            place(name, first.colour if first else len(styles))
    return styles


def css() -> str:
    """The variables of both schemes: --page, --card, --ink, --quiet, --faint, --plain, --good and
    --c0, --c1, ...
    """
    return (
        f":root {{ color-scheme: light dark; }}\n{_rule(':root', 'light', LIGHT)}\n"
        f"@media (prefers-color-scheme: dark) {{ {_rule(':root', 'dark', DARK)} }}\n"
    )


def light_css(selector: str) -> str:
    """The variables of the light scheme for a part of somebody else's page, as a notebook is."""
    return _rule(selector, "light", LIGHT)


def _rule(selector: str, scheme: str, series: Sequence[str]) -> str:
    colours = " ".join(f"--c{k}: {colour};" for k, colour in enumerate(series))
    return f"{selector} {{ --page: {GROUND[scheme]}; {_OTHERS[scheme]} {colours} }}"


def svg(figure: Any, *, label: str) -> str:
    """The figure as an inline SVG element that scales to its place; `label` is read out for it.

    Text stays text. The same numbers give the same bytes.
    """
    import matplotlib as mpl

    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"font: (?:[\w ]*?)([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    for stand_in, colour in _variables().items():
        text = text.replace(stand_in, colour)
    attributes = f'role="img" aria-label="{_attribute(label)}" class="plot" '
    opening = rf'<svg {attributes}viewBox="\1">'
    return re.sub(r'<svg .*?viewBox="([^"]*)"[^>]*>', opening, text, count=1, flags=re.DOTALL)


def _variables() -> Mapping[str, str]:
    series = {stand_in: f"var(--c{k})" for k, stand_in in enumerate(SERIES)}
    return {INK: "currentColor", FAINT: "var(--faint)", PLAIN: "var(--plain)", **series}


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def bare_axes(width: float, height: float) -> tuple[Any, Any]:
    """A figure of that many inches and its axes, bare but for a bottom line and faint grid."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.15, 0.5 / height, 0.83, 1 - 0.62 / height))
    _strip(axes)
    return figure, axes


def stacked_axes(width: float, height: float, *, lines: int) -> tuple[Any, list[Any]]:
    """As `bare_axes`, and `lines` more axes without a scale below, a third of an inch each; what
    stands along the bottom belongs to the last.
    """
    from matplotlib.figure import Figure

    whole, high = height + LINE * lines, height - 0.62
    figure = Figure(figsize=(width, whole))
    boxes = [(0.5 + LINE * lines, high)]
    boxes += [(0.5 + LINE * k, LINE - 0.2) for k in reversed(range(lines))]
    found = []
    for bottom, high in boxes:
        axes = figure.add_axes((0.15, bottom / whole, 0.83, high / whole))
        _strip(axes)
        found.append(axes)
    for axes in found[:-1]:
        axes.set_xticks([])
    for axes in found[1:]:
        axes.set_yticks([])
    return figure, found


def _strip(axes: Any) -> None:
    """No frame but a bottom line and a faint grid."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9, length=0)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def short_number(number: float) -> str:
    """The number in few characters: 2e-05, 0.15, 512, 4k, 1.5M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"
