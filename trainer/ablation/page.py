"""OUT/sweep.html: the sweep to look at, in one file without script that needs no network.

The differences with their intervals, the curves of every arm (mean over its seeds, and where all of
them lie), every metric. Colours are those of the other pages (tokenization/pages.py).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokenization import pages
from tokenization.pages import INK, PLAIN, Style, place_styles, short_number
from trainer.ablation.execute import Job
from trainer.ablation.results import difference_cells, number
from trainer.monitoring.page import POINTS, visible_text
from trainer.monitoring.watch import human_count

TEMPLATE = Path(__file__).with_name("page.html.jinja")
Curve = tuple[list[float], list[float]]


def write(
    file: Path, found: Mapping[str, Any], jobs: Sequence[Job], failed: Mapping[int, str]
) -> None:
    """The page of these results, and of the logs of the runs that did not fail."""
    curves: dict[str, list[Curve]] = {arm["name"]: [] for arm in found["arms"]}
    for place, job in enumerate(jobs):
        if place not in failed:
            curves[job.arm].append(training_curve(job.run.folder / "log.jsonl"))
    arriving = file.with_name(f".arriving-{file.name}")
    arriving.write_text(page(found, curves))
    arriving.replace(file)


def training_curve(log: Path) -> Curve:
    """Tokens trained on, and the mean loss since the line before."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    logged = [line for line in lines if "loss" in line]
    return [line["tokens"] for line in logged], [line["mean_loss"] for line in logged]


def page(found: Mapping[str, Any], curves: Mapping[str, Sequence[Curve]]) -> str:
    """A pure function of the numbers."""
    names = [arm["name"] for arm in found["arms"]]
    styles = place_styles([names])
    metrics = list(dict.fromkeys(name for arm in found["arms"] for name in arm["metrics"]))
    return pages.template(TEMPLATE, visible=visible_text, people=human_count, number=number).render(
        found=found,
        colours=pages.css(),
        styles=styles,
        metrics=metrics,
        differences=differences(found, styles),
        curves=drawn_curves(curves, styles),
        cells=difference_cells,
        expected=0.05 * len(metrics) * (len(names) - 1),
    )


def differences(found: Mapping[str, Any], styles: Mapping[str, Style]) -> str:
    """Each arm's difference to the baseline in the sweep's metric, and its interval; zero is a
    line. Nothing where no arm has an interval.
    """
    shown = [
        (arm["name"], line)
        for arm in found["arms"]
        if (line := arm["metrics"].get(found["metric"], {}).get("difference"))
        and line["low"] is not None
    ]
    if not shown:
        return ""
    figure, axes = pages.bare_axes(7.0, 0.8 + 0.35 * len(shown))
    axes.grid(axis="y", visible=False)
    axes.axvline(0, color=PLAIN, linewidth=1)
    for place, (name, line) in enumerate(reversed(shown)):
        ink = styles[name].ink
        axes.plot([line["low"], line["high"]], [place, place], color=ink, linewidth=2)
        axes.plot([line["mean"]], [place], "o", color=ink, markersize=6)
    axes.set_yticks(range(len(shown)), [visible_text(name)[:24] for name, _ in reversed(shown)])
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xlabel(f"{found['metric']}: arm less {found['baseline']}", color=INK, fontsize=9)
    return pages.svg(figure, label="differences to the baseline with 95 % intervals")


def drawn_curves(curves: Mapping[str, Sequence[Curve]], styles: Mapping[str, Style]) -> str:
    """The loss in training: of each arm the mean over its seeds, and what they span."""
    figure, axes = pages.bare_axes(7.0, 3.4)
    drawn = False
    for name, runs in curves.items():
        long = [run for run in runs if len(run[0]) > 1]
        if not long:
            continue
        drawn = True
        x = np.linspace(max(run[0][0] for run in long), min(run[0][-1] for run in long), POINTS)
        values = np.stack([np.interp(x, *run) for run in long])
        style = styles[name]
        axes.plot(x, values.mean(0), color=style.ink, linestyle=style.line, linewidth=1.6)
        axes.fill_between(x, values.min(0), values.max(0), color=style.ink, alpha=0.15, linewidth=0)
    if not drawn:
        return ""
    axes.set_xlabel("tokens trained on", color=INK, fontsize=9)
    axes.set_ylabel("nats per learned token", color=INK, fontsize=9)
    axes.xaxis.set_major_formatter(lambda value, _: short_number(value))
    return pages.svg(figure, label="loss in training of each arm")
