"""RUN/run.html: a run to look at, in one file without script that needs no network.

log.jsonl + a few val samples --> curves (matplotlib's SVG, coloured by the page: light and dark)
                                  and what the model said to the same samples at each checkpoint

The page is a pure function of the log, the settings and the samples. Text of datasets and models
reaches it only through autoescaping.
"""

import base64
import dataclasses
import importlib.metadata
import io
import json
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokenization import pages, terminal
from tokenization.pages import DASHES, INK, SERIES, Style, place_styles, short_number
from trainer.config import Config
from trainer.data.shards import Mixture
from trainer.evaluation.generations import NEW_TOKENS, ShownSample
from trainer.monitoring.watch import human_count

TEMPLATE = Path(__file__).with_name("page.html.jinja")
POINTS = 200
"""Of a curve, at most: more are averaged."""
STILL, FRAME, FRAMES = 384, 144, 8
"""px, the longer side of an image's copy and of one of several; how many of those are shown."""
CHECKPOINTS = 8
"""Whose answers are shown: the first, the last and some between."""
CHARACTERS = 1500
"""Of a prompt or an answer, at most."""
MARK = 50
"""Of them, kept for saying how many are left out of a prompt."""
FRAME_LINE = r"\s*Frame from \d\d+:\d\d:\[image\]"
MANY_FRAMES = re.compile(
    rf"(?P<first>{FRAME_LINE})(?P<more>(?:{FRAME_LINE}){{2,}})(?={FRAME_LINE})"
)
"""Of a video: the question comes after them."""
PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pillow", "pyarrow")
"""Whose versions are stated: what of them computes."""
Curve = tuple[Sequence[float], Sequence[float]]
"""x and y."""


def page(
    config: Config,
    lines: Sequence[Mapping[str, Any]],
    samples: Sequence[ShownSample],
    *,
    steps: int,
    mixtures: Sequence[str],
    orders: Sequence[Sequence[str]] = (),
    versions: Mapping[str, str] | None = None,
) -> str:
    """The page of a run whose log holds `lines`.

    `mixtures` are their names and fingerprints, `orders` of each its components in its own order,
    which gives them their colours; `versions` what the run is computed with.
    """
    logged = [line for line in lines if "loss" in line]
    held = [line for line in lines if "held_out" in line]
    shown = [*loss_names(logged, held), *(sample.component for sample in samples)]
    styles = place_styles(orders, sorted(set(shown)))
    names = in_order(loss_names(logged, held), styles)
    return pages.template(
        TEMPLATE, visible=visible_text, people=human_count, value=human_value
    ).render(
        config=config,
        mixtures=mixtures,
        steps=steps,
        colours=pages.css(),
        styles=styles,
        last=logged[-1] if logged else None,
        table=losses(names, logged, held),
        plots=plots(logged, held, styles) if len(logged) > 1 else [],
        new_tokens=NEW_TOKENS,
        samples=[_view(sample, lines) for sample in samples],
        settings=settings(config),
        versions=versions or {},
    )


def write(
    run: Path,
    config: Config,
    samples: Sequence[ShownSample],
    *,
    steps: int,
    mixtures: Sequence[Mixture],
    device: str,
) -> None:
    """RUN/run.html shows what RUN/log.jsonl holds; `device` is the name of what computes."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    arriving = run / ".arriving-run.html"
    arriving.write_text(
        page(
            config,
            lines,
            samples,
            steps=steps,
            mixtures=[f"{mixture.name} ({mixture.fingerprint})" for mixture in mixtures],
            orders=[list(mixture.recipe["mixture"].get("components", {})) for mixture in mixtures],
            versions=versions(device),
        )
    )
    arriving.replace(run / "run.html")


def versions(device: str) -> dict[str, str]:
    """What a run on `device` is computed with: this project, Python, packages, the machine."""
    stated = {}
    for name in ("smolvlm-pipelines", *PACKAGES):
        try:
            stated[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            stated[name] = "not installed as a package"
    return {**stated, "python": platform.python_version(), "device": device}


def settings(config: Config) -> list[tuple[str, str, bool]]:
    """Every setting by its dotted key, its value, and whether it is not the default."""
    default = dict(_dotted(dataclasses.asdict(Config())))
    return [
        (key, _written(value), key not in default or value != default[key])
        for key, value in _dotted(dataclasses.asdict(config))
    ]


def _dotted(values: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found += _dotted(value, f"{before}{key}.")
        else:
            found.append((f"{before}{key}", value))
    return found


def _written(value: Any) -> str:
    """As in YAML: `true`, `[a, b]`; nothing for an empty text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    return "" if value == {} else str(value)


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
    return sorted(name.removeprefix("component/") for name in names)


