"""What differs between two finished mixtures: their recipes, shares, rejections, packing, samples.

diff A B      rows in which both agree are left out; at most 100 columns
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

import polars as pl

from pipelines.recipe import drift
from pipelines.report.card import human_amount, percent
from pipelines.report.divided import divided
from pipelines.report.finished import Finished, open_finished, ordered

WIDTH = 100


@dataclass(frozen=True, kw_only=True)
class Diff:
    """What differs between two finished mixtures; `str(diff)` is the report."""

    first: str
    second: str
    """Their folders."""
    recipe: list[str]
    """A line per field of the recipes that differs."""
    components: dict[str, dict[str, list[Any]]]
    """Component -> asked, got (in the measure of each), samples, epochs -> of the first, of the
    second; null of one that has no such component. Only what differs."""
    rejected: dict[str, list[int]]
    """Rule -> samples that it removed in the first, in the second."""
    packing: dict[str, dict[str, list[float]]]
    """Split -> rows, tokens, learned_share, fill -> of the first, of the second."""
    reading: list[str]
    """A sentence per component of which other parts were read."""
    samples: list[str]
    """Sentences: only in one of them, moved between train and val."""
    text: str = field(default="", repr=False)

    def __str__(self) -> str:
        """At most 100 columns."""
        return self.text

    def __bool__(self) -> bool:
        """Whether anything differs."""
        found = (self.recipe, self.components, self.rejected, self.packing, self.reading)
        return any([*found, self.samples])

    def data(self) -> dict[str, Any]:
        """What JSON can hold of it: all but the text."""
        return {key: value for key, value in asdict(self).items() if key != "text"}

    def _repr_html_(self) -> str:
        """In a notebook: the report as it stands."""
        return f"<pre>{escape(self.text)}</pre>"


def diff(first: str, second: str) -> Diff:
    """What differs between the mixtures in two folders.

    Raises:
        FileNotFoundError: no finished mixture in one of them.
    """
    a, b = open_finished(first), open_finished(second)
    title = f"{a.folder} ({a.stats['fingerprint']}) and {b.folder} ({b.stats['fingerprint']})"
    recipe, samples = recipe_lines(a, b), sample_lines(a, b)
    reading = reading_lines(a.stats, b.stats)
    parts = [
        section("recipe", recipe),
        section("shares of the train split", share_lines(a.stats, b.stats)),
        section("rejected, by the first rule that fired", rejected_lines(a.stats, b.stats)),
        section("packed", packing_lines(a.stats, b.stats)),
        section("read", reading),
        section("samples", samples),
    ]
    found = [part for part in parts if part]
    return Diff(
        first=a.folder, second=b.folder, recipe=recipe,
        components=differing_components(a.stats, b.stats),
        rejected=differing_rejections(a.stats, b.stats),
        packing=differing_packing(a.stats, b.stats), reading=reading, samples=samples,
        text="\n\n".join([title, *(found or ["no difference"])]),
    )  # fmt: skip


def differing_components(
    a: Mapping[str, Any], b: Mapping[str, Any]
) -> dict[str, dict[str, list[Any]]]:
    """`Diff.components` of two stats."""
    found: dict[str, dict[str, list[Any]]] = {}
    for name in ordered_union(a["components"], b["components"]):
        sides = []
        for stats in (a, b):
            part = stats["components"].get(name)
            got = part and {**part, "got": part["got"][a["measure"]]}
            sides.append({key: got and got[key] for key in ("asked", "got", "samples", "epochs")})
        pairs = {key: [side[key] for side in sides] for key in sides[0]}
        if differing := {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}:
            found[name] = differing
    return found


def differing_rejections(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[int]]:
    """`Diff.rejected` of two stats."""
    both = {
        rule: [side["rejected"].get(rule, {"samples": 0})["samples"] for side in (a, b)]
        for rule in ordered_union(a["rejected"], b["rejected"])
    }
    return {rule: counts for rule, counts in both.items() if counts[0] != counts[1]}


def differing_packing(
    a: Mapping[str, Any], b: Mapping[str, Any]
) -> dict[str, dict[str, list[float]]]:
    """`Diff.packing` of two stats."""
    found = {}
    for split in ("train", "val"):
        pairs = {
            key: [side["packing"][split].get(key, 0) for side in (a, b)]
            for key in ("rows", "tokens", "learned_share", "fill")
        }
        if differing := {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}:
            found[split] = differing
    return found


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
    return [
        f"{rule:<30}{human_amount(first):>12} > {human_amount(second)}"
        for rule, (first, second) in differing_rejections(a, b).items()
    ]


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


def reading_lines(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Per component of which other parts were read: how many in each, and of which subsets.

    What only one of them read is no difference of filters: the other never saw it.
    """
    lines = []
    for name in ordered_union(a["components"], b["components"]):
        sides = [side.get("reading", {}).get(name) for side in (a, b)]
        if None in sides:
            continue
        unread = [{s: part["unread"] for s, part in side["subsets"].items()} for side in sides]
        if unread[0] != unread[1]:
            which = [s for s in ordered_union(*unread) if unread[0].get(s) != unread[1].get(s)]
            parts = both_sides(sides, lambda side: f"{side['parts']:,} of {side['of']:,} parts")
            more = f" and {len(which) - 3} more" if which[3:] else ""
            lines.append(f"{name:<22}{parts} ({', '.join(which[:3])}{more})")
    return lines


def sample_lines(a: Finished, b: Finished) -> list[str]:
    """How many samples are in the shards of one and not of the other, and which changed sides."""
    alone: dict[str, Counter[str]] = {"first": Counter(), "second": Counter()}
    moved = 0
    with divided(max(a.stats["read"], b.stats["read"])) as ranges:
        for label, side in (("first", a), ("second", b)):
            for some in side.lines(["id", "component", "split", "copies"]):
                used = some.filter(pl.col("copies") > 0).drop("copies")
                ranges.add(label, used.with_columns(pl.col("component", "split").cast(pl.String)))
        for first, second in ranges.each("first", "second"):
            for label, one, other in (("first", first, second), ("second", second, first)):
                only = one.join(other, on="id", how="anti")["component"].value_counts(sort=True)
                alone[label].update(dict(only.iter_rows()))
            both = first.join(second, on="id")
            moved += len(both.filter(pl.col("split") != pl.col("split_right")))
    lines = []
    for label, counts in alone.items():
        if counts:
            names = ", ".join(f"{n} {human_amount(count)}" for n, count in ordered(counts))
            lines.append(f"only in the {label}: {human_amount(counts.total())} ({names})")
    if moved:
        lines.append(f"in train of one and val of the other: {human_amount(moved)}")
    return lines


def ordered_union(first: Iterable[str], second: Iterable[str]) -> list[str]:
    """Every name once, in order of appearance."""
    return list(dict.fromkeys([*first, *second]))
