"""The report's plots, drawn by matplotlib as SVG that takes its colours from the page.

Every plot is drawn in stand-in colours (tokenization/pages.py), so that one drawing serves light
and dark. A component has the colour of its place in the mixture; what is of all of them is plain.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tokenization.pages import (
    INK,
    PLAIN,
    bare_axes,
    place_styles,
    short_number,
    stacked_axes,
    svg,
)

RULES_SHOWN = 9


def histogram(
    counts: Mapping[str, Any], *, title: str, unit: str, components: Sequence[str] = ()
) -> str:
    """Counts between edges as bars of equal width, each edge named under its bar's start.

    With `components`, those of the mixture, each that has any has a line of its own below, in its
    colour, as tall as its own highest bar, and how many it counts.
    """
    of_parts = counts.get("components") or {}
    parts = [name for name in components if name in of_parts] if len(components) > 1 else []
    first, last = _filled([counts["counts"], *(of_parts[name] for name in parts)])
    edges, values = counts["edges"][first : last + 1], counts["counts"][first:last]
    figure, axes = stacked_axes(4.4, 2.3, lines=len(parts))
    axes[0].bar(range(len(values)), values, width=0.92, align="edge", color=PLAIN)
    axes[0].yaxis.set_major_locator(_whole_numbers())
    axes[0].yaxis.set_major_formatter(lambda value, _: short_number(value))
    styles = place_styles([list(components)])
    for name, line in zip(parts, axes[1:], strict=True):
        own = of_parts[name][first:last]
        heights = [value / max(*own, 1) for value in own]
        line.bar(range(len(own)), heights, width=0.92, align="edge", color=styles[name].ink)
        line.set(ylim=(0, 1.05), xlim=axes[0].get_xlim())
        said = f"{shorten(name, 26)}  {short_number(sum(own))}"
        line.text(0, 1.22, said, transform=line.transAxes, fontsize=8, color=INK, parse_math=False)
    step = max(1, len(edges) // 7)
    places = range(0, len(edges), step)
    axes[-1].set_xticks(list(places), [_edge(edges[k]) for k in places])
    axes[-1].set_xlabel(unit, color=INK, fontsize=9)
    return svg(figure, label=title)


def _filled(several: Sequence[Sequence[float]]) -> tuple[int, int]:
    """The first bin that any of them fills, and the one after the last."""
    filled = [k for values in several for k, value in enumerate(values) if value]
    return min(filled, default=0), max(filled, default=0) + 1


def shorten(text: str, most: int) -> str:
    """The text, or its beginning and an ellipsis: `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "\u2026"


def _whole_numbers() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=4, integer=True)


def _edge(number: float) -> str:
    """An edge as it is, 1024 and not 1.02k, where that is at most five characters."""
    return f"{number:.5g}" if abs(number) < 1e5 else short_number(number)


def prefix(balance: Mapping[str, Any], *, title: str) -> str:
    """Each component's share of everything up to each place in the train rows, as lines."""
    figure, axes = bare_axes(4.4, 2.6)
    at = [100 * place for place in balance["at"]]
    styles = place_styles([list(balance["components"])])
    for name, shares in balance["components"].items():
        values = [100 * share for share in shares]
        drawn = {"color": styles[name].ink, "linestyle": styles[name].line}
        axes.plot(at, values, **drawn, linewidth=1.8, label=name, marker="o", ms=2)
    axes.set_xlabel("% of the train rows so far", color=INK, fontsize=9)
    axes.set_ylabel("% of what was seen", color=INK, fontsize=9)
    axes.set_ylim(bottom=0)
    return svg(figure, label=title)


def schedule(along: Mapping[str, Any], *, title: str) -> str:
    """Each component's share along the run: asked as thin lines, got as points."""
    figure, axes = bare_axes(4.4, 2.6)
    at = [100 * place for place in along["at"]]
    styles = place_styles([list(along["got"])])
    for name, shares in along["got"].items():
        ink = styles[name].ink
        asked = [100 * share for share in along["asked"][name]]
        axes.plot(at, asked, color=ink, linestyle=styles[name].line, linewidth=1.2)
        got = [100 * share for share in shares]
        axes.plot(at, got, color=ink, linestyle="none", marker="o", ms=2.5, label=name)
    axes.set_xlabel("% of the run", color=INK, fontsize=9)
    axes.set_ylabel("% there", color=INK, fontsize=9)
    axes.set_ylim(bottom=0)
    return svg(figure, label=title)


def sizes(widths: Sequence[int], heights: Sequence[int], *, title: str) -> str:
    """Images as points, width against height in px, both on log scales."""
    figure, axes = bare_axes(4.4, 2.6)
    axes.scatter(widths, heights, s=9, color=PLAIN, alpha=0.45, linewidths=0)
    axes.set(xscale="log", yscale="log")
    for axis, values in ((axes.xaxis, widths), (axes.yaxis, heights)):
        low, high = min(values) / 1.3, max(values) * 1.3
        shown = [2**k for k in range(15) if low <= 2**k <= high]
        axis.set_ticks(shown, [str(p) for p in shown])
        axis.set_ticks([], minor=True)
        axis.set_view_interval(low, high, ignore=True)
    axes.set_xlabel("width, px", color=INK, fontsize=9)
    axes.set_ylabel("height, px", color=INK, fontsize=9)
    return svg(figure, label=title)


def flow(stats: Mapping[str, Any], *, title: str, narrow: bool = False) -> str:
    """Samples from components (left) through the rules that took them to the shards (right).

    Names stand beside the bands; where it is to be `narrow`, as on a phone, above them.
    """
    from matplotlib.figure import Figure

    links = flow_links(stats)
    columns = [
        list(dict.fromkeys(source for source, _, _ in links)),
        sorted({target for _, target, _ in links}, key=ends_of(stats).index),
    ]
    total = sum(count for *_, count in links) or 1
    most = max(map(len, columns))
    gap = (0.16 if narrow else 0.055) * (1 if most < 6 else 6 / most + 0.35)
    height = 0.9 + (0.44 if narrow else 0.34) * most
    figure = Figure(figsize=(3.6 if narrow else 6.4, height))
    axes = figure.add_axes((0, 0, 1, 1))
    above = 0.3 * gap if narrow else 0
    across = (-0.02, 1.02) if narrow else (-0.55, 1.7)
    axes.set(xlim=across, ylim=(-1 - gap * most, 0.02 + 3 * above))
    axes.axis("off")
    styles = place_styles([list(stats["components"])])
    tops: list[dict[str, float]] = []
    for side, names in enumerate(columns):
        place, heights = 0.0, {}
        for name in names:
            size = sum(count for *ends, count in links if ends[side] == name)
            heights[name] = place
            place -= size / total + gap
            axes.text(
                (0, 1)[side] if narrow else (-0.03, 1.03)[side],
                heights[name] + above if narrow else heights[name] - size / total / 2,
                f"{shorten(name, 20 if narrow else 18)}  {size:,}",
                ha=("left", "right")[side] if narrow else ("right", "left")[side],
                va="bottom" if narrow else "center",
                fontsize=8 if narrow else 9,
                color=INK,
                parse_math=False,
            )
        tops.append(heights)
    for source, target, count in links:
        thick = count / total
        _band(axes, tops[0][source], tops[1][target], thick, styles[source].ink)
        tops[0][source] -= thick
        tops[1][target] -= thick
    return svg(figure, label=title)


def _band(axes: Any, left: float, right: float, thick: float, fill: str) -> None:
    """A curved band from x 0 at `left` to x 1 at `right`, downwards `thick`."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    points = [(0, left), (0.5, left), (0.5, right), (1, right)]
    back = [(1, right - thick), (0.5, right - thick), (0.5, left - thick), (0, left - thick)]
    codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    path = Path([*points, *back, (0, left)], codes)
    axes.add_patch(PathPatch(path, facecolor=fill, alpha=0.6, linewidth=0.5, edgecolor=fill))


def ends_of(stats: Mapping[str, Any]) -> list[str]:
    """What can become of a sample, from top to bottom."""
    common = list(stats["rejected"])[:RULES_SHOWN]
    return ["in the shards", "kept, not picked", *common, "other rules"]


def flow_links(stats: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """(component, what became of its samples, how many): in shards, not picked, or the rule.

    Every sample read is in exactly one link. Rules beyond the commonest nine are "other rules".
    """
    order = ends_of(stats)
    ends: dict[str, dict[str, int]] = {}
    for name, part in stats["components"].items():
        ends[name] = {
            "in the shards": part["used"],
            "kept, not picked": part["kept"] - part["used"],
        }
        for rule, count in part["rejected"].items():
            end = rule if rule in order else "other rules"
            ends[name][end] = ends[name].get(end, 0) + count
    return [
        (name, end, counts[end])
        for name, counts in ends.items()
        for end in order
        if counts.get(end)
    ]