def losses(
    names: Sequence[str], logged: Sequence[Mapping[str, Any]], held: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Of all and of each component: its first and last loss of training, and the held-out ones."""
    rows = []
    for name in ("all", *names):
        seen = _where(*_trained(name, logged))[1]
        key = name if name == "all" else f"component/{name}"
        kept = [line["held_out"][key] for line in held if key in line["held_out"]]
        rows.append(
            {
                "name": "" if name == "all" else name,
                "first": seen[0] if seen else None,
                "last": seen[-1] if seen else None,
                "held_first": kept[0] if len(kept) > 1 else None,
                "held_last": kept[-1] if kept else None,
            }
        )
    return rows


def _trained(name: str, logged: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[Any]]:
    """Tokens trained on, and the loss of a component (of all: "all") where it was measured."""
    key = f"component/{name}"
    values = [line["mean_loss"] if name == "all" else line["losses"].get(key) for line in logged]
    return [line["tokens"] for line in logged], values


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A curve of a plot."""

    name: str
    curve: Curve
    colour: str = INK
    dash: str = "-"
    rings: Curve = ((), ())
    """Drawn as rings beside the curve."""


def loss_names(logged: Sequence[Mapping[str, Any]], held: Sequence[Mapping[str, Any]]) -> list[str]:
    """The components of which a loss is logged, by name."""
    return sorted({*components(logged, "losses"), *components(held, "held_out")})


def in_order(names: Sequence[str], styles: Mapping[str, Style]) -> list[str]:
    """The components in the order of their mixtures, as the report has them."""
    return [name for name in styles if name in names]


def plots(
    logged: Sequence[Mapping[str, Any]],
    held: Sequence[Mapping[str, Any]],
    styles: Mapping[str, Style],
) -> list[dict[str, Any]]:
    """Title, note and SVG of the curves, all over the tokens trained on.

    Components have their styles; what is no component is drawn in the text's, dashed apart.
    """
    names = in_order(loss_names(logged, held), styles)
    tokens = [line["tokens"] for line in logged]
    steps = [line["step"] for line in logged]
    at = np.interp([line["step"] for line in held], steps, tokens).tolist() if held else []

    def loss(name: str, style: Style | None) -> Drawn:
        key = name if name == "all" else f"component/{name}"
        rings = _where(at, [line["held_out"].get(key) for line in held])
        curve = downsample(*_where(*_trained(name, logged)))
        if style is None:
            return Drawn(name, curve, rings=rings)
        return Drawn(name, curve, style.ink, style.line, rings)

    def plain(curves: Mapping[str, Sequence[float]]) -> list[Drawn]:
        together: dict[tuple[float, ...], list[str]] = {}  # equal ones would hide each other
        for name, values in curves.items():
            together.setdefault(tuple(values), []).append(name)
        return [
            Drawn(", ".join(equal), downsample(tokens, values), dash=DASHES[k % len(DASHES)])
            for k, (values, equal) in enumerate(together.items())
        ]

    rates = {tower: [line["lr"][tower] for line in logged] for tower in logged[0]["lr"]}
    speeds = {
        "all": [line["tokens_per_second"] for line in logged],
        "learned": [line["learned_tokens_per_second"] for line in logged],
    }
    norm = {"all": [line["gradient_norm"] for line in logged]}
    nats = "nats per learned token"
    drawn = [
        ("Loss over all", "rings: held out", nats, [loss("all", None)], False),
        ("Loss per component", "rings: held out", nats,
         [loss(name, styles[name]) for name in names], False),
        ("Learning rate", "per tower", "step size of AdamW", plain(rates), True),
        ("Throughput", "without checkpoints and evaluations", "tokens per second",
         plain(speeds), True),
        ("Norm of the gradient", "before clipping", "nats per unit of weight", plain(norm), True),
    ]  # fmt: skip
    return [
        {
            "title": title,
            "note": note,
            "svg": _lines(curves, title=title, unit=unit, from_zero=from_zero),
            "keys": [
                (each.name, _css_key(each)) for each in curves if each.name != "all" or curves[1:]
            ],
        }
        for title, note, unit, curves, from_zero in drawn
        if curves
    ]


def _css_key(drawn: Drawn) -> tuple[str, int]:
    """Colour and dash of a curve's mark in a legend."""
    number = SERIES.index(drawn.colour) if drawn.colour in SERIES else -1
    return ("currentColor" if number < 0 else f"var(--c{number})", DASHES.index(drawn.dash))


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


def _lines(curves: Sequence[Drawn], *, title: str, unit: str, from_zero: bool) -> str:
    figure, axes = pages.bare_axes(5.2, 2.8)
    for each in curves:
        axes.plot(*each.curve, color=each.colour, linestyle=each.dash, linewidth=1.6)
        axes.plot(*each.rings, "o", mfc="none", mec=each.colour, markersize=5)
    axes.set_xlabel("tokens trained on", color=INK, fontsize=9)
    axes.set_ylabel(unit, color=INK, fontsize=9)
    axes.xaxis.set_major_formatter(lambda number, _: short_number(number))
    axes.yaxis.set_major_formatter(lambda number, _: short_number(number))
    if from_zero:
        axes.set_ylim(bottom=0)
    return pages.svg(figure, label=title)


def _view(sample: ShownSample, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    answers = [
        (line["step"], line["said"][sample.id])
        for line in lines
        if sample.id in line.get("said", {})
    ]
    side = STILL if len(sample.images) == 1 else FRAME
    times = sample.times or ("",) * len(sample.images)
    return {
        "id": sample.id,
        "component": sample.component,
        "modality": sample.modality.replace("_", "-"),
        "question": short_prompt(sample.question),
        "expected": sample.expected,
        "answers": spread(answers, CHECKPOINTS),
        "images": [
            {**copy_of(data, side), "when": when}
            for data, when in list(zip(sample.images, times, strict=True))[:FRAMES]
        ],
        "more": max(0, len(sample.images) - FRAMES),
    }


def short_prompt(text: str) -> str:
    """The prompt with all frames of a video but the first and the last counted, and what is too
    long cut from its middle: what is asked stands at its end.
    """

    def counted(match: re.Match[str]) -> str:
        return f"{match['first']}\n[... {len(re.findall(FRAME_LINE, match['more']))} frames more]"

    text = MANY_FRAMES.sub(counted, text)
    if len(text) <= CHARACTERS:
        return text
    half = (CHARACTERS - MARK) // 2
    return f"{text[:half]} [... {len(text) - 2 * half:,} characters more] {text[-half:]}"


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
