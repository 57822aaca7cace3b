"""The page of a search: one self-contained file with predicted against measured, effects, cost.

result (as result.json has it) --page--> HTML
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from tokenization.pages import INK, PLAIN, bare_axes, css, svg
from trainer.search.proxies import advice
from trainer.search.target import named
from trainer.search.verification import known_at_both

STYLE = """
body { background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif;
       max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { padding: .2rem .8rem; text-align: right; }
td:first-child, th:first-child { text-align: left; } th { border-bottom: 1px solid var(--faint); }
svg { max-width: 30rem; height: auto; }
"""


def conclusion(result: Mapping[str, Any]) -> str:
    """What the verification shows, in a sentence; one more of a larger size."""
    if not result["verified"]:
        return "The proposal was not verified (seeds=0)."
    told = _shown(result["verified"])
    if larger := result.get("larger"):
        told += f" At the larger size: {_shown(larger['verified'])} {_ranked(larger)}"
    return told


def _ranked(larger: Mapping[str, Any]) -> str:
    correlation = larger["rank_correlation"]
    if correlation is None:
        return "How alike the sizes rank ratios is not known: too few points."
    number = len(known_at_both(larger["points"]))
    return f"The sizes rank {number} mixtures with a correlation of {correlation:.2f} (Spearman)."


def _shown(verified: Mapping[str, Any]) -> str:
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
            ["component", "prior", *_columns(result)],
            [[n, _share(result["prior"][n]), *_shares(r)] for n, r in result["proposal"].items()],
        ),
        f"<p>The target, which is to be low: the weighted mean of "
        f"{escape(named(result['target'], result['benchmarks']))}.</p>",
        f"<p>Predicted target {result['predicted']['target']:.4f} "
        f"(&plusmn; {100 * result['predicted']['spread']:.1f} %).</p>",
        "<h2>Verified with fresh seeds</h2>",
        _verified(result["verified"]),
        *_larger(result),
        "<h2>Predicted against measured</h2>",
        _scatter(measured, model["left_out"][-len(measured) :], ("measured target", "predicted")),
        f"<p>Each of {len(measured)} points predicted from the others: error "
        f"{100 * model['error']:.2f} %, rank correlation {model['rank_correlation']:.2f}. "
        f"{escape(advice(result['parameters']))}</p>",
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
        f"<p>{escape(_budget(result['budget']))}</p>",
        "<h2>Runs</h2>",
        _table(
            ["target", *result["proposal"]],
            [[f"{run['target']:.4f}", *(" > ".join(_shares(r)) for r in run["ratios"].values())]
             for run in sorted(result["runs"], key=lambda run: run["target"])],
        ),
        *_failed(result["failed"]),
    ]  # fmt: skip
    head = f'<meta charset="utf-8"><title>{escape(name)}</title><style>{css()}{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>'


def _budget(budget: Mapping[str, Any]) -> str:
    """What ended the search, and whether it would end there again."""
    if budget["hours"] is None:
        return f"The budget was {budget['runs']} runs."
    return (
        f"The budget was {budget['hours']:g} hours, of which {budget['tried']} runs took "
        f"{budget['seconds'] / 3600:.2f} with all that was built and judged for them; the "
        "verification is not in it. How many runs fit was measured: another machine, or another "
        "hour, would have ended elsewhere. Said again this search ends here, by the times that "
        "were kept."
    )


def _failed(failed: Sequence[Mapping[str, Any]]) -> list[str]:
    if not failed:
        return []
    rows = [[f["run"], str(f["seed"]), f["why"]] for f in failed]
    return ["<h2>Runs that failed</h2>", _table(["", "seed", "why"], rows)]


def _columns(result: Mapping[str, Any]) -> list[str]:
    stages = result["stages"]
    return ["proposal"] if stages == 1 else [f"stage {n + 1}" for n in range(stages)]


def _shares(ratio: float | list[float]) -> list[str]:
    return [_share(each) for each in (ratio if isinstance(ratio, list) else [ratio])]


def _larger(result: Mapping[str, Any]) -> list[str]:
    """The verification at the larger size, and how alike the two rank."""
    larger = result.get("larger")
    if not larger:
        return []
    known = [p for p in larger["points"] if None not in (p["proxy"], p["larger"])]
    size = f"{larger['parameters'] or 0:,} parameters, {larger['tokens']:,} tokens a run"
    return [
        f"<h2>At a larger size: {escape(larger['config'])}, {size}</h2>",
        _verified(larger["verified"]),
        f"<p>{escape(_ranked(larger))} Arms are means over seeds, runs of the search one seed.</p>",
        _scatter(
            [p["proxy"] for p in known], [p["larger"] for p in known],
            ("target at the size of the search", "at the larger size"), equal=False,
        ),
        _table(
            ["", "size of the search", "larger size"],
            [[p["name"], _number(p["proxy"]), _number(p["larger"])] for p in larger["points"]],
        ),
    ]  # fmt: skip


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


def _scatter(
    across: Sequence[float], up: Sequence[float], names: tuple[str, str], *, equal: bool = True
) -> str:
    """A point for each pair; where they should be equal, the line of that."""
    figure, axes = bare_axes(4.4, 3.2)
    if equal:
        ends = [min([*across, *up]), max([*across, *up])]
        axes.plot(ends, ends, color=PLAIN, linewidth=0.8)
    axes.plot(np.array(across), np.array(up), color=INK, linestyle="none", marker="o", ms=4)
    axes.set_xlabel(names[0], color=INK, fontsize=9)
    axes.set_ylabel(names[1], color=INK, fontsize=9)
    return svg(figure, label=f"{names[1]} against {names[0]}")
