"""What differs between two finished mixtures: their recipes, shares, rejections, packing, samples.

diff A B      rows in which both agree are left out; at most 100 columns
"""

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from pipelines.recipe import drift
from pipelines.report.card import human_amount, percent
from pipelines.report.finished import Finished, open_finished

WIDTH = 100


def diff(first: str, second: str) -> str:
    """A report of what differs between the mixtures in two folders.

    Raises:
        FileNotFoundError: no finished mixture in one of them.
    """
    a, b = open_finished(first), open_finished(second)
    title = f"{a.folder} ({a.stats['fingerprint']}) and {b.folder} ({b.stats['fingerprint']})"
    parts = [
        section("recipe", recipe_lines(a, b)),
        section("shares of the train split", share_lines(a.stats, b.stats)),
        section("rejected, by the first rule that fired", rejected_lines(a.stats, b.stats)),
        section("packed", packing_lines(a.stats, b.stats)),
        section("samples", sample_lines(a, b)),
    ]
    found = [part for part in parts if part]
    return "\n\n".join([title, *(found or ["no difference"])])


def section(title: str, lines: Iterable[str]) -> str:
    """The lines under their title, each at most WIDTH wide; nothing where there are none."""
    shown = [line if len(line) <= WIDTH - 2 else line[: WIDTH - 3] + "~" for line in lines]
    return "\n".join([title, *(f"  {line}" for line in shown)]) if shown else ""


def recipe_lines(a: Finished, b: Finished) -> list[str]:
    """One line per field of the recipes that differs; names and package versions included."""
    keys = ("name", "mixture", "inputs", "versions", "packages")
    return drift({k: a.recipe.get(k) for k in keys}, {k: b.recipe.get(k) for k in keys})


def share_lines(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Per component: asked, got in its measure, samples used, epochs."""
    head = f"{'component':<22}{'asked':>20}{'got':>20}{'samples used':>20}{'epochs':>14}"
    lines = []
    for name in ordered_union(a["components"], b["components"]):
        sides = [side["components"].get(name) for side in (a, b)]
        cells = [
            both_sides(sides, lambda part: percent(part["asked"])),
            both_sides(sides, lambda part: percent(part["got"][a["measure"]])),
            both_sides(sides, lambda part: human_amount(part["samples"])),
            both_sides(sides, lambda part: f"{part['epochs']:.2f}"),
        ]
        if any(">" in cell for cell in cells):
            lines.append(f"{name[:21]:<22}{cells[0]:>20}{cells[1]:>20}{cells[2]:>20}{cells[3]:>14}")
    return [head, *lines] if lines else []


def both_sides(sides: list[Any], show: Any) -> str:
    """`x > y` where the sides differ, `x` where they agree; `-` is a side that has none."""
    first, second = ("-" if side is None else show(side) for side in sides)
    return first if first == second else f"{first} > {second}"


def rejected_lines(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Per rule, the samples it removed in each."""
    lines = []
    for rule in ordered_union(a["rejected"], b["rejected"]):
        counts = [side["rejected"].get(rule, {"samples": 0})["samples"] for side in (a, b)]
        if counts[0] != counts[1]:
            lines.append(f"{rule:<30}{human_amount(counts[0]):>12} > {human_amount(counts[1])}")
    return lines


def packing_lines(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Per split: rows, tokens, learned share and fill."""
    lines = []
    for split in ("train", "val"):
        sides = [side["packing"][split] for side in (a, b)]
        for key, show in (
            ("rows", human_amount),
            ("tokens", human_amount),
            ("learned_share", percent),
            ("fill", percent),
        ):
            first, second = (show(side.get(key, 0)) for side in sides)
            if first != second:
                lines.append(f"{split:<7}{key.replace('_', ' '):<23}{first:>12} > {second}")
    return lines


def sample_lines(a: Finished, b: Finished) -> list[str]:
    """How many samples are in the shards of one and not of the other, and which changed sides."""
    used: list[pl.DataFrame] = [
        side.index.filter(pl.col("copies") > 0).select("id", "component", "split")
        for side in (a, b)
    ]
    lines = []
    for label, one, other in (
        ("only in the first", used[0], used[1]),
        ("only in the second", used[1], used[0]),
    ):
        alone = one.join(other, on="id", how="anti")
        if len(alone):
            counts = alone["component"].value_counts(sort=True).iter_rows()
            names = ", ".join(f"{name} {human_amount(count)}" for name, count in counts)
            lines.append(f"{label}: {human_amount(len(alone))} ({names})")
    moved = used[0].join(used[1], on="id").filter(pl.col("split") != pl.col("split_right"))
    if len(moved):
        lines.append(f"in train of one and val of the other: {human_amount(len(moved))}")
    return lines


def ordered_union(first: Iterable[str], second: Iterable[str]) -> list[str]:
    """Every name once, in order of appearance."""
    return list(dict.fromkeys([*first, *second]))
