"""RUN/run.html: a run to look at, in one file without script that needs no network.

log.jsonl + a few val samples --> curves (matplotlib's SVG, coloured by the page: light and dark)
                                  and what the model said to the same samples at each checkpoint

The page is a pure function of the log, the settings and the samples. Text of datasets and models
reaches it only through autoescaping.
"""

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tokenization import terminal
from trainer.config import Config
from trainer.data.shards import Mixture
from trainer.evaluation.generations import NEW_TOKENS, ShownSample
from trainer.monitoring.watch import human_count

INK, FAINT = "#010101", "#020202"
SERIES = tuple(f"#0a00{k:02x}" for k in range(8))
"""Stand-ins for text, grid lines and series: `_svg` puts CSS variables in their place."""
DASHES = ("-", "--", ":")
"""The ninth series is drawn as the first, but dashed."""
POINTS = 200
"""Of a curve, at most: more are averaged."""
STILL, FRAME, FRAMES = 384, 144, 8
"""px, the longer side of an image's copy and of one of several; how many of those are shown."""
CHECKPOINTS = 8
"""Whose answers are shown: the first, the last and some between."""
CHARACTERS = 1500
"""Of a prompt or an answer, at most."""
Curve = tuple[Sequence[float], Sequence[float]]
"""x and y."""


@cache
def _template() -> Any:
    """The compiled page.html.jinja, which escapes what it is given."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"visible": visible_text, "people": human_count, "value": human_value}
    return environment.get_template("page.html.jinja")


def page(
    config: Config,
    lines: Sequence[Mapping[str, Any]],
    samples: Sequence[ShownSample],
    *,
    steps: int,
    mixtures: Sequence[str],
) -> str:
    """The page of a run whose log holds `lines`; `mixtures` are their names and fingerprints."""
    logged = [line for line in lines if "loss" in line]
    held = [line for line in lines if "held_out" in line]
    return _template().render(
        config=config,
        mixtures=mixtures,
        steps=steps,
        last=logged[-1] if logged else None,
        table=losses(logged, held),
        plots=plots(logged, held) if len(logged) > 1 else [],
        new_tokens=NEW_TOKENS,
        samples=[_view(sample, lines) for sample in samples],
    )


def write(
    run: Path,
    config: Config,
    samples: Sequence[ShownSample],
    *,
    steps: int,
    mixtures: Sequence[Mixture],
) -> None:
    """RUN/run.html shows what RUN/log.jsonl holds."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    names = [f"{mixture.name} ({mixture.fingerprint})" for mixture in mixtures]
    arriving = run / ".arriving-run.html"
    arriving.write_text(page(config, lines, samples, steps=steps, mixtures=names))
    arriving.replace(run / "run.html")


def visible_text(text: str) -> str:
    """The text with what is invisible or turns the reading order written out; shortened."""
    shown = terminal.visible_text(text[:CHARACTERS])
    more = len(text) - CHARACTERS
    return shown + (f" ... ({more:,} characters more)" if more > 0 else "")


def human_value(number: float | None) -> str:
    """Three decimals; nothing where there is no number."""
    return "" if number is None else f"{number:.3f}"


