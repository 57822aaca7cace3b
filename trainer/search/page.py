"""The page of a search: one self-contained file with predicted against measured, effects, cost.

result (as result.json has it) --page--> HTML
"""

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from tokenization.pages import INK, PLAIN, bare_axes, css, svg

STYLE = """
body { background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif;
       max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { padding: .2rem .8rem; text-align: right; }
td:first-child, th:first-child { text-align: left; } th { border-bottom: 1px solid var(--faint); }
svg { max-width: 30rem; height: auto; }
"""


def conclusion(result: Mapping[str, Any]) -> str:
    """What the verification shows, in a sentence."""
    verified = result["verified"]
    if not verified:
        return "The proposal was not verified (seeds=0)."
    found = verified["proposal"]
    if found["verdict"] == "better":
        low, high = found["interval"]
        return (
            f"The proposal is better than the prior: {found['difference']:+.4f} "
            f"({low:+.4f} to {high:+.4f}) over {len(found['targets'])} fresh seeds."
        )
    return (
        f"Nothing is shown to beat the prior: the proposal's difference is "
        f"{_number(found['difference'], '+.4f')}, beside a spread of "
        f"{_number(verified['prior']['spread'])} over "
        f"{len(found['targets'])} seeds ({found['verdict']})."
    )


def page(result: Mapping[str, Any], *, name: str) -> str:
    """The whole page."""
    model = result["model"]
    measured = [run["target"] for run in result["runs"]]
    parts = [
        f"<h1>Search of ratios: {escape(name)}</h1>",
        f"<p><b>{escape(conclusion(result))}</b></p>",
        "<h2>Proposal</h2>",
        _table(
            ["component", "prior", "proposal"],
            [[n, _share(result["prior"][n]), _share(r)] for n, r in result["proposal"].items()],
        ),
        f"<p>Predicted target {result['predicted']['target']:.4f} "
        f"(&plusmn; {100 * result['predicted']['spread']:.1f} %).</p>",
        "<h2>Verified with fresh seeds</h2>",
        _verified(result["verified"]),
        "<h2>Predicted against measured</h2>",
        _scatter(measured, model["left_out"][-len(measured) :]),
        f"<p>Each of {len(measured)} points predicted from the others: error "
        f"{100 * model['error']:.2f} %, rank correlation {model['rank_correlation']:.2f}. "
        "What small proxies say of large models: Olmix (arXiv 2602.12237) measured a rank "
        "correlation with 1 B of 0.73 at 1 M parameters and above 0.89 from 15 M on.</p>",
        "<h2>What each component does</h2>",
        _effects(result["effects"]),
        "<p>Change of the target where the ratio doubles at the proposal and all others shrink "
        "alike, as the model sees it, with its uncertainty.</p>",
        "<h2>Cost</h2>",
        _table(
            ["", "runs", "tokens", "CPU seconds"],
            [[word, f"{c['runs']}", f"{c['tokens']:,}", f"{c['cpu_seconds']:,}"]
             for word, c in (("search", result["search_cost"]), ("with verification",
                                                                 result["cost"]))],
        ),
        "<h2>Runs</h2>",
        _table(
            ["target", *result["proposal"]],
            [[f"{run['target']:.4f}", *map(_share, run["ratios"].values())]
             for run in sorted(result["runs"], key=lambda run: run["target"])],
        ),
    ]  # fmt: skip
    head = f'<meta charset="utf-8"><title>{escape(name)}</title><style>{css()}{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>'


def _number(value: float | None, form: str = ".4f") -> str:
    return "not finite" if value is None else format(value, form)


def _share(ratio: float) -> str:
    return f"{100 * ratio:.2f} %"


def _table(head: list[str], rows: list[list[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _verified(verified: Mapping[str, Any]) -> str:
    rows = []
    for name, arm in verified.items():
        interval = "" if arm["interval"] is None else "{:+.4f} to {:+.4f}".format(*arm["interval"])
        rows.append([name, _number(arm["mean"]), _number(arm["spread"]),
                     _number(arm["difference"], "+.4f"), interval,
                     "" if name == "prior" else arm["verdict"]])  # fmt: skip
    head = ["", "mean", "spread", "to the prior", "95 % interval", "verdict"]
    return _table(head, rows) if rows else ""


def _effects(effects: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        [name, f"{100 * e['doubled']:+.2f} %", f"{100 * e['spread']:.2f}"]
        for name, e in effects.items()
    ]
    return _table(["component", "doubled", "uncertainty"], rows)


def _scatter(measured: list[float], predicted: list[float]) -> str:
    figure, axes = bare_axes(4.4, 3.2)
    ends = [min([*measured, *predicted]), max([*measured, *predicted])]
    axes.plot(ends, ends, color=PLAIN, linewidth=0.8)
    axes.plot(
        np.array(measured), np.array(predicted), color=INK, linestyle="none", marker="o", ms=4
    )
    axes.set_xlabel("measured target", color=INK, fontsize=9)
    axes.set_ylabel("predicted", color=INK, fontsize=9)
    return svg(figure, label="Predicted against measured")