def components(lines: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    """The components whose losses the lines hold, in order of their names."""
    names = {name for line in lines for name in line[key] if name.startswith("component/")}
    return sorted(names)


def losses(
    logged: Sequence[Mapping[str, Any]], held: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Per component: its first and last loss of training, and the first and last held-out one."""
    names = sorted({*components(logged, "losses"), *components(held, "held_out")})
    rows = []
    for number, name in enumerate(["all", *names]):
        key = "mean_loss" if name == "all" else name
        seen = [
            (line if name == "all" else line["losses"])[key]
            for line in logged
            if name == "all" or name in line["losses"]
        ]
        kept = [line["held_out"][name] for line in held if name in line["held_out"]]
        rows.append(
            {
                "name": name.removeprefix("component/"),
                "series": (number - 1) % len(SERIES) if number else -1,
                "dash": (number - 1) // len(SERIES) % len(DASHES) if number else 0,
                "first": seen[0] if seen else None,
                "last": seen[-1] if seen else None,
                "held_first": kept[0] if len(kept) > 1 else None,
                "held_last": kept[-1] if kept else None,
            }
        )
    return rows


def plots(
    logged: Sequence[Mapping[str, Any]], held: Sequence[Mapping[str, Any]]
) -> list[dict[str, str]]:
    """Title, note and SVG of the curves, all over the tokens trained on."""
    tokens = [line["tokens"] for line in logged]
    steps = [line["step"] for line in logged]
    names = sorted({*components(logged, "losses"), *components(held, "held_out")})
    trained = {
        name: downsample(*_where(tokens, [line["losses"].get(name) for line in logged]))
        for name in names
    }
    at = np.interp([line["step"] for line in held], steps, tokens).tolist() if held else []
    kept = {name: _where(at, [line["held_out"].get(name) for line in held]) for name in names}
    rates = {
        tower: downsample(tokens, [line["lr"][tower] for line in logged])
        for tower in logged[0]["lr"]
    }
    speeds = {
        "tokens": downsample(tokens, [line["tokens_per_second"] for line in logged]),
        "learned": downsample(tokens, [line["learned_tokens_per_second"] for line in logged]),
    }
    drawn = [
        ("Loss per component", "per learned token; rings: held out", names, trained, kept, False),
        ("Learning rate", "per tower", list(rates), rates, {}, True),
        ("Throughput", "tokens per second", list(speeds), speeds, {}, True),
        ("Norm of the gradient", "before clipping", ["all"],
         {"all": downsample(tokens, [line["gradient_norm"] for line in logged])}, {}, True),
    ]  # fmt: skip
    made = []
    for title, note, order, curves, marks, from_zero in drawn:
        svg = _lines(order, curves, marks, title=title, from_zero=from_zero)
        keys = [(name.removeprefix("component/"), k) for k, name in enumerate(order)]
        made.append({"title": title, "note": note, "svg": svg, "keys": _legend(keys)})
    return made


def _legend(names: list[tuple[str, int]]) -> Any:
    if len(names) < 2:
        return []
    return [(name, k % len(SERIES), k // len(SERIES) % len(DASHES)) for name, k in names]


def _where(x: Sequence[float], y: Sequence[float | None]) -> Curve:
    both = [(a, b) for a, b in zip(x, y, strict=True) if b is not None]
    return [a for a, _ in both], [b for _, b in both]


def downsample(x: Sequence[float], y: Sequence[float]) -> Curve:
    """The curve in at most POINTS points, each the mean of equally many (to one) neighbours."""
    count = min(POINTS, len(x))
    if count == 0:
        return [], []
    parts = [np.array_split(np.asarray(values, dtype=np.float64), count) for values in (x, y)]
    return [float(p.mean()) for p in parts[0]], [float(p.mean()) for p in parts[1]]


def _lines(
    names: Sequence[str],
    curves: Mapping[str, Curve],
    marks: Mapping[str, Curve],
    *,
    title: str,
    from_zero: bool,
) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 2.8))
    axes = figure.add_axes((0.13, 0.18, 0.84, 0.78))
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9, length=0)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    for k, name in enumerate(names):
        colour, dash = SERIES[k % len(SERIES)], DASHES[k // len(SERIES) % len(DASHES)]
        axes.plot(*curves[name], color=colour, linestyle=dash, linewidth=1.6)
        if name in marks:
            axes.plot(*marks[name], "o", mfc="none", mec=colour, markersize=5)
    axes.set_xlabel("tokens trained on", color=INK, fontsize=9)
    axes.xaxis.set_major_formatter(lambda number, _: human_number(number))
    axes.yaxis.set_major_formatter(lambda number, _: human_number(number))
    if from_zero:
        axes.set_ylim(bottom=0)
    return _svg(figure, label=title)


def human_number(number: float) -> str:
    """The number in few characters: 2e-05, 0.15, 12, 1.5M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def _svg(figure: Any, *, label: str) -> str:
    """The figure as an inline element that takes its place's width and its page's colours."""
    import matplotlib as mpl

    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"font: (?:[\w ]*?)([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = text.replace(INK, "currentColor").replace(FAINT, "var(--faint)")
    for number, stand_in in enumerate(SERIES):
        text = text.replace(stand_in, f"var(--c{number})")
    opening = rf'<svg role="img" aria-label="{label}" viewBox="\1">'
    return re.sub(r'<svg .*?viewBox="([^"]*)"[^>]*>', opening, text, count=1, flags=re.DOTALL)


def _view(sample: ShownSample, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    answers = [
        (line["step"], line["said"][sample.id])
        for line in lines
        if sample.id in line.get("said", {})
    ]
    side = STILL if len(sample.images) == 1 else FRAME
    return {
        "id": sample.id,
        "component": sample.component,
        "question": sample.question,
        "expected": sample.expected,
        "answers": spread(answers, CHECKPOINTS),
        "images": [copy_of(data, side) for data in sample.images[:FRAMES]],
        "more": max(0, len(sample.images) - FRAMES),
    }


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of the items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(k * (len(items) - 1) / (most - 1))] for k in range(most)]


def copy_of(data: bytes, side: int) -> dict[str, Any]:
    """A small copy of the image as a data URL, and its own size in px."""
    from tokenization.images import open_image

    image = open_image(data)
    width, height = image.size
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80)
    source = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {"source": source, "width": width, "height": height}
